//! The rules of one policy with a digest of them, so that whether two sets have the same is told at once.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Rule;

/// Rules of a policy, in order. Cloning copies a pointer; comparing looks at the digest alone.
#[derive(Debug, Clone)]
pub struct Rules {
    list: Arc<[Rule]>,
    /// SHA-256 of what `Hash` tells of the rules, their places in the files among it; good within one process.
    digest: [u8; 32],
}

impl From<Vec<Rule>> for Rules {
    fn from(rules: Vec<Rule>) -> Self {
        let mut digesting = Digesting(Sha256::new());
        rules.hash(&mut digesting);
        Self {
            list: rules.into(),
            digest: digesting.0.finalize().into(),
        }
    }
}

impl FromIterator<Rule> for Rules {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        rules.into_iter().collect::<Vec<_>>().into()
    }
}

impl Deref for Rules {
    type Target = [Rule];

    fn deref(&self) -> &[Rule] {
        &self.list
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// Feeds what is hashed to a digest. Texts end with a byte that UTF-8 has nowhere and lists begin with their length, so
/// different rules feed different bytes.
struct Digesting(Sha256);

impl Hasher for Digesting {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The first bytes of the digest.
    fn finish(&self) -> u64 {
        let digest: [u8; 32] = self.0.clone().finalize().into();
        digest
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}
