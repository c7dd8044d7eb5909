//! What peers call: mutual TLS first, then HTTP or plain bytes. The order of the steps is the security argument.
//!
//! Accept, handshake within a deadline, authenticated peer, registration, and only then the first byte of a call. Plain
//! text is taken only where a PeerAuthentication says so, and then nobody is authenticated.

mod custom;
mod frame_budget;
pub mod handshakes;
pub mod http;
pub mod peers;
mod refused;
pub mod stream;
pub mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use ravelin_policies::RuleRef;
use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_runtime::tls::PeerError;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{InboundListener, Protocol};
use crate::connections::{Carried, Direction, NewConnection, Registered};
use crate::decision_log::{CallRecord, ConnectionFacts, Outcome, Verdict};
use crate::identity::Peer;
use crate::limits;
use crate::metrics::labels::{Edge, Reporter};
use crate::metrics::meter::Meter;
use crate::snapshot::Snapshot;
use crate::worker::Worker;
use peers::PeerPlace;
use stream::PeerStream;

pub use self::http::serve as serve_http;
pub use self::tcp::serve as serve_tcp;

/// A connection before its first call. Without a peer it is plain text.
struct Accepted {
    stream: PeerStream,
    peer: Option<Rc<Peer>>,
    snapshot: Arc<Snapshot>,
    facts: Arc<ConnectionFacts>,
    /// Held as long as the connection; none for plain text.
    _place: Option<PeerPlace>,
}

impl Accepted {
    /// Counts its calls in the series of the two workloads.
    fn meter(&self, worker: &Worker) -> Rc<Meter> {
        let snapshot = &self.snapshot;
        let (names, own) = (&snapshot.names, &snapshot.workload);
        let listener = self.facts.local.map_or(0, |local| local.port());
        let service = names
            .own_service(own, listener)
            .or_else(|| names.own_service(own, self.facts.port));
        let source = self.peer.as_ref().map(|peer| names.workload(peer.id()));
        worker.meters().meter(&Edge {
            reporter: Reporter::Destination,
            source: source.as_deref(),
            destination: Some(&names.workload(own)),
            service: service.map(Arc::as_ref),
            is_mutual_tls: self.peer.is_some(),
        })
    }
}

/// Registers a connection, so that every change judges it again, and judges it once now: what changed since the handshake
/// counts for it as well.
fn register(
    worker: &Worker,
    accepted: &Accepted,
    protocol: &'static str,
    source: SocketAddr,
    carried: Carried,
) -> Registered {
    let peer = accepted.peer.clone();
    let registered = worker.connections().register(NewConnection {
        direction: Direction::Inbound,
        protocol,
        address: source,
        opened: worker.now(),
        own_expires_at: peer.as_ref().map(|_| accepted.snapshot.svid.expires_at),
        peer,
        accepted_for: Some(accepted.facts.port),
        identity_generation: accepted.snapshot.identity_generation,
        mesh_revision: accepted.snapshot.mesh_revision,
        carried,
    });
    worker.judge_one(registered.connection());
    registered
}

/// Takes a connection as far as an authenticated peer, or as the port's mode allows; anything else is closed and recorded.
async fn accept(
    worker: &Rc<Worker>,
    inbound: &InboundListener,
    stream: TcpStream,
    source: SocketAddr,
) -> Option<Accepted> {
    let Some(place) = worker.handshakes().enter(source.ip()) else {
        // WHY: counted and not recorded: a flood must not push other records out of the decision log.
        worker.metrics().refused("inbound", "handshake_limit");
        return None;
    };
    let refuse =
        |snapshot: Option<&Snapshot>, code| refused(worker, inbound, source, snapshot, code);
    let Some(snapshot) = worker.snapshot() else {
        refuse(None, "not_ready");
        return None;
    };
    if snapshot.is_expired(worker.now()) {
        refuse(Some(&snapshot), "svid_expired");
        return None;
    }
    let (config, protocol) = match inbound.protocol {
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => (&snapshot.server.http, "http"),
        Protocol::Tcp => (&snapshot.server.tcp, "tcp"),
    };
    let mode = snapshot.policies.peer_mode(inbound.forward.port());
    let opened = PeerStream::open(stream, Arc::clone(config), mode, inbound.protocol);
    let stream = match timeout(limits::HANDSHAKE_DEADLINE, opened).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(None)) => return None,
        Ok(Err(Some(code))) => {
            refuse(Some(&snapshot), code);
            return None;
        }
        Err(_) => {
            refuse(Some(&snapshot), "handshake_deadline");
            return None;
        }
    };
    drop(place);
    let peer = match authenticated(worker, &snapshot, &stream) {
        Ok(peer) => peer,
        Err(code) => {
            refuse(Some(&snapshot), code);
            return None;
        }
    };
    let place = match &peer {
        None => None,
        Some(peer) => {
            let Some(place) = worker.peers().enter(peer.id()) else {
                // WHY: counted and not recorded, as with handshakes.
                worker.metrics().refused("inbound", "peer_connection_limit");
                return None;
            };
            Some(place)
        }
    };
    let facts = ConnectionFacts {
        workload: snapshot.workload.to_string(),
        peer: text(peer.as_ref().map(|peer| peer.id())),
        peer_serial: text(peer.as_ref().map(|peer| peer.serial())),
        protocol,
        source: Some(source),
        port: inbound.forward.port(),
        local: stream.socket().local_addr().ok(),
        destination: Some(local_address(inbound, &stream)),
        sni: text(stream.tls().and_then(|tls| tls.server_name())),
    };
    Some(Accepted {
        stream,
        peer,
        snapshot,
        facts: Arc::new(facts),
        _place: place,
    })
}

