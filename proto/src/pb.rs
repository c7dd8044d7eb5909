//! Messages, clients and servers generated from `protos/`, in one module per package.
//!
//! The Workload API has no package and stands at the top of this module.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::as_conversions,
    clippy::allow_attributes_without_reason,
    clippy::allow_attributes,
    clippy::wildcard_enum_match_arm,
    reason = "generated code"
)]

include!(concat!(env!("OUT_DIR"), "/pb.rs"));

/// The encoded `FileDescriptorSet` of every contract, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
