//! Authorities: what signs for the trust domain, since when, and how one follows another.

pub mod certificate;
pub mod custody;
pub mod journal;
pub mod progress;
pub mod rotate;
pub mod schedule;
pub mod state;
