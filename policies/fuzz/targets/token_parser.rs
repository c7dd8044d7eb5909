//! Any text as a token, or three lines as its header, claims and signature: what is accepted is what its claims say.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ravelin_policies::{
    KeyAddress, KeySource, RequestView, SignatureVerifier, WorkloadPolicies, load,
};
use ravelin_proto::jwks::{Jwk, JwkSet};
use ravelin_proto::jws::JwsAlgorithm;
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::time::Timestamp;
use serde_json::Value;

use super::{MESH, file};

const NOW: i64 = 1_000_000;

/// A signature is right when it is the key's own kid.
struct KidIsSignature;

impl SignatureVerifier for KidIsSignature {
    fn is_valid(&self, key: &Jwk, _: JwsAlgorithm, _: &[u8], signature: &[u8]) -> bool {
        key.kid.as_deref().map(str::as_bytes) == Some(signature)
    }
}

struct NoBundles;

impl KeySource for NoBundles {
    fn jwt_bundle(&self, _: &TrustDomain) -> Option<Arc<JwkSet>> {
        None
    }

    fn fetched_keys(&self, _: &KeyAddress) -> Option<Arc<JwkSet>> {
        None
    }

    fn note_missing_key(&self, _: &KeyAddress) {}
}

/// Presents the token to a workload that takes one issuer and one audience.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let parts: Vec<&str> = text.split('\n').collect();
    let token = match parts.as_slice() {
        [_, _, _] => parts
            .iter()
            .map(|part| URL_SAFE_NO_PAD.encode(part))
            .collect::<Vec<_>>()
            .join("."),
        _ => text.to_owned(),
    };
    thread_local! {
        static POLICIES: WorkloadPolicies = policies();
    }
    let headers = vec![("authorization".to_owned(), format!("Bearer {token}"))];
    let view = RequestView {
        method: "GET",
        query: None,
        headers: &headers,
    };
    let found = POLICIES.with(|policies| {
        policies.authentication().authenticate(
            &view,
            &NoBundles,
            &KidIsSignature,
            Timestamp::from_unix_secs(NOW),
        )
    });
    match found {
        Ok(identity) if identity.principal.is_some() => {
            check_accepted(&token, &identity.principal.unwrap());
        }
        Ok(_) if token.trim().is_empty() => {}
        Ok(_) => panic!("a token that was presented is passed over: {token:?}"),
        Err(refusal) => {
            assert!(matches!(refusal.status, 401 | 403), "{refusal:?}");
            assert!(!refusal.code.is_empty(), "{refusal:?}");
            let is_tame = !refusal.message.chars().any(char::is_control);
            assert!(is_tame && refusal.message.len() < 1024, "{refusal:?}");
        }
    }
}

fn policies() -> WorkloadPolicies {
    let x = URL_SAFE_NO_PAD.encode([7_u8; 32]);
    let key = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}","kid":"k1"}}"#);
    let authentication = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: jwt, namespace: shop}}\nspec:\n  jwtRules:\n  - {{issuer: idp, audiences: [payments], jwks: '{{\"keys\":[{key}]}}'}}\n"
    );
    let set = load(&[file("ravelin.yaml", MESH), file("a.yaml", &authentication)]).unwrap();
    let id = SpiffeId::parse("spiffe://shop.example/ns/shop/sa/payments").unwrap();
    WorkloadPolicies::compile(&set, &set.workload(&id), 1).unwrap()
}

/// The token taken apart a second time, by the plainest means.
fn check_accepted(token: &str, principal: &str) {
    let parts: Vec<Vec<u8>> = token
        .split('.')
        .map(|part| URL_SAFE_NO_PAD.decode(part).unwrap())
        .collect();
    let [header, claims, signature] = parts.as_slice() else {
        panic!("accepted in {} parts: {token:?}", parts.len());
    };
    let header: Value = serde_json::from_slice(header).unwrap();
    let claims: Value = serde_json::from_slice(claims).unwrap();
    assert_eq!(header["alg"], "ES256", "{token:?}");
    assert!(header.get("crit").is_none(), "{header}");
    assert!(header.get("kid").is_none_or(|kid| kid == "k1"), "{header}");
    assert_eq!(signature, b"k1", "{token:?}");
    assert_eq!(claims["iss"], "idp", "{claims}");
    let subject = claims["sub"].as_str().unwrap_or_default();
    assert_eq!(principal, format!("idp/{subject}"), "{claims}");
    let is_meant = claims["aud"] == "payments"
        || claims["aud"]
            .as_array()
            .is_some_and(|list| list.iter().any(|one| one == "payments"));
    assert!(is_meant, "{claims}");
    let date = |name: &str| claims.get(name).map(|value| value.as_f64().unwrap());
    #[allow(
        clippy::cast_precision_loss,
        clippy::as_conversions,
        reason = "a small number"
    )]
    let now = NOW as f64;
    assert!(date("exp").unwrap() > now - 61.0, "{claims}");
    assert!(date("nbf").is_none_or(|from| from < now + 61.0), "{claims}");
}
