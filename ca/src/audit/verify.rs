//! Verifies a copy of the store offline: every leaf, every checkpoint, and every record that the
//! leaves speak of. Writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ravelin_policies::{SourceFile, set_digest};
use ravelin_proto::merkle::checkpoint::{Checkpoint, NoteError, VerifierKey};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::canonical::to_canonical;
use super::check::{CheckedLeaf, LogCheck, LogSummary, Mismatch, is_plain_note};
use super::key::open_note;
use super::replay::Replay;
use crate::limits::CHANGES_KEPT;
use crate::store::rows::{CheckpointRow, LeafRow, StoreCopy};
use crate::store::{StoreError, decision_columns, segment_digest};

/// What the verifier brings along. Without it the log is only held against itself.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// The log's key as `name+hash+base64`, kept apart from the store.
    pub verifier_key: Option<String>,
    /// A signed checkpoint that was kept apart: finds a cut end and a fork.
    pub witness: Option<String>,
}

/// What a store that verifies holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// The log itself.
    pub log: LogSummary,
    /// Registration entries.
    pub entries: usize,
    /// Mesh revisions.
    pub mesh_revisions: usize,
    /// Segments of the decision log.
    pub segments: usize,
    /// Records in them.
    pub decisions: u64,
}

/// Why a store does not verify, or could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum VerifyFailure {
    /// A record is not what the log says.
    #[error("{0}")]
    Tampered(#[from] Mismatch),
    /// The database cannot be read.
    #[error("the store cannot be read")]
    Unreadable(#[from] StoreError),
    /// The key or checkpoint that was brought along is malformed.
    #[error("the trusted key or checkpoint is malformed")]
    Options(#[from] NoteError),
    /// The checkpoint that was brought along is not signed by the log's key.
    #[error("the checkpoint that was kept is not signed by the log's key")]
    Witness,
}

/// Verifies the store at `path`: a data folder or a database file.
pub async fn verify_store(path: &Path) -> Result<VerifyReport, VerifyFailure> {
    verify_store_with(path, &VerifyOptions::default()).await
}

/// The same against a key and a checkpoint that were kept apart.
pub async fn verify_store_with(
    path: &Path,
    options: &VerifyOptions,
) -> Result<VerifyReport, VerifyFailure> {
    let mut copy = StoreCopy::open(path).await?;
    copy.check_integrity().await?;
    let leaves = copy.leaves().await?;
    let key = match &options.verifier_key {
        Some(text) => Some(VerifierKey::parse(text)?),
        None => None,
    };
    let witness = witness(options, key.as_ref(), &leaves)?;
    let mut check = LogCheck::new(key, witness);
    let mut replay = Replay::default();
    check_log(&mut check, &mut replay, &leaves, copy.checkpoints().await?)?;
    let log = check.finish()?;
    check_meta(&mut copy, &leaves, &replay).await?;
    check_changes(&mut copy, &replay).await?;
    compare("entry", &replay.entries, &copy.entries().await?)?;
    check_denylist(&mut copy, &replay).await?;
    check_mesh(&mut copy, &replay).await?;
    let decisions = check_segments(&mut copy, &replay).await?;
    Ok(VerifyReport {
        log,
        entries: replay.entries.len(),
        mesh_revisions: replay.mesh.len(),
        segments: replay.segments.len(),
        decisions,
    })
}

fn witness(
    options: &VerifyOptions,
    key: Option<&VerifierKey>,
    leaves: &[LeafRow],
) -> Result<Option<Checkpoint>, VerifyFailure> {
    let Some(note) = &options.witness else {
        return Ok(None);
    };
    let named = leaves.first().and_then(|leaf| {
        let json: Value = serde_json::from_str(&leaf.json).ok()?;
        VerifierKey::parse(json.get("fields")?.get("verifier_key")?.as_str()?).ok()
    });
    let key = key.cloned().or(named).ok_or(VerifyFailure::Witness)?;
    open_note(note, &key)
        .ok_or(VerifyFailure::Witness)
        .map(Some)
}

fn check_log(
    check: &mut LogCheck,
    replay: &mut Replay,
    leaves: &[LeafRow],
    checkpoints: Vec<CheckpointRow>,
) -> Result<(), Mismatch> {
    let mut numbers = 1_u64..;
    for row in &checkpoints {
        if numbers.next() != Some(row.number) {
            return Err(Mismatch::new(
                "checkpoint",
                row.number,
                "one before it is missing",
            ));
        }
        if !is_plain_note(&row.note) {
            return Err(Mismatch::new(
                "checkpoint",
                row.number,
                "is not a plain signed note",
            ));
        }
    }
    let mut checkpoints = checkpoints.iter().peekable();
    for row in leaves {
        let leaf = check.leaf(row.index, &row.json)?;
        check_columns(row, &leaf)?;
        replay.leaf(&leaf)?;
        let size = row.index.saturating_add(1);
        if let Some(next) = checkpoints.next_if(|next| next.size == size) {
            check.checkpoint(&next.note)?;
        }
    }
    match checkpoints.next() {
        Some(left) => Err(Mismatch::new(
            "checkpoint",
            left.number,
            format!("covers {} leaves, which are not there", left.size),
        )),
        None => Ok(()),
    }
}

fn check_columns(row: &LeafRow, leaf: &CheckedLeaf) -> Result<(), Mismatch> {
    if row.columns != leaf.columns {
        return Err(Mismatch::new(
            "leaf",
            row.index,
            "has a column that differs from its JSON",
        ));
    }
    if row.hash != leaf.hash {
        return Err(Mismatch::new(
            "leaf",
            row.index,
            "has another hash than its JSON",
        ));
    }
    Ok(())
}

async fn check_meta(
    copy: &mut StoreCopy,
    leaves: &[LeafRow],
    replay: &Replay,
) -> Result<(), VerifyFailure> {
    let opened: Value = leaves
        .first()
        .and_then(|leaf| serde_json::from_str(&leaf.json).ok())
        .unwrap_or_default();
    let trust_domain = opened
        .get("fields")
        .and_then(|fields| fields.get("trust_domain"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let mut want = BTreeMap::from([("trust_domain".to_owned(), trust_domain.to_owned())]);
    if replay.denylist_number > 0 {
        let number = replay.denylist_number.to_string();
        want.insert("denylist_number".to_owned(), number);
    }
    Ok(compare("meta", &want, &copy.meta().await?)?)
}

/// The change log holds its newest rows, without a gap; those of agents have no leaf of their own.
async fn check_changes(copy: &mut StoreCopy, replay: &Replay) -> Result<(), VerifyFailure> {
    let rows = copy.changes().await?;
    let first = rows.first().map_or(u64::MAX, |row| row.revision);
    let last = rows.last().map_or(0, |row| row.revision);
    if !rows.is_empty() && first > last.saturating_sub(CHANGES_KEPT).saturating_add(1) {
        return Err(Mismatch::new("change", first, "is not the oldest that must be there").into());
    }
    for (row, revision) in rows.iter().zip(first..) {
        if row.revision != revision {
            return Err(Mismatch::new("change", revision, "is missing").into());
        }
        match replay.changes.get(&revision) {
            Some(want) if want != row => {
                return Err(Mismatch::new("change", revision, "is not what its leaf says").into());
            }
            None if row.kind != "agent" => {
                return Err(Mismatch::new("change", revision, "has no leaf").into());
            }
            Some(_) | None => {}
        }
    }
    match replay.changes.last_key_value() {
        Some((revision, _)) if *revision > last => {
            Err(Mismatch::new("change", revision, "is missing").into())
        }
        Some(_) | None => Ok(()),
    }
}

/// Two maps must be equal; names the first record that is not.
fn compare(
    what: &'static str,
    want: &BTreeMap<String, String>,
    got: &BTreeMap<String, String>,
) -> Result<(), Mismatch> {
    for (id, text) in want {
        match got.get(id) {
            Some(found) if found == text => {}
            Some(_) => return Err(Mismatch::new(what, id, "differs from what the log says")),
            None => return Err(Mismatch::new(what, id, "is missing")),
        }
    }
    match got.keys().find(|id| !want.contains_key(*id)) {
        Some(extra) => Err(Mismatch::new(what, extra, "is not in the log")),
        None => Ok(()),
    }
}

async fn check_denylist(copy: &mut StoreCopy, replay: &Replay) -> Result<(), VerifyFailure> {
    let rows = copy.denylist().await?;
    let mut got = BTreeMap::new();
    for row in rows {
        let parsed: Value = serde_json::from_str(&row.json).unwrap_or_default();
        let expires = parsed
            .get("expires_at")
            .and_then(Value::as_str)
            .and_then(ravelin_proto::time::Timestamp::parse_rfc3339)
            .map(ravelin_proto::time::Timestamp::unix_millis);
        if expires != Some(row.expires_ms) || to_canonical(&parsed) != row.json {
            return Err(Mismatch::new("denied identity", row.id, "differs from its JSON").into());
        }
        got.insert(row.id, row.json);
    }
    Ok(compare("denied identity", &replay.denylist, &got)?)
}

async fn check_mesh(copy: &mut StoreCopy, replay: &Replay) -> Result<(), VerifyFailure> {
    let wrong = |revision: &u64, detail: &str| Mismatch::new("mesh revision", revision, detail);
    let contents = copy.mesh_contents().await?;
    for (digest, content) in &contents {
        if hex::encode(Sha256::digest(content)) != *digest {
            return Err(Mismatch::new("mesh content", digest, "has another digest").into());
        }
    }
    let revisions = copy.mesh_revisions().await?;
    for (revision, want) in &replay.mesh {
        let found = revisions
            .get(revision)
            .ok_or_else(|| wrong(revision, "is missing"))?;
        if found != want {
            return Err(wrong(revision, "differs from what the log says").into());
        }
        let files: Vec<SourceFile> = found
            .files
            .iter()
            .filter_map(|(path, digest)| {
                let content = String::from_utf8(contents.get(digest)?.clone()).ok()?;
                Some(SourceFile {
                    path: path.clone(),
                    content,
                })
            })
            .collect();
        if files.len() != found.files.len() || set_digest(&files) != found.digest {
            return Err(wrong(revision, "has other files than its digest says").into());
        }
    }
    if let Some(extra) = revisions
        .keys()
        .find(|number| !replay.mesh.contains_key(number))
    {
        return Err(wrong(extra, "is not in the log").into());
    }
    let used: BTreeSet<&String> = revisions
        .values()
        .flat_map(|revision| revision.files.values())
        .collect();
    match contents.keys().find(|digest| !used.contains(digest)) {
        Some(extra) => Err(Mismatch::new("mesh content", extra, "belongs to no revision").into()),
        None => Ok(()),
    }
}

async fn check_segments(copy: &mut StoreCopy, replay: &Replay) -> Result<u64, VerifyFailure> {
    let wrong = |leaf: u64, detail: &str| Mismatch::new("decision segment of leaf", leaf, detail);
    let segments = copy.segments().await?;
    if let Some(extra) = segments
        .keys()
        .find(|leaf| !replay.segments.contains_key(leaf))
    {
        return Err(wrong(*extra, "is not in the log").into());
    }
    let mut decisions = 0_u64;
    for (leaf, want) in &replay.segments {
        let found = segments
            .get(leaf)
            .ok_or_else(|| wrong(*leaf, "is missing"))?;
        if (
            &found.segment_id,
            &found.agent_id,
            found.records,
            found.lost,
        ) != (&want.segment_id, &want.agent_id, want.records, want.lost)
        {
            return Err(wrong(*leaf, "differs from what the log says").into());
        }
        let rows = copy.decisions(*leaf).await?;
        for (row, position) in rows.iter().zip(0_i64..) {
            let json: Value = serde_json::from_str(&row.json).unwrap_or_default();
            if row.position != position || row.columns != decision_columns(&json) {
                return Err(Mismatch::new(
                    "decision",
                    format!("{leaf}/{position}"),
                    "has a column that differs from its JSON",
                )
                .into());
            }
        }
        let lines: Vec<String> = rows.into_iter().map(|row| row.json).collect();
        if u64::try_from(lines.len()) != Ok(want.records) || segment_digest(&lines) != want.digest {
            return Err(wrong(*leaf, "has other records than its digest says").into());
        }
        decisions = decisions.saturating_add(want.records);
    }
    let stored = copy.decision_count().await?;
    if stored != decisions {
        return Err(Mismatch::new("decisions", stored, "records that no segment has").into());
    }
    Ok(decisions)
}