/// Who is at the other end: with mutual TLS somebody who may call, with plain text nobody.
fn authenticated(
    worker: &Worker,
    snapshot: &Snapshot,
    stream: &PeerStream,
) -> Result<Option<Rc<Peer>>, &'static str> {
    let Some(tls) = stream.tls() else {
        return Ok(None);
    };
    let peer = ravelin_runtime::tls::peer_identity(tls)
        .and_then(|peer| Peer::new(peer).ok())
        .ok_or("peer_untrusted")?;
    if snapshot.is_denied(&peer, worker.now()) {
        return Err("peer_denied");
    }
    Ok(Some(Rc::new(peer)))
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// The verifier's reason travels inside the TLS error.
fn handshake_code(error: &std::io::Error) -> &'static str {
    use rustls::{CertificateError, Error};
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        Some(Error::NoCertificatesPresented) => "peer_no_certificate",
        Some(Error::InvalidCertificate(CertificateError::Other(other))) => other
            .0
            .downcast_ref::<PeerError>()
            .map_or("peer_untrusted", PeerError::code),
        Some(Error::InvalidCertificate(_)) => "peer_untrusted",
        Some(Error::AlertReceived(_)) => "peer_alert",
        Some(_) | None => "handshake_failed",
    }
}

/// Records and counts a connection that never became a call.
fn refused(
    worker: &Rc<Worker>,
    inbound: &InboundListener,
    source: SocketAddr,
    snapshot: Option<&Snapshot>,
    code: &'static str,
) {
    worker.metrics().refused("inbound", code);
    let facts = Arc::new(ConnectionFacts {
        workload: snapshot
            .map(|snapshot| snapshot.workload.to_string())
            .unwrap_or_default(),
        protocol: "tls",
        source: Some(source),
        port: inbound.forward.port(),
        ..ConnectionFacts::default()
    });
    let mut record = CallRecord::new(facts, worker.now(), worker.call_id());
    record.verdict = Verdict {
        code,
        revision: snapshot.map_or(0, |snapshot| snapshot.mesh_revision),
        reason: reason(code).to_owned(),
        ..Verdict::default()
    };
    record.outcome = Outcome::Failed;
    worker.decisions().write(record);
}

fn reason(code: &str) -> &'static str {
    match code {
        "plaintext_refused" => "the connection did not begin with a TLS handshake",
        "tls_refused" => "a PeerAuthentication allows this port plain text alone",
        "peer_no_certificate" => "the peer presented no certificate",
        "peer_untrusted" => "the peer's certificate leads to no authority of its trust domain",
        "peer_expired" => "the peer's certificate has expired",
        "peer_denied" => "the peer is on the deny-list",
        "peer_alert" => "the peer refused this proxy's certificate",
        "handshake_deadline" => "the handshake did not end in time",
        "not_ready" => "the proxy has no configuration yet",
        "svid_expired" => "the proxy's own SVID has expired",
        _ => "the TLS handshake failed",
    }
}

/// What policy sees of a connection.
fn policy_connection(
    inbound: &InboundListener,
    accepted: &Accepted,
    source: SocketAddr,
) -> ravelin_policies::Connection {
    ravelin_policies::Connection {
        principal: accepted.peer.as_ref().map(|peer| peer.id().clone()),
        source_ip: source.ip(),
        remote_ip: source.ip(),
        destination_ip: local_address(inbound, &accepted.stream),
        destination_port: inbound.forward.port(),
        sni: accepted
            .stream
            .tls()
            .and_then(|tls| tls.server_name())
            .map(str::to_owned),
    }
}

fn local_address(inbound: &InboundListener, stream: &PeerStream) -> IpAddr {
    // WHY: a redirected connection ends at another address than the one that the peer dialled.
    if inbound.is_captured {
        return inbound.forward.ip();
    }
    let address = stream.socket().local_addr();
    address.map_or(inbound.listen.ip(), |address| address.ip())
}

/// The record's form of a decision. What the dry-run policies would say is counted here.
fn verdict(worker: &Worker, decision: &ravelin_policies::Decision) -> Verdict {
    let (policy, rule) = named(decision.by.as_deref());
    if let Some(shadow) = &decision.shadow {
        worker.metrics().dry_run(shadow.is_allowed);
    }
    let other = decision.shadow.as_ref();
    let dry_run = other
        .filter(|shadow| shadow.is_allowed != decision.is_allowed)
        .map(|shadow| {
            let (policy, rule) = named(shadow.by.as_deref());
            pb::DryRun {
                is_allowed: shadow.is_allowed,
                code: shadow.code.to_owned(),
                policy,
                rule,
            }
        });
    Verdict {
        is_allowed: decision.is_allowed,
        code: decision.code,
        policy,
        rule,
        revision: decision.revision,
        reason: String::new(),
        is_audited: decision.is_audited,
        dry_run,
    }
}

/// Policy and rule as the record names them (rule 10).
fn named(by: Option<&RuleRef>) -> (String, u32) {
    by.map(|by| (by.policy.to_string(), by.rule))
        .unwrap_or_default()
}
