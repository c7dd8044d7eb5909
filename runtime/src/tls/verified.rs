//! Chains whose path to an authority was found before: a peer that connects again costs one signature check less.
//!
//! INVARIANT: one of these belongs to one verifier, and so to one set of bundles, which never changes. It stands in for
//! the path alone: the leaf's own rules, its dates, who is expected and the proof that the peer has the key are judged on
//! every handshake, and so is the deny-list after it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ravelin_proto::time::Timestamp;
use rustls_pki_types::CertificateDer;

use crate::crypto::Sha256;
use crate::limits::VERIFIED_CHAINS_MAX;

/// What a chain is known by: what was shown, byte for byte, and what for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ChainDigest([u8; 32]);

impl ChainDigest {
    /// `is_client`: the chain of a client, whose key usage differs from a server's.
    pub(super) fn new(
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        is_client: bool,
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(&[u8::from(is_client)]);
        for certificate in std::iter::once(leaf).chain(intermediates) {
            // WHY: with its length before each, no two chains are the same bytes.
            hash.update(&certificate.len().to_be_bytes());
            hash.update(certificate);
        }
        Self(hash.finish())
    }
}

/// While a path is known to hold.
#[derive(Clone, Copy)]
struct Span {
    from: Timestamp,
    until: Timestamp,
}

/// The memory of one verifier.
#[derive(Default)]
pub(super) struct VerifiedChains(Mutex<HashMap<ChainDigest, Span>>);

impl std::fmt::Debug for VerifiedChains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifiedChains").finish_non_exhaustive()
    }
}

impl VerifiedChains {
    /// Whether the path of this chain was found, and holds at `now`.
    pub(super) fn holds(&self, chain: &ChainDigest, now: Timestamp) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(chain)
            .is_some_and(|span| span.from <= now && now <= span.until)
    }

    /// Notes a path that was found at `now`; `until` is the first end of anything that it may rest on.
    pub(super) fn note(&self, chain: ChainDigest, now: Timestamp, until: Timestamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= VERIFIED_CHAINS_MAX {
            known.retain(|_, span| now <= span.until);
        }
        if known.len() >= VERIFIED_CHAINS_MAX {
            known.clear();
        }
        known.insert(chain, Span { from: now, until });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
