//! Each lint with a policy that it is about, one that it leaves alone, and its place.
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

const MESH: &str =
    "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec: {trustDomain: shop.example}\n";
const PROVIDERS: &str = "apiVersion: ravelin.dev/v1
kind: MeshConfig
spec:
  trustDomain: shop.example
  rootNamespace: mesh-root
  hostMatching: EXACT
  extensionProviders:
  - {name: grpc, envoyExtAuthzGrpc: {service: 10.0.0.9, port: 9000}}
  - {name: http, envoyExtAuthzHttp: {service: 10.0.0.9, port: 9001}}
";
const TOKENS: &str = "
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: t, namespace: shop}
spec: {jwtRules: [{issuer: 'https://idp/realms/x', audiences: [shop], jwksUri: 'https://idp/keys'}]}
";

/// Codes of the lints that a mesh of these policies gets.
fn lints(config: &str, policies: &str) -> Vec<Diagnostic> {
    let files = vec![
        file("ravelin.yaml", config),
        file("identities/all.yaml", IDENTITIES),
        file("policies/all.yaml", policies),
    ];
    let set = load(&files).unwrap_or_else(|found| panic!("{found}"));
    let found = lint::all(&set, &files);
    for one in &found {
        assert!(
            !one.is_error && one.help.is_some() && one.snippet.contains('^'),
            "{one:?}"
        );
    }
    found
}

/// Without idle rules, which are a matter of their own.
fn codes(config: &str, policies: &str) -> Vec<&'static str> {
    lints(config, policies)
        .iter()
        .map(|found| found.code)
        .filter(|code| *code != "idle-rule")
        .collect()
}

