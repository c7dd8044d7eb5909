//! The agent's configuration file: TOML, overridden by `RAVELIN_AGENT_*`. Unknown keys are errors.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ravelin_proto::secret::Secret;
use ravelin_proto::spiffe_id::TrustDomain;
use serde::{Deserialize, Deserializer};

/// Everything an operator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The trust domain that this agent belongs to.
    pub trust_domain: TrustDomain,
    /// Own SVID, snapshot and SVIDs of the workloads; made with mode 0700.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// The CA: `https://HOST:PORT`.
    #[serde(default = "default_server")]
    pub server: String,
    /// PEM file with the CA's X.509 authorities: needed until the node is attested.
    #[serde(default)]
    pub trust_bundle: Option<PathBuf>,
    /// File with a join token; read again at each attempt.
    #[serde(default)]
    pub join_token_file: Option<PathBuf>,
    /// The join token itself; a file keeps it out of `ps` and backups of this one.
    #[serde(default, deserialize_with = "read_secret")]
    pub join_token: Option<Secret<String>>,
    /// Workload API socket, mode 0666.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// Admin socket, mode 0600.
    #[serde(default = "default_admin_socket")]
    pub admin_socket: PathBuf,
    /// `/metrics`, `/healthz`, `/readyz` over HTTP; loopback only.
    #[serde(default)]
    pub metrics_listen: Option<SocketAddr>,
    /// Log format and filter.
    #[serde(default)]
    pub log: ravelin_runtime::telemetry::TelemetryConfig,
}

fn read_secret<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Secret<String>>, D::Error> {
    Ok(Option::<String>::deserialize(source)?.map(Secret::new))
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("/var/lib/ravelin/agent")
}

fn default_server() -> String {
    "https://127.0.0.1:8081".to_owned()
}

fn default_socket() -> PathBuf {
    PathBuf::from("/run/ravelin/agent.sock")
}

fn default_admin_socket() -> PathBuf {
    PathBuf::from("/run/ravelin/agent-admin.sock")
}

impl AgentConfig {
    /// Reads a file and the environment.
    pub fn load(path: &Path) -> Result<Self, ravelin_runtime::config::ConfigError> {
        ravelin_runtime::config::load(Some(path), "RAVELIN_AGENT")
    }
}
