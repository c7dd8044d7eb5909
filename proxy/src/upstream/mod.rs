//! Connections to one destination, kept by one worker: multiplexed HTTP/2 to a peer, HTTP/1.1 to the application.
//!
//! A connection is used only while its TLS configuration is the current one; older ones finish what they carry.
//! A request is sent again only if it was provably not processed (`retry`).

mod attempt;
pub mod balancer;
mod connection;
pub mod dial;
mod lease;
mod open;
pub mod retry;
mod severable;
mod shared;
mod upload;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use ravelin_proto::spiffe_id::SpiffeId;
use tokio::time::Instant;

use crate::body::BodySource;
use crate::connections::LiveConnection;
use crate::identity::Peer;
use crate::upgrade;
use crate::worker::Worker;
pub(crate) use attempt::is_grpc;
use attempt::{FailedTry, in_time, request};
use dial::DialError;
use lease::Idle;
pub use lease::Lease;
use open::{Need, Ready};
pub use shared::StreamPlace;
use shared::{Shared, SharedConnections};
pub use upload::Upload;

/// Where a pool's connections go.
#[derive(Debug)]
pub enum Target {
    /// The application of this workload, in plain text.
    Application {
        /// Where it listens.
        address: SocketAddr,
        /// HTTP/2 with prior knowledge, else HTTP/1.1.
        is_http2: bool,
    },
    /// An authorizer at an address, in plain text.
    Authorizer {
        /// Where it listens.
        address: SocketAddr,
        /// HTTP/2 with prior knowledge, else HTTP/1.1.
        is_http2: bool,
    },
    /// The proxy of a peer.
    Peer {
        /// Its inbound listener.
        address: SocketAddr,
        /// Identities that may answer.
        expected: Arc<[SpiffeId]>,
    },
}

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No response head in time.
    #[error("no response in time")]
    Deadline,
    /// The connection ended first.
    #[error("the connection failed: {0}")]
    Failed(#[source] hyper::Error),
    /// An answer that leaves HTTP in a way that was not asked for.
    #[error("the answer changes to a protocol that was not asked for")]
    Switched,
    /// A gRPC call to an upstream that speaks HTTP/1.1: its status would be lost with the trailers.
    #[error("gRPC needs HTTP/2, which the upstream does not speak")]
    NotHttp2,
    /// The request cannot be written as it is.
    #[error("the request has no valid target")]
    Target,
}

/// A response, and the connection that it came over.
#[derive(Debug)]
pub struct Answered {
    /// Head and body.
    pub response: Response<Incoming>,
    /// Gives the connection, or its stream, back once the body is through.
    pub lease: Option<Lease>,
    /// Who answered; none for the application.
    pub peer: Option<Rc<Peer>>,
    /// Where the answer is 101: what comes after it. An HTTP/2 server's 200 to an extended CONNECT has that form too.
    pub switched: Option<Switched>,
    /// Where the other end listens.
    pub address: SocketAddr,
}

/// The other end of a tunnel.
#[derive(Debug)]
pub struct Switched {
    /// Its bytes, once the head is through.
    pub upgraded: OnUpgrade,
    /// The connection that it came over, where that is judged.
    pub live: Option<Rc<LiveConnection>>,
    /// Its stream of an HTTP/2 connection.
    pub place: Option<StreamPlace>,
}

/// Connections of one worker to one destination.
#[derive(Debug)]
pub struct Pool {
    target: Target,
    idle: RefCell<Vec<Idle>>,
    shared: SharedConnections,
    dialing: tokio::sync::Mutex<()>,
    speaks_http1: Cell<bool>,
    outage: retry::Outage,
    paused_until: Cell<Option<Instant>>,
}

impl Pool {
    /// A pool without connections.
    pub fn new(target: Target) -> Rc<Self> {
        Rc::new(Self {
            target,
            idle: RefCell::new(Vec::new()),
            shared: SharedConnections::default(),
            dialing: tokio::sync::Mutex::new(()),
            speaks_http1: Cell::new(false),
            outage: retry::Outage::default(),
            paused_until: Cell::new(None),
        })
    }

    /// Where its connections go.
    pub fn address(&self) -> SocketAddr {
        match &self.target {
            Target::Application { address, .. }
            | Target::Authorizer { address, .. }
            | Target::Peer { address, .. } => *address,
        }
    }

    /// How long nobody has answered here.
    pub fn outage(&self) -> &retry::Outage {
        &self.outage
    }

