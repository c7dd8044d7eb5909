//! HTTP/2 connections that many calls share: one, until its other end takes no further stream; then one more.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hyper::client::conn::http2::SendRequest;
use tokio::sync::Notify;
use tokio::time::{Instant, interval};

use crate::body::RequestBody;
use crate::connections::LiveConnection;
use crate::identity::Peer;
use crate::limits;

/// What the other end of one connection has announced, as far as its driver saw it.
#[derive(Debug)]
pub(super) struct Settings {
    streams_max: Cell<usize>,
    takes_connect: Cell<bool>,
    look: Notify,
    opened: Instant,
}

impl Settings {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            streams_max: Cell::new(limits::STREAMS_UNANNOUNCED),
            takes_connect: Cell::new(false),
            look: Notify::new(),
            opened: Instant::now(),
        })
    }

    /// What the connection knows by now.
    pub(super) fn note(&self, streams_max: usize, takes_connect: bool) {
        self.streams_max.set(streams_max);
        self.takes_connect.set(takes_connect);
    }

    /// Waits until somebody wants to know what a connection knows.
    pub(super) async fn wanted(&self) {
        self.look.notified().await;
    }

    fn is_young(&self) -> bool {
        self.opened.elapsed() < limits::SETTINGS_DEADLINE
    }

    /// True once the other end takes extended CONNECT; false when a young connection became old without that.
    pub(super) async fn takes_connect(&self) -> bool {
        // WHY: HTTP/2 tells it once, with the first frame, and hyper tells nobody when that has come.
        let mut pace = interval(limits::SETTINGS_PACE);
        loop {
            let is_young = self.is_young();
            self.look.notify_one();
            pace.tick().await;
            if self.takes_connect.get() || !is_young {
                return self.takes_connect.get();
            }
        }
    }
}

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) settings: Rc<Settings>,
    /// None for the application, whose connections nobody judges.
    pub(super) live: Option<Rc<LiveConnection>>,
    pub(super) peer: Option<Rc<Peer>>,
    streams: Rc<Cell<usize>>,
}

/// One stream of a connection, which stays open and driven until this is dropped.
#[derive(Debug)]
pub struct StreamPlace {
    streams: Rc<Cell<usize>>,
    _sender: SendRequest<RequestBody>,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.streams.set(self.streams.get().saturating_sub(1));
    }
}

impl Shared {
    pub(super) fn new(
        sender: SendRequest<RequestBody>,
        settings: Rc<Settings>,
        live: Option<Rc<LiveConnection>>,
        peer: Option<Rc<Peer>>,
    ) -> Self {
        Self {
            sender,
            settings,
            live,
            peer,
            streams: Rc::default(),
        }
    }

    fn is_usable(&self) -> bool {
        let is_serving = self.live.as_ref().is_none_or(|live| live.is_serving());
        !self.sender.is_closed() && is_serving
    }

    fn has_room(&self) -> bool {
        let has_room = self.streams.get() < self.settings.streams_max.get();
        if !has_room || self.settings.is_young() {
            self.settings.look.notify_one();
        }
        has_room
    }

    /// A stream more.
    pub(super) fn enter(&self) -> StreamPlace {
        if let Some(live) = &self.live {
            live.count_call();
        }
        self.streams.set(self.streams.get().saturating_add(1));
        StreamPlace {
            streams: Rc::clone(&self.streams),
            _sender: self.sender.clone(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.settings, &other.settings)
    }
}

/// The connections of one pool.
#[derive(Debug, Default)]
pub(super) struct SharedConnections(RefCell<Vec<Shared>>);

impl SharedConnections {
    /// One for the next call. The least busy where there is room nowhere and no further one may be opened.
    pub(super) fn find(&self) -> Option<Shared> {
        let list = self.0.borrow();
        let usable = || list.iter().filter(|shared| shared.is_usable());
        let free = usable().find(|shared| shared.has_room());
        let least = || usable().min_by_key(|shared| shared.streams.get());
        let is_full = list.len() >= limits::SHARED_CONNECTIONS_MAX;
        free.or_else(|| is_full.then(least).flatten()).cloned()
    }

    pub(super) fn add(&self, shared: Shared) {
        self.0.borrow_mut().push(shared);
    }

    /// No further call goes to one that failed.
    pub(super) fn forget(&self, failed: &Shared) {
        self.0.borrow_mut().retain(|shared| !shared.is(failed));
    }

    /// Drops those that must not be used again, and those that a peak left behind.
    pub(super) fn tidy(&self) {
        let mut list = self.0.borrow_mut();
        let mut is_first = true;
        list.retain(|shared| {
            let is_kept = shared.is_usable() && (is_first || shared.streams.get() > 0);
            is_first &= !is_kept;
            is_kept
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}
