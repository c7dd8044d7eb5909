//! A worker's side of the series: one meter per edge, shared by all connections of the same two workloads, that remembers the
//! series it counted in. A call then costs a look through a short list and plain additions.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cells::{CallCells, CallFigures, TcpCells};
use super::flags::ResponseFlag;
use super::labels::{CallKey, Edge, Reporter};
use super::series::{Key, SeriesStore, Shard};
use crate::limits;

/// The meters of one worker.
#[derive(Debug)]
pub struct Meters {
    store: Arc<SeriesStore>,
    worker: usize,
    edges: RefCell<HashMap<Arc<str>, Rc<Meter>>>,
}

impl Meters {
    /// No meters yet.
    pub fn new(store: Arc<SeriesStore>) -> Self {
        Self {
            worker: store.enroll(),
            store,
            edges: RefCell::default(),
        }
    }

    /// The meter of `edge`. Made once per connection, or once per connection and route.
    pub fn meter(&self, edge: &Edge<'_>) -> Rc<Meter> {
        let text = edge.render();
        let mut edges = self.edges.borrow_mut();
        if let Some(known) = edges.get(text.as_str()) {
            return Rc::clone(known);
        }
        if edges.len() >= limits::METERS_PER_WORKER_MAX {
            edges.retain(|_, meter| Rc::strong_count(meter) > 1);
        }
        let labels: Arc<str> = text.into();
        let meter = Rc::new(Meter {
            store: Arc::clone(&self.store),
            worker: self.worker,
            reporter: edge.reporter,
            labels: Arc::clone(&labels),
            calls: RefCell::default(),
        });
        // WHY: beyond the bound a meter is not shared; it still counts in the same series.
        if edges.len() < limits::METERS_PER_WORKER_MAX {
            edges.insert(labels, Rc::clone(&meter));
        }
        meter
    }

    /// Forgets meters that nobody uses and whose series are about to expire.
    pub fn tidy(&self) {
        self.edges.borrow_mut().retain(|_, meter| {
            meter.tidy();
            Rc::strong_count(meter) > 1 || !meter.calls.borrow().is_empty()
        });
    }
}

/// Counts the calls and TCP connections of one edge.
#[derive(Debug)]
pub struct Meter {
    store: Arc<SeriesStore>,
    worker: usize,
    reporter: Reporter,
    labels: Arc<str>,
    calls: RefCell<Vec<(CallKey, Arc<CallCells>)>>,
}

impl Meter {
    /// Counts one call that is over.
    pub fn count(&self, key: CallKey, figures: &CallFigures) {
        let mut calls = self.calls.borrow_mut();
        let known = calls.iter().position(|(known, _)| *known == key);
        if let Some((_, cells)) = known.and_then(|position| calls.get(position))
            && !cells.is_retired.load(Ordering::Relaxed)
        {
            cells.count(figures);
            return;
        }
        if let Some(position) = known {
            calls.swap_remove(position);
        }
        if let Shard::Call(cells) = self.resolve(Key::Call(key)) {
            cells.count(figures);
            if calls.len() >= limits::SERIES_PER_METER_MAX {
                calls.clear();
            }
            calls.push((key, cells));
        }
    }

    /// Counts a TCP connection that was opened, until the returned value is dropped.
    pub fn tcp(self: &Rc<Self>) -> TcpMeter {
        let meter = TcpMeter {
            meter: Rc::clone(self),
            cells: RefCell::new(None),
            flag: Cell::new(ResponseFlag::None),
        };
        meter.add(|cells| cells.opened.add(1));
        meter
    }

    fn resolve(&self, key: Key) -> Shard {
        self.store
            .resolve(self.worker, &self.labels, key, self.reporter)
    }

    fn tidy(&self) {
        self.calls
            .borrow_mut()
            .retain(|(_, cells)| !cells.is_retired.load(Ordering::Relaxed));
    }
}

/// The counters of one TCP connection; its end is counted on drop.
#[derive(Debug)]
pub struct TcpMeter {
    meter: Rc<Meter>,
    cells: RefCell<Option<Arc<TcpCells>>>,
    flag: Cell<ResponseFlag>,
}

impl TcpMeter {
    /// Counts bytes to the caller.
    pub fn sent(&self, bytes: u64) {
        self.add(|cells| cells.sent.add(bytes));
    }

    /// Counts bytes from the caller.
    pub fn received(&self, bytes: u64) {
        self.add(|cells| cells.received.add(bytes));
    }

    /// Says why the connection ends.
    pub fn ended(&self, flag: ResponseFlag) {
        self.flag.set(flag);
    }

    fn add(&self, count: impl FnOnce(&TcpCells)) {
        let mut cells = self.cells.borrow_mut();
        if let Some(known) = cells.as_ref()
            && !known.is_retired.load(Ordering::Relaxed)
        {
            count(known);
            return;
        }
        if let Shard::Tcp(found) = self.meter.resolve(Key::Tcp(ResponseFlag::None)) {
            count(&found);
            *cells = Some(found);
        }
    }
}

impl Drop for TcpMeter {
    fn drop(&mut self) {
        if let Shard::Tcp(cells) = self.meter.resolve(Key::Tcp(self.flag.get())) {
            cells.closed.add(1);
        }
    }
}
