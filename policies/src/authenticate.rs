//! Tokens of a request by the RequestAuthentications of a workload (rules 70 to 80).
//!
//! Every rule but the signature is here; the signature comes in through [`SignatureVerifier`]. Missing keys are
//! a No (threat A9); the algorithm's list belongs to the key, never to the token. Finding tokens and judging them are
//! two steps, so that a caller can remember what it judged: [`Verified`] says how long it holds.

mod places;
mod token;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
use crate::clause::find_claim;
use crate::limits;
use crate::schema::{JwtRule, KeyAddress, TokenPlace};

pub(crate) use token::identity_of_claims;
use token::{Accepted, TokenFault};
use window::Window;

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

/// Where keys come from that the set does not hold itself.
pub trait KeySource {
    /// The JWT authorities of a trust domain (`jwksUri: spiffe://TD`); `None` when there is no bundle.
    fn jwt_bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<JwkSet>>;

    /// The keys that were fetched from an address; `None` while there are none, and never a stand-in (threat A9).
    fn fetched_keys(&self, address: &KeyAddress) -> Option<Arc<JwkSet>>;

    /// Told when no key of this address fits a token that names its issuer: the keys may have been changed.
    fn note_missing_key(&self, address: &KeyAddress);
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
    rules: Vec<PlacedRule>,
    places: Vec<TokenPlace>,
    clock_skew: Duration,
    is_expiry_required: bool,
    anonymous: Arc<RequestIdentity>,
}

/// A rule, and where its tokens stand: indexes into the merged places.
#[derive(Debug, Clone)]
struct PlacedRule {
    rule: Arc<JwtRule>,
    places: Vec<usize>,
}

/// The tokens that a request shows at recognised places, in a fixed order. Nothing of them is checked yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Presented {
    tokens: Vec<(usize, String)>,
}

impl Presented {
    /// True when the request shows no token (rule 70).
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Each token with the number of its place. With the same rules and keys, the same tokens are judged alike.
    pub fn tokens(&self) -> impl Iterator<Item = (usize, &str)> {
        self.tokens
            .iter()
            .map(|(place, token)| (*place, token.as_str()))
    }
}

/// What verified tokens establish, and how long that holds with the same rules and keys.
#[derive(Debug, Clone)]
pub struct Verified {
    identity: Arc<RequestIdentity>,
    window: Window,
    cookies: Vec<String>,
}

impl Verified {
    /// True while each comparison with the time that was made would come out the same: no expiry and no start of a
    /// token's validity lies between then and `now`.
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.window.contains(now)
    }

    /// The identity for this request: a shared one, but where a token stands among the request's cookies.
    pub fn identity(&self, request: &RequestView<'_>) -> Arc<RequestIdentity> {
        if self.cookies.is_empty() {
            return Arc::clone(&self.identity);
        }
        let mut identity = (*self.identity).clone();
        identity.remove_headers.push("cookie".into());
        let kept = places::cookies_without(request, &self.cookies);
        identity
            .set_headers
            .extend(kept.map(|kept| ("cookie".to_owned(), kept)));
        Arc::new(identity)
    }
}

impl RequestAuthentications {
    pub(crate) fn new(
        mut rules: Vec<Arc<JwtRule>>,
        clock_skew: Duration,
        is_expiry_required: bool,
    ) -> Self {
        rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        let mut places: Vec<TokenPlace> = Vec::new();
        let mut numbers: HashMap<TokenPlace, usize> = HashMap::new();
        let mut number = |place: &TokenPlace| {
            *numbers.entry(place.clone()).or_insert_with(|| {
                places.push(place.clone());
                places.len() - 1
            })
        };
        let placed = rules.into_iter().map(|rule| PlacedRule {
            places: rule.places.iter().map(&mut number).collect(),
            rule,
        });
        let rules: Vec<PlacedRule> = placed.collect();
        let anonymous = Arc::new(without_forged_headers(&rules, RequestIdentity::default()));
        Self {
            rules,
            places,
            clock_skew,
            is_expiry_required,
            anonymous,
        }
    }

