//! Tokens of a request, by the policy engine; and a memory of tokens that were found good.
//!
//! INVARIANT: what is remembered never outlives what it rests on: rules and keys (another set empties the memory),
//! expiry and start of the tokens (looked at on each use), the deny-list (asked on each use). A repeated token costs
//! a digest and a look into a table; refusals are not remembered. One memory for each worker, without a lock.
//! Tokens of calls in flight are judged again when rules or keys change (threat 59).

mod memory;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use http::StatusCode;
use http::request::Parts;
use ravelin_policies::{
    AuthRefusal, HeaderView, KeyAddress, KeySource, NormalizedPath, Presented, RequestIdentity,
    RequestView, SignatureVerifier, WorkloadPolicies,
};
use ravelin_proto::jwks::{Jwk, JwkSet};
use ravelin_proto::jws::JwsAlgorithm;
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_proto::time::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::denylist::Denylist;
use crate::jwks::FetchedKeys;
use crate::respond::Refusal;
use crate::snapshot::Snapshot;
use memory::{HeldBasis, Memory};

/// Token keys of trust domains.
pub type TrustDomainKeys = BTreeMap<TrustDomain, Arc<JwkSet>>;

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

/// What tokens of one worker are judged by, beside the snapshot, and what was judged.
#[derive(Debug)]
pub struct Tokens {
    changes: RefCell<watch::Receiver<Arc<FetchedKeys>>>,
    fetched: RefCell<Arc<FetchedKeys>>,
    missing: mpsc::Sender<KeyAddress>,
    memory: RefCell<Memory>,
    judged_by: RefCell<Option<HeldBasis>>,
}

/// What a request's tokens establish, and the tokens themselves, to be judged again.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// For policies and headers.
    pub identity: Arc<RequestIdentity>,
    /// As the rules found them; empty without one.
    pub presented: Presented,
}

/// Everything that a judgement of tokens rests on. Borrowed: workers share these values, and would contend for the
/// counts of their owners.
#[derive(Clone, Copy, Debug)]
struct Basis<'a> {
    policies: &'a Arc<WorkloadPolicies>,
    bundles: &'a Arc<TrustDomainKeys>,
    fetched: &'a Arc<FetchedKeys>,
}

impl Tokens {
    /// `fetched` are the keys of remote issuers, `missing` takes the addresses whose keys may have changed.
    pub fn new(
        mut fetched: watch::Receiver<Arc<FetchedKeys>>,
        missing: mpsc::Sender<KeyAddress>,
    ) -> Self {
        let current = Arc::clone(&fetched.borrow_and_update());
        Self {
            changes: RefCell::new(fetched),
            fetched: RefCell::new(current),
            missing,
            memory: RefCell::default(),
            judged_by: RefCell::default(),
        }
    }

    /// The rules that calls in flight were judged by, if those of `snapshot` or the keys are others by now. Once a change.
    pub fn changed_since(&self, snapshot: &Snapshot) -> Option<Arc<WorkloadPolicies>> {
        self.renew_keys();
        let fetched = self.fetched.borrow();
        let basis = Basis {
            policies: &snapshot.policies,
            bundles: &snapshot.token_keys,
            fetched: &fetched,
        };
        let mut judged_by = self.judged_by.borrow_mut();
        if judged_by.as_ref().is_some_and(|held| held.is(basis)) {
            return None;
        }
        let before = judged_by.replace(HeldBasis::new(basis))?;
        Some(Arc::clone(before.policies()))
    }

    /// Judges the tokens of a call in flight again, as at the time when they were accepted: a token that has expired since
    /// then does not end its call, one whose key or rule is gone does.
    pub fn judge_again(
        &self,
        snapshot: &Snapshot,
        presented: Presented,
        request: &RequestView<'_>,
        accepted: Timestamp,
    ) -> Result<Authenticated, TokenRefusal> {
        let fetched = self.fetched.borrow();
        let basis = Basis {
            policies: &snapshot.policies,
            bundles: &snapshot.token_keys,
            fetched: &fetched,
        };
        self.judge_presented(basis, &snapshot.denylist, presented, request, accepted)
    }

