//! `ravelin audit verify`: recomputes the whole log, from the running CA, from an export, or from a copy of the database.
//!
//! It trusts nothing that it reads but the checkpoint's signature: indexes without gaps, the root over all leaves, the
//! digest of every decision segment, no leaf beyond the checkpoint.

use crate::arguments::Shared;
use crate::connection::Ca;
use crate::exit::{Exit, Failure, Outcome, chain};
use crate::output::{Format, escape_text, print_one};
use clap::Args;
use ravelin_ca::audit::{VerifyFailure, VerifyOptions, verify};
use ravelin_proto::jwks::{Jwk, JwkKey};
use ravelin_proto::jws::JwsAlgorithm;
use ravelin_proto::merkle::checkpoint::{Checkpoint, SignedNote, VerifierKey};
use ravelin_proto::merkle::proof::verify_inclusion;
use ravelin_proto::merkle::tree::{CompactTree, Hash, leaf_hash};
use ravelin_proto::pb::ravelin::v1::{ExportRequest, InclusionProof, export_record};
use ravelin_runtime::crypto;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

/// What to verify.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin audit verify                      the log of the running CA
  ravelin audit verify audit.jsonl          an export, offline
  ravelin audit verify --store ca.db        a copy of the database, offline
Exit code 1: something was changed, removed, added or swapped.")]
pub(crate) struct VerifyArguments {
    /// An export of `ravelin audit export`
    #[arg(conflicts_with = "store")]
    export: Option<PathBuf>,
    /// A copy of the CA's database
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// A signed checkpoint that was kept apart (`ravelin audit checkpoint`): finds a cut end and a fork
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// The verifier key to trust (`name+hash+base64`); otherwise the one that comes with the log
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

/// Why a log is not what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Tampering {
    /// A leaf is missing, doubled or out of order.
    #[error("leaf {want} was expected, and leaf {found} came: one was removed, added or swapped")]
    Gap {
        /// Index that comes next.
        want: u64,
        /// Index that came.
        found: u64,
    },
    /// A leaf says another index than its place.
    #[error("leaf {0} does not carry its own index: it was swapped or changed")]
    Misplaced(u64),
    /// There is no checkpoint.
    #[error("the log has no checkpoint: its end was removed")]
    NoCheckpoint,
    /// The checkpoint cannot be read.
    #[error("the checkpoint is malformed: {0}")]
    Malformed(String),
    /// The signature is not of the key.
    #[error(
        "the signature of the checkpoint is not valid: it was changed, or signed by another key"
    )]
    Signature,
    /// There are leaves beyond the checkpoint, or too few.
    #[error(
        "the checkpoint is over {checkpoint} leaves, and there are {leaves}: some were added or removed"
    )]
    Size {
        /// Leaves that the checkpoint covers.
        checkpoint: u64,
        /// Leaves that there are.
        leaves: u64,
    },
    /// The root differs.
    #[error("the root of the tree is not the signed one: a leaf was changed")]
    Root,
    /// The log does not go through a checkpoint that was kept apart.
    #[error(
        "the log does not hold the {0} leaves of the checkpoint that was kept: its end was cut, or it was forked"
    )]
    Witness(u64),
    /// A segment is not the one that was sealed.
    #[error("the decision segment of leaf {0} is not the one that was sealed")]
    Segment(u64),
    /// A segment that no leaf names, or a leaf without its segment.
    #[error("leaf {0} and its decision segment do not belong together: one was removed or added")]
    SegmentMissing(u64),
    /// The inclusion proof does not hold.
    #[error("the proof does not lead to the signed root")]
    Proof,
    /// The database itself says so.
    #[error("{0}")]
    Store(String),
}

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    leaves: u64,
    segments: u64,
    root: String,
    origin: String,
    key: String,
}

