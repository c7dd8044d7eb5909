//! The mesh folder as numbered revisions: plan, apply, roll back.
//!
//! A set that has one error is not published at all. A publication is one transaction: the
//! revision, the registration entries of its identities, and a leaf for each.

pub mod progress;
pub mod proposal;
pub mod publish;
#[cfg(test)]
mod tests;

pub use proposal::Proposal;
pub use publish::{PublishError, Published};
