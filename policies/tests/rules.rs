//! The numbered rules of authorization, judged through the public API.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "tables of a test"
)]

mod support;

use ravelin_policies::*;
use serde_json::json;
use support::*;

const ALLOW_ALL: &str = "rules: [{}]";

fn deny(rules: &str) -> String {
    format!("action: DENY\nrules: {rules}")
}

#[test]
fn rule_02_to_05_deny_wins_then_allow_then_the_default() {
    let allow_get = "rules: [{to: [{operation: {methods: [GET]}}]}]";
    let deny_charge = deny("[{to: [{operation: {paths: [/charge]}}]}]");
    for (name, text, allowed, code) in [
        (
            "rule 2, ours: no policy denies",
            String::new(),
            false,
            NO_POLICY,
        ),
        (
            "rule 3",
            policy("a", ALLOW_ALL) + &policy("d", &deny_charge),
            false,
            POLICY_DENIED,
        ),
        (
            "rule 4",
            policy("d", &deny("[{to: [{operation: {paths: [/other]}}]}]")),
            true,
            ALLOWED,
        ),
        ("rule 5 match", policy("a", allow_get), true, ALLOWED),
        (
            "rule 5 none",
            policy("a", &allow_get.replace("GET", "POST")),
            false,
            NO_ALLOW_MATCHED,
        ),
        (
            "rule 8, any of several",
            policy("a", &allow_get.replace("GET", "POST")) + &policy("b", allow_get),
            true,
            ALLOWED,
        ),
        (
            "rule 11, allow-nothing",
            policy("a", "{}"),
            false,
            NO_ALLOW_MATCHED,
        ),
        (
            "rule 11, empty list",
            policy("a", "rules: []"),
            false,
            NO_ALLOW_MATCHED,
        ),
        ("rule 12, allow all", policy("a", ALLOW_ALL), true, ALLOWED),
        (
            "rule 12, deny all",
            policy("a", ALLOW_ALL) + &policy("d", &deny("[{}]")),
            false,
            POLICY_DENIED,
        ),
    ] {
        let decision = Call::default().http(&compile(&text));
        assert_eq!(
            (decision.is_allowed, decision.code),
            (allowed, code),
            "{name}"
        );
    }
    let unlisted = CONFIG.replace("}}", "}, unlistedCalls: allow}");
    let set = load(&[
        file("ravelin.yaml", &unlisted),
        file("identities/a.yaml", IDENTITIES),
    ])
    .unwrap();
    let payments = set.workload(&set.identities[1].spiffe_id);
    assert!(
        Call::default().is_allowed(&WorkloadPolicies::compile(&set, &payments, 1).unwrap()),
        "rule 2 of Istio"
    );
}

#[test]
fn rule_10_a_decision_names_policy_rule_revision_and_place() {
    let policies = compile(&policy(
        "a",
        "rules:\n- to: [{operation: {methods: [POST]}}]\n- to: [{operation: {methods: [GET]}}]",
    ));
    let decision = Call::default().http(&policies);
    assert_eq!(
        (
            decision.by.as_ref().unwrap().policy.to_string().as_str(),
            decision.by.as_ref().map(|by| by.rule),
            decision.revision
        ),
        ("shop/a", Some(2), 7)
    );
    assert_eq!(
        decision.by.as_ref().unwrap().location.to_string(),
        "policies/all.yaml:9"
    );
    assert_eq!(
        decision.to_string(),
        "allow by shop/a rule 2 at policies/all.yaml:9"
    );
}

