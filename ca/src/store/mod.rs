//! The CA's store: SQLite, one writer with group commit, a pool of readers.
//!
//! SQL stands below this folder alone. A write and its audit leaves are one transaction, so a
//! crash at any moment leaves a log that verifies and a registry that equals its replay.

mod agents;
mod audit;
mod authorities;
mod changes;
#[cfg(test)]
mod crash_tests;
mod decisions;
mod denylist;
mod entries;
pub mod error;
mod issued;
pub mod kinds;
mod mesh;
mod open;
mod query;
pub(crate) mod rows;
mod statements;
mod statements_issuance;
#[cfg(test)]
pub(crate) mod tests;
mod tokens;
mod writer;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_runtime::clock::SharedClock;
use sqlx::sqlite::SqlitePool;
use tokio::sync::watch;

pub use audit::StoredCheckpoint;
pub use authorities::{Authorities, BundleState};
pub use changes::{Change, ChangeRow};
pub use decisions::{Segment, decision_json};
pub(crate) use decisions::{decision_columns, segment_digest};
pub use denylist::{DeniedIdentity, DeniedSubject, Denylist};
pub use error::StoreError;
pub use issued::IssuedSvid;
pub use mesh::{MeshDraft, MeshPair, MeshRecord};
pub use query::{LogFilter, LogRecord, Page};
pub use tokens::TokenUse;
pub use writer::WriteTx;

use crate::registry::{RegisteredAgent, Snapshot};
use writer::WriterHandle;

/// The name of the database in the data folder.
pub const DATABASE_FILE: &str = "ca.db";

/// The open store. Clones share everything.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    data_dir: PathBuf,
    trust_domain: TrustDomain,
    verifier_key: String,
    clock: SharedClock,
    readers: SqlitePool,
    writer: WriterHandle,
    published: Arc<Published>,
}

/// What the last commit left in memory; the writer alone changes it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) revision: watch::Sender<u64>,
    pub(crate) audit_size: watch::Sender<u64>,
    pub(crate) mesh: watch::Sender<MeshPair>,
    pub(crate) recent: Mutex<VecDeque<ChangeRow>>,
    pub(crate) denylist: watch::Sender<Arc<Denylist>>,
}

impl Published {
    fn denylist(&self) -> Denylist {
        Denylist::clone(&self.denylist.borrow())
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<ChangeRow>> {
        // Rows go in whole, so a panic elsewhere did not break the queue.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Opens or creates `DATA/ca.db`, checks it and reads the registry into memory.
    ///
    /// Must run inside a tokio runtime: it starts the writer, which ends with the last clone.
    pub async fn open(
        data_dir: &Path,
        trust_domain: &TrustDomain,
        clock: SharedClock,
    ) -> Result<Self, StoreError> {
        open::open(data_dir, trust_domain, clock).await
    }

    /// Runs `job` in the writer's next transaction, together with other callers' jobs.
    ///
    /// Returns once the transaction is durable. When the job fails, what it wrote and every
    /// event that it logged are undone, and the others of the batch go on.
    pub async fn write<T, E, F>(&self, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> FnOnce(&'t mut WriteTx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        self.inner.writer.write(job).await
    }

    /// Connections for statements that only read.
    pub fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }

    /// The registry as of the last commit.
    pub fn registry(&self) -> Arc<Snapshot> {
        self.inner.published.snapshot.load_full()
    }

    /// Ticks with the change-log revision after each commit that changed the registry.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.inner.published.revision.subscribe()
    }

    /// Ticks with the size of the audit log after each commit.
    pub fn audit_sizes(&self) -> watch::Receiver<u64> {
        self.inner.published.audit_size.subscribe()
    }

    /// Ticks with each published mesh revision.
    pub fn mesh(&self) -> watch::Receiver<MeshPair> {
        self.inner.published.mesh.subscribe()
    }

    /// Ticks with each change of the deny-list.
    pub fn denylists(&self) -> watch::Receiver<Arc<Denylist>> {
        self.inner.published.denylist.subscribe()
    }

    /// Hands the registry every agent at start; later ones go through [`WriteTx::change`].
    pub fn load_agents(&self, agents: Vec<RegisteredAgent>) {
        let published = &self.inner.published;
        published.snapshot.rcu(|old| {
            let mut new = Snapshot::clone(old);
            new.replace_agents(agents.clone());
            new
        });
        published.revision.send_modify(|_| {});
    }

    /// Resolves when the writer had to stop: a commit failed, and nothing may be retried.
    pub async fn failed(&self) -> String {
        self.inner.writer.failed().await
    }

    /// The clock that stamps what is written.
    pub fn clock(&self) -> &SharedClock {
        &self.inner.clock
    }

    /// The trust domain that this data folder belongs to.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.inner.trust_domain
    }

    /// The key that verifies checkpoints of this log, as `name+hash+base64`.
    pub fn verifier_key(&self) -> &str {
        &self.inner.verifier_key
    }

    /// Ends the writer once all that waits is written, and closes the files.
    pub async fn close(&self) {
        self.inner.readers.close().await;
        self.inner.writer.close().await;
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.inner.data_dir
    }
}
