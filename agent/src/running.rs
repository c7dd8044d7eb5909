//! The wiring: what is opened, in which order, which tasks run, and how they end together.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use ravelin_proto::pb::ravelin::v1::agent_admin_server::AgentAdminServer;
use ravelin_proto::pb::ravelin::v1::launch_server::LaunchServer;
use ravelin_proto::pb::ravelin::v1::proxy_config_server::ProxyConfigServer;
use ravelin_proto::pb::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_runtime::admin::{AdminError, AdminServer, Readiness};
use ravelin_runtime::clock::SharedClock;
use ravelin_runtime::crypto;
use ravelin_runtime::drain::Drain;
use ravelin_runtime::rpc::{
    self, AddressError, HealthReporter, RpcLimits, ServeError, ServerAddress,
};
use ravelin_runtime::uds::{UdsError, UdsListener};
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::admission::Admission;
use crate::agent_admin::AgentAdminApi;
use crate::attestor::Attestor;
use crate::attestor::launch::LaunchTable;
use crate::ca_client::CaClient;
use crate::config::AgentConfig;
use crate::decisions::DecisionQueue;
use crate::issuance::Issuer;
use crate::jwt_svids::JwtSvids;
use crate::launch::LaunchApi;
use crate::limits;
use crate::metrics::Metrics;
use crate::node::{Node, TokenSource};
use crate::proxy_config::ProxyConfigApi;
use crate::state::{self, State};
use crate::storage::{Storage, StorageError};
use crate::sync::SyncTask;
use crate::workload_api::WorkloadApi;
use crate::workload_api::session::Gate;

const WORKLOAD_SOCKET_MODE: u32 = 0o666;
const ADMIN_SOCKET_MODE: u32 = 0o600;

