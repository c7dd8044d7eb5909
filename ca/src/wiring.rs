//! Starts the CA: opens the store, puts the parts together, spawns what runs, ends it in order.
//!
//! Order at the start: store, keys, authorities, own SVID, listeners. A part that ends early ends the CA.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::admin::{AdminError, AdminServer, Readiness};
use ravelin_runtime::clock::SharedClock;
use ravelin_runtime::crypto;
use ravelin_runtime::drain::Drain;
use ravelin_runtime::rpc::{
    RpcLimits, ServeError, serve_tls, serve_uds, with_health_and_reflection,
};
use ravelin_runtime::uds::{UdsError, UdsListener};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::service::Routes;

use crate::api;
use crate::attest::agents::Agents;
use crate::attest::join_token::JoinTokens;
use crate::audit::AuditError;
use crate::authority::custody::{Custody, CustodyError};
use crate::authority::rotate::{Rotations, Rotator};
use crate::config::{CaConfig, SettingError};
use crate::hub::Hub;
use crate::issuance::clock_guard::ClockGuard;
use crate::issuance::issuer::Issuer;
use crate::issuance::outcome::{OutcomeLog, Outcomes};
use crate::issuance::template::Profile;
use crate::keys::{KeyStoreError, KeyWrap};
use crate::limits::{CLOSE_DEADLINE, HOUSEKEEPING, ISSUED_KEPT};
use crate::metrics;
use crate::server_identity::{ServerIdentity, ServerIdentityError};
use crate::store::{Store, StoreError};

