//! Reads `ServiceEntry` and `WorkloadEntry`. What no proxy of ours can reach loads, with a warning, and is not routed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use ravelin_proto::entry::is_dns_name;
use ravelin_proto::spiffe_id::SpiffeId;

use super::header::is_label;
use super::words::{LOCATIONS, PROTOCOLS, RESOLUTIONS, Resolution};
use super::{Header, Reader};
use crate::diagnostic::{Span, excerpt, near_miss};
use crate::document::{Node, Value};
use crate::fields::{Fields, integer, list, port, text};
use crate::limits;
use crate::object::Labels;
use crate::schema::{Endpoint, ServiceEntry, ServicePort, ServiceProtocol, WorkloadEntry};
use crate::shape;

/// One service while it is read: why it is not routed, and how it is resolved.
struct Plan {
    resolution: Resolution,
    obstacles: Vec<&'static str>,
}

impl Plan {
    fn hinder(&mut self, obstacle: &'static str) {
        if !self.obstacles.contains(&obstacle) {
            self.obstacles.push(obstacle);
        }
    }
}

/// Reads one service.
pub(crate) fn read_service(
    header: &Header,
    spec: &Node,
    reader: &mut Reader<'_, '_>,
) -> Option<ServiceEntry> {
    let known = shape::SERVICE_ENTRY.names();
    let fields = Fields::of(spec, "ServiceEntry", &known, reader.problems)?;
    let mut plan = read_plan(&fields, reader);
    let addresses = read_addresses(&fields, reader);
    read_export(&fields, &mut plan, reader);
    fields.required("hosts", reader.problems);
    let hosts = read_hosts(&fields, plan.resolution, reader);
    let ports = match fields.required("ports", reader.problems) {
        Some(node) => read_ports(node, &mut plan, reader),
        None => Vec::new(),
    };
    let (workload_selector, endpoints) = read_places(&fields, &mut plan, reader);
    check_port_names(&ports, &endpoints, fields.key_at("endpoints"), reader);
    let subject_alt_names = read_peers(&fields, &mut plan, reader);
    if !plan.obstacles.is_empty() {
        let message = format!(
            "no proxy routes calls to this service: {}",
            plan.obstacles.join("; ")
        );
        let help = Some("a call to it is refused; what is routed is inside of the mesh, with resolution STATIC, IP addresses and SPIFFE IDs in `subjectAltNames`".to_owned());
        reader
            .problems
            .warning(fields.key_at("hosts"), "not-routed", message, help);
    }
    Some(ServiceEntry {
        metadata: header.metadata.clone(),
        location: reader.location(header.at),
        hosts,
        addresses,
        ports,
        endpoints,
        workload_selector,
        subject_alt_names,
        is_routed: plan.obstacles.is_empty(),
    })
}

