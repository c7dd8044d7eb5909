//! Rows of registration entries: canonical JSON by id, each change with its leaf.

use std::sync::Arc;

use ravelin_proto::entry::RegistrationEntry;
use serde_json::Value;
use sqlx::{Row, SqliteConnection};

use super::{Change, StoreError, WriteTx, kinds, statements};
use crate::audit::Event;
use crate::registry_json::{entry_from_json, entry_to_json};

pub(super) async fn all(conn: &mut SqliteConnection) -> Result<Vec<RegistrationEntry>, StoreError> {
    let rows = sqlx::query(statements::ENTRIES_ALL).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let json: String = row.try_get(1)?;
            entry_from_json(&json).map_err(|detail| StoreError::Row {
                table: "entries",
                detail,
            })
        })
        .collect()
}

impl WriteTx {
    /// Creates or replaces an entry by its id. Sets its revision and, when new, its time.
    /// Returns it as stored; an entry that is the same already is left alone.
    pub async fn put_entry(
        &mut self,
        entry: RegistrationEntry,
        actor: &str,
    ) -> Result<Arc<RegistrationEntry>, StoreError> {
        entry.check()?;
        let mut entry = entry;
        let before = self.with_snapshot(|snapshot| snapshot.entry(&entry.id).cloned());
        let kind = if let Some(before) = &before {
            entry.created_at = before.created_at;
            entry.revision = before.revision;
            if entry == **before {
                return Ok(Arc::clone(before));
            }
            entry.revision = before.revision.saturating_add(1);
            kinds::ENTRY_UPDATED
        } else {
            entry.created_at = self.now();
            entry.revision = 0;
            kinds::ENTRY_CREATED
        };
        let json = entry_to_json(&entry);
        sqlx::query(statements::ENTRIES_PUT)
            .bind(&entry.id)
            .bind(&json)
            .execute(self.conn())
            .await?;
        let value: Value = serde_json::from_str(&json).unwrap_or_default();
        self.audit(
            Event::new(kind, actor)
                .with("entry_id", entry.id.as_str())
                .with("spiffe_id", entry.spiffe_id.as_str())
                .with("entry", value)
                .with("change", self.next_revision()),
        )?;
        let entry = Arc::new(entry);
        self.change(Change::EntryUpserted(Arc::clone(&entry)));
        Ok(entry)
    }

    /// Deletes an entry; `None` when there is none of that id.
    pub async fn delete_entry(
        &mut self,
        id: &str,
        actor: &str,
    ) -> Result<Option<Arc<RegistrationEntry>>, StoreError> {
        let Some(before) = self.with_snapshot(|snapshot| snapshot.entry(id).cloned()) else {
            return Ok(None);
        };
        sqlx::query(statements::ENTRIES_DELETE)
            .bind(id)
            .execute(self.conn())
            .await?;
        self.audit(
            Event::new(kinds::ENTRY_DELETED, actor)
                .with("entry_id", id)
                .with("spiffe_id", before.spiffe_id.as_str())
                .with("change", self.next_revision()),
        )?;
        self.change(Change::EntryRemoved { id: id.to_owned() });
        Ok(Some(before))
    }
}
