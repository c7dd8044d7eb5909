//! The growing log in memory: next index, tree, and the signer of checkpoints. Writes nothing itself.

use ravelin_proto::merkle::checkpoint::{Checkpoint, NoteSignature, SignedNote};
use ravelin_proto::merkle::{CompactTree, Hash, leaf_hash};
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_proto::time::Timestamp;
use serde_json::Value;

use super::event::{Columns, Event, StagedLeaf, leaf_json};
use super::key::AuditKey;
use crate::limits::AUDIT_EVENT_BYTES_MAX;
use crate::store::{StoreError, StoredCheckpoint};

/// The kind of leaf 0, which names the log and its key.
pub const OPENED: &str = "log.opened";

/// The log's name, unique among logs: the first line of each checkpoint.
pub fn origin_of(trust_domain: &TrustDomain) -> String {
    format!("{trust_domain}/ravelin/audit")
}

/// What the writer holds of the log.
#[derive(Debug)]
pub(crate) struct AuditLog {
    origin: String,
    key: AuditKey,
    tree: CompactTree,
    checkpoints: u64,
}

impl AuditLog {
    /// The log over these leaf hashes, after that many checkpoints.
    pub(crate) fn new(origin: String, key: AuditKey, leaves: &[Hash], checkpoints: u64) -> Self {
        let mut tree = CompactTree::default();
        for hash in leaves {
            tree.append(*hash);
        }
        Self {
            origin,
            key,
            tree,
            checkpoints,
        }
    }

    /// The public key as `name+hash+base64`.
    pub(crate) fn verifier_key(&self) -> String {
        self.key.verifier().to_text()
    }

    pub(crate) fn size(&self) -> u64 {
        self.tree.size()
    }

    pub(crate) fn root(&self) -> Hash {
        self.tree.root()
    }

    /// Gives an event its place behind what is committed and `staged` others.
    pub(crate) fn stage(
        &self,
        staged: usize,
        event: Event,
        now: Timestamp,
    ) -> Result<StagedLeaf, StoreError> {
        let index = self
            .tree
            .size()
            .saturating_add(u64::try_from(staged).unwrap_or(u64::MAX));
        let json = leaf_json(index, now, &event);
        if json.len() > AUDIT_EVENT_BYTES_MAX {
            return Err(StoreError::Event(format!(
                "`{}` takes {} bytes, the limit is {AUDIT_EVENT_BYTES_MAX}",
                event.kind,
                json.len()
            )));
        }
        let parsed: Value = serde_json::from_str(&json)
            .map_err(|error| StoreError::Event(format!("`{}`: {error}", event.kind)))?;
        Ok(StagedLeaf {
            index,
            hash: leaf_hash(json.as_bytes()),
            columns: Columns::of(&parsed),
            json,
        })
    }

    /// The signed checkpoint over what is committed and the staged leaves.
    pub(crate) fn checkpoint_over(
        &self,
        staged: &[StagedLeaf],
    ) -> Result<StoredCheckpoint, StoreError> {
        let mut tree = self.tree.clone();
        for leaf in staged {
            tree.append(leaf.hash);
        }
        let body = Checkpoint {
            origin: self.origin.clone(),
            size: tree.size(),
            root: tree.root(),
        }
        .to_note_body();
        let verifier = self.key.verifier();
        let signature = NoteSignature {
            name: verifier.name.clone(),
            key_hash: verifier.key_hash(),
            signature: self.key.sign(body.as_bytes())?,
        };
        let note = SignedNote {
            body,
            signatures: vec![signature],
        };
        Ok(StoredCheckpoint {
            number: self.checkpoints.saturating_add(1),
            size: tree.size(),
            note: note.to_text(),
        })
    }

    /// Takes committed leaves over.
    pub(crate) fn commit(&mut self, leaves: &[StagedLeaf]) {
        if leaves.is_empty() {
            return;
        }
        for leaf in leaves {
            self.tree.append(leaf.hash);
        }
        self.checkpoints = self.checkpoints.saturating_add(1);
    }
}
