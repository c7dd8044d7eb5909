//! An application behind a proxy: tells what it received, one `name: value` a line after the request line.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

pub struct App {
    pub address: SocketAddr,
    pub calls: Arc<AtomicU64>,
    pub task: Option<AbortOnDrop>,
}

/// Ends what serves with its owner.
pub struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl App {
    pub async fn http() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, Arc::default())
    }

    /// Breaks every connection off, stays away for a while, and comes back at the same address.
    pub async fn restart(&mut self, away: std::time::Duration) {
        let mut task = self.task.take().unwrap();
        task.0.abort();
        // Its end is what matters, not that it was aborted.
        let _ = (&mut task.0).await;
        // An outage of this length is what the test is about.
        tokio::time::sleep_until(tokio::time::Instant::now() + away).await;
        let listener = TcpListener::bind(self.address).await.unwrap();
        *self = Self::serve(listener, Arc::clone(&self.calls));
    }

    fn serve(listener: TcpListener, calls: Arc<AtomicU64>) -> Self {
        let address = listener.local_addr().unwrap();
        let counter = Arc::clone(&calls);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                let service = service_fn(move |request| {
                    counter.fetch_add(1, Ordering::Relaxed);
                    echo(request)
                });
                connections.spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self {
            address,
            calls,
            task: Some(AbortOnDrop(task)),
        }
    }

    /// Sends back every byte.
    pub async fn tcp() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(count) = stream.read(&mut buffer).await {
                        if count == 0 || stream.write_all(&buffer[..count]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            address,
            calls: Arc::default(),
            task: Some(AbortOnDrop(task)),
        }
    }
}

/// `/slow` sends its head and one chunk, and never ends; `/items/switch` answers 101.
async fn echo(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    if request.uri().path() == "/slow" {
        let first = futures_util::stream::once(async { Ok(Frame::data(Bytes::from("first\n"))) });
        let endless = first.chain(futures_util::stream::pending());
        return Ok(Response::new(BodyExt::boxed(StreamBody::new(endless))));
    }
    if request.uri().path() == "/items/switch" {
        let mut response = Response::new(Full::new(Bytes::new()).boxed());
        *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        for (name, value) in [("connection", "upgrade"), ("upgrade", "other")] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        return Ok(response);
    }
    let (parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let mut text = format!("{} {}\n", parts.method, parts.uri);
    for (name, value) in &parts.headers {
        text.push_str(&format!(
            "{name}: {}\n",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    text.push_str(&format!("body: {}\n", String::from_utf8_lossy(&body)));
    Ok(Response::new(Full::new(Bytes::from(text)).boxed()))
}
