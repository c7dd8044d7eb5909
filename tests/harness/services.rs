//! Any number of applications behind one proxy, `inventory`, which `orders` calls through its own: strict mutual TLS, and
//! no call that policy does not allow.

use std::fmt::Write as _;
use std::net::SocketAddr;

use ravelin_proxy::config::{OutboundListener, Protocol};

use crate::mesh_files::{MeshFolder, Workload};
use crate::node::{Node, TRUST_DOMAIN};
use crate::pair::{RunningProxy, any_port, inbound, proxy_config};
use crate::uid;
use crate::wait::{SOON, until_true};

/// One application.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// The service is `NAME.shop`, on the application's own port.
    pub name: &'static str,
    /// Where the application listens.
    pub app: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
}

impl Service {
    /// An application of the test.
    pub fn new(name: &'static str, app: SocketAddr, protocol: Protocol) -> Self {
        Self {
            name,
            app,
            protocol,
        }
    }

    /// `HOST:PORT`.
    pub fn authority(&self) -> String {
        format!("{}.shop:{}", self.name, self.app.port())
    }

    fn entry(&self, listener: SocketAddr) -> String {
        let (name, number) = (self.name, self.app.port());
        let protocol = match self.protocol {
            Protocol::Http => "HTTP",
            Protocol::Http2 => "HTTP2",
            Protocol::Grpc => "GRPC",
            Protocol::Tcp => "TCP",
        };
        let endpoint = listener.port();
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: {name}\nspec:\n  hosts: [{name}.shop]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  subjectAltNames: [\"spiffe://{TRUST_DOMAIN}/ns/shop/sa/inventory\"]\n  ports:\n    - {{number: {number}, name: main, protocol: {protocol}}}\n  endpoints:\n    - address: 127.0.0.1\n      ports: {{main: {endpoint}}}\n"
        )
    }
}

/// Both proxies, and the mesh that they are in.
#[derive(Debug)]
pub struct Services {
    /// The caller's proxy.
    pub orders: RunningProxy,
    /// The proxy before the applications.
    pub inventory: RunningProxy,
    all: Vec<Service>,
    folder: MeshFolder,
}

impl Services {
    /// Starts both proxies and publishes the mesh without a policy: every call is refused.
    pub async fn start(node: &Node, services: &[Service]) -> Self {
        let selector = format!("unix:uid:{}", uid());
        let workloads = ["orders", "inventory"].map(|name| Workload::new(name, &[&selector]));
        let [mut caller, mut called] =
            [&workloads[0], &workloads[1]].map(|workload| proxy_config(workload, node.socket()));
        called.inbound = services
            .iter()
            .map(|service| inbound(service.app, service.protocol))
            .collect();
        caller.tcp_outbound = services
            .iter()
            .filter(|service| service.protocol == Protocol::Tcp)
            .map(|service| OutboundListener {
                listen: any_port(),
                service: service.authority(),
            })
            .collect();
        let (orders, inventory) = (RunningProxy::start(caller), RunningProxy::start(called));
        let mut folder = MeshFolder::new(&workloads);
        for (service, listener) in services.iter().zip(&inventory.inbound) {
            let path = format!("services/shop/{}.yaml", service.name);
            folder.put(&path, &service.entry(*listener));
        }
        node.admin().publish(folder.messages()).await;
        for (name, proxy) in [("orders", &orders), ("inventory", &inventory)] {
            let what = format!("the proxy of `{name}` is ready");
            until_true(&what, SOON, || proxy.is_ready()).await;
        }
        Self {
            orders,
            inventory,
            all: services.to_vec(),
            folder,
        }
    }

    /// Where the application of `orders` opens connections to this TCP service.
    pub fn tcp_address(&self, name: &str) -> SocketAddr {
        let mut tcp = self
            .all
            .iter()
            .filter(|service| service.protocol == Protocol::Tcp);
        let position = tcp.position(|service| service.name == name).unwrap();
        self.orders.tcp_outbound[position]
    }

    /// Publishes a policy that lets `orders` open connections to every TCP service, and call these paths of the others.
    pub async fn allow(&self, node: &Node, paths: &[&str]) {
        let mut text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: inventory-allow\nspec:\n  selector:\n    matchLabels:\n      app: inventory\n  action: ALLOW\n  rules:\n    - from:\n        - source:\n            principals: [\"{TRUST_DOMAIN}/ns/shop/sa/orders\"]\n      to:\n"
        );
        for service in &self.all {
            let port = service.app.port();
            let _ = writeln!(
                text,
                "        - operation:\n            ports: [\"{port}\"]"
            );
            if service.protocol != Protocol::Tcp {
                let _ = writeln!(text, "            paths: {paths:?}");
            }
        }
        let folder = self.folder.with("policies/shop/inventory.yaml", &text);
        let revision = node.admin().publish(folder.messages()).await;
        until_true("the policy is in use", SOON, || async {
            self.inventory.in_use().await["mesh_revision"] == revision
        })
        .await;
    }
}
