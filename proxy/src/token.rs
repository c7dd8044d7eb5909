//! Tokens of a request, by the policy engine; and a memory of signatures that were found valid.
//!
//! INVARIANT: only the signature is remembered, by a digest over key, algorithm, signed bytes and signature. Expiry,
//! audience, key set and deny-list are looked at on every request, so nothing outlives a change of any of them.

use std::cell::RefCell;
use std::sync::Arc;

use http::HeaderMap;
use http::StatusCode;
use http::request::Parts;
use quick_cache::unsync::Cache;
use ravelin_policies::{
    AuthRefusal, HeaderView, KeyAddress, KeySource, NormalizedPath, RequestIdentity, RequestView,
    SignatureVerifier,
};
use ravelin_proto::jwks::{Jwk, JwkKey, JwkSet};
use ravelin_proto::jws::JwsAlgorithm;
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_proto::time::Timestamp;
use sha2::{Digest, Sha256};

use crate::limits;
use crate::respond::Refusal;
use crate::snapshot::Snapshot;

/// Headers as the policy engine reads them.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(&'a HeaderMap);

impl<'a> Headers<'a> {
    /// A view; nothing is copied.
    pub fn new(headers: &'a HeaderMap) -> Self {
        Self(headers)
    }
}

impl HeaderView for Headers<'_> {
    fn each_value(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        for value in self.0.get_all(name) {
            visit(value.as_bytes());
        }
    }
}

/// A token that is not accepted, and the line that the caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRefusal {
    /// Status and code.
    pub refusal: Refusal,
    /// One line; none of the token's secrets.
    pub text: String,
}

impl TokenRefusal {
    fn new(refusal: AuthRefusal) -> Self {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::UNAUTHORIZED);
        Self {
            refusal: Refusal::token(status, refusal.code),
            text: refusal.message,
        }
    }
}

/// Signatures that one worker found valid.
#[derive(Debug)]
pub struct TokenCache {
    valid: RefCell<Cache<[u8; 32], ()>>,
}

impl Default for TokenCache {
    fn default() -> Self {
        Self {
            valid: RefCell::new(Cache::new(limits::TOKENS_MAX)),
        }
    }
}

impl TokenCache {
    /// What the request's tokens establish.
    pub fn authenticate(
        &self,
        snapshot: &Snapshot,
        parts: &Parts,
        path: &NormalizedPath,
        now: Timestamp,
    ) -> Result<RequestIdentity, TokenRefusal> {
        let authentication = snapshot.policies.authentication();
        if authentication.is_empty() {
            return Ok(RequestIdentity::default());
        }
        let headers = Headers::new(&parts.headers);
        let request = RequestView {
            method: parts.method.as_str(),
            query: path.query(),
            headers: &headers,
        };
        let identity = authentication
            .authenticate(&request, &Keys(snapshot), self, now)
            .map_err(TokenRefusal::new)?;
        if snapshot.is_token_denied(&identity, now) {
            return Err(TokenRefusal {
                refusal: Refusal::token(StatusCode::UNAUTHORIZED, "token_denied"),
                text: "the token has been revoked".to_owned(),
            });
        }
        Ok(identity)
    }
}

struct Keys<'a>(&'a Snapshot);

impl KeySource for Keys<'_> {
    fn jwt_bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<JwkSet>> {
        self.0.token_keys.get(trust_domain).cloned()
    }

    fn fetched_keys(&self, _: &KeyAddress) -> Option<Arc<JwkSet>> {
        None
    }

    fn note_missing_key(&self, _: &KeyAddress) {}
}

impl SignatureVerifier for TokenCache {
    fn is_valid(
        &self,
        key: &Jwk,
        algorithm: JwsAlgorithm,
        signing_input: &[u8],
        signature: &[u8],
    ) -> bool {
        let digest = digest(key, algorithm, signing_input, signature);
        if self.valid.borrow_mut().get(&digest).is_some() {
            return true;
        }
        let is_valid =
            ravelin_runtime::crypto::verify_jws(key, algorithm, signing_input, signature).is_ok();
        if is_valid {
            self.valid.borrow_mut().insert(digest, ());
        }
        is_valid
    }
}

fn digest(key: &Jwk, algorithm: JwsAlgorithm, signing_input: &[u8], signature: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        // WHY: a length before each part, so that no two inputs run together to the same bytes.
        hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(bytes);
    };
    match &key.key {
        JwkKey::Ec { curve, x, y } => {
            part(format!("{curve:?}").as_bytes());
            part(x);
            part(y);
        }
        JwkKey::Rsa { n, e } => {
            part(n);
            part(e);
        }
        JwkKey::Ed25519 { x } => part(x),
    }
    part(format!("{algorithm:?}").as_bytes());
    part(signing_input);
    part(signature);
    hash.finalize().into()
}
