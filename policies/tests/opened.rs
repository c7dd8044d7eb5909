//! CUSTOM and AUDIT, dry-run, target references, our annotations and extension providers, as they are read.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "tables of a test"
)]

mod support;

use ravelin_policies::*;
use ravelin_proto::time::Timestamp;
use support::*;

const PROVIDERS: &str = "apiVersion: ravelin.dev/v1
kind: MeshConfig
spec:
  trustDomain: shop.example
  extensionProviders:
  - name: gate
    envoyExtAuthzGrpc: {service: 10.0.0.9, port: '9000'}
";

fn load_with(config: &str, policies: &str) -> Result<MeshSet, Diagnostics> {
    load(&[
        file("ravelin.yaml", config),
        file("identities/all.yaml", IDENTITIES),
        file("policies/all.yaml", policies),
    ])
}

fn codes(loaded: Result<MeshSet, Diagnostics>) -> Vec<&'static str> {
    loaded.map_or_else(
        |found| {
            found
                .iter()
                .filter(|found| found.is_error)
                .map(|found| found.code)
                .collect()
        },
        |_| Vec::new(),
    )
}

fn annotated(annotations: &str, spec: &str) -> String {
    policy("p", spec).replace(
        "namespace: shop}",
        &format!("namespace: shop, annotations: {{{annotations}}}}}"),
    )
}

#[test]
fn rule_60_what_a_custom_policy_may_not_use_and_what_it_needs() {
    let custom = |rules: &str| {
        policy(
            "p",
            &format!("action: CUSTOM\nprovider: {{name: gate}}\nrules: {rules}"),
        )
    };
    let from = |field: &str| custom(&format!("[{{from: [{{source: {{{field}}}}}]}}]"));
    let when = |key: &str| custom(&format!("[{{when: [{{key: '{key}', values: [a]}}]}}]"));
    for (text, want) in [
        (custom("[{}]"), None),
        (
            custom(
                "[{to: [{operation: {methods: [GET], paths: ['/a'], hosts: [a], ports: ['80']}}]}]",
            ),
            None,
        ),
        (
            from("ipBlocks: [10.0.0.0/8], remoteIpBlocks: [10.0.0.0/8]"),
            None,
        ),
        (when("request.headers[a]"), None),
        (when("connection.sni"), None),
        (from("namespaces: [a]"), Some("not-in-custom")),
        (from("notNamespaces: [a]"), Some("not-in-custom")),
        (from("serviceAccounts: [a]"), Some("not-in-custom")),
        (from("notServiceAccounts: [a]"), Some("not-in-custom")),
        (from("trustDomains: [a]"), Some("not-in-custom")),
        (from("notTrustDomains: [a]"), Some("not-in-custom")),
        (from("principals: ['*']"), Some("not-in-custom")),
        (from("notPrincipals: ['*']"), Some("not-in-custom")),
        (from("requestPrincipals: ['*']"), Some("not-in-custom")),
        (from("notRequestPrincipals: ['*']"), Some("not-in-custom")),
        (when("source.namespace"), Some("not-in-custom")),
        (when("source.serviceAccount"), Some("not-in-custom")),
        (when("source.trustDomain"), Some("not-in-custom")),
        (when("source.principal"), Some("not-in-custom")),
        (when("request.auth.principal"), Some("not-in-custom")),
        (when("request.auth.audiences"), Some("not-in-custom")),
        (when("request.auth.presenter"), Some("not-in-custom")),
        (when("request.auth.claims[a]"), Some("not-in-custom")),
        (
            policy("p", "action: CUSTOM\nrules: [{}]"),
            Some("missing-field"),
        ),
        (
            policy("p", "action: CUSTOM\nprovider: {name: gate}"),
            Some("never-matches"),
        ),
        (
            policy("p", "action: CUSTOM\nprovider: {name: gaet}\nrules: [{}]"),
            Some("unknown-provider"),
        ),
        (
            policy("p", "action: CUSTOM\nprovider: {name: Gate}\nrules: [{}]"),
            Some("bad-name"),
        ),
        (
            policy(
                "p",
                &format!(
                    "action: CUSTOM\nprovider: {{name: {}}}\nrules: [{{}}]",
                    "g".repeat(64)
                ),
            ),
            Some("bad-name"),
        ),
        (
            policy("p", "action: CUSTOM\nprovider: {}\nrules: [{}]"),
            Some("missing-field"),
        ),
        (
            policy("p", "provider: {name: gate}\nrules: [{}]"),
            Some("bad-combination"),
        ),
        (
            policy("p", "action: DENY\nprovider: {name: gate}\nrules: [{}]"),
            Some("bad-combination"),
        ),
    ] {
        let found = codes(load_with(PROVIDERS, &text));
        assert_eq!(found.first().copied(), want, "{text}\n{found:?}");
    }
    let found = load_with(
        PROVIDERS,
        &policy("p", "action: CUSTOM\nprovider: {name: gaet}\nrules: [{}]"),
    );
    assert_eq!(
        found.unwrap_err().0[0].help.as_deref(),
        Some("did you mean `gate`?")
    );
    let set = load_with(PROVIDERS, &custom("[{}]")).unwrap();
    let policy = &set.authorization_policies[0];
    assert_eq!(
        (policy.effect, policy.provider.as_deref()),
        (Effect::Custom, Some("gate"))
    );
}

