//! What is determined with gaps is what the engine decides on the whole call; without gaps everything is determined.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_assert_eq, proptest};
use ravelin_proto::spiffe_id::SpiffeId;
use serde_json::Value;

use super::*;
use crate::analyze::record::HttpFacts;
use crate::authenticate::identity_of_claims;
use crate::decision::CustomCheck;
use crate::path::{PathNormalization, normalize};
use crate::source::SourceFile;

const MESH: &str = "
apiVersion: ravelin.dev/v1
kind: MeshConfig
spec:
  trustDomain: td
  extensionProviders:
  - name: known
    envoyExtAuthzGrpc: {service: 127.0.0.1, port: 9000}
  - name: other
    envoyExtAuthzHttp: {service: 127.0.0.1, port: 9001}
---
apiVersion: ravelin.dev/v1
kind: WorkloadIdentity
metadata: {name: payments, namespace: shop, labels: {app: payments}}
spec: {selectors: ['launch:name:payments']}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: open, namespace: shop}
spec: {mtls: {mode: PERMISSIVE}}
";

const TOKENS: &str = "
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec: {jwtRules: [{issuer: idp, jwksUri: 'spiffe://td'}, {issuer: idp/x, jwksUri: 'spiffe://td'}]}
";

const SOURCES: [&str; 7] = [
    "principals: [td/ns/shop/sa/orders]",
    "notPrincipals: ['*']",
    "requestPrincipals: ['idp/*']",
    "ipBlocks: [10.0.0.0/8]",
    "notRemoteIpBlocks: [10.0.0.0/8]",
    "namespaces: [shop]",
    "notRequestPrincipals: ['*']",
];

const OPERATIONS: [&str; 6] = [
    "methods: [GET]",
    "paths: [/a, '/b/*']",
    "notPaths: [/a]",
    "hosts: [x.shop]",
    "ports: ['8080']",
    "notHosts: [x.shop]",
];

const CONDITIONS: [&str; 10] = [
    "key: 'request.headers[x-a]', values: ['1']",
    "key: 'request.headers[x-a]', notValues: ['1']",
    "key: 'request.auth.claims[sub]', values: [alice]",
    "key: 'request.auth.claims[level]', values: [high]",
    "key: request.auth.audiences, values: [payments]",
    "key: connection.sni, values: [a.shop]",
    "key: destination.ip, values: [10.9.9.9]",
    "key: source.ip, notValues: [10.0.0.1]",
    "key: 'request.headers[:path]', values: [/a]",
    "key: 'request.headers[:method]', notValues: [GET]",
];

type Parts = (u8, Option<usize>, Option<usize>, Option<usize>);

fn policy(number: usize, (action, source, operation, condition): &Parts) -> String {
    let is_custom = action % 6 == 5;
    let action = ["ALLOW", "ALLOW", "DENY", "ALLOW", "AUDIT", "CUSTOM"][usize::from(action % 6)];
    let mut parts = Vec::new();
    // Rule 60: CUSTOM comes before tokens and does not look at identities.
    if let Some(source) = source.filter(|source| !is_custom || matches!(source, 3 | 4)) {
        parts.push(format!("from: [{{source: {{{}}}}}]", SOURCES[source]));
    }
    if let Some(operation) = operation {
        parts.push(format!(
            "to: [{{operation: {{{}}}}}]",
            OPERATIONS[*operation]
        ));
    }
    if let Some(condition) = condition.filter(|at| !is_custom || !(2..5).contains(at)) {
        parts.push(format!("when: [{{{}}}]", CONDITIONS[condition]));
    }
    let provider = match (is_custom, number % 2) {
        (false, _) => "",
        (true, 0) => ", provider: {name: known}",
        (true, _) => ", provider: {name: other}",
    };
    format!(
        "\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{number}, namespace: shop}}\nspec: {{action: {action}{provider}, rules: [{{{}}}]}}\n",
        parts.join(", ")
    )
}

fn compile(parts: &[Parts], has_tokens: bool) -> WorkloadPolicies {
    let mut text = MESH.to_owned();
    if has_tokens {
        text.push_str(TOKENS);
    }
    for (number, parts) in parts.iter().enumerate() {
        text.push_str(&policy(number, parts));
    }
    let file = SourceFile {
        path: "ravelin.yaml".into(),
        content: text.clone(),
    };
    let set = crate::load(&[file]).unwrap_or_else(|found| panic!("{found}\n{text}"));
    let id = SpiffeId::parse("spiffe://td/ns/shop/sa/payments").unwrap();
    WorkloadPolicies::compile(&set, &set.workload(&id), 0).unwrap()
}

/// A whole call: a digit a choice.
#[derive(Debug, Clone)]
struct Whole {
    connection: Connection,
    is_tcp: bool,
    method: &'static str,
    host: &'static str,
    path: &'static str,
    headers: Vec<(String, String)>,
    identity: RequestIdentity,
}

