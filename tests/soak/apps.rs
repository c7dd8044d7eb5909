//! The applications: one that can be broken off at any moment and comes back at its address, and one that echoes bytes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// An HTTP application.
#[derive(Debug)]
pub(crate) struct App {
    address: SocketAddr,
    task: JoinSet<()>,
}

impl App {
    /// One at an address of its own.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(serve(listener));
        Self { address, task }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks off every connection, stays away for `away`, and comes back.
    pub(crate) async fn restart(&mut self, away: Duration) {
        self.task.shutdown().await;
        tokio::time::sleep(away).await;
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.task.spawn(serve(listener));
    }
}

async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                connections.spawn(async move {
                    // WHY: a peer that breaks its connection off is its own affair.
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service_fn(answer))
                        .await;
                });
            }
            // WHY: what has ended is let go of, so that half an hour of connections does not pile up here.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.uri().path().to_owned();
    let body = request.into_body().collect().await;
    let bytes = body.map_or(0, |body| body.to_bytes().len());
    let text = format!("{target} {bytes}");
    Ok(Response::new(Full::new(Bytes::from(text))))
}