#[test]
fn rule_13_an_audit_policy_may_be_without_rules_and_rule_16_no_rule_is_null() {
    for (spec, want) in [
        ("action: AUDIT", None),
        ("action: AUDIT\nrules: [{}]", None),
        ("action: AUDIT\nrules: []", None),
        ("action: DENY\nrules: []", Some("never-matches")),
        ("action: AUDIT\nrules: [null]", Some("wrong-type")),
        ("action: AUDIT\nrules: [{}, ~]", Some("wrong-type")),
        ("action: audit", Some("bad-value")),
    ] {
        assert_eq!(errors(&policy("p", spec)).first().copied(), want, "{spec}");
    }
    assert_eq!(
        set(&policy("p", "action: AUDIT\nrules: [{}]")).authorization_policies[0].effect,
        Effect::Audit
    );
}

#[test]
fn rule_64_dry_run_is_read_as_go_reads_booleans_and_refused_where_it_means_nothing() {
    for (value, want) in [
        ("true", Ok(true)),
        ("1", Ok(true)),
        ("T", Ok(true)),
        ("false", Ok(false)),
        ("F", Ok(false)),
        ("maybe", Err("bad-value")),
        ("yes", Err("bad-value")),
        ("", Err("bad-value")),
    ] {
        let text = annotated(&format!("istio.io/dry-run: '{value}'"), "rules: [{}]");
        let found = load(&files(&text)).map(|set| set.authorization_policies[0].is_dry_run);
        assert_eq!(found.map_err(|found| found.0[0].code), want, "{value}");
    }
    for (spec, want) in [
        ("action: DENY\nrules: [{}]", None),
        ("action: AUDIT\nrules: [{}]", Some("bad-combination")),
        (
            "action: CUSTOM\nprovider: {name: gate}\nrules: [{}]",
            Some("bad-combination"),
        ),
    ] {
        let text = annotated("istio.io/dry-run: 'true'", spec);
        let found = codes(load_with(PROVIDERS, &text));
        assert_eq!(found.first().copied(), want, "{spec}");
    }
}

