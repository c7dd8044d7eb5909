//! Rows of the audit log: leaves and checkpoints.

use ravelin_proto::merkle::Hash;
use sqlx::{Row, SqliteConnection};

use super::{StoreError, statements, writer::to_i64};
use crate::audit::event::StagedLeaf;
use crate::audit::log::StagedCheckpoint;

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
    checkpoint: &StagedCheckpoint,
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
    rows.iter()
        .map(|row| {
            let hash: Vec<u8> = row.try_get(0)?;
            Hash::try_from(hash.as_slice()).map_err(|_| StoreError::Row {
                table: "audit_leaves",
                detail: "a hash does not have 32 bytes".to_owned(),
            })
        })
        .collect()
}

/// Number, size and note of the newest checkpoint.
pub(super) async fn last_checkpoint(
    conn: &mut SqliteConnection,
) -> Result<Option<StagedCheckpoint>, StoreError> {
    let row = sqlx::query(statements::CHECKPOINTS_LAST)
        .fetch_optional(conn)
        .await?;
    row.map(|row| {
        Ok(StagedCheckpoint {
            number: u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0),
            size: u64::try_from(row.try_get::<i64, _>(1)?).unwrap_or(0),
            note: row.try_get(2)?,
        })
    })
    .transpose()
}