    /// True when no token means anything here (rule 53).
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// By issuer.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &JwtRule> {
        self.rules.iter().map(|placed| &*placed.rule)
    }

    /// Trust domains whose JWT bundles are needed.
    pub fn trust_domains(&self) -> BTreeSet<TrustDomain> {
        self.rules
            .iter()
            .filter_map(|placed| placed.rule.keys.trust_domain().cloned())
            .collect()
    }

    /// Keys that have to be fetched. Several rules may name one address; each is named once, with its longest timeout.
    pub fn remote_keys(&self) -> BTreeMap<KeyAddress, Duration> {
        let mut remote: BTreeMap<KeyAddress, Duration> = BTreeMap::new();
        for keys in self
            .rules
            .iter()
            .filter_map(|placed| placed.rule.keys.remote())
        {
            let timeout = remote.entry(keys.address.clone()).or_default();
            *timeout = (*timeout).max(keys.timeout);
        }
        remote
    }

    /// What the request's tokens establish. No token: an identity that says nothing (rule 70).
    pub fn authenticate(
        &self,
        request: &RequestView<'_>,
        keys: &dyn KeySource,
        verifier: &dyn SignatureVerifier,
        now: Timestamp,
    ) -> Result<RequestIdentity, AuthRefusal> {
        let presented = self.present(request)?;
        if presented.is_empty() {
            return Ok((*self.anonymous).clone());
        }
        let verified = self.verify(&presented, keys, verifier, now)?;
        Ok(Arc::unwrap_or_clone(verified.identity(request)))
    }

    /// The identity of a request without tokens: nothing, but the headers that nobody else may set (rules 70, 79).
    pub fn anonymous(&self) -> &Arc<RequestIdentity> {
        &self.anonymous
    }

    /// Finds the tokens. A CORS preflight shows none (rule 78).
    pub fn present(&self, request: &RequestView<'_>) -> Result<Presented, AuthRefusal> {
        if is_preflight(request) {
            return Ok(Presented::default());
        }
        let tokens = places::tokens(&self.places, request)?;
        Ok(Presented { tokens })
    }

    /// The tokens that `other` found, as these rules find them: by the places that both look at.
    pub fn found_by(&self, other: &Self, presented: &Presented) -> Presented {
        let place_here = |place: usize| {
            let place = other.places.get(place)?;
            self.places.iter().position(|here| here == place)
        };
        let mut tokens: Vec<(usize, String)> = presented
            .tokens()
            .filter_map(|(place, token)| Some((place_here(place)?, token.to_owned())))
            .collect();
        tokens.sort_by_key(|(place, _)| *place);
        Presented { tokens }
    }

    /// Judges tokens that were found. One rule that accepts all of its tokens is enough (rule 75).
    pub fn verify(
        &self,
        presented: &Presented,
        keys: &dyn KeySource,
        verifier: &dyn SignatureVerifier,
        now: Timestamp,
    ) -> Result<Verified, AuthRefusal> {
        let parsed: Vec<_> = presented
            .tokens()
            .map(|(place, token)| (place, token::Parsed::of(token)))
            .collect();
        let mut check = token::Check {
            keys,
            verifier,
            clock_skew: self.clock_skew,
            is_expiry_required: self.is_expiry_required,
            now,
            window: Window::default(),
        };
        let mut fault: Option<TokenFault> = None;
        let mut accepted: Vec<Accepted<'_>> = Vec::new();
        for PlacedRule { rule, places } in &self.rules {
            let found: Result<Vec<Accepted<'_>>, TokenFault> = places
                .iter()
                .flat_map(|number| parsed.iter().filter(move |(place, _)| place == number))
                .map(|(place, parsed)| {
                    let token = parsed.as_ref().map_err(Clone::clone)?;
                    check.accept(rule, token)?;
                    let place = self.places.get(*place);
                    Ok(Accepted { rule, place, token })
                })
                .collect();
            match found {
                Ok(found) => accepted.extend(found),
                // The fault that says most: one of a rule whose issuer it is.
                Err(found) => {
                    fault = Some(match fault {
                        Some(known) => known.better(found),
                        None => found,
                    });
                }
            }
        }
        let window = check.window;
        match (accepted.is_empty(), fault) {
            (true, Some(fault)) => Err(fault.refusal()),
            (true, None) => Ok(Verified {
                identity: Arc::clone(&self.anonymous),
                window,
                cookies: Vec::new(),
            }),
            (false, _) => {
                let (identity, cookies) = token::join(&accepted)?;
                Ok(Verified {
                    identity: Arc::new(without_forged_headers(&self.rules, identity)),
                    window,
                    cookies,
                })
            }
        }
    }
}

// Headers that rules make of claims are never the peer's own, token or not.
fn without_forged_headers(rules: &[PlacedRule], mut identity: RequestIdentity) -> RequestIdentity {
    for PlacedRule { rule, .. } in rules {
        let of_claims = rule.claim_headers.iter().map(|(name, _)| name.clone());
        identity
            .remove_headers
            .extend(of_claims.chain(rule.payload_header.clone()));
    }
    identity.remove_headers.sort();
    identity.remove_headers.dedup();
    identity
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
