//! The certificate authority: attestation, registration, issuance, rotation, audit, sync.
//!
//! State (store, registry, hub, audit log, mesh, sync) on one side, issuance (authorities, SVIDs, attestation) on the
//! other; they meet in [`store::Store`] and [`hub::Hub`]. [`start`] wires them.

pub mod acks;
pub mod api;
pub mod attest;
pub mod audit;
pub mod authority;
pub mod bundle;
pub mod config;
pub mod hub;
pub mod issuance;
pub mod keys;
pub mod limits;
pub mod mesh;
pub mod metrics;
pub mod registry;
pub mod registry_json;
pub mod server_identity;
pub mod store;
pub mod sync;
mod wiring;

pub use config::CaConfig;
pub use wiring::{CaError, RunningCa, start};
