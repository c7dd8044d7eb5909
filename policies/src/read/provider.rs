//! `extensionProviders` of the MeshConfig: external authorizers, in the shape of Istio's mesh config (rule 62).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ravelin_proto::entry::is_dns_name;

use super::Reader;
use super::header::is_label;
use crate::diagnostic::{Problems, Span, excerpt, near_miss};
use crate::document::{Node, Value};
use crate::fields::{Fields, integer, list, port};
use crate::limits;
use crate::matcher::StringMatch;
use crate::schema::{CheckProtocol, CheckedBody, ExtensionProvider, HeaderPattern, ServiceEntry};
use crate::shape;

const GRPC: &str = "envoyExtAuthzGrpc";
const HTTP: &str = "envoyExtAuthzHttp";

/// Providers of Istio that are not authorizers.
const OTHERS: [&str; 14] = [
    "zipkin",
    "lightstep",
    "datadog",
    "stackdriver",
    "opencensus",
    "skywalking",
    "opentelemetry",
    "prometheus",
    "envoyFileAccessLog",
    "envoyHttpAls",
    "envoyTcpAls",
    "envoyOtelAls",
    "sds",
    "envoyRateLimit",
];

/// Reads all of them; names are unique.
pub(super) fn read_providers(
    node: &Node,
    reader: &mut Reader<'_, '_>,
) -> Vec<Arc<ExtensionProvider>> {
    let mut providers: Vec<Arc<ExtensionProvider>> = Vec::new();
    for item in list(
        node,
        "extensionProviders",
        limits::PROVIDERS_MAX,
        reader.problems,
    ) {
        let Some(provider) = read_provider(item, reader) else {
            continue;
        };
        if providers.iter().any(|known| known.name == provider.name) {
            let message = format!("the provider `{}` stands twice", provider.name);
            reader
                .problems
                .error(item.at, "duplicate-provider", message);
            continue;
        }
        providers.push(Arc::new(provider));
    }
    providers
}

fn read_provider(node: &Node, reader: &mut Reader<'_, '_>) -> Option<ExtensionProvider> {
    let mut known = shape::PROVIDER.names();
    known.extend(OTHERS);
    let fields = Fields::of(node, "an extension provider", &known, reader.problems)?;
    fields.refuse(&OTHERS, reader.problems);
    let name = fields.required_text("name", reader.problems);
    if let Some(name) = name.filter(|name| !is_label(name)) {
        let message = format!("`{}` is not the name of a provider", excerpt(name));
        let help = Some("1 to 63 of `a-z`, `0-9` and `-`; policies name it so".to_owned());
        let at = fields.node("name").map_or(fields.at, |node| node.at);
        reader
            .problems
            .error_with_help(at, "bad-name", message, help);
    }
    let provider = match (fields.node(GRPC), fields.node(HTTP)) {
        (Some(node), None) => {
            let what = format!("`{GRPC}`");
            let body = Fields::of(node, &what, &shape::GRPC_PROVIDER.names(), reader.problems)?;
            read_shared(node.at, &body, CheckProtocol::Grpc, reader)?
        }
        (None, Some(node)) => {
            let what = format!("`{HTTP}`");
            let body = Fields::of(node, &what, &shape::HTTP_PROVIDER.names(), reader.problems)?;
            let protocol = read_http(&body, reader);
            read_shared(node.at, &body, protocol, reader)?
        }
        (both, _) => {
            let code = match both {
                Some(_) => "bad-combination",
                None => "missing-field",
            };
            if !OTHERS.iter().any(|other| fields.member(other).is_some()) {
                let message = format!("a provider has one of `{GRPC}` and `{HTTP}`");
                reader.problems.error(fields.at, code, message);
            }
            return None;
        }
    };
    Some(ExtensionProvider {
        name: name?.to_owned(),
        ..provider
    })
}

