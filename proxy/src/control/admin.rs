//! The admin listener on loopback: health, readiness, metrics, the configuration in use, the live connections and the
//! state of fetched keys.
//!
//! It shows no key, no token and no policy text, and changes nothing.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::routing::get;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_runtime::drain::Drain;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::connections::ConnectionLine;
use crate::jwks::OriginLine;
use crate::limits;
use crate::route::Route;
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

/// Serves until the process ends, or until `handed_over` says that another process does.
pub async fn serve(
    listener: Option<TcpListener>,
    state: State,
    handed_over: impl Future<Output = bool> + Send + 'static,
) {
    let Some(listener) = listener else {
        return;
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/config", get(config))
        .route("/status", get(status))
        .route("/routes", get(routes))
        .route("/clusters", get(clusters))
        .route("/connections", get(connections))
        .route("/jwks", get(key_origins))
        .with_state(state);
    let until = async move {
        if !handed_over.await {
            std::future::pending::<()>().await;
        }
    };
    let served = axum::serve(listener, router).with_graceful_shutdown(until);
    if let Err(error) = served.await {
        tracing::error!(%error, "the admin listener failed");
    }
}

/// Why no calls are to be sent here; none when it is ready.
fn unready(state: &State) -> Option<&'static str> {
    match state.snapshot() {
        _ if state.0.drain.is_started() => Some("draining"),
        None => Some("no configuration from the agent yet"),
        Some(snapshot) if snapshot.is_expired(state.0.common.clock.now()) => {
            Some("the SVID has expired")
        }
        Some(_) => None,
    }
}

async fn ready(Extract(state): Extract<State>) -> (StatusCode, String) {
    match unready(&state) {
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        None => (StatusCode::OK, "ready\n".to_owned()),
    }
}

/// How the proxy is, in one object.
async fn status(Extract(state): Extract<State>) -> Json<Value> {
    let common = &state.0.common;
    let metrics = &common.metrics;
    let snapshot = state.snapshot();
    let of = |read: fn(&Snapshot) -> Value| snapshot.as_deref().map_or(Value::Null, read);
    let connections: usize = ask(&state, Question::Connections)
        .await
        .iter()
        .map(|(_, lines)| lines.len())
        .sum();
    Json(json!({
        "name": common.config.name,
        "version": env!("CARGO_PKG_VERSION"),
        "ready": unready(&state).is_none(),
        "reason": unready(&state),
        "agent_connected": metrics.agent_connected.get() == 1,
        "spiffe_id": of(|snapshot| snapshot.workload.as_str().into()),
        "svid_serial": of(|snapshot| snapshot.svid.serial.clone().into()),
        "svid_expires": of(|snapshot| snapshot.svid.expires_at.rfc3339().into()),
        "mesh_revision": of(|snapshot| snapshot.mesh_revision.into()),
        "bundle_sequence": of(|snapshot| snapshot.bundle_sequence.into()),
        "denylist_number": of(|snapshot| snapshot.denylist.number().into()),
        "workers": common.config.worker_count(),
        "connections": connections,
        "series": metrics.series.len(),
        "decisions_lost": metrics.decisions_lost.get(),
        "access_log_lost": metrics.access_log_lost.get(),
        "spans_lost": metrics.spans_lost.get(),
    }))
}

/// Every service that calls can be sent to.
async fn routes(Extract(state): Extract<State>) -> Json<Vec<Value>> {
    let Some(snapshot) = state.snapshot() else {
        return Json(Vec::new());
    };
    let mut routes: Vec<_> = snapshot.routes.all().collect();
    routes.sort_by(|left, right| left.service.cmp(&right.service));
    let line = |route: &Arc<Route>| {
        let expected: Vec<&str> = route.expected.iter().map(SpiffeId::as_str).collect();
        json!({
            "service": route.service,
            "endpoints": route.endpoints,
            "expected": expected,
        })
    };
    Json(routes.into_iter().map(line).collect())
}

/// The endpoints that each worker has called, and whether they can be.
async fn clusters(Extract(state): Extract<State>) -> Json<Vec<Value>> {
    let mut lines = Vec::new();
    for (worker, clusters) in ask(&state, Question::Clusters).await {
        lines.extend(clusters.into_iter().map(|line| {
            json!({
                "worker": worker,
                "service": line.service,
                "endpoint": line.endpoint,
                "connected": line.is_connected,
                "paused": line.is_paused,
            })
        }));
    }
    Json(lines)
}

/// Asks every worker; one that does not answer in time is left out.
async fn ask<T>(state: &State, question: fn(oneshot::Sender<T>) -> Question) -> Vec<(usize, T)> {
    let mut answers = Vec::new();
    for (worker, questions) in state.0.questions.iter().enumerate() {
        let (reply, answer) = oneshot::channel();
        if questions.try_send(question(reply)).is_err() {
            continue;
        }
        if let Ok(Ok(answer)) = timeout(limits::ADMIN_DEADLINE, answer).await {
            answers.push((worker, answer));
        }
    }
    answers
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
    let answers = ask(&state, Question::Connections).await;
    let line = |(worker, connections)| WorkerLine {
        worker,
        connections,
    };
    Json(answers.into_iter().map(line).collect())
}
