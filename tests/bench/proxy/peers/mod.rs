//! The proxies of others, each configured to do the same mutual TLS: one worker, TLS 1.3 with AES-128-GCM and X25519, the
//! same certificates, no resumption, kept connections on both sides. None has tokens, policy or an access log on.

mod envoy;
mod haproxy;
mod nginx;

use crate::system::{Ground, System};

/// What can be compared.
pub(crate) const NAMES: [&str; 3] = ["nginx", "haproxy", "envoy"];

/// Starts the pair of `name`, or says why there is none.
pub(crate) fn start(name: &str, ground: &Ground) -> Result<System, String> {
    match name {
        "nginx" => nginx::start(ground),
        "haproxy" => haproxy::start(ground),
        "envoy" => envoy::start(ground),
        other => Err(format!("`{other}` is not one of {}", NAMES.join(", "))),
    }
}
