//! Rows of registration entries: canonical JSON by id.

use ravelin_proto::entry::RegistrationEntry;
use sqlx::{Row, SqliteConnection};

use super::{StoreError, statements};
use crate::registry_json;

pub(super) async fn all(conn: &mut SqliteConnection) -> Result<Vec<RegistrationEntry>, StoreError> {
    let rows = sqlx::query(statements::ENTRIES_ALL).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let json: String = row.try_get(1)?;
            registry_json::entry_from_json(&json).map_err(|detail| StoreError::Row {
                table: "entries",
                detail,
            })
        })
        .collect()
}
