//! TLS 1.3 by SPIFFE ID: who we are, whom we trust, and the configurations made of both.
//!
//! Sessions are never resumed: a resumed session would outlive the SVID or the bundle that it was judged by. On every
//! change build new configurations.

mod bundles;
mod config;
#[cfg(test)]
pub(crate) mod fixture;
mod identity;
mod verified;
mod verifier;

pub use bundles::X509Bundles;
pub use config::{
    ClientAuth, TlsError, client_config, peer_identity, server_config, web_client_config,
};
pub(crate) use identity::split_certificates;
pub use identity::{Identity, IdentityError};
pub use verifier::{Expect, PeerError, PeerIdentity, peer_error, verify_chain};
