//! Reads `ServiceEntry` and `WorkloadEntry`, as far as static endpoints inside of the mesh go.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ravelin_proto::entry::is_dns_name;
use ravelin_proto::spiffe_id::SpiffeId;

use super::{Header, Reader};
use crate::diagnostic::{Span, excerpt};
use crate::document::{Node, Value};
use crate::fields::{Fields, integer, list, port};
use crate::limits;
use crate::object::Labels;
use crate::schema::{Endpoint, ServiceEntry, ServicePort, ServiceProtocol, WorkloadEntry};

const PROTOCOLS: [(&str, ServiceProtocol); 4] = [
    ("HTTP", ServiceProtocol::Http),
    ("HTTP2", ServiceProtocol::Http2),
    ("GRPC", ServiceProtocol::Grpc),
    ("TCP", ServiceProtocol::Tcp),
];

/// Known values of ServiceEntry and WorkloadEntry fields that are not acted on.
const PROTOCOLS_NOT_SUPPORTED: [&str; 4] = ["HTTPS", "TLS", "MONGO", "UDP"];

/// Reads one service.
pub(crate) fn read_service(
    header: &Header,
    spec: &Node,
    reader: &mut Reader<'_, '_>,
) -> Option<ServiceEntry> {
    let known = [
        "hosts",
        "addresses",
        "ports",
        "location",
        "resolution",
        "endpoints",
        "workloadSelector",
        "exportTo",
        "subjectAltNames",
    ];
    let fields = Fields::of(spec, "ServiceEntry", &known, reader.problems)?;
    fields.refuse(&["addresses"], reader.problems);
    check_fixed(
        &fields,
        "location",
        "MESH_INTERNAL",
        &["MESH_EXTERNAL"],
        reader,
    );
    check_fixed(
        &fields,
        "resolution",
        "STATIC",
        &["NONE", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"],
        reader,
    );
    for (scope, at) in fields.texts("exportTo", reader.problems) {
        if scope != "*" {
            reader
                .problems
                .not_supported(at, "`exportTo` other than `*`");
        }
    }
    fields.required("hosts", reader.problems);
    let hosts = read_hosts(&fields, reader);
    let ports = match fields.required("ports", reader.problems) {
        Some(node) => read_ports(node, reader),
        None => Vec::new(),
    };
    let (workload_selector, endpoints) = read_places(&fields, reader);
    check_port_names(&ports, &endpoints, fields.key_at("endpoints"), reader);
    let subject_alt_names = read_peers(&fields, reader);
    Some(ServiceEntry {
        metadata: header.metadata.clone(),
        location: reader.location(header.at),
        hosts,
        ports,
        endpoints,
        workload_selector,
        subject_alt_names,
    })
}

/// The workloads that are selected, or the endpoints that are listed.
fn read_places(
    fields: &Fields<'_>,
    reader: &mut Reader<'_, '_>,
) -> (Option<Labels>, Vec<Endpoint>) {
    let selector = fields.node("workloadSelector").and_then(|node| {
        let selector = Fields::of(node, "`workloadSelector`", &["labels"], reader.problems)?;
        selector.required("labels", reader.problems)?;
        Some(selector.labels("labels", reader.problems))
    });
    let listed = fields.node("endpoints");
    let fault = match (&selector, listed) {
        (Some(_), Some(_)) => Some((
            "bad-combination",
            "`workloadSelector` cannot stand beside `endpoints`",
        )),
        (None, None) => Some((
            "missing-field",
            "a service has `endpoints` or a `workloadSelector`",
        )),
        (Some(_), None) | (None, Some(_)) => None,
    };
    if let Some((code, message)) = fault {
        reader
            .problems
            .error(fields.key_at("workloadSelector"), code, message);
    }
    let items = listed.map(|node| list(node, "endpoints", limits::VALUES_MAX, reader.problems));
    let endpoints = items
        .unwrap_or_default()
        .iter()
        .filter_map(|item| read_endpoint(item, reader));
    (selector, endpoints.collect())
}

/// A field whose other values are known and refused by name.
fn check_fixed(
    fields: &Fields<'_>,
    name: &str,
    supported: &str,
    refused: &[&str],
    reader: &mut Reader<'_, '_>,
) {
    let words: Vec<(&str, bool)> = refused
        .iter()
        .map(|word| (*word, false))
        .chain([(supported, true)])
        .collect();
    let at = fields.node(name).map_or(fields.at, |node| node.at);
    if fields.word(name, &words, reader.problems) == Some(false) {
        reader
            .problems
            .not_supported(at, &format!("`{name}` other than {supported}"));
    } else if fields.member(name).is_none() && name == "resolution" {
        // The default of the standard is NONE.
        let help = Some(format!("write `{name}: {supported}`"));
        reader.problems.error_with_help(
            at,
            "missing-field",
            format!("ServiceEntry has no `{name}`"),
            help,
        );
    }
}

fn read_hosts(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Vec<String> {
    let mut hosts = Vec::new();
    for (written, at) in fields.texts("hosts", reader.problems) {
        let host = written.to_ascii_lowercase();
        if host.starts_with("*.") || host == "*" {
            reader.problems.not_supported(at, "a wildcard in `hosts`");
        } else if !is_dns_name(&host) {
            let help = Some("write a DNS name without port".to_owned());
            reader.problems.error_with_help(
                at,
                "bad-host",
                format!("`{}` is not a host name", excerpt(written)),
                help,
            );
        } else if hosts.contains(&host) {
            reader.problems.error(
                at,
                "duplicate-host",
                format!("the host `{host}` stands twice"),
            );
        } else {
            hosts.push(host);
        }
    }
    hosts
}

fn read_ports(node: &Node, reader: &mut Reader<'_, '_>) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for item in list(node, "ports", limits::VALUES_MAX, reader.problems) {
        let known = ["number", "protocol", "name", "targetPort"];
        let Some(fields) = Fields::of(item, "a port", &known, reader.problems) else {
            continue;
        };
        let number = fields.required("number", reader.problems);
        let number = number.and_then(|node| port(node, "number", reader.problems));
        let name = fields.required_text("name", reader.problems);
        let protocol = read_protocol(&fields, reader);
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

fn read_protocol(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Option<ServiceProtocol> {
    fields.required("protocol", reader.problems)?;
    let written = fields.text("protocol", reader.problems)?;
    if PROTOCOLS_NOT_SUPPORTED.contains(&written) {
        let at = fields.node("protocol").map_or(fields.at, |node| node.at);
        reader
            .problems
            .not_supported(at, &format!("the protocol {written}"));
        return None;
    }
    fields.word("protocol", &PROTOCOLS, reader.problems)
}

const ENDPOINT_FIELDS: [&str; 7] = [
    "address",
    "ports",
    "labels",
    "network",
    "locality",
    "weight",
    "serviceAccount",
];

fn read_endpoint(node: &Node, reader: &mut Reader<'_, '_>) -> Option<Endpoint> {
    let fields = Fields::of(node, "an endpoint", &ENDPOINT_FIELDS, reader.problems)?;
    let written = fields.required_text("address", reader.problems);
    let at = fields.node("address").map_or(fields.at, |node| node.at);
    let address = written.and_then(|written| read_address(written, at, reader));
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

fn read_address(written: &str, at: Span, reader: &mut Reader<'_, '_>) -> Option<IpAddr> {
    if written.starts_with("unix://") {
        reader
            .problems
            .not_supported(at, "an endpoint on a Unix socket");
        return None;
    }
    let parsed = written.parse().ok();
    if parsed.is_none() {
        let help =
            Some("with resolution STATIC an endpoint has an IP address, without port".to_owned());
        reader.problems.error_with_help(
            at,
            "bad-address",
            format!("`{}` is not an IP address", excerpt(written)),
            help,
        );
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

// Without them any workload of the mesh could pass as this service.
fn read_peers(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Vec<SpiffeId> {
    let mut peers = Vec::new();
    if fields.member("subjectAltNames").is_none() {
        let help = Some("name the SPIFFE IDs that may serve it".to_owned());
        reader.problems.error_with_help(
            fields.at,
            "missing-field",
            "ServiceEntry has no `subjectAltNames`",
            help,
        );
    }
    for (written, at) in fields.texts("subjectAltNames", reader.problems) {
        if let Some(id) = reader.spiffe_id(written, at) {
            reader.check_known(&id, at);
            peers.push(id);
        }
    }
    peers
}

/// Reads one WorkloadEntry.
pub(crate) fn read_workload_entry(
    header: &Header,
    spec: &Node,
    reader: &mut Reader<'_, '_>,
) -> Option<WorkloadEntry> {
    let mut endpoint = read_endpoint(spec, reader)?;
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
