//! A recorded log against a proposed folder: what changes, grouped; what cannot be told, by the missing attribute.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tables of a test"
)]

mod support;

use ravelin_policies::*;
use support::*;

/// A line of the log: a call of orders on payments that was allowed by `shop/old` rule 1.
fn line(changes: &[(&str, &str)]) -> String {
    let mut record = serde_json::json!({
        "time_ms": 1_800_000_000_000_i64, "workload": "spiffe://shop.example/ns/shop/sa/payments",
        "peer": "spiffe://shop.example/ns/shop/sa/orders", "protocol": "http", "method": "GET",
        "host": "payments.shop", "path": "/charge/1", "request_principal": "", "is_allowed": true,
        "code": "allowed", "policy": "shop/old", "rule": 1, "source_address": "10.1.2.3:4711",
        "port": 8080, "sni": "payments.shop", "destination_address": "10.9.9.9",
        "remote_address": "", "raw_path": "",
    });
    for (key, value) in changes {
        record[*key] = serde_json::from_str(value).unwrap_or_else(|_| (*value).into());
    }
    serde_json::json!({"log": "decision", "record": record}).to_string()
}

fn replay_with(policies: &str, base: Option<&MeshSet>, lines: &[String]) -> ReplayReport {
    let set = set(policies);
    let mut replay = Replay::new(&set, base, false);
    for line in lines {
        match parse_log_line(line).unwrap() {
            LogLine::Call(call) => replay.add(&call),
            LogLine::NotJudged(code) => replay.skip(&code),
            LogLine::Other => {}
        }
    }
    replay.finish()
}

fn replay(policies: &str, lines: &[String]) -> ReplayReport {
    replay_with(policies, None, lines)
}

const TOKENS: &str = "
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec: {jwtRules: [{issuer: 'spiffe://shop.example', jwksUri: 'spiffe://shop.example', audiences: [payments]}]}
";

#[test]
fn changes_are_grouped_by_rule_method_and_path_shape_with_callers_and_examples() {
    let allow = policy(
        "new",
        "rules: [{to: [{operation: {methods: [GET], paths: ['/charge/*']}}]}]",
    );
    let lines: Vec<String> = (1..=5)
        .map(|number| line(&[("path", &format!("/refund/{number}"))]))
        .chain([
            line(&[]),
            line(&[("policy", "shop/new")]),
            line(&[("is_allowed", "false"), ("code", "policy_denied")]),
            line(&[("is_allowed", "false"), ("code", "token_expired")]),
            line(&[("workload", "spiffe://else.example/ns/shop/sa/x")]),
        ])
        .collect();
    let report = replay(&allow, &lines);
    assert_eq!(
        (report.calls, report.same, report.by_another_rule),
        (8, 2, 1)
    );
    assert_eq!((report.newly_allowed, report.newly_denied), (1, 5));
    assert_eq!((report.not_judged["token_expired"], report.foreign), (1, 1));
    let [denied, allowed] = report.changes.as_slice() else {
        panic!("{report:?}");
    };
    assert_eq!(
        (denied.path.as_str(), denied.calls, denied.becomes),
        ("/refund/{*}", 5, "deny")
    );
    assert_eq!(
        (denied.was_by.as_str(), denied.becomes_by.as_str()),
        ("shop/old rule 1", "no_allow_matched")
    );
    assert_eq!((denied.examples.len(), denied.callers.len()), (3, 1));
    assert!(
        allowed
            .becomes_by
            .starts_with("shop/new rule 1 at policies/all.yaml:"),
        "{allowed:?}"
    );
}

#[test]
fn what_the_record_does_not_tell_is_undetermined_and_named() {
    for (spec, changes, want) in [
        (
            "rules: [{when: [{key: 'request.headers[x-role]', values: [admin]}]}]",
            vec![],
            "request.headers[x-role]",
        ),
        (
            "rules: [{when: [{key: connection.sni, values: [a]}]}]",
            vec![("destination_address", "")],
            "connection.sni",
        ),
        (
            "rules: [{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}]",
            vec![("destination_address", "")],
            "remote.ip",
        ),
        (
            "rules: [{when: [{key: 'request.auth.claims[group]', values: [a]}]}]",
            vec![("request_principal", "spiffe://shop.example/alice")],
            "request.auth.claims[group]",
        ),
        (
            "rules: [{from: [{source: {requestPrincipals: ['*']}}]}]",
            vec![("request_principal", "idp/alice")],
            "request.auth.principal",
        ),
    ] {
        let report = replay(&(policy("new", spec) + TOKENS), &[line(&changes)]);
        assert_eq!(report.undetermined, 1, "{spec}");
        assert!(
            report.unknown[0].becomes_by.contains(want),
            "{spec}: {}",
            report.unknown[0].becomes_by
        );
    }
}

