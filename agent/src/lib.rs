//! The node agent: attests its node to the CA, and the processes on it.
//!
//! It keeps one sync stream to the CA, asks for SVIDs on demand, and serves the SPIFFE Workload
//! API and the proxies' configuration on a Unix socket. It serves from disk while the CA is away
//! and never ends because of it. Decisions are pure: `renewal`, `cache`, `proxies`, `mesh`.

mod admission;
mod agent_admin;
mod attestor;
mod ca_client;
mod cache;
mod config;
mod csr;
mod decisions;
mod delta;
mod entropy;
mod issuance;
mod jwt_svids;
mod launch;
pub mod limits;
mod mesh;
mod metrics;
mod node;
mod proxies;
mod proxy_config;
mod renewal;
mod running;
mod state;
mod storage;
mod sync;
mod workload_api;

pub use config::AgentConfig;
pub use running::{AgentError, RunningAgent, start};
pub use storage::StorageError;