/// What both protocols have.
fn read_shared(
    at: Span,
    fields: &Fields<'_>,
    protocol: CheckProtocol,
    reader: &mut Reader<'_, '_>,
) -> Option<ExtensionProvider> {
    let service = read_service(fields, reader);
    let number = fields.required("port", reader.problems);
    let number = number.and_then(|node| port(node, "port", reader.problems));
    let timeout = fields.duration("timeout", limits::CHECK_TIMEOUT_MAX, reader.problems);
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        let at = fields.key_at("timeout");
        let message = "`timeout` is zero: no answer could ever come in time";
        reader.problems.error(at, "bad-duration", message);
    }
    // A call is routed once, before it is judged; an answer cannot send it elsewhere.
    if fields.boolean("clearRouteCache", reader.problems) == Some(true) {
        fields.refuse(&["clearRouteCache"], reader.problems);
    }
    let status = fields
        .node("statusOnError")
        .and_then(|node| integer(node, "statusOnError", 400, 599, reader.problems));
    let body = fields
        .node("includeRequestBodyInCheck")
        .and_then(|node| read_body(node, reader));
    Some(ExtensionProvider {
        name: String::new(),
        location: reader.location(at),
        service: service?,
        port: number?,
        timeout: timeout.unwrap_or(limits::CHECK_TIMEOUT_DEFAULT),
        is_fail_open: fields.boolean("failOpen", reader.problems).unwrap_or(false),
        status_on_error: status
            .and_then(|status| u16::try_from(status).ok())
            .unwrap_or(403),
        body,
        protocol,
    })
}

/// `[NAMESPACE/]HOST`, or an address.
fn read_service(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Option<String> {
    let written = fields.required_text("service", reader.problems)?;
    let host = host_of(written);
    if host.parse::<IpAddr>().is_ok() || is_dns_name(&host) {
        return Some(host);
    }
    let at = fields.node("service").map_or(fields.at, |node| node.at);
    let help = Some(
        "write the host of a ServiceEntry, or an IP address; the port stands in `port`".to_owned(),
    );
    let message = format!("`{}` is not a service", excerpt(written));
    reader
        .problems
        .error_with_help(at, "bad-host", message, help);
    None
}

fn host_of(written: &str) -> String {
    let host = match written.split_once('/') {
        Some((namespace, host)) if is_label(namespace) => host,
        _ => written,
    };
    host.to_ascii_lowercase()
}

fn read_body(node: &Node, reader: &mut Reader<'_, '_>) -> Option<CheckedBody> {
    let known = shape::CHECKED_BODY.names();
    let what = "`includeRequestBodyInCheck`";
    let fields = Fields::of(node, what, &known, reader.problems)?;
    let max = fields.required("maxRequestBytes", reader.problems);
    let max = max.and_then(|node| {
        let limit = limits::CHECKED_BODY_BYTES_MAX;
        integer(node, "maxRequestBytes", 1, limit, reader.problems)
    });
    let mut flag = |name: &str| fields.boolean(name, reader.problems).unwrap_or(false);
    let (allows_partial, is_packed_as_bytes) = (flag("allowPartialMessage"), flag("packAsBytes"));
    Some(CheckedBody {
        max_request_bytes: max?,
        allows_partial,
        is_packed_as_bytes,
    })
}

fn read_http(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> CheckProtocol {
    let path_prefix = fields
        .text("pathPrefix", reader.problems)
        .unwrap_or_default();
    if !path_prefix.is_empty()
        && (!path_prefix.starts_with('/')
            || !path_prefix.bytes().all(|byte| byte.is_ascii_graphic())
            || path_prefix.contains(['?', '#']))
    {
        let at = fields.node("pathPrefix").map_or(fields.at, |node| node.at);
        let message = format!("`{}` is not the beginning of a path", excerpt(path_prefix));
        reader.problems.error(at, "bad-value", message);
    }
    let mut request_headers = read_headers(fields, "includeRequestHeadersInCheck", reader);
    // The older name of the same.
    request_headers.extend(read_headers(fields, "includeHeadersInCheck", reader));
    CheckProtocol::Http {
        path_prefix: path_prefix.to_owned(),
        request_headers,
        additional_headers: read_additional(fields, reader),
        upstream_headers_on_allow: read_headers(fields, "headersToUpstreamOnAllow", reader),
        downstream_headers_on_allow: read_headers(fields, "headersToDownstreamOnAllow", reader),
        downstream_headers_on_deny: read_headers(fields, "headersToDownstreamOnDeny", reader),
    }
}

// Rule 62: `*` alone would send or replace every header.
fn read_headers(
    fields: &Fields<'_>,
    name: &str,
    reader: &mut Reader<'_, '_>,
) -> Vec<HeaderPattern> {
    let mut patterns = Vec::new();
    for (written, at) in fields.texts(name, reader.problems) {
        let lower = written.to_ascii_lowercase();
        let found = StringMatch::parse(&lower);
        let is_fine = match &found {
            StringMatch::Exact(text) | StringMatch::Prefix(text) | StringMatch::Suffix(text) => {
                is_header_name(text)
            }
            StringMatch::Present => false,
        };
        if is_fine {
            patterns.push(HeaderPattern(found));
        } else {
            let message = format!("`{}` does not name headers", excerpt(written));
            let help =
                Some("write `name`, `prefix*` or `*suffix`; `*` alone is not allowed".to_owned());
            reader
                .problems
                .error_with_help(at, "bad-header", message, help);
        }
    }
    patterns
}

fn is_header_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte))
}

