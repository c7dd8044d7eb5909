//! Where a pool finds or opens the connection for a call.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ravelin_proto::spiffe_id::SpiffeId;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::connection::{open_http1, open_http2};
use super::dial::{self, DialError};
use super::lease::Idle;
use super::shared::Shared;
use super::{Pool, Target};
use crate::connections::{Carried, Direction, NewConnection, Registered};
use crate::identity::{HTTP_PROTOCOLS, Peer};
use crate::limits;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// What a call is sent over.
pub(super) enum Ready {
    /// HTTP/1.1.
    One(Idle),
    /// HTTP/2.
    Many(Shared),
}

/// What a call needs of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Any.
    Call,
    /// One that can be changed into a tunnel.
    Tunnel,
}

impl Pool {
    /// A connection for one call; `is_fresh`: none that was idle.
    pub(super) async fn connection(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        need: Need,
        is_fresh: bool,
    ) -> Result<Ready, DialError> {
        let generation = worker.identity_generation();
        let result = match self.open_connection(generation, is_fresh) {
            Some(ready) => Ok(ready),
            // WHY: it is rare and big; calls that find a connection make no room for it.
            None => match &self.target {
                Target::Application { .. } => {
                    let dial = async || self.dial(worker, generation, is_fresh).await;
                    Box::pin(self.outage.outlast(dial)).await
                }
                // WHY: a peer is waited for once all endpoints were tried; an authorizer has a deadline of its own.
                Target::Peer { .. } | Target::Authorizer { .. } => {
                    Box::pin(self.dial(worker, generation, is_fresh)).await
                }
            },
        };
        let result = match result {
            Ok(ready) if need == Need::Tunnel => Box::pin(self.for_tunnel(worker, ready)).await,
            other => other,
        };
        match &result {
            Ok(_) => self.paused_until.set(None),
            Err(_) => self
                .paused_until
                .set(Some(Instant::now() + limits::ENDPOINT_PAUSE)),
        }
        result
    }

    async fn dial(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        generation: u64,
        is_fresh: bool,
    ) -> Result<Ready, DialError> {
        match &self.target {
            Target::Application {
                address,
                is_http2: false,
            }
            | Target::Authorizer {
                address,
                is_http2: false,
            } => {
                let stream = dial::tcp(*address).await?;
                let sender = open_http1(*address, stream, None).await?;
                let idle = Idle {
                    sender,
                    live: None,
                    peer: None,
                    generation,
                    since: Instant::now(),
                };
                Ok(Ready::One(idle))
            }
            Target::Application { address, .. } => {
                self.dial_http2(worker, *address, is_fresh, |_| None).await
            }
            Target::Authorizer { address, .. } => {
                self.dial_http2(worker, *address, is_fresh, |worker| {
                    Some(register(worker, *address, "h2", None))
                })
                .await
            }
            Target::Peer { address, expected } => {
                self.dial_peer(worker, *address, expected, is_fresh).await
            }
        }
    }

    fn open_connection(&self, generation: u64, is_fresh: bool) -> Option<Ready> {
        if let Some(shared) = self.shared.find() {
            return Some(Ready::Many(shared));
        }
        let mut idle = self.idle.borrow_mut();
        if is_fresh {
            // WHY: one stale connection means that the others are most likely stale too.
            idle.retain(|idle| !idle.sender.is_ready());
            return None;
        }
        let position = idle.iter().rposition(|idle| idle.is_usable(generation))?;
        Some(Ready::One(idle.swap_remove(position)))
    }