    /// True while the last dial's failure is fresh.
    pub fn is_paused(&self) -> bool {
        self.paused_until
            .get()
            .is_some_and(|until| Instant::now() < until)
    }

    /// Drops connections that are of an older SVID, idle for too long or closed.
    pub fn tidy(&self, generation: u64) {
        self.idle
            .borrow_mut()
            .retain(|idle| idle.is_usable(generation) || idle.is_busy(generation));
        self.shared.tidy();
    }

    /// True when nothing is open.
    pub fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty() && self.shared.is_empty()
    }

    /// Sends the request described by `head` and `body`, again where that is safe.
    pub async fn send(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        head: &Parts,
        body: &Rc<BodySource>,
    ) -> Result<Answered, SendError> {
        let need = match upgrade::asked(head) {
            Some(_) => Need::Tunnel,
            None => Need::Call,
        };
        let mut tries = 1;
        loop {
            let tried = match self.connection(worker, need, tries > 1).await? {
                Ready::One(idle) => self.send_on_one(idle, head, body).await?,
                Ready::Many(shared) => {
                    let tried = self.send_on_many(&shared, head, body).await?;
                    if tried.is_err() {
                        self.shared.forget(&shared);
                    }
                    tried
                }
            };
            let error = match tried {
                Ok(answered) => return Ok(answered),
                Err(error) => error,
            };
            if !retry::may_repeat(error.fate, &head.method, tries, body.is_touched()) {
                return Err(SendError::Failed(error.error));
            }
            worker.metrics().retries.inc();
            tries = tries.saturating_add(1);
        }
    }

    /// One try over HTTP/1.1.
    async fn send_on_one(
        self: &Rc<Self>,
        mut idle: Idle,
        head: &Parts,
        body: &Rc<BodySource>,
    ) -> Result<Result<Answered, FailedTry>, SendError> {
        if is_grpc(&head.headers) {
            return Err(SendError::NotHttp2);
        }
        let request = request(head, body, Version::HTTP_11, "http")?;
        let upload = request.body().upload();
        let mut response = match in_time(&upload, idle.sender.try_send_request(request)).await? {
            Err(failed) => return Ok(Err(FailedTry::new(failed))),
            Ok(response) => response,
        };
        let peer = idle.peer.clone();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let is_granted = upgrade::asked(head)
                .is_some_and(|asked| upgrade::is_granted(asked, response.headers()));
            let upgraded = response.extensions_mut().remove::<OnUpgrade>();
            let upgraded = upgraded.filter(|_| is_granted).ok_or(SendError::Switched)?;
            return Ok(Ok(Answered {
                response,
                lease: None,
                peer,
                address: self.address(),
                switched: Some(Switched {
                    upgraded,
                    live: idle.live,
                    place: None,
                }),
            }));
        }
        let lease = Lease::of_connection(self, idle);
        let lease = if http_body::Body::is_end_stream(response.body()) {
            lease.give_back();
            None
        } else {
            Some(lease)
        };
        Ok(Ok(Answered {
            response,
            lease,
            peer,
            address: self.address(),
            switched: None,
        }))
    }

    /// One try over HTTP/2.
    async fn send_on_many(
        &self,
        shared: &Shared,
        head: &Parts,
        body: &Rc<BodySource>,
    ) -> Result<Result<Answered, FailedTry>, SendError> {
        let place = shared.enter();
        let scheme = if shared.peer.is_some() {
            "https"
        } else {
            "http"
        };
        let request = request(head, body, Version::HTTP_2, scheme)?;
        let upload = request.body().upload();
        let mut sender = shared.sender.clone();
        let mut response = match in_time(&upload, sender.try_send_request(request)).await? {
            Err(failed) => return Ok(Err(FailedTry::new(failed))),
            Ok(response) => response,
        };
        let peer = shared.peer.clone();
        let is_asked = upgrade::asked(head).is_some();
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS || (is_asked && status.is_success()) {
            // INVARIANT: only a 200 to a CONNECT has an upgrade with it.
            let upgraded = response.extensions_mut().remove::<OnUpgrade>();
            let upgraded = upgraded.filter(|_| is_asked).ok_or(SendError::Switched)?;
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            return Ok(Ok(Answered {
                response,
                lease: None,
                peer,
                address: self.address(),
                switched: Some(Switched {
                    upgraded,
                    live: shared.live.clone(),
                    place: Some(place),
                }),
            }));
        }
        Ok(Ok(Answered {
            response,
            lease: Some(Lease::of_stream(place)),
            peer,
            address: self.address(),
            switched: None,
        }))
    }
}
