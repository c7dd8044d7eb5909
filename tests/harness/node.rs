//! A CA and one agent in this process, on ephemeral ports, in a temporary folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ravelin_agent::AgentConfig;
use ravelin_ca::config::{CaConfig, TtlConfig};
use ravelin_proto::secret::Secret;
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_runtime::clock::{SharedClock, SystemClock};
use ravelin_runtime::drain::Drain;
use ravelin_runtime::telemetry::TelemetryConfig;
use ravelin_runtime::workload_client::WorkloadClient;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::admin::{CaAdmin, agent_status};
use crate::uid;
use crate::wait::{SOON, until, until_true};

/// The trust domain of every test.
pub const TRUST_DOMAIN: &str = "shop.example";
/// The alias of the one agent; parent of the entries.
pub const NODE_ID: &str = "spiffe://shop.example/node/local";

/// What may differ between tests.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The clock of CA and agent.
    pub clock: SharedClock,
    /// Lives of credentials.
    pub ttl: TtlConfig,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            clock: SystemClock::shared(),
            ttl: TtlConfig::default(),
        }
    }
}

impl NodeOptions {
    /// Tokens that live this long: a JWT authority is revoked only when the last one has ended.
    pub fn with_jwt_life(life: Duration) -> Self {
        let ttl = TtlConfig {
            jwt_svid: life,
            ..TtlConfig::default()
        };
        Self {
            ttl,
            ..Self::default()
        }
    }
}

/// A part that runs in a task of this process.
#[derive(Debug)]
struct Part {
    drain: Drain,
    task: JoinHandle<()>,
}

impl Part {
    async fn end(self) {
        self.drain.start();
        let _ = self.task.await;
    }
}

/// A CA alone.
#[derive(Debug)]
pub struct Ca {
    folder: TempDir,
    part: Option<Part>,
    tls_addr: SocketAddr,
    admin: CaAdmin,
    options: NodeOptions,
}

impl Ca {
    /// Starts one and waits until it answers.
    pub async fn start(options: NodeOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (part, tls_addr, admin) = start_ca(folder.path(), &options, any_port()).await;
        Self {
            folder,
            part: Some(part),
            tls_addr,
            admin,
            options,
        }
    }

    /// Ends the CA, in order.
    pub async fn stop(&mut self) {
        if let Some(part) = self.part.take() {
            part.end().await;
        }
    }

    /// Starts it again, on the same folder and port.
    pub async fn restart(&mut self) {
        self.stop().await;
        let (part, _, admin) = start_ca(self.folder.path(), &self.options, self.tls_addr).await;
        self.part = Some(part);
        self.admin = admin;
    }

    /// Its admin socket.
    pub fn admin(&self) -> &CaAdmin {
        &self.admin
    }

    /// Where agents connect.
    pub fn tls_addr(&self) -> SocketAddr {
        self.tls_addr
    }

    /// The temporary folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The CA's data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("ca")
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn start_ca(
    folder: &Path,
    options: &NodeOptions,
    listen: SocketAddr,
) -> (Part, SocketAddr, CaAdmin) {
    let trust_domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
    let mut config = CaConfig::new(trust_domain, folder.join("ca"));
    config.listen = listen;
    config.ttl = options.ttl.clone();
    let drain = Drain::new();
    let running = ravelin_ca::start(config, options.clock.clone(), drain.clone())
        .await
        .unwrap();
    let (tls_addr, socket) = (running.tls_addr(), running.admin_socket().to_owned());
    let task = tokio::spawn(async move {
        if let Err(error) = running.wait().await {
            eprintln!("the CA ended: {error}");
        }
    });
    let admin = until("the CA's admin socket answers", SOON, || {
        CaAdmin::connect(&socket)
    })
    .await;
    (Part { drain, task }, tls_addr, admin)
}

/// A CA and its agent.
#[derive(Debug)]
pub struct Node {
    ca: Ca,
    agent: Option<Part>,
    config: AgentConfig,
}

impl Node {
    /// Starts both, and returns once the agent has attested and taken the CA's first state.
    pub async fn start(options: NodeOptions) -> Self {
        let ca = Ca::start(options).await;
        let config = agent_config(&ca).await;
        let mut node = Self {
            ca,
            agent: None,
            config,
        };
        node.start_agent().await;
        until_true("the agent is synchronised", SOON, || node.is_synced()).await;
        node
    }

