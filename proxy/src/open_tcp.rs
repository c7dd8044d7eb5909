//! A TCP connection in progress. When it is over this is dropped: its end is counted and its line of the access log written.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ravelin_proto::time::Timestamp;
use tokio::time::Instant;

use crate::access_log::line::TcpEntry;
use crate::decision_log::{ConnectionFacts, Outcome};
use crate::identity::Peer;
use crate::metrics::flags::ResponseFlag;
use crate::metrics::meter::{Meter, TcpMeter};
use crate::relay::{Carried, Ended};
use crate::route::Route;
use crate::trace::span::Side;
use crate::worker::Worker;

/// A TCP connection in progress.
#[derive(Debug)]
pub struct OpenTcp {
    worker: Rc<Worker>,
    facts: Arc<ConnectionFacts>,
    side: Side,
    /// None for a connection that was refused: nothing was opened.
    meter: Option<TcpMeter>,
    opened: Timestamp,
    started: Instant,
    service: Option<Arc<Route>>,
    upstream: Option<SocketAddr>,
    peer: Option<Rc<Peer>>,
    carried: Carried,
    code: &'static str,
    outcome: Outcome,
}

impl OpenTcp {
    /// A connection that was accepted; counted as opened with `meter`.
    pub fn open(
        worker: Rc<Worker>,
        side: Side,
        facts: Arc<ConnectionFacts>,
        meter: Option<&Rc<Meter>>,
    ) -> Self {
        Self {
            side,
            facts,
            meter: meter.map(Meter::tcp),
            opened: worker.now(),
            worker,
            started: Instant::now(),
            service: None,
            upstream: None,
            peer: None,
            carried: Carried::default(),
            code: "",
            outcome: Outcome::Cancelled,
        }
    }

    /// Says which service is meant.
    pub fn routed(mut self, route: &Arc<Route>) -> Self {
        self.service = Some(Arc::clone(route));
        self
    }

    /// Says who took it.
    pub fn reached(&mut self, upstream: SocketAddr, peer: Option<&Rc<Peer>>) {
        self.upstream = Some(upstream);
        self.peer = peer.cloned();
    }

    /// Counts bytes while they flow.
    pub fn meter(&self) -> Option<&TcpMeter> {
        self.meter.as_ref()
    }

    /// Says that it is refused, or that its upstream failed.
    pub fn failed(&mut self, code: &'static str) {
        self.code = code;
        self.outcome = Outcome::Completed;
    }

    /// Says how relaying ended.
    pub fn ended(&mut self, ended: Ended, carried: Carried) {
        self.carried = carried;
        self.outcome = ended.outcome();
        if let Ended::Cut(code) = ended {
            self.code = code;
        }
    }
}

impl Drop for OpenTcp {
    fn drop(&mut self) {
        let flag = ResponseFlag::of_call(self.code, self.outcome);
        if let Some(meter) = &self.meter {
            meter.ended(flag);
        }
        let service = self
            .service
            .as_ref()
            .map_or("", |route| route.service.as_str());
        self.worker.access_log().tcp(&TcpEntry {
            side: self.side,
            connection: &self.facts,
            time: self.opened,
            duration: self.started.elapsed(),
            received: self.carried.received,
            sent: self.carried.sent,
            flag,
            code: if self.code.is_empty() {
                "via_upstream"
            } else {
                self.code
            },
            upstream: self.upstream,
            service,
            peer: match &self.peer {
                Some(peer) => peer.id().as_str(),
                None => &self.facts.peer,
            },
        });
    }
}