/// Why the agent cannot start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The server's address.
    #[error("`server`: {0}")]
    Address(#[from] AddressError),
    /// The data folder.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The data folder belongs to an agent of another trust domain.
    #[error("the data folder `{}` belongs to trust domain `{held}`, not to `{want}`: use another `data_dir`", path.display())]
    OtherTrustDomain {
        /// The folder.
        path: PathBuf,
        /// In the folder.
        held: TrustDomain,
        /// In the configuration.
        want: TrustDomain,
    },
    /// A socket.
    #[error(transparent)]
    Socket(#[from] UdsError),
    /// The folder of a socket, or of the decisions.
    #[error("cannot make the folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The metrics listener.
    #[error(transparent)]
    Metrics(#[from] AdminError),
    /// A listener ended early.
    #[error("`{task}` ended early")]
    Serve {
        /// Which.
        task: &'static str,
        /// Why.
        source: ServeError,
    },
    /// A task ended early; the process ends with it.
    #[error("`{0}` ended early")]
    TaskEnded(&'static str),
}

/// A running agent.
#[derive(Debug)]
pub struct RunningAgent {
    tasks: JoinSet<Ended>,
    drain: Drain,
    socket: PathBuf,
    admin_socket: PathBuf,
    metrics_addr: Option<SocketAddr>,
}

type Ended = (&'static str, Result<(), ServeError>);

impl RunningAgent {
    /// The Workload API socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The admin socket.
    pub fn admin_socket(&self) -> &Path {
        &self.admin_socket
    }

    /// Where metrics are served.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Runs until the drain is over. A task that ends early starts the drain and is the error.
    pub async fn wait(mut self) -> Result<(), AgentError> {
        let mut early = None;
        while let Some(ended) = self.tasks.join_next().await {
            let is_early = !self.drain.is_started();
            let (task, result) = ended.unwrap_or(("a task", Ok(())));
            let error = match result {
                Err(source) => Some(AgentError::Serve { task, source }),
                Ok(()) if is_early => Some(AgentError::TaskEnded(task)),
                Ok(()) => None,
            };
            self.drain.start();
            early = early.or(error);
        }
        early.map_or(Ok(()), Err)
    }
}

/// Everything that the tasks share.
struct Parts {
    state: Arc<State>,
    storage: Arc<Storage>,
    ca: Arc<CaClient>,
    decisions: Arc<DecisionQueue>,
    launches: Arc<LaunchTable>,
    attestor: Arc<Attestor>,
    metrics: Metrics,
    drain: Drain,
}

/// Starts the agent: reads back what it kept, opens its sockets, then its tasks. The CA need not be there.
pub async fn start(
    config: AgentConfig,
    clock: SharedClock,
    drain: Drain,
) -> Result<RunningAgent, AgentError> {
    crypto::install();
    let parts = open(&config, clock, drain.clone())?;
    let workload = bind(&config.socket, WORKLOAD_SOCKET_MODE)?;
    let admin = bind(&config.admin_socket, ADMIN_SOCKET_MODE)?;
    let metrics = match config.metrics_listen {
        Some(address) => Some(AdminServer::bind(address).await?),
        None => None,
    };
    let metrics_addr = metrics
        .as_ref()
        .and_then(|listener| listener.local_addr().ok());
    let mut tasks = JoinSet::new();
    spawn_servers(&mut tasks, &parts, workload, admin, metrics);
    spawn_tasks(&mut tasks, &parts, &config);
    Ok(RunningAgent {
        tasks,
        drain,
        socket: config.socket,
        admin_socket: config.admin_socket,
        metrics_addr,
    })
}

fn open(config: &AgentConfig, clock: SharedClock, drain: Drain) -> Result<Parts, AgentError> {
    let address = ServerAddress::parse(&config.server)?;
    let storage = Arc::new(Storage::open(&config.data_dir)?);
    let state = State::new(config.trust_domain.clone(), clock);
    restore(&state, &storage)?;
    let metrics = Metrics::default();
    let folder = config.data_dir.join("decisions");
    let decisions =
        DecisionQueue::open(&folder, metrics.clone()).map_err(|source| AgentError::Folder {
            path: folder,
            source,
        })?;
    let launches = Arc::new(LaunchTable::default());
    Ok(Parts {
        ca: Arc::new(CaClient::new(
            address,
            Arc::clone(&state),
            config.trust_bundle.clone(),
        )),
        attestor: Arc::new(Attestor::new(Arc::clone(&launches))),
        decisions: Arc::new(decisions),
        launches,
        state,
        storage,
        metrics,
        drain,
    })
}

/// Takes back what an earlier run kept, by the code that takes the CA's messages.
fn restore(state: &State, storage: &Storage) -> Result<(), AgentError> {
    let other = |held: TrustDomain| AgentError::OtherTrustDomain {
        path: storage.folder().to_owned(),
        held,
        want: state.trust_domain().clone(),
    };
    if let Some(kept) = storage.load_node() {
        match state::read_stored(&kept) {
            Ok(own) if !own.spiffe_id.is_member_of(state.trust_domain()) => {
                return Err(other(own.spiffe_id.trust_domain()));
            }
            Ok(own) => state.set_own(own),
            Err(error) => tracing::error!(%error, "the agent's own SVID on disk cannot be used"),
        }
    }
    if let Some(snapshot) = storage.load_sync() {
        let held = snapshot
            .bundle
            .as_ref()
            .and_then(|bundle| TrustDomain::parse(&bundle.trust_domain).ok());
        if let Some(held) = held.filter(|held| held != state.trust_domain()) {
            return Err(other(held));
        }
        if let Err(error) = state.apply(snapshot) {
            tracing::error!(%error, "the snapshot on disk cannot be used");
        }
    }
    state.restore_svids(storage.load_svids());
    Ok(())
}

fn bind(path: &Path, mode: u32) -> Result<UdsListener, AgentError> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder).map_err(|source| AgentError::Folder {
            path: folder.to_owned(),
            source,
        })?;
    }
    Ok(UdsListener::bind(path, mode)?)
}

fn spawn_servers(
    tasks: &mut JoinSet<Ended>,
    parts: &Parts,
    workload: UdsListener,
    admin: UdsListener,
    metrics: Option<tokio::net::TcpListener>,
) {
    let gate = Gate {
        state: Arc::clone(&parts.state),
        attestor: Arc::clone(&parts.attestor),
        launches: Arc::clone(&parts.launches),
        admission: Admission::default(),
        drain: parts.drain.clone(),
        metrics: parts.metrics.clone(),
    };
    let jwt_svids = JwtSvids {
        state: Arc::clone(&parts.state),
        ca: Arc::clone(&parts.ca),
        metrics: parts.metrics.clone(),
    };
    let proxies = ProxyConfigApi {
        gate: gate.clone(),
        decisions: Arc::clone(&parts.decisions),
    };
    let routes = Routes::new(SpiffeWorkloadApiServer::new(WorkloadApi {
        gate,
        jwt_svids,
    }))
    .add_service(ProxyConfigServer::new(proxies));
    let (routes, _) = rpc::with_health_and_reflection(routes);
    let drain = parts.drain.clone();
    tasks.spawn(async move {
        (
            "workload socket",
            rpc::serve_uds(workload, routes, RpcLimits::default(), drain).await,
        )
    });
    let routes = Routes::new(AgentAdminServer::new(AgentAdminApi {
        state: Arc::clone(&parts.state),
        attestor: Arc::clone(&parts.attestor),
    }))
    .add_service(LaunchServer::new(LaunchApi {
        launches: Arc::clone(&parts.launches),
        drain: parts.drain.clone(),
    }));
    let (routes, health) = rpc::with_health_and_reflection(routes);
    let drain = parts.drain.clone();
    tasks.spawn(async move {
        (
            "admin socket",
            rpc::serve_uds(admin, routes, RpcLimits::default(), drain).await,
        )
    });
    let readiness = Readiness::new();
    let (state, drain, shown) = (
        Arc::clone(&parts.state),
        parts.drain.clone(),
        readiness.clone(),
    );
    tasks.spawn(async move {
        report_readiness(&state, &shown, health, drain).await;
        ("readiness", Ok(()))
    });
    if let Some(listener) = metrics {
        let mut registry = Registry::default();
        parts.metrics.register(&mut registry);
        let server = AdminServer::new(Arc::new(registry), readiness, parts.drain.clone());
        tasks.spawn(async move {
            server.serve_tcp(listener).await;
            ("metrics", Ok(()))
        });
    }
}

fn spawn_tasks(tasks: &mut JoinSet<Ended>, parts: &Parts, config: &AgentConfig) {
    let node = Node {
        state: Arc::clone(&parts.state),
        ca: Arc::clone(&parts.ca),
        storage: Arc::clone(&parts.storage),
        token: TokenSource {
            file: config.join_token_file.clone(),
            value: config.join_token.clone(),
        },
    };
    let sync = SyncTask {
        state: Arc::clone(&parts.state),
        ca: Arc::clone(&parts.ca),
        storage: Arc::clone(&parts.storage),
    };
    let issuer = Issuer {
        state: Arc::clone(&parts.state),
        ca: Arc::clone(&parts.ca),
        metrics: parts.metrics.clone(),
    };
    let (decisions, ca) = (Arc::clone(&parts.decisions), Arc::clone(&parts.ca));
    let (state, storage) = (Arc::clone(&parts.state), Arc::clone(&parts.storage));
    let sealing = Arc::clone(&decisions);
    let mut spawn = |name, task: Pin<Box<dyn Future<Output = ()> + Send>>| {
        tasks.spawn(async move {
            task.await;
            (name, Ok(()))
        });
    };
    let drain = || parts.drain.clone();
    spawn("node", Box::pin(node.run(drain())));
    spawn("sync", Box::pin(sync.run(drain())));
    spawn("issuance", Box::pin(issuer.run(drain())));
    spawn("decisions", Box::pin(sealing.seal_until(drain())));
    spawn("shipping", Box::pin(decisions.ship_until(ca, drain())));
    spawn("storage", Box::pin(keep_svids(state, storage, drain())));
}

/// Keeps the workloads' SVIDs on disk: soon after a change, and once more at the end.
async fn keep_svids(state: Arc<State>, storage: Arc<Storage>, drain: Drain) {
    let mut changes = state.svids_tick.subscribe();
    let mut is_last = false;
    while !is_last {
        // Cancel-safe: a change that is not seen stays one.
        tokio::select! {
            _ = changes.changed() => tokio::time::sleep(limits::KEEP_SVIDS_PAUSE).await,
            () = drain.started() => is_last = true,
        }
        changes.borrow_and_update();
        let (state, storage) = (Arc::clone(&state), Arc::clone(&storage));
        let saved = tokio::task::spawn_blocking(move || storage.save_svids(&state.stored_svids()));
        if let Ok(Err(error)) = saved.await {
            tracing::error!(%error, "the workloads' SVIDs are not on disk");
        }
    }
}

/// Ready once there is a bundle to serve and a live SVID of the agent's own.
async fn report_readiness(state: &State, shown: &Readiness, health: HealthReporter, drain: Drain) {
    let (mut config, mut own) = (state.config_tick.subscribe(), state.own_tick.subscribe());
    loop {
        let now = state.now();
        let is_attested = state.own().is_some_and(|own| own.is_live(now));
        let has_bundle = state.with_cache(|cache| cache.bundle().is_some());
        shown.set("attested", is_attested);
        shown.set("trust_bundle", has_bundle);
        let status = if is_attested && has_bundle {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        health.set_service_status("", status).await;
        // Cancel-safe: each arm waits for something that stays true.
        tokio::select! {
            () = drain.started() => return,
            _ = config.changed() => {}
            _ = own.changed() => {}
            () = tokio::time::sleep(limits::SLEEP_MAX) => {}
        }
    }
}
