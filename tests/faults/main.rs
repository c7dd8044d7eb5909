//! The parts as separate processes: killed hard, started on bad input, verified from outside.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

mod bad_input;
mod disk;
mod kill;
mod up;
