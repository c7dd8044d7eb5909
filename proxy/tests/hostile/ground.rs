//! What every test here stands on: the proxies of `orders` and `inventory` as processes, an agent, and the recorder.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ravelin_policies::{SourceFile, set_digest};
use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proxy::identity::{OwnSvid, client_config};
use ravelin_runtime::clock::SystemClock;
use ravelin_runtime::tls::X509Bundles;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::agent::Agent;
use crate::harness::authority::Authority;
use crate::harness::{CONFIG, TRUST_DOMAIN, id};
use crate::process::Process;
use crate::recorder::Recorder;

/// Longest wait for anything that is to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

const POLICIES: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: inventory-allow
  namespace: shop
spec:
  selector:
    matchLabels:
      app: inventory
  action: ALLOW
  rules:
    - from:
        - source:
            principals: ["example.org/ns/shop/sa/orders", "example.org/ns/shop/sa/rogue"]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: inventory-secret
  namespace: shop
spec:
  selector:
    matchLabels:
      app: inventory
  action: DENY
  rules:
    - to:
        - operation:
            paths: ["/secret", "/secret/*"]
"#;

pub struct Ground {
    pub agent: Agent,
    pub recorder: Recorder,
    pub inventory: Process,
    pub orders: Process,
    /// Mutual TLS of `inventory`.
    pub inbound: SocketAddr,
    /// Plain text for the application `orders`.
    pub outbound: SocketAddr,
    authority: Authority,
    _folder: tempfile::TempDir,
}

impl Ground {
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// With further top-level lines in the configuration of inventory's proxy.
    pub async fn start_with(lines: &str) -> Self {
        ravelin_runtime::crypto::install();
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::start(folder.path());
        let authority = Authority::new(TRUST_DOMAIN);
        let recorder = Recorder::start().await;
        let [inbound, outbound] = free_addresses();
        for name in ["orders", "inventory"] {
            agent.set(name, snapshot(name, &authority, inbound));
        }
        let socket = agent.socket.display();
        let inventory = format!(
            "name = \"inventory\"\nagent_socket = \"{socket}\"\n{lines}\nworkers = 1\noutbound = \"127.0.0.1:0\"\n\
             [[inbound]]\nlisten = \"{inbound}\"\nforward = \"{}\"\n",
            recorder.address
        );
        let orders = format!(
            "name = \"orders\"\nagent_socket = \"{socket}\"\nworkers = 1\noutbound = \"{outbound}\"\n"
        );
        let start = |name: &str, config: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, config).unwrap();
            Process::start(Path::new(&path))
        };
        let ground = Self {
            inventory: start("inventory.toml", &inventory),
            orders: start("orders.toml", &orders),
            agent,
            recorder,
            inbound,
            outbound,
            authority,
            _folder: folder,
        };
        for name in ["orders", "inventory"] {
            let acked = ground.agent.acked(name, |_| true).await;
            assert_eq!(acked.refusal, "", "{name}");
        }
        ground
    }

    /// TLS of a peer called `name`.
    pub fn tls(&self, name: &str, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let svid = self.authority.svid(&format!("/ns/shop/sa/{name}"));
        let own = OwnSvid::from_pb(&svid).unwrap();
        let mut bundles = X509Bundles::new();
        let domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
        bundles.insert(domain, &[CertificateDer::from(self.authority.der())]);
        client_config(
            &own.identity,
            &Arc::new(bundles),
            &[SpiffeId::parse(&id("inventory")).unwrap()],
            protocols,
            &SystemClock::shared(),
        )
        .unwrap()
    }

    /// A connection to inventory's proxy, as `config` says who calls.
    pub async fn dial(&self, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
        self.try_dial(config).await.unwrap()
    }

    /// The same, where the proxy may refuse.
    pub async fn try_dial(
        &self,
        config: &Arc<ClientConfig>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::IpAddress(self.inbound.ip().into());
        let dialled = async {
            let stream = TcpStream::connect(self.inbound).await?;
            stream.set_nodelay(true)?;
            let connector = TlsConnector::from(Arc::clone(config));
            connector.connect(name, stream).await
        };
        timeout(PATIENCE, dialled).await.expect("a handshake")
    }

    pub async fn dial_application(&self) -> TcpStream {
        let stream = TcpStream::connect(self.outbound).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    pub fn assert_alive(&mut self) {
        self.inventory.assert_alive();
        self.orders.assert_alive();
    }
}

/// Addresses that were free a moment ago.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let held: [StdListener; N] = std::array::from_fn(|_| StdListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

fn snapshot(name: &str, authority: &Authority, inbound: SocketAddr) -> pb::ProxySnapshot {
    let files = [
        ("ravelin.yaml", CONFIG.to_owned()),
        ("identities/shop/identities.yaml", identities()),
        ("policies/shop/policies.yaml", POLICIES.to_owned()),
        ("services/shop/services.yaml", service(inbound.port())),
    ];
    let sources: Vec<SourceFile> = files
        .iter()
        .map(|(path, content)| SourceFile::from_bytes(path, content.as_bytes()).unwrap())
        .collect();
    pb::ProxySnapshot {
        mesh: Some(pb::MeshRevision {
            revision: 1,
            digest: set_digest(&sources),
            files: files
                .map(|(path, content)| pb::MeshFile {
                    path: path.to_owned(),
                    content: content.into_bytes(),
                })
                .into(),
            ..pb::MeshRevision::default()
        }),
        spiffe_id: id(name),
        bundle_sequence: 1,
        x509_bundles: [(TRUST_DOMAIN.to_owned(), authority.der())].into(),
        svid: Some(authority.svid(&format!("/ns/shop/sa/{name}"))),
        ..pb::ProxySnapshot::default()
    }
}

fn identities() -> String {
    ["orders", "inventory", "rogue"]
        .map(|name| {
            format!(
                "\napiVersion: ravelin.dev/v1\nkind: WorkloadIdentity\nmetadata:\n  name: {name}\n  namespace: shop\n  \
                 labels:\n    app: {name}\nspec:\n  selectors: ['launch:name:{name}']\n"
            )
        })
        .join("---")
}

fn service(port: u16) -> String {
    format!(
        r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: inventory
  namespace: shop
spec:
  hosts: ["inventory.shop"]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
    - number: 80
      name: main
      protocol: HTTP
  endpoints:
    - address: 127.0.0.1
      ports:
        main: {port}
  subjectAltNames: ["{}"]
"#,
        id("inventory")
    )
}
