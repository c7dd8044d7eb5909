//! Numbers that one worker writes and the control thread reads: relaxed atomics without read-modify-write, so that a count
//! costs what a plain addition costs. INVARIANT: each cell has one writer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of times, microseconds: Envoy's. One more bucket holds the rest.
pub const TIME_BOUNDS: [u64; 19] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];
/// Upper bounds of the buckets of sizes, bytes: Envoy's, and some for large bodies instead of the smallest.
pub const BYTE_BOUNDS: [u64; 19] = [
    0,
    10,
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    30_000,
    60_000,
    300_000,
    600_000,
    1_800_000,
    3_600_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
];
/// Buckets of a histogram.
pub const BUCKETS: usize = TIME_BOUNDS.len() + 1;

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds; called by the one worker alone.
    pub fn add(&self, by: u64) {
        let total = self.0.load(Ordering::Relaxed).wrapping_add(by);
        self.0.store(total, Ordering::Relaxed);
    }

    /// The total so far.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram with one writer.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [Count; BUCKETS],
    sum: Count,
}

impl Histogram {
    /// Counts `value` in the first bucket whose bound is not below it.
    fn observe(&self, bounds: &[u64], value: u64) {
        let index = bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(index) {
            count.add(1);
        }
        self.sum.add(value);
    }

    /// Counts bytes.
    pub fn observe_bytes(&self, bytes: u64) {
        self.observe(&BYTE_BOUNDS, bytes);
    }

    /// Counts a time, in microseconds.
    pub fn observe_time(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.observe(&TIME_BOUNDS, micros);
    }

    /// Adds what was counted to `sum`.
    pub fn add_to(&self, sum: &mut HistogramSum) {
        for (total, count) in sum.counts.iter_mut().zip(&self.counts) {
            *total = total.saturating_add(count.total());
        }
        sum.sum = sum.sum.saturating_add(self.sum.total());
    }
}

/// Histograms of several workers, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistogramSum {
    /// By bucket, not cumulative.
    pub counts: [u64; BUCKETS],
    /// Bytes, or microseconds.
    pub sum: u64,
}

/// What one call adds to its series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallFigures {
    /// From the head to the end.
    pub latency: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// gRPC messages of the caller.
    pub request_messages: u64,
    /// gRPC messages to the caller.
    pub response_messages: u64,
}

/// One worker's part of a series of calls.
#[derive(Debug, Default)]
pub struct CallCells {
    /// Set before the series expires: who still counts here asks for it anew.
    pub is_retired: AtomicBool,
    /// Calls.
    pub calls: Count,
    /// Their times.
    pub durations: Histogram,
    /// Their request bodies.
    pub request_bytes: Histogram,
    /// Their response bodies.
    pub response_bytes: Histogram,
    /// gRPC messages.
    pub request_messages: Count,
    /// gRPC messages.
    pub response_messages: Count,
}

impl CallCells {
    /// Counts one call that is over.
    pub fn count(&self, figures: &CallFigures) {
        self.calls.add(1);
        self.durations.observe_time(figures.latency);
        self.request_bytes.observe_bytes(figures.request_bytes);
        self.response_bytes.observe_bytes(figures.response_bytes);
        self.request_messages.add(figures.request_messages);
        self.response_messages.add(figures.response_messages);
    }
}

/// One worker's part of a series of TCP connections.
#[derive(Debug, Default)]
pub struct TcpCells {
    /// See [`CallCells::is_retired`].
    pub is_retired: AtomicBool,
    /// Connections opened.
    pub opened: Count,
    /// Connections closed.
    pub closed: Count,
    /// Bytes to the caller.
    pub sent: Count,
    /// Bytes from the caller.
    pub received: Count,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_first_bucket_that_holds_it() {
        let rows = [
            (0, 0),
            (1, 1),
            (10, 1),
            (11, 2),
            (1_000_000_000, 18),
            (1_000_000_001, 19),
            (u64::MAX, 19),
        ];
        for (value, bucket) in rows {
            let histogram = Histogram::default();
            histogram.observe_bytes(value);
            let mut sum = HistogramSum::default();
            histogram.add_to(&mut sum);
            let found = sum.counts.iter().position(|count| *count == 1);
            assert_eq!((found, sum.sum), (Some(bucket), value), "{value}");
        }
        let histogram = Histogram::default();
        for micros in [500, 501, 1_000] {
            histogram.observe_time(Duration::from_micros(micros));
        }
        let mut sum = HistogramSum::default();
        histogram.add_to(&mut sum);
        assert_eq!((sum.counts[0], sum.counts[1], sum.sum), (1, 2, 2_001));
    }
}
