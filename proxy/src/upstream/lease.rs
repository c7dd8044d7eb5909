//! What a call holds of its upstream connection until the response is through.

use std::rc::Rc;

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use super::Pool;
use super::shared::StreamPlace;
use crate::body::RequestBody;
use crate::connections::LiveConnection;
use crate::identity::Peer;
use crate::limits;

/// A connection, or a stream of one, on loan.
#[derive(Debug)]
pub struct Lease(Held);

#[derive(Debug)]
enum Held {
    Connection(Box<(Rc<Pool>, Idle)>),
    Stream(StreamPlace),
}

impl Lease {
    pub(super) fn of_connection(pool: &Rc<Pool>, idle: Idle) -> Self {
        Self(Held::Connection(Box::new((Rc::clone(pool), idle))))
    }

    pub(super) fn of_stream(place: StreamPlace) -> Self {
        Self(Held::Stream(place))
    }

    /// Gives it back. A lease of an HTTP/1.1 connection that is dropped instead closes the connection.
    pub fn give_back(self) {
        match self.0 {
            Held::Stream(place) => drop(place),
            Held::Connection(held) => {
                let (pool, mut idle) = *held;
                if idle.sender.is_closed() {
                    return;
                }
                idle.since = Instant::now();
                let mut list = pool.idle.borrow_mut();
                if list.len() < limits::IDLE_CONNECTIONS_MAX {
                    list.push(idle);
                }
            }
        }
    }
}

/// An HTTP/1.1 connection between two calls.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) live: Option<Rc<LiveConnection>>,
    pub(super) peer: Option<Rc<Peer>>,
    pub(super) generation: u64,
    pub(super) since: Instant,
}

impl Idle {
    pub(super) fn is_usable(&self, generation: u64) -> bool {
        self.sender.is_ready() && self.is_busy(generation)
    }

    /// Its last response may still be on the way through hyper.
    pub(super) fn is_busy(&self, generation: u64) -> bool {
        !self.sender.is_closed()
            && (self.peer.is_none() || self.generation == generation)
            && self.since.elapsed() < limits::IDLE_CONNECTION_AGE
    }
}
