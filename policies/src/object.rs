//! What every object of the mesh folder has: where it stands, how it is called, whom it selects.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ravelin_proto::spiffe_id::SpiffeId;
use serde::Serialize;

/// File and line of an object or a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Location {
    /// Path below the mesh folder.
    pub path: Arc<str>,
    /// 1-based.
    pub line: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.line)
    }
}

/// `metadata` of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// Unique per kind and namespace.
    pub name: String,
    /// `metadata.namespace`, else the folder below the section, else `default`.
    pub namespace: String,
    /// Labels; those of a WorkloadIdentity are the workload's.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// `selector.matchLabels`: all of them must be there, exactly (rule 65).
pub type Labels = BTreeMap<String, String>;

/// The workload that is judged for: the destination of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Its identity.
    pub spiffe_id: SpiffeId,
    /// Namespace of its WorkloadIdentity, else of the `/ns/NS/sa/NAME` path, else empty.
    pub namespace: String,
    /// Name of its WorkloadIdentity, else of the path.
    pub name: String,
    /// Labels of its WorkloadIdentity.
    pub labels: Labels,
}

impl Workload {
    /// Every label of `selector` is one of the workload's.
    pub fn has_labels(&self, selector: &Labels) -> bool {
        has_labels(&self.labels, selector)
    }
}

/// Every label of `wanted` is one of `labels`.
pub(crate) fn has_labels(labels: &Labels, wanted: &Labels) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// One object as text, field by field: what [`crate::diff_sets`] compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRecord {
    /// Kind, such as `AuthorizationPolicy`.
    pub kind: &'static str,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Field path, such as `spec.rules[0].to[0].operation.paths[0]`, to value.
    pub fields: BTreeMap<String, String>,
    /// Where it stands.
    pub location: Location,
}
