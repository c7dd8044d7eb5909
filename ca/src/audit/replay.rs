//! What the leaves say the registry, the deny-list, the mesh and the segments must be. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::canonical::to_canonical;
use super::check::{CheckedLeaf, Mismatch};
use crate::registry::Snapshot;
use crate::registry_json::entry_from_json;
use crate::store::{Change, ChangeRow, kinds};

/// A mesh revision as its leaf tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplayedMesh {
    pub(crate) digest: String,
    pub(crate) git_commit: String,
    pub(crate) created_ms: i64,
    pub(crate) created_by: String,
    pub(crate) files: BTreeMap<String, String>,
}

/// A segment as its leaf tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplayedSegment {
    pub(crate) segment_id: String,
    pub(crate) agent_id: String,
    pub(crate) records: u64,
    pub(crate) lost: u64,
    pub(crate) digest: String,
}

/// The state that the leaves add up to.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    registry: Snapshot,
    pub(crate) entries: BTreeMap<String, String>,
    pub(crate) denylist: BTreeMap<String, String>,
    pub(crate) denylist_number: u64,
    pub(crate) mesh: BTreeMap<u64, ReplayedMesh>,
    pub(crate) segments: BTreeMap<u64, ReplayedSegment>,
    pub(crate) changes: BTreeMap<u64, ChangeRow>,
}

impl Replay {
    /// Takes the next leaf.
    pub(crate) fn leaf(&mut self, leaf: &CheckedLeaf) -> Result<(), Mismatch> {
        match leaf.kind() {
            kinds::ENTRY_CREATED | kinds::ENTRY_UPDATED => self.put_entry(leaf)?,
            kinds::ENTRY_DELETED => {
                let id = leaf.text("entry_id").to_owned();
                self.entries.remove(&id);
                self.change(leaf, &Change::EntryRemoved { id });
            }
            kinds::DENYLIST_ADDED => {
                let json = leaf.field("entry").map(to_canonical).unwrap_or_default();
                self.denylist.insert(leaf.text("id").to_owned(), json);
                self.denied(leaf);
            }
            kinds::DENYLIST_REMOVED => {
                self.denylist.remove(leaf.text("id"));
                self.denied(leaf);
            }
            kinds::MESH_PUBLISHED => self.published(leaf),
            kinds::DECISIONS_SEALED => {
                self.segments.insert(
                    leaf.index,
                    ReplayedSegment {
                        segment_id: leaf.text("segment_id").to_owned(),
                        agent_id: leaf.text("agent_id").to_owned(),
                        records: leaf.number("records"),
                        lost: leaf.number("lost"),
                        digest: leaf.text("digest").to_owned(),
                    },
                );
            }
            _ => {}
        }
        Ok(())
    }

    fn put_entry(&mut self, leaf: &CheckedLeaf) -> Result<(), Mismatch> {
        let json = leaf.field("entry").map(to_canonical).unwrap_or_default();
        let entry =
            entry_from_json(&json).map_err(|detail| Mismatch::new("leaf", leaf.index, detail))?;
        self.entries.insert(entry.id.clone(), json);
        self.change(leaf, &Change::EntryUpserted(Arc::new(entry)));
        Ok(())
    }

    fn change(&mut self, leaf: &CheckedLeaf, change: &Change) {
        let revision = leaf.number("change");
        let row = ChangeRow::staged(&mut self.registry, revision, change);
        self.changes.insert(revision, row);
    }

    fn denied(&mut self, leaf: &CheckedLeaf) {
        self.denylist_number = leaf.number("change");
        self.plain_change(leaf, "denylist", leaf.text("id"));
    }

    fn plain_change(&mut self, leaf: &CheckedLeaf, kind: &str, subject: &str) {
        let revision = leaf.number("change");
        self.changes.insert(
            revision,
            ChangeRow {
                revision,
                kind: kind.to_owned(),
                subject: subject.to_owned(),
                parent_before: String::new(),
                is_structural: false,
            },
        );
    }

    fn published(&mut self, leaf: &CheckedLeaf) {
        let revision = leaf.number("revision");
        let files = leaf
            .field("files")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(path, digest)| (path.clone(), digest.as_str().unwrap_or_default().to_owned()))
            .collect();
        self.mesh.insert(
            revision,
            ReplayedMesh {
                digest: leaf.text("digest").to_owned(),
                git_commit: leaf.text("git_commit").to_owned(),
                created_ms: leaf.columns.time_ms,
                created_by: leaf.columns.actor.clone(),
                files,
            },
        );
        self.plain_change(leaf, "mesh", &revision.to_string());
    }
}