/// Runs the verification.
pub(crate) async fn run(arguments: VerifyArguments, shared: Shared) -> Outcome {
    let witness = arguments.checkpoint.as_deref().map(read_note).transpose()?;
    let verified = match (&arguments.export, &arguments.store) {
        (None, Some(path)) => {
            let options = VerifyOptions {
                verifier_key: arguments.key.clone(),
                witness,
            };
            verify_store(path, options).await?
        }
        (Some(path), _) => {
            verify_file(path, Verifier::trusting(arguments.key.as_deref(), witness))?
        }
        (None, None) => {
            verify_running(
                &shared,
                Verifier::trusting(arguments.key.as_deref(), witness),
            )
            .await?
        }
    };
    match verified {
        Ok(verified) => report(&verified, &arguments, &shared),
        Err(tampering) => Err(Failure::no(format!("the log does not verify: {tampering}"))
            .with_help("keep the data as it is, and compare with an earlier export or checkpoint")),
    }
}

fn report(verified: &Verified, arguments: &VerifyArguments, shared: &Shared) -> Outcome {
    if shared.output != Format::Table {
        return print_one(
            json!({"verified": true, "leaves": verified.leaves, "segments": verified.segments,
                "root": verified.root, "origin": verified.origin, "key": verified.key}),
            shared.output,
        );
    }
    say!(
        "verified: {} leaves, {} decision segments",
        verified.leaves,
        verified.segments
    )?;
    say!("  log   {}", escape_text(&verified.origin))?;
    say!("  root  {}", verified.root)?;
    let note = if arguments.key.is_some() {
        "as given"
    } else {
        "from the log itself; pin it with --key"
    };
    say!("  key   {} ({note})", escape_text(&verified.key))?;
    Ok(Exit::Yes)
}

/// A copy of the database: every leaf, every checkpoint, and every record that the leaves speak of.
async fn verify_store(
    path: &Path,
    options: VerifyOptions,
) -> Result<Result<Verified, Tampering>, Failure> {
    if !path.exists() {
        return Err(Failure::usage(format!("there is no `{}`", path.display())));
    }
    match verify::verify_store_with(path, &options).await {
        Ok(report) => Ok(Ok(Verified {
            leaves: report.log.size,
            segments: u64::try_from(report.segments).unwrap_or(u64::MAX),
            root: hex::encode(report.log.root),
            origin: report
                .log
                .verifier_key
                .split('+')
                .next()
                .unwrap_or_default()
                .to_owned(),
            key: report.log.verifier_key,
        })),
        Err(VerifyFailure::Options(error)) => Err(Failure::usage(error.to_string())),
        Err(
            error @ (VerifyFailure::Tampered(_)
            | VerifyFailure::Witness
            | VerifyFailure::Unreadable(_)),
        ) => Ok(Err(Tampering::Store(chain(&error)))),
    }
}

async fn verify_running(
    shared: &Shared,
    mut verifier: Verifier,
) -> Result<Result<Verified, Tampering>, Failure> {
    let ca = Ca::connect(shared).await?;
    let mut stream = ca
        .audit()
        .export(tonic::Request::new(ExportRequest { from_index: 0 }))
        .await
        .map_err(|status| Failure::status("read the log", &status))?
        .into_inner();
    loop {
        let record = stream
            .message()
            .await
            .map_err(|status| Failure::status("read the log", &status))?;
        let Some(record) = record else { break };
        let fed = match record.item {
            Some(export_record::Item::Leaf(leaf)) => verifier.leaf(leaf.index, &leaf.json),
            Some(export_record::Item::Segment(segment)) => {
                verifier.segment(segment.leaf_index, &segment.records)
            }
            Some(export_record::Item::Checkpoint(point)) => {
                verifier.checkpoint(&point.note, point.verifier_key)
            }
            None => Ok(()),
        };
        if let Err(tampering) = fed {
            return Ok(Err(tampering));
        }
    }
    Ok(verifier.finish())
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Leaf { index: u64, json: String },
    Segment { leaf_index: u64, records: String },
    Checkpoint { note: String, verifier_key: String },
}

fn verify_file(
    path: &Path,
    mut verifier: Verifier,
) -> Result<Result<Verified, Tampering>, Failure> {
    let file = File::open(path).map_err(|error| Failure::file("read", path, error))?;
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|error| Failure::file("read", path, error))?;
        if line.trim().is_empty() {
            continue;
        }
        let line: Line = serde_json::from_str(&line).map_err(|error| {
            Failure::usage(format!(
                "`{}` line {} is not a record of an export: {error}",
                path.display(),
                number + 1
            ))
        })?;
        let fed = match line {
            Line::Leaf { index, json } => verifier.leaf(index, &json),
            Line::Segment {
                leaf_index,
                records,
            } => verifier.segment(leaf_index, records.as_bytes()),
            Line::Checkpoint { note, verifier_key } => verifier.checkpoint(&note, verifier_key),
        };
        if let Err(tampering) = fed {
            return Ok(Err(tampering));
        }
    }
    Ok(verifier.finish())
}

