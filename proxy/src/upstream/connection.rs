//! Client connections of hyper, each driven by a task of its own on the worker's thread until it ends or is ordered to.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::dial::DialError;
use crate::body::RequestBody;
use crate::connections::{Order, Registered};
use crate::limits;
use crate::local::LocalExecutor;

/// Sets up HTTP/1.1 on `stream` and drives it in a task of its own.
pub(super) async fn open_http1<S>(
    address: SocketAddr,
    stream: S,
    registered: Option<Registered>,
) -> Result<http1::SendRequest<RequestBody>, DialError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(limits::HEAD_BYTES_MAX)
        .max_headers(limits::HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| DialError::Http { address, source })?;
    tokio::task::spawn_local(drive(connection, registered));
    Ok(sender)
}

/// Sets up HTTP/2 on `stream` and drives it in a task of its own.
pub(super) async fn open_http2<S>(
    address: SocketAddr,
    stream: S,
    registered: Registered,
) -> Result<http2::SendRequest<RequestBody>, DialError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(LocalExecutor)
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
    tokio::task::spawn_local(drive(connection, Some(registered)));
    Ok(sender)
}

/// Drives a connection to its end, or to the moment when it is ordered to end.
async fn drive<C>(connection: C, registered: Option<Registered>)
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = std::pin::pin!(connection);
    let Some(registered) = registered else {
        log_end(connection.await);
        return;
    };
    let mut orders = registered.connection().orders();
    loop {
        tokio::select! {
            result = connection.as_mut() => return log_end(result),
            changed = orders.changed() => {
                let order = *orders.borrow_and_update();
                match order {
                    // WHY: a draining connection gets no new request from the pool and ends with its last one.
                    Order::Serve | Order::Drain if changed.is_ok() => {}
                    Order::Serve | Order::Drain => return log_end(connection.await),
                    Order::End { grace, .. } => {
                        finish(connection.as_mut(), grace).await;
                        return;
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