    /// What the request's tokens establish. It never waits for a key.
    pub fn authenticate(
        &self,
        snapshot: &Snapshot,
        parts: &Parts,
        path: &NormalizedPath,
        now: Timestamp,
    ) -> Result<Authenticated, TokenRefusal> {
        let authentication = snapshot.policies.authentication();
        if authentication.is_empty() {
            return Ok(Authenticated {
                identity: Arc::clone(authentication.anonymous()),
                presented: Presented::default(),
            });
        }
        let headers = Headers::new(&parts.headers);
        let request = RequestView {
            method: parts.method.as_str(),
            query: path.query(),
            headers: &headers,
        };
        self.renew_keys();
        let fetched = self.fetched.borrow();
        let basis = Basis {
            policies: &snapshot.policies,
            bundles: &snapshot.token_keys,
            fetched: &fetched,
        };
        self.judge(basis, &snapshot.denylist, &request, now)
    }

    fn judge(
        &self,
        basis: Basis<'_>,
        denylist: &Denylist,
        request: &RequestView<'_>,
        now: Timestamp,
    ) -> Result<Authenticated, TokenRefusal> {
        let authentication = basis.policies.authentication();
        let presented = authentication.present(request).map_err(TokenRefusal::new)?;
        self.judge_presented(basis, denylist, presented, request, now)
    }

    fn judge_presented(
        &self,
        basis: Basis<'_>,
        denylist: &Denylist,
        presented: Presented,
        request: &RequestView<'_>,
        now: Timestamp,
    ) -> Result<Authenticated, TokenRefusal> {
        let authentication = basis.policies.authentication();
        if presented.is_empty() {
            return Ok(Authenticated {
                identity: Arc::clone(authentication.anonymous()),
                presented,
            });
        }
        let digest = memory::digest(&presented);
        let mut memory = self.memory.borrow_mut();
        memory.rest_on(basis);
        let known = memory
            .get(&digest)
            .filter(|verified| verified.holds_at(now))
            .map(|verified| verified.identity(request));
        let identity = if let Some(identity) = known {
            identity
        } else {
            let keys = Keys {
                basis,
                missing: &self.missing,
            };
            let verified = authentication
                .verify(&presented, &keys, &Verifier, now)
                .map_err(TokenRefusal::new)?;
            let identity = verified.identity(request);
            memory.insert(digest, &presented, verified);
            identity
        };
        if is_denied(denylist, &identity, now) {
            return Err(TokenRefusal {
                refusal: Refusal::token(StatusCode::UNAUTHORIZED, "token_denied"),
                text: "the token has been revoked".to_owned(),
            });
        }
        Ok(Authenticated {
            identity,
            presented,
        })
    }

    /// Takes other fetched keys into use. Without any it costs a look at a number: no lock is taken.
    fn renew_keys(&self) {
        let mut changes = self.changes.borrow_mut();
        if changes.has_changed().unwrap_or(false) {
            self.fetched
                .replace(Arc::clone(&changes.borrow_and_update()));
        }
    }
}

/// True for an accepted token on the deny-list.
pub fn is_denied(denylist: &Denylist, identity: &RequestIdentity, now: Timestamp) -> bool {
    let claims = identity.claims.as_ref();
    let issued_at = claims
        .and_then(|claims| claims.get("iat"))
        .and_then(serde_json::Value::as_i64);
    denylist.is_token_denied(
        identity.jti.as_deref(),
        identity.subject.as_deref(),
        issued_at,
        now,
    )
}

struct Keys<'a> {
    basis: Basis<'a>,
    missing: &'a mpsc::Sender<KeyAddress>,
}

impl KeySource for Keys<'_> {
    fn jwt_bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<JwkSet>> {
        self.basis.bundles.get(trust_domain).cloned()
    }

    fn fetched_keys(&self, address: &KeyAddress) -> Option<Arc<JwkSet>> {
        self.basis.fetched.get(address)
    }

    fn note_missing_key(&self, address: &KeyAddress) {
        // WHY: a full channel holds this wish already, or many others; the next request says it again.
        let _ = self.missing.try_send(address.clone());
    }
}

struct Verifier;

impl SignatureVerifier for Verifier {
    fn is_valid(
        &self,
        key: &Jwk,
        algorithm: JwsAlgorithm,
        signing_input: &[u8],
        signature: &[u8],
    ) -> bool {
        ravelin_runtime::crypto::verify_jws(key, algorithm, signing_input, signature).is_ok()
    }
}

#[cfg(test)]
#[allow(
    clippy::too_many_lines,
    clippy::format_collect,
    reason = "tests are tables"
)]
mod tests;
