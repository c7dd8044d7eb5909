//! From the host of a call, or the destination of a captured connection, to the service that is meant.
//!
//! Pure. Built from the ServiceEntries of one mesh revision. An unknown host has no route; nothing is guessed.

mod addresses;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ravelin_policies::{Endpoint, ServiceEntry, ServiceProtocol};
use ravelin_proto::spiffe_id::SpiffeId;

use addresses::ByAddress;

/// One port of one service.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// `host:port` as declared, for metrics.
    pub service: String,
    /// What is spoken there.
    pub protocol: ServiceProtocol,
    /// Inbound listeners of the peers.
    pub endpoints: Vec<SocketAddr>,
    /// Identities that may answer.
    pub expected: Arc<[SpiffeId]>,
}

/// How a connection of the application says which service it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressed {
    /// Each call by its host.
    Host,
    /// One service, `HOST:PORT`, whatever the calls say.
    Service(Arc<str>),
    /// The address that the application had dialled.
    Destination(SocketAddr),
}

/// All routes of one revision.
#[derive(Debug, Default)]
pub struct Routes {
    by_address: ByAddress,
    exact: HashMap<String, ServiceRoutes>,
    /// `.example.org` for `*.example.org`, longest first.
    suffixes: Vec<(String, ServiceRoutes)>,
}

#[derive(Clone, Debug, Default)]
struct ServiceRoutes {
    ports: Vec<(u16, Arc<Route>)>,
}

impl Routes {
    /// Reads the services, without those that no proxy can reach: a call there finds no route. Of two entries for one
    /// host and port the first wins.
    pub fn new(services: &[ServiceEntry]) -> Self {
        let mut routes = Self::default();
        for service in services.iter().filter(|service| service.is_routed) {
            for host in &service.hosts {
                let host = host.to_ascii_lowercase();
                let ports = service_ports(service, &host);
                match host.strip_prefix('*') {
                    Some(suffix) => match routes
                        .suffixes
                        .iter_mut()
                        .find(|(known, _)| known == suffix)
                    {
                        Some((_, known)) => known.add(ports),
                        None => routes
                            .suffixes
                            .push((suffix.to_owned(), ServiceRoutes { ports })),
                    },
                    None => routes.exact.entry(host).or_default().add(ports),
                }
            }
        }
        routes.by_address = ByAddress::new(services);
        routes
            .suffixes
            .sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        routes
    }

    /// Finds the service of `host`, a lower-case name with or without port.
    ///
    /// Without a port: port 80 if the service has it, else its only or first one.
    pub fn find(&self, host: &str) -> Option<&Arc<Route>> {
        let (name, port) = split_port(host);
        let name = name.strip_suffix('.').unwrap_or(name);
        let service = self.exact.get(name).or_else(|| {
            self.suffixes
                .iter()
                .find(|(suffix, _)| name.len() > suffix.len() && name.ends_with(suffix.as_str()))
                .map(|(_, service)| service)
        })?;
        service.find(port)
    }

    /// Finds the service that is meant; `host` is that of one call.
    pub fn meant(&self, addressed: &Addressed, host: &str) -> Option<&Arc<Route>> {
        match addressed {
            Addressed::Host => self.find(host),
            Addressed::Service(service) => self.find(service),
            Addressed::Destination(destination) => self.by_address.find(*destination),
        }
    }

    /// Every route.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        let suffixes = self.suffixes.iter().map(|(_, service)| service);
        self.exact
            .values()
            .chain(suffixes)
            .flat_map(|service| service.ports.iter().map(|(_, route)| route))
            .chain(self.by_address.all())
    }

    /// Number of hosts.
    pub fn len(&self) -> usize {
        self.exact.len().saturating_add(self.suffixes.len())
    }

    /// True without hosts.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ServiceRoutes {
    fn add(&mut self, ports: Vec<(u16, Arc<Route>)>) {
        for (port, route) in ports {
            if !self.ports.iter().any(|(known, _)| *known == port) {
                self.ports.push((port, route));
            }
        }
    }

    fn find(&self, port: Option<u16>) -> Option<&Arc<Route>> {
        let wanted = port.unwrap_or(80);
        let exact = self.ports.iter().find(|(known, _)| *known == wanted);
        let first = if port.is_none() {
            self.ports.first()
        } else {
            None
        };
        exact.or(first).map(|(_, route)| route)
    }
}

