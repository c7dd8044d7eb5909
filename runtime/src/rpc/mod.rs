//! gRPC over TLS by SPIFFE ID and over Unix sockets: the accept loops, the dialling, and what a handler learns of its peer.
//!
//! A handler finds `TlsPeer` or `uds::PeerProcess` in the request's extensions.

mod address;
mod client;
mod crowd;
mod expiring;
mod server;
mod standard;

pub use address::{AddressError, ServerAddress};
pub use client::{RpcError, connect};
pub use server::{RpcLimits, ServeError, TlsPeer, serve_tls, serve_uds};
pub use standard::{HealthReporter, with_health_and_reflection};

#[cfg(test)]
mod tests;
