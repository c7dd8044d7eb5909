//! RequestAuthentication: every rule of a token but the signature, which a fake verifier stands in for.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "tables of a test"
)]

mod support;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ravelin_policies::*;
use ravelin_proto::jwks::{Jwk, JwkSet};
use ravelin_proto::jws::JwsAlgorithm;
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_proto::time::Timestamp;
use serde_json::{Value, json};
use support::*;

const NOW: i64 = 1_000_000;

fn key(kid: &str) -> String {
    let x = URL_SAFE_NO_PAD.encode([7_u8; 32]);
    format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}","kid":"{kid}"}}"#)
}

/// A signature is right when it is the key's own kid.
struct KidIsSignature;

impl SignatureVerifier for KidIsSignature {
    fn is_valid(&self, key: &Jwk, _: JwsAlgorithm, _: &[u8], signature: &[u8]) -> bool {
        key.kid.as_deref().map(str::as_bytes) == Some(signature)
    }
}

struct Bundles(Option<Arc<JwkSet>>);

impl KeySource for Bundles {
    fn jwt_bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<JwkSet>> {
        self.0
            .clone()
            .filter(|_| trust_domain.as_str() == "shop.example")
    }
}

fn bundle() -> Bundles {
    Bundles(Some(Arc::new(
        JwkSet::parse(&format!(r#"{{"keys":[{}]}}"#, key("b1"))).unwrap(),
    )))
}

fn token_with(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!(
        "{}.{}.{}",
        part(header.to_string().as_bytes()),
        part(claims.to_string().as_bytes()),
        part(signature.as_bytes())
    )
}

fn token(claims: &Value) -> String {
    token_with(&json!({"alg": "ES256", "kid": "k1"}), claims, "k1")
}

fn claims() -> Value {
    json!({"iss": "idp", "sub": "alice", "aud": ["payments"], "exp": NOW + 100})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn authentication(rules: &str) -> String {
    format!(
        "\n---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: jwt, namespace: shop}}\nspec:\n  jwtRules:\n{rules}"
    )
}

fn rule(more: &str) -> String {
    format!(
        "  - {{issuer: idp, jwks: '{{\"keys\":[{}]}}'{more}}}\n",
        key("k1")
    )
}

struct Request {
    method: &'static str,
    query: Option<String>,
    headers: Vec<(String, String)>,
}

fn bearer(tokens: &[&str]) -> Request {
    let headers = tokens
        .iter()
        .map(|token| ("authorization".to_owned(), format!("Bearer {token}")))
        .collect();
    Request {
        method: "GET",
        query: None,
        headers,
    }
}

fn run(policies: &WorkloadPolicies, request: &Request) -> Result<RequestIdentity, AuthRefusal> {
    let view = RequestView {
        method: request.method,
        query: request.query.as_deref(),
        headers: &request.headers,
    };
    policies.authentication().authenticate(
        &view,
        &bundle(),
        &KidIsSignature,
        Timestamp::from_unix_secs(NOW),
    )
}

fn code(result: Result<RequestIdentity, AuthRefusal>) -> (u16, &'static str) {
    match result {
        Ok(identity) => (
            200,
            if identity.principal.is_some() {
                "token"
            } else {
                "none"
            },
        ),
        Err(refusal) => (refusal.status, refusal.code),
    }
}

#[test]
fn rule_70_to_77_each_fault_of_a_token_has_its_code() {
    let policies = compile(&authentication(&rule(", audiences: [payments]")));
    let es = json!({"alg": "ES256", "kid": "k1"});
    let rows: Vec<(&str, String, (u16, &str))> = vec![
        ("good", token(&claims()), (200, "token")),
        (
            "aud as text",
            token(&with("aud", json!("payments"))),
            (200, "token"),
        ),
        (
            "77 within skew",
            token(&with("exp", json!(NOW - 59))),
            (200, "token"),
        ),
        (
            "71 expired",
            token(&with("exp", json!(NOW - 60))),
            (401, "token_expired"),
        ),
        (
            "77 no exp",
            token(&without("exp")),
            (401, "token_expiry_missing"),
        ),
        (
            "exp text",
            token(&with("exp", json!("9"))),
            (401, "token_expiry_missing"),
        ),
        (
            "71 nbf",
            token(&with("nbf", json!(NOW + 61))),
            (401, "token_not_yet_valid"),
        ),
        (
            "nbf within skew",
            token(&with("nbf", json!(NOW + 60))),
            (200, "token"),
        ),
        (
            "nbf text",
            token(&with("nbf", json!("x"))),
            (401, "token_not_yet_valid"),
        ),
        (
            "71 issuer",
            token(&with("iss", json!("evil"))),
            (401, "token_issuer"),
        ),
        ("no issuer", token(&without("iss")), (401, "token_issuer")),
        (
            "issuer is a list",
            token(&with("iss", json!(["idp"]))),
            (401, "token_issuer"),
        ),
        (
            "74 audience",
            token(&with("aud", json!(["ship"]))),
            (403, "token_audience"),
        ),
        (
            "74 no audience",
            token(&without("aud")),
            (403, "token_audience"),
        ),
        (
            "71 signature",
            token_with(&es, &claims(), "forged"),
            (401, "token_signature"),
        ),
        (
            "71 other key",
            token_with(&json!({"alg": "ES256", "kid": "k2"}), &claims(), "k2"),
            (401, "token_key_missing"),
        ),
        (
            "no kid: every fitting key",
            token_with(&json!({"alg": "ES256"}), &claims(), "k1"),
            (200, "token"),
        ),
        (
            "77 none",
            token_with(&json!({"alg": "none"}), &claims(), "x"),
            (401, "token_malformed"),
        ),
        (
            "77 HMAC with a public key",
            token_with(&json!({"alg": "HS256", "kid": "k1"}), &claims(), "k1"),
            (401, "token_malformed"),
        ),
        (
            "77 algorithm of another key",
            token_with(&json!({"alg": "RS256", "kid": "k1"}), &claims(), "k1"),
            (401, "token_key_missing"),
        ),
        ("garbage", "garbage".into(), (401, "token_malformed")),
        ("empty", String::new(), (401, "token_malformed")),
        (
            "a fault of form before a forged signature's time",
            token_with(&es, &with("exp", json!(0)), "forged"),
            (401, "token_signature"),
        ),
    ];
    for (name, token, want) in rows {
        assert_eq!(code(run(&policies, &bearer(&[&token]))), want, "{name}");
    }
    assert_eq!(code(run(&policies, &bearer(&[]))), (200, "none"), "70");
    let basic = Request {
        method: "GET",
        query: None,
        headers: vec![("authorization".into(), "Basic x".into())],
    };
    assert_eq!(
        code(run(&policies, &basic)),
        (200, "none"),
        "73 another prefix is no token"
    );
}

#[test]
fn rule_72_73_tokens_are_read_where_the_rule_says() {
    let default = compile(&authentication(&rule("")));
    let explicit = compile(&authentication(&rule(
        ", fromHeaders: [{name: X-Token, prefix: 'T '}], fromParams: [t], fromCookies: [c]",
    )));
    let good = token(&claims());
    let bad = token(&with("exp", json!(1)));
    let request = |query: Option<String>, headers: &[(&str, String)]| Request {
        method: "GET",
        query,
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
    };
    for (name, policies, request, want) in [
        (
            "default param",
            &default,
            request(Some(format!("a=1&access_token={good}")), &[]),
            (200, "token"),
        ),
        ("replaced header", &explicit, bearer(&[&bad]), (200, "none")),
        (
            "replaced param",
            &explicit,
            request(Some(format!("access_token={bad}")), &[]),
            (200, "none"),
        ),
        (
            "header",
            &explicit,
            request(None, &[("x-token", format!("T {good}"))]),
            (200, "token"),
        ),
        (
            "wrong prefix",
            &explicit,
            request(None, &[("x-token", format!("t {bad}"))]),
            (200, "none"),
        ),
        (
            "param",
            &explicit,
            request(Some(format!("t={good}")), &[]),
            (200, "token"),
        ),
        (
            "cookie",
            &explicit,
            request(None, &[("cookie", format!("a=b; c={good}"))]),
            (200, "token"),
        ),
        (
            "one good, one expired",
            &explicit,
            request(
                Some(format!("t={bad}")),
                &[("x-token", format!("T {good}"))],
            ),
            (401, "token_expired"),
        ),
        (
            "two good",
            &default,
            bearer(&[&good, &token(&with("exp", json!(NOW + 50)))]),
            (200, "token"),
        ),
        (
            "two that disagree",
            &default,
            bearer(&[&good, &token(&with("sub", json!("bob")))]),
            (401, "token_conflict"),
        ),
        (
            "too many",
            &default,
            bearer(&[good.as_str(); 9]),
            (401, "token_too_many"),
        ),
    ] {
        assert_eq!(code(run(policies, &request)), want, "{name}");
    }
}

#[test]
fn rule_75_several_issuers_are_tried_and_an_unknown_one_is_refused() {
    let other = rule("").replace("idp", "second").replace("k1", "k9");
    let policies = compile(&(authentication(&rule("")) + &other));
    let second = token_with(
        &json!({"alg": "ES256", "kid": "k9"}),
        &with("iss", json!("second")),
        "k9",
    );
    assert_eq!(
        code(run(&policies, &bearer(&[&token(&claims())]))),
        (200, "token")
    );
    assert_eq!(code(run(&policies, &bearer(&[&second]))), (200, "token"));
    assert_eq!(
        code(run(
            &policies,
            &bearer(&[&token(&with("iss", json!("third")))])
        )),
        (401, "token_issuer")
    );
    let crossed = token_with(
        &json!({"alg": "ES256", "kid": "k1"}),
        &with("iss", json!("second")),
        "k1",
    );
    assert_eq!(
        code(run(&policies, &bearer(&[&crossed]))),
        (401, "token_key_missing"),
        "a key speaks for its own issuer"
    );
}

#[test]
fn rule_76_and_threat_a9_keys_come_from_one_place_or_the_set_is_refused() {
    let set_of = |keys: &str| format!("  - {{issuer: idp, jwks: '{{\"keys\":[{keys}]}}'}}\n");
    let private = key("k1").replace("\"kid\"", "\"d\":\"AAAA\",\"kid\"");
    for (name, rules, want) in [
        ("both", rule(", jwksFile: keys.json"), "bad-combination"),
        (
            "none: discovery",
            "  - {issuer: idp}\n".to_owned(),
            "not-supported",
        ),
        (
            "no issuer",
            rule("").replace("issuer: idp, ", ""),
            "missing-field",
        ),
        (
            "broken",
            "  - {issuer: idp, jwks: 'x'}\n".to_owned(),
            "bad-key-set",
        ),
        ("private key", set_of(&private), "bad-key-set"),
        ("no usable key", set_of(""), "bad-key-set"),
        (
            "missing file",
            "  - {issuer: idp, jwksFile: none.json}\n".to_owned(),
            "no-such-file",
        ),
        (
            "other scheme",
            "  - {issuer: idp, jwksUri: 'file:///x'}\n".to_owned(),
            "bad-value",
        ),
        (
            "bad header",
            rule(", fromHeaders: [{name: 'a b'}]"),
            "bad-header",
        ),
        (
            "framing header",
            rule(", outputPayloadToHeader: Host"),
            "bad-header",
        ),
        (
            "same header",
            rule(", outputClaimToHeaders: [{header: a, claim: b}, {header: A, claim: c}]"),
            "duplicate-header",
        ),
    ] {
        assert_eq!(
            errors(&authentication(&rules)).first().copied(),
            Some(want),
            "{name}"
        );
    }
    let mut all = files(&authentication(
        "  - {issuer: idp, jwksFile: keys/idp.json}\n",
    ));
    all.push(file(
        "keys/idp.json",
        &format!(r#"{{"keys":[{}]}}"#, key("k1")),
    ));
    let set = load(&all).unwrap();
    assert!(matches!(
        set.request_authentications[0].rules[0].keys,
        KeyOrigin::Inline(_)
    ));
}

#[test]
fn keys_of_a_trust_domain_speak_for_its_own_members_alone() {
    let policies = compile(&authentication(
        "  - {issuer: 'spiffe://shop.example', jwksUri: 'spiffe://shop.example', audiences: [payments]}\n",
    ));
    assert_eq!(policies.authentication().trust_domains().len(), 1);
    let svid = |header: Value, sub: &str| {
        token_with(
            &header,
            &json!({"iss": "spiffe://shop.example", "sub": sub, "aud": ["payments"], "exp": NOW + 9}),
            "b1",
        )
    };
    let es = json!({"alg": "ES256", "kid": "b1", "typ": "JWT"});
    let own = "spiffe://shop.example/ns/shop/sa/orders";
    for (name, token, want) in [
        ("own", svid(es.clone(), own), (200, "token")),
        (
            "foreign",
            svid(es.clone(), "spiffe://evil/x"),
            (401, "token_subject"),
        ),
        (
            "root",
            svid(es.clone(), "spiffe://shop.example"),
            (401, "token_subject"),
        ),
        ("no id", svid(es.clone(), "alice"), (401, "token_subject")),
        (
            "type",
            svid(json!({"alg": "ES256", "kid": "b1", "typ": "wit+jwt"}), own),
            (401, "token_malformed"),
        ),
    ] {
        assert_eq!(code(run(&policies, &bearer(&[&token]))), want, "{name}");
    }
    let view = bearer(&[&svid(es, own)]);
    let view = RequestView {
        method: "GET",
        query: None,
        headers: &view.headers,
    };
    let found = policies.authentication().authenticate(
        &view,
        &Bundles(None),
        &KidIsSignature,
        Timestamp::from_unix_secs(NOW),
    );
    assert_eq!(
        code(found),
        (401, "token_keys_missing"),
        "threat A9: no keys is a No"
    );
}

#[test]
fn rule_78_a_preflight_carries_no_token_and_needs_all_three_marks() {
    let policies = compile(&authentication(&rule("")));
    let mut request = bearer(&[&token(&with("exp", json!(1)))]);
    request.method = "OPTIONS";
    assert_eq!(code(run(&policies, &request)), (401, "token_expired"));
    request.headers.push(("origin".into(), "https://a".into()));
    assert_eq!(code(run(&policies, &request)), (401, "token_expired"));
    request
        .headers
        .push(("access-control-request-method".into(), "GET".into()));
    assert_eq!(code(run(&policies, &request)), (200, "none"));
}

#[test]
fn rule_79_the_token_goes_no_further_and_claims_become_headers() {
    let output = ", outputPayloadToHeader: X-Payload, outputClaimToHeaders: [{header: X-Sub, claim: sub}, {header: X-Deep, claim: a.b}, {header: X-None, claim: zip}, {header: X-List, claim: aud}]";
    let policies = compile(&authentication(&rule(output)));
    let claims = with("a", json!({"b": 7}));
    let found = run(&policies, &bearer(&[&token(&claims)])).unwrap();
    assert_eq!(
        found.remove_headers,
        [
            "authorization",
            "x-deep",
            "x-list",
            "x-none",
            "x-payload",
            "x-sub"
        ]
    );
    let set: Vec<(&str, &str)> = found
        .set_headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
    assert_eq!(
        set,
        [
            ("x-payload", payload.as_str()),
            ("x-sub", "alice"),
            ("x-deep", "7")
        ]
    );
    assert_eq!(
        (found.principal.as_deref(), found.subject.as_deref()),
        (Some("idp/alice"), Some("alice"))
    );
    let anonymous = run(&policies, &bearer(&[])).unwrap();
    assert_eq!(
        anonymous.remove_headers,
        ["x-deep", "x-list", "x-none", "x-payload", "x-sub"],
        "without a token nobody may claim these either"
    );
    let forwarded = compile(&authentication(&rule(", forwardOriginalToken: true")));
    assert!(
        run(&forwarded, &bearer(&[&token(&claims)]))
            .unwrap()
            .remove_headers
            .is_empty()
    );
    let injected = with("sub", json!("a\r\nx-admin: 1"));
    assert!(
        run(&policies, &bearer(&[&token(&injected)]))
            .unwrap()
            .set_headers
            .iter()
            .all(|(name, _)| name != "x-sub"),
        "no line is forged"
    );
    let cookies = compile(&authentication(&rule(
        ", fromCookies: [c], fromParams: [t]",
    )));
    let request = Request {
        method: "GET",
        query: Some(format!("t={}", token(&claims))),
        headers: vec![("cookie".into(), format!("a=b; c={}; d", token(&claims)))],
    };
    let found = run(&cookies, &request).unwrap();
    assert_eq!(
        (
            found.remove_params.as_slice(),
            found.set_headers.last().unwrap().1.as_str()
        ),
        (["t".to_owned()].as_slice(), "a=b; d")
    );
}

#[test]
fn rule_51_space_delimited_claims_are_words() {
    let text = authentication(&rule(", spaceDelimitedClaims: [roles, deep.list]"))
        + &policy(
            "p",
            "rules:\n- when:\n  - {key: 'request.auth.claims[roles]', values: [admin]}\n  - {key: 'request.auth.claims[deep][list]', values: [x]}\n  - {key: 'request.auth.claims[scope]', values: [write]}",
        );
    let policies = compile(&text);
    let mut claims = with("roles", json!("user admin"));
    claims["deep"] = json!({"list": "x y"});
    claims["scope"] = json!("read write");
    let identity = run(&policies, &bearer(&[&token(&claims)])).unwrap();
    let call = Call::default();
    let (connection, path) = (call.connection(), policies.normalize("/").unwrap());
    let decision = policies.authorize_http(&HttpCall {
        connection: &connection,
        method: "GET",
        host: "a",
        path: &path,
        headers: &call.headers,
        identity: &identity,
        now: Timestamp::from_unix_secs(NOW),
    });
    assert!(decision.is_allowed);
}

#[test]
fn rule_80_authentication_and_policy_join_as_the_matrix_says() {
    let require = policy(
        "p",
        "rules: [{from: [{source: {requestPrincipals: ['*']}}]}]",
    );
    let open = policy("p", "rules: [{}]");
    let expired = token(&with("exp", json!(1)));
    let good = token(&claims());
    for (name, text, want) in [
        (
            "RA alone",
            authentication(&rule("")) + &open,
            [200, 200, 401],
        ),
        (
            "RA and policy",
            authentication(&rule("")) + &require,
            [403, 200, 401],
        ),
        ("policy alone", require.clone(), [403, 403, 403]),
    ] {
        let policies = compile(&text);
        let answer = |request: &Request| match run(&policies, request) {
            Err(refusal) => refusal.status,
            Ok(identity) => {
                let (connection, path) = (
                    Call::default().connection(),
                    policies.normalize("/").unwrap(),
                );
                let call = HttpCall {
                    connection: &connection,
                    method: "GET",
                    host: "a",
                    path: &path,
                    headers: &request.headers,
                    identity: &identity,
                    now: Timestamp::from_unix_secs(NOW),
                };
                if policies.authorize_http(&call).is_allowed {
                    200
                } else {
                    403
                }
            }
        };
        assert_eq!(
            [bearer(&[]), bearer(&[&good]), bearer(&[&expired])].map(|request| answer(&request)),
            want,
            "{name}"
        );
    }
}
