//! A store read as it lies there, for verification: every row, nothing interpreted.

use std::collections::BTreeMap;
use std::path::Path;

use ravelin_proto::merkle::Hash;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row, SqliteConnection};

use super::decisions::DecisionColumns;
use super::open::corruption;
use super::writer::to_i64;
use super::{ChangeRow, DATABASE_FILE, StoreError, statements};
use crate::audit::event::Columns;
use crate::audit::replay::ReplayedMesh;
use crate::limits::STORE_BUSY;

/// A store that is only read.
#[derive(Debug)]
pub(crate) struct StoreCopy {
    conn: SqliteConnection,
    path: std::path::PathBuf,
}

#[derive(Debug)]
pub(crate) struct LeafRow {
    pub(crate) index: u64,
    pub(crate) json: String,
    pub(crate) hash: Hash,
    pub(crate) columns: Columns,
}

#[derive(Debug)]
pub(crate) struct CheckpointRow {
    pub(crate) number: u64,
    pub(crate) size: u64,
    pub(crate) note: String,
}

#[derive(Debug)]
pub(crate) struct DeniedRow {
    pub(crate) id: String,
    pub(crate) expires_ms: i64,
    pub(crate) json: String,
}

#[derive(Debug)]
pub(crate) struct SegmentRow {
    pub(crate) segment_id: String,
    pub(crate) agent_id: String,
    pub(crate) records: u64,
    pub(crate) lost: u64,
}

#[derive(Debug)]
pub(crate) struct DecisionRow {
    pub(crate) position: i64,
    pub(crate) json: String,
    pub(crate) columns: DecisionColumns,
}

fn unsigned(row: &sqlx::sqlite::SqliteRow, column: usize) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column)?;
    // A negative number is no row of ours: as a number that fits nowhere it is found.
    Ok(u64::try_from(number).unwrap_or(u64::MAX))
}

