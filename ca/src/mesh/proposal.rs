//! Files that somebody wants to publish, parsed and checked as one set. Pure.

use std::collections::BTreeMap;

use ravelin_policies as policies;
use ravelin_policies::{MeshSet, ObjectChange, SourceFile, diff_sets, load, set_digest};
use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::spiffe_id::TrustDomain;

use crate::limits::{MESH_BYTES_MAX, MESH_FILES_MAX};

/// The prefix of ids of entries that come from the mesh folder.
pub const ENTRY_ID_PREFIX: &str = "mesh:";

/// A set without errors, ready to publish.
#[derive(Debug)]
pub struct Proposal {
    set: MeshSet,
    digest: String,
    files: BTreeMap<String, Vec<u8>>,
}

impl Proposal {
    /// Parses and checks the files; every diagnostic when there is an error.
    pub fn parse(
        files: &[pb::MeshFile],
        trust_domain: &TrustDomain,
    ) -> Result<Self, Vec<pb::Diagnostic>> {
        check_size(files)?;
        let mut sources = Vec::new();
        let mut wrong = Vec::new();
        for file in files {
            match SourceFile::from_bytes(&file.path, &file.content) {
                Ok(source) => sources.push(source),
                Err(diagnostic) => wrong.push(to_pb(&diagnostic)),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let set = load(&sources).map_err(|found| found.iter().map(to_pb).collect::<Vec<_>>())?;
        if set.config.trust_domain != *trust_domain {
            return Err(vec![error(
                "foreign-trust-domain",
                "ravelin.yaml",
                &format!(
                    "the folder is for trust domain `{}`, this CA has `{trust_domain}`",
                    set.config.trust_domain
                ),
            )]);
        }
        check_entries(&set)?;
        Ok(Self {
            digest: set_digest(&sources),
            files: sources
                .into_iter()
                .map(|source| (source.path, source.content.into_bytes()))
                .collect(),
            set,
        })
    }

    /// Lower-case hex SHA-256 over the whole set.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Content by path.
    pub fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }

    /// What is suspicious, but no error.
    pub fn warnings(&self) -> Vec<pb::Diagnostic> {
        self.set.warnings.iter().map(to_pb).collect()
    }

    /// The registration entries of the set's identities.
    pub fn entries(&self) -> Vec<RegistrationEntry> {
        self.set
            .identities
            .iter()
            .map(policies::WorkloadIdentity::to_entry)
            .collect()
    }

    /// What publishing this over `before` would change, object by object.
    pub fn changes_from(&self, before: Option<&Self>) -> Vec<pb::Change> {
        match before {
            Some(before) => diff_sets(&before.set, &self.set)
                .iter()
                .map(change_to_pb)
                .collect(),
            None => self
                .set
                .objects
                .iter()
                .map(|object| pb::Change {
                    action: pb::change::Action::Create.into(),
                    kind: object.kind.to_owned(),
                    namespace: object.namespace.clone(),
                    name: object.name.clone(),
                    summary: format!("{} fields", object.fields.len()),
                })
                .collect(),
        }
    }
}

fn check_size(files: &[pb::MeshFile]) -> Result<(), Vec<pb::Diagnostic>> {
    let bytes = files
        .iter()
        .map(|file| file.path.len().saturating_add(file.content.len()))
        .fold(0, usize::saturating_add);
    if files.len() > MESH_FILES_MAX || bytes > MESH_BYTES_MAX {
        return Err(vec![error(
            "set-too-large",
            "",
            &format!(
                "the set has {} files and {bytes} bytes; the limit is {MESH_FILES_MAX} files and {MESH_BYTES_MAX} bytes",
                files.len()
            ),
        )]);
    }
    Ok(())
}

/// An entry that the store would refuse is found before anything is written.
fn check_entries(set: &MeshSet) -> Result<(), Vec<pb::Diagnostic>> {
    let wrong: Vec<pb::Diagnostic> = set
        .identities
        .iter()
        .filter_map(|identity| {
            let reason = identity.to_entry().check().err()?;
            Some(error(
                "identity-refused",
                &identity.location.path,
                &reason.to_string(),
            ))
        })
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn error(code: &str, path: &str, message: &str) -> pb::Diagnostic {
    pb::Diagnostic {
        is_error: true,
        code: code.to_owned(),
        path: path.to_owned(),
        line: 0,
        column: 0,
        text: if path.is_empty() {
            format!("error[{code}]: {message}")
        } else {
            format!("{path}: error[{code}]: {message}")
        },
    }
}

fn to_pb(diagnostic: &policies::Diagnostic) -> pb::Diagnostic {
    pb::Diagnostic {
        is_error: diagnostic.is_error,
        code: diagnostic.code.to_owned(),
        path: diagnostic.path.clone(),
        line: diagnostic.line,
        column: diagnostic.column,
        text: diagnostic.render(),
    }
}

fn change_to_pb(change: &ObjectChange) -> pb::Change {
    let action = match change.action {
        policies::ChangeAction::Create => pb::change::Action::Create,
        policies::ChangeAction::Update => pb::change::Action::Update,
        policies::ChangeAction::Delete => pb::change::Action::Delete,
    };
    pb::Change {
        action: action.into(),
        kind: change.kind.to_owned(),
        namespace: change.namespace.clone(),
        name: change.name.clone(),
        summary: change.summary.clone(),
    }
}
