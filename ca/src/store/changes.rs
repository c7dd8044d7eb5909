//! The change log: what a commit changed, in commit order, for agents that reconnect.

use std::sync::Arc;

use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::spiffe_id::SpiffeId;
use sqlx::Row;

use super::denylist::DeniedIdentity;
use super::mesh::MeshRecord;
use super::{Store, StoreError, statements};
use crate::registry::{RegisteredAgent, Snapshot};

/// One change of what the CA keeps in memory. Staged in a transaction, applied when it commits.
#[derive(Debug, Clone)]
pub enum Change {
    /// An entry was created or changed; `revision` in it is set by the change log.
    EntryUpserted(Arc<RegistrationEntry>),
    /// An entry is gone.
    EntryRemoved {
        /// Its id.
        id: String,
    },
    /// An agent was attested, renewed, banned or changed.
    AgentUpserted(Arc<RegisteredAgent>),
    /// An agent was evicted.
    AgentRemoved(SpiffeId),
    /// An identity was cut off.
    DeniedAdded(Arc<DeniedIdentity>),
    /// An identity was taken off the deny-list, by its id there.
    DeniedRemoved(String),
    /// A mesh revision was published.
    Mesh(Arc<MeshRecord>),
}

impl Change {
    /// The word in the change log.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::EntryUpserted(_) | Self::EntryRemoved { .. } => "entry",
            Self::AgentUpserted(_) | Self::AgentRemoved(_) => "agent",
            Self::DeniedAdded(_) | Self::DeniedRemoved(_) => "denylist",
            Self::Mesh(_) => "mesh",
        }
    }

    /// What changed: an entry's id, an agent's SPIFFE ID, a revision.
    pub fn subject(&self) -> String {
        match self {
            Self::EntryUpserted(entry) => entry.id.clone(),
            Self::EntryRemoved { id } | Self::DeniedRemoved(id) => id.clone(),
            Self::AgentUpserted(agent) => agent.id.to_string(),
            Self::AgentRemoved(id) => id.to_string(),
            Self::DeniedAdded(entry) => entry.id.clone(),
            Self::Mesh(record) => record.revision.to_string(),
        }
    }
}

/// A row of the change log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRow {
    /// Its place in commit order.
    pub revision: u64,
    /// `entry`, `agent`, `denylist` or `mesh`.
    pub kind: String,
    /// An entry's id, an agent's SPIFFE ID or a revision.
    pub subject: String,
    /// The parent of an entry before the change; empty when it was new.
    pub parent_before: String,
    /// True for an entry that decides about other entries: a node alias, or one with others below
    /// its SPIFFE ID, before or after the change.
    pub is_structural: bool,
}

impl Store {
    /// Rows after `revision` from memory, oldest first; `None` when they no longer are.
    pub fn recent_changes(&self, revision: u64) -> Option<Vec<ChangeRow>> {
        let recent = self.inner.published.recent();
        let first = recent.front()?.revision;
        (first <= revision.saturating_add(1)).then(|| {
            let is_older = |row: &ChangeRow| row.revision <= revision;
            let start = recent.partition_point(is_older);
            recent.iter().skip(start).cloned().collect()
        })
    }

    /// Rows after `revision`, oldest first; `None` when the log no longer reaches back that far
    /// (or never reached that far forward).
    pub async fn changes_since(&self, revision: u64) -> Result<Option<Vec<ChangeRow>>, StoreError> {
        let mut tx = self.readers().begin().await?;
        let bounds = sqlx::query(statements::CHANGES_BOUNDS)
            .fetch_one(&mut *tx)
            .await?;
        let first: i64 = bounds.try_get(0)?;
        let last: i64 = bounds.try_get(1)?;
        let wanted = i64::try_from(revision).unwrap_or(i64::MAX);
        if wanted > last || wanted.saturating_add(1) < first {
            return Ok(None);
        }
        let rows = sqlx::query(statements::CHANGES_SINCE)
            .bind(wanted)
            .fetch_all(&mut *tx)
            .await?;
        rows.iter()
            .map(ChangeRow::read)
            .collect::<Result<Vec<_>, StoreError>>()
            .map(Some)
    }
}

impl ChangeRow {
    pub(super) fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Self, StoreError> {
        let structural: i64 = row.try_get(4)?;
        if !matches!(structural, 0 | 1) {
            return Err(StoreError::Row {
                table: "changes",
                detail: format!("`is_structural` is {structural}"),
            });
        }
        Ok(Self {
            revision: u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0),
            kind: row.try_get(1)?,
            subject: row.try_get(2)?,
            parent_before: row.try_get(3)?,
            is_structural: structural == 1,
        })
    }

    /// Applies a change to a registry and says what the change log keeps of it.
    pub(crate) fn staged(registry: &mut Snapshot, revision: u64, change: &Change) -> Self {
        let id = match change {
            Change::EntryUpserted(entry) => Some(entry.id.as_str()),
            Change::EntryRemoved { id } => Some(id.as_str()),
            Change::AgentUpserted(_)
            | Change::AgentRemoved(_)
            | Change::DeniedAdded(_)
            | Change::DeniedRemoved(_)
            | Change::Mesh(_) => None,
        };
        let before = id.and_then(|id| registry.entry(id)).cloned();
        let was_structural = before
            .as_ref()
            .is_some_and(|entry| registry.is_structural(entry));
        registry.apply(revision, change);
        let is_structural = id
            .and_then(|id| registry.entry(id))
            .is_some_and(|entry| registry.is_structural(entry));
        Self {
            revision,
            kind: change.kind().to_owned(),
            subject: change.subject(),
            parent_before: before
                .map(|entry| entry.parent_id.to_string())
                .unwrap_or_default(),
            is_structural: was_structural || is_structural,
        }
    }
}
