//! Hostile input against two real proxy processes: HTTP/2 conformance and floods, smuggling, spoofed paths and headers,
//! cut and malformed connections. The application is a recorder that keeps every byte it gets.

#![allow(
    missing_docs,
    dead_code,
    clippy::disallowed_methods,
    unreachable_pub,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod floods;
mod ground;
mod h2;
mod malformed;
mod paths;
mod process;
mod properties;
mod recorder;
mod smuggling;

mod wire;