/// Recomputes a log record by record.
#[derive(Default)]
struct Verifier {
    tree: CompactTree,
    /// Digests that leaves name for their segments, until the segment comes.
    sealed: BTreeMap<u64, String>,
    /// Digests of segments, until their leaf comes.
    segments: BTreeMap<u64, String>,
    segment_count: u64,
    /// The key to trust: as given, else the one that comes with the first checkpoint.
    key: Option<String>,
    last: Option<Checkpoint>,
    /// A signed note that was kept apart, until the log has reached its size.
    witness: Option<String>,
    roots: BTreeMap<u64, Hash>,
}

impl Verifier {
    fn trusting(key: Option<&str>, witness: Option<String>) -> Self {
        Self {
            key: key.map(ToOwned::to_owned),
            witness,
            ..Self::default()
        }
    }

    fn leaf(&mut self, index: u64, json: &str) -> Result<(), Tampering> {
        let want = self.tree.size();
        if index != want {
            return Err(Tampering::Gap { want, found: index });
        }
        let content: Value = serde_json::from_str(json).map_err(|_| Tampering::Misplaced(index))?;
        if content.get("index").and_then(Value::as_u64) != Some(index) {
            return Err(Tampering::Misplaced(index));
        }
        if content.get("kind").and_then(Value::as_str) == Some("decisions.sealed") {
            let digest = content
                .pointer("/fields/sha256")
                .or_else(|| content.pointer("/fields/digest"));
            let digest = digest
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            self.match_segment(index, Some(digest), None)?;
        }
        self.tree.append(leaf_hash(json.as_bytes()));
        if self.witness.is_some() {
            self.roots.insert(self.tree.size(), self.tree.root());
        }
        Ok(())
    }

    fn segment(&mut self, leaf_index: u64, records: &[u8]) -> Result<(), Tampering> {
        self.segment_count += 1;
        let digest = hex::encode(crypto::digest_sha256(records));
        self.match_segment(leaf_index, None, Some(digest))
    }

    /// Leaf and segment may come in either order.
    fn match_segment(
        &mut self,
        index: u64,
        sealed: Option<String>,
        found: Option<String>,
    ) -> Result<(), Tampering> {
        let sealed = sealed.or_else(|| self.sealed.remove(&index));
        let found = found.or_else(|| self.segments.remove(&index));
        match (sealed, found) {
            (Some(sealed), Some(found)) if sealed == found => Ok(()),
            (Some(_), Some(_)) => Err(Tampering::Segment(index)),
            (Some(sealed), None) => {
                self.sealed.insert(index, sealed);
                Ok(())
            }
            (None, Some(found)) => match self.segments.insert(index, found) {
                None => Ok(()),
                Some(_) => Err(Tampering::SegmentMissing(index)),
            },
            (None, None) => Ok(()),
        }
    }

    /// A checkpoint comes right behind the last leaf that it covers.
    fn checkpoint(&mut self, note: &str, own_key: String) -> Result<(), Tampering> {
        let key = self.key.get_or_insert(own_key);
        let checkpoint = open_note(note, key)?;
        let leaves = self.tree.size();
        if checkpoint.size != leaves {
            return Err(Tampering::Size {
                checkpoint: checkpoint.size,
                leaves,
            });
        }
        if checkpoint.root != self.tree.root() {
            return Err(Tampering::Root);
        }
        self.last = Some(checkpoint);
        Ok(())
    }

