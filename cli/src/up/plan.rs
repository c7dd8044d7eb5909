//! What `up` is going to run: the workloads of the mesh folder that say how they are launched.

use crate::exit::Failure;
use ravelin_policies::{LaunchProtocol, MeshSet};
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

/// One workload and its proxy.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// Name of the identity, of the proxy, and of the `launch:name` selector.
    pub(crate) name: String,
    /// Its SPIFFE ID.
    pub(crate) spiffe_id: SpiffeId,
    /// Its own command.
    pub(crate) command: Vec<String>,
    /// Where the workload listens.
    pub(crate) app: SocketAddr,
    /// Where its proxy accepts peers.
    pub(crate) inbound: SocketAddr,
    /// Where its proxy takes the workload's own calls.
    pub(crate) outbound: SocketAddr,
    /// `http` or `tcp`.
    pub(crate) protocol: &'static str,
}

/// Everything that is going to run.
#[derive(Debug, Clone)]
pub(crate) struct UpPlan {
    /// The trust domain of the mesh.
    pub(crate) trust_domain: TrustDomain,
    /// The SPIFFE ID under which the agent's entries stand.
    pub(crate) node_id: SpiffeId,
    /// Where the CA listens for agents.
    pub(crate) ca_listen: SocketAddr,
    /// Workloads in the order of their names.
    pub(crate) services: Vec<Service>,
}

impl UpPlan {
    /// Reads the plan from a mesh that has been checked.
    pub(crate) fn new(mesh: &MeshSet, ca_listen: SocketAddr) -> Result<Self, Failure> {
        let trust_domain = mesh.config.trust_domain.clone();
        let mut services = Vec::new();
        for identity in &mesh.identities {
            let Some(launch) = &identity.launch else {
                continue;
            };
            services.push(Service {
                name: identity.metadata.name.clone(),
                spiffe_id: identity.spiffe_id.clone(),
                command: launch.command.clone(),
                app: SocketAddr::from(([127, 0, 0, 1], launch.port)),
                inbound: listener(launch.inbound, "inbound", &identity.metadata.name)?,
                outbound: listener(launch.outbound, "outbound", &identity.metadata.name)?,
                protocol: match launch.protocol {
                    LaunchProtocol::Http => "http",
                    LaunchProtocol::Tcp => "tcp",
                },
            });
        }
        services.sort_by(|left, right| left.name.cmp(&right.name));
        for pair in services.windows(2) {
            if let [left, right] = pair
                && left.name == right.name
            {
                return Err(Failure::usage(format!(
                    "two identities with `launch` are named `{}`",
                    left.name
                ))
                .with_help("`up` names its parts by them: give one of them another name"));
            }
        }
        Ok(Self {
            node_id: node_id(&mesh.config.defaults.parent_id, &trust_domain)?,
            trust_domain,
            ca_listen,
            services,
        })
    }

    /// The service with this name.
    pub(crate) fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Refuses an address that two parts share or that another program listens on.
    pub(crate) fn check_addresses(&self) -> Result<(), Failure> {
        let mut taken: BTreeMap<SocketAddr, String> = BTreeMap::new();
        for (address, what) in self.addresses() {
            if let Some(other) = taken.get(&address) {
                return Err(Failure::usage(format!(
                    "{other} and {what} are both to listen on {address}"
                ))
                .with_help("give one of them another port in identities/"));
            }
            if let Err(error) = TcpListener::bind(address) {
                return Err(in_use(address, &what, &error));
            }
            taken.insert(address, what);
        }
        Ok(())
    }

    fn addresses(&self) -> Vec<(SocketAddr, String)> {
        let mut all = vec![(self.ca_listen, "the CA".to_owned())];
        for service in &self.services {
            all.push((service.app, format!("workload `{}`", service.name)));
            all.push((
                service.inbound,
                format!("the inbound listener of `{}`", service.name),
            ));
            all.push((
                service.outbound,
                format!("the outbound listener of `{}`", service.name),
            ));
        }
        all
    }
}

fn listener(address: Option<SocketAddr>, which: &str, name: &str) -> Result<SocketAddr, Failure> {
    address.ok_or_else(|| {
        Failure::usage(format!("`launch` of `{name}` has no `{which}`")).with_help(format!(
            "give its proxy an address, such as `{which}: 127.0.0.1:15101`"
        ))
    })
}

fn node_id(text: &str, trust_domain: &TrustDomain) -> Result<SpiffeId, Failure> {
    let id = if text.starts_with('/') {
        SpiffeId::new(trust_domain, text)
    } else {
        SpiffeId::parse(text)
    };
    id.map_err(|error| {
        Failure::usage(format!(
            "`defaults.parentId` `{text}` is not the SPIFFE ID of a node: {error}"
        ))
    })
}

fn in_use(address: SocketAddr, what: &str, error: &std::io::Error) -> Failure {
    let failure = Failure::usage(format!("{what} cannot listen on {address}: {error}"));
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return failure;
    }
    let port = address.port();
    failure.with_help(if what == "the CA" {
        format!("end the program that uses port {port} (`ss -ltnp 'sport = :{port}'` names it), or choose another with --ca-listen")
    } else {
        format!("end the program that uses port {port} (`ss -ltnp 'sport = :{port}'` names it), or change the port in the mesh folder")
    })
}
