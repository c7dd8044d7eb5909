//! A CA and an agent in this process, three applications, and their proxies as processes of their own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use ravelin_tests::http_call::{Call, call_once};
use ravelin_tests::load::until_status;
use ravelin_tests::mesh_files::{MeshFolder, Workload};
use ravelin_tests::node::{Node, NodeOptions};
use ravelin_tests::pair::serve_echo;
use ravelin_tests::ports::free_address;
use ravelin_tests::process::Process;
use ravelin_tests::uid;
use ravelin_tests::wait::{SOON, until_true};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::apps::App;

/// The paths that every policy allows, and the one that every other policy allows.
const ALWAYS: &str = "\"/inventory/*\"";
const SOMETIMES: &str = "\"/flip\"";

/// One proxy: its process, its configuration, where it answers.
#[derive(Debug)]
pub(crate) struct SoakProxy {
    /// The name of its workload.
    pub(crate) name: &'static str,
    /// Health, metrics.
    pub(crate) admin: SocketAddr,
    /// What the application calls.
    pub(crate) outbound: SocketAddr,
    process: Process,
    start: Start,
    generation: u32,
}

/// How a proxy's process is started.
#[derive(Clone, Debug)]
struct Start {
    program: PathBuf,
    config: PathBuf,
    logs: PathBuf,
}

impl Start {
    fn process(&self, name: &str) -> Process {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config);
        Process::start(name, &self.logs, &mut command)
    }
}

impl SoakProxy {
    /// Memory that the process holds, in kilobytes.
    pub(crate) fn rss_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()));
        let status = status.unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number
            .and_then(|number| number.parse().ok())
            .unwrap_or_default()
    }

    /// Starts a new process that takes the listeners over, and waits until the old one has ended.
    pub(crate) async fn replace(&mut self) {
        self.generation += 1;
        let name = format!("{}-{}", self.name, self.generation);
        let successor = self.start.process(&name);
        let mut old = std::mem::replace(&mut self.process, successor);
        let status = old.wait_soon().await;
        assert!(status.success(), "the replaced proxy ended with {status}");
    }

    /// Its metrics as text.
    pub(crate) async fn metrics(&self) -> String {
        let call = Call::get("localhost", "/metrics");
        call_once(self.admin, &call)
            .await
            .map_or_else(|error| error, |answer| answer.body)
    }
}

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct SoakSite {
    /// Calls `inventory` and `payments`.
    pub(crate) orders: SoakProxy,
    /// Its application restarts.
    pub(crate) inventory: SoakProxy,
    /// The proxy itself is replaced.
    pub(crate) payments: SoakProxy,
    /// Where `orders` opens TCP connections to `payments`.
    pub(crate) tcp: SocketAddr,
    /// The application that restarts.
    pub(crate) app: App,
    /// CA and agent.
    pub(crate) node: Node,
    /// What is published.
    pub(crate) policies: Policies,
    // WHY: held for their ends.
    _steady: App,
    _echo: JoinSet<()>,
    _folder: TempDir,
}

/// The mesh folder in its two forms.
#[derive(Debug)]
pub(crate) struct Policies(MeshFolder);

impl Policies {
    /// The mesh in which `/flip` is allowed, or not.
    pub(crate) fn with_flip(&self, is_allowed: bool) -> MeshFolder {
        let paths = if is_allowed {
            format!("[{ALWAYS}, {SOMETIMES}]")
        } else {
            format!("[{ALWAYS}]")
        };
        self.0
            .with_allow("inventory", "orders", "[\"GET\"]", &paths)
    }
}

impl SoakSite {
    /// Starts everything, and returns when calls go through.
    pub(crate) async fn start(program: PathBuf) -> Self {
        let node = Node::start(NodeOptions::default()).await;
        let folder = tempfile::tempdir().unwrap();
        let (app, steady) = (App::start().await, App::start().await);
        let mut echo = JoinSet::new();
        let echo_address = serve_echo(&mut echo).await;
        let selector = format!("unix:uid:{}", uid());
        let workload = |name| Workload::new(name, &[&selector]);
        let (orders, mut inventory, mut payments) = (
            workload("orders"),
            workload("inventory"),
            workload("payments"),
        );
        inventory.http = Some(free_address());
        payments.http = Some(free_address());
        payments.tcp = Some(free_address());
        let tcp = free_address();
        let to_payments =
            format!("[[tcp_outbound]]\nlisten = \"{tcp}\"\nservice = \"payments.shop:9000\"\n");
        let to_app = inbound(inventory.http.unwrap(), app.address(), "http");
        let to_steady = inbound(payments.http.unwrap(), steady.address(), "http")
            + &inbound(payments.tcp.unwrap(), echo_address, "tcp");
        let start = |workload: &Workload, name, rest: &str| {
            start_proxy(&program, folder.path(), &node, workload, name, rest)
        };
        let site = Self {
            orders: start(&orders, "orders", &to_payments),
            inventory: start(&inventory, "inventory", &to_app),
            payments: start(&payments, "payments", &to_steady),
            policies: Policies(
                MeshFolder::new(&[orders, inventory, payments])
                    .with_svid_life("40s")
                    .with_allow("payments", "orders", "[\"POST\"]", "[\"/pay\"]")
                    .with_allow_tcp("payments", "orders", echo_address.port()),
            ),
            tcp,
            app,
            node,
            _steady: steady,
            _echo: echo,
            _folder: folder,
        };
        let files = site.policies.with_flip(false).messages();
        site.node.admin().publish(files).await;
        for proxy in site.proxies() {
            let call = Call::get("localhost", "/readyz");
            let what = format!("the proxy of `{}` is ready", proxy.name);
            until_true(&what, SOON, || async {
                call_once(proxy.admin, &call)
                    .await
                    .is_ok_and(|answer| answer.status == 200)
            })
            .await;
        }
        let call = Call::get("inventory.shop", "/inventory/1");
        until_status(site.orders.outbound, &call, 200, SOON).await;
        site
    }

    /// All three.
    pub(crate) fn proxies(&self) -> [&SoakProxy; 3] {
        [&self.orders, &self.inventory, &self.payments]
    }
}

fn inbound(listen: SocketAddr, forward: SocketAddr, protocol: &str) -> String {
    format!(
        "[[inbound]]\nlisten = \"{listen}\"\nforward = \"{forward}\"\nprotocol = \"{protocol}\"\n"
    )
}

fn start_proxy(
    program: &Path,
    folder: &Path,
    node: &Node,
    workload: &Workload,
    name: &'static str,
    rest: &str,
) -> SoakProxy {
    let (admin, outbound) = (free_address(), free_address());
    let config = folder.join(format!("{name}.toml"));
    let text = format!(
        "name = \"{name}\"\nagent_socket = \"{}\"\nspiffe_id = \"{}\"\nworkers = 1\noutbound = \"{outbound}\"\nadmin = \"{admin}\"\ntakeover = \"{}\"\ndrain = \"5s\"\ndecision_sample_allowed = 0.01\n{rest}",
        node.socket().display(),
        workload.id(),
        folder.join(format!("{name}.sock")).display(),
    );
    std::fs::write(&config, text).unwrap();
    let start = Start {
        program: program.to_owned(),
        config,
        logs: folder.to_owned(),
    };
    SoakProxy {
        name,
        admin,
        outbound,
        process: start.process(name),
        start,
        generation: 0,
    }
}
