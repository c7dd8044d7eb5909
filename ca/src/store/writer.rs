//! The one writer: jobs of many callers in one transaction, one signed checkpoint per commit.
//!
//! Order that a crash cannot break: rows, leaves, checkpoint and change log are one transaction
//! (synchronous=FULL); memory and callers learn of it after the commit alone. A commit that fails
//! stops the writer for good: nothing is retried on a disk that lost a write.

use std::fs::File;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::clock::SharedClock;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};

use super::changes::{Change, ChangeRow};
use super::denylist::Denylist;
use super::open::DENYLIST_NUMBER;
use super::{Published, StoreError, audit, statements};
use crate::audit::event::{Event, Leaf, StagedLeaf};
use crate::audit::log::AuditLog;
use crate::limits::{CHANGES_KEPT, CHANGES_RECENT_MAX, WRITE_BATCH_MAX, WRITE_QUEUE_MAX};
use crate::registry::Snapshot;

type Finish = Box<dyn FnOnce(Result<(), String>) + Send>;
type Job = Box<dyn for<'t> FnOnce(&'t mut WriteTx) -> BoxFuture<'t, Outcome> + Send>;

/// What travels to the writer.
enum Message {
    Job(Job),
    Close(oneshot::Sender<()>),
}

/// What a job came to: whether its writes stay, and how its caller learns of it.
struct Outcome {
    is_kept: bool,
    finish: Finish,
}

/// The writer's connection inside of a transaction, and what the transaction stages.
#[derive(Debug)]
pub struct WriteTx {
    conn: SqliteConnection,
    now: Timestamp,
    log: AuditLog,
    published: Arc<Published>,
    leaves: Vec<StagedLeaf>,
    changes: Vec<StagedChange>,
    revision: u64,
    working: Option<Snapshot>,
    /// Held as long as the writer lives: the data folder is ours alone.
    lock: File,
}

#[derive(Debug)]
struct StagedChange {
    row: ChangeRow,
    change: Change,
}

impl WriteTx {
    pub(super) fn new(
        conn: SqliteConnection,
        log: AuditLog,
        published: Arc<Published>,
        now: Timestamp,
        lock: File,
    ) -> Self {
        let revision = published.snapshot.load().revision();
        Self {
            conn,
            now,
            log,
            published,
            leaves: Vec::new(),
            changes: Vec::new(),
            revision,
            working: None,
            lock,
        }
    }