#[test]
fn rule_13_to_19_degenerate_policies_are_refused() {
    let many = |n: usize| {
        (0..n)
            .map(|n| format!("a{n}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let rules = |n: usize| format!("rules: [{}]", vec!["{}"; n].join(","));
    let accounts = format!(
        "rules: [{{from: [{{source: {{serviceAccounts: [{}]}}}}]}}]",
        many(17)
    );
    let long_account = format!(
        "rules: [{{from: [{{source: {{serviceAccounts: [{}]}}}}]}}]",
        "a".repeat(321)
    );
    for (name, spec, code) in [
        ("13 DENY without rules", "action: DENY", "never-matches"),
        (
            "13 DENY with empty rules",
            "action: DENY\nrules: []",
            "never-matches",
        ),
        ("14 from: []", "rules: [{from: []}]", "empty-list"),
        ("14 to: []", "rules: [{to: []}]", "empty-list"),
        (
            "14 source {}",
            "rules: [{from: [{source: {}}]}]",
            "empty-part",
        ),
        (
            "14 operation {}",
            "rules: [{to: [{operation: {}}]}]",
            "empty-part",
        ),
        ("14 null from", "rules: [{from: }]", "no-value"),
        ("14 null entry", "rules: [{from: [null]}]", "wrong-type"),
        ("15 no source", "rules: [{from: [{}]}]", "missing-field"),
        (
            "15 null source",
            "rules: [{from: [{source: }]}]",
            "no-value",
        ),
        ("16 null rule", "rules: [null]", "wrong-type"),
        (
            "17 empty text",
            "rules: [{to: [{operation: {paths: ['']}}]}]",
            "empty-text",
        ),
        (
            "17 empty list",
            "rules: [{to: [{operation: {paths: []}}]}]",
            "empty-list",
        ),
        (
            "17 null list",
            "rules: [{to: [{operation: {paths: }}]}]",
            "no-value",
        ),
        (
            "17 number",
            "rules: [{to: [{operation: {paths: [1]}}]}]",
            "wrong-type",
        ),
        (
            "18 no values",
            "rules: [{when: [{key: source.ip}]}]",
            "missing-field",
        ),
        (
            "18 unknown key",
            "rules: [{when: [{key: source.nope, values: [a]}]}]",
            "unknown-key",
        ),
        (
            "18 no key",
            "rules: [{when: [{values: [a]}]}]",
            "missing-field",
        ),
        ("19 512 rules", &rules(512), ""),
        ("19 513 rules", &rules(513), "too-many"),
        ("19 17 accounts", &accounts, "too-many"),
        ("19 long account", &long_account, "bad-value"),
        (
            "31 combined",
            "rules: [{from: [{source: {serviceAccounts: [a], principals: [b]}}]}]",
            "bad-combination",
        ),
        (
            "36 bad CIDR",
            "rules: [{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}]",
            "bad-value",
        ),
        (
            "36 no address",
            "rules: [{from: [{source: {remoteIpBlocks: [example.com]}}]}]",
            "bad-value",
        ),
        (
            "37 bad port",
            "rules: [{to: [{operation: {ports: ['65536']}}]}]",
            "bad-number",
        ),
        (
            "37 port number",
            "rules: [{to: [{operation: {ports: [70000]}}]}]",
            "bad-number",
        ),
        (
            "37 port range",
            "rules: [{to: [{operation: {ports: [80-90]}}]}]",
            "bad-value",
        ),
        (
            "29 middle star",
            "rules: [{from: [{source: {namespaces: ['a*b']}}]}]",
            "bad-value",
        ),
        (
            "33 slash",
            "rules: [{from: [{source: {trustDomains: ['a/b']}}]}]",
            "bad-value",
        ),
        (
            "33 two stars",
            "rules: [{from: [{source: {trustDomains: ['*a*']}}]}]",
            "bad-value",
        ),
        (
            "31 star",
            "rules: [{from: [{source: {serviceAccounts: ['a*']}}]}]",
            "bad-value",
        ),
        (
            "41 template",
            "rules: [{to: [{operation: {paths: ['/a{*}']}}]}]",
            "bad-value",
        ),
        (
            "35 */*",
            "rules: [{from: [{source: {requestPrincipals: ['*/*']}}]}]",
            "bad-value",
        ),
    ] {
        let found = errors(&policy("p", spec));
        assert_eq!(
            found.first().copied().unwrap_or_default(),
            code,
            "{name}: {found:?}"
        );
    }
}

#[test]
fn rule_20_to_22_a_rule_is_from_and_to_and_when() {
    let spec = "
rules:
- from:
  - source: {principals: [shop.example/ns/shop/sa/orders], ipBlocks: [10.0.0.0/8]}
  - source: {namespaces: [front]}
  to:
  - operation: {methods: [GET, POST], paths: [/charge, '/refund*'], notPaths: [/refund/all]}
  - operation: {methods: [HEAD]}
  when:
  - {key: destination.port, values: ['8080']}
  - {key: 'request.headers[x-env]', notValues: [test]}
";
    let policies = compile(&policy("p", spec));
    for (name, call, want) in [
        ("all", Call::default(), true),
        (
            "other method of the list",
            Call {
                method: "POST",
                ..Call::default()
            },
            true,
        ),
        (
            "method of no operation",
            Call {
                method: "PUT",
                ..Call::default()
            },
            false,
        ),
        (
            "second operation",
            Call {
                method: "HEAD",
                path: "/x".into(),
                ..Call::default()
            },
            true,
        ),
        ("fields of one operation are ANDed", Call::path("/x"), false),
        ("prefix", Call::path("/refund/1"), true),
        ("but not", Call::path("/refund/all"), false),
        (
            "fields of one source are ANDed",
            Call {
                source: "192.0.2.1",
                ..Call::default()
            },
            false,
        ),
        (
            "second source",
            Call {
                source: "192.0.2.1",
                ..Call::from("spiffe://shop.example/ns/front/sa/web")
            },
            true,
        ),
        (
            "no source",
            Call::from("spiffe://shop.example/ns/shop/sa/payments"),
            false,
        ),
        (
            "when",
            Call {
                port: 80,
                ..Call::default()
            },
            false,
        ),
        ("when not", Call::headers(&[("x-env", "test")]), false),
        ("when not, other", Call::headers(&[("x-env", "prod")]), true),
    ] {
        assert_eq!(call.is_allowed(&policies), want, "{name}");
    }
}

/// One clause as an ALLOW and as a DENY: on single values both must agree.
fn judge(rule: &str, call: &Call) -> bool {
    let allow = call.is_allowed(&compile(&policy("p", &format!("rules: [{rule}]"))));
    let denied = !call.is_allowed(&compile(
        &(policy("a", ALLOW_ALL) + &policy("p", &deny(&format!("[{rule}]")))),
    ));
    assert_eq!(allow, denied, "{rule}");
    allow
}

fn source(field: &str, value: &str) -> String {
    format!("{{from: [{{source: {{{field}: ['{value}']}}}}]}}")
}

fn operation(field: &str, value: &str) -> String {
    format!("{{to: [{{operation: {{{field}: ['{value}']}}}}]}}")
}

fn when(key: &str, field: &str, value: &str) -> String {
    format!("{{when: [{{key: '{key}', {field}: ['{value}']}}]}}")
}

#[test]
fn rule_26_to_28_absence_fails_positive_and_passes_negative_lists() {
    let plain = Call::plain_text();
    let nothing = Call {
        sni: None,
        ..Call::default()
    };
    for (rule, call, want) in [
        (source("principals", "*"), &plain, false),
        (source("notPrincipals", "*"), &plain, true),
        (
            source("notPrincipals", "shop.example/ns/shop/sa/orders"),
            &plain,
            true,
        ),
        (source("notNamespaces", "shop"), &plain, true),
        (source("notNamespaces", "*"), &nothing, false),
        (source("requestPrincipals", "*"), &nothing, false),
        (source("notRequestPrincipals", "*"), &nothing, true),
        (source("notRequestPrincipals", "a/b"), &nothing, true),
        (
            when("request.headers[x-foo]", "values", "*"),
            &nothing,
            false,
        ),
        (
            when("request.headers[x-foo]", "notValues", "*"),
            &nothing,
            true,
        ),
        (
            when("request.headers[x-foo]", "notValues", "bar"),
            &nothing,
            true,
        ),
        (
            when("request.headers[x-foo]", "values", "*"),
            &Call::headers(&[("x-foo", "")]),
            true,
        ),
        (when("connection.sni", "values", "*"), &nothing, false),
        (when("connection.sni", "notValues", "a"), &nothing, true),
        (
            when("request.auth.audiences", "notValues", "a"),
            &nothing,
            true,
        ),
        (
            when("request.auth.claims[a]", "notValues", "a"),
            &nothing,
            true,
        ),
        (
            when("request.auth.presenter", "values", "*"),
            &nothing,
            false,
        ),
    ] {
        assert_eq!(judge(&rule, call), want, "{rule}");
    }
}

#[test]
fn rule_29_to_34_the_peer_is_matched_by_principal_namespace_account_and_domain() {
    let orders = "spiffe://shop.example/ns/shop/sa/orders";
    let old = "spiffe://old.example/ns/shop/sa/orders";
    let foreign = "spiffe://evil.example/ns/shop/sa/orders";
    for (field, value, id, want) in [
        ("principals", "shop.example/ns/shop/sa/orders", orders, true),
        (
            "principals",
            "spiffe://shop.example/ns/shop/sa/orders",
            orders,
            true,
        ),
        ("principals", "shop.example/ns/shop/*", orders, true),
        ("principals", "*/sa/orders", orders, true),
        ("principals", "*/ns/shop/sa/orders", foreign, true),
        ("principals", "*", foreign, true),
        ("principals", "shop.example/ns/shop/sa/order", orders, false),
        (
            "principals",
            "shop.example/ns/shop/sa/orders",
            foreign,
            false,
        ),
        (
            "principals",
            "Shop.example/ns/shop/sa/orders",
            orders,
            false,
        ),
        (
            "principals",
            "cluster.local/ns/shop/sa/orders",
            orders,
            true,
        ),
        ("principals", "cluster.local/ns/shop/sa/orders", old, true),
        (
            "principals",
            "cluster.local/ns/shop/sa/orders",
            foreign,
            false,
        ),
        ("principals", "shop.example/ns/shop/sa/orders", old, true),
        ("principals", "old.example/ns/shop/sa/*", orders, true),
        ("principals", "*.example/ns/shop/sa/orders", orders, true),
        ("namespaces", "shop", orders, true),
        ("namespaces", "shop", foreign, true),
        ("namespaces", "sh*", orders, true),
        ("namespaces", "front", orders, false),
        ("serviceAccounts", "orders", orders, true),
        ("serviceAccounts", "shop/orders", foreign, true),
        ("serviceAccounts", "front/orders", orders, false),
        ("trustDomains", "shop.example", orders, true),
        ("trustDomains", "shop.example", old, true),
        ("trustDomains", "*.example", foreign, true),
        ("trustDomains", "shop*", foreign, false),
        ("trustDomains", "*", foreign, true),
        ("notTrustDomains", "shop.example", foreign, true),
        ("notServiceAccounts", "orders", orders, false),
    ] {
        assert_eq!(
            judge(&source(field, value), &Call::from(id)),
            want,
            "{field} {value} {id}"
        );
    }
    for (key, value, want) in [
        ("source.principal", "*/sa/orders", true),
        ("source.namespace", "shop", true),
        ("source.serviceAccount", "orders", true),
        ("source.trustDomain", "shop.example", true),
        ("source.trustDomain", "x", false),
    ] {
        assert_eq!(
            judge(&when(key, "values", value), &Call::default()),
            want,
            "{key}"
        );
    }
}

#[test]
fn rule_35_request_principals_are_issuer_and_subject() {
    let call = |iss: &str, sub: &str| Call::claims(json!({"iss": iss, "sub": sub}));
    let alice = call("https://idp.example", "alice");
    for (value, call, want) in [
        ("*", &alice, true),
        ("*", &call("https://idp.example", ""), false),
        ("https://idp.example/alice", &alice, true),
        ("https://idp.example/*", &alice, true),
        (
            "https://idp.example/*",
            &call("https://idp.example", ""),
            false,
        ),
        ("https://idp.example/al*", &alice, true),
        ("https://idp.example/bob", &alice, false),
        ("https://other/alice", &alice, false),
        ("*/alice", &alice, true),
        ("*.example/alice", &alice, true),
        ("*.other/alice", &alice, false),
        ("*lice", &alice, true),
        ("idp*", &call("idp.example", "alice"), true),
        ("https://idp*", &alice, false),
        ("https://idp.example", &alice, false),
        (
            "https://idp.example/realms/x",
            &call("https://idp.example/realms/x", "alice"),
            false,
        ),
        (
            "https://idp.example/realms/x/*",
            &call("https://idp.example/realms/x", "alice"),
            true,
        ),
    ] {
        assert_eq!(
            judge(&source("requestPrincipals", value), call),
            want,
            "{value}"
        );
        assert_eq!(
            judge(&when("request.auth.principal", "values", value), call),
            want,
            "{value}"
        );
    }
}

#[test]
fn rule_36_37_addresses_and_ports_are_compared_as_numbers() {
    let v6 = Call {
        source: "::ffff:10.1.2.3",
        remote: "fd00::1",
        ..Call::default()
    };
    for (rule, call, want) in [
        (source("ipBlocks", "10.0.0.0/8"), &Call::default(), true),
        (source("ipBlocks", "10.1.2.3"), &Call::default(), true),
        (source("ipBlocks", "10.1.2.0/25"), &Call::default(), true),
        (source("ipBlocks", "10.1.2.4"), &Call::default(), false),
        (
            source("ipBlocks", "203.0.113.0/24"),
            &Call::default(),
            false,
        ),
        (
            source("remoteIpBlocks", "203.0.113.0/24"),
            &Call::default(),
            true,
        ),
        (source("notIpBlocks", "10.0.0.0/8"), &Call::default(), false),
        (source("ipBlocks", "10.0.0.0/8"), &v6, true),
        (
            source("ipBlocks", "::ffff:10.1.2.3"),
            &Call::default(),
            true,
        ),
        (
            source("ipBlocks", "::ffff:10.0.0.0/104"),
            &Call::default(),
            true,
        ),
        (source("notIpBlocks", "::ffff:10.0.0.0/104"), &v6, false),
        (
            source("ipBlocks", "::ffff:11.0.0.0/104"),
            &Call::default(),
            false,
        ),
        (source("remoteIpBlocks", "fd00::/8"), &v6, true),
        (
            when("source.ip", "values", "10.1.2.3"),
            &Call::default(),
            true,
        ),
        (
            when("remote.ip", "notValues", "203.0.113.9"),
            &Call::default(),
            false,
        ),
        (
            when("destination.ip", "values", "10.9.0.0/16"),
            &Call::default(),
            true,
        ),
        (
            when("destination.port", "values", "8080"),
            &Call::default(),
            true,
        ),
        (operation("ports", "8080"), &Call::default(), true),
        (operation("ports", "80"), &Call::default(), false),
        (operation("notPorts", "80"), &Call::default(), true),
        (
            when("connection.sni", "values", "*.shop"),
            &Call::default(),
            true,
        ),
    ] {
        assert_eq!(judge(&rule, call), want, "{rule}");
    }
    assert_eq!(
        errors(&policy(
            "p",
            "rules: [{to: [{operation: {ports: [8080]}}]}]"
        )),
        [""; 0],
        "a port without quotes"
    );
}

#[test]
fn rule_38_to_44_operations_and_headers() {
    let host = |host: &'static str| Call {
        host,
        ..Call::default()
    };
    for (rule, call, want) in [
        (
            operation("hosts", "payments.shop"),
            host("Payments.SHOP"),
            true,
        ),
        (
            operation("hosts", "Payments.shop"),
            host("payments.shop:8080"),
            true,
        ),
        (
            operation("notHosts", "payments.shop"),
            host("payments.shop:8080"),
            false,
        ),
        (operation("hosts", "*.shop"), host("payments.shop"), true),
        (operation("methods", "G*"), Call::default(), true),
        (
            operation("methods", "GET"),
            Call {
                method: "get",
                ..Call::default()
            },
            false,
        ),
        (
            operation("paths", "/charge"),
            Call::path("/charge?a=/x"),
            true,
        ),
        (operation("paths", "/charge"), Call::path("/charge#x"), true),
        (operation("paths", "/charge"), Call::path("/Charge"), false),
        (
            operation("paths", "/pkg.Service/Method"),
            Call {
                method: "POST",
                ..Call::path("/pkg.Service/Method")
            },
            true,
        ),
        (operation("paths", "/a/{*}/c"), Call::path("/a/b/c"), true),
        (
            operation("paths", "/a/{*}/c"),
            Call::path("/a/b/c/d"),
            false,
        ),
        (operation("paths", "/a/{**}"), Call::path("/a/b/c/d"), true),
        (operation("paths", "*"), Call::default(), true),
        (
            when("request.headers[X-Role]", "values", "admin"),
            Call::headers(&[("x-role", "admin")]),
            true,
        ),
        (
            when("request.headers[x-role]", "values", "adm*"),
            Call::headers(&[("x-role", "admin")]),
            true,
        ),
        (
            when("request.headers[x-role]", "values", "Admin"),
            Call::headers(&[("x-role", "admin")]),
            false,
        ),
        (
            when("request.headers[:method]", "values", "GET"),
            Call::default(),
            true,
        ),
        (
            when("request.headers[:path]", "values", "/charge?x"),
            Call::path("/charge?x"),
            true,
        ),
        (
            when("request.headers[:authority]", "values", "payments.shop"),
            Call::default(),
            true,
        ),
    ] {
        assert_eq!(judge(&rule, &call), want, "{rule}");
    }
}

#[test]
fn rule_45_and_threat_a7_repeated_headers_fail_safe_in_both_directions() {
    let allow = |rule: &str| compile(&policy("p", &format!("rules: [{rule}]")));
    let denies =
        |rule: &str| compile(&(policy("a", ALLOW_ALL) + &policy("p", &deny(&format!("[{rule}]")))));
    let both = Call::headers(&[("x-role", "admin"), ("x-role", "guest")]);
    let positive = when("request.headers[x-role]", "values", "admin");
    let negative = when("request.headers[x-role]", "notValues", "admin");
    assert!(!both.is_allowed(&allow(&positive)), "ALLOW needs all");
    assert!(!both.is_allowed(&denies(&positive)), "DENY takes any");
    assert!(
        !both.is_allowed(&allow(&negative)),
        "ALLOW not: none may match"
    );
    assert!(
        !both.is_allowed(&denies(&negative)),
        "DENY not: one other value is enough"
    );
    let joined = Call::headers(&[("x-role", "admin,guest")]);
    assert!(
        !joined.is_allowed(&allow(&positive)) && joined.is_allowed(&denies(&positive)),
        "never split, never joined"
    );
}

#[test]
fn rule_48_to_53_claims_are_strings_lists_and_nested_objects() {
    let call = Call::claims(json!({
        "iss": "i", "sub": "s", "aud": ["pay", "ship"], "azp": "web",
        "role": "admin", "groups": ["dev", "ops"], "nested": {"a": {"b": ["x", "y"]}}, "foo.com/name": "n",
        "flag": true, "level": 42, "null": null, "scope": "read write", "joined": "a b"
    }));
    for (key, value, want) in [
        ("request.auth.claims[role]", "admin", true),
        ("request.auth.claims[role]", "adm*", true),
        ("request.auth.claims[role]", "*", true),
        ("request.auth.claims[role]", "Admin", false),
        ("request.auth.claims[groups]", "ops", true),
        ("request.auth.claims[groups]", "op", false),
        ("request.auth.claims[nested][a][b]", "y", true),
        ("request.auth.claims[nested][a]", "y", false),
        ("request.auth.claims[nested][z][b]", "y", false),
        ("request.auth.claims[foo.com/name]", "n", true),
        ("request.auth.claims[flag]", "true", true),
        ("request.auth.claims[level]", "42", true),
        ("request.auth.claims[level]", "4", false),
        ("request.auth.claims[null]", "*", false),
        ("request.auth.claims[nested]", "*", false),
        ("request.auth.claims[missing]", "*", false),
        ("request.auth.claims[scope]", "read", true),
        ("request.auth.claims[scope]", "read write", false),
        ("request.auth.claims[joined]", "a b", true),
        ("request.auth.audiences", "ship", true),
        ("request.auth.audiences", "other", false),
        ("request.auth.presenter", "web", true),
    ] {
        assert_eq!(
            judge(&when(key, "values", value), &call),
            want,
            "{key} {value}"
        );
    }
    let strict = CONFIG.replace("typedClaims: true", "typedClaims: false");
    let text = policy(
        "p",
        &format!(
            "rules: [{}]",
            when("request.auth.claims[flag]", "values", "true")
        ),
    );
    let set = load(&[
        file("ravelin.yaml", &strict),
        file("identities/a.yaml", IDENTITIES),
        file("p.yaml", &text),
    ])
    .unwrap();
    let payments = set.workload(&set.identities[2].spiffe_id);
    assert_eq!(payments.name, "payments");
    assert!(
        !call.is_allowed(&WorkloadPolicies::compile(&set, &payments, 1).unwrap()),
        "rule 50: off in strict mode"
    );
}

#[test]
fn rule_54_to_58_on_bare_connections_allow_skips_and_deny_widens() {
    let allow = |rules: &str| compile(&policy("p", &format!("rules: {rules}")));
    let denies = |rules: &str| compile(&(policy("a", ALLOW_ALL) + &policy("p", &deny(rules))));
    let call = Call::default();
    for (name, policies, want) in [
        (
            "54 skipped whole",
            allow("[{to: [{operation: {methods: [GET]}}, {operation: {ports: ['8080']}}]}]"),
            false,
        ),
        (
            "54 other rule counts",
            allow(
                "[{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {ports: ['8080']}}]}]",
            ),
            true,
        ),
        (
            "54 when",
            allow("[{when: [{key: 'request.headers[a]', notValues: [b]}]}]"),
            false,
        ),
        (
            "54 not field",
            allow("[{to: [{operation: {notPaths: [/a]}}]}]"),
            false,
        ),
        (
            "54 pure TCP",
            allow("[{from: [{source: {namespaces: [shop]}}]}]"),
            true,
        ),
        (
            "56 method alone",
            denies("[{to: [{operation: {methods: [DELETE]}}]}]"),
            false,
        ),
        (
            "56 with port",
            denies("[{to: [{operation: {methods: [DELETE], ports: ['8080']}}]}]"),
            false,
        ),
        (
            "56 with other port",
            denies("[{to: [{operation: {methods: [DELETE], ports: ['9']}}]}]"),
            true,
        ),
        (
            "56 not paths",
            denies("[{to: [{operation: {notPaths: [/charge]}}]}]"),
            false,
        ),
        (
            "56 token",
            denies("[{from: [{source: {notRequestPrincipals: ['*'], namespaces: [front]}}]}]"),
            true,
        ),
        (
            "56 when",
            denies("[{when: [{key: 'request.auth.claims[a]', values: [b]}]}]"),
            false,
        ),
    ] {
        assert_eq!(call.tcp(&policies).is_allowed, want, "{name}");
    }
    assert_eq!(
        call.tcp(&allow("[{to: [{operation: {methods: [GET]}}]}]"))
            .code,
        NO_ALLOW_MATCHED,
        "rule 55"
    );
}

#[test]
fn rule_65_66_scope_is_namespace_root_and_labels() {
    let all = policy("own", ALLOW_ALL)
        + &policy_in("front", "other", ALLOW_ALL)
        + &policy_in(
            "istio-system",
            "root",
            "action: DENY\nrules: [{to: [{operation: {paths: [/root]}}]}]",
        )
        + &policy_in(
            "istio-system",
            "core",
            "selector: {matchLabels: {tier: core}}\naction: DENY\nrules: [{to: [{operation: {paths: [/core]}}]}]",
        )
        + &policy(
            "labels",
            "selector: {matchLabels: {app: payments, tier: core}}\naction: DENY\nrules: [{to: [{operation: {paths: [/labels]}}]}]",
        );
    let attached = |path: &str| {
        Call::default()
            .explain(&compile_for(&all, path))
            .attached()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        attached("/ns/shop/sa/payments"),
        "istio-system/core (DENY) istio-system/root (DENY) shop/labels (DENY) shop/own (ALLOW)"
    );
    assert_eq!(
        attached("/ns/shop/sa/orders"),
        "istio-system/root (DENY) shop/own (ALLOW)"
    );
    assert_eq!(
        attached("/ns/front/sa/web"),
        "front/other (ALLOW) istio-system/root (DENY)"
    );
    assert_eq!(attached("/ns/none/sa/x"), "istio-system/root (DENY)");
    assert_eq!(attached("/host/a"), "istio-system/root (DENY)");
    let loaded = set(&all);
    let foreign = loaded.workload(
        &ravelin_proto::spiffe_id::SpiffeId::parse("spiffe://else/ns/shop/sa/a").unwrap(),
    );
    assert!(matches!(
        WorkloadPolicies::compile(&loaded, &foreign, 1),
        Err(CompileError::ForeignWorkload { .. })
    ));
}

#[test]
fn rule_82_to_84_peers_are_strict_by_default_and_unset_inherits() {
    let peer = |namespace: &str, name: &str, spec: &str| {
        format!(
            "\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        )
    };
    let text = peer("istio-system", "mesh", "{mtls: {mode: STRICT}}")
        + &peer("shop", "ns", "{mtls: {mode: UNSET}}")
        + &peer(
            "shop",
            "own",
            "{selector: {matchLabels: {app: payments}}, portLevelMtls: {8080: {mode: STRICT}, 9090: {mode: UNSET}}}",
        );
    let policies = compile(&text);
    assert_eq!(
        [8080, 9090, 1].map(|port| policies.peer_mode(port)),
        [PeerMode::Strict; 3]
    );
    assert_eq!(compile("").peer_mode(1), PeerMode::Strict);
    for (spec, code) in [
        ("{portLevelMtls: {8080: {mode: STRICT}}}", "bad-combination"),
        (
            "{selector: {matchLabels: {app: payments}}, portLevelMtls: {}}",
            "wrong-type",
        ),
        (
            "{selector: {matchLabels: {app: payments}}, portLevelMtls: {0: {mode: STRICT}}}",
            "bad-number",
        ),
        ("{mtls: {mode: STRIKT}}", "bad-value"),
    ] {
        assert_eq!(errors(&peer("shop", "p", spec)), [code], "{spec}");
    }
}

#[test]
fn rule_90_ambiguous_paths_are_refused_where_a_policy_denies_by_path() {
    let tricks = ["/inventory//..%2fadmin", "/a//b", "/a%5cb"];
    let by_path = compile(
        &(policy("a", ALLOW_ALL)
            + &policy("d", &deny("[{to: [{operation: {paths: ['/admin*']}}]}]"))),
    );
    let not_path = compile(&policy(
        "a",
        "rules: [{to: [{operation: {notPaths: ['/admin*']}}]}]",
    ));
    let by_header = compile(
        &(policy("a", ALLOW_ALL)
            + &policy(
                "d",
                &deny("[{when: [{key: 'request.headers[:path]', values: ['/admin*']}]}]"),
            )),
    );
    let plain = compile(&policy(
        "a",
        "rules: [{to: [{operation: {paths: ['/admin*']}}]}]",
    ));
    for trick in tricks {
        for policies in [&by_path, &not_path, &by_header] {
            assert_eq!(
                policies.normalize(trick),
                Err(PathRefusal::Ambiguous),
                "{trick}"
            );
        }
        assert!(plain.normalize(trick).is_ok());
    }
    let path = plain.normalize("/inventory//..%2fadmin?q=1").unwrap();
    assert_eq!(
        path.as_target(),
        "/inventory/admin?q=1",
        "what is judged is what is forwarded"
    );
    assert!(
        !Call::path("/x/%2e%2e/admin").is_allowed(&by_path),
        "threat A2"
    );
}

#[test]
fn explanations_name_the_rule_that_came_closest_and_what_it_lacked() {
    let spec = "
rules:
- from: [{source: {principals: [shop.example/ns/front/sa/web]}}]
  to: [{operation: {methods: [PUT]}}]
- from: [{source: {principals: [shop.example/ns/shop/sa/orders]}}]
  to: [{operation: {methods: [POST], paths: [/charge]}}]
";
    let policies = compile(&policy("p", spec));
    let explanation = Call::default().explain(&policies);
    let nearest = explanation.nearest().unwrap();
    assert_eq!(
        (nearest.rule, nearest.missing.as_slice()),
        (
            2,
            ["`methods` wants one of [POST]; the call has `GET`".to_owned()].as_slice()
        )
    );
    assert_eq!(
        explanation.reason(),
        "no rule of 1 attached ALLOW policy matches; closest is rule 2 of `shop/p`: `methods` wants one of [POST]; the call has `GET`"
    );
    let allowed = Call {
        method: "POST",
        ..Call::default()
    }
    .explain(&policies);
    assert_eq!(allowed.matched().len(), 3);
    assert!(
        serde_json::to_string(&allowed)
            .unwrap()
            .contains("\"is_allowed\":true")
    );
}

#[test]
fn explanations_find_the_closest_rule_among_many_and_name_what_matches_beside_the_decision() {
    let rule = |number: usize| {
        format!(
            "\n- from: [{{source: {{principals: [shop.example/ns/shop/sa/a{number}]}}}}]\n  to: [{{operation: {{methods: [POST], paths: [/x{number}, '/y{number}/*']}}}}]"
        )
    };
    let rules = (0..300).map(rule).collect::<Vec<_>>().concat();
    let audit = policy(
        "watch",
        "action: AUDIT\nrules: [{to: [{operation: {methods: [GET]}}]}]",
    );
    let policies = compile(&(policy("p", &format!("rules:{rules}")) + &audit));
    for (principal, path, rule, missing) in [
        ("a7", "/x7", 8, 1),
        ("a7", "/y7/z", 8, 1),
        ("a7", "/other", 8, 2),
        ("a299", "/x299", 300, 1),
        ("nobody", "/other", 1, 3),
    ] {
        let explanation = Call {
            path: path.into(),
            ..Call::from(&format!("spiffe://shop.example/ns/shop/sa/{principal}"))
        }
        .explain(&policies);
        let nearest = explanation.nearest().unwrap();
        assert_eq!(
            (nearest.rule, nearest.missing.len()),
            (rule, missing),
            "{principal} {path}"
        );
        let text = explanation.to_string();
        assert!(text.contains("also: shop/watch rule 1"), "{text}");
    }
}

#[test]
fn threat_41_an_explanation_shows_no_token() {
    for name in [
        "authorization",
        "cookie",
        "x-api-key",
        "x-jwt-assertion",
        "x-access-token",
        ":path",
    ] {
        let policies = compile(&policy(
            "p",
            &format!("rules: [{{when: [{{key: 'request.headers[{name}]', values: [x]}}]}}]"),
        ));
        let path = policies.normalize("/a?access_token=hunter2").unwrap();
        let text = Call {
            path: path.as_target().to_owned(),
            ..Call::headers(&[(name, "Bearer hunter2")])
        }
        .explain(&policies)
        .to_string();
        assert!(text.contains(name) && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn lints_warn_of_patterns_that_cannot_mean_what_they_say() {
    for (spec, want) in [
        (
            "rules: [{to: [{operation: {paths: ['/a*b']}}]}]",
            "literal-star",
        ),
        (
            "rules: [{to: [{operation: {paths: ['/a//b']}}]}]",
            "path-never-matches",
        ),
        (
            "rules: [{to: [{operation: {paths: ['/a?b']}}]}]",
            "path-never-matches",
        ),
        (
            "rules: [{from: [{source: {principals: [shop.example/ns/shop/sa/ordrs]}}]}]",
            "unknown-identity",
        ),
        (
            "rules: [{from: [{source: {principals: [orders]}}]}]",
            "bad-principal",
        ),
        (
            "rules: [{from: [{source: {principals: ['shop.example/a b']}}]}]",
            "bad-principal",
        ),
    ] {
        let found = warnings(&policy("p", spec));
        assert_eq!(found, [want], "{spec}");
    }
    assert!(
        warnings(&policy(
            "p",
            "rules: [{to: [{operation: {paths: [/a, '/b/*', '*/c', '/d/{*}']}}]}]"
        ))
        .is_empty()
    );
}
