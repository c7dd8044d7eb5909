//! An application that speaks both versions of HTTP, with the answers that HTTP has special rules for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::Notify;

pub type Body = BoxBody<Bytes, Infallible>;

pub struct AnyApp {
    pub address: SocketAddr,
    /// Lets `/items/events` go on.
    pub more: Arc<Notify>,
}

impl AnyApp {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let more = Arc::new(Notify::new());
        let gate = Arc::clone(&more);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let gate = Arc::clone(&gate);
                let service = service_fn(move |request| answer(request, Arc::clone(&gate)));
                tokio::spawn(async move {
                    // A caller that goes away is its own affair.
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, more }
    }
}

async fn answer(
    request: Request<Incoming>,
    gate: Arc<Notify>,
) -> Result<Response<Body>, Infallible> {
    let builder = Response::builder();
    let empty = || BodyExt::boxed(Empty::new());
    let response = match request.uri().path() {
        "/items/sized" if request.method() == Method::HEAD => {
            builder.header("content-length", "10").body(empty())
        }
        "/items/sized" => builder.body(Full::from("0123456789").boxed()),
        "/items/204" => builder.status(StatusCode::NO_CONTENT).body(empty()),
        "/items/304" => builder
            .status(StatusCode::NOT_MODIFIED)
            .header("etag", "\"7\"")
            .body(empty()),
        "/items/early" => builder
            .status(StatusCode::CONFLICT)
            .body(Full::from("too late").boxed()),
        "/items/events" => {
            let first = futures_util::stream::once(async { event("data: 1\n\n") });
            let second = futures_util::stream::once(async move {
                gate.notified().await;
                event("data: 2\n\n")
            });
            let body = StreamBody::new(first.chain(second));
            let builder = builder.header("content-type", "text/event-stream");
            builder.body(BodyExt::boxed(body))
        }
        _ => {
            // A caller that goes away gets no answer.
            let Ok(collected) = request.into_body().collect().await else {
                return Ok(Response::new(empty()));
            };
            let seen = collected.trailers().cloned().unwrap_or_default();
            let seen = seen.get("x-check").cloned();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-seen", seen.unwrap_or_else(|| "none".parse().unwrap()));
            let builder = builder.header("trailer", "x-seen");
            builder.body(with_trailers(collected.to_bytes(), trailers))
        }
    };
    Ok(response.unwrap())
}

/// A body whose length nobody knows: HTTP/1.1 has trailers after no other.
pub fn with_trailers(bytes: Bytes, trailers: HeaderMap) -> Body {
    let frames = [Frame::data(bytes), Frame::trailers(trailers)].map(Ok);
    BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)))
}

fn event(text: &'static str) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(Bytes::from(text)))
}
