//! JWT-SVIDs kept for reuse, by entry and by the exact set of audiences.
//!
//! The key is the set itself, never a joined text: `["a,b"]` and `["a", "b"]` are not the same.

use std::collections::{BTreeMap, BTreeSet};

use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;

use crate::limits;

/// Names one cached token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JwtKey {
    /// The entry that it was signed for.
    pub entry_id: String,
    /// Every audience in it.
    pub audiences: BTreeSet<String>,
}

/// One JWT-SVID.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct JwtToken {
    /// The compact JWS.
    pub token: String,
    /// Its subject.
    pub spiffe_id: SpiffeId,
    /// The key that signed it.
    pub key_id: String,
    /// Its own name.
    pub jti: Option<String>,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for JwtToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtToken")
            .field("spiffe_id", &self.spiffe_id)
            .field("key_id", &self.key_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl JwtToken {
    /// Worth handing out: less than half of its life has passed.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        let lifetime = self.expires_at.since(self.issued_at);
        now < self.issued_at.plus(lifetime / 2)
    }

    /// Still good enough to hand out while the CA is away.
    pub(crate) fn is_usable(&self, now: Timestamp) -> bool {
        now.plus(limits::JWT_REMAINING_MIN) < self.expires_at
    }
}

/// The cache of JWT-SVIDs.
#[derive(Debug, Clone, Default)]
pub(crate) struct JwtCache {
    tokens: BTreeMap<JwtKey, JwtToken>,
}

impl JwtCache {
    /// The token for this entry and these audiences, while it may be handed out.
    pub(crate) fn token(
        &self,
        key: &JwtKey,
        spiffe_id: &SpiffeId,
        now: Timestamp,
    ) -> Option<&JwtToken> {
        self.tokens
            .get(key)
            .filter(|token| token.spiffe_id == *spiffe_id && token.is_usable(now))
    }

    /// Keeps a token; when full, what expires first makes room.
    pub(crate) fn store(&mut self, key: JwtKey, token: JwtToken, now: Timestamp) {
        self.tokens.retain(|_, token| now < token.expires_at);
        while self.tokens.len() >= limits::JWT_SVIDS_MAX {
            let first = self
                .tokens
                .iter()
                .min_by_key(|(_, token)| token.expires_at)
                .map(|(key, _)| key.clone());
            match first {
                Some(first) => self.tokens.remove(&first),
                None => break,
            };
        }
        self.tokens.insert(key, token);
    }

    /// Keeps only tokens that `is_kept`, by entry, and that `is_trusted`.
    pub(crate) fn retain(
        &mut self,
        is_kept: impl Fn(&str, &SpiffeId) -> bool,
        is_trusted: impl Fn(&JwtToken) -> bool,
    ) {
        self.tokens
            .retain(|key, token| is_kept(&key.entry_id, &token.spiffe_id) && is_trusted(token));
    }

    /// Live tokens per key id.
    pub(crate) fn by_authority(&self, now: Timestamp) -> BTreeMap<String, u32> {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for token in self.tokens.values().filter(|token| now < token.expires_at) {
            let count = counts.entry(token.key_id.clone()).or_default();
            *count = count.saturating_add(1);
        }
        counts
    }

    /// Number of tokens.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(key_id: &str, from: i64, to: i64) -> JwtToken {
        JwtToken {
            token: "t".into(),
            spiffe_id: SpiffeId::parse("spiffe://td/a").unwrap(),
            key_id: key_id.into(),
            jti: None,
            issued_at: Timestamp::from_unix_secs(from),
            expires_at: Timestamp::from_unix_secs(to),
        }
    }

    fn key(entry: &str, audiences: &[&str]) -> JwtKey {
        JwtKey {
            entry_id: entry.into(),
            audiences: audiences.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn audience_sets_that_read_alike_are_different_keys() {
        let at = Timestamp::from_unix_secs;
        let id = SpiffeId::parse("spiffe://td/a").unwrap();
        let mut cache = JwtCache::default();
        cache.store(key("e", &["a,b"]), token("k", 0, 100), at(0));
        assert!(cache.token(&key("e", &["a,b"]), &id, at(1)).is_some());
        assert!(cache.token(&key("e", &["a", "b"]), &id, at(1)).is_none());
        assert!(cache.token(&key("f", &["a,b"]), &id, at(1)).is_none());
        let other = SpiffeId::parse("spiffe://td/b").unwrap();
        assert!(cache.token(&key("e", &["a,b"]), &other, at(1)).is_none());
        cache.store(key("e", &["y", "x"]), token("k", 0, 100), at(0));
        assert!(cache.token(&key("e", &["x", "y"]), &id, at(1)).is_some());
    }

    #[test]
    fn a_token_is_fresh_for_half_of_its_life_and_usable_almost_to_its_end() {
        let at = Timestamp::from_unix_secs;
        let token = token("k", 0, 100);
        let rows = [
            (0, true, true),
            (49, true, true),
            (50, false, true),
            (94, false, true),
            (95, false, false),
        ];
        for (now, is_fresh, is_usable) in rows {
            assert_eq!(token.is_fresh(at(now)), is_fresh, "fresh at {now}");
            assert_eq!(token.is_usable(at(now)), is_usable, "usable at {now}");
        }
    }

    #[test]
    fn the_cache_is_bounded_and_drops_tokens_of_keys_that_went() {
        let at = Timestamp::from_unix_secs;
        let mut cache = JwtCache::default();
        for number in 0..limits::JWT_SVIDS_MAX + 10 {
            let expiry = 100 + i64::try_from(number).unwrap();
            cache.store(
                key(&number.to_string(), &["a"]),
                token("k", 0, expiry),
                at(0),
            );
        }
        assert_eq!(cache.len(), limits::JWT_SVIDS_MAX);
        cache.store(key("new", &["a"]), token("other", 0, 9000), at(0));
        assert_eq!(cache.by_authority(at(1)).get("other"), Some(&1));
        cache.retain(|_, _| true, |token| token.key_id == "other");
        assert_eq!(cache.len(), 1);
        cache.retain(|entry, _| entry != "new", |_| true);
        assert_eq!(cache.len(), 0);
    }
}
