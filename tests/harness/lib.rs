//! What the whole-system tests share: a CA with its agent in this process, the same as real processes, proxies,
//! calls, load, and the programs of others.
//!
//! Everything listens on loopback, lives in a temporary folder and ends with its test; every wait has a deadline.

#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

pub mod admin;
pub mod attest;
pub mod grpc_app;
pub mod http_call;
pub mod load;
pub mod mesh_files;
pub mod metrics;
pub mod netns;
pub mod node;
pub mod pair;
pub mod ports;
pub mod process;
pub mod programs;
pub mod servers;
pub mod services;
pub mod site;
pub mod wait;

use std::path::PathBuf;

/// The workspace's root folder.
pub fn workspace_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(PathBuf::from)
        .unwrap_or_default()
}

/// The build folder: of the program that runs now, so that another `CARGO_TARGET_DIR` is found too.
pub fn target_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .map_or_else(|| workspace_root().join("target"), PathBuf::from)
}

/// The user that runs the tests: the fact by which the agent knows them.
pub fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}