    /// The connection, for statements of files in `store/`.
    pub(crate) fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.conn
    }

    /// The time of this transaction.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The registry with everything that was staged before in this transaction.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        match &self.working {
            Some(working) => Arc::new(working.clone()),
            None => self.published.snapshot.load_full(),
        }
    }

    /// Looks at the registry with everything that was staged before, without a copy.
    pub fn with_snapshot<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        match &self.working {
            Some(working) => look(working),
            None => look(&self.published.snapshot.load()),
        }
    }

    /// Logs an event. The leaf is durable once [`super::Store::write`] returns.
    pub fn audit(&mut self, event: Event) -> Result<Leaf, StoreError> {
        let staged = self.log.stage(self.leaves.len(), event, self.now)?;
        let leaf = staged.leaf();
        self.leaves.push(staged);
        Ok(leaf)
    }

    /// Stages a change of what the CA keeps in memory; returns its change-log revision.
    pub fn change(&mut self, change: Change) -> u64 {
        self.revision = self.next_revision();
        let published = &self.published;
        let working = self
            .working
            .get_or_insert_with(|| Snapshot::clone(&published.snapshot.load()));
        let row = ChangeRow::staged(working, self.revision, &change);
        self.changes.push(StagedChange { row, change });
        self.revision
    }

    /// The revision that the next [`Self::change`] gets.
    pub fn next_revision(&self) -> u64 {
        self.revision.saturating_add(1)
    }

    async fn statement(&mut self, text: &'static str) -> Result<(), StoreError> {
        sqlx::raw_sql(text).execute(&mut self.conn).await?;
        Ok(())
    }

    /// Runs one job under a savepoint; undoes rows and staged state when it fails.
    async fn run_job(&mut self, job: Job) -> Result<Finish, StoreError> {
        let (leaves, changes, revision) = (self.leaves.len(), self.changes.len(), self.revision);
        self.statement("SAVEPOINT job").await?;
        let outcome = job(self).await;
        if !outcome.is_kept {
            self.statement("ROLLBACK TO job").await?;
            self.leaves.truncate(leaves);
            if self.changes.len() > changes {
                self.changes.truncate(changes);
                self.revision = revision;
                self.rebuild_working();
            }
        }
        self.statement("RELEASE job").await?;
        Ok(outcome.finish)
    }

    fn rebuild_working(&mut self) {
        if self.changes.is_empty() {
            self.working = None;
            return;
        }
        let mut working = Snapshot::clone(&self.published.snapshot.load());
        for staged in &self.changes {
            working.apply(staged.row.revision, &staged.change);
        }
        self.working = Some(working);
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        if !self.leaves.is_empty() {
            let checkpoint = self.log.checkpoint_over(&self.leaves)?;
            audit::insert_leaves(&mut self.conn, &self.leaves).await?;
            audit::insert_checkpoint(&mut self.conn, &checkpoint).await?;
        }
        for staged in &self.changes {
            sqlx::query(statements::CHANGES_INSERT)
                .bind(to_i64(staged.row.revision))
                .bind(&staged.row.kind)
                .bind(&staged.row.subject)
                .bind(&staged.row.parent_before)
                .bind(staged.row.is_structural)
                .execute(&mut self.conn)
                .await?;
        }
        let denied = self.changes.iter().rev().find(|staged| {
            matches!(
                staged.change,
                Change::DeniedAdded(_) | Change::DeniedRemoved(_)
            )
        });
        if let Some(staged) = denied {
            sqlx::query(statements::META_SET)
                .bind(DENYLIST_NUMBER)
                .bind(staged.row.revision.to_string())
                .execute(&mut self.conn)
                .await?;
        }
        if !self.changes.is_empty() {
            sqlx::query(statements::CHANGES_TRIM)
                .bind(to_i64(self.revision.saturating_sub(CHANGES_KEPT)))
                .execute(&mut self.conn)
                .await?;
        }
        Ok(())
    }

    /// After the commit: what readers in memory see.
    fn publish(&mut self) {
        let published = &self.published;
        self.log.commit(&self.leaves);
        // INVARIANT: rows first, so that whoever sees a revision finds every row up to it.
        {
            let mut recent = published.recent();
            recent.extend(self.changes.iter().map(|staged| staged.row.clone()));
            let surplus = recent.len().saturating_sub(CHANGES_RECENT_MAX);
            recent.drain(..surplus);
        }
        if let Some(working) = self.working.take() {
            published.snapshot.store(Arc::new(working));
        }
        let mut denylist: Option<Denylist> = None;
        for staged in self.changes.drain(..) {
            match staged.change {
                Change::Mesh(record) => published.mesh.send_modify(|pair| {
                    pair.previous = pair.current.replace(record);
                }),
                Change::DeniedAdded(entry) => {
                    let list = denylist.get_or_insert_with(|| published.denylist());
                    list.number = staged.row.revision;
                    list.entries.insert(entry.id.clone(), entry);
                }
                Change::DeniedRemoved(id) => {
                    let list = denylist.get_or_insert_with(|| published.denylist());
                    list.number = staged.row.revision;
                    list.entries.remove(&id);
                }
                Change::EntryUpserted(_)
                | Change::EntryRemoved { .. }
                | Change::AgentUpserted(_)
                | Change::AgentRemoved(_) => {}
            }
        }
        if let Some(denylist) = denylist {
            published.denylist.send_replace(Arc::new(denylist));
        }
        if *published.revision.borrow() != self.revision {
            published.revision.send_replace(self.revision);
        }
        if !self.leaves.is_empty() {
            self.leaves.clear();
            published.audit_size.send_replace(self.log.size());
        }
    }

    async fn commit(&mut self, batch: Vec<Job>) -> Result<Vec<Finish>, (Vec<Finish>, StoreError)> {
        let mut finishes = Vec::with_capacity(batch.len());
        let result = async {
            self.statement("BEGIN IMMEDIATE").await?;
            for job in batch {
                finishes.push(self.run_job(job).await?);
            }
            self.flush().await?;
            self.statement("COMMIT").await
        }
        .await;
        match result {
            Ok(()) => {
                self.publish();
                Ok(finishes)
            }
            Err(error) => Err((finishes, error)),
        }
    }
}

