//! The live connections of one worker, and the judgement that keeps or ends them when something changed.
//!
//! A connection is registered after its handshake and removed when its task ends. On a new configuration and once
//! a second each is judged again: own SVID replaced, peer expired, cut off, no longer trusted, or denied (TCP).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ravelin_policies::{PeerMode, WorkloadPolicies};
use ravelin_proto::time::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

pub use crate::connection_line::ConnectionLine;
use crate::identity::Peer;
use crate::limits;
use crate::live_calls::LiveCalls;
use crate::snapshot::Snapshot;
use crate::token::Tokens;

/// What a connection's task is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Serve,
    /// Take no new call, finish what is in flight.
    Drain,
    /// As `Drain`, and end after `grace`.
    End {
        /// Why, for the record.
        code: &'static str,
        /// How long calls in flight may take.
        grace: Duration,
    },
}

/// What a connection carries, as far as policy judges it here.
#[derive(Debug)]
pub enum Carried {
    /// Bytes from a peer, judged as a connection.
    Tcp(ravelin_policies::Connection),
    /// Calls from a peer, each judged.
    Http(Rc<LiveCalls>),
    /// Bytes to a peer: judged at the other end. A change of the own SVID leaves them alone.
    OutboundTcp,
    /// Calls to a peer, or of the application: judged at the other end.
    Unjudged,
}

/// Which way a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// A peer called this workload.
    Inbound,
    /// This workload called a peer.
    Outbound,
}

/// One open connection with an authenticated peer, or the application's own.
#[derive(Debug)]
pub struct LiveConnection {
    id: u64,
    direction: Direction,
    protocol: &'static str,
    address: SocketAddr,
    opened: Timestamp,
    peer: Option<Rc<Peer>>,
    identity_generation: u64,
    bundle_judged: Cell<u64>,
    carried: Carried,
    accepted_for: Option<u16>,
    own_expires_at: Option<Timestamp>,
    policies_judged: Cell<Judged>,
    denylist_judged: Cell<u64>,
    refusal: Cell<Option<&'static str>>,
    calls: Cell<u64>,
    tunnels: Rc<Tunnels>,
    orders: watch::Sender<Order>,
}

/// By what policy last judged a connection, and until when that holds.
#[derive(Clone, Copy, Debug)]
struct Judged {
    revision: u64,
    until: Option<Timestamp>,
}

/// What is needed to register a connection.
#[derive(Debug)]
pub struct NewConnection {
    /// Which way it goes.
    pub direction: Direction,
    /// `http/1.1`, `h2`, `tcp` or `plain`.
    pub protocol: &'static str,
    /// Address of the other end.
    pub address: SocketAddr,
    /// When it was opened.
    pub opened: Timestamp,
    /// The authenticated peer; none for the application's connections and for plain text.
    pub peer: Option<Rc<Peer>>,
    /// The workload port that an inbound connection is for; its mode must go on to accept it (rule 82).
    pub accepted_for: Option<u16>,
    /// Generation of the own SVID that it was opened with.
    pub identity_generation: u64,
    /// Mesh revision that it was judged by.
    pub mesh_revision: u64,
    /// End of the own SVID that it was opened with.
    pub own_expires_at: Option<Timestamp>,
    /// What policy judged, to be judged again.
    pub carried: Carried,
}

/// Tunnels that are open on one connection.
#[derive(Debug, Default)]
struct Tunnels {
    open: Cell<usize>,
    ended: tokio::sync::Notify,
}

/// One open tunnel of a connection.
#[derive(Debug)]
pub struct TunnelPlace(Rc<Tunnels>);

impl Drop for TunnelPlace {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.ended.notify_one();
    }
}

/// The registry of one worker.
#[derive(Debug, Default)]
pub struct Connections {
    live: RefCell<BTreeMap<u64, Rc<LiveConnection>>>,
    next: Cell<u64>,
    is_draining: Cell<bool>,
    removed: tokio::sync::Notify,
}

impl Connections {
    /// Registers a connection until the returned guard is dropped.
    pub fn register(self: &Rc<Self>, new: NewConnection) -> Registered {
        let id = self.next.get();
        self.next.set(id.wrapping_add(1));
        let first = if self.is_draining.get() {
            Order::Drain
        } else {
            Order::Serve
        };
        let connection = Rc::new(LiveConnection {
            id,
            direction: new.direction,
            protocol: new.protocol,
            address: new.address,
            opened: new.opened,
            peer: new.peer,
            identity_generation: new.identity_generation,
            bundle_judged: Cell::new(0),
            carried: new.carried,
            accepted_for: new.accepted_for,
            own_expires_at: new.own_expires_at,
            // WHY: until now only: the first look finds out when a policy begins or ceases to hold.
            policies_judged: Cell::new(Judged {
                revision: new.mesh_revision,
                until: Some(new.opened),
            }),
            denylist_judged: Cell::new(0),
            refusal: Cell::new(None),
            calls: Cell::new(0),
            tunnels: Rc::default(),
            orders: watch::Sender::new(first),
        });
        self.live.borrow_mut().insert(id, Rc::clone(&connection));
        Registered {
            connections: Rc::clone(self),
            connection,
        }
    }

