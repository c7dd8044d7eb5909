//! The audit log: events, canonical JSON, RFC 6962 leaves, durable appends, signed checkpoints.
//!
//! Every act of the CA is a leaf before it counts. One commit of the store carries the leaves of
//! many callers and one C2SP checkpoint over them, so a log without its end does not verify.

pub mod canonical;
pub mod check;
pub mod event;
pub mod key;
pub mod log;
pub mod query;
pub(crate) mod replay;
pub mod sequencer;
#[cfg(test)]
mod tests;
pub mod verify;

pub use event::{Event, Leaf};
pub use sequencer::{AuditError, Sequencer};
pub use verify::{VerifyFailure, VerifyOptions, VerifyReport, verify_store, verify_store_with};