fn read_plan(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Plan {
    let is_external = fields.word("location", &LOCATIONS, reader.problems);
    let resolution = fields.word("resolution", &RESOLUTIONS, reader.problems);
    let mut plan = Plan {
        resolution: resolution.unwrap_or(Resolution::None),
        obstacles: Vec::new(),
    };
    if is_external == Some(true) {
        plan.hinder("it is outside of the mesh");
    }
    match plan.resolution {
        Resolution::Static => {}
        Resolution::None => plan.hinder("its resolution is NONE"),
        Resolution::Dns | Resolution::DnsRoundRobin | Resolution::DynamicDns => {
            plan.hinder("its addresses come from DNS");
        }
    }
    plan
}

/// Virtual addresses and blocks.
fn read_addresses(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Vec<IpNet> {
    let mut addresses = Vec::new();
    for (written, at) in fields.texts("addresses", reader.problems) {
        let address = written.parse::<IpAddr>().map(IpNet::from);
        if let Ok(block) = written.parse().or(address) {
            addresses.push(block);
        } else {
            let message = format!(
                "`{}` is neither an IP address nor a CIDR block",
                excerpt(written)
            );
            reader.problems.error(at, "bad-address", message);
        }
    }
    addresses
}

/// `*`, `.`, `~` or namespaces. A route is everyone's here.
fn read_export(fields: &Fields<'_>, plan: &mut Plan, reader: &mut Reader<'_, '_>) {
    for (scope, at) in fields.texts("exportTo", reader.problems) {
        if !matches!(scope, "*" | "." | "~") && !is_label(scope) {
            let help = Some("write `*`, `.`, `~` or a namespace".to_owned());
            let message = format!("`{}` is not a value of `exportTo`", excerpt(scope));
            reader
                .problems
                .error_with_help(at, "bad-value", message, help);
        } else if scope != "*" {
            plan.hinder("`exportTo` is not `*`");
        }
    }
}

fn read_hosts(
    fields: &Fields<'_>,
    resolution: Resolution,
    reader: &mut Reader<'_, '_>,
) -> Vec<String> {
    let mut hosts = Vec::new();
    let has_endpoints = fields.member("endpoints").is_some();
    for (written, at) in fields.texts("hosts", reader.problems) {
        let host = written.to_ascii_lowercase();
        let wildcard = host.strip_prefix("*.");
        let fault = if !is_dns_name(wildcard.unwrap_or(&host)) {
            Some((
                "bad-host",
                format!("`{}` is not a host name", excerpt(written)),
                Some("write a DNS name without port, or `*.` and a DNS name".to_owned()),
            ))
        } else if hosts.contains(&host) {
            let message = format!("the host `{host}` stands twice");
            Some(("duplicate-host", message, None))
        } else if wildcard.is_some() && resolution == Resolution::Dns && !has_endpoints {
            let message = format!("`{host}` cannot be looked up, and there are no `endpoints`");
            let help = Some("name the hosts, or write `resolution: DYNAMIC_DNS`".to_owned());
            Some(("bad-combination", message, help))
        } else if wildcard.is_none() && resolution == Resolution::DynamicDns {
            let message = "`resolution: DYNAMIC_DNS` is for wildcard hosts".to_owned();
            Some(("bad-combination", message, None))
        } else {
            None
        };
        match fault {
            Some((code, message, help)) => {
                reader.problems.error_with_help(at, code, message, help);
            }
            None => hosts.push(host),
        }
    }
    hosts
}

fn read_ports(node: &Node, plan: &mut Plan, reader: &mut Reader<'_, '_>) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for item in list(node, "ports", limits::VALUES_MAX, reader.problems) {
        let known = shape::SERVICE_PORT.names();
        let Some(fields) = Fields::of(item, "a port", &known, reader.problems) else {
            continue;
        };
        let number = fields.required("number", reader.problems);
        let number = number.and_then(|node| port(node, "number", reader.problems));
        let name = fields.required_text("name", reader.problems);
        let protocol = read_protocol(&fields, plan, reader);
        let target_port = fields
            .node("targetPort")
            .and_then(|node| port(node, "targetPort", reader.problems));
        let (Some(number), Some(name), Some(protocol)) = (number, name, protocol) else {
            continue;
        };
        if ports
            .iter()
            .any(|known| known.number == number || known.name == name)
        {
            reader.problems.error(
                item.at,
                "duplicate-port",
                format!("the port {number} (`{}`) stands twice", excerpt(name)),
            );
        }
        ports.push(ServicePort {
            number,
            name: name.to_owned(),
            protocol,
            target_port,
        });
    }
    ports
}

fn read_protocol(
    fields: &Fields<'_>,
    plan: &mut Plan,
    reader: &mut Reader<'_, '_>,
) -> Option<ServiceProtocol> {
    let node = fields.required("protocol", reader.problems)?;
    let written = text(node, "protocol", reader.problems)?;
    let upper = written.to_ascii_uppercase();
    if upper == "UDP" {
        plan.hinder("it speaks UDP");
    }
    let found = PROTOCOLS.iter().find(|(word, _, _)| *word == upper);
    if found.is_none() {
        let known = PROTOCOLS.map(|(word, _, _)| word);
        let help =
            near_miss(&upper, known).or_else(|| Some(format!("it is one of {}", known.join(", "))));
        let message = format!("`{}` is not a value of `protocol`", excerpt(written));
        reader
            .problems
            .error_with_help(node.at, "bad-value", message, help);
    }
    found.map(|(_, _, protocol)| *protocol)
}

/// The workloads that are selected, or the endpoints that are listed.
fn read_places(
    fields: &Fields<'_>,
    plan: &mut Plan,
    reader: &mut Reader<'_, '_>,
) -> (Option<Labels>, Vec<Endpoint>) {
    let selector = fields.node("workloadSelector").and_then(|node| {
        let selector = Fields::of(
            node,
            "`workloadSelector`",
            &shape::WORKLOAD_SELECTOR.names(),
            reader.problems,
        )?;
        selector.required("labels", reader.problems)?;
        Some(selector.labels("labels", reader.problems))
    });
    let listed = fields.node("endpoints");
    let fault = match (&selector, listed, plan.resolution) {
        (Some(_), Some(_), _) => Some((
            "bad-combination",
            "`workloadSelector` cannot stand beside `endpoints`",
        )),
        (None, None, Resolution::Static) => Some((
            "missing-field",
            "a service of resolution STATIC has `endpoints` or a `workloadSelector`",
        )),
        (None, Some(_), Resolution::None) => Some((
            "bad-combination",
            "`endpoints` mean nothing with resolution NONE, which is the default",
        )),
        _ => None,
    };
    if let Some((code, message)) = fault {
        let name = match listed {
            Some(_) => "endpoints",
            None => "workloadSelector",
        };
        reader.problems.error(fields.key_at(name), code, message);
    }
    let items = listed.map(|node| list(node, "endpoints", limits::VALUES_MAX, reader.problems));
    let endpoints = items
        .unwrap_or_default()
        .iter()
        .filter_map(|item| read_endpoint(item, plan, reader));
    (selector, endpoints.collect())
}

fn read_endpoint(node: &Node, plan: &mut Plan, reader: &mut Reader<'_, '_>) -> Option<Endpoint> {
    let fields = Fields::of(
        node,
        "an endpoint",
        &shape::ENDPOINT.names(),
        reader.problems,
    )?;
    let written = fields.required_text("address", reader.problems);
    let at = fields.node("address").map_or(fields.at, |node| node.at);
    let address = written.and_then(|written| read_address(written, at, plan, reader));
    let weight = fields
        .node("weight")
        .and_then(|node| integer(node, "weight", 0, 1_000_000, reader.problems));
    let endpoint = Endpoint {
        address: IpAddr::from([0, 0, 0, 0]),
        ports: read_endpoint_ports(&fields, reader),
        labels: fields.labels("labels", reader.problems),
        network: fields
            .text("network", reader.problems)
            .unwrap_or_default()
            .to_owned(),
        locality: fields
            .text("locality", reader.problems)
            .unwrap_or_default()
            .to_owned(),
        weight: weight.unwrap_or(0),
        service_account: fields
            .text("serviceAccount", reader.problems)
            .unwrap_or_default()
            .to_owned(),
    };
    address.map(|address| Endpoint {
        address,
        ..endpoint
    })
}

/// An IP address, a path `unix://..`, or a DNS name where names are looked up. Only the first can be dialled.
fn read_address(
    written: &str,
    at: Span,
    plan: &mut Plan,
    reader: &mut Reader<'_, '_>,
) -> Option<IpAddr> {
    if let Some(path) = written.strip_prefix("unix://") {
        if !path.starts_with(['/', '@']) {
            let message = format!("`{}` is not an absolute path", excerpt(written));
            reader.problems.error(at, "bad-address", message);
        }
        plan.hinder("an endpoint is a Unix socket");
        return None;
    }
    let parsed = written.parse().ok();
    let is_name =
        plan.resolution != Resolution::Static && is_dns_name(&written.to_ascii_lowercase());
    if parsed.is_none() && is_name {
        plan.hinder("an endpoint is a name");
    } else if parsed.is_none() {
        let help =
            Some("with resolution STATIC an endpoint has an IP address, without port".to_owned());
        let message = format!("`{}` is not an IP address", excerpt(written));
        reader
            .problems
            .error_with_help(at, "bad-address", message, help);
    }
    parsed
}

fn read_endpoint_ports(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> BTreeMap<String, u16> {
    let mut ports = BTreeMap::new();
    match fields.node("ports") {
        None => {}
        Some(Node {
            value: Value::Map(members),
            ..
        }) => {
            for member in members {
                ports.extend(
                    port(&member.value, &member.key, reader.problems)
                        .map(|number| (member.key.clone(), number)),
                );
            }
        }
        Some(node) => reader.problems.error(
            node.at,
            "wrong-type",
            "`ports` of an endpoint maps the names of ports to numbers",
        ),
    }
    ports
}

fn check_port_names(
    ports: &[ServicePort],
    endpoints: &[Endpoint],
    at: Span,
    reader: &mut Reader<'_, '_>,
) {
    for name in endpoints.iter().flat_map(|endpoint| endpoint.ports.keys()) {
        if !ports.iter().any(|port| port.name == *name) {
            let help =
                crate::diagnostic::near_miss(name, ports.iter().map(|port| port.name.as_str()));
            reader.problems.error_with_help(
                at,
                "unknown-port",
                format!(
                    "an endpoint names the port `{}`, which the service does not have",
                    excerpt(name)
                ),
                help,
            );
        }
    }
}

// Without SPIFFE IDs any workload of the mesh could pass as this service.
fn read_peers(fields: &Fields<'_>, plan: &mut Plan, reader: &mut Reader<'_, '_>) -> Vec<SpiffeId> {
    let mut peers = Vec::new();
    for (written, at) in fields.texts("subjectAltNames", reader.problems) {
        if !written.starts_with(['/']) && !written.starts_with("spiffe://") {
            plan.hinder("`subjectAltNames` has names that are no SPIFFE IDs");
        } else if let Some(id) = reader.spiffe_id(written, at) {
            reader.check_known(&id, at);
            peers.push(id);
        }
    }
    if fields.member("subjectAltNames").is_none() {
        plan.hinder("it has no `subjectAltNames`");
    }
    peers
}

/// Reads one WorkloadEntry. `None` as well for one that cannot be dialled, which a warning says.
pub(crate) fn read_workload_entry(
    header: &Header,
    spec: &Node,
    reader: &mut Reader<'_, '_>,
) -> Option<WorkloadEntry> {
    let mut plan = Plan {
        resolution: Resolution::None,
        obstacles: Vec::new(),
    };
    let endpoint = read_endpoint(spec, &mut plan, reader);
    if !plan.obstacles.is_empty() {
        let message = format!(
            "no proxy dials this workload: {}",
            plan.obstacles.join("; ")
        );
        let help = Some("give it an IP address".to_owned());
        reader
            .problems
            .warning(header.name_at, "not-routed", message, help);
    }
    let mut endpoint = endpoint?;
    let labels: Labels = header.metadata.labels.clone();
    for (key, value) in labels {
        endpoint.labels.entry(key).or_insert(value);
    }
    Some(WorkloadEntry {
        metadata: header.metadata.clone(),
        location: reader.location(header.at),
        endpoint,
    })
}
