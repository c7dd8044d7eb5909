//! A CA for the agent's own tests: the real wire, real signatures, and nothing behind them.

mod services;
mod signing;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use ravelin_proto::bundle::{Bundle, JwtAuthority, X509Authority};
use ravelin_proto::convert;
use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::pb::ravelin::v1::{
    AuthorityState, DecisionSegment, Denylist, MeshRevision, SyncResponse, sync_request,
};
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_runtime::clock::{Clock, SystemClock};
use ravelin_runtime::crypto;
use ravelin_runtime::drain::Drain;
use ravelin_runtime::rpc::{self, RpcLimits};
use ravelin_runtime::tls::{ClientAuth, Identity, X509Bundles, server_config};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use signing::{JwtKey, SigningAuthority};

/// What the fake tells its agents.
pub struct World {
    pub entries: Vec<RegistrationEntry>,
    pub authorities: Vec<SigningAuthority>,
    pub tainted: Vec<String>,
    pub jwt_keys: Vec<JwtKey>,
    /// Index of the signing one.
    pub active: usize,
    pub is_reissue: bool,
    pub mesh: Option<MeshRevision>,
    pub denylist: Denylist,
    pub tokens: Vec<String>,
    pub svid_lifetime_secs: i64,
    pub revision: u64,
    pub bundle_sequence: u64,
    pub x509_calls: usize,
    pub jwt_calls: usize,
}

pub struct Shared {
    pub td: TrustDomain,
    pub world: Mutex<World>,
    pub tick: watch::Sender<u64>,
    pub acks: watch::Sender<sync_request::Ack>,
    pub segments: watch::Sender<Vec<DecisionSegment>>,
}

/// A running fake.
pub struct FakeCa {
    pub shared: Arc<Shared>,
    pub addr: SocketAddr,
    drain: Drain,
    task: tokio::task::JoinHandle<()>,
}

impl Shared {
    pub fn new(td: &str) -> Arc<Self> {
        crypto::install();
        let td = TrustDomain::parse(td).unwrap();
        let world = World {
            entries: Vec::new(),
            authorities: vec![SigningAuthority::generate(&td)],
            tainted: Vec::new(),
            jwt_keys: vec![JwtKey::generate("jwt-1")],
            active: 0,
            is_reissue: false,
            mesh: None,
            denylist: Denylist::default(),
            tokens: vec!["token-1".into()],
            svid_lifetime_secs: 3600,
            revision: 1,
            bundle_sequence: 1,
            x509_calls: 0,
            jwt_calls: 0,
        };
        Arc::new(Self {
            td,
            world: Mutex::new(world),
            tick: watch::Sender::new(0),
            acks: watch::Sender::default(),
            segments: watch::Sender::default(),
        })
    }

    pub fn id(&self, path: &str) -> SpiffeId {
        SpiffeId::new(&self.td, path).unwrap()
    }

    /// Changes the world and tells the agents.
    pub fn change(&self, change: impl FnOnce(&mut World)) {
        {
            let mut world = self.world.lock().unwrap();
            change(&mut world);
            world.revision += 1;
            world.bundle_sequence += 1;
        }
        self.tick.send_modify(|tick| *tick += 1);
    }

    /// The PEM file that an agent starts with.
    pub fn write_bundle(&self, folder: &std::path::Path) -> PathBuf {
        let path = folder.join("bundle.pem");
        let world = self.world.lock().unwrap();
        let pem: String = world
            .authorities
            .iter()
            .map(SigningAuthority::pem)
            .collect();
        std::fs::write(&path, pem).unwrap();
        path
    }

    fn bundle(&self) -> Bundle {
        let world = self.world.lock().unwrap();
        let mut bundle = Bundle::new(self.td.clone());
        bundle.sequence = world.bundle_sequence;
        bundle.x509_authorities = world
            .authorities
            .iter()
            .map(|authority| X509Authority {
                der: authority.der.clone(),
                is_tainted: world.tainted.contains(&authority.id),
            })
            .collect();
        bundle.jwt_authorities = world
            .jwt_keys
            .iter()
            .map(|key| JwtAuthority {
                key_id: key.id.clone(),
                public_key_spki: key.signer.spki().to_vec(),
                expires_at: SystemClock.now().plus(std::time::Duration::from_secs(7200)),
                is_tainted: world.tainted.contains(&key.id),
            })
            .collect();
        bundle
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        let world = self.world.lock().unwrap();
        let (chain, key) = world.authorities[world.active].own_svid(&self.id("/spire/server"));
        let identity = Identity::from_der(&chain, &key).unwrap();
        let ders: Vec<_> = world
            .authorities
            .iter()
            .map(|authority| CertificateDer::from(authority.der.clone()))
            .collect();
        let mut bundles = X509Bundles::new();
        bundles.insert(self.td.clone(), &ders);
        let bundles = Arc::new(bundles);
        let clock = SystemClock::shared();
        server_config(&identity, bundles, ClientAuth::Optional, &[b"h2"], clock).unwrap()
    }

    pub fn snapshot(&self) -> SyncResponse {
        let bundle = convert::bundle_to_pb(&self.bundle());
        let world = self.world.lock().unwrap();
        SyncResponse {
            revision: world.revision,
            is_snapshot: true,
            upserted_entries: world.entries.iter().map(convert::entry_to_pb).collect(),
            bundle: Some(bundle),
            mesh: world.mesh.clone(),
            denylist: Some(world.denylist.clone()),
            authorities: Some(AuthorityState {
                active_x509_authority_id: world.authorities[world.active].id.clone(),
                active_jwt_authority_id: world.jwt_keys.last().unwrap().id.clone(),
                reissue: world.is_reissue,
                reissue_per_sec_max: 0,
            }),
            ..SyncResponse::default()
        }
    }
}

impl FakeCa {
    /// Serves on this address, or on a free port.
    pub async fn start(shared: &Arc<Shared>, addr: Option<SocketAddr>) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(addr.unwrap_or(any)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let config = Arc::new(ArcSwap::new(shared.server_config()));
        let drain = Drain::new();
        let routes = services::routes(shared, &drain);
        let (serving, newest) = (drain.clone(), Arc::clone(&config));
        let (world, mut ticks) = (Arc::clone(shared), shared.tick.subscribe());
        let task = tokio::spawn(async move {
            let reload = async {
                while ticks.changed().await.is_ok() {
                    newest.store(world.server_config());
                }
            };
            tokio::select! {
                served = rpc::serve_tls(listener, config, routes, RpcLimits::default(), serving) => served.unwrap(),
                () = reload => {}
            }
        });
        Self {
            shared: Arc::clone(shared),
            addr,
            drain,
            task,
        }
    }

    /// Goes away.
    pub async fn stop(self) {
        self.drain.start();
        self.task.abort();
        let _ = self.task.await;
    }
}