/// How callers reach the writer.
#[derive(Debug, Clone)]
pub(super) struct WriterHandle {
    jobs: mpsc::Sender<Message>,
    failure: watch::Receiver<Option<String>>,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcome")
            .field("is_kept", &self.is_kept)
            .finish_non_exhaustive()
    }
}

impl WriterHandle {
    /// Starts the writer. It ends when every handle is gone, or for good when a commit fails.
    pub(super) fn start(tx: WriteTx, clock: SharedClock) -> Self {
        let (jobs, queue) = mpsc::channel(WRITE_QUEUE_MAX);
        let (stopped, failure) = watch::channel(None);
        tokio::spawn(run(tx, queue, stopped, clock));
        Self { jobs, failure }
    }

    pub(super) async fn write<T, E, F>(&self, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> FnOnce(&'t mut WriteTx) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel::<Result<T, E>>();
        let job: Job = Box::new(move |tx| {
            Box::pin(async move {
                let result = job(tx).await;
                Outcome {
                    is_kept: result.is_ok(),
                    finish: Box::new(move |committed| {
                        let result = match committed {
                            Ok(()) => result,
                            Err(why) => Err(E::from(StoreError::Stopped(why))),
                        };
                        // WHY: a caller that went away does not undo what is durable.
                        let _ = answer.send(result);
                    }),
                }
            })
        });
        if self.jobs.send(Message::Job(job)).await.is_err() {
            return Err(E::from(self.stopped()));
        }
        match answered.await {
            Ok(result) => result,
            Err(_) => Err(E::from(self.stopped())),
        }
    }

    fn stopped(&self) -> StoreError {
        let why = self.failure.borrow().clone();
        StoreError::Stopped(why.unwrap_or_else(|| "the writer ended".to_owned()))
    }

    pub(super) async fn close(&self) {
        let (closed, done) = oneshot::channel();
        if self.jobs.send(Message::Close(closed)).await.is_ok() {
            // An error says that the writer has ended already.
            let _ = done.await;
        }
    }

    pub(super) async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "the writer ended".to_owned(),
        }
    }
}

async fn run(
    mut tx: WriteTx,
    mut queue: mpsc::Receiver<Message>,
    stopped: watch::Sender<Option<String>>,
    clock: SharedClock,
) {
    let mut closing = None;
    while closing.is_none() {
        let Some(first) = queue.recv().await else {
            break;
        };
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Job(job) => batch.push(job),
                Message::Close(done) => {
                    closing = Some(done);
                    break;
                }
            }
            next = (batch.len() < WRITE_BATCH_MAX)
                .then(|| queue.try_recv().ok())
                .flatten();
        }
        if batch.is_empty() {
            continue;
        }
        // INVARIANT: time in the log never runs back, whatever the clock does.
        tx.now = clock.now().max(tx.now);
        match tx.commit(batch).await {
            Ok(finishes) => finishes.into_iter().for_each(|finish| finish(Ok(()))),
            Err((finishes, error)) => {
                let why = error_text(&error);
                tracing::error!(error = %why, "a commit failed; the store stops");
                stopped.send_replace(Some(why.clone()));
                for finish in finishes {
                    finish(Err(why.clone()));
                }
                return;
            }
        }
    }
    if let Err(error) = tx.conn.close().await {
        tracing::warn!(%error, "closing the database failed");
    }
    drop(tx.lock);
    if let Some(done) = closing {
        let _ = done.send(());
    }
}

fn error_text(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

pub(crate) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
