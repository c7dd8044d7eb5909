//! A mesh revision as the message that agents get: whole, or as the difference from another. Pure.

use ravelin_proto::pb::ravelin::v1::{MeshFile, MeshRevision};

use crate::store::MeshRecord;

/// The whole revision.
pub fn whole(record: &MeshRecord) -> MeshRevision {
    MeshRevision {
        files: record
            .files
            .iter()
            .map(|(path, content)| file(path, content))
            .collect(),
        ..head(record)
    }
}

/// What changes `base` into `record`.
pub fn difference(base: &MeshRecord, record: &MeshRecord) -> MeshRevision {
    MeshRevision {
        base_revision: base.revision,
        files: record
            .files
            .iter()
            .filter(|(path, content)| base.files.get(*path) != Some(content))
            .map(|(path, content)| file(path, content))
            .collect(),
        removed_paths: base
            .files
            .keys()
            .filter(|path| !record.files.contains_key(*path))
            .cloned()
            .collect(),
        ..head(record)
    }
}

fn head(record: &MeshRecord) -> MeshRevision {
    MeshRevision {
        revision: record.revision,
        digest: record.digest.clone(),
        git_commit: record.git_commit.clone(),
        created_at: record.created_at.unix_secs(),
        created_by: record.created_by.clone(),
        ..MeshRevision::default()
    }
}

fn file(path: &str, content: &[u8]) -> MeshFile {
    MeshFile {
        path: path.to_owned(),
        content: content.to_vec(),
    }
}
