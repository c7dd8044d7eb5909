//! Which entries an agent has to hear of. Pure.
//!
//! An open stream remembers what it sent, so its delta is a difference. An agent that comes back
//! says only a revision, so its tail is built from the change log: cautiously, with a snapshot
//! wherever a change may have moved entries that have no row of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::spiffe_id::SpiffeId;

use crate::registry::{SERVER_PATH, Snapshot};
use crate::store::ChangeRow;

/// What one agent was told.
#[derive(Debug, Clone)]
pub struct AgentView {
    agent_id: SpiffeId,
    revision: u64,
    parents: BTreeSet<SpiffeId>,
    sent: BTreeMap<String, Arc<RegistrationEntry>>,
}

/// Entries to take in and to forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryDelta {
    /// The change-log revision behind this delta.
    pub revision: u64,
    /// True: forget all entries first.
    pub is_snapshot: bool,
    /// New and changed entries, by id.
    pub upserted: Vec<Arc<RegistrationEntry>>,
    /// Ids that the agent no longer holds.
    pub removed: Vec<String>,
}

impl AgentView {
    fn of(agent_id: SpiffeId, registry: &Snapshot) -> Self {
        Self {
            revision: registry.revision(),
            parents: registry.parents_of_agent(&agent_id),
            sent: registry.authorized_entries(&agent_id),
            agent_id,
        }
    }

    /// The change-log revision that the agent was told of.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Everything, for an agent that holds nothing.
    pub fn snapshot(agent_id: SpiffeId, registry: &Snapshot) -> (Self, EntryDelta) {
        let view = Self::of(agent_id, registry);
        let delta = EntryDelta {
            revision: view.revision,
            is_snapshot: true,
            upserted: view.sent.values().cloned().collect(),
            removed: Vec::new(),
        };
        (view, delta)
    }

    /// What changed since the agent's revision; `None` when only a snapshot is sure.
    pub fn tail(
        agent_id: SpiffeId,
        registry: &Snapshot,
        rows: &[ChangeRow],
    ) -> Option<(Self, EntryDelta)> {
        let view = Self::of(agent_id, registry);
        let moves_others = |row: &&ChangeRow| {
            row.is_structural || (row.kind == "agent" && row.subject == view.agent_id.as_str())
        };
        let rows: Vec<&ChangeRow> = rows
            .iter()
            .filter(|row| row.revision <= view.revision)
            .collect();
        if rows.iter().any(moves_others) {
            return None;
        }
        let mut upserted = BTreeMap::new();
        let mut removed = BTreeSet::new();
        for row in rows.iter().filter(|row| row.kind == "entry") {
            if let Some(entry) = view.sent.get(&row.subject) {
                upserted.insert(row.subject.clone(), Arc::clone(entry));
            } else if SpiffeId::parse(&row.parent_before)
                .is_ok_and(|parent| view.parents.contains(&parent))
            {
                removed.insert(row.subject.clone());
            }
        }
        let delta = EntryDelta {
            revision: view.revision,
            is_snapshot: false,
            upserted: upserted.into_values().collect(),
            removed: removed.into_iter().collect(),
        };
        Some((view, delta))
    }

    /// What an open stream has to send now; `None` when nothing concerns this agent. `rows` are the
    /// changes since [`Self::revision`], where they are known: with them most streams need no look.
    pub fn advance(
        &mut self,
        registry: &Snapshot,
        rows: Option<&[ChangeRow]>,
    ) -> Option<EntryDelta> {
        if let Some(rows) = rows
            && !rows.iter().any(|row| self.is_concerned(row, registry))
        {
            self.revision = registry.revision();
            return None;
        }
        let view = Self::of(self.agent_id.clone(), registry);
        let upserted: Vec<_> = view
            .sent
            .values()
            .filter(|entry| {
                self.sent
                    .get(&entry.id)
                    .is_none_or(|before| !Arc::ptr_eq(before, entry))
            })
            .cloned()
            .collect();
        let removed: Vec<_> = self
            .sent
            .keys()
            .filter(|id| !view.sent.contains_key(*id))
            .cloned()
            .collect();
        *self = view;
        (!upserted.is_empty() || !removed.is_empty()).then_some(EntryDelta {
            revision: self.revision,
            is_snapshot: false,
            upserted,
            removed,
        })
    }

    fn is_concerned(&self, row: &ChangeRow, registry: &Snapshot) -> bool {
        match row.kind.as_str() {
            "agent" => row.subject == self.agent_id.as_str(),
            "entry" => {
                self.sent.contains_key(&row.subject)
                    || row.parent_before.ends_with(SERVER_PATH)
                    || registry.entry(&row.subject).is_some_and(|entry| {
                        self.parents.contains(&entry.parent_id)
                            || entry.parent_id.path() == SERVER_PATH
                    })
            }
            _ => false,
        }
    }
}
