//! A whole agent against a fake CA, over its real sockets: no sleeps, every wait bounded.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_imports,
    clippy::wildcard_enum_match_arm,
    clippy::duration_suboptimal_units,
    clippy::too_many_lines,
    clippy::format_push_string,
    clippy::unnecessary_debug_formatting,
    reason = "tests"
)]

mod fake_ca;
mod life;
mod node;
mod proxy;
mod workload;