#[test]
fn what_hangs_on_nothing_that_is_missing_is_determined() {
    for (spec, changes, want) in [
        // Another rule allows it anyway.
        (
            "rules: [{when: [{key: 'request.headers[x-role]', values: [admin]}]}, {to: [{operation: {methods: [GET]}}]}]",
            vec![],
            "allow",
        ),
        // Another clause fails anyway.
        (
            "rules: [{to: [{operation: {methods: [POST]}}], when: [{key: 'request.headers[x-role]', values: [admin]}]}]",
            vec![],
            "deny",
        ),
        // Without a token there are no claims (rule 53).
        (
            "rules: [{when: [{key: 'request.auth.claims[group]', values: [a]}]}]",
            vec![],
            "deny",
        ),
        // The issuer that is accepted says where the subject begins.
        (
            "rules: [{from: [{source: {requestPrincipals: ['spiffe://shop.example/*']}}], when: [{key: 'request.auth.claims[sub]', values: ['spiffe://shop.example/ns/shop/sa/orders']}]}]",
            vec![(
                "request_principal",
                "spiffe://shop.example/spiffe://shop.example/ns/shop/sa/orders",
            )],
            "allow",
        ),
    ] {
        let report = replay(&(policy("new", spec) + TOKENS), &[line(&changes)]);
        let (same, denied) = if want == "allow" { (1, 0) } else { (0, 1) };
        assert_eq!(
            (report.same, report.newly_denied, report.undetermined),
            (same, denied, 0),
            "{spec}: {report:?}"
        );
    }
}

#[test]
fn rule_90_a_path_that_came_otherwise_is_refused_once_a_policy_denies_by_path() {
    let deny = policy(
        "new",
        "action: DENY\nrules: [{to: [{operation: {paths: [/admin]}}]}]",
    );
    for (changes, want) in [
        (vec![], (1, 0, 0)),
        (vec![("raw_path", "/x/%2e%2e/charge/1")], (1, 0, 0)),
        (vec![("raw_path", "/charge%2f1")], (0, 1, 0)),
        // A proxy that does not write how the path came.
        (vec![("destination_address", "")], (0, 0, 1)),
    ] {
        let report = replay(&deny, &[line(&changes)]);
        assert_eq!(
            (report.same, report.newly_denied, report.undetermined),
            want,
            "{changes:?}"
        );
    }
}

#[test]
fn other_tokens_make_requests_undetermined_when_the_folder_in_force_is_named() {
    let allow = policy("new", "rules: [{to: [{operation: {methods: [GET]}}]}]");
    let proposed = allow.clone() + TOKENS;
    let (same, other) = (set(&proposed), set(&allow));
    let lines = [line(&[])];
    assert_eq!(replay(&proposed, &lines).same, 1);
    assert_eq!(replay(&proposed, &lines).tokens_as_recorded, 1);
    assert_eq!(replay_with(&proposed, Some(&same), &lines).same, 1);
    let report = replay_with(&proposed, Some(&other), &lines);
    assert_eq!(
        report.unknown[0].becomes_by,
        "whether the token is accepted"
    );
    let strict = other.clone();
    assert_eq!(replay_with(&allow, Some(&strict), &lines).same, 1);
}

#[test]
fn rule_82_a_caller_without_identity_is_refused_where_mutual_tls_is_strict() {
    let report = replay(&policy("new", "rules: [{}]"), &[line(&[("peer", "")])]);
    assert_eq!(report.changes[0].becomes_by, "plaintext_refused");
}

#[test]
fn rule_64_dry_run_policies_are_enforced_on_demand_alone() {
    let text = policy("new", "rules: [{}]")
        + &policy("shadow", "action: DENY\nrules: [{}]").replace(
            "name: shadow,",
            "name: shadow, annotations: {istio.io/dry-run: 'true'},",
        );
    let set = set(&text);
    let LogLine::Call(call) = parse_log_line(&line(&[])).unwrap() else {
        panic!()
    };
    for (with_dry_run, want) in [(false, 0), (true, 1)] {
        let mut replay = Replay::new(&set, None, with_dry_run);
        replay.add(&call);
        assert_eq!(replay.finish().newly_denied, want);
    }
}
