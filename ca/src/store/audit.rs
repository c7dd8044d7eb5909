//! Rows of the audit log: leaves and checkpoints.

use ravelin_proto::merkle::Hash;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{Store, StoreError, statements, writer::to_i64};
use crate::audit::event::StagedLeaf;

/// A signed checkpoint as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// From 1, without gaps.
    pub number: u64,
    /// Leaves that it covers.
    pub size: u64,
    /// The C2SP signed note.
    pub note: String,
}

impl Store {
    /// The newest signed checkpoint.
    pub async fn checkpoint(&self) -> Result<StoredCheckpoint, StoreError> {
        let mut conn = self.readers().acquire().await?;
        last_checkpoint(&mut conn).await?.ok_or(StoreError::Row {
            table: "audit_checkpoints",
            detail: "there is no checkpoint".to_owned(),
        })
    }

    /// The newest checkpoint that covers at most `size` leaves.
    pub async fn checkpoint_at(&self, size: u64) -> Result<Option<StoredCheckpoint>, StoreError> {
        let row = sqlx::query(statements::CHECKPOINTS_AT)
            .bind(to_i64(size))
            .fetch_optional(self.readers())
            .await?;
        row.as_ref().map(read_checkpoint).transpose()
    }

    /// Checkpoints over more than `after` and at most `to` leaves.
    pub async fn checkpoints_between(
        &self,
        after: u64,
        to: u64,
    ) -> Result<Vec<StoredCheckpoint>, StoreError> {
        let rows = sqlx::query(statements::CHECKPOINTS_BETWEEN)
            .bind(to_i64(after))
            .bind(to_i64(to))
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(read_checkpoint).collect()
    }

    /// Hashes of the first `size` leaves.
    pub async fn leaf_hashes(&self, size: u64) -> Result<Vec<Hash>, StoreError> {
        let rows = sqlx::query(statements::LEAVES_HASHES_TO)
            .bind(to_i64(size))
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(read_hash).collect()
    }

    /// The canonical JSON of a leaf.
    pub async fn leaf_json(&self, index: u64) -> Result<Option<String>, StoreError> {
        let row = sqlx::query(statements::LEAVES_JSON)
            .bind(to_i64(index))
            .fetch_optional(self.readers())
            .await?;
        row.map(|row| row.try_get(0).map_err(StoreError::from))
            .transpose()
    }
}

fn read_checkpoint(row: &SqliteRow) -> Result<StoredCheckpoint, StoreError> {
    Ok(StoredCheckpoint {
        number: u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0),
        size: u64::try_from(row.try_get::<i64, _>(1)?).unwrap_or(0),
        note: row.try_get(2)?,
    })
}

fn read_hash(row: &SqliteRow) -> Result<Hash, StoreError> {
    let hash: Vec<u8> = row.try_get(0)?;
    Hash::try_from(hash.as_slice()).map_err(|_| StoreError::Row {
        table: "audit_leaves",
        detail: "a hash does not have 32 bytes".to_owned(),
    })
}

pub(super) async fn insert_leaves(
    conn: &mut SqliteConnection,
    leaves: &[StagedLeaf],
) -> Result<(), StoreError> {
    for leaf in leaves {
        sqlx::query(statements::LEAVES_INSERT)
            .bind(to_i64(leaf.index))
            .bind(leaf.columns.time_ms)
            .bind(&leaf.columns.kind)
            .bind(&leaf.columns.actor)
            .bind(&leaf.columns.spiffe_id)
            .bind(&leaf.columns.agent_id)
            .bind(&leaf.columns.serial)
            .bind(&leaf.columns.jti)
            .bind(&leaf.json)
            .bind(&leaf.hash[..])
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

pub(super) async fn insert_checkpoint(
    conn: &mut SqliteConnection,
    checkpoint: &StoredCheckpoint,
) -> Result<(), StoreError> {
    sqlx::query(statements::CHECKPOINTS_INSERT)
        .bind(to_i64(checkpoint.number))
        .bind(to_i64(checkpoint.size))
        .bind(&checkpoint.note)
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn leaf_hashes(conn: &mut SqliteConnection) -> Result<Vec<Hash>, StoreError> {
    let rows = sqlx::query(statements::LEAVES_HASHES)
        .fetch_all(conn)
        .await?;
    rows.iter().map(read_hash).collect()
}

/// Number, size and note of the newest checkpoint.
pub(super) async fn last_checkpoint(
    conn: &mut SqliteConnection,
) -> Result<Option<StoredCheckpoint>, StoreError> {
    let row = sqlx::query(statements::CHECKPOINTS_LAST)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(read_checkpoint).transpose()
}
