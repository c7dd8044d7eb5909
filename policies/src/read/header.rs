//! `apiVersion`, `kind` and `metadata`: what every object begins with.

use std::collections::BTreeMap;

use super::annotations::check_annotation_names;
use crate::diagnostic::{Problems, Span, excerpt, near_miss};
use crate::document::{Node, Value};
use crate::fields::Fields;
use crate::limits;
use crate::object::{Labels, Metadata};

/// The kinds that are acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    MeshConfig,
    WorkloadIdentity,
    WorkloadEntry,
    AuthorizationPolicy,
    RequestAuthentication,
    PeerAuthentication,
    ServiceEntry,
    PolicyTest,
}

const OURS: &[&str] = &["ravelin.dev/v1"];
const SECURITY: &[&str] = &["security.istio.io/v1", "security.istio.io/v1beta1"];
const NETWORKING: &[&str] = &[
    "networking.istio.io/v1",
    "networking.istio.io/v1beta1",
    "networking.istio.io/v1alpha3",
];

const KINDS: [(Kind, &str, &[&str]); 8] = [
    (Kind::MeshConfig, "MeshConfig", OURS),
    (Kind::WorkloadIdentity, "WorkloadIdentity", OURS),
    (Kind::WorkloadEntry, "WorkloadEntry", NETWORKING),
    (Kind::AuthorizationPolicy, "AuthorizationPolicy", SECURITY),
    (
        Kind::RequestAuthentication,
        "RequestAuthentication",
        SECURITY,
    ),
    (Kind::PeerAuthentication, "PeerAuthentication", SECURITY),
    (Kind::ServiceEntry, "ServiceEntry", NETWORKING),
    (Kind::PolicyTest, "PolicyTest", OURS),
];

const KNOWN_BUT_NOT_SUPPORTED: [&str; 20] = [
    "VirtualService",
    "DestinationRule",
    "Gateway",
    "GatewayClass",
    "Sidecar",
    "Telemetry",
    "ProxyConfig",
    "WorkloadGroup",
    "EnvoyFilter",
    "WasmPlugin",
    "TrafficExtension",
    "HTTPRoute",
    "GRPCRoute",
    "TLSRoute",
    "TCPRoute",
    "UDPRoute",
    "ReferenceGrant",
    "BackendTLSPolicy",
    "BackendTrafficPolicy",
    "ListenerSet",
];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(kind, _, _)| *kind == self)
            .map_or("", |(_, name, _)| name)
    }
}

/// What every object begins with.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) metadata: Metadata,
    /// The object, and its name.
    pub(crate) at: Span,
    pub(crate) name_at: Span,
    /// Where the name and the value of each annotation stand.
    pub(crate) annotations_at: BTreeMap<String, (Span, Span)>,
}

impl Header {
    /// Where the value of an annotation stands.
    pub(crate) fn annotation_at(&self, name: &str) -> Span {
        self.annotations_at
            .get(name)
            .map_or(self.name_at, |(_, value)| *value)
    }
}

/// Reads what every object begins with. `None` when the kind is not known, or a name is missing.
pub(crate) fn read_header(node: &Node, path: &str, problems: &mut Problems<'_>) -> Option<Header> {
    let fields = Fields::of(
        node,
        "an object",
        &["apiVersion", "kind", "metadata", "spec"],
        problems,
    )?;
    let kind = read_kind(&fields, problems);
    let version = fields.required_text("apiVersion", problems);
    let kind = kind?;
    let versions = KINDS
        .iter()
        .find(|(known, _, _)| *known == kind)
        .map_or(OURS, |(_, _, versions)| versions);
    if let Some(version) = version
        && !versions.contains(&version)
    {
        let at = fields.node("apiVersion").map_or(fields.at, |node| node.at);
        let help = Some(format!(
            "the apiVersion of {} is {}",
            kind.name(),
            versions.join(" or ")
        ));
        problems.error_with_help(
            at,
            "bad-api-version",
            format!(
                "`{}` is not an apiVersion of {}",
                excerpt(version),
                kind.name()
            ),
            help,
        );
    }
    let name_at = fields.key_at("kind");
    if kind == Kind::MeshConfig && fields.member("metadata").is_none() {
        let metadata = Metadata {
            name: "mesh".into(),
            namespace: "default".into(),
            labels: Labels::new(),
            annotations: Labels::new(),
        };
        return Some(Header {
            kind,
            metadata,
            at: node.at,
            name_at,
            annotations_at: BTreeMap::new(),
        });
    }
    let metadata_node = fields.required("metadata", problems)?;
    let (metadata, name_at) = read_metadata(metadata_node, path, problems)?;
    let header = Header {
        kind,
        metadata,
        at: node.at,
        name_at,
        annotations_at: annotations_at(metadata_node),
    };
    check_annotation_names(&header, problems);
    Some(header)
}

