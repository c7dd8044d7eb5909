//! A global allocator that counts what the current thread allocates: for bounds on memory, and for "allocates nothing".
#![allow(
    unsafe_code,
    dead_code,
    unreachable_pub,
    reason = "the only way to see allocations is to be the allocator; each user takes its part"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts, per thread, and passes everything on to the system's allocator.
pub struct Counting;

#[derive(Clone, Copy, Default)]
struct Counts {
    allocations: u64,
    live: i64,
    peak: i64,
}

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { allocations: 0, live: 0, peak: 0 }) };
}

fn count(allocations: u64, bytes: i64) {
    // A thread that is ending counts no more.
    let _ = COUNTS.try_with(|cell| {
        let mut counts = cell.get();
        counts.allocations += allocations;
        counts.live += bytes;
        counts.peak = counts.peak.max(counts.live);
        cell.set(counts);
    });
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// SAFETY: every call is handed to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, signed(layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -signed(layout.size()));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, signed(size) - signed(layout.size()));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What one piece of work took from the allocator, on this thread.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Calls that allocate.
    pub allocations: u64,
    /// Bytes that are still held.
    pub kept: i64,
    /// Most bytes that were held at once, beyond those before.
    pub peak: i64,
}

/// Runs `work` and says what it took.
pub fn counted<T>(work: impl FnOnce() -> T) -> (T, Taken) {
    let before = COUNTS.with(|cell| {
        let mut counts = cell.get();
        counts.peak = counts.live;
        cell.set(counts);
        counts
    });
    let value = work();
    let after = COUNTS.with(Cell::get);
    let taken = Taken {
        allocations: after.allocations - before.allocations,
        kept: after.live - before.live,
        peak: after.peak - before.live,
    };
    (value, taken)
}
