//! Suggested policies load without a finding, allow each recorded call, and without templates nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    unreachable_pub,
    reason = "tables of a test"
)]

mod support;

use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_assert_eq, proptest};
use ravelin_policies::*;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use support::*;

const PEERS: [&str; 3] = [
    "spiffe://shop.example/ns/shop/sa/orders",
    "spiffe://shop.example/ns/front/sa/web",
    "",
];
const METHODS: [&str; 2] = ["GET", "POST"];
const PATHS: [&str; 3] = ["/a", "/b/1", "/b/2"];
const PORTS: [u16; 2] = [8080, 9090];
const ISSUER: &str = "spiffe://shop.example";

/// Whether a token comes along; `None` for a bare connection to port 7000 and `PORTS[0] + 1`.
type Cell = (usize, usize, usize, usize, bool);

fn recorded(
    peer: &str,
    port: u16,
    http: Option<(&str, &str, bool)>,
    is_allowed: bool,
) -> RecordedCall {
    RecordedCall {
        at: Timestamp::default(),
        facts: CallFacts {
            workload: SpiffeId::parse("spiffe://shop.example/ns/shop/sa/payments").unwrap(),
            peer: (!peer.is_empty()).then(|| SpiffeId::parse(peer).unwrap()),
            source_ip: None,
            remote_ip: None,
            destination_ip: None,
            port,
            sni: None,
            http: http.map(|(method, path, has_token)| HttpFacts {
                method: Some(method.into()),
                host: Some("payments.shop".into()),
                path: Some(path.into()),
                raw_path: None,
                request_principal: Some(if has_token {
                    format!("{ISSUER}/alice")
                } else {
                    String::new()
                }),
            }),
        },
        outcome: RecordedOutcome {
            is_allowed,
            code: "allowed".into(),
            policy: String::new(),
            rule: 0,
        },
    }
}

