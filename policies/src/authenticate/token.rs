//! One token against one rule, and several accepted tokens into one identity.

use std::sync::Arc;

use ravelin_proto::jwks::{Jwk, JwkSet};
use ravelin_proto::jws::CompactJws;
use ravelin_proto::jwt_svid::{audiences, numeric_date};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use serde_json::{Map, Value};

use super::{
    AuthRefusal, KeySource, RequestAuthentications, RequestView, SignatureVerifier, claim_headers,
    places,
};
use crate::call::RequestIdentity;
use crate::diagnostic::excerpt;
use crate::limits;
use crate::schema::{JwtRule, KeyOrigin, TokenPlace};

/// A token that a rule accepts.
pub(super) struct Accepted {
    rule: Arc<JwtRule>,
    place: TokenPlace,
    payload: Vec<u8>,
    claims: Map<String, Value>,
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

/// Every check of one token: form, issuer, signature, then time and audience of claims that are proven.
pub(super) fn check(
    rule: &Arc<JwtRule>,
    place: &TokenPlace,
    token: &str,
    settings: &RequestAuthentications,
    keys: &dyn KeySource,
    verifier: &dyn SignatureVerifier,
    now: Timestamp,
) -> Result<Accepted, TokenFault> {
    let jws = CompactJws::parse(token)
        .map_err(|_| TokenFault::Malformed("it is not a signed token within the limits"))?;
    let claims = jws
        .claims()
        .map_err(|_| TokenFault::Malformed("its payload is not a JSON object within the limits"))?;
    match claims.get("iss") {
        Some(Value::String(issuer)) if *issuer == rule.issuer => {}
        Some(Value::String(issuer)) => return Err(TokenFault::Issuer(issuer.clone())),
        _ => return Err(TokenFault::Issuer(String::new())),
    }
    match &rule.keys {
        KeyOrigin::Inline(set) => check_signature(&jws, set, verifier)?,
        KeyOrigin::TrustDomain(trust_domain) => {
            // SPEC: JWT-SVID 4: keys of a trust domain speak for its own members alone.
            let subject = claims
                .get("sub")
                .and_then(Value::as_str)
                .and_then(|sub| SpiffeId::parse(sub).ok());
            let is_type_fine = matches!(jws.typ.as_deref(), None | Some("JWT" | "JOSE"));
            if !subject.is_some_and(|id| id.is_member_of(trust_domain) && !id.is_root()) {
                return Err(TokenFault::Subject);
            }
            if !jws.algorithm.is_svid_algorithm() || !is_type_fine {
                return Err(TokenFault::Malformed(
                    "its algorithm or type is not one of a JWT-SVID",
                ));
            }
            let set = keys
                .jwt_bundle(trust_domain)
                .ok_or(TokenFault::KeysMissing)?;
            check_signature(&jws, &set, verifier)?;
        }
    }
    check_times(&claims, settings, now)?;
    check_audience(rule, &claims)?;
    Ok(Accepted {
        rule: Arc::clone(rule),
        place: place.clone(),
        payload: jws.payload,
        claims,
    })
}

fn check_signature(
    jws: &CompactJws<'_>,
    set: &JwkSet,
    verifier: &dyn SignatureVerifier,
) -> Result<(), TokenFault> {
    if set.keys.is_empty() {
        return Err(TokenFault::KeysMissing);
    }
    let fits = |key: &&Jwk| {
        let is_named = match (&jws.key_id, &key.kid) {
            (Some(wanted), Some(kid)) => wanted == kid,
            _ => true,
        };
        let is_for_signing = !matches!(key.use_.as_deref(), Some("enc" | "x509-svid" | "wit-svid"));
        is_named && is_for_signing && key.accepts(jws.algorithm)
    };
    let mut tried = false;
    for key in set.keys.iter().filter(fits).take(limits::KEY_TRIES_MAX) {
        tried = true;
        if verifier.is_valid(
            key,
            jws.algorithm,
            jws.signing_input.as_bytes(),
            &jws.signature,
        ) {
            return Ok(());
        }
    }
    Err(if tried {
        TokenFault::Signature
    } else {
        TokenFault::KeyMissing
    })
}

fn check_times(
    claims: &Map<String, Value>,
    settings: &RequestAuthentications,
    now: Timestamp,
) -> Result<(), TokenFault> {
    let skew = settings.clock_skew();
    match claims.get("exp") {
        None if settings.is_expiry_required() => return Err(TokenFault::ExpiryMissing),
        None => {}
        Some(value) => {
            let expires_at = numeric_date(value).ok_or(TokenFault::ExpiryMissing)?;
            if expires_at.plus(skew) <= now {
                return Err(TokenFault::Expired);
            }
        }
    }
    match claims.get("nbf").map(numeric_date) {
        None => Ok(()),
        Some(Some(not_before)) if not_before <= now.plus(skew) => Ok(()),
        Some(_) => Err(TokenFault::NotYetValid),
    }
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

/// One identity of all accepted tokens; they must tell the same (rule 73).
pub(super) fn join(
    accepted: &[Accepted],
    request: &RequestView<'_>,
) -> Result<RequestIdentity, AuthRefusal> {
    let Some(first) = accepted.first() else {
        return Ok(RequestIdentity::default());
    };
    if accepted
        .iter()
        .any(|other| !tell_the_same(&first.claims, &other.claims))
    {
        return Err(AuthRefusal {
            status: 401,
            code: "token_conflict",
            message: "the request has several tokens that do not agree".into(),
        });
    }
    let mut identity = identity_of_claims(first.claims.clone(), &first.rule.space_delimited);
    let mut cookies = Vec::new();
    for token in accepted {
        for (name, value) in claim_headers(&token.rule, &token.payload, &token.claims) {
            identity.set_headers.retain(|(known, _)| *known != name);
            identity.set_headers.push((name, value));
        }
        if token.rule.forwards_token {
            continue;
        }
        match &token.place {
            TokenPlace::Header { name, .. } => identity.remove_headers.push(name.clone()),
            TokenPlace::Param(name) => identity.remove_params.push(name.clone()),
            TokenPlace::Cookie(name) => cookies.push(name.as_str()),
        }
    }
    if !cookies.is_empty() {
        identity.remove_headers.push("cookie".into());
        let kept = places::cookies_without(request, &cookies);
        identity
            .set_headers
            .extend(kept.map(|kept| ("cookie".to_owned(), kept)));
    }
    Ok(identity)
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
