//! Two proxies, their applications and an agent, in one process on loopback.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod agent;
pub mod any_app;
pub mod app;
pub mod authority;
pub mod authorizer;
pub mod client;
pub mod issuer;
pub mod load;
pub mod process;
pub mod tunnel_app;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use ravelin_policies::{SourceFile, set_digest};
use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proxy::{Proxy, ProxyConfig, ProxyError};
use ravelin_runtime::clock::{SharedClock, SystemClock};
use ravelin_runtime::crypto::JwsSigner;
use ravelin_runtime::drain::Drain;

use agent::Agent;
use app::App;
use authority::Authority;

pub const TRUST_DOMAIN: &str = "example.org";

pub struct RunningProxy {
    pub outbound: Option<SocketAddr>,
    pub inbound: Vec<SocketAddr>,
    pub http_outbound: Vec<SocketAddr>,
    pub captured_inbound: Option<SocketAddr>,
    pub tcp_outbound: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub drain: Drain,
    thread: Option<JoinHandle<Result<(), ProxyError>>>,
}

impl RunningProxy {
    /// Without an access log, unless the configuration has its own.
    pub fn start(config: &str) -> Self {
        Self::start_at(config, SystemClock::shared())
    }

    pub fn start_at(config: &str, clock: SharedClock) -> Self {
        let quiet = if config.contains("access_log") {
            ""
        } else {
            "access_log = { to = 'off' }\n"
        };
        let config: ProxyConfig = toml::from_str(&format!("{quiet}{config}")).unwrap();
        let proxy = Proxy::bind(config, clock).unwrap();
        let drain = Drain::new();
        let child = drain.clone();
        Self {
            outbound: proxy.outbound_address(),
            inbound: proxy.inbound_addresses(),
            captured_inbound: proxy.captured_inbound_address(),
            http_outbound: proxy.http_outbound_addresses(),
            tcp_outbound: proxy.tcp_outbound_addresses(),
            admin: proxy.admin_address(),
            thread: Some(std::thread::spawn(move || proxy.run(child))),
            drain,
        }
    }

    /// One that the test runs otherwise.
    pub fn elsewhere(
        outbound: SocketAddr,
        inbound: Vec<SocketAddr>,
        tcp_outbound: Vec<SocketAddr>,
        admin: SocketAddr,
    ) -> Self {
        Self {
            outbound: Some(outbound),
            inbound,
            tcp_outbound,
            admin: Some(admin),
            drain: Drain::new(),
            captured_inbound: None,
            http_outbound: Vec::new(),
            thread: None,
        }
    }