#[test]
fn rule_67_a_policy_with_target_refs_loads_with_a_warning_and_holds_for_nobody() {
    let target = "{kind: Service, group: '', name: payments}";
    let many = |count: usize| vec![target; count].join(",");
    for (spec, want) in [
        (format!("targetRefs: [{target}]"), None),
        (format!("targetRef: {target}"), None),
        (
            "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: a}]".into(),
            None,
        ),
        (
            "targetRefs: [{kind: ServiceEntry, group: networking.istio.io, name: a}]".into(),
            None,
        ),
        (
            "targetRefs: [{kind: Service, group: core, name: a, namespace: ''}]".into(),
            None,
        ),
        (format!("targetRefs: [{}]", many(16)), None),
        (format!("targetRefs: [{}]", many(17)), Some("too-many")),
        ("targetRefs: []".into(), Some("empty-list")),
        (
            format!("targetRefs: [{target}]\nselector: {{matchLabels: {{app: payments}}}}"),
            Some("bad-combination"),
        ),
        (
            format!("targetRefs: [{target}]\ntargetRef: {target}"),
            Some("bad-combination"),
        ),
        (
            "targetRefs: [{kind: Services, name: a}]".into(),
            Some("bad-value"),
        ),
        (
            "targetRefs: [{kind: Gateway, name: a}]".into(),
            Some("bad-value"),
        ),
        (
            "targetRefs: [{kind: Service, name: a, namespace: other}]".into(),
            Some("bad-value"),
        ),
        (
            "targetRefs: [{kind: Service}]".into(),
            Some("missing-field"),
        ),
        ("targetRefs: [{name: a}]".into(), Some("missing-field")),
        (
            "targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: a}]".into(),
            Some("bad-combination"),
        ),
    ] {
        let text = policy("p", &format!("{spec}\nrules: [{{}}]"));
        let found = errors(&text);
        assert_eq!(found.first().copied(), want, "{spec}: {found:?}");
        if want.is_none() {
            assert_eq!(warnings(&text), ["holds-for-nobody"]);
            assert!(set(&text).authorization_policies[0].has_target_refs);
            // Alone it neither allows nor turns the default on.
            assert_eq!(Call::default().http(&compile(&text)).code, NO_POLICY);
        }
    }
    let root = "targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: a}]";
    assert_eq!(errors(&policy_in("istio-system", "p", root)), [""; 0]);
    let tokens = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: a, namespace: shop}\nspec: {targetRefs: [{kind: Service, name: a}], jwtRules: [{issuer: a, jwksUri: 'spiffe://shop.example'}]}\n";
    assert_eq!(warnings(tokens), ["holds-for-nobody"]);
    assert!(set(tokens).request_authentications[0].has_target_refs);
}

#[test]
fn our_annotations_are_read_and_misspelt_ones_are_errors() {
    let rules = "rules: [{when: [{key: 'request.auth.claims[groups]', values: [a, b]}]}]";
    let text = annotated(
        "ravelin.dev/all-of: 'request.auth.claims[groups]', ravelin.dev/not-before: '2026-11-21T10:00:00Z', ravelin.dev/not-after: '2026-11-21T12:00:00+01:00'",
        rules,
    );
    let loaded = set(&text);
    let window = loaded.authorization_policies[0].window;
    assert_eq!(
        window.not_before,
        Timestamp::parse_rfc3339("2026-11-21T10:00:00Z")
    );
    assert_eq!(
        window.not_after,
        Timestamp::parse_rfc3339("2026-11-21T11:00:00Z")
    );
    for (annotations, code, help) in [
        (
            "ravelin.dev/all-off: x",
            "unknown-annotation",
            Some("did you mean `ravelin.dev/all-of`?"),
        ),
        (
            "ravelin.dev/notbefore: x",
            "unknown-annotation",
            Some("did you mean `ravelin.dev/not-before`?"),
        ),
        (
            "ravelin.dev/all-of: 'request.auth.claims[group]'",
            "unknown-key",
            Some("did you mean `request.auth.claims[groups]`?"),
        ),
        (
            "ravelin.dev/all-of: 'source.ip'",
            "bad-value",
            Some("name keys such as `request.auth.claims[groups]`, with `,` between"),
        ),
        (
            "ravelin.dev/all-of: ''",
            "bad-value",
            Some("name keys such as `request.auth.claims[groups]`, with `,` between"),
        ),
        ("ravelin.dev/references: 'on'", "bad-value", None),
        (
            "ravelin.dev/not-after: 'tomorrow'",
            "bad-time",
            Some("write it as \"2026-11-21T18:00:00Z\""),
        ),
        (
            "ravelin.dev/not-after: '2026-11-21T10:00:00Z', ravelin.dev/not-before: '2026-11-21T10:00:00Z'",
            "never-matches",
            None,
        ),
    ] {
        let found = load(&files(&annotated(annotations, rules))).unwrap_err();
        assert_eq!(
            (found.0[0].code, found.0[0].help.as_deref()),
            (code, help),
            "{annotations}"
        );
        assert!(found.0[0].snippet.contains('^') && found.0[0].line > 0);
    }
    let elsewhere = IDENTITIES
        .replacen(
            "labels:",
            "annotations: {ravelin.dev/not-after: '2026-11-21T10:00:00Z'}, labels:",
            1,
        )
        .replace("payments", "payments2");
    assert_eq!(
        errors(&elsewhere).first().copied(),
        Some("unknown-annotation")
    );
    assert_eq!(
        errors(&annotated("example.com/owner: team", rules)),
        [""; 0]
    );
}