    /// Starts the agent on its folder.
    pub async fn start_agent(&mut self) {
        let drain = Drain::new();
        let clock = self.ca.options.clock.clone();
        let running = ravelin_agent::start(self.config.clone(), clock, drain.clone())
            .await
            .unwrap();
        let task = tokio::spawn(async move {
            if let Err(error) = running.wait().await {
                eprintln!("the agent ended: {error}");
            }
        });
        self.agent = Some(Part { drain, task });
    }

    /// Ends the agent, in order.
    pub async fn stop_agent(&mut self) {
        if let Some(part) = self.agent.take() {
            part.end().await;
        }
    }

    /// The CA.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// The CA, to stop and start.
    pub fn ca_mut(&mut self) -> &mut Ca {
        &mut self.ca
    }

    /// The CA's admin socket.
    pub fn admin(&self) -> &CaAdmin {
        self.ca.admin()
    }

    /// The Workload API socket.
    pub fn socket(&self) -> &Path {
        &self.config.socket
    }

    /// The Workload API socket as `SPIFFE_ENDPOINT_SOCKET` carries it.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The agent's admin socket.
    pub fn agent_admin_socket(&self) -> &Path {
        &self.config.admin_socket
    }

    /// Whether the agent says that it has the CA's state.
    pub async fn is_synced(&self) -> bool {
        let status = agent_status(self.agent_admin_socket()).await;
        status.is_some_and(|status| status.is_synced)
    }

    /// An entry for every process of this user; returns its id once the agent serves it.
    pub async fn create_own_entry(&self, path: &str) -> String {
        let id = format!("spiffe://{TRUST_DOMAIN}{path}");
        let selector = format!("unix:uid:{}", uid());
        let entry = self.admin().create_entry(&id, NODE_ID, &[&selector]).await;
        until_true("the agent serves the new entry", SOON, || self.serves(&id)).await;
        entry
    }

    /// Whether the Workload API gives this process the SVID of `id`.
    pub async fn serves(&self, id: &str) -> bool {
        let ids = self.served_ids().await;
        ids.iter().any(|served| served == id)
    }

    /// The SPIFFE IDs that the Workload API gives this process now.
    pub async fn served_ids(&self) -> Vec<String> {
        use tokio_stream::StreamExt as _;
        let Ok(client) = WorkloadClient::connect(self.socket()).await else {
            return Vec::new();
        };
        let Ok(stream) = client.x509_svids().await else {
            return Vec::new();
        };
        let mut stream = std::pin::pin!(stream);
        match stream.next().await {
            Some(Ok(update)) => update
                .svids
                .iter()
                .map(|svid| svid.identity.id.to_string())
                .collect(),
            _ => Vec::new(),
        }
    }
}

async fn agent_config(ca: &Ca) -> AgentConfig {
    let folder = ca.folder();
    let bundle = folder.join("bundle.pem");
    std::fs::write(&bundle, ca.admin().bundle_pem().await).unwrap();
    AgentConfig {
        trust_domain: TrustDomain::parse(TRUST_DOMAIN).unwrap(),
        data_dir: folder.join("agent"),
        server: format!("https://{}", ca.tls_addr()),
        trust_bundle: Some(bundle),
        join_token_file: None,
        join_token: Some(Secret::new(ca.admin().join_token(NODE_ID).await)),
        socket: folder.join("agent.sock"),
        admin_socket: folder.join("agent-admin.sock"),
        metrics_listen: None,
        log: TelemetryConfig::default(),
    }
}
