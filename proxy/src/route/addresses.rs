//! Services by the address that an application dials: a virtual address of the service, or one of its endpoints.
//!
//! Pure. A virtual address stands for the whole service, an endpoint's address for that endpoint alone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use ravelin_policies::{ServiceEntry, ServicePort};
use ravelin_proto::spiffe_id::SpiffeId;

use super::Route;

/// Routes by destination.
#[derive(Debug, Default)]
pub(super) struct ByAddress {
    exact: HashMap<SocketAddr, Arc<Route>>,
    /// Blocks with their port, the longest prefix first.
    blocks: Vec<(IpNet, u16, Arc<Route>)>,
}

impl ByAddress {
    /// Of two services at one address and port the first wins; a virtual address wins over an endpoint.
    pub(super) fn new(services: &[ServiceEntry]) -> Self {
        let mut routes = Self::default();
        let routed = || services.iter().filter(|service| service.is_routed);
        for service in routed() {
            routes.add_virtual(service);
        }
        for service in routed() {
            routes.add_endpoints(service);
        }
        routes
            .blocks
            .sort_by_key(|(block, _, _)| std::cmp::Reverse(block.prefix_len()));
        routes
    }

    /// The service at `destination`. An IPv4 address in IPv6 form is the IPv4 address.
    pub(super) fn find(&self, destination: SocketAddr) -> Option<&Arc<Route>> {
        let ip = destination.ip().to_canonical();
        let exact = self.exact.get(&SocketAddr::new(ip, destination.port()));
        exact.or_else(|| {
            let mut blocks = self.blocks.iter();
            blocks
                .find(|(block, port, _)| *port == destination.port() && block.contains(&ip))
                .map(|(_, _, route)| route)
        })
    }

    /// Every route.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        let blocks = self.blocks.iter().map(|(_, _, route)| route);
        self.exact.values().chain(blocks)
    }

    fn add_virtual(&mut self, service: &ServiceEntry) {
        let Some(host) = service
            .hosts
            .first()
            .filter(|_| !service.addresses.is_empty())
        else {
            return;
        };
        let expected: Arc<[SpiffeId]> = service.subject_alt_names.clone().into();
        for port in &service.ports {
            let endpoints = service.endpoints.iter();
            let endpoints = endpoints
                .map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port_for(port)));
            let route = route(host, port, endpoints.collect(), &expected);
            for block in &service.addresses {
                if block.prefix_len() == block.max_prefix_len() {
                    let address = SocketAddr::new(block.addr().to_canonical(), port.number);
                    self.exact.entry(address).or_insert(Arc::clone(&route));
                } else {
                    self.blocks
                        .push((block.trunc(), port.number, Arc::clone(&route)));
                }
            }
        }
    }

    fn add_endpoints(&mut self, service: &ServiceEntry) {
        let Some(host) = service.hosts.first() else {
            return;
        };
        let expected: Arc<[SpiffeId]> = service.subject_alt_names.clone().into();
        for port in &service.ports {
            for endpoint in &service.endpoints {
                let address = SocketAddr::new(endpoint.address, endpoint.port_for(port));
                let key = SocketAddr::new(address.ip().to_canonical(), address.port());
                self.exact
                    .entry(key)
                    .or_insert_with(|| route(host, port, vec![address], &expected));
            }
        }
    }
}

fn route(
    host: &str,
    port: &ServicePort,
    endpoints: Vec<SocketAddr>,
    expected: &Arc<[SpiffeId]>,
) -> Arc<Route> {
    Arc::new(Route {
        service: format!("{host}:{}", port.number),
        protocol: port.protocol,
        endpoints,
        expected: Arc::clone(expected),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ravelin_policies::SourceFile;

    fn routes() -> ByAddress {
        let file = |path: &str, content: String| SourceFile {
            path: path.into(),
            content,
        };
        let service = |name: &str, addresses: &str, endpoints: &str| {
            format!(
                "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec: {{hosts: [{name}.shop], addresses: [{addresses}], resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP}}, {{number: 5432, name: pg, protocol: TCP}}], endpoints: [{endpoints}], subjectAltNames: ['spiffe://shop.example/{name}']}}\n"
            )
        };
        let services = [
            service(
                "a",
                "10.99.0.1, 'fd99::1'",
                "{address: 10.0.0.1, ports: {http: 8080}}, {address: 10.0.0.2, ports: {http: 8080}}",
            ),
            service("b", "10.99.0.0/16", "{address: 10.0.0.3}"),
            service(
                "c",
                "10.99.7.0/24, 10.99.0.1",
                "{address: 10.0.0.1, ports: {http: 8080}}",
            ),
        ];
        let set = ravelin_policies::load(&[
            file(
                "ravelin.yaml",
                "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec: {trustDomain: shop.example}\n"
                    .to_owned(),
            ),
            file("services/all.yaml", services.concat()),
        ])
        .unwrap();
        ByAddress::new(&set.services)
    }

    #[test]
    fn a_destination_finds_the_service_that_it_is_an_address_of() {
        let routes = routes();
        let both = "10.0.0.1:8080 10.0.0.2:8080";
        let rows = [
            ("10.99.0.1:80", Some(("a.shop:80", both))),
            ("[fd99::1]:80", Some(("a.shop:80", both))),
            ("[::ffff:10.99.0.1]:80", Some(("a.shop:80", both))),
            (
                "10.99.0.1:5432",
                Some(("a.shop:5432", "10.0.0.1:5432 10.0.0.2:5432")),
            ),
            ("10.99.0.1:81", None),
            ("10.99.200.9:80", Some(("b.shop:80", "10.0.0.3:80"))),
            ("10.99.7.9:80", Some(("c.shop:80", "10.0.0.1:8080"))),
            ("10.0.0.1:8080", Some(("a.shop:80", "10.0.0.1:8080"))),
            ("10.0.0.2:8080", Some(("a.shop:80", "10.0.0.2:8080"))),
            ("10.0.0.2:80", None),
            ("10.0.0.3:5432", Some(("b.shop:5432", "10.0.0.3:5432"))),
            ("10.100.0.1:80", None),
            ("[fd99::2]:80", None),
        ];
        for (destination, want) in rows {
            let found = routes.find(destination.parse().unwrap()).map(|route| {
                let endpoints: Vec<String> =
                    route.endpoints.iter().map(ToString::to_string).collect();
                (route.service.clone(), endpoints.join(" "))
            });
            let want = want.map(|(service, ends)| (service.to_owned(), ends.to_owned()));
            assert_eq!(found, want, "{destination}");
        }
    }
}
