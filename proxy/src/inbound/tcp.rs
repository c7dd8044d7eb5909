//! Plain bytes through mutual TLS: judged once by policy, and again on every change while the connection lives.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::{accept, policy_connection, register, verdict};
use crate::config::InboundListener;
use crate::connections::Carried;
use crate::decision_log::{CallRecord, Outcome};
use crate::relay;
use crate::upstream::dial;
use crate::worker::Worker;

/// Serves one connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    inbound: InboundListener,
    stream: TcpStream,
    source: SocketAddr,
) {
    let Some(accepted) = accept(&worker, &inbound, stream, source).await else {
        return;
    };
    let connection = policy_connection(&inbound, &accepted, source);
    let decision = accepted
        .snapshot
        .policies
        .authorize_tcp(&connection, worker.now());
    let started = tokio::time::Instant::now();
    let mut record = CallRecord::new(Arc::clone(&accepted.facts), worker.now(), worker.call_id());
    record.verdict = verdict(&worker, &decision);
    if !decision.is_allowed {
        worker.metrics().refused("inbound", decision.code);
        record.outcome = Outcome::Completed;
        worker.decisions().write(record);
        return;
    }
    let registered = register(&worker, &accepted, "tcp", source, Carried::Tcp(connection));
    let counters = worker.metrics().tcp(&accepted.labels("tcp"));
    match dial::tcp(inbound.forward).await {
        Err(error) => {
            tracing::warn!(%error, "the application cannot be reached");
            record.outcome = Outcome::Failed;
        }
        Ok(application) => {
            let orders = registered.connection().orders();
            let (ended, carried) = relay::relay(accepted.stream, application, orders).await;
            counters.count(carried.sent, carried.received);
            record.outcome = ended.outcome();
            if let relay::Ended::Cut(code) = ended {
                worker.metrics().refused("inbound", code);
                record.verdict.reason = format!("cut: {code}");
            }
        }
    }
    record.latency = started.elapsed();
    worker.decisions().write(record);
}
