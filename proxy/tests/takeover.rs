//! Upgrades with real processes under load: listeners go from one process to the next, and no call is lost.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod harness;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::agent::Agent;
use harness::app::App;
use harness::authority::Authority;
use harness::client::{call, get};
use harness::load::{Calling, Load};
use harness::process::{Program, activated, own_address, until, until_ready};
use harness::{JwtAuthority, Mesh, POLICIES, RunningProxy, TRUST_DOMAIN};
use ravelin_proto::pb::ravelin::v1 as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const INBOUND: u16 = 15006;
const INBOUND_TCP: u16 = 15007;
const OUTBOUND: u16 = 15001;
const TCP_OUTBOUND: u16 = 15009;
const ADMIN: u16 = 15000;

/// Configurations for real processes, and the mesh that they serve.
struct Upgraded {
    mesh: Mesh,
    orders: PathBuf,
    inventory: PathBuf,
}

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::from((ip, port))
}

impl Upgraded {
    async fn prepare(workers: usize) -> Self {
        ravelin_runtime::crypto::install();
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::start(folder.path());
        for name in ["orders", "inventory"] {
            agent.set(name, pb::ProxySnapshot::default());
        }
        let (orders, inventory) = (own_address(), own_address());
        let proxy = |ip, tcp_outbound| {
            RunningProxy::elsewhere(
                at(ip, OUTBOUND),
                vec![at(ip, INBOUND), at(ip, INBOUND_TCP)],
                tcp_outbound,
                at(ip, ADMIN),
            )
        };
        let mesh = Mesh {
            orders: proxy(orders, vec![at(orders, TCP_OUTBOUND)]),
            inventory: proxy(inventory, Vec::new()),
            agent,
            authority: Authority::new(TRUST_DOMAIN),
            jwt: Arc::new(JwtAuthority::new()),
            app: App::http().await,
            tcp_app: App::tcp().await,
            config: String::new(),
            folder,
        };
        for name in ["orders", "inventory"] {
            let snapshot = mesh.snapshot(name, 1, POLICIES, &mesh.authority);
            mesh.agent.set(name, snapshot);
        }
        let config = |name: &str, ip: IpAddr, rest: String| {
            let path = mesh.folder.path().join(format!("{name}.toml"));
            let text = format!(
                "name = \"{name}\"\nagent_socket = \"{}\"\ntakeover = \"{}\"\nworkers = {workers}\ndrain = \"3s\"\noutbound = \"{}\"\nadmin = \"{}\"\n{rest}",
                mesh.agent.socket.display(),
                mesh.folder.path().join(format!("{name}.sock")).display(),
                at(ip, OUTBOUND),
                at(ip, ADMIN),
            );
            std::fs::write(&path, text).unwrap();
            path
        };
        let inbound = format!(
            "[[inbound]]\nlisten = \"{}\"\nforward = \"{}\"\n[[inbound]]\nlisten = \"{}\"\nforward = \"{}\"\nprotocol = \"tcp\"\n",
            at(inventory, INBOUND),
            mesh.app.address,
            at(inventory, INBOUND_TCP),
            mesh.tcp_app.address,
        );
        let outbound = format!(
            "[[tcp_outbound]]\nlisten = \"{}\"\nservice = \"inventory-tcp.shop:7000\"\n",
            at(orders, TCP_OUTBOUND)
        );
        Self {
            orders: config("orders", orders, outbound),
            inventory: config("inventory", inventory, inbound),
            mesh,
        }
    }

    fn socket(&self, config: &Path) -> PathBuf {
        config.with_extension("sock")
    }

