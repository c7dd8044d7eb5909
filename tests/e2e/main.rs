//! The whole system in one process: CA, agent, proxies and applications on ephemeral ports, nothing stubbed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

mod attestation;
mod audit;
mod calls;
mod capture;
mod custom;
mod issuance;
mod outage;
mod protocols;
mod roles;
mod rotation;
