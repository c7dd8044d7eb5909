//! One token against one rule, and several accepted tokens into one identity.

use std::sync::Arc;
use std::time::Duration;

use ravelin_proto::jwks::{Jwk, JwkSet};
use ravelin_proto::jws::CompactJws;
use ravelin_proto::jwt_svid::{audiences, numeric_date};
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::time::Timestamp;
use serde_json::{Map, Value};

use super::window::Window;
use super::{AuthRefusal, KeySource, SignatureVerifier, claim_headers};
use crate::call::RequestIdentity;
use crate::diagnostic::excerpt;
use crate::limits;
use crate::schema::{JwtRule, KeyAddress, KeyOrigin, TokenPlace};

/// A token taken apart, for every rule that looks at it. Nothing of it is proven.
pub(super) struct Parsed<'t> {
    jws: CompactJws<'t>,
    claims: Map<String, Value>,
}

impl<'t> Parsed<'t> {
    pub(super) fn of(token: &'t str) -> Result<Self, TokenFault> {
        let jws = CompactJws::parse(token)
            .map_err(|_| TokenFault::Malformed("it is not a signed token within the limits"))?;
        let claims = jws.claims().map_err(|_| {
            TokenFault::Malformed("its payload is not a JSON object within the limits")
        })?;
        Ok(Self { jws, claims })
    }
}

/// A token that a rule accepts, and where it stands.
pub(super) struct Accepted<'t> {
    pub(super) rule: &'t Arc<JwtRule>,
    pub(super) place: Option<&'t TokenPlace>,
    pub(super) token: &'t Parsed<'t>,
}

/// Why a rule does not accept a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenFault {
    Malformed(&'static str),
    /// `iss` is not this rule's.
    Issuer(String),
    Expired,
    ExpiryMissing,
    NotYetValid,
    Audience,
    Subject,
    KeysMissing,
    KeyMissing,
    Signature,
}

impl TokenFault {
    fn rank(&self) -> u8 {
        match self {
            Self::Issuer(_) => 0,
            Self::Malformed(_) => 1,
            Self::KeysMissing | Self::KeyMissing => 2,
            Self::Signature | Self::Subject => 3,
            Self::Expired | Self::ExpiryMissing | Self::NotYetValid => 4,
            Self::Audience => 5,
        }
    }

    /// Of two faults the one that tells more; a token of this issuer over one of another.
    pub(super) fn better(self, other: Self) -> Self {
        if other.rank() > self.rank() {
            other
        } else {
            self
        }
    }

    pub(super) fn refusal(self) -> AuthRefusal {
        let (code, message) = match &self {
            Self::Malformed(why) => ("token_malformed", format!("the token is malformed: {why}")),
            Self::Issuer(issuer) => (
                "token_issuer",
                format!(
                    "no RequestAuthentication accepts the issuer `{}`",
                    excerpt(issuer)
                ),
            ),
            Self::Expired => ("token_expired", "the token has expired".into()),
            Self::ExpiryMissing => (
                "token_expiry_missing",
                "the token has no usable `exp`".into(),
            ),
            Self::NotYetValid => ("token_not_yet_valid", "the token is not valid yet".into()),
            Self::Audience => (
                "token_audience",
                "the token is not meant for this audience".into(),
            ),
            Self::Subject => (
                "token_subject",
                "the token's subject is not of the trust domain that signed it".into(),
            ),
            Self::KeysMissing => (
                "token_keys_missing",
                "there are no keys for the token's issuer".into(),
            ),
            Self::KeyMissing => (
                "token_key_missing",
                "no key of the issuer fits the token".into(),
            ),
            Self::Signature => (
                "token_signature",
                "the token's signature does not verify".into(),
            ),
        };
        let status = if self == Self::Audience { 403 } else { 401 };
        AuthRefusal {
            status,
            code,
            message,
        }
    }
}

/// What tokens are checked against.
pub(super) struct Check<'c> {
    pub(super) keys: &'c dyn KeySource,
    pub(super) verifier: &'c dyn SignatureVerifier,
    pub(super) clock_skew: Duration,
    pub(super) is_expiry_required: bool,
    pub(super) now: Timestamp,
    /// How long the answers given so far stay what they are.
    pub(super) window: Window,
}