    /// Open connections.
    pub fn len(&self) -> usize {
        self.live.borrow().len()
    }

    /// True without open connections.
    pub fn is_empty(&self) -> bool {
        self.live.borrow().is_empty()
    }

    /// Judges every connection by `snapshot`.
    pub fn judge(&self, snapshot: &Snapshot, now: Timestamp) {
        for connection in self.live.borrow().values() {
            connection.judge(snapshot, now);
        }
    }

    /// Judges the tokens of all calls in flight again (see [`LiveCalls::authenticate_again`]).
    pub fn authenticate_again(
        &self,
        tokens: &Tokens,
        before: &WorkloadPolicies,
        snapshot: &Snapshot,
    ) {
        for connection in self.live.borrow().values() {
            if let Carried::Http(calls) = &connection.carried {
                calls.authenticate_again(tokens, before, snapshot);
            }
        }
    }

    /// Begins the drain of the process: no connection takes new calls.
    pub fn drain(&self) {
        self.is_draining.set(true);
        for connection in self.live.borrow().values() {
            connection.order(Order::Drain);
        }
    }

    /// Ends every connection now.
    pub fn end(&self, code: &'static str) {
        for connection in self.live.borrow().values() {
            connection.order(Order::End {
                code,
                grace: Duration::ZERO,
            });
        }
    }

    /// Waits until no connection is open.
    pub async fn emptied(&self) {
        while !self.is_empty() {
            self.removed.notified().await;
        }
    }

    /// Lines for the admin listener.
    pub fn lines(&self) -> Vec<ConnectionLine> {
        self.live
            .borrow()
            .values()
            .map(|connection| connection.line())
            .collect()
    }
}

/// A registered connection; dropping it removes it.
#[derive(Debug)]
pub struct Registered {
    connections: Rc<Connections>,
    connection: Rc<LiveConnection>,
}

impl Registered {
    /// The connection.
    pub fn connection(&self) -> &Rc<LiveConnection> {
        &self.connection
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections
            .live
            .borrow_mut()
            .remove(&self.connection.id);
        self.connections.removed.notify_one();
    }
}

impl LiveConnection {
    /// Orders from now on; the current one is to be looked at first.
    pub fn orders(&self) -> watch::Receiver<Order> {
        let mut orders = self.orders.subscribe();
        orders.mark_changed();
        orders
    }

