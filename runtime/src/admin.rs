//! The operator's HTTP listener: `/metrics`, `/healthz`, `/readyz`, and what a program adds. Loopback or a Unix socket only;
//! it shows no secrets and changes nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::drain::Drain;
use crate::limits;
use crate::uds::UdsListener;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why the admin listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It would be reachable from other machines.
    #[error("the admin listener `{0}` is not on a loopback address")]
    NotLoopback(SocketAddr),
    /// The kernel refused.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// What has to be so before a program takes work. Copies share one state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// Nothing is waited for: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whether one condition holds; naming it with `false` at the start makes it one that is waited for.
    pub fn set(&self, condition: &'static str, holds: bool) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(condition, holds);
    }

    /// The conditions that do not hold, in order.
    pub fn missing(&self) -> Vec<&'static str> {
        let conditions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        conditions
            .iter()
            .filter(|(_, holds)| !**holds)
            .map(|(name, _)| *name)
            .collect()
    }

    /// Whether every condition holds.
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }
}

#[derive(Clone)]
struct Shown {
    registry: Arc<Registry>,
    readiness: Readiness,
    drain: Drain,
}

/// The admin listener of one program.
#[derive(Debug)]
pub struct AdminServer {
    routes: Router,
    drain: Drain,
}

impl AdminServer {
    /// Shows these metrics and this readiness; not ready any more once drain has begun.
    pub fn new(registry: Arc<Registry>, readiness: Readiness, drain: Drain) -> Self {
        let shown = Shown {
            registry,
            readiness,
            drain: drain.clone(),
        };
        let routes = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .with_state(shown);
        Self { routes, drain }
    }

    /// Adds a program's own pages.
    #[must_use]
    pub fn merge(mut self, routes: Router) -> Self {
        self.routes = self.routes.merge(routes);
        self
    }

    /// Opens a TCP listener, if the address is a loopback one.
    pub async fn bind(address: SocketAddr) -> Result<TcpListener, AdminError> {
        if !address.ip().is_loopback() {
            return Err(AdminError::NotLoopback(address));
        }
        TcpListener::bind(address)
            .await
            .map_err(|source| AdminError::Listen { address, source })
    }

    /// Serves until drain begins.
    pub async fn serve_tcp(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            self.make_room(&mut connections).await;
            let accepted = tokio::select! {
                () = self.drain.started() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => {
                    connections.spawn(serve_connection(socket, self.routes.clone()));
                }
                Err(error) => rest(&error).await,
            }
        }
    }

    /// Serves until drain begins.
    pub async fn serve_uds(self, listener: UdsListener) {
        let mut connections = JoinSet::new();
        loop {
            self.make_room(&mut connections).await;
            let accepted = tokio::select! {
                () = self.drain.started() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, self.routes.clone()));
                }
                Err(error) => rest(&error).await,
            }
        }
    }

    /// Every connection has a deadline, so that a full house empties itself.
    async fn make_room(&self, connections: &mut JoinSet<()>) {
        while connections.try_join_next().is_some() {}
        while connections.len() >= limits::ADMIN_CONNECTIONS_MAX {
            connections.join_next().await;
        }
    }
}

async fn rest(error: &std::io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    sleep(limits::ACCEPT_REST).await;
}

async fn serve_connection<S>(stream: S, routes: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::ADMIN_DEADLINE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    match tokio::time::timeout(limits::ADMIN_DEADLINE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection failed"),
        Err(_) => tracing::debug!("admin connection took too long"),
    }
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &shown.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn readyz(State(shown): State<Shown>) -> Response {
    if shown.drain.is_started() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    let missing = shown.readiness.missing();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("waiting for: {}\n", missing.join(", ")),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut socket = tokio::net::TcpStream::connect(address)
            .await
            .expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("answer");
        answer
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        let readiness = Readiness::new();
        readiness.set("bundle", false);
        readiness.set("svid", false);
        let server = AdminServer::new(
            Arc::new(Registry::default()),
            readiness.clone(),
            Drain::new(),
        );
        let listener = AdminServer::bind(([127, 0, 0, 1], 0).into())
            .await
            .expect("bound");
        let address = listener.local_addr().expect("address");
        let serving = tokio::task::spawn(server.serve_tcp(listener));
        assert!(
            fetch(address, "/readyz")
                .await
                .contains("waiting for: bundle, svid")
        );
        readiness.set("bundle", true);
        readiness.set("svid", true);
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(address, "/metrics").await.contains("# EOF"));
        assert!(fetch(address, "/secret").await.starts_with("HTTP/1.1 404"));
        serving.abort();
    }

    #[tokio::test]
    async fn threat_66_the_admin_listener_is_on_loopback_only() {
        for address in ["0.0.0.0:0", "192.0.2.1:80", "[::]:0"] {
            let address = address.parse().expect("address");
            assert!(matches!(
                AdminServer::bind(address).await,
                Err(AdminError::NotLoopback(_))
            ));
        }
    }
}