    fn finish(self) -> Result<Verified, Tampering> {
        let (Some(checkpoint), Some(key)) = (self.last, self.key) else {
            return Err(Tampering::NoCheckpoint);
        };
        if let Some(note) = &self.witness {
            let kept = open_note(note, &key)?;
            if self.roots.get(&kept.size) != Some(&kept.root) {
                return Err(Tampering::Witness(kept.size));
            }
        }
        let leaves = self.tree.size();
        if checkpoint.size != leaves {
            return Err(Tampering::Size {
                checkpoint: checkpoint.size,
                leaves,
            });
        }
        if let Some(index) = self.sealed.keys().chain(self.segments.keys()).next() {
            return Err(Tampering::SegmentMissing(*index));
        }
        Ok(Verified {
            leaves,
            segments: self.segment_count,
            root: hex::encode(checkpoint.root),
            origin: checkpoint.origin,
            key,
        })
    }
}

fn read_note(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, error))
}

/// The checkpoint of a note whose signature holds.
fn open_note(note: &str, key: &str) -> Result<Checkpoint, Tampering> {
    let malformed = |error: ravelin_proto::merkle::checkpoint::NoteError| {
        Tampering::Malformed(error.to_string())
    };
    let key = VerifierKey::parse(key).map_err(malformed)?;
    let note = SignedNote::parse(note).map_err(malformed)?;
    let signature = note.signature_of(&key).ok_or(Tampering::Signature)?;
    let public = Jwk {
        key: JwkKey::Ed25519 {
            x: key.public_key.to_vec(),
        },
        kid: None,
        use_: None,
        alg: None,
        x5c: Vec::new(),
    };
    crypto::verify_jws(
        &public,
        JwsAlgorithm::EdDsa,
        note.body.as_bytes(),
        signature,
    )
    .map_err(|_| Tampering::Signature)?;
    Checkpoint::parse(&note.body).map_err(malformed)
}

/// Checks an inclusion proof of the CA as a third party would.
pub(crate) fn check_inclusion(proof: &InclusionProof) -> Result<(), Failure> {
    let tampering =
        |why: Tampering| Failure::no(format!("leaf {} cannot be proved: {why}", proof.index));
    let point = proof
        .checkpoint
        .as_ref()
        .ok_or_else(|| tampering(Tampering::NoCheckpoint))?;
    let checkpoint = open_note(&point.note, &point.verifier_key).map_err(tampering)?;
    let path: Option<Vec<Hash>> = proof
        .hashes
        .iter()
        .map(|hash| Hash::try_from(hash.as_slice()).ok())
        .collect();
    let path = path.ok_or_else(|| tampering(Tampering::Proof))?;
    let leaf = leaf_hash(proof.leaf_json.as_bytes());
    if checkpoint.size == proof.size
        && verify_inclusion(&leaf, proof.index, proof.size, &path, &checkpoint.root)
    {
        Ok(())
    } else {
        Err(tampering(Tampering::Proof))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(index: u64) -> String {
        json!({"index": index, "kind": "entry.created", "fields": {}}).to_string()
    }

    #[test]
    fn a_leaf_out_of_place_is_found() {
        let mut verifier = Verifier::default();
        verifier.leaf(0, &leaf(0)).unwrap();
        assert_eq!(
            verifier.leaf(2, &leaf(2)),
            Err(Tampering::Gap { want: 1, found: 2 })
        );
        assert_eq!(verifier.leaf(1, &leaf(3)), Err(Tampering::Misplaced(1)));
    }

    #[test]
    fn a_segment_has_to_be_the_one_that_was_sealed() {
        let digest = hex::encode(crypto::digest_sha256(b"a"));
        let sealed = json!({"index": 0, "kind": "decisions.sealed", "fields": {"digest": digest}})
            .to_string();
        let mut verifier = Verifier::default();
        verifier.leaf(0, &sealed).unwrap();
        assert_eq!(verifier.segment(0, b"b"), Err(Tampering::Segment(0)));
        let mut verifier = Verifier::default();
        verifier.segment(0, b"a").unwrap();
        verifier.leaf(0, &sealed).unwrap();
        assert!(verifier.sealed.is_empty() && verifier.segments.is_empty());
    }

    #[test]
    fn a_log_without_its_checkpoint_does_not_verify() {
        let mut verifier = Verifier::default();
        verifier.leaf(0, &leaf(0)).unwrap();
        assert_eq!(verifier.finish(), Err(Tampering::NoCheckpoint));
    }
}
