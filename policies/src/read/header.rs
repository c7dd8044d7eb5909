//! `apiVersion`, `kind` and `metadata`: what every object begins with.

use std::collections::BTreeMap;

use super::annotations::check_annotation_names;
use super::foreign::report_foreign_kind;
use crate::diagnostic::{Problems, Span, excerpt, near_miss};
use crate::document::{Node, Value};
use crate::fields::{Fields, describe, text};
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
/// Groups under which examples show Istio's kinds by mistake.
const ISTIO_GROUPS: [&str; 3] = ["security.istio.io", "networking.istio.io", "rbac.istio.io"];

/// Every kind that is read: its name and its API versions, the preferred one first.
pub(crate) const KINDS: [(Kind, &str, &[&str]); 8] = [
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

impl Kind {
    /// Its API versions, the preferred one first.
    pub(crate) fn versions(self) -> &'static [&'static str] {
        KINDS
            .iter()
            .find(|(kind, _, _)| *kind == self)
            .map_or(OURS, |(_, _, versions)| versions)
    }

    pub(crate) fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(kind, _, _)| *kind == self)
            .map_or("", |(_, name, _)| name)
    }
}

/// What a cluster adds to the metadata of an exported object.
pub(crate) const EXPORTED: [&str; 8] = [
    "creationTimestamp",
    "uid",
    "resourceVersion",
    "generation",
    "managedFields",
    "selfLink",
    "ownerReferences",
    "finalizers",
];

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

/// Reads what every object begins with. `None` when the kind is not acted on, or a name is missing.
pub(crate) fn read_header(node: &Node, path: &str, problems: &mut Problems<'_>) -> Option<Header> {
    // First of all, since an object of Kubernetes has other fields.
    let kind = read_kind(node, problems)?;
    let fields = Fields::of_export(
        node,
        "an object",
        &["apiVersion", "kind", "metadata", "spec"],
        &["status"],
        problems,
    )?;
    let version = fields.required_text("apiVersion", problems);
    if let Some(version) = version {
        let at = fields.node("apiVersion").map_or(fields.at, |node| node.at);
        check_version(kind, version, at, problems);
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

/// One of the kind's own, or with a warning one that examples show under another group of Istio.
fn check_version(kind: Kind, written: &str, at: Span, problems: &mut Problems<'_>) {
    let versions = kind.versions();
    if versions.contains(&written) {
        return;
    }
    let name = kind.name();
    let is_misplaced = versions != OURS
        && written.split_once('/').is_some_and(|(group, version)| {
            ISTIO_GROUPS.contains(&group) && matches!(version, "v1" | "v1beta1")
        });
    let message = format!("`{}` is not an apiVersion of {name}", excerpt(written));
    if is_misplaced {
        let help = versions.first().map(|right| format!("write `{right}`"));
        problems.warning(at, "wrong-api-group", message, help);
    } else {
        let help = near_miss(written, versions.iter().copied()).or_else(|| {
            Some(format!(
                "the apiVersion of {name} is {}",
                versions.join(" or ")
            ))
        });
        problems.error_with_help(at, "bad-api-version", message, help);
    }
}

fn read_kind(node: &Node, problems: &mut Problems<'_>) -> Option<Kind> {
    let Value::Map(members) = &node.value else {
        let message = format!("an object is a mapping with fields, not {}", describe(node));
        problems.error(node.at, "wrong-type", message);
        return None;
    };
    let member = |name: &str| members.iter().find(|member| member.key == name);
    let Some(kind) = member("kind") else {
        let help = near_miss("kind", members.iter().map(|member| member.key.as_str()))
            .map(|_| "write `kind: ..`".to_owned());
        let at = Span {
            width: 1,
            ..node.at
        };
        problems.error_with_help(at, "missing-field", "an object has no `kind`", help);
        return None;
    };
    let written = text(&kind.value, "kind", problems)?;
    let at = kind.value.at;
    if let Some((kind, _, _)) = KINDS.iter().find(|(_, name, _)| *name == written) {
        return Some(*kind);
    }
    let version = match member("apiVersion").map(|member| &member.value.value) {
        Some(Value::Scalar { text, .. }) => text.as_str(),
        _ => "",
    };
    report_foreign_kind(written, version, at, problems);
    None
}

fn read_metadata(node: &Node, path: &str, problems: &mut Problems<'_>) -> Option<(Metadata, Span)> {
    let known = ["name", "namespace", "labels", "annotations"];
    let fields = Fields::of_export(node, "`metadata`", &known, &EXPORTED, problems)?;
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
