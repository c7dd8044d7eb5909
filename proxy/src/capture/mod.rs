//! Transparent capture: connections that the kernel redirected here, taken to the service or the port that was dialled.
//!
//! Outbound: what the application dials, by the address that it meant. Inbound: what peers dial at a port of the
//! application, as on any inbound listener. `docs/capture.md` says what is caught and what is not.

pub mod config;
pub mod destination;
mod original;
mod owner;
pub mod rules;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::config::{InboundListener, Protocol};
use crate::decision_log::{CallRecord, ConnectionFacts, Outcome, Verdict};
use crate::route::Addressed;
use crate::worker::Worker;
use crate::{inbound, outbound};
use destination::{Destination, DestinationRefusal, judge_inbound, judge_outbound};

/// One connection that came to a listener of the capture.
struct Captured {
    worker: Rc<Worker>,
    stream: TcpStream,
    source: SocketAddr,
    direction: &'static str,
}

/// Serves a connection of the application: a redirected one by its destination, any other as the forward proxy does.
pub async fn serve_outbound(worker: Rc<Worker>, stream: TcpStream, source: SocketAddr) {
    let captured = Captured::new(worker, stream, source, "outbound");
    let Ok(dialled) = original::destination(&captured.stream) else {
        return captured
            .worker
            .metrics()
            .refused("outbound", "original_destination");
    };
    let Some(destination) = dialled else {
        let (worker, stream) = captured.into_parts();
        return outbound::serve_http(worker, Addressed::Host, stream, source).await;
    };
    let Some(snapshot) = captured.worker.snapshot() else {
        return captured.not_ready(destination);
    };
    let addressed = Addressed::Destination(destination);
    let route = snapshot.routes.meant(&addressed, "");
    let asked = Destination {
        address: destination,
        is_own_listener: captured.is_own_listener(destination),
        service: route.map(|route| route.service.as_str()),
    };
    let judged = judge_outbound(asked, &captured.worker.capture().allow);
    if let Err(refusal) = judged.and_then(|()| captured.no_loop(destination)) {
        return captured.refuse(destination, refusal);
    }
    let is_http = route.is_some_and(|route| route.protocol.is_http());
    let (worker, stream) = captured.into_parts();
    if is_http {
        outbound::serve_http(worker, addressed, stream, source).await;
    } else {
        outbound::tcp::serve(worker, addressed, stream, source).await;
    }
}

/// Serves a connection that a peer opened to a captured port of the application.
pub async fn serve_inbound(worker: Rc<Worker>, stream: TcpStream, source: SocketAddr) {
    let captured = Captured::new(worker, stream, source, "inbound");
    let (Ok(dialled), Ok(local)) = (
        original::destination(&captured.stream),
        captured.stream.local_addr(),
    ) else {
        return captured
            .worker
            .metrics()
            .refused("inbound", "original_destination");
    };
    // A connection that nobody redirected was opened to the listener itself.
    let destination = dialled.unwrap_or(local);
    let workload = captured.worker.capture().workload_port(destination.port());
    let judged = judge_inbound(
        destination,
        captured.is_own_listener(destination),
        original::is_local(destination.ip()),
        workload.is_some(),
    );
    if let Err(refusal) = judged.and_then(|()| captured.no_loop(destination)) {
        return captured.refuse(destination, refusal);
    }
    let inbound = InboundListener {
        listen: local,
        forward: destination,
        protocol: workload.map_or(Protocol::Tcp, |workload| workload.protocol),
        is_captured: true,
    };
    let (worker, stream) = captured.into_parts();
    if inbound.protocol.is_http() {
        inbound::serve_http(worker, inbound, stream, source).await;
    } else {
        inbound::serve_tcp(worker, inbound, stream, source).await;
    }
}

impl Captured {
    fn new(
        worker: Rc<Worker>,
        stream: TcpStream,
        source: SocketAddr,
        direction: &'static str,
    ) -> Self {
        Self {
            worker,
            stream,
            source,
            direction,
        }
    }

    fn into_parts(self) -> (Rc<Worker>, TcpStream) {
        (self.worker, self.stream)
    }

    /// A listener of this process, at whatever address of this machine.
    fn is_own_listener(&self, destination: SocketAddr) -> bool {
        self.worker.is_own_port(destination.port())
            && (destination.ip().to_canonical().is_loopback()
                || original::is_local(destination.ip()))
    }

    /// The proxy's own connections come back only where the redirect exempts another user than the proxy's.
    fn no_loop(&self, destination: SocketAddr) -> Result<(), DestinationRefusal> {
        if owner::is_own(self.source, destination) {
            return Err(DestinationRefusal::Loop);
        }
        Ok(())
    }

    fn not_ready(self, destination: SocketAddr) {
        self.close(
            destination,
            "not_ready",
            "the proxy has no configuration yet",
        );
    }

    fn refuse(self, destination: SocketAddr, refusal: DestinationRefusal) {
        self.close(destination, refusal.code(), refusal.reason());
    }

    /// Ends the connection by a reset, counted and recorded.
    fn close(self, destination: SocketAddr, code: &'static str, reason: &str) {
        let worker = &self.worker;
        worker.metrics().refused(self.direction, code);
        original::reset(&self.stream);
        let snapshot = worker.snapshot();
        let facts = ConnectionFacts {
            workload: snapshot
                .as_ref()
                .map(|snapshot| snapshot.workload.to_string())
                .unwrap_or_default(),
            protocol: "tcp",
            source: Some(self.source),
            port: destination.port(),
            destination: Some(destination.ip()),
            ..ConnectionFacts::default()
        };
        let mut record = CallRecord::new(Arc::new(facts), worker.now(), worker.call_id());
        record.verdict = Verdict {
            code,
            revision: snapshot.map_or(0, |snapshot| snapshot.mesh_revision),
            reason: format!("{reason}: {destination}"),
            ..Verdict::default()
        };
        record.outcome = Outcome::Failed;
        worker.decisions().write(record);
    }
}