impl Check<'_> {
    /// Every check of one token by one rule: issuer, signature, then time and audience of claims that are proven.
    pub(super) fn accept(&mut self, rule: &JwtRule, token: &Parsed<'_>) -> Result<(), TokenFault> {
        check_issuer(rule, &token.claims)?;
        match &rule.keys {
            KeyOrigin::Inline(set) => self.check_signature(&token.jws, set, is_for_tokens)?,
            KeyOrigin::TrustDomain(trust_domain) => self.check_svid(token, trust_domain)?,
            KeyOrigin::Remote(remote) => self.check_fetched(&token.jws, &remote.address)?,
        }
        self.check_times(&token.claims)?;
        check_audience(rule, &token.claims)
    }

    // SPEC: JWT-SVID 4: keys of a trust domain speak for its own members alone.
    fn check_svid(&self, token: &Parsed<'_>, trust_domain: &TrustDomain) -> Result<(), TokenFault> {
        let subject = token.claims.get("sub").and_then(Value::as_str);
        let subject = subject.and_then(|sub| SpiffeId::parse(sub).ok());
        if !subject.is_some_and(|id| id.is_member_of(trust_domain) && !id.is_root()) {
            return Err(TokenFault::Subject);
        }
        let is_type_fine = matches!(token.jws.typ.as_deref(), None | Some("JWT" | "JOSE"));
        if !token.jws.algorithm.is_svid_algorithm() || !is_type_fine {
            return Err(TokenFault::Malformed(
                "its algorithm or type is not one of a JWT-SVID",
            ));
        }
        let set = self
            .keys
            .jwt_bundle(trust_domain)
            .ok_or(TokenFault::KeysMissing)?;
        self.check_signature(&token.jws, &set, is_for_svids)
    }

    // INVARIANT: keys that could not be fetched are a No (threat A9).
    fn check_fetched(&self, jws: &CompactJws<'_>, address: &KeyAddress) -> Result<(), TokenFault> {
        let checked = match self.keys.fetched_keys(address) {
            Some(set) => self.check_signature(jws, &set, is_for_tokens),
            None => Err(TokenFault::KeysMissing),
        };
        let may_be_outdated = match &checked {
            Err(TokenFault::KeysMissing | TokenFault::KeyMissing) => true,
            // WHY: a token that names no key fits each; only a new set can hold the one that signed it.
            Err(TokenFault::Signature) => jws.key_id.is_none(),
            Ok(()) | Err(_) => false,
        };
        if may_be_outdated {
            self.keys.note_missing_key(address);
        }
        checked
    }

    fn check_signature(
        &self,
        jws: &CompactJws<'_>,
        set: &JwkSet,
        has_use: fn(&Jwk) -> bool,
    ) -> Result<(), TokenFault> {
        if set.keys.is_empty() {
            return Err(TokenFault::KeysMissing);
        }
        let fits = |key: &&Jwk| {
            let is_named = match (&jws.key_id, &key.kid) {
                (Some(wanted), Some(kid)) => wanted == kid,
                _ => true,
            };
            is_named && has_use(key) && key.accepts(jws.algorithm)
        };
        let mut outcome = Err(TokenFault::KeyMissing);
        for key in set.keys.iter().filter(fits).take(limits::KEY_TRIES_MAX) {
            let input = jws.signing_input.as_bytes();
            if self
                .verifier
                .is_valid(key, jws.algorithm, input, &jws.signature)
            {
                return Ok(());
            }
            outcome = Err(TokenFault::Signature);
        }
        outcome
    }

    // Rule 77: 60 s of skew unless configured, and `exp` is required unless configured.
    fn check_times(&mut self, claims: &Map<String, Value>) -> Result<(), TokenFault> {
        match claims.get("exp") {
            None if self.is_expiry_required => return Err(TokenFault::ExpiryMissing),
            None => {}
            Some(value) => {
                let expires_at = numeric_date(value).ok_or(TokenFault::ExpiryMissing)?;
                let end = expires_at.plus(self.clock_skew);
                if self.window.is_reached(end, self.now) {
                    return Err(TokenFault::Expired);
                }
            }
        }
        match claims.get("nbf").map(numeric_date) {
            None => Ok(()),
            Some(Some(not_before))
                if self
                    .window
                    .is_reached(not_before.minus(self.clock_skew), self.now) =>
            {
                Ok(())
            }
            Some(_) => Err(TokenFault::NotYetValid),
        }
    }
}

