//! What peers call: mutual TLS first, then HTTP or plain bytes. The order of the steps is the security argument.
//!
//! Accept, handshake within a deadline, authenticated peer, registration, and only then the first byte of a call.

pub mod handshakes;
pub mod http;
pub mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use ravelin_runtime::tls::PeerError;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::InboundListener;
use crate::connections::{Carried, Direction, NewConnection, Registered};
use crate::decision_log::{CallRecord, ConnectionFacts, Outcome, Verdict};
use crate::identity::Peer;
use crate::limits;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

pub use self::http::serve as serve_http;
pub use self::tcp::serve as serve_tcp;

/// First byte of a TLS record that carries a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// An authenticated connection, before its first call.
struct Accepted {
    stream: TlsStream<TcpStream>,
    peer: Rc<Peer>,
    snapshot: Arc<Snapshot>,
    facts: Arc<ConnectionFacts>,
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
    let registered = worker.connections().register(NewConnection {
        direction: Direction::Inbound,
        protocol,
        address: source,
        opened: worker.now(),
        peer: Some(Rc::clone(&accepted.peer)),
        identity_generation: accepted.snapshot.identity_generation,
        mesh_revision: accepted.snapshot.mesh_revision,
        own_expires_at: Some(accepted.snapshot.svid.expires_at),
        carried,
    });
    worker.judge_one(registered.connection());
    registered
}

/// Takes a connection as far as an authenticated peer; anything else is closed and recorded.
async fn accept(
    worker: &Rc<Worker>,
    inbound: &InboundListener,
    stream: TcpStream,
    source: SocketAddr,
    config: fn(&Snapshot) -> &Arc<ServerConfig>,
    protocol: &'static str,
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
    let config = Arc::clone(config(&snapshot));
    let stream = match timeout(limits::HANDSHAKE_DEADLINE, handshake(stream, config)).await {
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
    let peer = ravelin_runtime::tls::peer_identity(stream.get_ref().1)
        .and_then(|peer| Peer::new(peer).ok());
    let Some(peer) = peer else {
        refuse(Some(&snapshot), "peer_untrusted");
        return None;
    };
    if snapshot.is_denied(&peer, worker.now()) {
        refuse(Some(&snapshot), "peer_denied");
        return None;
    }
    let facts = Arc::new(ConnectionFacts {
        workload: snapshot.workload.to_string(),
        peer: peer.id().to_string(),
        peer_serial: peer.serial().to_owned(),
        protocol,
        source: Some(source),
        port: inbound.forward.port(),
        destination: Some(local_address(inbound, &stream)),
        remote: None,
        sni: stream
            .get_ref()
            .1
            .server_name()
            .unwrap_or_default()
            .to_owned(),
    });
    Some(Accepted {
        stream,
        peer: Rc::new(peer),
        snapshot,
        facts,
    })
}

/// `Err(None)`: the other side closed without a word, such as a port check.
async fn handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
) -> Result<TlsStream<TcpStream>, Option<&'static str>> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) | Err(_) => return Err(None),
        Ok(_) if first != [TLS_HANDSHAKE] => return Err(Some("plaintext_refused")),
        Ok(_) => {}
    }
    TlsAcceptor::from(config)
        .accept(stream)
        .await
        .map_err(|error| Some(handshake_code(&error)))
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
    peer: &Peer,
    source: SocketAddr,
    stream: &TlsStream<TcpStream>,
) -> ravelin_policies::Connection {
    ravelin_policies::Connection {
        principal: Some(peer.id().clone()),
        source_ip: source.ip(),
        remote_ip: source.ip(),
        destination_ip: local_address(inbound, stream),
        destination_port: inbound.forward.port(),
        sni: stream.get_ref().1.server_name().map(str::to_owned),
    }
}

fn local_address(inbound: &InboundListener, stream: &TlsStream<TcpStream>) -> IpAddr {
    let address = stream.get_ref().0.local_addr();
    address.map_or(inbound.listen.ip(), |address| address.ip())
}

/// The record's form of a decision.
fn verdict(decision: &ravelin_policies::Decision) -> Verdict {
    Verdict {
        is_allowed: decision.is_allowed,
        code: decision.code,
        policy: decision
            .by
            .as_ref()
            .map(|by| by.policy.to_string())
            .unwrap_or_default(),
        rule: decision.by.as_ref().map_or(0, |by| by.rule),
        revision: decision.revision,
        reason: String::new(),
    }
}