#[test]
fn all_of_wants_every_value_and_references_compare_with_the_request() {
    let rules = "rules: [{when: [{key: 'request.auth.claims[groups]', values: [a, b]}]}]";
    let groups =
        |list: &[&str]| Call::claims(serde_json::json!({"iss": "i", "sub": "s", "groups": list}));
    let any = compile(&policy("p", rules));
    let all = compile(&annotated(
        "ravelin.dev/all-of: 'request.auth.claims[groups]'",
        rules,
    ));
    for (list, by_any, by_all) in [
        (vec!["a"], true, false),
        (vec!["a", "b", "c"], true, true),
        (vec!["c"], false, false),
    ] {
        assert_eq!(groups(&list).is_allowed(&any), by_any, "{list:?}");
        assert_eq!(groups(&list).is_allowed(&all), by_all, "{list:?}");
    }
    let tenant = |value: &str| {
        annotated(
            "ravelin.dev/references: 'true'",
            &format!(
                "rules: [{{when: [{{key: 'request.auth.claims[tenant]', values: ['{value}']}}]}}]"
            ),
        )
    };
    let call = |path: &str, headers: &[&str]| Call {
        path: path.into(),
        headers: headers
            .iter()
            .map(|value| ("x-tenant".to_owned(), (*value).to_owned()))
            .collect(),
        ..Call::claims(serde_json::json!({"iss": "i", "sub": "s", "tenant": "acme"}))
    };
    let by_header = compile(&tenant("${request.headers[X-Tenant]}"));
    let by_path = compile(&tenant("${request.path[2]}"));
    for (path, headers, want_header, want_path) in [
        ("/t/acme/x", vec!["acme"], true, true),
        ("/t/other", vec!["other"], false, false),
        ("/acme", vec![], false, false),
        ("/t/acme", vec!["acme", "acme"], false, true),
    ] {
        assert_eq!(
            call(path, &headers).is_allowed(&by_header),
            want_header,
            "{path} {headers:?}"
        );
        assert_eq!(
            call(path, &headers).is_allowed(&by_path),
            want_path,
            "{path} {headers:?}"
        );
    }
    assert_eq!(errors(&tenant("${request.path[0]}")), ["bad-reference"]);
    assert_eq!(errors(&tenant("x-${request.path[1]}")), ["bad-reference"]);
    let plain =
        tenant("${request.path[2]}").replace(", annotations: {ravelin.dev/references: 'true'}", "");
    assert_eq!(warnings(&plain), ["literal-reference"]);
    assert!(!call("/t/acme", &[]).is_allowed(&compile(&plain)));
}

