//! All series of calls and TCP connections of the process: who may have one, when an idle one goes, and how many there are.
//!
//! A worker takes the lock when it needs a series that it does not hold yet; counting takes none. The control thread sweeps and
//! reads. A series that was idle for [`limits::SERIES_IDLE`] is first retired (a worker that still holds it then asks anew, which
//! keeps it), and removed at a later sweep.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ravelin_proto::time::Timestamp;

use super::cells::{CallCells, TcpCells};
use super::flags::ResponseFlag;
use super::labels::{self, CallKey, Reporter};
use crate::limits;

/// The series of the process.
#[derive(Debug)]
pub struct SeriesStore {
    inner: Mutex<Inner>,
}

/// Which of the two families of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Calls of HTTP.
    Call(CallKey),
    /// Connections of TCP.
    Tcp(ResponseFlag),
}

/// One worker's part of a series.
#[derive(Clone, Debug)]
pub enum Shard {
    /// Calls of HTTP.
    Call(Arc<CallCells>),
    /// Connections of TCP.
    Tcp(Arc<TcpCells>),
}

/// A series as the exposition reads it: labels of the edge, key, and every worker's part.
pub type SeriesView = (Arc<str>, Key, Vec<Shard>);

#[derive(Debug, Default)]
struct Inner {
    edges: HashMap<Arc<str>, BTreeMap<Key, Series>>,
    count: usize,
    refused: u64,
    workers: usize,
}

#[derive(Debug, Default)]
struct Series {
    shards: Vec<(usize, Shard)>,
    seen: u64,
    is_touched: bool,
    /// When a sweep last saw a change; none before the first.
    changed_at: Option<Timestamp>,
    retired_at: Option<Timestamp>,
}

impl SeriesStore {
    /// No series.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner::default()),
        })
    }

    /// A number for one more worker.
    pub fn enroll(&self) -> usize {
        let mut inner = self.lock();
        let worker = inner.workers;
        inner.workers = worker.saturating_add(1);
        worker
    }

    /// The part of `worker` in the series of `edge` and `key`: of the overflow series where there is no room.
    pub fn resolve(&self, worker: usize, edge: &Arc<str>, key: Key, reporter: Reporter) -> Shard {
        let mut inner = self.lock();
        if inner.has_room(edge, key) {
            return inner.shard(worker, edge, key);
        }
        inner.refused = inner.refused.saturating_add(1);
        let key = match key {
            Key::Call(_) => Key::Call(CallKey::default()),
            Key::Tcp(_) => Key::Tcp(ResponseFlag::None),
        };
        inner.shard(worker, &labels::overflow(reporter).into(), key)
    }

    /// Series now.
    pub fn len(&self) -> usize {
        self.lock().count
    }

    /// True without series.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often the overflow series was given instead of one of its own.
    pub fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// Retires and removes what was idle for long. Called by the control thread at each scrape and from time to time.
    pub fn sweep(&self, now: Timestamp) {
        let mut inner = self.lock();
        let mut removed = 0_usize;
        inner.edges.retain(|_, keys| {
            let before = keys.len();
            keys.retain(|_, series| series.sweep(now));
            removed = removed.saturating_add(before.saturating_sub(keys.len()));
            !keys.is_empty()
        });
        inner.count = inner.count.saturating_sub(removed);
    }

    /// Every series, sorted. The lock is held for copying the references alone.
    pub fn view(&self) -> Vec<SeriesView> {
        let inner = self.lock();
        let mut all: Vec<SeriesView> = inner
            .edges
            .iter()
            .flat_map(|(edge, keys)| {
                keys.iter().map(|(key, series)| {
                    let shards = series.shards.iter().map(|(_, shard)| shard.clone());
                    (Arc::clone(edge), *key, shards.collect())
                })
            })
            .collect();
        drop(inner);
        all.sort_by(|left, right| (&left.0, left.1).cmp(&(&right.0, right.1)));
        all
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // WHY: numbers stay good when another thread panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn has_room(&self, edge: &Arc<str>, key: Key) -> bool {
        let keys = self.edges.get(edge);
        let is_known = keys.is_some_and(|keys| keys.contains_key(&key));
        let of_edge = keys.map_or(0, BTreeMap::len);
        is_known || (self.count < limits::SERIES_MAX && of_edge < limits::SERIES_PER_EDGE_MAX)
    }

    fn shard(&mut self, worker: usize, edge: &Arc<str>, key: Key) -> Shard {
        let keys = self.edges.entry(Arc::clone(edge)).or_default();
        let count = &mut self.count;
        let series = keys.entry(key).or_insert_with(|| {
            *count = count.saturating_add(1);
            Series::default()
        });
        series.is_touched = true;
        if series.retired_at.take().is_some() {
            for (_, shard) in &series.shards {
                shard.retire(false);
            }
        }
        if let Some((_, shard)) = series.shards.iter().find(|(of, _)| *of == worker) {
            return shard.clone();
        }
        let shard = match key {
            Key::Call(_) => Shard::Call(Arc::default()),
            Key::Tcp(_) => Shard::Tcp(Arc::default()),
        };
        series.shards.push((worker, shard.clone()));
        shard
    }
}

