//! The claims of a JWT-SVID (JWT-SVID sections 2 to 4; checklist rows J-1 to J-9).
//!
//! The signature is somebody else's: `runtime::jwt` joins both and is what callers use.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::jws::{CompactJws, JwsError};
use crate::spiffe_id::{SpiffeId, SpiffeIdError};
use crate::time::Timestamp;

/// Most audiences of one token.
pub const AUDIENCES_MAX: usize = 64;

/// Why a token is not a valid JWT-SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtSvidError {
    /// The token's form (J-1, J-2).
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// EdDSA is no JWT-SVID algorithm (J-2).
    #[error("the token's algorithm is not one that a JWT-SVID may use")]
    Algorithm,
    /// `typ` is neither `JWT` nor `JOSE` (J-3).
    #[error("the token's `typ` is neither `JWT` nor `JOSE`")]
    Type,
    /// `sub` is missing (J-4).
    #[error("the token has no `sub`")]
    SubjectMissing,
    /// `sub` is not a SPIFFE ID with a path (J-4).
    #[error("the token's `sub` is not a workload's SPIFFE ID: {0}")]
    Subject(SpiffeIdError),
    /// `sub` is a trust domain.
    #[error("the token's `sub` is a trust domain, not a workload")]
    SubjectRoot,
    /// `aud` is missing, empty or malformed (J-5).
    #[error("the token has no usable `aud`")]
    AudienceMissing,
    /// The validator is not among the audiences (J-5).
    #[error("the token is not meant for this audience")]
    AudienceMismatch,
    /// `exp` is missing or not a number (J-6).
    #[error("the token has no usable `exp`")]
    ExpiryMissing,
    /// `exp` has passed (J-6).
    #[error("the token has expired")]
    Expired,
    /// `nbf` lies in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// No bundle for the trust domain of `sub`.
    #[error("there is no bundle for the token's trust domain")]
    UnknownTrustDomain,
    /// No key of the bundle fits the token's `kid` and algorithm.
    #[error("no key of the trust domain's bundle fits the token")]
    KeyMissing,
    /// The signature is wrong.
    #[error("the token's signature does not verify")]
    Signature,
}

impl JwtSvidError {
    /// Stable code for logs, metrics and documentation.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Jws(_) | Self::Type => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::SubjectMissing | Self::Subject(_) | Self::SubjectRoot => "token_subject",
            Self::AudienceMissing | Self::AudienceMismatch => "token_audience",
            Self::ExpiryMissing => "token_expiry_missing",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::UnknownTrustDomain => "token_trust_domain",
            Self::KeyMissing => "token_key_missing",
            Self::Signature => "token_signature",
        }
    }
}

/// The checked claims of a JWT-SVID.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtSvid {
    /// `sub`.
    pub id: SpiffeId,
    /// `aud`, always as a list.
    pub audience: Vec<String>,
    /// `exp`.
    pub expires_at: Timestamp,
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// `kid` of the header.
    pub key_id: Option<String>,
    /// `jti`.
    pub jti: Option<String>,
    /// All claims.
    pub claims: Map<String, Value>,
}

/// Checks every rule but the signature. `leeway` widens `exp` and `nbf` alone.
pub fn check_claims(
    token: &CompactJws<'_>,
    audience: &str,
    now: Timestamp,
    leeway: Duration,
) -> Result<JwtSvid, JwtSvidError> {
    let svid = read_claims(token)?;
    if !svid.audience.iter().any(|entry| entry == audience) {
        return Err(JwtSvidError::AudienceMismatch);
    }
    if svid.expires_at.plus(leeway) <= now {
        return Err(JwtSvidError::Expired);
    }
    let not_before = match svid.claims.get("nbf") {
        None => None,
        Some(value) => Some(numeric_date(value).ok_or(JwtSvidError::NotYetValid)?),
    };
    if not_before.is_some_and(|at| at > now.plus(leeway)) {
        return Err(JwtSvidError::NotYetValid);
    }
    Ok(svid)
}

/// Reads the claims of a token that this process trusts already (its own CA has just sent it):
/// every rule of form, none of audience or time.
pub fn read_claims(token: &CompactJws<'_>) -> Result<JwtSvid, JwtSvidError> {
    if !token.algorithm.is_svid_algorithm() {
        return Err(JwtSvidError::Algorithm);
    }
    if token
        .typ
        .as_deref()
        .is_some_and(|typ| !matches!(typ, "JWT" | "JOSE"))
    {
        return Err(JwtSvidError::Type);
    }
    let claims = token.claims()?;
    let subject = claims
        .get("sub")
        .and_then(Value::as_str)
        .ok_or(JwtSvidError::SubjectMissing)?;
    let id = SpiffeId::parse(subject).map_err(JwtSvidError::Subject)?;
    if id.is_root() {
        return Err(JwtSvidError::SubjectRoot);
    }
    let audience = audiences(claims.get("aud")).ok_or(JwtSvidError::AudienceMissing)?;
    let expires_at = claims
        .get("exp")
        .and_then(numeric_date)
        .ok_or(JwtSvidError::ExpiryMissing)?;
    Ok(JwtSvid {
        id,
        audience,
        expires_at,
        issued_at: claims.get("iat").and_then(numeric_date),
        key_id: token.key_id.clone(),
        jti: claims.get("jti").and_then(Value::as_str).map(str::to_owned),
        claims,
    })
}