    /// Why no call may be taken any more.
    pub fn refusal(&self) -> Option<&'static str> {
        self.refusal.get()
    }

    /// Counts a call.
    pub fn count_call(&self) {
        self.calls.set(self.calls.get().wrapping_add(1));
    }

    /// Counts a tunnel, which keeps this connection registered until the returned place is dropped.
    pub fn enter_tunnel(&self) -> TunnelPlace {
        self.tunnels
            .open
            .set(self.tunnels.open.get().saturating_add(1));
        TunnelPlace(Rc::clone(&self.tunnels))
    }

    /// Waits until no tunnel is open on it.
    pub async fn tunnels_ended(&self) {
        while self.tunnels.open.get() > 0 {
            self.tunnels.ended.notified().await;
        }
    }

    /// Waits until no new call may be taken.
    pub async fn stopped(&self) {
        let mut orders = self.orders.subscribe();
        if orders
            .wait_for(|order| *order != Order::Serve)
            .await
            .is_err()
        {
            // WHY: who holds this connection holds the sender.
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the order to end, and says why.
    pub async fn ended(&self) -> &'static str {
        let mut orders = self.orders.subscribe();
        let order = orders.wait_for(|order| matches!(order, Order::End { .. }));
        if let Ok(order) = order.await
            && let Order::End { code, .. } = *order
        {
            return code;
        }
        // WHY: who holds this connection holds the sender; nobody orders anything any more.
        std::future::pending().await
    }

    /// True while nothing speaks against new calls.
    pub fn is_serving(&self) -> bool {
        *self.orders.borrow() == Order::Serve
    }

    /// Judges this connection by `snapshot`.
    pub fn judge(&self, snapshot: &Snapshot, now: Timestamp) {
        match self.refusal_by(snapshot, now) {
            Some((code, grace)) => {
                self.refusal.set(Some(code));
                self.order(Order::End { code, grace });
            }
            // WHY: the peer must see the new SVID, and show its own before the one that it showed ends. A TCP connection
            // cannot be moved; its peer judges it as well.
            None if self.is_movable()
                && (self.identity_generation < snapshot.identity_generation
                    || self.ends_soon(now)) =>
            {
                self.order(Order::Drain);
            }
            None => {}
        }
    }

    fn refusal_by(&self, snapshot: &Snapshot, now: Timestamp) -> Option<(&'static str, Duration)> {
        if let Some(code) = self.refusal_by_mode(snapshot) {
            return Some((code, limits::DENIED_GRACE));
        }
        if let Some(peer) = &self.peer
            && let Some(refusal) = self.refusal_of_peer(peer, snapshot, now)
        {
            return Some(refusal);
        }
        self.judge_tokens(snapshot, now);
        self.judge_by_policy(snapshot, now)
    }

    /// A change of the port's mode ends what it no longer accepts (rule 82).
    fn refusal_by_mode(&self, snapshot: &Snapshot) -> Option<&'static str> {
        let mode = snapshot.policies.peer_mode(self.accepted_for?);
        match (mode, &self.peer) {
            (PeerMode::Strict, None) => Some("plaintext_refused"),
            (PeerMode::Disable, Some(_)) => Some("tls_refused"),
            (PeerMode::Strict | PeerMode::Permissive, Some(_))
            | (PeerMode::Permissive | PeerMode::Disable, None) => None,
        }
    }

    fn refusal_of_peer(
        &self,
        peer: &Peer,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Option<(&'static str, Duration)> {
        if snapshot.is_denied(peer, now) {
            return Some(("peer_denied", limits::DENIED_GRACE));
        }
        if peer.not_after() < now {
            return Some(("peer_expired", Duration::ZERO));
        }
        if self.bundle_judged.get() != snapshot.bundle_generation {
            if !snapshot.is_trusted(peer, now) {
                return Some(("peer_untrusted", limits::UNTRUSTED_GRACE));
            }
            self.bundle_judged.set(snapshot.bundle_generation);
        }
        if self
            .own_expires_at
            .is_some_and(|expires_at| expires_at < now)
        {
            return Some(("svid_expired", Duration::ZERO));
        }
        None
    }

    /// Calls whose token was revoked end alone; the connection goes on.
    fn judge_tokens(&self, snapshot: &Snapshot, now: Timestamp) {
        let number = snapshot.denylist.number();
        if self.denylist_judged.replace(number) != number
            && let Carried::Http(calls) = &self.carried
        {
            calls.judge_tokens(snapshot, now);
        }
    }

    fn judge_by_policy(
        &self,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Option<(&'static str, Duration)> {
        let judged = self.policies_judged.get();
        let is_due = judged.until.is_some_and(|until| until <= now);
        if judged.revision == snapshot.mesh_revision && !is_due {
            return None;
        }
        self.policies_judged.set(Judged {
            revision: snapshot.mesh_revision,
            until: snapshot.policies.next_change(now),
        });
        match &self.carried {
            Carried::Tcp(connection) => {
                let decision = snapshot.policies.authorize_tcp(connection, now);
                (!decision.is_allowed).then_some((decision.code, Duration::ZERO))
            }
            Carried::Http(calls) => {
                calls.judge(&snapshot.policies, now);
                None
            }
            Carried::OutboundTcp | Carried::Unjudged => None,
        }
    }

    /// True shortly before the peer's SVID ends.
    fn ends_soon(&self, now: Timestamp) -> bool {
        self.peer.as_ref().is_some_and(|peer| {
            let end = peer.not_after();
            // WHY: a peer that has no newer SVID yet is not asked for one again and again.
            let ahead = limits::MOVE_BEFORE_EXPIRY.min(end.since(self.opened) / 4);
            end.minus(ahead) <= now
        })
    }

    /// True for a connection with a peer that can be replaced by a new one without loss.
    fn is_movable(&self) -> bool {
        match self.carried {
            Carried::Http(_) | Carried::Unjudged => self.peer.is_some(),
            Carried::Tcp(_) | Carried::OutboundTcp => false,
        }
    }

    fn order(&self, order: Order) {
        self.orders.send_if_modified(|current| {
            let is_stronger = match (*current, order) {
                (Order::Serve, Order::Drain | Order::End { .. })
                | (Order::Drain, Order::End { .. }) => true,
                (Order::End { grace: old, .. }, Order::End { grace: new, .. }) => new < old,
                (_, Order::Serve) | (Order::Drain | Order::End { .. }, Order::Drain) => false,
            };
            if is_stronger {
                *current = order;
            }
            is_stronger
        });
    }

    fn line(&self) -> ConnectionLine {
        ConnectionLine {
            id: self.id,
            direction: self.direction,
            protocol: self.protocol,
            address: self.address.to_string(),
            peer: self.peer.as_ref().map(|peer| peer.id().to_string()),
            serial: self.peer.as_ref().map(|peer| peer.serial().to_owned()),
            opened: self.opened.rfc3339(),
            calls: self.calls.get(),
            refusal: self.refusal.get(),
        }
    }
}
