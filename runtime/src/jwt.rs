//! A whole JWT-SVID check: form, claims, then the signature, with keys of the trust domain of `sub` alone
//! (JWT-SVID 5). Called by the agent's Workload API and by the proxies.

use std::collections::BTreeMap;
use std::time::Duration;

use ravelin_proto::jwks::{Jwk, JwkSet};
use ravelin_proto::jws::CompactJws;
use ravelin_proto::jwt_svid::{JwtSvid, JwtSvidError, check_claims};
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_proto::time::Timestamp;

use crate::crypto::verify_jws;

/// JWT authorities by trust domain. Sets of different trust domains are never merged (B-5).
pub type JwtBundles = BTreeMap<TrustDomain, JwkSet>;

/// Checks `token` for `audience`. Claims are judged first: they are cheaper than a signature.
pub fn validate_jwt_svid(
    token: &str,
    bundles: &JwtBundles,
    audience: &str,
    now: Timestamp,
    leeway: Duration,
) -> Result<JwtSvid, JwtSvidError> {
    let jws = CompactJws::parse(token)?;
    let svid = check_claims(&jws, audience, now, leeway)?;
    let keys = bundles
        .get(&svid.id.trust_domain())
        .ok_or(JwtSvidError::UnknownTrustDomain)?;
    verify_with_set(&jws, keys)?;
    Ok(svid)
}

/// Checks the signature of `jws` against the keys that its `kid` names, or all of them if it names none. A key for
/// another use than JWT-SVIDs is never tried (J-9).
fn verify_with_set(jws: &CompactJws<'_>, keys: &JwkSet) -> Result<(), JwtSvidError> {
    let fits = |key: &&Jwk| {
        let is_named = match (&jws.key_id, &key.kid) {
            (Some(wanted), kid) => kid.as_ref() == Some(wanted),
            (None, _) => true,
        };
        let has_use = key.use_.as_deref().is_none_or(|use_| use_ == "jwt-svid");
        is_named && has_use && key.accepts(jws.algorithm)
    };
    let mut outcome = Err(JwtSvidError::KeyMissing);
    for key in keys.keys.iter().filter(fits) {
        if verify_jws(
            key,
            jws.algorithm,
            jws.signing_input.as_bytes(),
            &jws.signature,
        )
        .is_ok()
        {
            return Ok(());
        }
        outcome = Err(JwtSvidError::Signature);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::JwsSigner;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    fn domain(name: &str) -> TrustDomain {
        TrustDomain::parse(name).expect("trust domain")
    }

    fn signer() -> JwsSigner {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
        JwsSigner::from_pkcs8(pair.serialized_der()).expect("signer")
    }

    fn token(signer: &JwsSigner, kid: Option<&str>, sub: &str, exp: i64) -> String {
        let mut header = json!({"alg": "ES256", "typ": "JWT"});
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        let claims = json!({"sub": sub, "aud": ["payments"], "exp": exp});
        let input = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = signer.sign(input.as_bytes()).expect("signature");
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn bundles(entries: &[(&str, &str, &str, &JwsSigner)]) -> JwtBundles {
        let mut bundles = JwtBundles::new();
        for (name, kid, use_, signer) in entries {
            let key = Jwk::from_spki(Some(kid), Some(use_), signer.spki()).expect("jwk");
            bundles.entry(domain(name)).or_default().keys.push(key);
        }
        bundles
    }

    #[test]
    fn threat_44_a_token_is_checked_with_the_keys_of_its_own_trust_domain_and_use() {
        let (ours, theirs) = (signer(), signer());
        let good = bundles(&[("one.test", "k1", "jwt-svid", &ours)]);
        let sub = "spiffe://one.test/orders";
        for (name, token, bundles, want) in [
            (
                "right",
                token(&ours, Some("k1"), sub, 2000),
                good.clone(),
                None,
            ),
            (
                "no kid tries all",
                token(&ours, None, sub, 2000),
                good.clone(),
                None,
            ),
            (
                "unknown kid",
                token(&ours, Some("k2"), sub, 2000),
                good.clone(),
                Some(JwtSvidError::KeyMissing),
            ),
            (
                "another's signature",
                token(&theirs, Some("k1"), sub, 2000),
                good.clone(),
                Some(JwtSvidError::Signature),
            ),
            (
                "expired",
                token(&ours, Some("k1"), sub, 900),
                good.clone(),
                Some(JwtSvidError::Expired),
            ),
            (
                "trust domain without a bundle",
                token(&ours, Some("k1"), "spiffe://two.test/orders", 2000),
                good,
                Some(JwtSvidError::UnknownTrustDomain),
            ),
            (
                "key of another trust domain",
                token(&theirs, Some("k1"), sub, 2000),
                bundles(&[
                    ("one.test", "k1", "jwt-svid", &ours),
                    ("two.test", "k1", "jwt-svid", &theirs),
                ]),
                Some(JwtSvidError::Signature),
            ),
            (
                "key for WIT-SVIDs",
                token(&ours, Some("k1"), sub, 2000),
                bundles(&[("one.test", "k1", "wit-svid", &ours)]),
                Some(JwtSvidError::KeyMissing),
            ),
            (
                "empty bundle",
                token(&ours, Some("k1"), sub, 2000),
                JwtBundles::from([(domain("one.test"), JwkSet::default())]),
                Some(JwtSvidError::KeyMissing),
            ),
        ] {
            let now = Timestamp::from_unix_secs(1000);
            let got = validate_jwt_svid(&token, &bundles, "payments", now, Duration::ZERO);
            assert_eq!(got.err(), want, "{name}");
        }
    }
}