#[test]
fn rule_62_extension_providers_take_every_field_and_refuse_bad_values() {
    let service = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: gate, namespace: shop}\nspec: {hosts: [gate.shop], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 8000, name: http, protocol: HTTP}], endpoints: [{address: 127.0.0.1}], subjectAltNames: ['spiffe://shop.example/ns/shop/sa/payments']}\n";
    let with = |providers: &str| {
        let config = format!(
            "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec: {{trustDomain: shop.example, extensionProviders: [{providers}]}}\n"
        );
        load_with(&config, service)
    };
    let http = |rest: &str| {
        format!("{{name: a, envoyExtAuthzHttp: {{service: shop/gate.shop, port: 8000, {rest}}}}}")
    };
    let set = with(&format!(
        "{}, {{name: b, envoyExtAuthzGrpc: {{service: 'fd00::1', port: '9000'}}}}",
        http("timeout: 5s, pathPrefix: /check, failOpen: true, statusOnError: '503', clearRouteCache: false, includeRequestHeadersInCheck: [X-A, x-b*], includeHeadersInCheck: ['*-c'], includeAdditionalHeadersInCheck: {X-Fixed: 'one two'}, includeRequestBodyInCheck: {maxRequestBytes: 1024, allowPartialMessage: true, packAsBytes: false}, headersToUpstreamOnAllow: [authorization], headersToDownstreamOnAllow: [set-cookie], headersToDownstreamOnDeny: [www-authenticate]")
    ))
    .unwrap();
    let [first, second] = set.config.extension_providers.as_slice() else {
        panic!("two")
    };
    assert_eq!(
        (
            first.service.as_str(),
            first.port,
            first.timeout.as_secs(),
            first.is_fail_open,
            first.status_on_error
        ),
        ("gate.shop", 8000, 5, true, 503)
    );
    assert_eq!(
        first.body,
        Some(CheckedBody {
            max_request_bytes: 1024,
            allows_partial: true,
            is_packed_as_bytes: false
        })
    );
    let CheckProtocol::Http {
        path_prefix,
        request_headers,
        additional_headers,
        ..
    } = &first.protocol
    else {
        panic!("HTTP")
    };
    assert_eq!(path_prefix, "/check");
    assert_eq!(
        additional_headers,
        &[("x-fixed".to_owned(), "one two".to_owned())]
    );
    let names = ["x-a", "x-bc", "my-c", "x-d"];
    assert_eq!(
        names.map(|name| request_headers.iter().any(|pattern| pattern.matches(name))),
        [true, true, true, false]
    );
    assert_eq!(
        (
            second.protocol.clone(),
            second.timeout.as_secs(),
            second.is_fail_open,
            second.status_on_error,
            second.body
        ),
        (CheckProtocol::Grpc, 2, false, 403, None)
    );
    for (providers, code) in [
        (http("includeRequestHeadersInCheck: ['*']"), "bad-header"),
        (http("headersToUpstreamOnAllow: ['a*b']"), "bad-header"),
        (http("includeAdditionalHeadersInCheck: {'a b': c}"), "bad-header"),
        (http("includeAdditionalHeadersInCheck: {a: c, A: d}"), "duplicate-header"),
        (http("statusOnError: '200'"), "bad-number"),
        (http("timeout: 0s"), "bad-duration"),
        (http("timeout: 20m"), "bad-duration"),
        (http("pathPrefix: check"), "bad-value"),
        (http("clearRouteCache: true"), "not-supported"),
        (http("includeRequestBodyInCheck: {}"), "missing-field"),
        (http("includeRequestBodyInCheck: {maxRequestBytes: 0}"), "bad-number"),
        (http("headers: [a]"), "unknown-field"),
        (http("").replace("gate.shop", "gaet.shop"), "unknown-service"),
        (http("").replace("8000", "8001"), "unknown-port"),
        (http("").replace("gate.shop", "gate:80"), "bad-host"),
        (format!("{}, {}", http(""), http("")), "duplicate-provider"),
        ("{name: a}".into(), "missing-field"),
        ("{name: A_b, envoyExtAuthzGrpc: {service: 10.0.0.1, port: 1}}".into(), "bad-name"),
        ("{name: a, envoyExtAuthzGrpc: {service: 10.0.0.1, port: 1}, envoyExtAuthzHttp: {service: 10.0.0.1, port: 1}}".into(), "bad-combination"),
        ("{name: a, envoyExtAuthzGrpc: {service: 10.0.0.1, port: 1, pathPrefix: /a}}".into(), "unknown-field"),
        ("{name: a, zipkin: {service: b, port: 9411}}".into(), "not-supported"),
    ] {
        let found = codes(with(&providers));
        assert_eq!(found.first().copied(), Some(code), "{providers}: {found:?}");
    }
}

#[test]
fn rule_82_every_peer_mode_is_read() {
    for (word, want) in [
        ("STRICT", Some(PeerMode::Strict)),
        ("PERMISSIVE", Some(PeerMode::Permissive)),
        ("DISABLE", Some(PeerMode::Disable)),
        ("UNSET", None),
    ] {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: a, namespace: shop}}\nspec: {{selector: {{matchLabels: {{app: orders}}}}, mtls: {{mode: {word}}}, portLevelMtls: {{8080: {{mode: {word}}}}}}}\n"
        );
        let set = set(&text);
        assert_eq!(set.peer_authentications[0].mode, want, "{word}");
        assert_eq!(
            set.peer_authentications[0].port_modes[&8080], want,
            "{word}"
        );
    }
}
