//! Coverage of rules, alternatives, clauses and values by the folder's tests.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tables of a test"
)]

mod support;

use ravelin_policies::*;
use support::*;

const POLICIES: &str = "
rules:
- from:
  - source: {principals: [shop.example/ns/shop/sa/orders]}
  - source: {namespaces: [front]}
  to:
  - operation: {methods: [GET, POST], notPaths: [/admin]}
- when:
  - {key: 'request.headers[x-a]', values: ['1']}
";

fn test(cases: &str) -> String {
    format!(
        "\n---\napiVersion: ravelin.dev/v1\nkind: PolicyTest\nmetadata: {{name: t, namespace: shop}}\nspec:\n  workload: payments\n  cases:\n{cases}"
    )
}

fn coverage(cases: &str) -> Coverage {
    // With an alias of the trust domain one principal stands for two patterns.
    let set = set(&(policy("p", POLICIES) + &test(cases)));
    let mut run = CoverageRun::new(&set);
    run.add_tests();
    run.finish()
}

fn lacking(coverage: &Coverage, rule: usize) -> Vec<String> {
    coverage.rules[rule]
        .parts
        .iter()
        .filter(|part| !part.lacks().is_empty())
        .map(|part| format!("{} {}", part.name, part.lacks()))
        .collect()
}

#[test]
fn what_no_case_exercised_is_named_part_by_part() {
    let found = coverage("  - {name: a, from: orders, method: GET, path: /x, expect: allow}\n");
    assert_eq!(found.calls, 1);
    assert_eq!(
        (
            found.rules[0].matched,
            found.rules[0].decided,
            found.rules[1].matched
        ),
        (1, 1, 0)
    );
    assert_eq!(
        lacking(&found, 0),
        [
            "from[1] never false",
            "from[1].principals never false",
            "from[2] never true",
            "from[2].namespaces never true",
            "to[1].methods never false",
            "to[1].methods \"POST\" never matched",
            "to[1].notPaths never false",
        ]
    );
    assert_eq!(lacking(&found, 1), ["when.request.headers[x-a] never true"]);
    let untested: Vec<u32> = found.untested().map(|rule| rule.rule).collect();
    assert_eq!(untested, [2]);
    assert_eq!(found.goals(), (9, 18));
    assert_eq!(found.percent(), 50);
}

#[test]
fn cases_of_both_sides_bring_everything_to_a_hundred() {
    let found = coverage(
        "  - {name: a, from: orders, method: GET, path: /x, expect: allow}
  - {name: b, from: front/web, method: POST, path: /x, headers: {x-a: '1'}, expect: allow}
  - {name: c, from: orders, method: PUT, path: /admin, expect: deny}
",
    );
    assert_eq!((lacking(&found, 0), lacking(&found, 1)), (vec![], vec![]));
    assert_eq!((found.percent(), found.untested().count()), (100, 0));
}

#[test]
fn a_path_that_is_not_judged_and_a_folder_without_rules_count_nothing() {
    let found = coverage("  - {name: a, from: orders, path: /a//..%2fadmin, expect: refuse}\n");
    assert_eq!((found.calls, found.goals().0), (0, 0));
    let set = set(&policy("none", "{}"));
    assert_eq!(CoverageRun::new(&set).finish().percent(), 100);
}

#[test]
fn rule_54_a_rule_that_is_skipped_on_a_bare_connection_is_not_judged_there() {
    let found = coverage("  - {name: a, from: orders, protocol: tcp, expect: deny}\n");
    assert_eq!((found.calls, found.goals().0), (1, 0));
}

#[test]
fn a_recorded_call_counts_what_its_record_tells() {
    let set = set(&policy("p", POLICIES));
    let mut run = CoverageRun::new(&set);
    let line = r#"{"time_ms":1,"workload":"spiffe://shop.example/ns/shop/sa/payments","peer":"spiffe://shop.example/ns/shop/sa/orders","protocol":"http","method":"GET","host":"payments","path":"/x","is_allowed":true,"code":"allowed","port":80,"destination_address":"127.0.0.1"}"#;
    for _ in 0..3 {
        let LogLine::Call(call) = parse_log_line(line).unwrap() else {
            panic!()
        };
        run.add_call(&call);
    }
    let found = run.finish();
    assert_eq!((found.calls, found.rules[0].matched), (1, 1));
    assert_eq!(
        lacking(&found, 1),
        ["when.request.headers[x-a] never judged"]
    );
}
