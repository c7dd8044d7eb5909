//! Connections to one destination, kept by one worker: multiplexed HTTP/2 to a peer, HTTP/1.1 to the application.
//!
//! A connection is used only while its TLS configuration is the current one; older ones finish what they carry.
//! A request is sent again only if it was provably not processed (`retry`).

mod attempt;
pub mod balancer;
mod connection;
pub mod dial;
pub mod retry;
mod upload;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::{Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use ravelin_proto::spiffe_id::SpiffeId;
use tokio::time::Instant;

use crate::body::{BodySource, RequestBody};
use crate::connections::{Carried, Direction, LiveConnection, NewConnection};
use crate::identity::{HTTP_PROTOCOLS, Peer};
use crate::limits;
use crate::worker::Worker;
use attempt::{FailedTry, in_time, is_switch, request};
use connection::{open_http1, open_http2};
use dial::DialError;
pub use upload::Upload;

/// Where a pool's connections go.
#[derive(Debug)]
pub enum Target {
    /// The application of this workload, in plain text.
    Application(SocketAddr),
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
    /// An answer that leaves HTTP. No upgrade is passed on, so none was asked for.
    #[error("the answer changes to a protocol that was not asked for")]
    Switched,
    /// The request cannot be written as it is.
    #[error("the request has no valid target")]
    Target,
}

/// A response, and the connection that it came over.
#[derive(Debug)]
pub struct Answered {
    /// Head and body.
    pub response: Response<Incoming>,
    /// Gives an HTTP/1.1 connection back once the body is through.
    pub lease: Option<Lease>,
    /// Who answered; none for the application.
    pub peer: Option<Rc<Peer>>,
}

/// Connections of one worker to one destination.
#[derive(Debug)]
pub struct Pool {
    target: Target,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Option<Shared>>,
    dialing: tokio::sync::Mutex<()>,
    speaks_http1: Cell<bool>,
    paused_until: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<RequestBody>,
    peer: Option<Rc<Peer>>,
    generation: u64,
    since: Instant,
}

#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    connection: Rc<LiveConnection>,
    peer: Option<Rc<Peer>>,
}

enum Sender {
    One(http1::SendRequest<RequestBody>),
    Many(http2::SendRequest<RequestBody>),
}

struct Ready {
    sender: Sender,
    shared: Option<Rc<LiveConnection>>,
    peer: Option<Rc<Peer>>,
    generation: u64,
    is_reused: bool,
}

/// An HTTP/1.1 connection on loan.
#[derive(Debug)]
pub struct Lease {
    pool: Rc<Pool>,
    idle: Idle,
}

impl Lease {
    /// Gives the connection back. A lease that is dropped instead closes it.
    pub fn give_back(mut self) {
        if self.idle.sender.is_closed() {
            return;
        }
        self.idle.since = Instant::now();
        let mut idle = self.pool.idle.borrow_mut();
        if idle.len() < limits::IDLE_CONNECTIONS_MAX {
            idle.push(self.idle);
        }
    }
}

impl Pool {
    /// A pool without connections.
    pub fn new(target: Target) -> Rc<Self> {
        Rc::new(Self {
            target,
            idle: RefCell::new(Vec::new()),
            shared: RefCell::new(None),
            dialing: tokio::sync::Mutex::new(()),
            speaks_http1: Cell::new(false),
            paused_until: Cell::new(None),
        })
    }

