//! Mesh folders as text: two services of the shop, `orders` that calls and `inventory` that is called.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use ravelin_proto::pb::ravelin::v1::MeshFile;

use crate::node::TRUST_DOMAIN;

/// A workload with its identity and, if it is called, its service.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its name: `orders` becomes `/ns/shop/sa/orders`.
    pub name: String,
    /// Selectors of its entry.
    pub selectors: Vec<String>,
    /// The inbound listener of its proxy for HTTP; service `NAME.shop:80`.
    pub http: Option<SocketAddr>,
    /// The inbound listener of its proxy for TCP; service `NAME.shop:9000`.
    pub tcp: Option<SocketAddr>,
    /// For `ravelin up`: command, port, inbound and outbound listener.
    pub launch: Option<Launch>,
}

/// What `ravelin up` starts.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Where the application listens.
    pub app: SocketAddr,
    /// The proxy's inbound listener.
    pub inbound: SocketAddr,
    /// The proxy's outbound listener.
    pub outbound: SocketAddr,
}

impl Workload {
    /// One that is known by these selectors.
    pub fn new(name: &str, selectors: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            selectors: selectors.iter().map(|text| (*text).to_owned()).collect(),
            http: None,
            tcp: None,
            launch: None,
        }
    }

    /// Its SPIFFE ID.
    pub fn id(&self) -> String {
        format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/{}", self.name)
    }

    fn identity(&self) -> String {
        let name = &self.name;
        let mut text = format!(
            "apiVersion: ravelin.dev/v1\nkind: WorkloadIdentity\nmetadata:\n  name: {name}\n  labels:\n    app: {name}\nspec:\n  selectors:\n"
        );
        for selector in &self.selectors {
            let _ = writeln!(text, "    - {selector}");
        }
        if let Some(launch) = &self.launch {
            let Launch {
                app,
                inbound,
                outbound,
            } = launch;
            let _ = write!(
                text,
                "  launch:\n    command: [ravelin, demo, serve, --name, {name}, --listen, \"{app}\", --outbound, \"{outbound}\"]\n    port: {}\n    inbound: {inbound}\n    outbound: {outbound}\n    protocol: http\n",
                app.port()
            );
        }
        text
    }

    fn service(&self) -> Option<String> {
        let ports = [
            (self.http, 80, "http", "HTTP"),
            (self.tcp, 9000, "tcp", "TCP"),
        ];
        let ports: Vec<_> = ports
            .into_iter()
            .filter_map(|(listener, number, name, protocol)| {
                Some((listener?, number, name, protocol))
            })
            .collect();
        let (first, ..) = ports.first()?;
        let mut text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: {0}\nspec:\n  hosts: [{0}.shop]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  subjectAltNames: [\"{1}\"]\n  ports:\n",
            self.name,
            self.id()
        );
        for (_, number, name, protocol) in &ports {
            let _ = writeln!(
                text,
                "    - {{number: {number}, name: {name}, protocol: {protocol}}}"
            );
        }
        let _ = write!(
            text,
            "  endpoints:\n    - address: {}\n      ports: {{",
            first.ip()
        );
        let endpoints: Vec<String> = ports
            .iter()
            .map(|(listener, _, name, _)| format!("{name}: {}", listener.port()))
            .collect();
        let _ = writeln!(text, "{}}}", endpoints.join(", "));
        Some(text)
    }
}

fn mesh_config() -> String {
    format!(
        "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nmetadata:\n  name: shop\nspec:\n  trustDomain: {TRUST_DOMAIN}\n"
    )
}

/// A mesh folder.
#[derive(Debug, Clone, Default)]
pub struct MeshFolder {
    files: Vec<(String, String)>,
}

impl MeshFolder {
    /// With these workloads and no policy yet: every call is refused.
    pub fn new(workloads: &[Workload]) -> Self {
        let mut folder = Self::default();
        folder.put("ravelin.yaml", &mesh_config());
        for workload in workloads {
            let name = &workload.name;
            folder.put(
                &format!("identities/shop/{name}.yaml"),
                &workload.identity(),
            );
            if let Some(service) = workload.service() {
                folder.put(&format!("services/shop/{name}.yaml"), &service);
            }
        }
        folder
    }

    /// The same folder in which SVIDs live this long, such as `8s`.
    pub fn with_svid_life(&self, life: &str) -> Self {
        self.with_config(&format!("  defaults:\n    x509SvidTtl: {life}\n"))
    }

    /// The same folder with further lines in the MeshConfig's `spec`.
    pub fn with_config(&self, lines: &str) -> Self {
        self.with("ravelin.yaml", &(mesh_config() + lines))
    }

    /// Sets the text of one file.
    pub fn put(&mut self, path: &str, text: &str) {
        self.files.retain(|(known, _)| known != path);
        self.files.push((path.to_owned(), text.to_owned()));
    }

    /// The same folder with one file more, or another text for it.
    pub fn with(&self, path: &str, text: &str) -> Self {
        let mut folder = self.clone();
        folder.put(path, text);
        folder
    }

    /// The same folder with an ALLOW policy for `workload`: `from` may make these HTTP calls.
    pub fn with_allow(&self, workload: &str, from: &str, methods: &str, paths: &str) -> Self {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {workload}-allow\nspec:\n  selector:\n    matchLabels:\n      app: {workload}\n  action: ALLOW\n  rules:\n    - from:\n        - source:\n            principals: [\"{TRUST_DOMAIN}/ns/shop/sa/{from}\"]\n      to:\n        - operation:\n            methods: {methods}\n            paths: {paths}\n"
        );
        self.with(&format!("policies/shop/{workload}.yaml"), &text)
    }

    /// The same folder with an ALLOW policy for plain TCP connections to one port of `workload`.
    pub fn with_allow_tcp(&self, workload: &str, from: &str, port: u16) -> Self {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {workload}-allow-tcp\nspec:\n  selector:\n    matchLabels:\n      app: {workload}\n  action: ALLOW\n  rules:\n    - from:\n        - source:\n            principals: [\"{TRUST_DOMAIN}/ns/shop/sa/{from}\"]\n      to:\n        - operation:\n            ports: [\"{port}\"]\n"
        );
        self.with(&format!("policies/shop/{workload}-tcp.yaml"), &text)
    }

    /// As the Mesh service takes it.
    pub fn messages(&self) -> Vec<MeshFile> {
        self.files
            .iter()
            .map(|(path, text)| MeshFile {
                path: path.clone(),
                content: text.clone().into_bytes(),
            })
            .collect()
    }

    /// Writes the folder, for the command line.
    pub fn write(&self, folder: &Path) {
        for (path, text) in &self.files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }
}
