//! The wire contracts of Ravelin and the pure vocabulary of identity.
//!
//! Bytes become a type here, once: a [`spiffe_id::SpiffeId`], a [`selector::Selector`], an
//! [`x509_svid::LeafSvid`]. Nothing in this crate reads a clock, a file or a socket, and
//! nothing here verifies a signature: `runtime` does.

#![cfg_attr(
    test,
    allow(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::format_collect,
        clippy::too_many_lines,
        reason = "tests are tables"
    )
)]

pub mod bundle;
pub mod convert;
pub mod entry;
pub mod http_url;
pub mod jwks;
pub mod jws;
pub mod jwt_svid;
pub mod merkle;
pub mod pb;
pub mod secret;
pub mod selector;
pub mod spiffe_id;
pub mod time;
pub mod x509_svid;
