//! PolicyTest objects: read, run, reported.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "tables of a test"
)]

mod support;

use ravelin_policies::*;
use support::*;

const TEST: &str = "
---
apiVersion: ravelin.dev/v1
kind: PolicyTest
metadata: {name: payments, namespace: shop}
spec:
  workload: payments
  cases:
  - name: orders may charge with a token
    from: orders
    method: POST
    path: /charge
    claims: {iss: idp, sub: alice, aud: [payments], level: 3}
    expect: allow
    policy: charge
    rule: 1
  - name: without a token it may not
    from: shop/orders
    method: POST
    path: /charge
    expect: deny
  - name: the front may not
    from: spiffe://shop.example/ns/front/sa/web
    expect: deny
  - name: plain text may not
    sourceIp: 10.0.0.1
    headers: {x-a: [b, c], x-d: '1'}
    expect: deny
  - name: a path trick is not even judged
    from: orders
    path: /a//..%2fadmin
    expect: refuse
  - name: a bare connection may not
    from: orders
    protocol: tcp
    expect: deny
";

const POLICIES: &str = "
rules:
- from: [{source: {principals: [shop.example/ns/shop/sa/orders], requestPrincipals: ['idp/*']}}]
  to: [{operation: {methods: [POST], notPaths: ['/admin*']}}]
";

#[test]
fn cases_pass_when_decision_policy_and_rule_are_as_expected() {
    let text = policy("charge", POLICIES) + TEST;
    let report = run_tests(&set(&text));
    assert!(report.is_passed(), "{report}");
    assert_eq!(report.cases.len(), 6);
    for (from, to) in [
        ("rule: 1", "rule: 2"),
        ("policy: charge", "policy: other"),
        ("policy: charge", "policy: front/charge"),
        ("expect: allow", "expect: deny"),
        ("expect: refuse", "expect: deny"),
    ] {
        let report = run_tests(&set(&text.replace(from, to)));
        assert_eq!(report.failed(), 1, "{to}: {report}");
        assert!(report.to_string().contains("FAIL shop/payments"));
    }
    assert!(run_tests(&set(&text.replace("policy: charge", "policy: shop/charge"))).is_passed());
}

#[test]
fn a_test_that_names_nothing_or_says_nothing_is_refused() {
    for (from, to, want) in [
        (
            "workload: payments",
            "workload: paymnts",
            "unknown-identity",
        ),
        ("from: orders", "from: ordrs", "unknown-identity"),
        ("expect: allow", "expect: allowed", "bad-value"),
        ("    expect: allow\n", "", "missing-field"),
        ("level: 3", "level: [}", "yaml"),
        ("iss: idp, ", "", "missing-field"),
        ("sourceIp: 10.0.0.1", "sourceIp: host", "bad-address"),
        ("protocol: tcp", "protocol: udp", "bad-value"),
        (
            "protocol: tcp",
            "protocol: tcp\n    method: GET",
            "bad-combination",
        ),
        ("name: plain text", "nme: plain text", "missing-field"),
    ] {
        let found = errors(&TEST.replace(from, to));
        assert!(found.contains(&want), "{to}: {found:?}");
    }
}

const LAYERS: &str = "
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: watch, namespace: shop}
spec: {action: AUDIT, rules: [{to: [{operation: {methods: [POST]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: later, namespace: shop, annotations: {istio.io/dry-run: 'true'}}
spec: {action: DENY, rules: [{to: [{operation: {methods: [POST]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec: {action: CUSTOM, provider: {name: authz}, rules: [{to: [{operation: {paths: [/charge]}}]}]}
---
apiVersion: ravelin.dev/v1
kind: PolicyTest
metadata: {name: layers, namespace: shop}
spec:
  workload: payments
  cases:
  - {name: charges, from: orders, method: POST, path: /charge, claims: {iss: idp, sub: a}, expect: allow, audited: true, shadow: deny, custom: authz, code: allowed}
  - {name: looks, from: orders, path: /other, expect: deny, audited: false, shadow: deny, custom: false, code: no_allow_matched}
  - {name: tricks, from: orders, path: /a//..%2fadmin, expect: refuse, code: path_ambiguous}
";

fn layers(change: (&str, &str)) -> Vec<SourceFile> {
    let text = policy("charge", POLICIES) + &LAYERS.replace(change.0, change.1);
    let mut files = files(&text);
    files[0].content = CONFIG.replace(
        "spec: {",
        "spec: {extensionProviders: [{name: authz, envoyExtAuthzGrpc: {service: 127.0.0.1, port: 9000}}], ",
    );
    files
}

#[test]
fn a_case_may_name_audit_mark_dry_run_answer_external_authorizer_and_code() {
    let report = run_tests(&load(&layers(("", ""))).unwrap());
    assert!(report.is_passed(), "{report}");
    for change in [
        ("audited: true", "audited: false"),
        ("audited: false", "audited: true"),
        (
            "shadow: deny, custom: authz",
            "shadow: allow, custom: authz",
        ),
        ("custom: authz", "custom: false"),
        ("custom: false", "custom: authz"),
        ("code: allowed", "code: policy_denied"),
        ("code: path_ambiguous", "code: path_escape"),
    ] {
        let report = run_tests(&load(&layers(change)).unwrap());
        assert_eq!(report.failed(), 1, "{change:?}: {report}");
    }
    for (change, want) in [
        (("custom: authz", "custom: autz"), "unknown-provider"),
        (("audited: true", "audited: perhaps"), "wrong-type"),
        (
            ("shadow: deny, custom: authz", "shadow: refuse"),
            "bad-value",
        ),
    ] {
        let found = load(&layers(change)).unwrap_err();
        assert!(
            found.iter().any(|found| found.code == want),
            "{change:?}: {found}"
        );
    }
}
