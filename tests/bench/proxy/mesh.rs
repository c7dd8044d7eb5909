//! The mesh that Ravelin's proxies serve, and the credentials that every proxy and the load use: one CA and agent in
//! this process, three identities, a signed token, and 1,000 rules on the called workload.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ravelin_proto::jwks::Jwk;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_runtime::clock::{Clock as _, SystemClock};
use ravelin_runtime::crypto::JwsSigner;
use ravelin_runtime::tls::Identity;
use ravelin_runtime::workload_client::WorkloadClient;
use ravelin_tests::mesh_files::{MeshFolder, Workload};
use ravelin_tests::node::{Node, NodeOptions, TRUST_DOMAIN};
use ravelin_tests::wait::{SOON, until};
use serde_json::json;
use tokio_stream::StreamExt as _;

/// Rules on the called workload.
pub(crate) const RULES: usize = 1000;
const RULES_PER_POLICY: usize = 50;
const ISSUER: &str = "https://login.shop.example";

/// Who takes part, and how.
pub(crate) struct Mesh {
    /// The CA and the agent.
    pub(crate) node: Node,
    /// What the load shows.
    pub(crate) load: Identity,
    /// What is in every call.
    pub(crate) token: String,
}

/// The credentials as the files that other proxies read.
#[derive(Debug, Clone)]
pub(crate) struct Pem {
    /// The trust domain's authorities.
    pub(crate) bundle: PathBuf,
    /// Chain and key of the caller's proxy, in one file.
    pub(crate) orders: PathBuf,
    /// Chain and key of the called one's proxy, in one file.
    pub(crate) inventory: PathBuf,
}

/// The SPIFFE ID of `name`.
pub(crate) fn spiffe_id(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/{name}")
}

impl Mesh {
    /// Starts CA and agent and publishes the mesh, in which `inventory` is called at `inbound`.
    pub(crate) async fn start(inbound: SocketAddr) -> Self {
        let node = Node::start(NodeOptions::default()).await;
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let signer = JwsSigner::from_pkcs8(pair.serialized_der()).unwrap();
        let folder = folder(inbound, &signer);
        node.admin().publish(folder.messages()).await;
        let load = identity(&node, "load").await;
        Self {
            token: token(&signer),
            load,
            node,
        }
    }

    /// Writes the credentials for the proxies of others.
    pub(crate) async fn write_pem(&self, folder: &Path) -> Pem {
        let bundle = folder.join("bundle.pem");
        std::fs::write(&bundle, self.node.admin().bundle_pem().await).unwrap();
        let mut files = Vec::new();
        for name in ["orders", "inventory"] {
            let file = folder.join(format!("{name}.pem"));
            std::fs::write(&file, pem(&identity(&self.node, name).await)).unwrap();
            files.push(file);
        }
        let inventory = files.pop().unwrap();
        let orders = files.pop().unwrap();
        Pem {
            bundle,
            orders,
            inventory,
        }
    }
}

async fn identity(node: &Node, name: &str) -> Identity {
    let id = SpiffeId::parse(&spiffe_id(name)).unwrap();
    until("the agent serves the SVIDs", SOON, || async {
        let client = WorkloadClient::connect(node.socket()).await.ok()?;
        let mut stream = std::pin::pin!(client.x509_svids().await.ok()?);
        let update = stream.next().await?.ok()?;
        Some(update.svid(Some(&id))?.identity.clone())
    })
    .await
}

fn pem(identity: &Identity) -> String {
    use base64::engine::general_purpose::STANDARD;
    let block = |label: &str, der: &[u8]| {
        let text = STANDARD.encode(der);
        let lines: Vec<&str> = (0..text.len())
            .step_by(64)
            .map(|start| &text[start..text.len().min(start + 64)])
            .collect();
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            lines.join("\n")
        )
    };
    let mut text: String = identity
        .chain
        .iter()
        .map(|certificate| block("CERTIFICATE", certificate))
        .collect();
    text.push_str(&block("PRIVATE KEY", identity.key_der()));
    text
}