fn read_kind(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<Kind> {
    let written = fields.required_text("kind", problems)?;
    let at = fields.node("kind").map_or(fields.at, |node| node.at);
    if let Some((kind, _, _)) = KINDS.iter().find(|(_, name, _)| *name == written) {
        return Some(*kind);
    }
    if KNOWN_BUT_NOT_SUPPORTED.contains(&written) {
        problems.error(
            at,
            "kind-not-supported",
            format!("the kind `{written}` is not supported yet"),
        );
        return None;
    }
    let names = KINDS.iter().map(|(_, name, _)| *name);
    let help = near_miss(written, names.clone()).or_else(|| {
        Some(format!(
            "the kinds are {}",
            names.collect::<Vec<_>>().join(", ")
        ))
    });
    problems.error_with_help(
        at,
        "unknown-kind",
        format!("unknown kind `{}`", excerpt(written)),
        help,
    );
    None
}

fn read_metadata(node: &Node, path: &str, problems: &mut Problems<'_>) -> Option<(Metadata, Span)> {
    let known = [
        "name",
        "namespace",
        "labels",
        "annotations",
        "creationTimestamp",
    ];
    let fields = Fields::of(node, "`metadata`", &known, problems)?;
    let name = fields.required_text("name", problems);
    let name_at = fields.node("name").map_or(fields.at, |node| node.at);
    let written = fields.text("namespace", problems);
    let from_folder = namespace_of_folder(path);
    let namespace = written.or(from_folder).unwrap_or("default");
    let namespace_at = fields.node("namespace").map_or(name_at, |node| node.at);
    if !is_label(namespace) {
        let message = format!("`{}` is not a namespace", excerpt(namespace));
        let help =
            Some("1 to 63 of `a-z`, `0-9` and `-`, with a letter or digit at both ends".to_owned());
        problems.error_with_help(namespace_at, "bad-name", message, help);
        return None;
    }
    let name = name?;
    if name.len() > limits::NAME_BYTES_MAX || !name.split('.').all(is_label) {
        let message = format!("`{}` is not a name", excerpt(name));
        let help = Some("parts of 1 to 63 of `a-z`, `0-9` and `-`, joined by `.`".to_owned());
        problems.error_with_help(name_at, "bad-name", message, help);
        return None;
    }
    let metadata = Metadata {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        labels: fields.labels("labels", problems),
        annotations: fields.labels("annotations", problems),
    };
    Some((metadata, name_at))
}

fn annotations_at(metadata: &Node) -> BTreeMap<String, (Span, Span)> {
    let member = |node: &Node, name: &str| match &node.value {
        Value::Map(members) => members
            .iter()
            .find(|member| member.key == name)
            .map(|member| member.value.clone()),
        Value::Scalar { .. } | Value::List(_) => None,
    };
    match member(metadata, "annotations").map(|node| node.value) {
        Some(Value::Map(members)) => members
            .into_iter()
            .map(|member| (member.key, (member.at, member.value.at)))
            .collect(),
        _ => BTreeMap::new(),
    }
}

/// The first folder below the section: `policies/NAMESPACE/file.yaml`.
fn namespace_of_folder(path: &str) -> Option<&str> {
    let mut parts = path.split('/').skip(1);
    let folder = parts.next()?;
    parts.next().map(|_| folder)
}

/// RFC 1123 label.
pub(super) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The object's parts as text, for the difference of two sets.
pub(crate) fn flatten(node: &Node) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    walk(node, String::new(), &mut fields);
    fields
}

fn walk(node: &Node, path: String, fields: &mut BTreeMap<String, String>) {
    match &node.value {
        Value::Scalar { text, .. } => {
            fields.insert(path, text.clone());
        }
        Value::List(items) if items.is_empty() => {
            fields.insert(path, "[]".into());
        }
        Value::Map(members) if members.is_empty() => {
            fields.insert(path, "{}".into());
        }
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, format!("{path}[{index}]"), fields);
            }
        }
        Value::Map(members) => {
            for member in members {
                let path = if path.is_empty() {
                    member.key.clone()
                } else {
                    format!("{path}.{}", member.key)
                };
                walk(&member.value, path, fields);
            }
        }
    }
}
