//! Tokens of a request by the RequestAuthentications of a workload (rules 70 to 80).
//!
//! Every rule but the signature is here; the signature comes in through [`SignatureVerifier`]. Missing keys are
//! a No (threat A9); the algorithm's list belongs to the key, never to the token.

mod places;
mod token;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ravelin_proto::jwks::{Jwk, JwkSet};
use ravelin_proto::jws::JwsAlgorithm;
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_proto::time::Timestamp;
use serde_json::{Map, Value};

use crate::call::{HeaderView, RequestIdentity};
use crate::evaluate::find_claim;
use crate::limits;
use crate::schema::JwtRule;

pub(crate) use token::identity_of_claims;
use token::{Accepted, TokenFault};

/// Checks one signature. Implemented where the crypto provider is.
pub trait SignatureVerifier {
    /// True when `signature` over `signing_input` is by `key` with `algorithm`; the pair was found fitting before.
    fn is_valid(
        &self,
        key: &Jwk,
        algorithm: JwsAlgorithm,
        signing_input: &[u8],
        signature: &[u8],
    ) -> bool;
}

/// Where the keys of trust domains come from (`jwksUri: spiffe://TD`).
pub trait KeySource {
    /// The JWT authorities of a trust domain; `None` when there is no bundle.
    fn jwt_bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<JwkSet>>;
}

/// What of a request may carry tokens.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// The method as it came.
    pub method: &'a str,
    /// The query without `?`.
    pub query: Option<&'a str>,
    /// Headers.
    pub headers: &'a dyn HeaderView,
}

/// A considered No to a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AuthRefusal {
    /// 401, or 403 for a token of another audience (rule 74).
    pub status: u16,
    /// Stable code, such as `token_expired`.
    pub code: &'static str,
    /// One line without anything of the token's secret.
    pub message: String,
}

/// Every accepted issuer of a workload, merged (rule 75).
#[derive(Debug, Clone, Default)]
pub struct RequestAuthentications {
    rules: Vec<Arc<JwtRule>>,
    clock_skew: Duration,
    is_expiry_required: bool,
}

impl RequestAuthentications {
    pub(crate) fn new(
        mut rules: Vec<Arc<JwtRule>>,
        clock_skew: Duration,
        is_expiry_required: bool,
    ) -> Self {
        rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        Self {
            rules,
            clock_skew,
            is_expiry_required,
        }
    }

    /// True when no token means anything here (rule 53).
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Trust domains whose JWT bundles are needed.
    pub fn trust_domains(&self) -> BTreeSet<TrustDomain> {
        self.rules
            .iter()
            .filter_map(|rule| rule.keys.trust_domain().cloned())
            .collect()
    }

    /// What the request's tokens establish. No token: an identity that says nothing (rule 70).
    pub fn authenticate(
        &self,
        request: &RequestView<'_>,
        keys: &dyn KeySource,
        verifier: &dyn SignatureVerifier,
        now: Timestamp,
    ) -> Result<RequestIdentity, AuthRefusal> {
        if is_preflight(request) {
            return Ok(self.without_forged_headers(RequestIdentity::default()));
        }
        let mut fault: Option<TokenFault> = None;
        let mut accepted: Vec<Accepted> = Vec::new();
        for rule in &self.rules {
            let tokens = places::tokens(rule, request)?;
            let results: Result<Vec<Accepted>, TokenFault> = tokens
                .into_iter()
                .map(|(place, token)| token::check(rule, place, &token, self, keys, verifier, now))
                .collect();
            match results {
                Ok(valid) => accepted.extend(valid),
                // The fault that says most: one of a rule whose issuer it is.
                Err(found) => {
                    fault = Some(match fault {
                        Some(known) => known.better(found),
                        None => found,
                    });
                }
            }
        }
        match (accepted.is_empty(), fault) {
            (true, Some(fault)) => Err(fault.refusal()),
            (true, None) => Ok(self.without_forged_headers(RequestIdentity::default())),
            (false, _) => Ok(self.without_forged_headers(token::join(&accepted, request)?)),
        }
    }

    // Headers that rules make of claims are never the peer's own, token or not.
    fn without_forged_headers(&self, mut identity: RequestIdentity) -> RequestIdentity {
        for rule in &self.rules {
            let of_claims = rule.claim_headers.iter().map(|(name, _)| name.clone());
            identity
                .remove_headers
                .extend(of_claims.chain(rule.payload_header.clone()));
        }
        identity.remove_headers.sort();
        identity.remove_headers.dedup();
        identity
    }

    pub(crate) fn clock_skew(&self) -> Duration {
        self.clock_skew
    }

    pub(crate) fn is_expiry_required(&self) -> bool {
        self.is_expiry_required
    }
}

// A CORS preflight never carries credentials (rule 78).
fn is_preflight(request: &RequestView<'_>) -> bool {
    let has = |name: &str| {
        let mut is_there = false;
        request.headers.each_value(name, &mut |_| is_there = true);
        is_there
    };
    request.method == "OPTIONS" && has("origin") && has("access-control-request-method")
}

/// Headers that a rule makes from its token's claims (rule 79).
fn claim_headers(
    rule: &JwtRule,
    payload: &[u8],
    claims: &Map<String, Value>,
) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    if let Some(name) = &rule.payload_header {
        headers.push((name.clone(), URL_SAFE_NO_PAD.encode(payload)));
    }
    for (name, steps) in &rule.claim_headers {
        let value = match find_claim(claims, steps) {
            Some(Value::String(text)) => text.clone(),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
            Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => continue,
        };
        if value.len() <= limits::VALUE_BYTES_MAX
            && value.chars().all(|c| !c.is_control() && c.is_ascii())
        {
            headers.push((name.clone(), value));
        }
    }
    headers
}