impl StoreCopy {
    /// Opens a data folder's database, or the database itself.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = if path.is_dir() {
            path.join(DATABASE_FILE)
        } else {
            path.to_owned()
        };
        if !path.is_file() {
            return Err(StoreError::Folder {
                source: std::io::ErrorKind::NotFound.into(),
                path,
            });
        }
        let conn = SqliteConnectOptions::new()
            .filename(&path)
            .busy_timeout(STORE_BUSY)
            .read_only(true)
            .disable_statement_logging()
            .connect()
            .await
            .map_err(|error| corruption(&path, error.into()))?;
        let mut copy = Self { conn, path };
        // One transaction, so that a store that is in use is seen at one moment.
        copy.conn_run("BEGIN").await?;
        Ok(copy)
    }

    async fn conn_run(&mut self, text: &'static str) -> Result<(), StoreError> {
        sqlx::raw_sql(text)
            .execute(&mut self.conn)
            .await
            .map_err(|error| corruption(&self.path, error.into()))?;
        Ok(())
    }

    async fn all(
        &mut self,
        text: &'static str,
    ) -> Result<Vec<sqlx::sqlite::SqliteRow>, StoreError> {
        sqlx::query(text)
            .fetch_all(&mut self.conn)
            .await
            .map_err(|error| corruption(&self.path, error.into()))
    }

    /// Pages and indexes as SQLite checks them.
    pub(crate) async fn check_integrity(&mut self) -> Result<(), StoreError> {
        let rows = self.all("PRAGMA integrity_check(1)").await?;
        let found: String = rows
            .first()
            .map(|row| row.try_get(0))
            .transpose()?
            .unwrap_or_default();
        if found == "ok" {
            return Ok(());
        }
        Err(StoreError::Corrupt {
            path: self.path.clone(),
            detail: found,
        })
    }

    pub(crate) async fn leaves(&mut self) -> Result<Vec<LeafRow>, StoreError> {
        let rows = self.all(statements::LEAVES_ALL).await?;
        rows.iter()
            .map(|row| {
                let hash: Vec<u8> = row.try_get(9)?;
                Ok(LeafRow {
                    index: unsigned(row, 0)?,
                    columns: Columns {
                        time_ms: row.try_get(1)?,
                        kind: row.try_get(2)?,
                        actor: row.try_get(3)?,
                        spiffe_id: row.try_get(4)?,
                        agent_id: row.try_get(5)?,
                        serial: row.try_get(6)?,
                        jti: row.try_get(7)?,
                    },
                    json: row.try_get(8)?,
                    // A hash of another length differs from every hash.
                    hash: hash.as_slice().try_into().unwrap_or([0; 32]),
                })
            })
            .collect()
    }

    pub(crate) async fn checkpoints(&mut self) -> Result<Vec<CheckpointRow>, StoreError> {
        let rows = self.all(statements::CHECKPOINTS_ALL).await?;
        rows.iter()
            .map(|row| {
                Ok(CheckpointRow {
                    number: unsigned(row, 0)?,
                    size: unsigned(row, 1)?,
                    note: row.try_get(2)?,
                })
            })
            .collect()
    }

    async fn pairs(&mut self, text: &'static str) -> Result<BTreeMap<String, String>, StoreError> {
        let rows = self.all(text).await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect()
    }

    pub(crate) async fn meta(&mut self) -> Result<BTreeMap<String, String>, StoreError> {
        self.pairs(statements::META_ALL).await
    }

    pub(crate) async fn entries(&mut self) -> Result<BTreeMap<String, String>, StoreError> {
        self.pairs(statements::ENTRIES_ALL).await
    }

    pub(crate) async fn changes(&mut self) -> Result<Vec<ChangeRow>, StoreError> {
        let rows = self.all(statements::CHANGES_ALL).await?;
        rows.iter().map(ChangeRow::read).collect()
    }

    pub(crate) async fn denylist(&mut self) -> Result<Vec<DeniedRow>, StoreError> {
        let rows = self.all(statements::DENYLIST_ROWS).await?;
        rows.iter()
            .map(|row| {
                Ok(DeniedRow {
                    id: row.try_get(0)?,
                    expires_ms: row.try_get(1)?,
                    json: row.try_get(2)?,
                })
            })
            .collect()
    }

    pub(crate) async fn mesh_contents(&mut self) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        let rows = self.all(statements::MESH_CONTENTS_ALL).await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect()
    }

    pub(crate) async fn mesh_revisions(
        &mut self,
    ) -> Result<BTreeMap<u64, ReplayedMesh>, StoreError> {
        let rows = self.all(statements::MESH_ALL).await?;
        let mut revisions = BTreeMap::new();
        for row in &rows {
            let revision = ReplayedMesh {
                digest: row.try_get(1)?,
                git_commit: row.try_get(2)?,
                created_ms: row.try_get(3)?,
                created_by: row.try_get(4)?,
                files: BTreeMap::new(),
            };
            revisions.insert(unsigned(row, 0)?, revision);
        }
        for row in &self.all(statements::MESH_FILES_ALL).await? {
            let number = unsigned(row, 0)?;
            let revision = revisions.get_mut(&number).ok_or_else(|| StoreError::Row {
                table: "mesh_files",
                detail: format!("a file belongs to revision {number}, which is not there"),
            })?;
            revision.files.insert(row.try_get(1)?, row.try_get(2)?);
        }
        Ok(revisions)
    }

    pub(crate) async fn segments(&mut self) -> Result<BTreeMap<u64, SegmentRow>, StoreError> {
        let rows = self.all(statements::SEGMENTS_ALL).await?;
        rows.iter()
            .map(|row| {
                let segment = SegmentRow {
                    segment_id: row.try_get(1)?,
                    agent_id: row.try_get(2)?,
                    records: unsigned(row, 3)?,
                    lost: unsigned(row, 4)?,
                };
                Ok((unsigned(row, 0)?, segment))
            })
            .collect()
    }

    pub(crate) async fn decisions(&mut self, leaf: u64) -> Result<Vec<DecisionRow>, StoreError> {
        let rows = sqlx::query(statements::DECISIONS_ROWS)
            .bind(to_i64(leaf))
            .fetch_all(&mut self.conn)
            .await
            .map_err(|error| corruption(&self.path, error.into()))?;
        rows.iter()
            .map(|row| {
                let allowed: i64 = row.try_get(6)?;
                Ok(DecisionRow {
                    position: row.try_get(0)?,
                    json: row.try_get(10)?,
                    columns: DecisionColumns {
                        time_ms: row.try_get(1)?,
                        workload: row.try_get(2)?,
                        peer: row.try_get(3)?,
                        policy: row.try_get(4)?,
                        rule: row.try_get(5)?,
                        // Neither 0 nor 1 is a row of ours.
                        is_allowed: match allowed {
                            0 => false,
                            1 => true,
                            _ => {
                                return Err(StoreError::Row {
                                    table: "decisions",
                                    detail: format!("`is_allowed` is {allowed}"),
                                });
                            }
                        },
                        code: row.try_get(7)?,
                        serial: row.try_get(8)?,
                        jti: row.try_get(9)?,
                    },
                })
            })
            .collect()
    }

    pub(crate) async fn decision_count(&mut self) -> Result<u64, StoreError> {
        let rows = self.all(statements::DECISIONS_COUNT).await?;
        rows.first().map_or(Ok(0), |row| unsigned(row, 0))
    }
}
