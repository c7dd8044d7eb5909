//! The server side of HTTP for both directions: strict limits, one connection to its end or to the order to end.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout};

use crate::body::ProxyBody;
use crate::connections::{Order, Registered};
use crate::limits;
use crate::local::LocalExecutor;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How one connection is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1, as negotiated or as the first bytes say; the next head may take this long.
    Http1 {
        /// From the end of the handshake, or of the last response, to the end of the next head.
        head_deadline: Duration,
    },
    /// HTTP/2.
    Http2,
}

/// Serves one connection until it and its tunnels have ended, obeying the orders of its registration.
pub async fn serve<I, S>(stream: I, version: Version, service: S, registered: &Registered)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<ProxyBody>, Error = Infallible> + 'static,
    S::Future: 'static,
{
    let stream = TokioIo::new(stream);
    match version {
        Version::Http1 { head_deadline } => {
            let is_closing = Rc::new(Cell::new(false));
            let service = announcing(service, Rc::clone(&is_closing));
            let connection = http1(head_deadline)
                .serve_connection(stream, service)
                .with_upgrades();
            let shut_down = http1::UpgradeableConnection::graceful_shutdown;
            obey(connection, shut_down, Some(&is_closing), registered).await;
        }
        Version::Http2 => {
            let connection = http2().serve_connection(stream, service);
            let shut_down = http2::Connection::graceful_shutdown;
            obey(connection, shut_down, None, registered).await;
        }
    }
    // INVARIANT: a tunnel is judged, and counts as a connection, until it ends; HTTP/1.1 lets go of it at once.
    registered.connection().tunnels_ended().await;
}

/// Drives a connection to its end. `is_closing`: responses can say that they are the last.
async fn obey<C>(
    connection: C,
    shut_down: impl Fn(Pin<&mut C>),
    is_closing: Option<&Cell<bool>>,
    registered: &Registered,
) where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = std::pin::pin!(connection);
    let mut orders = registered.connection().orders();
    let mut last_call = std::pin::pin!(sleep(Duration::MAX));
    loop {
        let changed = tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            // WHY: far away until the connection is to end.
            () = last_call.as_mut() => {
                last_call.as_mut().reset(Instant::now() + limits::LAST_CALL_WAIT);
                shut_down(connection.as_mut());
                continue;
            }
            changed = orders.changed() => changed,
        };
        let order = *orders.borrow_and_update();
        match order {
            Order::Serve if changed.is_ok() => {}
            Order::Serve | Order::Drain => match is_closing {
                None => shut_down(connection.as_mut()),
                // WHY: HTTP/1.1 can tell its end only in a response. An idle connection that closes may meet a call that is
                // already on its way; so the next response says that it is the last, and only silence is closed on.
                Some(is_closing) => {
                    is_closing.set(true);
                    last_call
                        .as_mut()
                        .reset(Instant::now() + limits::LAST_CALL_WAIT);
                }
            },
            Order::End { grace, .. } => {
                shut_down(connection.as_mut());
                if timeout(grace, connection.as_mut()).await.is_err() {
                    tracing::debug!("connection cut");
                }
                return;
            }
        }
    }
}

/// The same service, whose responses say `connection: close` once `is_closing`.
fn announcing<S>(
    service: S,
    is_closing: Rc<Cell<bool>>,
) -> impl Service<Request<Incoming>, Response = Response<ProxyBody>, Error = Infallible, Future: 'static>
+ 'static
where
    S: Service<Request<Incoming>, Response = Response<ProxyBody>, Error = Infallible> + 'static,
    S::Future: 'static,
{
    service_fn(move |request: Request<Incoming>| {
        let is_closing = Rc::clone(&is_closing);
        let answered = service.call(request);
        async move {
            let mut response = answered.await?;
            if is_closing.get() && !response.status().is_informational() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok(response)
        }
    })
}

fn http1(head_deadline: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .max_buf_size(limits::HEAD_BYTES_MAX)
        .max_headers(limits::HEADERS_MAX)
        .header_read_timeout(head_deadline)
        .half_close(false);
    builder
}

fn http2() -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(limits::STREAMS_MAX)
        .max_send_buf_size(limits::STREAM_SEND_BYTES_MAX)
        .max_header_list_size(limits::HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(limits::RESET_STREAMS_PENDING_MAX)
        .max_local_error_reset_streams(limits::RESET_STREAMS_LOCAL_MAX)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(limits::H2_PING_EVERY)
        .keep_alive_timeout(limits::H2_PING_DEADLINE);
    builder
}

/// The target without scheme and authority.
pub fn origin_form(uri: &Uri) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(uri.path_and_query()?.clone());
    Uri::from_parts(parts).ok()
}

/// Keeps the caller's `x-request-id` where it is one printable word of bounded length, else sets `new`.
pub fn request_id(headers: &mut HeaderMap, new: impl FnOnce() -> HeaderValue) -> HeaderValue {
    let mut values = headers.get_all(&REQUEST_ID).iter();
    let only = match (values.next(), values.next()) {
        (Some(value), None) if is_request_id(value) => Some(value.clone()),
        (Some(_) | None, _) => None,
    };
    only.unwrap_or_else(|| {
        let id = new();
        headers.insert(REQUEST_ID, id.clone());
        id
    })
}

fn is_request_id(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= limits::REQUEST_ID_BYTES_MAX
        && bytes.iter().all(u8::is_ascii_graphic)
}

/// True when the head announces a body that is longer than what is passed on.
pub fn is_too_large(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok())
        .is_some_and(|length| length > limits::REQUEST_BODY_BYTES_MAX)
}
