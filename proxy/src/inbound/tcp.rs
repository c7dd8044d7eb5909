//! Plain bytes through mutual TLS: judged once by policy, and again on every change while the connection lives.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ravelin_policies::Connection;
use tokio::net::TcpStream;

use super::{Accepted, accept, custom, policy_connection, register, verdict};
use crate::config::InboundListener;
use crate::connections::Carried;
use crate::decision_log::{CallRecord, Outcome, Verdict};
use crate::open_tcp::OpenTcp;
use crate::relay;
use crate::trace::span::Side;
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
    let started = tokio::time::Instant::now();
    let mut record = CallRecord::new(Arc::clone(&accepted.facts), worker.now(), worker.call_id());
    let open = |meter| {
        let (worker, facts) = (Rc::clone(&worker), Arc::clone(&accepted.facts));
        OpenTcp::open(worker, Side::Inbound, facts, meter)
    };
    record.verdict = judge(&worker, &accepted, &connection).await;
    if !record.verdict.is_allowed {
        worker.metrics().refused("inbound", record.verdict.code);
        record.outcome = Outcome::Completed;
        open(None).failed(record.verdict.code);
        worker.decisions().write(record);
        return;
    }
    let registered = register(&worker, &accepted, "tcp", source, Carried::Tcp(connection));
    let mut open = open(Some(&accepted.meter(&worker)));
    let application = worker.application(inbound.forward, false);
    let dial = async || dial::tcp(inbound.forward).await;
    match application.outage().outlast(dial).await {
        Err(error) => {
            tracing::warn!(%error, "the application cannot be reached");
            record.outcome = Outcome::Failed;
            open.failed("upstream_unreachable");
        }
        Ok(application) => {
            let cut = registered.connection().ended();
            open.reached(inbound.forward, None);
            let relayed = relay::relay(accepted.stream, application, cut, open.meter());
            let (ended, carried) = relayed.await;
            open.ended(ended, carried);
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

/// CUSTOM first, then the other policies (rule 1).
async fn judge(worker: &Rc<Worker>, accepted: &Accepted, connection: &Connection) -> Verdict {
    let (snapshot, facts) = (&accepted.snapshot, &accepted.facts);
    let asked = custom::check_connection(worker, snapshot, facts, connection).await;
    let note = match asked {
        Ok(note) => note,
        Err(refused) => return refused,
    };
    let decision = snapshot.policies.authorize_tcp(connection, worker.now());
    let mut judged = verdict(worker, &decision);
    judged.reason = note.unwrap_or_default();
    judged
}