/// `aud` as a list: a string, or an array of 1 to [`AUDIENCES_MAX`] strings (RFC 7519 4.1.3).
pub fn audiences(value: Option<&Value>) -> Option<Vec<String>> {
    let list: Vec<String> = match value? {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many
            .iter()
            .map(|entry| entry.as_str().map(str::to_owned))
            .collect::<Option<_>>()?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    };
    let is_usable = !list.is_empty()
        && list.len() <= AUDIENCES_MAX
        && list.iter().all(|entry| !entry.is_empty());
    is_usable.then_some(list)
}

/// A NumericDate (RFC 7519 section 2): whole seconds, or a fraction that is cut off.
pub fn numeric_date(value: &Value) -> Option<Timestamp> {
    if let Some(secs) = value.as_i64() {
        return Some(Timestamp::from_unix_secs(secs));
    }
    let text = value.as_f64()?.trunc().to_string();
    text.parse().ok().map(Timestamp::from_unix_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    fn check(header: &Value, claims: &Value) -> Result<JwtSvid, JwtSvidError> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let token = format!("{}.{}.c2ln", part(header), part(claims));
        let jws = CompactJws::parse(&token)?;
        check_claims(
            &jws,
            "payments",
            Timestamp::from_unix_secs(1000),
            Duration::from_secs(5),
        )
    }

    #[test]
    fn j_02_to_06_and_threat_42_each_rule_refuses_by_name() {
        use JwtSvidError as E;
        let good = json!({"sub":"spiffe://td/a","aud":["payments"],"exp":2000});
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            claims
        };
        let without = |name: &str| {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().remove(name);
            claims
        };
        let es = json!({"alg":"ES256","kid":"k"});
        let rows: Vec<(&str, Value, Value, Option<E>)> = vec![
            ("good", es.clone(), good.clone(), None),
            (
                "J-3 typ JOSE",
                json!({"alg":"ES256","typ":"JOSE"}),
                good.clone(),
                None,
            ),
            (
                "J-3 typ other",
                json!({"alg":"ES256","typ":"wit+jwt"}),
                good.clone(),
                Some(E::Type),
            ),
            (
                "J-2 EdDSA",
                json!({"alg":"EdDSA"}),
                good.clone(),
                Some(E::Algorithm),
            ),
            (
                "J-4 no sub",
                es.clone(),
                without("sub"),
                Some(E::SubjectMissing),
            ),
            (
                "J-4 root",
                es.clone(),
                with("sub", json!("spiffe://td")),
                Some(E::SubjectRoot),
            ),
            (
                "J-5 no aud",
                es.clone(),
                without("aud"),
                Some(E::AudienceMissing),
            ),
            (
                "J-5 empty list",
                es.clone(),
                with("aud", json!([])),
                Some(E::AudienceMissing),
            ),
            (
                "J-5 number",
                es.clone(),
                with("aud", json!([1])),
                Some(E::AudienceMissing),
            ),
            (
                "J-5 string",
                es.clone(),
                with("aud", json!("payments")),
                None,
            ),
            (
                "J-5 among several",
                es.clone(),
                with("aud", json!(["x", "payments"])),
                None,
            ),
            (
                "prefix is no match",
                es.clone(),
                with("aud", json!(["payments2"])),
                Some(E::AudienceMismatch),
            ),
            (
                "case is no match",
                es.clone(),
                with("aud", json!(["Payments"])),
                Some(E::AudienceMismatch),
            ),
            (
                "J-6 no exp",
                es.clone(),
                without("exp"),
                Some(E::ExpiryMissing),
            ),
            (
                "J-6 exp text",
                es.clone(),
                with("exp", json!("2000")),
                Some(E::ExpiryMissing),
            ),
            (
                "J-6 past",
                es.clone(),
                with("exp", json!(995)),
                Some(E::Expired),
            ),
            (
                "J-6 within leeway",
                es.clone(),
                with("exp", json!(996)),
                None,
            ),
            ("exp fraction", es.clone(), with("exp", json!(1000.9)), None),
            (
                "nbf future",
                es.clone(),
                with("nbf", json!(1006)),
                Some(E::NotYetValid),
            ),
            (
                "nbf within leeway",
                es.clone(),
                with("nbf", json!(1005)),
                None,
            ),
            (
                "nbf text",
                es.clone(),
                with("nbf", json!("x")),
                Some(E::NotYetValid),
            ),
        ];
        for (name, header, claims, want) in rows {
            assert_eq!(check(&header, &claims).err(), want, "{name}");
        }
        assert!(matches!(
            check(&es, &with("sub", json!("alice"))),
            Err(E::Subject(_))
        ));
    }
}
