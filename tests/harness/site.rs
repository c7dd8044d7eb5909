//! The parts as separate processes, from configuration files, as an operator runs them: CA, agent, two launched
//! applications and their two launched proxies.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ravelin_proto::pb::ravelin::v1::HealthRequest;
use tempfile::TempDir;

use crate::admin::{CaAdmin, agent_status};
use crate::http_call::{Call, call_once};
use crate::mesh_files::{MeshFolder, Workload};
use crate::node::{NODE_ID, TRUST_DOMAIN};
use crate::ports::free_address;
use crate::process::Process;
use crate::programs::{ravelin, run};
use crate::wait::{SOON, until, until_true};

/// The addresses of one service and its proxy.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// The application.
    pub app: SocketAddr,
    /// The proxy's listener for peers.
    pub inbound: SocketAddr,
    /// The proxy's listener for the application.
    pub outbound: SocketAddr,
    /// The proxy's admin listener.
    pub admin: SocketAddr,
}

impl Ports {
    /// Four that are free.
    pub fn free() -> Self {
        Self {
            app: free_address(),
            inbound: free_address(),
            outbound: free_address(),
            admin: free_address(),
        }
    }
}

/// Everything that runs.
#[derive(Debug)]
pub struct Site {
    // In the order in which they are dropped: what depends on others first.
    workloads: Vec<(String, Process)>,
    agent: Option<Process>,
    ca: Option<Process>,
    /// The caller.
    pub orders: Ports,
    /// The called one.
    pub inventory: Ports,
    ca_listen: SocketAddr,
    folder: TempDir,
}

impl Site {
    /// Starts everything, and returns when a call goes through.
    pub async fn start() -> Self {
        let mut site = Self {
            workloads: Vec::new(),
            agent: None,
            ca: None,
            orders: Ports::free(),
            inventory: Ports::free(),
            ca_listen: free_address(),
            folder: tempfile::tempdir().unwrap(),
        };
        site.write_configs();
        site.start_ca().await;
        let admin = site.ca_admin().await;
        site.write_bootstrap(&admin).await;
        site.start_agent();
        site.until_synced().await;
        admin.publish(site.mesh().messages()).await;
        for name in ["orders", "inventory"] {
            site.start_app(name);
            site.start_proxy(name);
        }
        site.until_calls_pass().await;
        site
    }

    /// The call that the mesh allows.
    pub fn lookup() -> Call {
        Call::get("inventory.shop", "/inventory/apples")
    }

    /// Returns when a call goes through.
    pub async fn until_calls_pass(&self) {
        crate::load::until_status(self.orders.outbound, &Self::lookup(), 200, SOON).await;
    }

    /// The temporary folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The CA's admin socket.
    pub fn ca_socket(&self) -> PathBuf {
        self.path().join("ca/admin.sock")
    }

    /// The Workload API socket.
    pub fn agent_socket(&self) -> PathBuf {
        self.path().join("agent.sock")
    }

    /// The agent's admin socket.
    pub fn agent_admin_socket(&self) -> PathBuf {
        self.path().join("agent-admin.sock")
    }

    /// A connection to the CA, once it answers and is ready.
    pub async fn ca_admin(&self) -> CaAdmin {
        let socket = self.ca_socket();
        until("the CA answers", SOON, || async {
            let admin = CaAdmin::connect(&socket).await?;
            let health = admin.admin().get_health(HealthRequest {}).await;
            health.ok()?.into_inner().is_ready.then_some(admin)
        })
        .await
    }

