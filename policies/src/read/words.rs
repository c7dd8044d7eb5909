//! The words that fields take, each with its meaning: shared by the readers and the shapes for editors.

use crate::schema::{Effect, Expectation, LaunchProtocol, PeerMode, ServiceProtocol};

/// The words of a table.
pub(crate) fn names<T>(table: &[(&'static str, T)]) -> Vec<&'static str> {
    table.iter().map(|(word, _)| *word).collect()
}

/// The words of a table, and each in lower case where a file may have it so.
pub(crate) fn names_in_any_case(
    table: &[(&'static str, &'static str, ServiceProtocol)],
) -> Vec<&'static str> {
    table
        .iter()
        .flat_map(|(word, lower, _)| [*word, *lower])
        .collect()
}

/// `action`.
pub(crate) const EFFECTS: [(&str, Effect); 4] = [
    ("ALLOW", Effect::Allow),
    ("DENY", Effect::Deny),
    ("AUDIT", Effect::Audit),
    ("CUSTOM", Effect::Custom),
];

/// `mode` of `mtls`.
pub(crate) const PEER_MODES: [(&str, Option<PeerMode>); 4] = [
    ("UNSET", None),
    ("STRICT", Some(PeerMode::Strict)),
    ("PERMISSIVE", Some(PeerMode::Permissive)),
    ("DISABLE", Some(PeerMode::Disable)),
];

/// `kind` of a target, with its API groups; the last may stand in the root namespace alone (rule 67).
pub(crate) const TARGETS: [(&str, &[&str]); 4] = [
    ("Gateway", &["gateway.networking.k8s.io"]),
    ("Service", &["", "core"]),
    ("ServiceEntry", &["networking.istio.io"]),
    ("GatewayClass", &["gateway.networking.k8s.io"]),
];

/// `expect`.
pub(crate) const EXPECTATIONS: [(&str, Expectation); 3] = [
    ("allow", Expectation::Allow),
    ("deny", Expectation::Deny),
    ("refuse", Expectation::Refuse),
];

/// `shadow`: what dry-run policies can make of a call; a path is refused before them.
pub(crate) const SHADOWS: [(&str, Expectation); 2] =
    [("allow", Expectation::Allow), ("deny", Expectation::Deny)];

/// `protocol` of a case: is it bare TCP?
pub(crate) const CASE_PROTOCOLS: [(&str, bool); 2] = [("http", false), ("tcp", true)];

/// `protocol` of `launch`.
pub(crate) const LAUNCH_PROTOCOLS: [(&str, LaunchProtocol); 2] =
    [("http", LaunchProtocol::Http), ("tcp", LaunchProtocol::Tcp)];

/// `hostMatching`: is it exact?
pub(crate) const HOST_MATCHING: [(&str, bool); 2] =
    [("WITH_AND_WITHOUT_PORT", false), ("EXACT", true)];

/// `unlistedCalls`: are they allowed?
pub(crate) const UNLISTED: [(&str, bool); 2] = [("deny", false), ("allow", true)];

/// `location`: is it outside?
pub(crate) const LOCATIONS: [(&str, bool); 2] = [("MESH_INTERNAL", false), ("MESH_EXTERNAL", true)];

/// How the addresses of a service are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// Wherever the caller sent it: the default of the standard.
    None,
    /// Listed.
    Static,
    /// By name, every address.
    Dns,
    /// By name, one address.
    DnsRoundRobin,
    /// By the name that the caller used.
    DynamicDns,
}

/// `resolution`.
pub(crate) const RESOLUTIONS: [(&str, Resolution); 5] = [
    ("NONE", Resolution::None),
    ("STATIC", Resolution::Static),
    ("DNS", Resolution::Dns),
    ("DNS_ROUND_ROBIN", Resolution::DnsRoundRobin),
    ("DYNAMIC_DNS", Resolution::DynamicDns),
];

/// `protocol` of a port, in upper and lower case; the reader takes any case.
pub(crate) const PROTOCOLS: [(&str, &str, ServiceProtocol); 11] = [
    ("HTTP", "http", ServiceProtocol::Http),
    ("HTTP2", "http2", ServiceProtocol::Http2),
    ("GRPC", "grpc", ServiceProtocol::Grpc),
    ("GRPC-WEB", "grpc-web", ServiceProtocol::Http),
    ("HTTPS", "https", ServiceProtocol::Tls),
    ("TLS", "tls", ServiceProtocol::Tls),
    ("TCP", "tcp", ServiceProtocol::Tcp),
    ("MONGO", "mongo", ServiceProtocol::Tcp),
    ("MYSQL", "mysql", ServiceProtocol::Tcp),
    ("REDIS", "redis", ServiceProtocol::Tcp),
    ("UDP", "udp", ServiceProtocol::Tcp),
];
