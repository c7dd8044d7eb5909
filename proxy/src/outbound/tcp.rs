//! Plain TCP of the application to one service of the mesh, through mutual TLS.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::connections::{Carried, Direction, NewConnection};
use crate::decision_log::{CallRecord, ConnectionFacts, Outcome, Verdict};
use crate::identity::Peer;
use crate::open_tcp::OpenTcp;
use crate::relay;
use crate::route::{Addressed, Route};
use crate::snapshot::Snapshot;
use crate::trace::span::Side;
use crate::upstream::balancer::Cluster;
use crate::upstream::dial::{self, DialError};
use crate::worker::Worker;

/// Carries one connection to the service that is meant, whatever is spoken on it, and alters no byte.
pub async fn serve<S>(worker: Rc<Worker>, addressed: Addressed, stream: S, source: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(snapshot) = worker
        .snapshot()
        .filter(|snapshot| !snapshot.is_expired(worker.now()))
    else {
        worker.metrics().refused("outbound", "not_ready");
        return;
    };
    let facts = Arc::new(ConnectionFacts {
        workload: snapshot.workload.to_string(),
        protocol: "tcp",
        source: Some(source),
        ..ConnectionFacts::default()
    });
    let opened = |meter| {
        let (worker, facts) = (Rc::clone(&worker), Arc::clone(&facts));
        OpenTcp::open(worker, Side::Outbound, facts, meter)
    };
    let Some(route) = snapshot.routes.meant(&addressed, "").cloned() else {
        opened(None).failed("no_route");
        refused(&worker, &snapshot, &facts, "no_route");
        return;
    };
    let (peer_stream, peer) = match dial(&worker, &snapshot, &route).await {
        Ok(dialled) => dialled,
        Err(error) => {
            tracing::warn!(service = route.service, %error, "service cannot be reached");
            let mut open = opened(None).routed(&route);
            if error.is_untrusted() {
                open.failed("peer_untrusted");
                refused(&worker, &snapshot, &facts, "peer_untrusted");
            } else {
                open.failed("upstream_unreachable");
                worker.metrics().refused("outbound", "upstream_unreachable");
            }
            return;
        }
    };
    let registered = worker.connections().register(NewConnection {
        direction: Direction::Outbound,
        protocol: "tcp",
        address: source,
        opened: worker.now(),
        peer: Some(Rc::clone(&peer)),
        accepted_for: None,
        identity_generation: snapshot.identity_generation,
        mesh_revision: snapshot.mesh_revision,
        own_expires_at: Some(snapshot.svid.expires_at),
        carried: Carried::OutboundTcp,
    });
    worker.judge_one(registered.connection());
    let meter = super::meter(&worker, Some(&snapshot), Some(&route));
    let mut open = opened(Some(&meter)).routed(&route);
    let address = peer_stream.get_ref().0.peer_addr();
    open.reached(address.unwrap_or(source), Some(&peer));
    let cut = registered.connection().ended();
    let (ended, carried) = relay::relay(stream, peer_stream, cut, open.meter()).await;
    open.ended(ended, carried);
    tracing::debug!(?ended, service = route.service, "tcp connection ended");
}

async fn dial(
    worker: &Rc<Worker>,
    snapshot: &Arc<Snapshot>,
    route: &Arc<Route>,
) -> Result<(TlsStream<TcpStream>, Rc<Peer>), DialError> {
    let cluster = worker.clusters().of(route);
    let dial = async || dial_one(worker, snapshot, route, &cluster).await;
    cluster.outage().outlast(dial).await
}

async fn dial_one(
    worker: &Rc<Worker>,
    snapshot: &Arc<Snapshot>,
    route: &Arc<Route>,
    cluster: &Cluster,
) -> Result<(TlsStream<TcpStream>, Rc<Peer>), DialError> {
    let mut last = DialError::NoEndpoint;
    for pool in cluster.order() {
        let address = pool.address();
        let config = worker.client_config(snapshot, &route.expected, &[])?;
        match dial::tls(address, config).await {
            Ok((stream, peer)) if !snapshot.is_denied(&peer, worker.now()) => {
                return Ok((stream, peer));
            }
            Ok(_) => last = DialError::Denied(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn refused(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    facts: &Arc<ConnectionFacts>,
    code: &'static str,
) {
    worker.metrics().refused("outbound", code);
    let reason = match code {
        "no_route" => "no service of the mesh has this host and port",
        _ => "the endpoint's identity is not the expected one",
    };
    let mut record = CallRecord::new(Arc::clone(facts), worker.now(), worker.call_id());
    record.verdict = Verdict {
        code,
        revision: snapshot.mesh_revision,
        reason: reason.to_owned(),
        ..Verdict::default()
    };
    record.outcome = Outcome::Failed;
    worker.decisions().write(record);
}