fn peer(namespace: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn tcp_service(protocol: &str) -> String {
    format!(
        "\n---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: s, namespace: shop}}\nspec: {{hosts: [s.shop], resolution: STATIC, ports: [{{number: 9000, name: p, protocol: {protocol}}}], endpoints: [{{address: 127.0.0.1}}], subjectAltNames: ['spiffe://shop.example/ns/shop/sa/payments']}}\n"
    )
}

#[test]
fn rule_23_a_dash_too_many_is_found() {
    let from = "from: [{source: {principals: ['shop.example/ns/shop/sa/orders']}}]";
    let to = "to: [{operation: {methods: [GET]}}]";
    let when = "when: [{key: source.ip, values: [10.0.0.1]}]";
    for (rules, want) in [
        (format!("rules:\n- {from}\n- {to}"), vec!["split-rule"]),
        (format!("rules:\n- {to}\n- {from}"), vec!["split-rule"]),
        (format!("rules:\n- {from}\n- {when}"), vec!["split-rule"]),
        (format!("rules:\n- {from}\n  {to}"), vec![]),
        (format!("rules:\n- {from}\n- {from}"), vec![]),
        (format!("rules:\n- {from}\n  {to}\n- {to}"), vec![]),
    ] {
        assert_eq!(codes(MESH, &policy("p", &rules)), want, "{rules}");
    }
    let text = policy("p", &format!("rules:\n- {from}\n- {to}"));
    let found = lints(MESH, &text);
    assert_eq!(
        (found[0].line, found[0].column),
        (9, 5),
        "{}",
        found[0].render()
    );
}

#[test]
fn rule_28_and_91_lists_that_widen_are_found() {
    let with =
        |action: &str, rule: &str| policy("p", &format!("action: {action}\nrules: [{rule}]"));
    for (text, want) in [
        (
            with("ALLOW", "{to: [{operation: {notPaths: ['/a']}}]}"),
            vec!["negative-allow"],
        ),
        (
            with("ALLOW", "{from: [{source: {notNamespaces: [front]}}]}"),
            vec!["negative-allow"],
        ),
        (
            with(
                "ALLOW",
                "{when: [{key: 'request.headers[a]', notValues: [b]}]}",
            ),
            vec!["negative-allow"],
        ),
        (
            with(
                "ALLOW",
                "{to: [{operation: {paths: ['/a*'], notPaths: ['/ab']}}]}",
            ),
            vec![],
        ),
        (
            with("DENY", "{to: [{operation: {notPaths: ['/a']}}]}"),
            vec![],
        ),
        (
            with("DENY", "{to: [{operation: {paths: ['/a']}}]}"),
            vec!["deny-by-path"],
        ),
        (
            with("DENY", "{to: [{operation: {paths: ['/a/*']}}]}"),
            vec!["deny-by-path"],
        ),
        (
            with("DENY", "{to: [{operation: {paths: ['/a/']}}]}"),
            vec!["deny-by-path"],
        ),
        (
            with(
                "DENY",
                "{to: [{operation: {paths: ['/a', '/a/*', '*/a', '/b*', '/c/{*}']}}]}",
            ),
            vec![],
        ),
        (with("DENY", "{to: [{operation: {paths: ['*']}}]}"), vec![]),
        (with("DENY", "{to: [{operation: {paths: ['/*']}}]}"), vec![]),
        (
            with("ALLOW", "{to: [{operation: {paths: ['/a']}}]}"),
            vec![],
        ),
    ] {
        assert_eq!(codes(MESH, &text), want, "{text}");
    }
}

#[test]
fn rule_31_and_32_names_of_any_trust_domain_are_found_when_several_are_known() {
    let aliases = MESH.replace(
        "shop.example",
        "shop.example, trustDomainAliases: [old.example]",
    );
    let foreign = policy(
        "f",
        "rules: [{from: [{source: {principals: ['other.example/x']}}]}]",
    );
    let of = |action: &str, rest: &str| {
        policy(
            "p",
            &format!("action: {action}\nrules: [{{from: [{{source: {{{rest}}}}}]}}]"),
        )
    };
    let names = of("ALLOW", "namespaces: [shop]");
    for (config, text, want) in [
        (MESH, names.clone(), vec![]),
        (aliases.as_str(), names.clone(), vec!["any-trust-domain"]),
        (MESH, names.clone() + &foreign, vec!["any-trust-domain"]),
        (
            &aliases,
            of("ALLOW", "serviceAccounts: [orders]"),
            vec!["any-trust-domain"],
        ),
        (
            &aliases,
            of("ALLOW", "namespaces: [shop], trustDomains: [shop.example]"),
            vec![],
        ),
        (&aliases, of("ALLOW", "namespaces: ['*']"), vec![]),
        (&aliases, of("DENY", "namespaces: [shop]"), vec![]),
        (
            &aliases,
            of("DENY", "notNamespaces: [shop]"),
            vec!["any-trust-domain"],
        ),
        (
            &aliases,
            policy(
                "p",
                "rules: [{when: [{key: source.namespace, values: [shop]}]}]",
            ),
            vec!["any-trust-domain"],
        ),
        (
            &aliases,
            policy(
                "p",
                "rules: [{from: [{source: {namespaces: [shop]}}], when: [{key: source.trustDomain, values: [shop.example]}]}]",
            ),
            vec![],
        ),
    ] {
        assert_eq!(codes(config, &text), want, "{text}");
    }
}

#[test]
fn names_that_no_workload_has_are_found_with_a_suggestion() {
    let of = |rest: &str| policy("p", &format!("rules: [{{from: [{{source: {{{rest}}}}}]}}]"));
    for (rest, want) in [
        ("namespaces: [shpo]", Some("did you mean `shop`?")),
        ("namespaces: [shop, front, 'sho*', '*']", None),
        (
            "serviceAccounts: [ordres]",
            Some("did you mean `shop/orders`?"),
        ),
        ("serviceAccounts: [front/web, orders]", None),
        (
            "serviceAccounts: [zebra/zebra]",
            Some("add a WorkloadIdentity for it, or remove it"),
        ),
    ] {
        let found = lints(MESH, &of(rest));
        assert_eq!(
            found.first().and_then(|one| one.help.as_deref()),
            want,
            "{rest}"
        );
        assert!(found.iter().all(|one| one.code == "unknown-name"));
    }
}

#[test]
fn rule_35_and_53_and_74_tokens_that_match_nobody_or_too_many_are_found() {
    let of = |value: &str| {
        policy(
            "p",
            &format!("rules: [{{from: [{{source: {{requestPrincipals: ['{value}']}}}}]}}]"),
        )
    };
    for (value, want) in [
        ("https://idp/realms/x", vec!["bare-issuer"]),
        ("https://idp/realms/x/", vec!["bare-issuer"]),
        ("https://other/sub", vec!["bare-issuer"]),
        ("issuer", vec!["bare-issuer"]),
        ("https://idp/realms/x/sub", vec![]),
        ("https://idp/realms/x/*", vec![]),
        ("*", vec![]),
    ] {
        assert_eq!(codes(MESH, &(of(value) + TOKENS)), want, "{value}");
    }
    assert_eq!(codes(MESH, &of("*")), ["no-request-authentication"]);
    let elsewhere = TOKENS.replace("namespace: shop", "namespace: front");
    assert_eq!(
        codes(MESH, &(of("*") + &elsewhere)),
        ["no-request-authentication"]
    );
    for (from, to, want) in [
        ("audiences: [shop], ", "", vec!["no-audiences"]),
        (
            "'https://idp/realms/x'",
            "'http://idp/realms/x'",
            vec!["issuer-over-http"],
        ),
    ] {
        assert_eq!(codes(MESH, &TOKENS.replace(from, to)), want, "{to}");
    }
}

#[test]
fn rule_38_hosts_that_are_missed_by_their_port_are_found() {
    let of = |hosts: &str| {
        policy(
            "p",
            &format!("rules: [{{to: [{{operation: {{hosts: [{hosts}]}}}}]}}]"),
        )
    };
    for (config, hosts, want) in [
        (MESH, "a.com", vec![]),
        (MESH, "'a.com:8080'", vec!["host-with-port"]),
        (MESH, "'a.com:*'", vec!["host-with-port"]),
        (MESH, "a.com, 'a.com:*'", vec![]),
        (MESH, "'[::1]'", vec![]),
        (PROVIDERS, "a.com", vec!["host-with-port"]),
        (PROVIDERS, "a.com, 'a.com:*'", vec![]),
        (PROVIDERS, "'a.com*'", vec![]),
    ] {
        assert_eq!(codes(config, &of(hosts)), want, "{hosts}");
    }
}

#[test]
fn rule_54_to_57_and_61_what_tcp_and_several_providers_change_is_found() {
    let custom = |name: &str, provider: &str| {
        policy(
            name,
            &format!(
                "action: CUSTOM\nprovider: {{name: {provider}}}\nselector: {{matchLabels: {{app: payments}}}}\nrules: [{{}}]"
            ),
        )
    };
    let get = |action: &str, rest: &str| {
        policy(
            "p",
            &format!(
                "action: {action}\nrules: [{{to: [{{operation: {{methods: [GET]{rest}}}}}]}}]"
            ),
        )
    };
    for (text, want) in [
        (get("DENY", ""), vec![]),
        (get("DENY", "") + &tcp_service("HTTP"), vec![]),
        (
            get("DENY", "") + &tcp_service("TCP"),
            vec!["http-fields-on-tcp"],
        ),
        (
            get("DENY", ", ports: ['80']") + &tcp_service("TLS"),
            vec!["http-fields-on-tcp"],
        ),
        (
            get("AUDIT", "") + &tcp_service("MONGO"),
            vec!["http-fields-on-tcp"],
        ),
        (
            get("ALLOW", "") + &tcp_service("TCP"),
            vec!["http-fields-on-tcp"],
        ),
        (custom("a", "grpc") + &tcp_service("TCP"), vec![]),
        (
            custom("a", "http") + &tcp_service("TCP"),
            vec!["http-provider-on-tcp"],
        ),
        (custom("a", "http"), vec![]),
        (
            custom("a", "http") + &custom("b", "grpc"),
            vec!["several-providers"],
        ),
        (custom("a", "http") + &custom("b", "http"), vec![]),
    ] {
        assert_eq!(codes(PROVIDERS, &text), want, "{text}");
    }
    let said = |action: &str, rest: &str| {
        lints(MESH, &(get(action, rest) + &tcp_service("TCP")))[0]
            .message
            .clone()
    };
    assert!(said("DENY", "").contains("takes every connection"));
    assert!(said("DENY", ", ports: ['80']").contains("is wider"));
    assert!(said("ALLOW", "").contains("never allows"));
}

#[test]
fn rule_65_and_83_objects_that_hold_for_nobody_are_found() {
    let peers = peer(
        "mesh-root",
        "{selector: {matchLabels: {app: payments}}, mtls: {mode: STRICT}}",
    );
    for (text, want) in [
        (policy_in("shpo", "p", "{}"), vec!["empty-namespace"]),
        (policy_in("mesh-root", "p", "{}"), vec![]),
        (policy_in("istio-system", "p", "{}"), vec!["not-the-root"]),
        (
            peer("other", "{mtls: {mode: STRICT}}"),
            vec!["empty-namespace"],
        ),
        (
            TOKENS.replace("namespace: shop", "namespace: other"),
            vec!["empty-namespace"],
        ),
        (peers, vec!["ignored-selector"]),
    ] {
        assert_eq!(codes(PROVIDERS, &text), want, "{text}");
    }
    let found = lints(PROVIDERS, &policy_in("shpo", "p", "{}"));
    assert_eq!(found[0].help.as_deref(), Some("did you mean `shop`?"));
}

#[test]
fn rule_85_a_deny_of_peers_that_may_come_in_plain_text_is_found() {
    let deny = |source: &str| {
        policy(
            "d",
            &format!("action: DENY\nrules: [{{from: [{{source: {{{source}}}}}]}}]"),
        )
    };
    let named = deny("principals: ['shop.example/ns/shop/sa/orders']");
    let permissive =
        |selector: &str| peer("shop", &format!("{{{selector}mtls: {{mode: PERMISSIVE}}}}"));
    for (text, want) in [
        (named.clone(), vec![]),
        (named.clone() + &permissive(""), vec!["deny-in-plain-text"]),
        (
            deny("namespaces: [front]") + &permissive(""),
            vec!["deny-in-plain-text"],
        ),
        (deny("notPrincipals: ['*']") + &permissive(""), vec![]),
        (
            named.clone() + &peer("shop", "{mtls: {mode: STRICT}}"),
            vec![],
        ),
        (
            named.clone() + &peer("front", "{mtls: {mode: PERMISSIVE}}"),
            vec![],
        ),
        (
            named.clone()
                + &peer(
                    "shop",
                    "{selector: {matchLabels: {app: orders}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}}}",
                ),
            vec!["deny-in-plain-text"],
        ),
        (
            policy("a", "rules: [{from: [{source: {namespaces: [front]}}]}]") + &permissive(""),
            vec![],
        ),
    ] {
        assert_eq!(codes(MESH, &text), want, "{text}");
    }
}

#[test]
fn rules_that_change_nothing_are_found_with_the_rules_that_prove_it() {
    let rule = |operation: &str| format!("- {{to: [{{operation: {{{operation}}}}}]}}");
    let rules = |action: &str, operations: &[&str]| {
        let all: Vec<String> = operations.iter().map(|one| rule(one)).collect();
        format!("action: {action}\nrules:\n{}", all.join("\n"))
    };
    for (text, want) in [
        (
            policy(
                "a",
                &rules("ALLOW", &["paths: ['/a', '/b']", "paths: ['/c']"]),
            ),
            vec![],
        ),
        (
            policy(
                "a",
                &rules(
                    "ALLOW",
                    &["paths: ['/a/*']", "paths: ['/a/b'], methods: [GET]"],
                ),
            ),
            vec![
                "rule 2 of `shop/a` changes nothing: all that it matches is matched by shop/a rule 1",
            ],
        ),
        (
            policy("a", &rules("ALLOW", &["methods: [GET]"]))
                + &policy("b", &rules("ALLOW", &["methods: [POST]"]))
                + &policy(
                    "c",
                    &rules("ALLOW", &["methods: [POST, GET]", "methods: [PUT]"]),
                ),
            // Of what is covered both ways the later one goes.
            vec![
                "rule 1 of `shop/c` changes nothing: all that it matches is matched by shop/a rule 1, shop/b rule 1",
            ],
        ),
        (
            policy(
                "a",
                &rules(
                    "ALLOW",
                    &["paths: ['/a'], notPaths: ['/a*']", "methods: [GET]"],
                ),
            ),
            vec!["rule 1 of `shop/a` never matches a request"],
        ),
        (
            policy(
                "a",
                &rules(
                    "ALLOW",
                    &["methods: [GET], paths: ['/a']", "methods: [POST]"],
                ),
            ) + &policy("d", &rules("DENY", &["methods: [GET]"])),
            vec![
                "rule 1 of `shop/a` allows nothing: all that it matches is denied by shop/d rule 1",
            ],
        ),
        // For HTTP alone both are the same, for bare connections they are not.
        (
            policy("a", "rules: [{to: [{operation: {paths: ['*']}}]}, {}]"),
            vec![
                "rule 1 of `shop/a` changes nothing: all that it matches is matched by shop/a rule 2",
            ],
        ),
        (
            policy("a", &rules("ALLOW", &["paths: ['*']", "ports: ['8080']"])),
            vec![],
        ),
    ] {
        let found: Vec<String> = lints(MESH, &text)
            .into_iter()
            .filter(|one| one.code == "idle-rule")
            .map(|one| one.message)
            .collect();
        assert_eq!(found, want, "{text}");
    }
}

#[test]
fn an_analysis_over_its_budget_is_named() {
    let rule = |from: u32| {
        let values: Vec<String> = (from..from + 100).map(|n| format!("v{n}")).collect();
        let values = values.join(", ");
        format!("- {{when: [{{key: 'request.auth.claims[groups]', values: [{values}]}}]}}")
    };
    let rules: Vec<String> = (0..6).map(|n| rule(n * 100)).collect();
    let text = policy("a", &format!("rules:\n{}", rules.join("\n"))) + TOKENS;
    let files = files(&text);
    let found = lint::all(&load(&files).unwrap(), &files);
    let over: Vec<_> = found
        .iter()
        .filter(|one| one.code == "analysis-over-budget")
        .collect();
    assert_eq!(over.len(), 1, "{found:?}");
    assert!(
        !over[0].is_error && over[0].message.contains("/sa/orders` and of 1 more"),
        "{over:?}"
    );
}

#[test]
fn lints_are_bounded_and_the_examples_of_istio_get_some() {
    let many: String = (0..300)
        .map(|n| {
            policy(
                &format!("p{n}"),
                "action: DENY\nrules: [{to: [{operation: {paths: ['/a']}}]}]",
            )
        })
        .collect();
    let found = lints_of(&many);
    assert_eq!(found.len(), limits::DIAGNOSTICS_MAX + 1);
    assert_eq!(found.last().unwrap().code, "more");
}

fn lints_of(policies: &str) -> Vec<Diagnostic> {
    let files = files(policies);
    lint::all(&load(&files).unwrap(), &files)
}
