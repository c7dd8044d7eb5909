//! Publishing a proposal: revision and entries in one transaction, or nothing.

use std::collections::BTreeSet;

use ravelin_proto::pb::ravelin::v1 as pb;

use super::proposal::{ENTRY_ID_PREFIX, Proposal};
use crate::store::{MeshDraft, MeshRecord, Store, StoreError, WriteTx};

/// What a publication came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The current revision now.
    pub revision: u64,
    /// True when the set was published already and nothing was written.
    pub is_unchanged: bool,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Somebody else published in between.
    #[error("the current revision is {current}, not {expected}; plan again")]
    BaseRevision {
        /// What the caller planned on.
        expected: u64,
        /// What it is.
        current: u64,
    },
    /// There is no such revision.
    #[error("there is no revision {0}")]
    NoRevision(u64),
    /// An earlier revision that this program no longer accepts.
    #[error("revision {revision} has an error by today's rules")]
    Refused {
        /// Its number.
        revision: u64,
        /// What is wrong.
        diagnostics: Vec<pb::Diagnostic>,
    },
    /// The store failed.
    #[error("the revision could not be stored")]
    Store(#[from] StoreError),
}

/// Parses a revision that is in the store.
pub fn parse_record(store: &Store, record: &MeshRecord) -> Result<Proposal, PublishError> {
    let files: Vec<pb::MeshFile> = record
        .files
        .iter()
        .map(|(path, content)| pb::MeshFile {
            path: path.clone(),
            content: content.clone(),
        })
        .collect();
    Proposal::parse(&files, store.trust_domain()).map_err(|diagnostics| PublishError::Refused {
        revision: record.revision,
        diagnostics,
    })
}

/// Publishes a proposal as the next revision, unless it is the current one already.
pub async fn apply(
    store: &Store,
    proposal: Proposal,
    git_commit: String,
    base_revision: u64,
    actor: String,
) -> Result<Published, PublishError> {
    publish(store, proposal, git_commit, base_revision, 0, actor).await
}

/// Publishes the content of an earlier revision as a new one.
pub async fn roll_back(
    store: &Store,
    revision: u64,
    actor: String,
) -> Result<Published, PublishError> {
    let record = store
        .mesh_record(revision)
        .await?
        .ok_or(PublishError::NoRevision(revision))?;
    let proposal = parse_record(store, &record)?;
    publish(store, proposal, record.git_commit, 0, revision, actor).await
}

async fn publish(
    store: &Store,
    proposal: Proposal,
    git_commit: String,
    base_revision: u64,
    rolled_back_to: u64,
    actor: String,
) -> Result<Published, PublishError> {
    store
        .write(move |tx| {
            Box::pin(async move {
                let current = tx.mesh_revision().await?;
                if base_revision != 0 && base_revision != current {
                    return Err(PublishError::BaseRevision {
                        expected: base_revision,
                        current,
                    });
                }
                if current > 0 && tx.mesh_digest(current).await? == proposal.digest() {
                    return Ok(Published {
                        revision: current,
                        is_unchanged: true,
                    });
                }
                let draft = MeshDraft {
                    digest: proposal.digest().to_owned(),
                    git_commit,
                    files: proposal.files().clone(),
                    rolled_back_to,
                };
                replace_entries(tx, &proposal, &actor).await?;
                let revision = tx.publish_mesh(&draft, &actor).await?;
                Ok(Published {
                    revision,
                    is_unchanged: false,
                })
            })
        })
        .await
}

/// Entries of the mesh become those of the proposal; all others stay.
async fn replace_entries(
    tx: &mut WriteTx,
    proposal: &Proposal,
    actor: &str,
) -> Result<(), StoreError> {
    let entries = proposal.entries();
    let wanted: BTreeSet<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
    let surplus: Vec<String> = tx.with_snapshot(|registry| {
        registry
            .entries()
            .map(|entry| entry.id.clone())
            .filter(|id| id.starts_with(ENTRY_ID_PREFIX) && !wanted.contains(id.as_str()))
            .collect()
    });
    for id in surplus {
        tx.delete_entry(&id, actor).await?;
    }
    for entry in entries {
        tx.put_entry(entry, actor).await?;
    }
    Ok(())
}
