//! Two proxies in this process, each with its application: `orders` calls, `inventory` is called.
//!
//! Both proxies are this one process, so both identities have its user as selector; each proxy names the one it takes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proxy::capture::config::CaptureConfig;
use ravelin_proxy::config::{InboundListener, OutboundListener, Protocol};
use ravelin_proxy::{Proxy, ProxyConfig};
use ravelin_runtime::clock::SystemClock;
use ravelin_runtime::drain::Drain;
use ravelin_runtime::telemetry::TelemetryConfig;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::http_call::{Answer, Call, call_once};
use crate::mesh_files::{MeshFolder, Workload};
use crate::node::Node;
use crate::uid;
use crate::wait::{SOON, until_true};

/// One proxy on a thread of its own.
#[derive(Debug)]
pub struct RunningProxy {
    drain: Drain,
    thread: Option<JoinHandle<()>>,
    /// Where the application calls.
    pub outbound: SocketAddr,
    /// Where peers call, in the order of the configuration.
    pub inbound: Vec<SocketAddr>,
    /// Where the application opens plain TCP connections.
    pub tcp_outbound: Vec<SocketAddr>,
    /// Readiness and live state.
    pub admin: SocketAddr,
}

impl RunningProxy {
    /// Opens the listeners and starts the threads.
    pub fn start(config: ProxyConfig) -> Self {
        ravelin_runtime::crypto::install();
        let proxy = Proxy::bind(config, SystemClock::shared()).unwrap();
        let drain = Drain::new();
        let mut running = Self {
            drain: drain.clone(),
            thread: None,
            outbound: proxy.outbound_address().unwrap(),
            inbound: proxy.inbound_addresses(),
            tcp_outbound: proxy.tcp_outbound_addresses(),
            admin: proxy.admin_address().unwrap(),
        };
        running.thread = Some(std::thread::spawn(move || {
            if let Err(error) = proxy.run(drain) {
                eprintln!("a proxy ended: {error}");
            }
        }));
        running
    }

    /// Whether it has identity, bundle and policy.
    pub async fn is_ready(&self) -> bool {
        let call = Call::get("localhost", "/readyz");
        call_once(self.admin, &call)
            .await
            .is_ok_and(|answer| answer.status == 200)
    }

    /// What it has in use: SPIFFE ID, serial, authority, revision.
    pub async fn in_use(&self) -> serde_json::Value {
        let call = Call::get("localhost", "/config");
        let answer = call_once(self.admin, &call).await.unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        config["in_use"].take()
    }
}

impl Drop for RunningProxy {
    fn drop(&mut self) {
        self.drain.start();
        if let Some(thread) = self.thread.take() {
            // WHY: its error was printed where it happened.
            let _ = thread.join();
        }
    }
}

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn proxy_config(workload: &Workload, agent_socket: &Path) -> ProxyConfig {
    ProxyConfig {
        name: workload.name.clone(),
        agent_socket: agent_socket.to_owned(),
        spiffe_id: Some(SpiffeId::parse(&workload.id()).unwrap()),
        workers: Some(1),
        outbound: Some(any_port()),
        inbound: Vec::new(),
        http_outbound: Vec::new(),
        capture: CaptureConfig::default(),
        tcp_outbound: Vec::new(),
        admin: Some(any_port()),
        takeover: None,
        drain: Duration::from_secs(1),
        memory_max_mib: None,
        decision_sample_allowed: 1.0,
        num_trusted_proxies: 0,
        jwks: ravelin_proxy::config::JwksConfig::default(),
        access_log: ravelin_proxy::access_log::AccessLogConfig::default(),
        tracing: ravelin_proxy::trace::TracingConfig::default(),
        log: TelemetryConfig::default(),
    }
}

/// The two proxies and their applications, in a published mesh.
#[derive(Debug)]
pub struct Pair {
    /// The caller's proxy.
    pub orders: RunningProxy,
    /// The called one's proxy.
    pub inventory: RunningProxy,
    /// Identities and services, without a policy.
    pub folder: MeshFolder,
    /// Port of the application behind `inventory` that takes plain TCP.
    pub tcp_port: u16,
    _apps: JoinSet<()>,
}

impl Pair {
    /// Starts everything, publishes the mesh, and returns when `GET /inventory/..` and plain TCP go through.
    pub async fn start(node: &Node) -> Self {
        let selector = format!("unix:uid:{}", uid());
        let (mut orders, mut inventory) = (
            Workload::new("orders", &[&selector]),
            Workload::new("inventory", &[&selector]),
        );
        let mut apps = JoinSet::new();
        let http_app = serve_http(&mut apps).await;
        let tcp_app = serve_echo(&mut apps).await;
        let mut config = proxy_config(&inventory, node.socket());
        config.inbound = vec![
            inbound(http_app, Protocol::Http),
            inbound(tcp_app, Protocol::Tcp),
        ];
        let called = RunningProxy::start(config);
        let mut config = proxy_config(&orders, node.socket());
        config.inbound = vec![inbound(http_app, Protocol::Http)];
        config.tcp_outbound = vec![OutboundListener {
            listen: any_port(),
            service: "inventory.shop:9000".to_owned(),
        }];
        let caller = RunningProxy::start(config);
        inventory.http = Some(called.inbound[0]);
        inventory.tcp = Some(called.inbound[1]);
        orders.http = Some(caller.inbound[0]);
        let pair = Self {
            orders: caller,
            inventory: called,
            folder: MeshFolder::new(&[orders, inventory]),
            tcp_port: tcp_app.port(),
            _apps: apps,
        };
        node.admin().publish(pair.allowing().messages()).await;
        for (name, proxy) in [("orders", &pair.orders), ("inventory", &pair.inventory)] {
            let what = format!("the proxy of `{name}` is ready");
            until_true(&what, SOON, || proxy.is_ready()).await;
        }
        crate::load::until_status(pair.orders.outbound, &pair.lookup(), 200, SOON).await;
        pair
    }

    /// The folder in which orders may look up and open TCP connections.
    pub fn allowing(&self) -> MeshFolder {
        self.folder
            .with_allow("inventory", "orders", "[\"GET\"]", "[\"/inventory/*\"]")
            .with_allow_tcp("inventory", "orders", self.tcp_port)
    }

    /// The call that `allowing` allows.
    pub fn lookup(&self) -> Call {
        Call::get("inventory.shop", "/inventory/apples")
    }

    /// Makes a call as the application of `orders` does.
    pub async fn call(&self, call: &Call) -> Answer {
        call_once(self.orders.outbound, call).await.unwrap()
    }
}

pub(crate) fn inbound(forward: SocketAddr, protocol: Protocol) -> InboundListener {
    InboundListener {
        listen: any_port(),
        forward,
        protocol,
        is_captured: false,
    }
}

/// An application that answers with what it got.
pub async fn serve_http(tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                // WHY: a peer that breaks its connection off is its own affair.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            });
        }
    });
    address
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await.map_or(0, |body| body.to_bytes().len());
    let headers: Vec<(&str, &str)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()))
        .collect();
    let text = json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers,
        "body_bytes": bytes,
    });
    // WHY: hyper leaves the body of an answer to HEAD away in HTTP/1.1 alone.
    let is_head = head.method == http::Method::HEAD;
    let body = if is_head {
        String::new()
    } else {
        text.to_string()
    };
    Ok(Response::new(Full::new(Bytes::from(body))))
}

/// An application that sends back every byte.
pub async fn serve_echo(tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(echo(stream));
        }
    });
    address
}

async fn echo(mut stream: TcpStream) {
    let (mut from, mut to) = stream.split();
    // WHY: a broken connection is what some tests are about.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}