    /// Runs `ravelin` with the CA's address set.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(ravelin());
        command
            .args(arguments)
            .env(
                "RAVELIN_SERVER",
                format!("unix:{}", self.ca_socket().display()),
            )
            .current_dir(self.path());
        run(&mut command)
    }

    /// Starts the CA and waits until it answers.
    pub async fn start_ca(&mut self) {
        self.ca = Some(self.serve("ca", &["ca", "serve", "--config"], "ca.toml"));
        self.ca_admin().await;
    }

    /// Starts the agent.
    pub fn start_agent(&mut self) {
        self.agent = Some(self.serve("agent", &["agent", "serve", "--config"], "agent.toml"));
    }

    /// Kills the CA: `kill -9`.
    pub fn kill_ca(&mut self) {
        self.ca.take().unwrap().kill();
    }

    /// Kills the agent: `kill -9`.
    pub fn kill_agent(&mut self) {
        self.agent.take().unwrap().kill();
    }

    /// Kills the proxy of `name`: `kill -9` on the process that its launcher holds.
    pub async fn kill_proxy(&mut self, name: &str) {
        let wanted = format!("proxy-{name}");
        let index = self
            .workloads
            .iter()
            .position(|(known, _)| *known == wanted);
        let (_, mut launcher) = self.workloads.remove(index.unwrap());
        launcher.kill_child();
        launcher.wait_soon().await;
    }

    /// Launches the proxy of `name`.
    pub fn start_proxy(&mut self, name: &str) {
        let config = self.path().join(format!("proxy-{name}.toml"));
        let program = ravelin().display().to_string();
        let config = config.display().to_string();
        self.launch(
            &format!("proxy-{name}"),
            name,
            &[&program, "proxy", "serve", "--config", &config],
        );
    }

    /// Whether the agent has the CA's state, from now or from its disk.
    pub async fn until_synced(&self) {
        let socket = self.agent_admin_socket();
        until_true("the agent is synchronised with the CA", SOON, || async {
            let status = agent_status(&socket).await;
            status.is_some_and(|status| status.is_synced)
        })
        .await;
    }

    /// Whether the proxy of `name` has all that it needs.
    pub async fn is_proxy_ready(&self, name: &str) -> bool {
        let call = Call::get("localhost", "/readyz");
        let answer = call_once(self.ports(name).admin, &call).await;
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// The two services, and the policy that lets one call the other.
    pub fn mesh(&self) -> MeshFolder {
        let mut orders = Workload::new("orders", &["launch:name:orders"]);
        orders.http = Some(self.orders.inbound);
        let mut inventory = Workload::new("inventory", &["launch:name:inventory"]);
        inventory.http = Some(self.inventory.inbound);
        MeshFolder::new(&[orders, inventory]).with_allow(
            "inventory",
            "orders",
            "[\"GET\"]",
            "[\"/inventory/*\"]",
        )
    }

    fn ports(&self, name: &str) -> Ports {
        if name == "orders" {
            self.orders
        } else {
            self.inventory
        }
    }

    fn start_app(&mut self, name: &str) {
        let ports = self.ports(name);
        let program = ravelin().display().to_string();
        let (listen, outbound) = (ports.app.to_string(), ports.outbound.to_string());
        let command = [
            &program,
            "demo",
            "serve",
            "--name",
            name,
            "--listen",
            &listen,
            "--outbound",
            &outbound,
        ];
        self.launch(&format!("app-{name}"), name, &command);
    }

    fn launch(&mut self, part: &str, name: &str, command: &[&str]) {
        let mut launch = Command::new(ravelin());
        launch
            .args(["launch", name, "--admin-socket"])
            .arg(self.agent_admin_socket())
            .arg("--")
            .args(command)
            .env(
                "SPIFFE_ENDPOINT_SOCKET",
                format!("unix://{}", self.agent_socket().display()),
            )
            .current_dir(self.path());
        let process = Process::start(part, self.path(), &mut launch);
        self.workloads.push((part.to_owned(), process));
    }

    fn serve(&self, name: &str, arguments: &[&str], config: &str) -> Process {
        let mut command = Command::new(ravelin());
        command
            .args(arguments)
            .arg(self.path().join(config))
            .current_dir(self.path());
        Process::start(name, self.path(), &mut command)
    }

    fn write_configs(&self) {
        let path = |name: &str| self.path().join(name).display().to_string();
        self.write("ca.toml", &ca_toml(&path("ca"), self.ca_listen));
        self.write(
            "agent.toml",
            &format!(
                "trust_domain = \"{TRUST_DOMAIN}\"\ndata_dir = \"{}\"\nserver = \"https://{}\"\ntrust_bundle = \"{}\"\njoin_token_file = \"{}\"\nsocket = \"{}\"\nadmin_socket = \"{}\"\n",
                path("agent"),
                self.ca_listen,
                path("bundle.pem"),
                path("join-token"),
                path("agent.sock"),
                path("agent-admin.sock"),
            ),
        );
        for name in ["orders", "inventory"] {
            let ports = self.ports(name);
            self.write(
                &format!("proxy-{name}.toml"),
                &format!(
                    "name = \"{name}\"\nagent_socket = \"{}\"\nworkers = 1\noutbound = \"{}\"\nadmin = \"{}\"\n\n[[inbound]]\nlisten = \"{}\"\nforward = \"{}\"\n",
                    path("agent.sock"),
                    ports.outbound,
                    ports.admin,
                    ports.inbound,
                    ports.app,
                ),
            );
        }
    }

    async fn write_bootstrap(&self, admin: &CaAdmin) {
        self.write("bundle.pem", &admin.bundle_pem().await);
        self.write("join-token", &admin.join_token(NODE_ID).await);
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }
}

/// A CA's configuration file.
pub fn ca_toml(data_dir: &str, listen: SocketAddr) -> String {
    format!("trust_domain = \"{TRUST_DOMAIN}\"\ndata_dir = \"{data_dir}\"\nlisten = \"{listen}\"\n")
}
