//! Checks a log leaf by leaf: canonical text, place, time, tree, signed checkpoints. Pure.
//!
//! Fed by a store copy or an export, in order: leaves, and each checkpoint right behind the last
//! leaf that it covers.

use ravelin_proto::merkle::checkpoint::{Checkpoint, SignedNote, VerifierKey};
use ravelin_proto::merkle::{CompactTree, Hash, leaf_hash};
use serde_json::Value;

use super::canonical::to_canonical;
use super::event::Columns;
use super::key::open_note;
use super::log::OPENED;

/// Where a log does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {row}: {detail}")]
pub struct Mismatch {
    /// What the record is, such as `leaf` or `entry`.
    pub what: &'static str,
    /// Which one.
    pub row: String,
    /// What does not fit.
    pub detail: String,
}

impl Mismatch {
    pub(crate) fn new(what: &'static str, row: impl ToString, detail: impl Into<String>) -> Self {
        Self {
            what,
            row: row.to_string(),
            detail: detail.into(),
        }
    }
}

/// A leaf that passed, with its parsed JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedLeaf {
    /// Its place.
    pub index: u64,
    /// Its hash.
    pub hash: Hash,
    /// The whole object.
    pub json: Value,
    pub(crate) columns: Columns,
}

impl CheckedLeaf {
    /// The event's kind.
    pub fn kind(&self) -> &str {
        &self.columns.kind
    }

    /// One of the event's facts.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.json.get("fields").and_then(|fields| fields.get(name))
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.field(name).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.field(name).and_then(Value::as_u64).unwrap_or(0)
    }
}

/// The state of a check.
#[derive(Debug, Clone)]
pub struct LogCheck {
    tree: CompactTree,
    key: Option<VerifierKey>,
    last_time_ms: i64,
    checkpoints: u64,
    last_checkpoint: Option<Checkpoint>,
    witness: Option<Checkpoint>,
}

impl LogCheck {
    /// A check that trusts `key`, or else the key that leaf 0 names, and that wants the log to
    /// contain what `witness` saw of it.
    pub fn new(key: Option<VerifierKey>, witness: Option<Checkpoint>) -> Self {
        Self {
            tree: CompactTree::default(),
            key,
            last_time_ms: i64::MIN,
            checkpoints: 0,
            last_checkpoint: None,
            witness,
        }
    }

    /// Takes the next leaf.
    pub fn leaf(&mut self, index: u64, text: &str) -> Result<CheckedLeaf, Mismatch> {
        let wrong = |detail: &str| Mismatch::new("leaf", index, detail);
        if index != self.tree.size() {
            return Err(Mismatch::new(
                "leaf",
                self.tree.size(),
                format!("is missing; {index} stands in its place"),
            ));
        }
        let json: Value = serde_json::from_str(text).map_err(|_| wrong("is not JSON"))?;
        if to_canonical(&json) != text {
            return Err(wrong("is not canonical JSON"));
        }
        if json.get("index").and_then(Value::as_u64) != Some(index) {
            return Err(wrong("names another index"));
        }
        let columns = Columns::of(&json);
        if columns.time_ms < self.last_time_ms {
            return Err(wrong("is older than the leaf before it"));
        }
        self.last_time_ms = columns.time_ms;
        let hash = leaf_hash(text.as_bytes());
        self.tree.append(hash);
        let leaf = CheckedLeaf {
            index,
            hash,
            json,
            columns,
        };
        if index == 0 {
            self.opened(&leaf)?;
        }
        self.compare_witness()?;
        Ok(leaf)
    }

    fn opened(&mut self, leaf: &CheckedLeaf) -> Result<(), Mismatch> {
        let wrong = |detail: &str| Mismatch::new("leaf", 0, detail);
        if leaf.kind() != OPENED {
            return Err(wrong("does not open the log"));
        }
        let named = VerifierKey::parse(leaf.text("verifier_key"))
            .map_err(|_| wrong("names no verifier key"))?;
        if named.name != leaf.text("origin") {
            return Err(wrong("names a key of another log"));
        }
        match &self.key {
            Some(trusted) if *trusted != named => {
                Err(wrong("names another key than the trusted one"))
            }
            Some(_) => Ok(()),
            None => {
                self.key = Some(named);
                Ok(())
            }
        }
    }

    fn compare_witness(&self) -> Result<(), Mismatch> {
        match &self.witness {
            Some(witness)
                if witness.size == self.tree.size() && witness.root != self.tree.root() =>
            {
                Err(Mismatch::new(
                    "log",
                    witness.size,
                    "has another root at this size than the checkpoint that was kept",
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Takes a checkpoint over exactly the leaves so far.
    pub fn checkpoint(&mut self, text: &str) -> Result<&Checkpoint, Mismatch> {
        let size = self.tree.size();
        let wrong = |detail: &str| Mismatch::new("checkpoint", size, detail);
        let key = self.key.as_ref().ok_or_else(|| wrong("has no key"))?;
        let checkpoint =
            open_note(text, key).ok_or_else(|| wrong("is not signed by the log's key"))?;
        if checkpoint.size != size {
            return Err(Mismatch::new(
                "checkpoint",
                size,
                format!("names size {}", checkpoint.size),
            ));
        }
        if checkpoint.root != self.tree.root() {
            return Err(wrong("names another root than the leaves give"));
        }
        self.checkpoints = self.checkpoints.saturating_add(1);
        Ok(self.last_checkpoint.insert(checkpoint))
    }

    /// The log so far ends here: its last leaf must stand under a checkpoint, and nothing that the
    /// witness saw may be gone.
    pub fn finish(self) -> Result<LogSummary, Mismatch> {
        let size = self.tree.size();
        if let Some(witness) = &self.witness
            && witness.size > size
        {
            return Err(Mismatch::new(
                "log",
                size,
                format!(
                    "ends here, but a checkpoint over {} leaves was kept: its end was cut off",
                    witness.size
                ),
            ));
        }
        match (self.last_checkpoint, self.key) {
            (Some(last), Some(key)) if last.size == size => Ok(LogSummary {
                size,
                root: last.root,
                checkpoints: self.checkpoints,
                verifier_key: key.to_text(),
            }),
            (Some(last), _) => Err(Mismatch::new(
                "log",
                size,
                format!("goes on behind its last checkpoint over {}", last.size),
            )),
            (None, _) => Err(Mismatch::new("log", size, "has no checkpoint")),
        }
    }
}

/// What a log that verifies amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSummary {
    /// Number of leaves.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// Number of checkpoints.
    pub checkpoints: u64,
    /// The key that signed them.
    pub verifier_key: String,
}

/// True when a stored note has exactly one signature and no other byte than its canonical text.
pub(crate) fn is_plain_note(text: &str) -> bool {
    SignedNote::parse(text).is_ok_and(|note| note.signatures.len() == 1 && note.to_text() == text)
}