    /// HTTP/2 in plain text, with prior knowledge.
    async fn dial_http2(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        address: SocketAddr,
        is_fresh: bool,
        registered: impl Fn(&Worker) -> Option<Registered>,
    ) -> Result<Ready, DialError> {
        let _turn = self.dialing.lock().await;
        if let Some(ready) = self.open_connection(worker.identity_generation(), is_fresh) {
            return Ok(ready);
        }
        let stream = dial::tcp(address).await?;
        let shared = open_http2(address, stream, registered(worker), None).await?;
        self.shared.add(shared.clone());
        Ok(Ready::Many(shared))
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
        let dialled = Dialled::peer(worker, address, expected, &HTTP_PROTOCOLS).await?;
        self.speaks_http1.set(!dialled.is_http2());
        if !dialled.is_http2() {
            return dialled.open_one(worker, address).await;
        }
        let registered = register(worker, address, "h2", Some(&dialled));
        let peer = Some(dialled.peer);
        let shared = open_http2(address, dialled.stream, Some(registered), peer).await?;
        self.shared.add(shared.clone());
        Ok(Ready::Many(shared))
    }

    /// An HTTP/2 connection carries a tunnel where its other end takes extended CONNECT; else a peer is asked for
    /// HTTP/1.1 on a connection for this tunnel alone.
    async fn for_tunnel(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        ready: Ready,
    ) -> Result<Ready, DialError> {
        let Ready::Many(shared) = ready else {
            return Ok(ready);
        };
        if shared.settings.takes_connect().await {
            return Ok(Ready::Many(shared));
        }
        match &self.target {
            Target::Application { address, .. } | Target::Authorizer { address, .. } => {
                Err(DialError::NoTunnel(*address))
            }
            Target::Peer { address, expected } => {
                let [_, http1] = HTTP_PROTOCOLS;
                let dialled = Dialled::peer(worker, *address, expected, &[http1]).await?;
                dialled.open_one(worker, *address).await
            }
        }
    }
}

/// A connection to a peer after its handshake.
struct Dialled {
    stream: TlsStream<TcpStream>,
    peer: Rc<Peer>,
    snapshot: Arc<Snapshot>,
}

impl Dialled {
    async fn peer(
        worker: &Rc<Worker>,
        address: SocketAddr,
        expected: &Arc<[SpiffeId]>,
        protocols: &[&[u8]],
    ) -> Result<Self, DialError> {
        let snapshot = worker.snapshot().ok_or(DialError::NotReady)?;
        if snapshot.is_expired(worker.now()) {
            return Err(DialError::NotReady);
        }
        let config = worker.client_config(&snapshot, expected, protocols)?;
        let (stream, peer) = dial::tls(address, config).await?;
        if snapshot.is_denied(&peer, worker.now()) {
            return Err(DialError::Denied(address));
        }
        Ok(Self {
            stream,
            peer,
            snapshot,
        })
    }

    fn is_http2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(b"h2".as_slice())
    }

    async fn open_one(self, worker: &Worker, address: SocketAddr) -> Result<Ready, DialError> {
        let registered = register(worker, address, "http/1.1", Some(&self));
        let live = Rc::clone(registered.connection());
        let idle = Idle {
            sender: open_http1(address, self.stream, Some(registered)).await?,
            live: Some(live),
            peer: Some(self.peer),
            generation: self.snapshot.identity_generation,
            since: Instant::now(),
        };
        Ok(Ready::One(idle))
    }
}

/// Registers a connection to a peer, so that every change judges it again, or to an authorizer.
fn register(
    worker: &Worker,
    address: SocketAddr,
    protocol: &'static str,
    dialled: Option<&Dialled>,
) -> Registered {
    let snapshot = dialled.map(|dialled| &dialled.snapshot);
    let registered = worker.connections().register(NewConnection {
        direction: Direction::Outbound,
        protocol,
        address,
        opened: worker.now(),
        peer: dialled.map(|dialled| Rc::clone(&dialled.peer)),
        accepted_for: None,
        identity_generation: snapshot.map_or(0, |snapshot| snapshot.identity_generation),
        mesh_revision: snapshot.map_or(0, |snapshot| snapshot.mesh_revision),
        own_expires_at: snapshot.map(|snapshot| snapshot.svid.expires_at),
        carried: Carried::Unjudged,
    });
    if dialled.is_some() {
        worker.judge_one(registered.connection());
    }
    registered
}