fn folder(inbound: SocketAddr, signer: &JwsSigner) -> MeshFolder {
    let selector = format!("unix:uid:{}", ravelin_tests::uid());
    let mut workloads: Vec<Workload> = ["orders", "inventory", "load"]
        .iter()
        .map(|name| Workload::new(name, &[&selector]))
        .collect();
    workloads[1].http = Some(inbound);
    let mut folder = MeshFolder::new(&workloads);
    // The DNS name is for nginx and HAProxy, which cannot judge a peer by its SPIFFE ID.
    folder.put(
        "identities/shop/inventory.yaml",
        &format!(
            "apiVersion: ravelin.dev/v1\nkind: WorkloadIdentity\nmetadata:\n  name: inventory\n  labels:\n    app: inventory\nspec:\n  selectors: [\"{selector}\"]\n  dnsNames: [inventory.shop]\n"
        ),
    );
    let key = Jwk::from_spki(Some("bench"), Some("sig"), signer.spki()).unwrap();
    let keys = json!({ "keys": [key.to_json()] });
    folder.put(
        "policies/shop/tokens.yaml",
        &format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata:\n  name: tokens\nspec:\n  selector:\n    matchLabels:\n      app: inventory\n  jwtRules:\n    - issuer: {ISSUER}\n      jwks: '{keys}'\n"
        ),
    );
    for policy in 0..RULES / RULES_PER_POLICY {
        folder.put(
            &format!("policies/shop/allow-{policy}.yaml"),
            &allow(policy),
        );
    }
    folder
}

/// One policy. Of ten rules six name a caller, a method and a path, three a caller and a path prefix, one a group of
/// a token; the last rule of the middle policy is the one that allows the calls of the load, and needs its token.
fn allow(policy: usize) -> String {
    let mut text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: allow-{policy}\nspec:\n  selector:\n    matchLabels:\n      app: inventory\n  action: ALLOW\n  rules:\n"
    );
    for index in policy * RULES_PER_POLICY..(policy + 1) * RULES_PER_POLICY {
        let caller = format!(
            "{TRUST_DOMAIN}/ns/team-{}/sa/caller-{}",
            index % 20,
            index / 4
        );
        let is_own = index == RULES / 2 + RULES_PER_POLICY - 1;
        let written = if is_own {
            write!(
                text,
                "    - from:\n        - source:\n            principals: [\"{TRUST_DOMAIN}/ns/shop/sa/orders\", \"{TRUST_DOMAIN}/ns/shop/sa/load\"]\n            requestPrincipals: [\"{ISSUER}/reader\"]\n      to:\n        - operation:\n            methods: [GET]\n            paths: [\"/inventory/*\"]\n"
            )
        } else if index % 10 < 6 {
            write!(
                text,
                "    - from:\n        - source:\n            principals: [\"{caller}\"]\n      to:\n        - operation:\n            methods: [GET]\n            paths: [\"/api/v1/resource-{index}/list\"]\n"
            )
        } else if index % 10 < 9 {
            write!(
                text,
                "    - from:\n        - source:\n            principals: [\"{caller}\"]\n      to:\n        - operation:\n            methods: [POST, PUT]\n            paths: [\"/api/v1/resource-{index}/*\"]\n"
            )
        } else {
            write!(
                text,
                "    - to:\n        - operation:\n            paths: [\"/people/resource-{index}/*\"]\n      when:\n        - key: request.auth.claims[groups]\n          values: [\"group-{index}\"]\n"
            )
        };
        // WHY: writing to a String cannot fail.
        let _ = written;
    }
    text
}

fn token(signer: &JwsSigner) -> String {
    let now = SystemClock.now().unix_secs();
    let header = json!({"alg": signer.algorithm().name(), "kid": "bench"});
    let claims = json!({
        "iss": ISSUER, "sub": "reader", "iat": now, "exp": now + 86_400, "groups": ["readers"],
    });
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", part(header), part(claims));
    let signature = signer.sign(input.as_bytes()).unwrap();
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}