    async fn start(&self) -> (Program, Program) {
        let started = (
            Program::start(&self.orders, 0),
            Program::start(&self.inventory, 0),
        );
        for proxy in [&self.mesh.orders, &self.mesh.inventory] {
            until_ready(proxy.admin.unwrap()).await;
        }
        for config in [&self.orders, &self.inventory] {
            let socket = self.socket(config);
            until("the takeover socket is there", async || socket.exists()).await;
        }
        started
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_64_proxies_that_are_replaced_again_and_again_under_load_fail_no_call() {
    let upgraded = Upgraded::prepare(2).await;
    let (mut orders, mut inventory) = upgraded.start().await;
    let mode = std::fs::metadata(upgraded.socket(&upgraded.orders)).unwrap();
    assert_eq!(mode.permissions().mode() & 0o7777, 0o600);
    let (http, tcp) = (
        upgraded.mesh.outbound(),
        upgraded.mesh.orders.tcp_outbound[0],
    );
    let load = Load::default()
        .with(Calling::Kept, http, 4)
        .with(Calling::Post, http, 3)
        .with(Calling::Fresh, http, 4)
        .with(Calling::Tcp, tcp, 3);
    load.go_on(100).await;
    let mut ended = Vec::new();
    for number in 1..=6 {
        let (running, config) = if number % 2 == 0 {
            (&mut orders, &upgraded.orders)
        } else {
            (&mut inventory, &upgraded.inventory)
        };
        let successor = Program::start(config, number);
        running.logged("a successor serves").await;
        ended.push(std::mem::replace(running, successor));
        let socket = upgraded.socket(config);
        until("the successor can be replaced too", async || {
            socket.exists()
        })
        .await;
        load.go_on(150).await;
    }
    let calls = load.calls();
    assert_eq!(load.stop().await, Vec::<String>::new(), "of {calls} calls");
    for mut program in ended {
        assert!(program.ended().await.success(), "{}", program.log());
    }
    assert!(orders.is_running() && inventory.is_running());
    let ready = call(
        upgraded.mesh.orders.admin.unwrap(),
        get("localhost", "/readyz"),
    )
    .await;
    assert_eq!(ready.status, 200, "one process answers at a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_does_not_get_ready_leaves_everything_as_it_is() {
    let upgraded = Upgraded::prepare(2).await;
    let (mut orders, _inventory) = upgraded.start().await;
    let other = upgraded.mesh.folder.path().join("other.toml");
    let text = std::fs::read_to_string(&upgraded.orders).unwrap();
    std::fs::write(&other, text.replace("\"orders\"", "\"other\"")).unwrap();
    let mut refused = Program::start(&other, 1);
    assert!(!refused.ended().await.success());
    assert!(refused.log().contains("this is the proxy `orders`"));

    let nowhere = upgraded.mesh.folder.path().join("nowhere.toml");
    std::fs::write(&nowhere, text.replace("agent.sock", "nobody.sock")).unwrap();
    let mut hung = Program::start(&nowhere, 2);
    hung.logged("no stream to the agent").await;
    for _ in 0..20 {
        let answer = call(upgraded.mesh.outbound(), get("inventory.shop", "/items")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    hung.kill();
    orders.logged("a successor did not take over").await;
    assert!(orders.is_running());

    let successor = Program::start(&upgraded.orders, 3);
    orders.logged("a successor serves").await;
    assert!(orders.ended().await.success());
    let answer = call(upgraded.mesh.outbound(), get("inventory.shop", "/items")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    drop(successor);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tcp_connection_outlives_the_takeover_until_the_drain_is_over() {
    let upgraded = Upgraded::prepare(1).await;
    let (mut orders, _inventory) = upgraded.start().await;
    let mut stream = TcpStream::connect(upgraded.mesh.orders.tcp_outbound[0])
        .await
        .unwrap();
    let mut four = [0; 4];
    stream.write_all(b"ping").await.unwrap();
    stream.read_exact(&mut four).await.unwrap();
    let _successor = Program::start(&upgraded.orders, 1);
    orders.logged("a successor serves").await;
    stream.write_all(b"pong").await.unwrap();
    stream.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"pong");
    assert_eq!(stream.read(&mut four).await.unwrap_or(0), 0);
    assert!(orders.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_wait_in_the_service_managers_socket_outlive_a_restart() {
    let upgraded = Upgraded::prepare(2).await;
    let (orders, inventory) = (
        Program::start(&upgraded.orders, 0),
        Program::start(&upgraded.inventory, 0),
    );
    for proxy in [&upgraded.mesh.orders, &upgraded.mesh.inventory] {
        until_ready(proxy.admin.unwrap()).await;
    }
    let admin = upgraded.mesh.orders.admin.unwrap();
    orders.terminate();
    let mut orders = orders;
    assert!(orders.ended().await.success());

    let sockets = [
        upgraded.mesh.outbound(),
        upgraded.mesh.orders.tcp_outbound[0],
    ]
    .map(|address| TcpListener::bind(address).unwrap());
    let copies = || sockets.each_ref().map(|socket| socket.try_clone().unwrap());
    let http = sockets[0].local_addr().unwrap();
    let waiting: Vec<_> = (0..30)
        .map(|_| tokio::spawn(async move { call(http, get("inventory.shop", "/items")).await }))
        .collect();
    let mut running = Program::spawn(
        activated(&upgraded.orders, "http:tcp", copies()),
        &upgraded.orders,
        1,
    );
    for answer in waiting {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    let load = Load::default().with(Calling::Fresh, http, 6).with(
        Calling::Tcp,
        sockets[1].local_addr().unwrap(),
        2,
    );
    for number in 2..4 {
        load.go_on(60).await;
        running.terminate();
        assert!(running.ended().await.success(), "{}", running.log());
        let command = activated(&upgraded.orders, "http:tcp", copies());
        running = Program::spawn(command, &upgraded.orders, number);
        until_ready(admin).await;
    }
    load.go_on(60).await;
    assert_eq!(load.stop().await, Vec::<String>::new());

    let unwanted = TcpListener::bind((own_address(), 0)).unwrap();
    let [wanted, _] = copies();
    let command = activated(&upgraded.inventory, "http:stray", [wanted, unwanted]);
    let mut refused = Program::spawn(command, &upgraded.inventory, 9);
    assert!(!refused.ended().await.success());
    assert!(refused.log().contains("no listener"), "{}", refused.log());
    drop(inventory);
}
