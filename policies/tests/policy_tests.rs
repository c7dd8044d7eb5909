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