fn service_ports(service: &ServiceEntry, host: &str) -> Vec<(u16, Arc<Route>)> {
    let expected: Arc<[SpiffeId]> = service.subject_alt_names.clone().into();
    service
        .ports
        .iter()
        .map(|port| {
            let address =
                |endpoint: &Endpoint| SocketAddr::new(endpoint.address, endpoint.port_for(port));
            let route = Route {
                service: format!("{host}:{}", port.number),
                protocol: port.protocol,
                endpoints: service.endpoints.iter().map(address).collect(),
                expected: Arc::clone(&expected),
            };
            (port.number, Arc::new(route))
        })
        .collect()
}

fn split_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (host, None),
        },
        Some(_) | None => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(rows: &[(&str, &[u16])]) -> Routes {
        let mut routes = Routes::default();
        for (host, ports) in rows {
            let ports = ports
                .iter()
                .map(|port| {
                    let route = Route {
                        service: format!("{host}:{port}"),
                        protocol: ServiceProtocol::Http,
                        endpoints: Vec::new(),
                        expected: Arc::from([]),
                    };
                    (*port, Arc::new(route))
                })
                .collect();
            match host.strip_prefix('*') {
                Some(suffix) => routes
                    .suffixes
                    .push((suffix.to_owned(), ServiceRoutes { ports })),
                None => routes
                    .exact
                    .entry((*host).to_owned())
                    .or_default()
                    .add(ports),
            }
        }
        routes
    }

    #[test]
    fn a_service_that_no_proxy_can_reach_has_no_route() {
        let file = |path: &str, content: &str| ravelin_policies::SourceFile {
            path: path.into(),
            content: content.into(),
        };
        let config =
            "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec: {trustDomain: shop.example}\n";
        let service = |host: &str, resolution: &str| {
            format!(
                "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {host}}}\nspec: {{hosts: [{host}.shop], resolution: {resolution}, ports: [{{number: 80, name: http, protocol: HTTP}}], endpoints: [{{address: 127.0.0.1}}], subjectAltNames: ['spiffe://shop.example/{host}']}}\n"
            )
        };
        let services = service("a", "STATIC") + &service("b", "DNS");
        let set = ravelin_policies::load(&[
            file("ravelin.yaml", config),
            file("services/all.yaml", &services),
        ])
        .unwrap();
        let routes = Routes::new(&set.services);
        assert!(routes.find("a.shop").is_some() && routes.find("b.shop").is_none());
        assert_eq!(routes.len(), 1);
    }

    #[test]
    fn a_host_finds_its_service_with_or_without_port() {
        let routes = routes(&[
            ("a.shop", &[8080, 80]),
            ("b.shop", &[7000]),
            ("*.wild.shop", &[80]),
        ]);
        let rows = [
            ("a.shop", Some("a.shop:80")),
            ("a.shop.", Some("a.shop:80")),
            ("a.shop:8080", Some("a.shop:8080")),
            ("a.shop:81", None),
            ("b.shop", Some("b.shop:7000")),
            ("x.wild.shop", Some("*.wild.shop:80")),
            (".wild.shop", None),
            ("wild.shop", None),
            ("evil-a.shop", None),
            ("[::1]:80", None),
        ];
        for (host, want) in rows {
            assert_eq!(
                routes.find(host).map(|route| route.service.as_str()),
                want,
                "{host}"
            );
        }
    }
}