    /// Drains and waits for the end.
    pub fn stop(&mut self) {
        self.drain.start();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for RunningProxy {
    fn drop(&mut self) {
        self.drain.start();
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap().unwrap();
        }
    }
}

/// orders -> (its proxy) -> mutual TLS -> (inventory's proxy) -> inventory; the same for TCP.
pub struct Mesh {
    pub folder: tempfile::TempDir,
    pub agent: Agent,
    pub authority: Authority,
    pub jwt: Arc<JwtAuthority>,
    pub app: App,
    pub tcp_app: App,
    pub orders: RunningProxy,
    pub inventory: RunningProxy,
    /// Further lines of the MeshConfig's `spec`.
    pub config: String,
}

pub struct JwtAuthority {
    signer: JwsSigner,
    spki: Vec<u8>,
}

impl JwtAuthority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let signer = JwsSigner::from_pkcs8(&key.serialize_der()).unwrap();
        let spki = signer.spki().to_vec();
        Self { signer, spki }
    }

    pub fn jwks(&self) -> String {
        let key = ravelin_proto::jwks::Jwk::from_spki(Some("key-1"), Some("jwt-svid"), &self.spki)
            .unwrap();
        format!(r#"{{"keys":[{}]}}"#, key.to_json())
    }

    /// A JWT-SVID of `subject` for `audience` that expires in `life` seconds.
    pub fn token(&self, subject: &str, audience: &str, life: i64, jti: &str) -> String {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let now = SystemClock::shared().now().unix_secs();
        let header = r#"{"alg":"ES256","kid":"key-1","typ":"JWT"}"#;
        let claims = format!(
            r#"{{"iss":"spiffe://{TRUST_DOMAIN}","sub":"{subject}","aud":["{audience}"],"iat":{now},"exp":{},"jti":"{jti}"}}"#,
            now + life
        );
        let input = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = self.signer.sign(input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

pub const CONFIG: &str = r"
apiVersion: ravelin.dev/v1
kind: MeshConfig
metadata:
  name: test
spec:
  trustDomain: example.org
";

pub const POLICIES: &str = r#"
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
            principals: ["example.org/ns/shop/sa/orders"]
      to:
        - operation:
            paths: ["/items", "/items/*", "/slow"]
    - from:
        - source:
            principals: ["example.org/ns/shop/sa/orders"]
            requestPrincipals: ["*"]
      to:
        - operation:
            paths: ["/pay"]
    - from:
        - source:
            principals: ["example.org/ns/shop/sa/orders"]
      to:
        - operation:
            ports: ["TCP_PORT"]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata:
  name: inventory-tokens
  namespace: shop
spec:
  selector:
    matchLabels:
      app: inventory
  jwtRules:
    - issuer: spiffe://example.org
      jwksUri: spiffe://example.org
      audiences: ["inventory"]
"#;

pub const DENY_ALL: &str = r"
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
";

impl Mesh {
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// With further top-level lines in the configuration of inventory's proxy.
    pub async fn start_with(lines: &str) -> Self {
        let app = App::http().await;
        Self::start_before(app, "http", lines, "").await
    }

    /// With another application behind inventory's proxy, and what it speaks.
    pub async fn start_for(address: SocketAddr, protocol: &str, lines: &str) -> Self {
        let app = App {
            address,
            calls: Arc::default(),
            task: None,
        };
        Self::start_before(app, protocol, lines, "").await
    }

    /// The same with further top-level lines in the configuration of orders' proxy.
    pub async fn start_before(app: App, protocol: &str, lines: &str, orders: &str) -> Self {
        ravelin_runtime::crypto::install();
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::start(folder.path());
        let authority = Authority::new(TRUST_DOMAIN);
        let jwt = Arc::new(JwtAuthority::new());
        let tcp_app = App::tcp().await;
        agent.set("inventory", pb::ProxySnapshot::default());
        agent.set("orders", pb::ProxySnapshot::default());
        let socket = agent.socket.display();
        let inventory = RunningProxy::start(&format!(
            r#"
            name = "inventory"
            agent_socket = "{socket}"
            {lines}
            workers = 2
            outbound = "127.0.0.1:0"
            admin = "127.0.0.1:0"
            [[inbound]]
            listen = "127.0.0.1:0"
            forward = "{}"
            protocol = "{protocol}"
            [[inbound]]
            listen = "127.0.0.1:0"
            forward = "{}"
            protocol = "tcp"
            "#,
            app.address, tcp_app.address
        ));
        let orders = RunningProxy::start(&format!(
            r#"
            name = "orders"
            agent_socket = "{socket}"
            {orders}
            workers = 2
            outbound = "127.0.0.1:0"
            admin = "127.0.0.1:0"
            [[http_outbound]]
            listen = "127.0.0.1:0"
            service = "inventory.shop:80"
            [[tcp_outbound]]
            listen = "127.0.0.1:0"
            service = "inventory-tcp.shop:7000"
            "#
        ));
        let mesh = Self {
            folder,
            agent,
            authority,
            jwt,
            app,
            tcp_app,
            orders,
            inventory,
            config: String::new(),
        };
        mesh.publish(1, POLICIES).await;
        mesh
    }

    /// A full configuration of both proxies, acknowledged.
    pub async fn publish(&self, revision: u64, policies: &str) {
        for name in ["orders", "inventory"] {
            self.agent.set(
                name,
                self.snapshot(name, revision, policies, &self.authority),
            );
        }
        for name in ["orders", "inventory"] {
            let ack = self
                .agent
                .acked(name, |ack| {
                    ack.mesh_revision == revision || !ack.refusal.is_empty()
                })
                .await;
            assert_eq!(ack.refusal, "", "{name}");
        }
    }

    pub fn snapshot(
        &self,
        name: &str,
        revision: u64,
        policies: &str,
        authority: &Authority,
    ) -> pb::ProxySnapshot {
        pb::ProxySnapshot {
            mesh: Some(self.revision(revision, policies)),
            denylist: None,
            spiffe_id: id(name),
            bundle_sequence: 1,
            x509_bundles: [(TRUST_DOMAIN.to_owned(), authority.der())].into(),
            jwt_bundles: [(TRUST_DOMAIN.to_owned(), self.jwt.jwks().into_bytes())].into(),
            svid: Some(authority.svid(&format!("/ns/shop/sa/{name}"))),
        }
    }

    pub fn revision(&self, revision: u64, policies: &str) -> pb::MeshRevision {
        let policies = policies.replace("TCP_PORT", &self.tcp_app.address.port().to_string());
        let files = [
            ("ravelin.yaml", format!("{CONFIG}{}", self.config)),
            ("identities/shop/identities.yaml", identities()),
            ("policies/shop/policies.yaml", policies),
            ("services/shop/services.yaml", self.services()),
        ];
        let sources: Vec<SourceFile> = files
            .iter()
            .map(|(path, content)| SourceFile::from_bytes(path, content.as_bytes()).unwrap())
            .collect();
        pb::MeshRevision {
            revision,
            digest: set_digest(&sources),
            files: files
                .map(|(path, content)| pb::MeshFile {
                    path: path.to_owned(),
                    content: content.into_bytes(),
                })
                .into(),
            ..pb::MeshRevision::default()
        }
    }

    fn services(&self) -> String {
        let (http, tcp) = (self.inventory.inbound[0], self.inventory.inbound[1]);
        let entry =
            |name: &str, port: u16, protocol: &str, endpoint: SocketAddr, expected: &str| {
                let (ip, endpoint) = (endpoint.ip(), endpoint.port());
                format!(
                    r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: {name}
  namespace: shop
spec:
  hosts: ["{name}.shop"]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
    - number: {port}
      name: main
      protocol: {protocol}
  endpoints:
    - address: {ip}
      ports:
        main: {endpoint}
  subjectAltNames: ["{expected}"]
"#
                )
            };
        [
            entry("inventory", 80, "HTTP", http, &id("inventory")),
            entry("inventory-tcp", 7000, "TCP", tcp, &id("inventory")),
            entry("impostor", 80, "HTTP", http, &id("payments")),
        ]
        .join("---")
    }

    pub fn outbound(&self) -> SocketAddr {
        self.orders.outbound.unwrap()
    }
}

pub fn id(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/{name}")
}

fn identities() -> String {
    ["orders", "inventory", "payments"]
        .map(|name| {
            format!(
                r"
apiVersion: ravelin.dev/v1
kind: WorkloadIdentity
metadata:
  name: {name}
  namespace: shop
  labels:
    app: {name}
spec:
  selectors: ['launch:name:{name}']
"
            )
        })
        .join("---")
}