fn check_issuer(rule: &JwtRule, claims: &Map<String, Value>) -> Result<(), TokenFault> {
    let of_token = claims.get("iss").and_then(Value::as_str);
    match (&rule.issuer, of_token) {
        (Some(issuer), Some(of_token)) if issuer == of_token => Ok(()),
        (Some(_), of_token) => Err(TokenFault::Issuer(of_token.unwrap_or_default().to_owned())),
        (None, _) => Ok(()),
    }
}

// SPEC: RFC 7517 4.2: keys for encryption, and for other kinds of SVIDs, check no token (threat 48).
fn is_for_tokens(key: &Jwk) -> bool {
    matches!(key.use_.as_deref(), None | Some("sig" | "jwt-svid"))
}

// SPEC: JWT-SVID 4.
fn is_for_svids(key: &Jwk) -> bool {
    matches!(key.use_.as_deref(), None | Some("jwt-svid"))
}

fn check_audience(rule: &JwtRule, claims: &Map<String, Value>) -> Result<(), TokenFault> {
    if rule.audiences.is_empty() {
        return Ok(());
    }
    let of_token = audiences(claims.get("aud")).unwrap_or_default();
    let is_meant = of_token
        .iter()
        .any(|audience| rule.audiences.contains(audience));
    if is_meant {
        Ok(())
    } else {
        Err(TokenFault::Audience)
    }
}

/// One identity of all accepted tokens, which must tell the same (rule 73); and the cookies that carried tokens.
pub(super) fn join(
    accepted: &[Accepted<'_>],
) -> Result<(RequestIdentity, Vec<String>), AuthRefusal> {
    let Some(first) = accepted.first() else {
        return Ok((RequestIdentity::default(), Vec::new()));
    };
    let claims = &first.token.claims;
    if accepted
        .iter()
        .any(|other| !tell_the_same(claims, &other.token.claims))
    {
        return Err(AuthRefusal {
            status: 401,
            code: "token_conflict",
            message: "the request has several tokens that do not agree".into(),
        });
    }
    let mut identity = identity_of_claims(claims.clone(), &first.rule.space_delimited);
    let mut cookies = Vec::new();
    for Accepted { rule, place, token } in accepted {
        for (name, value) in claim_headers(rule, &token.jws.payload, &token.claims) {
            identity.set_headers.retain(|(known, _)| *known != name);
            identity.set_headers.push((name, value));
        }
        match place {
            Some(_) if rule.forwards_token => {}
            Some(TokenPlace::Header { name, .. }) => identity.remove_headers.push(name.clone()),
            Some(TokenPlace::Param(name)) => identity.remove_params.push(name.clone()),
            Some(TokenPlace::Cookie(name)) => cookies.push(name.clone()),
            None => {}
        }
    }
    Ok((identity, cookies))
}

fn tell_the_same(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    let told = |claims: &Map<String, Value>| -> Map<String, Value> {
        let mut claims = claims.clone();
        for name in ["exp", "iat", "nbf", "jti"] {
            claims.remove(name);
        }
        claims
    };
    told(one) == told(other)
}

/// The attributes that policies see of an accepted token's claims.
pub(crate) fn identity_of_claims(
    mut claims: Map<String, Value>,
    space_delimited: &[Vec<String>],
) -> RequestIdentity {
    let text = |claims: &Map<String, Value>, name: &str| {
        claims.get(name).and_then(Value::as_str).map(str::to_owned)
    };
    let (issuer, subject) = (text(&claims, "iss"), text(&claims, "sub"));
    let mut identity = RequestIdentity {
        principal: issuer
            .as_ref()
            .map(|issuer| format!("{issuer}/{}", subject.as_deref().unwrap_or_default())),
        issuer,
        subject,
        audiences: audiences(claims.get("aud")).unwrap_or_default(),
        presenter: text(&claims, "azp"),
        jti: text(&claims, "jti"),
        ..RequestIdentity::default()
    };
    for name in ["scope", "permission"] {
        split(claims.get_mut(name));
    }
    for steps in space_delimited {
        if let Some((first, rest)) = steps.split_first() {
            let found = rest.iter().try_fold(claims.get_mut(first), |value, step| {
                value.map(|value| value.get_mut(step))
            });
            split(found.flatten());
        }
    }
    identity.claims = Some(Arc::new(claims));
    identity
}

// Rule 51: words match, the joined text no longer does.
fn split(claim: Option<&mut Value>) {
    if let Some(claim) = claim
        && let Value::String(text) = claim
    {
        *claim = text
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(Value::from)
            .collect();
    }
}
