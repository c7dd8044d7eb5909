//! The Merkle tree of the audit log: RFC 6962 hashing, proofs and C2SP checkpoints.
//!
//! Pure: hashes in, hashes out. What the leaves mean and where they lie is the CA's business.

pub mod checkpoint;
pub mod proof;
pub mod tree;

pub use proof::{consistency_path, inclusion_path, verify_consistency, verify_inclusion};
pub use tree::{CompactTree, Hash, leaf_hash, node_hash, root_of};