fn whole(choices: &[usize], has_tokens: bool) -> Whole {
    let pick = |at: usize, of: &[&'static str]| of[choices[at] % of.len()];
    let ip = |text: &str| text.parse().unwrap();
    let peer = pick(
        0,
        &[
            "",
            "spiffe://td/ns/shop/sa/orders",
            "spiffe://td/ns/front/sa/web",
        ],
    );
    let token = pick(9, &["", "idp", "idp/x"]);
    let identity = if token.is_empty() || !has_tokens {
        RequestIdentity::default()
    } else {
        let claims = [
            ("iss", token),
            ("sub", pick(10, &["alice", "x/bob"])),
            ("level", pick(11, &["high", "low"])),
            ("aud", pick(12, &["payments", "other"])),
        ];
        let claims = claims
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Value::from(value)))
            .collect();
        identity_of_claims(claims, &[])
    };
    Whole {
        connection: Connection {
            principal: (!peer.is_empty()).then(|| SpiffeId::parse(peer).unwrap()),
            source_ip: ip(pick(1, &["10.0.0.1", "192.0.2.1"])),
            remote_ip: ip(pick(2, &["10.0.0.1", "192.0.2.1"])),
            destination_ip: ip(pick(3, &["10.9.9.9", "10.9.9.8"])),
            destination_port: [8080, 9090][choices[4] % 2],
            sni: Some(pick(5, &["a.shop", "b.shop"]).to_owned()),
        },
        is_tcp: choices[14].is_multiple_of(5),
        method: pick(6, &["GET", "POST"]),
        host: pick(7, &["x.shop", "x.shop:80", "y.shop"]),
        path: pick(8, &["/a", "/a?q=1", "/b/c", "/c", "/a/%2e%2e/c"]),
        headers: match choices[13] % 3 {
            0 => Vec::new(),
            1 => vec![("x-a".into(), "1".into())],
            _ => vec![("x-a".into(), "2".into())],
        },
        identity,
    }
}

/// The record of the call, with a gap for each 0 of `kept`.
fn facts(call: &Whole, path: &NormalizedPath, kept: &[bool]) -> CallFacts {
    let connection = &call.connection;
    let raw = call.path.split('?').next().unwrap();
    CallFacts {
        workload: SpiffeId::parse("spiffe://td/ns/shop/sa/payments").unwrap(),
        peer: connection.principal.clone(),
        source_ip: Some(connection.source_ip).filter(|_| kept[0]),
        remote_ip: Some(connection.remote_ip).filter(|_| kept[1]),
        destination_ip: Some(connection.destination_ip).filter(|_| kept[2]),
        port: connection.destination_port,
        sni: connection.sni.clone().filter(|_| kept[3]),
        http: (!call.is_tcp).then(|| HttpFacts {
            method: Some(call.method.to_owned()).filter(|_| kept[4]),
            host: Some(call.host.to_owned()).filter(|_| kept[5]),
            path: Some(path.path().to_owned()).filter(|_| kept[6]),
            raw_path: Some(raw.to_owned()).filter(|_| kept[6] && kept[7]),
            request_principal: Some(call.identity.principal.clone().unwrap_or_default())
                .filter(|_| kept[8]),
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_determined_with_gaps_is_what_the_engine_decides(
        parts in prop::collection::vec((proptest::prelude::any::<u8>(), prop::option::of(0..7_usize), prop::option::of(0..6_usize), prop::option::of(0..10_usize)), 0..5),
        has_tokens in proptest::prelude::any::<bool>(),
        calls in prop::collection::vec((prop::collection::vec(0..60_usize, 15), prop::collection::vec(prop::bool::weighted(0.8), 9)), 8),
    ) {
        let policies = compile(&parts, has_tokens);
        let now = Timestamp::from_unix_secs(1_800_000_000);
        for (choices, kept) in calls {
            let whole = whole(&choices, has_tokens);
            let path = policies.normalize(whole.path);
            let recorded = normalize(whole.path, PathNormalization::default()).unwrap();
            let record = PartialCall::of_record(&policies, &facts(&whole, &recorded, &kept), now);
            let Ok(path) = path else {
                let found = record.map(|call| call.decide(&policies, false));
                prop_assert!(whole.is_tcp || found.is_err() || found.is_ok_and(|found| found.is_allowed != Some(true)), "{:?}", whole);
                continue;
            };
            let http = HttpCall {
                connection: &whole.connection,
                method: whole.method,
                host: whole.host,
                path: &path,
                headers: &whole.headers,
                identity: &whole.identity,
                now,
            };
            let (decision, custom, full) = if whole.is_tcp {
                (
                    policies.authorize_tcp(&whole.connection, now),
                    policies.custom_tcp(&whole.connection, now),
                    PartialCall::of_connection(whole.connection.clone(), now),
                )
            } else {
                (
                    policies.authorize_http(&http),
                    policies.custom_http(&http),
                    PartialCall::of_request(&http, whole.headers.clone()),
                )
            };
            let full = full.decide(&policies, false);
            match custom {
                CustomCheck::NotNeeded => {
                    prop_assert_eq!(full.is_allowed, Some(decision.is_allowed));
                    prop_assert_eq!(full.code, decision.code);
                    prop_assert_eq!(full.by.as_deref(), decision.by.as_deref());
                }
                CustomCheck::Ask { .. } => prop_assert_eq!(full.is_allowed, (!decision.is_allowed).then_some(false)),
                CustomCheck::Refuse { .. } => prop_assert_eq!(full.is_allowed, Some(false)),
            }
            let record = record.unwrap().decide(&policies, false);
            if let Some(is_allowed) = record.is_allowed {
                let want = match policies_answer(&policies, &http, whole.is_tcp) {
                    CustomCheck::Refuse { .. } => Some(false),
                    CustomCheck::NotNeeded => Some(decision.is_allowed),
                    CustomCheck::Ask { .. } => (!decision.is_allowed).then_some(false),
                };
                prop_assert_eq!(Some(is_allowed), want, "{:?} {:?}", whole, record);
            } else {
                prop_assert!(!record.missing.is_empty());
            }
        }
    }
}

fn policies_answer(policies: &WorkloadPolicies, call: &HttpCall<'_>, is_tcp: bool) -> CustomCheck {
    if is_tcp {
        policies.custom_tcp(call.connection, call.now)
    } else {
        policies.custom_http(call)
    }
}
