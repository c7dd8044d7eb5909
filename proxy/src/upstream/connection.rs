//! Client connections of hyper, each driven by a task of its own on the worker's thread until it ends or is ordered to.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::dial::DialError;
use super::severable::{Cord, Severable};
use super::shared::{Settings, Shared};
use crate::body::RequestBody;
use crate::connections::{Order, Registered};
use crate::identity::Peer;
use crate::limits;
use crate::local::LocalExecutor;

/// Sets up HTTP/1.1 on `stream` and drives it in a task of its own, tunnels on it included.
pub(super) async fn open_http1<S>(
    address: SocketAddr,
    stream: S,
    registered: Option<Registered>,
) -> Result<http1::SendRequest<RequestBody>, DialError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(limits::HEAD_BYTES_MAX)
        .max_headers(limits::HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| DialError::Http { address, source })?;
    tokio::task::spawn_local(drive(connection.with_upgrades(), registered, || ()));
    Ok(sender)
}

/// Sets up HTTP/2 on `stream` and drives it in a task of its own.
pub(super) async fn open_http2<S>(
    address: SocketAddr,
    stream: S,
    registered: Option<Registered>,
    peer: Option<Rc<Peer>>,
) -> Result<Shared, DialError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let cord = Cord::default();
    let stream = Severable::new(stream, cord.clone());
    let (sender, mut connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .max_send_buf_size(limits::STREAM_SEND_BYTES_MAX)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits::HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(limits::H2_PING_EVERY)
        .keep_alive_timeout(limits::H2_PING_DEADLINE)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| DialError::Http { address, source })?;
    let settings = Settings::new();
    let live = registered.as_ref().map(|held| Rc::clone(held.connection()));
    let seen = Rc::clone(&settings);
    let watched = async move {
        loop {
            tokio::select! {
                result = &mut connection => return result,
                () = seen.wanted() => {}
            }
            seen.note(
                connection.current_max_send_streams(),
                connection.is_extended_connect_protocol_enabled(),
            );
        }
    };
    // WHY: hyper drives the streams of a client elsewhere; without its socket they end as well.
    tokio::task::spawn_local(drive(watched, registered, move || cord.sever()));
    Ok(Shared::new(sender, settings, live, peer))
}

/// Drives a connection to its end, or to the moment when it is ordered to end and `cut`.
async fn drive<C>(connection: C, registered: Option<Registered>, cut: impl FnOnce())
where
    C: Future<Output = hyper::Result<()>>,
{
    let Some(registered) = registered else {
        log_end(connection.await);
        return;
    };
    if obey(connection, &registered).await.is_err() {
        cut();
    }
    // INVARIANT: a tunnel is judged until it ends; HTTP/1.1 lets go of it at once.
    registered.connection().tunnels_ended().await;
}

/// The connection was ordered to end.
struct Ordered;

async fn obey<C>(connection: C, registered: &Registered) -> Result<(), Ordered>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = std::pin::pin!(connection);
    let mut orders = registered.connection().orders();
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                log_end(result);
                return Ok(());
            }
            changed = orders.changed() => {
                let order = *orders.borrow_and_update();
                match order {
                    // WHY: a draining connection gets no new request from the pool and ends with its last one.
                    Order::Serve | Order::Drain if changed.is_ok() => {}
                    Order::Serve | Order::Drain => {
                        log_end(connection.await);
                        return Ok(());
                    }
                    Order::End { grace, .. } => {
                        finish(connection.as_mut(), grace).await;
                        return Err(Ordered);
                    }
                }
            }
        }
    }
}

async fn finish<C: Future<Output = hyper::Result<()>>>(
    connection: std::pin::Pin<&mut C>,
    grace: Duration,
) {
    if let Ok(result) = timeout(grace, connection).await {
        log_end(result);
    }
}

fn log_end(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "upstream connection ended");
    }
}
