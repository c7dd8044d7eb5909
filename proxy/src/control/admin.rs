//! The admin listener on loopback: health, readiness, metrics, the configuration in use, the live connections and the
//! state of fetched keys.
//!
//! It shows no key, no token and no policy text.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::routing::get;
use ravelin_runtime::drain::Drain;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::connections::ConnectionLine;
use crate::jwks::OriginLine;
use crate::limits;
use crate::snapshot::Snapshot;
use crate::worker::{Common, Question};

/// What the admin listener reads.
#[derive(Clone, Debug)]
pub struct State(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    common: Arc<Common>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    questions: Vec<mpsc::Sender<Question>>,
    key_origins: watch::Receiver<Vec<OriginLine>>,
    drain: Drain,
}

impl State {
    /// Ties the listener to the process.
    pub fn new(
        common: Arc<Common>,
        snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        questions: Vec<mpsc::Sender<Question>>,
        key_origins: watch::Receiver<Vec<OriginLine>>,
        drain: Drain,
    ) -> Self {
        Self(Arc::new(Inner {
            common,
            snapshots,
            questions,
            key_origins,
            drain,
        }))
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.0.snapshots.borrow().clone()
    }
}

/// Serves until the process ends.
pub async fn serve(listener: Option<TcpListener>, state: State) {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/config", get(config))
        .route("/connections", get(connections))
        .route("/jwks", get(key_origins))
        .with_state(state);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin listener failed");
    }
    std::future::pending::<()>().await;
}

async fn ready(Extract(state): Extract<State>) -> (StatusCode, &'static str) {
    let reason = match state.snapshot() {
        _ if state.0.drain.is_started() => "draining\n",
        None => "no configuration from the agent yet\n",
        Some(snapshot) if snapshot.is_expired(state.0.common.clock.now()) => {
            "the SVID has expired\n"
        }
        Some(_) => return (StatusCode::OK, "ready\n"),
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason)
}

async fn metrics(Extract(state): Extract<State>) -> ([(&'static str, &'static str); 1], String) {
    const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [("content-type", FORMAT)],
        state.0.common.metrics.render(state.0.common.clock.now()),
    )
}

async fn config(Extract(state): Extract<State>) -> Json<Value> {
    let config = &state.0.common.config;
    let inbound: Vec<Value> = config
        .inbound
        .iter()
        .map(|inbound| json!({ "listen": inbound.listen, "forward": inbound.forward, "protocol": format!("{:?}", inbound.protocol) }))
        .collect();
    let in_use = state.snapshot().map(|snapshot| {
        json!({
            "spiffe_id": snapshot.workload.as_str(),
            "svid_serial": snapshot.svid.serial,
            "svid_expires": snapshot.svid.expires_at.rfc3339(),
            "x509_authority_id": snapshot.svid.authority_id,
            "mesh_revision": snapshot.mesh_revision,
            "bundle_sequence": snapshot.bundle_sequence,
            "denylist_number": snapshot.denylist.number(),
            "trust_domains": snapshot.bundles.trust_domains().map(ToString::to_string).collect::<Vec<_>>(),
            "hosts": snapshot.routes.len(),
        })
    });
    Json(json!({
        "name": config.name,
        "workers": config.worker_count(),
        "outbound": config.outbound,
        "inbound": inbound,
        "in_use": in_use,
    }))
}

async fn key_origins(Extract(state): Extract<State>) -> Json<Vec<OriginLine>> {
    Json(state.0.key_origins.borrow().clone())
}

#[derive(Serialize)]
struct WorkerLine {
    worker: usize,
    connections: Vec<ConnectionLine>,
}

async fn connections(Extract(state): Extract<State>) -> Json<Vec<WorkerLine>> {
    let mut lines = Vec::new();
    for (worker, questions) in state.0.questions.iter().enumerate() {
        let (reply, answer) = oneshot::channel();
        if questions.try_send(Question::Connections(reply)).is_err() {
            continue;
        }
        if let Ok(Ok(connections)) = timeout(limits::ADMIN_DEADLINE, answer).await {
            lines.push(WorkerLine {
                worker,
                connections,
            });
        }
    }
    Json(lines)
}
