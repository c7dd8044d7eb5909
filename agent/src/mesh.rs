//! The mesh revision that this agent holds for its proxies: whole, with its digest checked.
//!
//! The CA may send a difference; what is kept is always the whole set. A smaller number than the
//! one held is refused (threat 56). Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ravelin_proto::pb::ravelin::v1::{MeshFile, MeshRevision};

/// Why a mesh revision is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MeshRefusal {
    /// Older than what is held.
    #[error("mesh revision {got} is older than {held}, which this agent holds")]
    Older {
        /// Held.
        held: u64,
        /// Offered.
        got: u64,
    },
    /// A difference from a revision that is not held.
    #[error("mesh revision {got} builds on {base}, which this agent does not hold")]
    BaseMissing {
        /// Offered.
        got: u64,
        /// What it builds on.
        base: u64,
    },
    /// The files are not the ones that the CA published.
    #[error("the files of mesh revision {0} do not have the digest that came with them")]
    Digest(u64),
}

/// The whole revision and the one before it.
#[derive(Debug, Clone, Default)]
pub(crate) struct MeshStore {
    held: Option<Arc<MeshRevision>>,
    before: Option<Arc<MeshRevision>>,
}

impl MeshStore {
    /// The revision held.
    pub(crate) fn held(&self) -> Option<Arc<MeshRevision>> {
        self.held.clone()
    }

    /// Its number; 0 without one.
    pub(crate) fn revision(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.revision)
    }

    /// Takes a revision of the CA. `digest` computes the digest of a whole set of files.
    pub(crate) fn take(
        &mut self,
        offered: MeshRevision,
        digest: impl Fn(&[MeshFile]) -> String,
    ) -> Result<(), MeshRefusal> {
        let held = self.revision();
        if offered.revision < held {
            return Err(MeshRefusal::Older {
                held,
                got: offered.revision,
            });
        }
        let whole = self.to_whole(offered)?;
        if !whole.digest.is_empty() && whole.digest != digest(&whole.files) {
            return Err(MeshRefusal::Digest(whole.revision));
        }
        if whole.revision > held {
            self.before = self.held.take();
        }
        self.held = Some(Arc::new(whole));
        Ok(())
    }

    fn to_whole(&self, offered: MeshRevision) -> Result<MeshRevision, MeshRefusal> {
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        if offered.base_revision != 0 {
            let base = self
                .held
                .as_ref()
                .filter(|held| held.revision == offered.base_revision)
                .ok_or(MeshRefusal::BaseMissing {
                    got: offered.revision,
                    base: offered.base_revision,
                })?;
            files.extend(
                base.files
                    .iter()
                    .map(|file| (file.path.clone(), file.content.clone())),
            );
        }
        for path in &offered.removed_paths {
            files.remove(path);
        }
        files.extend(
            offered
                .files
                .into_iter()
                .map(|file| (file.path, file.content)),
        );
        Ok(MeshRevision {
            base_revision: 0,
            removed_paths: Vec::new(),
            files: files
                .into_iter()
                .map(|(path, content)| MeshFile { path, content })
                .collect(),
            ..offered
        })
    }

    /// What to send to a proxy that has acknowledged `acknowledged` on this stream and has seen
    /// `seen` at most: nothing when there is nothing newer, else the difference or the whole set.
    pub(crate) fn for_proxy(&self, acknowledged: u64, seen: u64) -> Option<MeshRevision> {
        let held = self.held.as_ref()?;
        if held.revision < seen || held.revision == acknowledged {
            return None;
        }
        match &self.before {
            Some(before) if before.revision == acknowledged && acknowledged != 0 => {
                Some(difference(before, held))
            }
            _ => Some(MeshRevision::clone(held)),
        }
    }
}