fn read_additional(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Vec<(String, String)> {
    const NAME: &str = "includeAdditionalHeadersInCheck";
    let at = fields.key_at(NAME);
    let mut headers = BTreeMap::new();
    for (name, value) in fields.labels(NAME, reader.problems) {
        let is_value = value
            .bytes()
            .all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !is_header_name(&name) || !is_value {
            let message = format!("`{}` of `{NAME}` is not a header", excerpt(&name));
            reader.problems.error(at, "bad-header", message);
        } else if headers.insert(name.to_ascii_lowercase(), value).is_some() {
            let message = format!("the header `{}` stands twice", excerpt(&name));
            reader.problems.error(at, "duplicate-header", message);
        }
    }
    headers.into_iter().collect()
}

/// Reports providers whose service no ServiceEntry has: they could not be asked.
pub(crate) fn check_provider_services(
    spec: &Node,
    services: &[ServiceEntry],
    problems: &mut Problems<'_>,
) {
    let Some(Value::List(items)) = child(spec, "extensionProviders").map(|node| &node.value) else {
        return;
    };
    for item in items {
        let Some(body) = child(item, GRPC).or_else(|| child(item, HTTP)) else {
            continue;
        };
        let (Some(service), Some(number)) = (child(body, "service"), child(body, "port")) else {
            continue;
        };
        let (Some(written), Some(number)) = (scalar(service), scalar(number)) else {
            continue;
        };
        let host = host_of(written);
        if host.parse::<IpAddr>().is_err() {
            check_service(&host, number, service.at, services, problems);
        }
    }
}

fn check_service(
    host: &str,
    number: &str,
    at: Span,
    services: &[ServiceEntry],
    problems: &mut Problems<'_>,
) {
    let of_host = |service: &&ServiceEntry| service.hosts.iter().any(|known| known == host);
    let Some(service) = services.iter().find(of_host) else {
        let hosts = services.iter().flat_map(|service| &service.hosts);
        let help = near_miss(host, hosts.map(String::as_str))
            .or_else(|| Some("add a ServiceEntry for it, or give an IP address".to_owned()));
        let message = format!("no ServiceEntry has the host `{}`", excerpt(host));
        problems.error_with_help(at, "unknown-service", message, help);
        return;
    };
    let mut routed = services
        .iter()
        .filter(|service| service.is_routed && of_host(service))
        .peekable();
    if routed.peek().is_none() {
        let message = format!("no proxy can reach the service `{}`", excerpt(host));
        let help = Some(format!("the warning at {} says why", service.location));
        problems.error_with_help(at, "not-routed", message, help);
        return;
    }
    let has_port = routed
        .flat_map(|service| &service.ports)
        .any(|port| number.parse() == Ok(port.number));
    if !has_port {
        let known: Vec<String> = service
            .ports
            .iter()
            .map(|port| port.number.to_string())
            .collect();
        let message = format!(
            "the service `{}` has no port {}",
            excerpt(host),
            excerpt(number)
        );
        let help = Some(format!("its ports are {}", known.join(", ")));
        problems.error_with_help(at, "unknown-port", message, help);
    }
}

fn child<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Map(members) => members
            .iter()
            .find(|member| member.key == name)
            .map(|member| &member.value),
        Value::Scalar { .. } | Value::List(_) => None,
    }
}

fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, .. } => Some(text),
        Value::List(_) | Value::Map(_) => None,
    }
}