const TOKENS: &str = "
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec: {jwtRules: [{issuer: 'spiffe://shop.example', jwksUri: 'spiffe://shop.example', audiences: [payments]}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: open, namespace: shop}
spec: {mtls: {mode: PERMISSIVE}}
";

fn suggest(calls: &[RecordedCall], options: SuggestOptions) -> Suggestion {
    let set = set(TOKENS);
    let mut suggest = Suggest::new(&set, options);
    for call in calls {
        suggest.add(call).unwrap();
    }
    suggest.finish()
}

/// The suggestion's policies; a finding fails.
fn compiled(suggestion: &Suggestion) -> WorkloadPolicies {
    let text = TOKENS.to_owned() + "\n---\n" + &suggestion.to_yaml();
    let set = set(&text);
    let found: Vec<String> = set.warnings.iter().map(Diagnostic::render).collect();
    assert!(found.is_empty(), "{text}\n{found:?}");
    let files: Vec<SourceFile> = files(&text)
        .into_iter()
        .map(|mut file| {
            // The mesh of these tests has an alias; what follows from it is not about suggestions.
            file.content = file
                .content
                .replace(", trustDomainAliases: [old.example]", "");
            file
        })
        .collect();
    let set = load(&files).unwrap();
    let id = SpiffeId::parse("spiffe://shop.example/ns/shop/sa/payments").unwrap();
    WorkloadPolicies::compile(&set, &set.workload(&id), 7).unwrap()
}

fn is_allowed(policies: &WorkloadPolicies, cell: Cell) -> bool {
    let (peer, method, path, port, has_token) = cell;
    let call = Call {
        principal: (!PEERS[peer].is_empty()).then(|| PEERS[peer].into()),
        method: METHODS[method],
        path: PATHS[path].into(),
        port: PORTS[port],
        claims: has_token.then(|| serde_json::json!({"iss": ISSUER, "sub": "bob"})),
        ..Call::default()
    };
    call.is_allowed(policies)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_suggestion_allows_what_was_recorded_and_nothing_else(
        cells in prop::collection::btree_set((0..3_usize, 0..2_usize, 0..3_usize, 0..2_usize, prop::bool::weighted(0.2)), 1..20),
        bare in prop::collection::btree_set(0..3_usize, 0..3),
    ) {
        let calls: Vec<RecordedCall> = cells
            .iter()
            .map(|(peer, method, path, port, has_token)| {
                recorded(PEERS[*peer], PORTS[*port], Some((METHODS[*method], PATHS[*path], *has_token)), true)
            })
            .chain(bare.iter().map(|peer| recorded(PEERS[*peer], 7000, None, true)))
            .collect();
        let suggestion = suggest(&calls, SuggestOptions::default());
        prop_assert!(suggestion.left_out.is_empty());
        prop_assert_eq!(suggestion.calls, u64::try_from(calls.len()).unwrap());
        let policies = compiled(&suggestion);
        let ports: Vec<usize> = (0..2).filter(|port| cells.iter().any(|cell| cell.3 == *port)).collect();
        for (peer, name) in PEERS.iter().enumerate() {
            let tcp = Call {
                principal: (!name.is_empty()).then(|| (*name).into()),
                port: 7000,
                ..Call::default()
            };
            prop_assert_eq!(tcp.tcp(&policies).is_allowed, bare.contains(&peer));
            for (method, path) in (0..2).flat_map(|method| (0..3).map(move |path| (method, path))) {
                for (port, has_token) in ports.iter().flat_map(|port| [(*port, false), (*port, true)]) {
                    // What is allowed without a token is allowed with one.
                    let want = cells.contains(&(peer, method, path, port, has_token))
                        || cells.contains(&(peer, method, path, port, false));
                    let cell = (peer, method, path, port, has_token);
                    prop_assert_eq!(is_allowed(&policies, cell), want, "{:?}\n{}", cell, suggestion.to_yaml());
                }
            }
        }
    }
}

fn http(peer: &str, method: &str, path: &str, is_allowed: bool) -> RecordedCall {
    recorded(peer, 8080, Some((method, path, false)), is_allowed)
}

#[test]
fn callers_that_do_the_same_share_a_rule_and_methods_an_operation() {
    let calls: Vec<RecordedCall> = PEERS[..2]
        .iter()
        .flat_map(|peer| {
            [
                ("GET", "/a"),
                ("POST", "/a"),
                ("GET", "/b/1"),
                ("POST", "/b/1"),
            ]
            .map(|(method, path)| http(peer, method, path, true))
        })
        .collect();
    let suggestion = suggest(&calls, SuggestOptions::default());
    let [policy] = suggestion.policies.as_slice() else {
        panic!("{suggestion:?}")
    };
    assert_eq!(
        (policy.name.as_str(), policy.selector["app"].as_str()),
        ("payments-recorded", "payments")
    );
    let [rule] = policy.rules.as_slice() else {
        panic!("{policy:?}")
    };
    assert_eq!((rule.calls, rule.from.len(), rule.to.len()), (8, 1, 1));
    assert_eq!(rule.from[0].principals.len(), 2);
    assert_eq!(
        (
            rule.to[0].methods.len(),
            rule.to[0].paths.len(),
            rule.to[0].ports.len()
        ),
        (2, 2, 0)
    );
}

#[test]
fn templates_say_what_they_allow_besides_denied_calls_first() {
    let mut calls: Vec<RecordedCall> = (1..=5)
        .map(|number| http(PEERS[0], "GET", &format!("/orders/{number}"), true))
        .collect();
    calls.push(http(PEERS[0], "GET", "/orders/99", false));
    calls.push(http(PEERS[1], "GET", "/orders/new", true));
    let options = SuggestOptions {
        includes_denied: false,
        generalize: Some(Generalize {
            ids_min: 2,
            segments_min: 20,
        }),
    };
    let exact = suggest(&calls, SuggestOptions::default());
    assert!(exact.additional.is_empty() && exact.templates.is_empty());
    let suggestion = suggest(&calls, options);
    assert_eq!(suggestion.templates[0].template, "/orders/{*}");
    assert_eq!(suggestion.templates[0].paths, 5);
    let shown: Vec<(bool, &str)> = suggestion
        .additional
        .iter()
        .map(|call| (call.was_denied, call.path.as_str()))
        .collect();
    assert_eq!(shown, [(true, "/orders/99"), (false, "/orders/new")]);
    let policies = compiled(&suggestion);
    for (path, want) in [("/orders/7", true), ("/orders/7/x", false), ("/a", false)] {
        assert_eq!(Call::path(path).is_allowed(&policies), want, "{path}");
    }
    let text = suggestion.to_yaml();
    assert!(
        text.contains("recorded as DENIED") && text.contains("# 5 recorded calls"),
        "{text}"
    );
}

#[test]
fn what_no_rule_can_say_is_left_out_and_named() {
    let calls = [
        http(PEERS[0], "GET", "/a*", true),
        http(PEERS[0], "GET", "/a//b", true),
        http(PEERS[0], "G*T", "/a", true),
        http("spiffe://shop.example/ns/shop/sa/gone", "GET", "/a", true),
        http("spiffe://shop.example/ns/shop/sa/gone", "GET", "/a", false),
        recorded(PEERS[0], 8080, None, true),
        http(PEERS[0], "GET", "/a", true),
    ];
    let suggestion = suggest(&calls, SuggestOptions::default());
    let left: Vec<(&str, u64)> = suggestion
        .left_out
        .iter()
        .map(|left| (left.reason, left.calls))
        .collect();
    assert_eq!(
        left,
        [
            ("no rule can name this method alone", 1),
            ("no rule can name this path alone", 2),
            ("the caller is not an identity of the folder", 1),
            (
                "the same port carries requests: a rule for the bare connection would allow them all",
                1
            ),
        ]
    );
    assert_eq!(suggestion.calls, 1);
}

#[test]
fn denied_calls_are_taken_in_on_demand_alone() {
    let calls = [http(PEERS[0], "GET", "/a", false)];
    assert!(
        suggest(&calls, SuggestOptions::default())
            .policies
            .is_empty()
    );
    let options = SuggestOptions {
        includes_denied: true,
        ..SuggestOptions::default()
    };
    assert_eq!(suggest(&calls, options).calls, 1);
}
