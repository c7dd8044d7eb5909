//! Clients and programs of others, unmodified, against our agent and CA: PyPI `spiffe`, crate `spiffe`, openssl.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

mod openssl;
mod python;
mod rust_client;
