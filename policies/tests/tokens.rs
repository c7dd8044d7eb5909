//! RequestAuthentication: every rule of a token but the signature, which a fake verifier stands in for.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "tables of a test"
)]

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
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

/// A bundle of `shop.example`, fetched keys by address, and the addresses whose keys were missed.
#[derive(Default)]
struct Bundles {
    bundle: Option<Arc<JwkSet>>,
    fetched: BTreeMap<String, Arc<JwkSet>>,
    missed: RefCell<Vec<String>>,
}

impl KeySource for Bundles {
    fn jwt_bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<JwkSet>> {
        self.bundle
            .clone()
            .filter(|_| trust_domain.as_str() == "shop.example")
    }

    fn fetched_keys(&self, address: &KeyAddress) -> Option<Arc<JwkSet>> {
        self.fetched.get(&address.to_string()).cloned()
    }

    fn note_missing_key(&self, address: &KeyAddress) {
        self.missed.borrow_mut().push(address.to_string());
    }
}

fn set_of(keys: &[String]) -> Arc<JwkSet> {
    Arc::new(JwkSet::parse(&format!(r#"{{"keys":[{}]}}"#, keys.join(","))).unwrap())
}

fn bundle() -> Bundles {
    Bundles {
        bundle: Some(set_of(&[key("b1")])),
        ..Bundles::default()
    }
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
    run_with(policies, request, &bundle())
}

fn run_with(
    policies: &WorkloadPolicies,
    request: &Request,
    keys: &Bundles,
) -> Result<RequestIdentity, AuthRefusal> {
    let view = RequestView {
        method: request.method,
        query: request.query.as_deref(),
        headers: &request.headers,
    };
    policies.authentication().authenticate(
        &view,
        keys,
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
    for (name, rules, want) in [
        ("both", rule(", jwksFile: keys.json"), "bad-combination"),
        (
            "none, and the issuer is no address: nothing to discover",
            "  - {issuer: idp}\n".to_owned(),
            "no-keys",
        ),
        (
            "an issuer with a query",
            "  - {issuer: 'https://idp.example/?x'}\n".to_owned(),
            "no-keys",
        ),
        (
            "no issuer, no address",
            "  - {audiences: [payments]}\n".to_owned(),
            "missing-field",
        ),
        (
            "both inline and fetched",
            rule(", jwksUri: 'https://idp.example/keys'"),
            "bad-combination",
        ),
        (
            "46 user information",
            "  - {issuer: idp, jwksUri: 'https://a:b@idp.example/keys'}\n".to_owned(),
            "bad-value",
        ),
        ("timeout too long", rule(", timeout: 1h"), "bad-duration"),
        ("timeout zero", rule(", timeout: 0s"), "bad-duration"),
        (
            "timeout without unit",
            rule(", timeout: '5'"),
            "bad-duration",
        ),
        (
            "only a secret that is shared",
            set_of("{\"kty\":\"oct\",\"k\":\"AAAA\"}"),
            "bad-key-set",
        ),
        (
            "one key is broken",
            set_of("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}"),
            "bad-key-set",
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
        &Bundles::default(),
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

#[test]
fn rule_76_keys_are_fetched_from_an_address_or_found_by_the_issuers_discovery_document() {
    let remote = |rules: &str| {
        compile(&authentication(rules))
            .authentication()
            .remote_keys()
    };
    for (name, rules, want, secs) in [
        (
            "address",
            "  - {issuer: idp, jwksUri: 'https://idp.example/keys'}\n",
            "https://idp.example/keys",
            5,
        ),
        (
            "address, with a timeout",
            "  - {issuer: idp, jwksUri: 'https://idp.example/keys', timeout: 9s}\n",
            "https://idp.example/keys",
            9,
        ),
        (
            "one address, the longest timeout",
            "  - {issuer: a, jwksUri: 'https://idp.example/keys', timeout: 9s}\n  - {issuer: b, jwksUri: 'https://idp.example/keys', timeout: 2s}\n",
            "https://idp.example/keys",
            9,
        ),
        (
            "discovery",
            "  - {issuer: 'https://idp.example'}\n",
            "https://idp.example",
            5,
        ),
    ] {
        let found = remote(rules);
        let found: Vec<(String, u64)> = found
            .iter()
            .map(|(address, timeout)| (address.to_string(), timeout.as_secs()))
            .collect();
        assert_eq!(found, [(want.to_owned(), secs)], "{name}");
    }
    assert!(remote(&rule("")).is_empty(), "inline keys are not fetched");
}

#[test]
fn rule_76_what_is_taken_with_a_warning_is_named() {
    let private = key("k1").replace("\"kid\"", "\"d\":\"AAAA\",\"kid\"");
    let inline = |keys: &str| format!("  - {{issuer: idp, jwks: '{{\"keys\":[{keys}]}}'}}\n");
    let shared = format!("{},{}", key("k1"), r#"{"kty":"oct","k":"AAAA"}"#);
    for (name, rules, want) in [
        ("48 private half", inline(&private), vec!["private-key"]),
        (
            "48 shared secret beside a key",
            inline(&shared),
            vec!["private-key"],
        ),
        (
            "46 plain text",
            "  - {issuer: idp, jwksUri: 'http://idp.example/k'}\n".to_owned(),
            vec!["plain-text-keys"],
        ),
        (
            "46 plain text discovery",
            "  - {issuer: 'http://idp.example'}\n".to_owned(),
            vec!["plain-text-keys"],
        ),
        (
            "any issuer",
            "  - {jwksUri: 'https://idp.example/k'}\n".to_owned(),
            vec!["any-issuer"],
        ),
        (
            "any audience",
            rule(", audiences: []"),
            vec!["any-audience"],
        ),
        (
            "empty lists are missing ones",
            rule(
                ", fromHeaders: [], fromParams: [], fromCookies: [], outputClaimToHeaders: [], spaceDelimitedClaims: []",
            ),
            vec![],
        ),
    ] {
        assert_eq!(warnings(&authentication(&rules)), want, "{name}");
    }
    let policies = compile(&authentication(&inline(&private)));
    assert_eq!(
        code(run(&policies, &bearer(&[&token(&claims())]))),
        (200, "token"),
        "the public half is used"
    );
    let set = set(&authentication(&inline(&private)));
    assert!(
        !format!("{:?}", set.request_authentications).contains("AAAA"),
        "threat 48: the private half is not kept"
    );
    let default = compile(&authentication(&rule(", fromHeaders: []")));
    assert_eq!(
        code(run(&default, &bearer(&[&token(&claims())]))),
        (200, "token"),
        "72: an empty list replaces no default"
    );
}

#[test]
fn a10_and_a9_absent_keys_are_a_no_and_a_missing_key_is_reported_for_its_own_address() {
    let address = "https://idp.example/keys";
    let policies = compile(&authentication(&format!(
        "  - {{issuer: idp, jwksUri: '{address}'}}\n"
    )));
    let es = |kid: &str| json!({"alg": "ES256", "kid": kid});
    let keys = |sets: Option<&[&str]>| Bundles {
        fetched: sets
            .map(|kids| {
                let keys: Vec<String> = kids.iter().map(|kid| key(kid)).collect();
                (address.to_owned(), set_of(&keys))
            })
            .into_iter()
            .collect(),
        ..Bundles::default()
    };
    let no_kid = json!({"alg": "ES256"});
    for (name, sets, header, claims, signature, want, is_missed) in [
        (
            "no keys yet",
            None,
            es("k1"),
            claims(),
            "k1",
            (401, "token_keys_missing"),
            true,
        ),
        (
            "empty set",
            Some(&[][..]),
            es("k1"),
            claims(),
            "k1",
            (401, "token_keys_missing"),
            true,
        ),
        (
            "known",
            Some(&["k1"][..]),
            es("k1"),
            claims(),
            "k1",
            (200, "token"),
            false,
        ),
        (
            "changed",
            Some(&["k1"][..]),
            es("k2"),
            claims(),
            "k2",
            (401, "token_key_missing"),
            true,
        ),
        (
            "forged",
            Some(&["k1"][..]),
            es("k1"),
            claims(),
            "k2",
            (401, "token_signature"),
            false,
        ),
        (
            "no kid, known",
            Some(&["k1"][..]),
            no_kid.clone(),
            claims(),
            "k1",
            (200, "token"),
            false,
        ),
        (
            "no kid, changed",
            Some(&["k1"][..]),
            no_kid.clone(),
            claims(),
            "k2",
            (401, "token_signature"),
            true,
        ),
        (
            "another issuer",
            None,
            es("k1"),
            with("iss", json!("evil")),
            "k1",
            (401, "token_issuer"),
            false,
        ),
    ] {
        let keys = keys(sets);
        let token = token_with(&header, &claims, signature);
        let found = run_with(&policies, &bearer(&[&token]), &keys);
        assert_eq!(code(found), want, "{name}");
        let want: &[String] = if is_missed {
            &[address.to_owned()]
        } else {
            &[]
        };
        assert_eq!(*keys.missed.borrow(), want, "{name}");
    }
}

#[test]
fn rule_76_without_an_issuer_the_keys_alone_decide() {
    let address = "https://idp.example/keys";
    let policies = compile(&authentication(&format!("  - {{jwksUri: '{address}'}}\n")));
    let keys = Bundles {
        fetched: [(address.to_owned(), set_of(&[key("k1")]))].into(),
        ..Bundles::default()
    };
    for (claims, want) in [
        (with("iss", json!("anyone")), Some("anyone/alice")),
        (without("iss"), None),
    ] {
        let found = run_with(&policies, &bearer(&[&token(&claims)]), &keys).unwrap();
        assert_eq!(found.principal.as_deref(), want);
        assert_eq!(found.subject.as_deref(), Some("alice"));
    }
}

#[test]
fn threat_48_keys_for_another_use_check_no_token() {
    let with_use =
        |use_: &str| key("k1").replace("\"kid\"", &format!("\"use\":\"{use_}\",\"kid\""));
    for (use_, want) in [
        ("sig", (200, "token")),
        ("jwt-svid", (200, "token")),
        ("enc", (401, "token_key_missing")),
        ("x509-svid", (401, "token_key_missing")),
        ("wit-svid", (401, "token_key_missing")),
        ("tls", (401, "token_key_missing")),
    ] {
        let policies = compile(&authentication(&format!(
            "  - {{issuer: idp, jwks: '{{\"keys\":[{}]}}'}}\n",
            with_use(use_)
        )));
        let found = run(&policies, &bearer(&[&token(&claims())]));
        assert_eq!(code(found), want, "{use_}");
    }
    let two = format!("{},{}", key("k1"), key("k1"));
    let policies = compile(&authentication(&format!(
        "  - {{issuer: idp, jwks: '{{\"keys\":[{two}]}}'}}\n"
    )));
    let found = run(&policies, &bearer(&[&token(&claims())]));
    assert_eq!(code(found), (200, "token"), "each key of one kid is tried");
}

#[test]
fn rule_67_bound_to_a_gateway_it_loads_and_holds_for_nobody() {
    let text = authentication(&rule("")).replace(
        "spec:\n",
        "spec:\n  targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: g}]\n",
    );
    assert!(compile(&text).authentication().is_empty());
    assert_eq!(warnings(&text), ["holds-for-nobody"]);
    let both = text.replace(
        "spec:\n",
        "spec:\n  selector: {matchLabels: {app: payments}}\n",
    );
    assert_eq!(errors(&both), ["bad-combination"]);
}

#[test]
fn rule_72_a_token_that_the_application_would_find_is_found_here_too() {
    let policies = compile(&authentication(&rule(
        ", fromParams: [access_token], fromCookies: [c]",
    )));
    let bad = token(&with("exp", json!(1)));
    let escaped: String = bad.replace('.', "%2E");
    let query = |query: String| Request {
        method: "GET",
        query: Some(query),
        headers: Vec::new(),
    };
    let cookie = |cookie: String| Request {
        method: "GET",
        query: None,
        headers: vec![("cookie".into(), cookie)],
    };
    for (name, request) in [
        ("escaped value", query(format!("access_token={escaped}"))),
        ("escaped name", query(format!("access%5ftoken={bad}"))),
        ("quoted cookie", cookie(format!("c=\"{bad}\""))),
        (
            "blanks around a cookie",
            cookie(format!("a=b;  c = {bad} ")),
        ),
        (
            "second of one name",
            cookie(format!("c={}; c={bad}", token(&claims()))),
        ),
    ] {
        assert_eq!(
            code(run(&policies, &request)),
            (401, "token_expired"),
            "{name}"
        );
    }
    let good = token(&claims()).replace('.', "%2e");
    let request = query(format!("x=1&access%5Ftoken={good}"));
    let found = run(&policies, &request).unwrap();
    let path = policies
        .normalize(&format!("/a?x=1&access%5Ftoken={good}"))
        .unwrap();
    assert_eq!(
        path.without_params(&found.remove_params).as_target(),
        "/a?x=1",
        "79: and it goes no further"
    );
}

#[test]
fn what_was_verified_holds_exactly_while_every_comparison_with_the_time_comes_out_the_same() {
    let second = rule("").replace("idp", "second").replace("k1", "k9");
    let policies = compile(&(authentication(&rule("")) + &second));
    let authentication = policies.authentication();
    let es9 = json!({"alg": "ES256", "kid": "k9"});
    let mut times = claims();
    times["nbf"] = json!(NOW - 50);
    let expired = token_with(&es9, &with("iss", json!("second")), "k9");
    for (name, tokens) in [
        ("one", vec![token(&claims())]),
        ("one with a start", vec![token(&times)]),
        (
            "two that agree",
            vec![token(&claims()), token(&with("exp", json!(NOW + 50)))],
        ),
        ("one of each issuer", vec![token(&times), expired]),
    ] {
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let request = bearer(&tokens);
        let view = RequestView {
            method: "GET",
            query: None,
            headers: &request.headers,
        };
        let presented = authentication.present(&view).unwrap();
        let judge = |now: i64| {
            let now = Timestamp::from_unix_secs(now);
            authentication.verify(&presented, &bundle(), &KidIsSignature, now)
        };
        for now in (NOW - 200..NOW + 300).step_by(10) {
            let Ok(verified) = judge(now) else { continue };
            for later in (NOW - 200..NOW + 300).step_by(10) {
                if !verified.holds_at(Timestamp::from_unix_secs(later)) {
                    continue;
                }
                let anew = judge(later);
                assert!(
                    anew.is_ok_and(|anew| anew.identity(&view) == verified.identity(&view)),
                    "{name}: judged at {now}, remembered at {later}"
                );
            }
        }
    }
}