/// The difference that turns one whole revision into another.
fn difference(from: &MeshRevision, to: &MeshRevision) -> MeshRevision {
    let old: BTreeMap<&str, &[u8]> = by_path(from);
    let new: BTreeSet<&str> = to.files.iter().map(|file| file.path.as_str()).collect();
    MeshRevision {
        base_revision: from.revision,
        files: to
            .files
            .iter()
            .filter(|file| old.get(file.path.as_str()) != Some(&file.content.as_slice()))
            .cloned()
            .collect(),
        removed_paths: old
            .keys()
            .filter(|path| !new.contains(*path))
            .map(ToString::to_string)
            .collect(),
        ..to.clone()
    }
}

fn by_path(revision: &MeshRevision) -> BTreeMap<&str, &[u8]> {
    revision
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.content.as_slice()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(files: &[MeshFile]) -> String {
        format!("{files:?}")
    }

    fn files(rows: &[(&str, u8)]) -> Vec<MeshFile> {
        rows.iter()
            .map(|(path, content)| MeshFile {
                path: (*path).into(),
                content: vec![*content],
            })
            .collect()
    }

    fn revision(number: u64, base: u64, rows: &[(&str, u8)], removed: &[&str]) -> MeshRevision {
        MeshRevision {
            revision: number,
            base_revision: base,
            files: files(rows),
            removed_paths: removed.iter().map(ToString::to_string).collect(),
            ..MeshRevision::default()
        }
    }

    #[test]
    fn a_difference_is_applied_to_the_revision_that_it_names() {
        let mut store = MeshStore::default();
        store
            .take(revision(1, 0, &[("a", 1), ("b", 1)], &[]), digest)
            .unwrap();
        let mut second = revision(2, 1, &[("c", 2), ("a", 2)], &["b"]);
        second.digest = digest(&files(&[("a", 2), ("c", 2)]));
        store.take(second, digest).unwrap();
        assert_eq!(store.held().unwrap().files, files(&[("a", 2), ("c", 2)]));
        let missing = MeshRefusal::BaseMissing { got: 4, base: 3 };
        assert_eq!(store.take(revision(4, 3, &[], &[]), digest), Err(missing));
    }

    #[test]
    fn threat_56_an_older_or_altered_revision_is_refused_and_the_last_good_one_stays() {
        let mut store = MeshStore::default();
        store
            .take(revision(5, 0, &[("a", 1)], &[]), digest)
            .unwrap();
        let older = MeshRefusal::Older { held: 5, got: 4 };
        assert_eq!(store.take(revision(4, 0, &[], &[]), digest), Err(older));
        let mut altered = revision(6, 0, &[("a", 2)], &[]);
        altered.digest = digest(&files(&[("a", 3)]));
        assert_eq!(store.take(altered, digest), Err(MeshRefusal::Digest(6)));
        assert_eq!(store.revision(), 5);
        assert_eq!(store.held().unwrap().files, files(&[("a", 1)]));
    }

    #[test]
    fn a_proxy_gets_the_whole_set_first_then_differences_and_never_a_smaller_number() {
        let mut store = MeshStore::default();
        assert_eq!(store.for_proxy(0, 0), None);
        store
            .take(revision(1, 0, &[("a", 1), ("b", 1)], &[]), digest)
            .unwrap();
        store
            .take(revision(2, 0, &[("a", 2), ("c", 1)], &[]), digest)
            .unwrap();
        assert_eq!(store.for_proxy(0, 0).unwrap().files.len(), 2, "whole");
        assert_eq!(
            store.for_proxy(0, 2).unwrap().base_revision,
            0,
            "whole after a restart"
        );
        assert_eq!(store.for_proxy(2, 2), None, "nothing newer");
        assert_eq!(store.for_proxy(0, 3), None, "it has seen more than we have");
        let change = store.for_proxy(1, 1).unwrap();
        assert_eq!((change.revision, change.base_revision), (2, 1));
        assert_eq!(change.files, files(&[("a", 2), ("c", 1)]));
        assert_eq!(change.removed_paths, ["b"]);
    }
}
