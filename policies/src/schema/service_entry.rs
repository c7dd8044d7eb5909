//! `ServiceEntry` and `WorkloadEntry` (networking.istio.io): names, and where they are served.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use ravelin_proto::spiffe_id::SpiffeId;

use crate::object::{Labels, Location, Metadata};

/// A service under one or more host names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Name.
    pub metadata: Metadata,
    /// Where it stands.
    pub location: Location,
    /// Lower-case DNS names, without port; `*.example.org` stands for every name below.
    pub hosts: Vec<String>,
    /// Virtual addresses: a captured connection to one of them is meant for this service.
    pub addresses: Vec<IpNet>,
    /// Ports that callers use.
    pub ports: Vec<ServicePort>,
    /// Where the peers' proxies listen; those that `workload_selector` chose are filled in.
    pub endpoints: Vec<Endpoint>,
    /// Chooses WorkloadEntries of the same namespace.
    pub workload_selector: Option<Labels>,
    /// The identities that may serve it; a peer must be one of them.
    pub subject_alt_names: Vec<SpiffeId>,
    /// False for what a proxy cannot reach by mutual TLS: outside of the mesh, by DNS, without SPIFFE IDs. A call
    /// there is refused as one to an unknown host.
    pub is_routed: bool,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Number that callers use.
    pub number: u16,
    /// Name, by which an endpoint may have another number.
    pub name: String,
    /// What is spoken.
    pub protocol: ServiceProtocol,
    /// Port of the endpoints, else `number`.
    pub target_port: Option<u16>,
}

/// `ports[].protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceProtocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// TLS of the workload's own.
    Tls,
    /// Anything.
    Tcp,
}

impl ServiceProtocol {
    /// Judged per request.
    pub fn is_http(self) -> bool {
        !matches!(self, Self::Tls | Self::Tcp)
    }
}

/// One place where a service is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address of the peer's proxy.
    pub address: IpAddr,
    /// Port name to number, where it differs.
    pub ports: BTreeMap<String, u16>,
    /// Labels.
    pub labels: Labels,
    /// Network name.
    pub network: String,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Share of the calls; 0 means the default.
    pub weight: u32,
    /// Account, for information.
    pub service_account: String,
}

impl Endpoint {
    /// The port to dial for a port of the service.
    pub fn port_for(&self, port: &ServicePort) -> u16 {
        let named = self.ports.get(&port.name).copied();
        named.or(port.target_port).unwrap_or(port.number)
    }
}

/// A workload as an endpoint of services that select it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// Name; its labels are joined with the endpoint's.
    pub metadata: Metadata,
    /// Where it stands.
    pub location: Location,
    /// Address, ports, labels.
    pub endpoint: Endpoint,
}
