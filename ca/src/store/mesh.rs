//! Mesh revisions: numbered, immutable sets of files. A content is kept once, by its SHA-256.

use std::collections::BTreeMap;
use std::sync::Arc;

use ravelin_proto::time::Timestamp;
use sha2::{Digest, Sha256};
use sqlx::{Row, SqliteConnection};

use super::writer::to_i64;
use super::{Change, Store, StoreError, WriteTx, kinds, statements};
use crate::audit::Event;

/// A whole revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshRecord {
    /// Only grows.
    pub revision: u64,
    /// Of the whole set, as `ravelin_policies::set_digest` makes it.
    pub digest: String,
    /// Empty when the folder was no git checkout.
    pub git_commit: String,
    /// When it was published.
    pub created_at: Timestamp,
    /// Who published it.
    pub created_by: String,
    /// Content by path.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// The current revision and the one before it, from which most agents come.
#[derive(Debug, Clone, Default)]
pub struct MeshPair {
    /// `None` before the first publication.
    pub current: Option<Arc<MeshRecord>>,
    /// `None` when it is not in memory.
    pub previous: Option<Arc<MeshRecord>>,
}

impl MeshPair {
    /// Number of the current revision; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.current.as_ref().map_or(0, |record| record.revision)
    }
}

/// What a publication needs besides its number and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshDraft {
    /// Of the whole set.
    pub digest: String,
    /// Empty when the folder was no git checkout.
    pub git_commit: String,
    /// Content by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The revision whose content this repeats; 0 for a new one.
    pub rolled_back_to: u64,
}

impl WriteTx {
    /// Publishes a set as the next revision; returns its number.
    pub async fn publish_mesh(
        &mut self,
        draft: &MeshDraft,
        actor: &str,
    ) -> Result<u64, StoreError> {
        let last: i64 = sqlx::query(statements::MESH_LAST)
            .fetch_one(self.conn())
            .await?
            .try_get(0)?;
        let revision = u64::try_from(last).unwrap_or(0).saturating_add(1);
        for (path, content) in &draft.files {
            let digest = hex::encode(Sha256::digest(content));
            sqlx::query(statements::MESH_CONTENT_PUT)
                .bind(&digest)
                .bind(content.as_slice())
                .execute(self.conn())
                .await?;
            sqlx::query(statements::MESH_FILE_INSERT)
                .bind(to_i64(revision))
                .bind(path)
                .bind(&digest)
                .execute(self.conn())
                .await?;
        }
        let now = self.now();
        sqlx::query(statements::MESH_INSERT)
            .bind(to_i64(revision))
            .bind(&draft.digest)
            .bind(&draft.git_commit)
            .bind(now.unix_millis())
            .bind(actor)
            .execute(self.conn())
            .await?;
        let files: serde_json::Map<String, serde_json::Value> = draft
            .files
            .iter()
            .map(|(path, content)| (path.clone(), hex::encode(Sha256::digest(content)).into()))
            .collect();
        let mut event = Event::new(kinds::MESH_PUBLISHED, actor)
            .with("revision", revision)
            .with("digest", draft.digest.as_str())
            .with("git_commit", draft.git_commit.as_str())
            .with("files", files)
            .with("change", self.next_revision());
        if draft.rolled_back_to > 0 {
            event = event.with("rolled_back_to", draft.rolled_back_to);
        }
        self.audit(event)?;
        self.change(Change::Mesh(Arc::new(MeshRecord {
            revision,
            digest: draft.digest.clone(),
            git_commit: draft.git_commit.clone(),
            created_at: now,
            created_by: actor.to_owned(),
            files: draft.files.clone(),
        })));
        Ok(revision)
    }

    /// The digest of a revision; empty when there is none of that number.
    pub async fn mesh_digest(&mut self, revision: u64) -> Result<String, StoreError> {
        let row = sqlx::query(statements::MESH_GET)
            .bind(to_i64(revision))
            .fetch_optional(self.conn())
            .await?;
        row.map_or(Ok(String::new()), |row| Ok(row.try_get(0)?))
    }

    /// Number of the newest revision inside of this transaction; 0 before the first.
    pub async fn mesh_revision(&mut self) -> Result<u64, StoreError> {
        let last: i64 = sqlx::query(statements::MESH_LAST)
            .fetch_one(self.conn())
            .await?
            .try_get(0)?;
        Ok(u64::try_from(last).unwrap_or(0))
    }
}

impl Store {
    /// A revision with all its files; `None` when there is none of that number.
    pub async fn mesh_record(&self, revision: u64) -> Result<Option<MeshRecord>, StoreError> {
        let mut conn = self.readers().acquire().await?;
        read(&mut conn, revision).await
    }
}

/// The newest revision, at start.
pub(super) async fn newest(conn: &mut SqliteConnection) -> Result<MeshPair, StoreError> {
    let last: i64 = sqlx::query(statements::MESH_LAST)
        .fetch_one(&mut *conn)
        .await?
        .try_get(0)?;
    let current = read(conn, u64::try_from(last).unwrap_or(0)).await?;
    Ok(MeshPair {
        current: current.map(Arc::new),
        previous: None,
    })
}

async fn read(
    conn: &mut SqliteConnection,
    revision: u64,
) -> Result<Option<MeshRecord>, StoreError> {
    let row = sqlx::query(statements::MESH_GET)
        .bind(to_i64(revision))
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let files = sqlx::query(statements::MESH_FILES)
        .bind(to_i64(revision))
        .fetch_all(conn)
        .await?
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, sqlx::Error>>()?;
    Ok(Some(MeshRecord {
        revision,
        digest: row.try_get(0)?,
        git_commit: row.try_get(1)?,
        created_at: Timestamp::from_unix_millis(row.try_get(2)?),
        created_by: row.try_get(3)?,
        files,
    }))
}
