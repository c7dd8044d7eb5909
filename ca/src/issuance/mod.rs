//! Issuance, flow A of the design: csr -> authorize -> template -> lint -> ticket -> sign -> compare -> outcome.
//!
//! A CSR contributes its public key and nothing else. No audit entry, no SVID.

pub mod authorize;
pub mod clock_guard;
pub mod csr;
mod events;
pub mod issuer;
pub mod jwt;
pub mod lint;
pub mod outcome;
pub mod serial;
pub mod sign;
pub mod template;