impl Series {
    /// False when the series is to be removed.
    fn sweep(&mut self, now: Timestamp) -> bool {
        let total = self
            .shards
            .iter()
            .fold(0_u64, |sum, (_, shard)| sum.wrapping_add(shard.activity()));
        let changed_at = *self.changed_at.get_or_insert(now);
        if total != self.seen || self.is_touched {
            self.seen = total;
            self.is_touched = false;
            self.changed_at = Some(now);
            // WHY: a count came in the moment of retiring; the series lives on.
            if self.retired_at.take().is_some() {
                self.retire(false);
            }
            return true;
        }
        match self.retired_at {
            Some(retired_at) => now.since(retired_at) < limits::SERIES_RETIRED,
            None if now.since(changed_at) >= limits::SERIES_IDLE => {
                self.retire(true);
                self.retired_at = Some(now);
                true
            }
            None => true,
        }
    }

    fn retire(&self, is_retired: bool) {
        for (_, shard) in &self.shards {
            shard.retire(is_retired);
        }
    }
}

impl Shard {
    fn flag(&self) -> &AtomicBool {
        match self {
            Self::Call(cells) => &cells.is_retired,
            Self::Tcp(cells) => &cells.is_retired,
        }
    }

    fn retire(&self, is_retired: bool) {
        self.flag().store(is_retired, Ordering::Relaxed);
    }

    /// True once who holds it has to ask for it anew before counting.
    pub fn is_retired(&self) -> bool {
        self.flag().load(Ordering::Relaxed)
    }

    /// A number that changes with every count.
    fn activity(&self) -> u64 {
        match self {
            Self::Call(cells) => cells.calls.total(),
            Self::Tcp(cells) => [&cells.opened, &cells.closed, &cells.sent, &cells.received]
                .iter()
                .fold(0, |sum, count| sum.wrapping_add(count.total())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::CallFigures;
    use super::*;
    use std::time::Duration;

    fn key(code: u16) -> Key {
        Key::Call(CallKey {
            code,
            ..CallKey::default()
        })
    }

    fn count(shard: &Shard) {
        match shard {
            Shard::Call(cells) => cells.count(&CallFigures::default()),
            Shard::Tcp(cells) => cells.opened.add(1),
        }
    }

    fn edge(text: &str) -> Arc<str> {
        text.into()
    }

    #[test]
    fn a_series_that_was_idle_for_ten_minutes_expires_and_a_live_one_stays() {
        let store = SeriesStore::new();
        let resolve = |code| store.resolve(0, &edge("a"), key(code), Reporter::Source);
        let (idle, busy) = (resolve(200), resolve(404));
        let start = Timestamp::from_unix_secs(1_000_000);
        let at = |secs| start.plus(Duration::from_secs(secs));
        store.sweep(at(0));
        for step in 1..=20 {
            count(&busy);
            store.sweep(at(step * 30));
            assert_eq!(store.len(), 2, "after {step} half minutes");
        }
        assert!(idle.is_retired() && !busy.is_retired());
        // One that asks anew in time keeps it.
        assert!(!resolve(200).is_retired() && !idle.is_retired());
        store.sweep(at(660));
        count(&busy);
        store.sweep(at(1_290));
        assert!(idle.is_retired());
        // A count that came in the moment of retiring is not lost.
        count(&idle);
        store.sweep(at(1_400));
        assert!(!idle.is_retired());
        store.sweep(at(2_100));
        store.sweep(at(2_200));
        assert!(store.is_empty());
    }

    #[test]
    fn series_of_all_workers_are_one_and_each_worker_writes_its_own_part() {
        let store = SeriesStore::new();
        let workers = [store.enroll(), store.enroll()];
        assert_eq!(workers, [0, 1]);
        for worker in workers {
            count(&store.resolve(worker, &edge("a"), key(200), Reporter::Source));
            count(&store.resolve(worker, &edge("a"), key(200), Reporter::Source));
        }
        let view = store.view();
        assert_eq!((view.len(), view[0].2.len(), store.len()), (1, 2, 1));
        assert!(view[0].2.iter().all(|shard| shard.activity() == 2));
    }

    #[test]
    fn the_number_of_series_is_bounded_by_edge_and_in_all() {
        let store = SeriesStore::new();
        for code in 0..1_000 {
            count(&store.resolve(0, &edge("greedy"), key(code), Reporter::Destination));
        }
        assert_eq!(store.len(), limits::SERIES_PER_EDGE_MAX + 1);
        let mut calls = 0;
        for peer in 0..limits::SERIES_MAX * 2 {
            count(&store.resolve(
                0,
                &edge(&format!("peer {peer}")),
                key(200),
                Reporter::Destination,
            ));
            calls += 1;
        }
        assert!(store.len() <= limits::SERIES_MAX + 1, "{}", store.len());
        let total: u64 = store
            .view()
            .iter()
            .flat_map(|(_, _, shards)| shards.iter().map(Shard::activity))
            .sum();
        assert_eq!(total, 1_000 + calls, "nothing is lost");
        assert!(store.refused() > 0);
        let overflow: Arc<str> = labels::overflow(Reporter::Destination).into();
        assert!(store.view().iter().any(|(edge, _, _)| *edge == overflow));
    }
}