    /// The peer's inbound listener; none for the application.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match &self.target {
            Target::Application(_) | Target::Authorizer { .. } => None,
            Target::Peer { address, .. } => Some(*address),
        }
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
        let is_stale = self
            .shared
            .borrow()
            .as_ref()
            .is_some_and(|shared| !shared.is_usable());
        if is_stale {
            self.shared.borrow_mut().take();
        }
    }

    /// True when nothing is open.
    pub fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty() && self.shared.borrow().is_none()
    }

    /// Sends the request described by `head` and `body`, again where that is safe.
    pub async fn send(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        head: &Parts,
        body: &Rc<BodySource>,
    ) -> Result<Answered, SendError> {
        let mut tries = 1;
        loop {
            let ready = self.connection(worker, tries > 1).await?;
            let is_reused = ready.is_reused;
            let used = ready.shared.clone();
            let error = match self.send_once(ready, head, body).await? {
                Ok(answered) => return Ok(answered),
                Err(error) => error,
            };
            self.forget(used.as_ref());
            let is_fit = retry::may_repeat(error.fate, &head.method, is_reused, body.is_touched());
            if !is_fit || tries >= limits::TRIES_MAX {
                return Err(SendError::Failed(error.error));
            }
            worker.metrics().retries.inc();
            tries = tries.saturating_add(1);
        }
    }

    /// No further request goes to a shared connection that failed one.
    fn forget(&self, used: Option<&Rc<LiveConnection>>) {
        let mut shared = self.shared.borrow_mut();
        let is_same = match (shared.as_ref(), used) {
            (Some(shared), Some(used)) => Rc::ptr_eq(&shared.connection, used),
            (Some(_) | None, _) => false,
        };
        if is_same {
            shared.take();
        }
    }

    async fn send_once(
        self: &Rc<Self>,
        ready: Ready,
        head: &Parts,
        body: &Rc<BodySource>,
    ) -> Result<Result<Answered, FailedTry>, SendError> {
        let peer = ready.peer;
        match ready.sender {
            Sender::One(mut sender) => {
                let request = request(head, body, Version::HTTP_11, "http")?;
                let upload = request.body().upload();
                match in_time(&upload, sender.try_send_request(request)).await? {
                    Err(failed) => Ok(Err(FailedTry::new(failed))),
                    Ok(response) if is_switch(&response) => Err(SendError::Switched),
                    Ok(response) => {
                        let lease = Lease {
                            pool: Rc::clone(self),
                            idle: Idle {
                                sender,
                                peer: peer.clone(),
                                generation: ready.generation,
                                since: Instant::now(),
                            },
                        };
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
                        }))
                    }
                }
            }
            Sender::Many(mut sender) => {
                let scheme = if peer.is_some() { "https" } else { "http" };
                let request = request(head, body, Version::HTTP_2, scheme)?;
                let upload = request.body().upload();
                match in_time(&upload, sender.try_send_request(request)).await? {
                    Err(failed) => Ok(Err(FailedTry::new(failed))),
                    Ok(response) if is_switch(&response) => Err(SendError::Switched),
                    Ok(response) => Ok(Ok(Answered {
                        response,
                        lease: None,
                        peer,
                    })),
                }
            }
        }
    }

    async fn connection(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        is_fresh: bool,
    ) -> Result<Ready, DialError> {
        let generation = worker.identity_generation();
        if let Some(ready) = self.open_connection(generation, is_fresh) {
            return Ok(ready);
        }
        let result = match &self.target {
            Target::Application(address)
            | Target::Authorizer {
                address,
                is_http2: false,
            } => self.dial_application(*address, generation).await,
            Target::Authorizer {
                address,
                is_http2: true,
            } => self.dial_authorizer(worker, *address, is_fresh).await,
            Target::Peer { address, expected } => {
                self.dial_peer(worker, *address, expected, is_fresh).await
            }
        };
        match &result {
            Ok(_) => self.paused_until.set(None),
            Err(_) => self
                .paused_until
                .set(Some(Instant::now() + limits::ENDPOINT_PAUSE)),
        }
        result
    }

    fn open_connection(&self, generation: u64, is_fresh: bool) -> Option<Ready> {
        if let Some(shared) = self.shared.borrow().as_ref()
            && shared.is_usable()
        {
            return Some(shared.ready());
        }
        let mut idle = self.idle.borrow_mut();
        if is_fresh {
            // WHY: one stale connection means that the others are most likely stale too.
            idle.retain(|idle| !idle.sender.is_ready());
            return None;
        }
        let position = idle.iter().rposition(|idle| idle.is_usable(generation))?;
        let found = idle.swap_remove(position);
        Some(Ready {
            sender: Sender::One(found.sender),
            shared: None,
            peer: found.peer,
            generation: found.generation,
            is_reused: true,
        })
    }

    async fn dial_application(
        &self,
        address: SocketAddr,
        generation: u64,
    ) -> Result<Ready, DialError> {
        let stream = dial::tcp(address).await?;
        let sender = open_http1(address, stream, None).await?;
        Ok(Ready {
            sender: Sender::One(sender),
            shared: None,
            peer: None,
            generation,
            is_reused: false,
        })
    }

    async fn dial_authorizer(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        address: SocketAddr,
        is_fresh: bool,
    ) -> Result<Ready, DialError> {
        let _turn = self.dialing.lock().await;
        if let Some(ready) = self.open_connection(worker.identity_generation(), is_fresh) {
            return Ok(ready);
        }
        let stream = dial::tcp(address).await?;
        let registered = worker.connections().register(NewConnection {
            direction: Direction::Outbound,
            protocol: "h2",
            address,
            opened: worker.now(),
            peer: None,
            accepted_for: None,
            identity_generation: 0,
            mesh_revision: 0,
            own_expires_at: None,
            carried: Carried::Unjudged,
        });
        let connection = Rc::clone(registered.connection());
        let sender = open_http2(address, stream, registered).await?;
        Ok(self.share(sender, connection, None))
    }

    /// Keeps a new HTTP/2 connection for all calls.
    fn share(
        &self,
        sender: http2::SendRequest<RequestBody>,
        connection: Rc<LiveConnection>,
        peer: Option<Rc<Peer>>,
    ) -> Ready {
        let shared = Shared {
            sender,
            connection,
            peer,
        };
        let ready = Ready {
            is_reused: false,
            ..shared.ready()
        };
        *self.shared.borrow_mut() = Some(shared);
        ready
    }

    async fn dial_peer(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        address: SocketAddr,
        expected: &Arc<[SpiffeId]>,
        is_fresh: bool,
    ) -> Result<Ready, DialError> {
        // WHY: many calls that find no connection wait for one dial; HTTP/1.1 peers need one each.
        let _turn = if self.speaks_http1.get() {
            None
        } else {
            Some(self.dialing.lock().await)
        };
        if let Some(ready) = self.open_connection(worker.identity_generation(), is_fresh) {
            return Ok(ready);
        }
        let snapshot = worker.snapshot().ok_or(DialError::NotReady)?;
        if snapshot.is_expired(worker.now()) {
            return Err(DialError::NotReady);
        }
        let config = worker.client_config(&snapshot, expected, &HTTP_PROTOCOLS)?;
        let (stream, peer) = dial::tls(address, config).await?;
        if snapshot.is_denied(&peer, worker.now()) {
            return Err(DialError::Denied(address));
        }
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2".as_slice());
        self.speaks_http1.set(!is_h2);
        let registered = worker.connections().register(NewConnection {
            direction: Direction::Outbound,
            protocol: if is_h2 { "h2" } else { "http/1.1" },
            address,
            opened: worker.now(),
            peer: Some(Rc::clone(&peer)),
            accepted_for: None,
            identity_generation: snapshot.identity_generation,
            mesh_revision: snapshot.mesh_revision,
            own_expires_at: Some(snapshot.svid.expires_at),
            carried: Carried::Unjudged,
        });
        worker.judge_one(registered.connection());
        if !is_h2 {
            let sender = open_http1(address, stream, Some(registered)).await?;
            return Ok(Ready {
                sender: Sender::One(sender),
                shared: None,
                peer: Some(peer),
                generation: snapshot.identity_generation,
                is_reused: false,
            });
        }
        let connection = Rc::clone(registered.connection());
        let sender = open_http2(address, stream, registered).await?;
        Ok(self.share(sender, connection, Some(peer)))
    }
}

impl Idle {
    fn is_usable(&self, generation: u64) -> bool {
        self.sender.is_ready() && self.is_busy(generation)
    }

    /// Its last response may still be on the way through hyper.
    fn is_busy(&self, generation: u64) -> bool {
        !self.sender.is_closed()
            && (self.peer.is_none() || self.generation == generation)
            && self.since.elapsed() < limits::IDLE_CONNECTION_AGE
    }
}

impl Shared {
    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && self.connection.is_serving()
    }

    fn ready(&self) -> Ready {
        self.connection.count_call();
        Ready {
            sender: Sender::Many(self.sender.clone()),
            shared: Some(Rc::clone(&self.connection)),
            peer: self.peer.clone(),
            generation: 0,
            is_reused: true,
        }
    }
}
