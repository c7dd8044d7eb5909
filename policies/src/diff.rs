//! What applying a new set over an old one changes, object by object.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use crate::diagnostic::excerpt;
use crate::object::ObjectRecord;
use crate::set::MeshSet;

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeAction {
    /// New.
    Create,
    /// Same kind, namespace and name, other fields.
    Update,
    /// Gone.
    Delete,
}

/// One object that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectChange {
    /// What happens.
    pub action: ChangeAction,
    /// Kind.
    pub kind: &'static str,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// One line for a person: which fields change.
    pub summary: String,
}

/// Fields that a summary names.
const FIELDS_SHOWN_MAX: usize = 4;

/// The changes from `old` to `new`, by kind, namespace and name.
pub fn diff_sets(old: &MeshSet, new: &MeshSet) -> Vec<ObjectChange> {
    let (old, new) = (index(old), index(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
    keys.into_iter()
        .filter_map(|key| {
            let (action, record, summary) = match (old.get(&key), new.get(&key)) {
                (None, Some(record)) => (
                    ChangeAction::Create,
                    record,
                    format!("{} fields at {}", record.fields.len(), record.location),
                ),
                (Some(record), None) => (
                    ChangeAction::Delete,
                    record,
                    format!("was at {}", record.location),
                ),
                (Some(before), Some(after)) if before.fields != after.fields => {
                    (ChangeAction::Update, after, summary(before, after))
                }
                _ => return None,
            };
            Some(ObjectChange {
                action,
                kind: record.kind,
                namespace: record.namespace.clone(),
                name: record.name.clone(),
                summary,
            })
        })
        .collect()
}

fn index(set: &MeshSet) -> BTreeMap<(&str, &str, &str), &ObjectRecord> {
    set.objects
        .iter()
        .map(|record| {
            (
                (record.kind, record.namespace.as_str(), record.name.as_str()),
                record,
            )
        })
        .collect()
}

fn summary(before: &ObjectRecord, after: &ObjectRecord) -> String {
    let fields: BTreeSet<&String> = before.fields.keys().chain(after.fields.keys()).collect();
    let changed: Vec<String> = fields
        .into_iter()
        .filter_map(
            |field| match (before.fields.get(field), after.fields.get(field)) {
                (Some(old), Some(new)) if old != new => {
                    Some(format!("{field}: `{}` -> `{}`", excerpt(old), excerpt(new)))
                }
                (None, Some(new)) => Some(format!("+{field}: `{}`", excerpt(new))),
                (Some(old), None) => Some(format!("-{field}: `{}`", excerpt(old))),
                _ => None,
            },
        )
        .collect();
    let mut text = changed
        .iter()
        .take(FIELDS_SHOWN_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    if changed.len() > FIELDS_SHOWN_MAX {
        let _ = write!(text, "; and {} more", changed.len() - FIELDS_SHOWN_MAX);
    }
    text
}
