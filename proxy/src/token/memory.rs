//! Verified tokens by their digest, bounded in number and bytes, empty whenever the rules or the keys are others.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use ravelin_policies::{Presented, Verified, WorkloadPolicies};
use ravelin_runtime::crypto;

use super::{Basis, TrustDomainKeys};
use crate::jwks::FetchedKeys;
use crate::limits;

/// The tokens of one request, with their places.
pub(super) type TokenDigest = [u8; 32];

#[derive(Debug)]
pub(super) struct Memory {
    basis: Option<HeldBasis>,
    verified: Cache<TokenDigest, Remembered, TokenBytes>,
}

/// Held, so that no other value can take the address of one of these.
#[derive(Debug)]
pub(super) struct HeldBasis {
    policies: Arc<WorkloadPolicies>,
    bundles: Arc<TrustDomainKeys>,
    fetched: Arc<FetchedKeys>,
}

#[derive(Clone, Debug)]
struct Remembered {
    verified: Verified,
    bytes: u64,
}

#[derive(Clone, Debug)]
struct TokenBytes;

impl Weighter<TokenDigest, Remembered> for TokenBytes {
    fn weight(&self, _: &TokenDigest, remembered: &Remembered) -> u64 {
        remembered.bytes
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            basis: None,
            verified: Cache::with_weighter(
                limits::TOKENS_MAX,
                limits::TOKEN_BYTES_REMEMBERED_MAX,
                TokenBytes,
            ),
        }
    }
}

impl Memory {
    /// INVARIANT: nothing that was judged by other rules or keys than these is left after this call.
    pub(super) fn rest_on(&mut self, basis: Basis<'_>) {
        if !self.basis.as_ref().is_some_and(|held| held.is(basis)) {
            self.verified.clear();
            self.basis = Some(HeldBasis::new(basis));
        }
    }

    pub(super) fn get(&mut self, digest: &TokenDigest) -> Option<&Verified> {
        Some(&self.verified.get(digest)?.verified)
    }

    pub(super) fn insert(
        &mut self,
        digest: TokenDigest,
        presented: &Presented,
        verified: Verified,
    ) {
        let bytes: usize = presented.tokens().map(|(_, token)| token.len()).sum();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        // WHY: what is made of a small token weighs more than it does; this also bounds the number of entries.
        let bytes = bytes.max(limits::TOKEN_BYTES_REMEMBERED_MIN);
        self.verified.insert(digest, Remembered { verified, bytes });
    }
}

#[cfg(test)]
impl Memory {
    pub(super) fn bytes(&self) -> u64 {
        self.verified.weight()
    }
}

impl HeldBasis {
    pub(super) fn new(basis: Basis<'_>) -> Self {
        Self {
            policies: Arc::clone(basis.policies),
            bundles: Arc::clone(basis.bundles),
            fetched: Arc::clone(basis.fetched),
        }
    }

    /// The rules, so that tokens that they found can be looked for by others.
    pub(super) fn policies(&self) -> &Arc<WorkloadPolicies> {
        &self.policies
    }

    /// The very same values: each is replaced whole when anything in it changes.
    pub(super) fn is(&self, other: Basis<'_>) -> bool {
        Arc::ptr_eq(&self.policies, other.policies)
            && Arc::ptr_eq(&self.bundles, other.bundles)
            && Arc::ptr_eq(&self.fetched, other.fetched)
    }
}

/// Of each token its place, its length and itself, so that no two requests run together to the same bytes.
pub(super) fn digest(presented: &Presented) -> TokenDigest {
    let mut hash = crypto::Sha256::new();
    for (place, token) in presented.tokens() {
        for number in [place, token.len()] {
            hash.update(&u64::try_from(number).unwrap_or(u64::MAX).to_le_bytes());
        }
        hash.update(token.as_bytes());
    }
    hash.finish()
}