/// Why the CA does not start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Settings that make no sense together.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The data folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key-encryption key.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// The authorities.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// The CA's own SVID.
    #[error("the CA cannot issue its own SVID: {0}")]
    Server(#[from] ServerIdentityError),
    /// The agents' address.
    #[error("cannot listen on `{address}`: {source}; is another CA running there?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The administrators' socket.
    #[error(transparent)]
    Socket(#[from] UdsError),
    /// The operator's listener.
    #[error(transparent)]
    Metrics(#[from] AdminError),
    /// A listener ended.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A part panicked.
    #[error("a part of the CA ended unexpectedly")]
    Ended,
}

/// A CA that runs until its drain is over.
#[derive(Debug)]
pub struct RunningCa {
    tls_addr: SocketAddr,
    admin_socket: PathBuf,
    metrics_addr: Option<SocketAddr>,
    store: Store,
    drain: Drain,
    parts: JoinSet<Result<(), CaError>>,
}

impl RunningCa {
    /// Where agents connect.
    pub fn tls_addr(&self) -> SocketAddr {
        self.tls_addr
    }

    /// Where administrators connect.
    pub fn admin_socket(&self) -> &Path {
        &self.admin_socket
    }

    /// The operator's listener, if there is one.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Waits until the CA has ended: after a drain `Ok`, otherwise with what broke.
    pub async fn wait(mut self) -> Result<(), CaError> {
        let failure = async {
            while let Some(ended) = self.parts.join_next().await {
                match ended {
                    Ok(Ok(())) if self.drain.is_started() => {}
                    Ok(Ok(())) | Err(_) => return Err(CaError::Ended),
                    Ok(Err(error)) => return Err(error),
                }
            }
            Ok(())
        };
        let store = self.store.clone();
        // Both arms are cancel-safe: what is left ends below.
        let outcome = tokio::select! {
            outcome = failure => outcome,
            why = store.failed() => Err(StoreError::Stopped(why).into()),
        };
        self.drain.start();
        let rest = async { while self.parts.join_next().await.is_some() {} };
        if timeout(CLOSE_DEADLINE, rest).await.is_err() {
            tracing::warn!("parts of the CA did not end in time and are cut");
        }
        self.parts.shutdown().await;
        if timeout(CLOSE_DEADLINE, self.store.close()).await.is_err() {
            tracing::warn!("the store did not close in time");
        }
        outcome
    }
}

/// Everything that the services share.
struct Core {
    hub: Hub,
    custody: Arc<Custody>,
    issuer: Arc<Issuer>,
    agents: Arc<Agents>,
    tokens: Arc<JoinTokens>,
    identity: ServerIdentity,
    outcome_log: OutcomeLog,
    rotations: Rotations,
    rotator: Rotator,
    started_at: Timestamp,
}

impl Core {
    async fn open(config: &CaConfig, clock: SharedClock) -> Result<Self, CaError> {
        let store = Store::open(&config.data_dir, &config.trust_domain, clock).await?;
        match Self::over(config, &store).await {
            Ok(core) => Ok(core),
            Err(error) => {
                // WHY: the folder's lock must be free again when this returns.
                store.close().await;
                Err(error)
            }
        }
    }

    async fn over(config: &CaConfig, store: &Store) -> Result<Self, CaError> {
        store.load_agents(store.agents().await?);
        let may_create = store.has_no_authority().await?;
        let wrap = KeyWrap::open(
            &config.data_dir,
            config.keys.kek_file.as_deref(),
            may_create,
        )?;
        let hub = Hub::new(store.clone());
        let custody = Arc::new(Custody::open(hub.clone(), wrap, config.ttl.authority).await?);
        Rotator::bootstrap(&custody, store.clock().now()).await?;
        let (outcomes, outcome_log) = Outcomes::new(hub.sequencer().clone());
        let profile = Profile {
            trust_domain: config.trust_domain.clone(),
            x509_life: config.ttl.x509_svid,
            jwt_life: config.ttl.jwt_svid,
            jwt_issuer: config.jwt_issuer(),
        };
        let guard = ClockGuard::new(store.newest_issuance().await?);
        let issuer = Arc::new(Issuer::new(
            hub.clone(),
            Arc::clone(&custody),
            profile,
            guard,
            outcomes,
        ));
        let life = config.ttl.agent_svid;
        let agents = Arc::new(Agents::new(hub.clone(), Arc::clone(&issuer), life));
        let tokens = Arc::new(JoinTokens::new(hub.clone(), Arc::clone(&issuer), life));
        let identity =
            ServerIdentity::open(hub.clone(), Arc::clone(&custody), Arc::clone(&issuer)).await?;
        let (rotations, rotator) =
            Rotator::open(hub.clone(), Arc::clone(&custody), identity.shown()).await?;
        let started_at = store.clock().now();
        Ok(Self {
            hub,
            custody,
            issuer,
            agents,
            tokens,
            identity,
            outcome_log,
            rotations,
            rotator,
            started_at,
        })
    }

    /// Every service behind the gate.
    fn routes(&self, drain: &Drain) -> Routes {
        let hub = || self.hub.clone();
        let custody = || Arc::clone(&self.custody);
        let agents = || Arc::clone(&self.agents);
        let routes = Routes::new(api::agent::AgentService::server(
            hub(),
            Arc::clone(&self.tokens),
            agents(),
        ))
        .add_service(api::svid::SvidService::server(
            hub(),
            Arc::clone(&self.issuer),
        ))
        .add_service(api::bundle::BundleService::server(hub()))
        .add_service(api::localauthority::LocalAuthorityService::server(
            hub(),
            custody(),
        ))
        .add_service(api::trustdomain::TrustDomainService::server())
        .add_service(api::logger::LoggerService::server())
        .add_service(api::debug::DebugService::server(
            hub(),
            self.started_at,
            self.identity.shown(),
        ))
        .add_service(api::admin::AdminService::server(
            hub(),
            custody(),
            agents(),
            self.started_at,
        ))
        .add_service(api::rotation::RotationService::server(
            hub(),
            custody(),
            self.rotations.clone(),
            drain.clone(),
        ))
        .add_service(api::sync::SyncService::server(hub(), drain.clone()))
        .add_service(api::mesh::MeshService::server(hub()))
        .add_service(api::entry::EntryService::server(hub()))
        .add_service(api::audit::AuditService::server(hub(), drain.clone()));
        let (routes, _health) = with_health_and_reflection(routes);
        api::access::Gate::new(hub(), agents()).guard(routes)
    }
}

/// The sockets of a CA; bound before anything else is written.
struct Listeners {
    tls: TcpListener,
    admin: UdsListener,
    metrics: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &CaConfig) -> Result<Self, CaError> {
        let address = config.listen;
        let tls = TcpListener::bind(address)
            .await
            .map_err(|source| CaError::Listen { address, source })?;
        let admin = UdsListener::bind(config.admin_socket(), 0o600)?;
        let metrics = match config.metrics_listen {
            Some(address) => Some(AdminServer::bind(address).await?),
            None => None,
        };
        Ok(Self {
            tls,
            admin,
            metrics,
        })
    }
}

/// Starts a CA on its data folder. It runs until `drain` begins or a part of it breaks; `wait` tells which.
pub async fn start(
    config: CaConfig,
    clock: SharedClock,
    drain: Drain,
) -> Result<RunningCa, CaError> {
    crypto::install();
    config.check()?;
    for (name, life) in [
        ("x509_svid", config.ttl.x509_svid),
        ("agent_svid", config.ttl.agent_svid),
    ] {
        if life > config.ttl.authority / 6 {
            tracing::warn!(
                name,
                "lives of SVIDs will be cut short at the end of an authority: ttl.authority is less than six times ttl.{name}"
            );
        }
    }
    let core = Core::open(&config, clock).await?;
    let store = core.hub.store().clone();
    let listeners = match Listeners::bind(&config).await {
        Ok(listeners) => listeners,
        Err(error) => {
            drop(core);
            store.close().await;
            return Err(error);
        }
    };
    let tls_addr = listeners
        .tls
        .local_addr()
        .map_err(|source| CaError::Listen {
            address: config.listen,
            source,
        })?;
    let metrics_addr = listeners
        .metrics
        .as_ref()
        .and_then(|listener| listener.local_addr().ok());
    let drain = drain.child();
    let parts = spawn(core, listeners, &drain);
    tracing::info!(%tls_addr, trust_domain = %config.trust_domain, "the CA is up");
    Ok(RunningCa {
        tls_addr,
        admin_socket: config.admin_socket(),
        metrics_addr,
        store,
        drain,
        parts,
    })
}

fn spawn(core: Core, listeners: Listeners, drain: &Drain) -> JoinSet<Result<(), CaError>> {
    let routes = core.routes(drain);
    let config: Arc<ArcSwap<ServerConfig>> = core.identity.config();
    let mut parts = JoinSet::new();
    if let Some(listener) = listeners.metrics {
        let registry = metrics::registry(core.hub.clone(), Arc::clone(&core.custody));
        let server = AdminServer::new(Arc::new(registry), Readiness::new(), drain.clone());
        parts.spawn(async move {
            server.serve_tcp(listener).await;
            Ok(())
        });
    }
    let ending = drain.clone();
    let tls_routes = routes.clone();
    parts.spawn(async move {
        serve_tls(
            listeners.tls,
            config,
            tls_routes,
            RpcLimits::default(),
            ending,
        )
        .await?;
        Ok(())
    });
    let ending = drain.clone();
    parts.spawn(async move {
        serve_uds(listeners.admin, routes, RpcLimits::default(), ending).await?;
        Ok(())
    });
    let ending = drain.clone();
    let identity = core.identity;
    parts.spawn(async move {
        identity.run(ending).await;
        Ok(())
    });
    let ending = drain.clone();
    let rotator = core.rotator;
    parts.spawn(async move { Ok(rotator.run(ending).await?) });
    // Ends when the last issuer is gone, so what was signed during the drain is logged as well.
    let outcome_log = core.outcome_log;
    parts.spawn(async move { Ok(outcome_log.run().await?) });
    let ending = drain.clone();
    let store = core.hub.store().clone();
    parts.spawn(async move { keep_house(store, ending).await });
    parts
}

/// Drops what nobody needs any more: ended deny-list entries and records of SVIDs that ended long ago.
async fn keep_house(store: Store, drain: Drain) -> Result<(), CaError> {
    loop {
        // Both arms are cancel-safe.
        tokio::select! {
            () = drain.started() => return Ok(()),
            () = sleep(HOUSEKEEPING) => {}
        }
        store
            .write(|tx| {
                Box::pin(async move {
                    tx.prune_denylist().await?;
                    let end = tx.now().minus(ISSUED_KEPT);
                    tx.prune_issued(end).await
                })
            })
            .await
            .map_err(|error: StoreError| error)?;
    }
}
