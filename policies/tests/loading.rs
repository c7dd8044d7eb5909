//! A folder is loaded whole or refused with every reason at its place.
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

#[test]
fn every_error_of_every_file_comes_in_one_run_with_its_place() {
    let broken = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a, namespace: shop}
spec:
  action: ALOW
  rules:
  - from:
    - source:
        principles: [x]
        ipBlocks: [10.0.0.0/33]
    to:
    - operation:
        methods: [get]
        paths: ['/a/{*}b']
    when:
    - key: request.header[x]
      values: [a]
---
apiVersion: v1
kind: ServiceEntri
metadata: {name: b}
spec: {}
";
    let mut all = files(broken);
    all.push(file("policies/other.yaml", "a: [\n"));
    let found = load(&all).unwrap_err();
    let places: Vec<(&str, u32, u32, &str)> = found
        .iter()
        .map(|found| (found.path.as_str(), found.line, found.column, found.code))
        .collect();
    assert_eq!(
        places,
        [
            ("policies/all.yaml", 6, 11, "bad-value"),
            ("policies/all.yaml", 10, 9, "unknown-field"),
            ("policies/all.yaml", 11, 20, "bad-value"),
            ("policies/all.yaml", 14, 19, "bad-value"),
            ("policies/all.yaml", 15, 17, "bad-value"),
            ("policies/all.yaml", 17, 12, "unknown-key"),
            ("policies/all.yaml", 21, 7, "unknown-kind"),
            ("policies/other.yaml", 1, 4, "yaml"),
        ],
        "{found}"
    );
    let text = found.render();
    for wanted in [
        "did you mean `ALLOW`?",
        "did you mean `principals`?",
        "write `GET`",
        "did you mean `ServiceEntry`?",
        "10 |         principles: [x]\n    |         ^^^^^^^^^^",
    ] {
        assert!(text.contains(wanted), "{wanted} in\n{text}");
    }
}

#[test]
fn what_is_known_but_not_done_is_refused_by_name() {
    let with = |spec: &str| policy("p", spec);
    for (name, text, code) in [
        ("kind", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {}\n".into(), "kind-not-supported"),
        ("version", with("{}").replace("security.istio.io/v1", "security.istio.io/v2"), "bad-api-version"),
        ("template", "apiVersion: ravelin.dev/v1\nkind: WorkloadIdentity\nmetadata: {name: a}\nspec: {selectors: ['unix:uid:1'], spiffeId: '/host/{agent.name}'}\n".into(), "not-supported"),
    ] {
        let found = errors(&text);
        assert_eq!(found.first().copied().unwrap_or_default(), code, "{name}: {found:?}");
    }
}

#[test]
fn a_set_without_usable_config_or_with_doubled_objects_is_refused() {
    let identity = |name: &str, rest: &str| {
        format!(
            "---\napiVersion: ravelin.dev/v1\nkind: WorkloadIdentity\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{selectors: ['unix:uid:1'], {rest}}}\n"
        )
    };
    let second_config = CONFIG.replace("shop.example", "other.example");
    for (name, text, code) in [
        ("two configs", second_config.as_str(), "duplicate-object"),
        (
            "same name",
            &(policy("a", "{}") + &policy("a", "{}")),
            "duplicate-object",
        ),
        (
            "same identity",
            &(identity("a", "spiffeId: /x") + &identity("b", "spiffeId: /x")),
            "duplicate-identity",
        ),
        (
            "two names of other labels",
            &(identity("a", "spiffeId: /x")
                + &identity("b", "spiffeId: /x")
                    .replace("uid:1", "uid:2")
                    .replace("namespace: shop", "namespace: other")),
            "conflicting-identity",
        ),
        (
            "foreign identity",
            &identity("a", "spiffeId: 'spiffe://other/x'"),
            "bad-spiffe-id",
        ),
        (
            "no selectors",
            &identity("a", "").replace("selectors: ['unix:uid:1'], ", ""),
            "missing-field",
        ),
        (
            "empty selectors",
            &identity("a", "").replace("['unix:uid:1']", "[]"),
            "empty-list",
        ),
        (
            "reserved",
            &identity("a", "spiffeId: /spire/server"),
            "bad-identity",
        ),
        (
            "selects nothing",
            &policy("a", "selector: {matchLabels: {app: paymnts}}"),
            "selects-nothing",
        ),
        (
            "empty selector",
            &policy("a", "selector: {matchLabels: {}}"),
            "empty-selector",
        ),
        (
            "starred selector",
            &policy("a", "selector: {matchLabels: {app: 'pay*'}}"),
            "selects-nothing",
        ),
        (
            "no name",
            &policy("a", "{}").replace("name: a, ", ""),
            "missing-field",
        ),
        ("bad name", &policy("a_b", "{}"), "bad-name"),
        (
            "no spec",
            &policy("a", "{}").replace("spec:\n  {}", ""),
            "missing-field",
        ),
        (
            "null spec",
            &policy("a", "{}").replace("\n  {}", ""),
            "no-value",
        ),
        ("not an object", "- a\n", "wrong-type"),
    ] {
        let found = errors(text);
        assert_eq!(found.first().copied(), Some(code), "{name}: {found:?}");
    }
    let found = load(&[file("policies/a.yaml", &policy("a", "{}"))]).unwrap_err();
    assert_eq!(found.0[0].code, "no-mesh-config");
    let found = load(&[file("a.yaml", ""), file("a.yaml", "")]).unwrap_err();
    assert_eq!(found.0[0].code, "duplicate-file");
}

#[test]
fn the_namespace_comes_from_metadata_then_from_the_folder_then_default() {
    let text = policy("p", "{}").replace(", namespace: shop", "");
    for (path, want) in [
        ("policies/front/a.yaml", "front"),
        ("policies/a.yaml", "default"),
        ("a.yaml", "default"),
        ("policies/front/deep/a.yaml", "front"),
    ] {
        let set = load(&[file("ravelin.yaml", CONFIG), file(path, &text)]).unwrap();
        assert_eq!(
            set.authorization_policies[0].metadata.namespace, want,
            "{path}"
        );
    }
}

#[test]
fn an_identity_becomes_a_registration_entry() {
    let text = "
apiVersion: ravelin.dev/v1
kind: WorkloadIdentity
metadata: {name: a, namespace: shop}
spec:
  selectors: ['unix:uid:1', 'launch:name:a']
  x509SvidTtl: 2m
  dnsNames: [a.shop]
  isAdmin: true
  launch: {command: [ravelin, demo], port: 9001, inbound: '127.0.0.1:9101', outbound: '127.0.0.1:9201'}
";
    let set = set(text);
    let identity = set
        .identities
        .iter()
        .find(|identity| identity.metadata.name == "a")
        .unwrap();
    let entry = identity.to_entry();
    assert_eq!(
        (
            entry.id.as_str(),
            entry.spiffe_id.as_str(),
            entry.parent_id.as_str()
        ),
        (
            "mesh:shop/a",
            "spiffe://shop.example/ns/shop/sa/a",
            "spiffe://shop.example/node/local"
        )
    );
    assert_eq!(
        (
            entry.x509_svid_ttl_secs,
            entry.jwt_svid_ttl_secs,
            entry.is_admin,
            entry.selectors.len()
        ),
        (120, 300, true, 2)
    );
    assert_eq!(
        identity.launch.as_ref().unwrap().inbound.unwrap().port(),
        9101
    );
}

#[test]
fn a_service_has_static_endpoints_and_expected_identities() {
    let service = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payments, namespace: shop}
spec:
  hosts: [payments.shop]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: 9101}}]
  subjectAltNames: ['spiffe://shop.example/ns/shop/sa/payments']
";
    let loaded = set(service);
    let found = &loaded.services[0];
    assert_eq!(found.endpoints[0].port_for(&found.ports[0]), 9101);
    let selected = service.replace(
        "endpoints: [{address: 127.0.0.1, ports: {http: 9101}}]",
        "workloadSelector: {labels: {app: p}}",
    ) + "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: w, namespace: shop, labels: {app: p}}\nspec: {address: 127.0.0.2, ports: {http: 9102}}\n";
    assert_eq!(
        set(&selected).services[0].endpoints[0].address.to_string(),
        "127.0.0.2"
    );
    for (from, to, code) in [
        ("payments.shop]", "'*']", "bad-host"),
        ("payments.shop]", "'a.*.shop']", "bad-host"),
        (
            "payments.shop]",
            "payments.shop, PAYMENTS.shop]",
            "duplicate-host",
        ),
        ("STATIC", "NONE", "bad-combination"),
        ("STATIC", "DYNAMIC_DNS", "bad-combination"),
        ("STATIC", "STATC", "bad-value"),
        ("MESH_INTERNAL", "INTERNAL", "bad-value"),
        ("protocol: HTTP", "protocol: HTP", "bad-value"),
        ("127.0.0.1", "localhost", "bad-address"),
        ("ports: {http: 9101}", "ports: {htp: 9101}", "unknown-port"),
        ("number: 80", "number: 0", "bad-number"),
        (
            "'spiffe://shop.example/",
            "'spiffe://shop example/",
            "bad-spiffe-id",
        ),
    ] {
        let found = errors(&service.replace(from, to));
        assert_eq!(found.first().copied(), Some(code), "{to}: {found:?}");
    }
    for (from, to) in [
        ("STATIC", "DNS"),
        ("MESH_INTERNAL", "MESH_EXTERNAL"),
        ("protocol: HTTP", "protocol: UDP"),
        ("  resolution: STATIC\n", "  resolution: DNS_ROUND_ROBIN\n"),
        ("  location: MESH_INTERNAL\n", "  exportTo: ['.']\n"),
        ("127.0.0.1", "'unix:///run/a.sock'"),
        (
            "'spiffe://shop.example/ns/shop/sa/payments'",
            "payments.shop",
        ),
        (
            "  subjectAltNames: ['spiffe://shop.example/ns/shop/sa/payments']\n",
            "",
        ),
    ] {
        let text = service.replace(from, to);
        assert_eq!(warnings(&text), ["not-routed"], "{to}");
        assert!(!set(&text).services[0].is_routed, "{to}");
    }
    for (from, to) in [
        ("payments.shop]", "'*.shop']"),
        ("protocol: HTTP", "protocol: https"),
    ] {
        assert!(
            set(&service.replace(from, to)).services[0].is_routed,
            "{to}"
        );
    }
    let twice = service.to_owned() + "---" + &service.replace("name: payments,", "name: other,");
    assert_eq!(errors(&twice), ["duplicate-host"]);
}

#[test]
fn config_takes_every_field_and_refuses_bad_values() {
    let spec = |text: &str| {
        load(&[file(
            "ravelin.yaml",
            &format!("apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec: {text}\n"),
        )])
    };
    let config = spec("{trustDomain: a.b, rootNamespace: root, defaults: {parentId: /node/x, x509SvidTtl: 2m, jwtSvidTtl: 30s}, pathNormalization: BASE, jwt: {clockSkew: 5s, requireExpiry: false, typedClaims: false}, unlistedCalls: allow, hostMatching: EXACT}").unwrap().config;
    assert_eq!(
        (
            config.trust_domain.as_str(),
            config.root_namespace.as_str(),
            config.defaults.x509_svid_ttl_secs,
            config.clock_skew.as_secs()
        ),
        ("a.b", "root", 120, 5)
    );
    assert_eq!(
        (
            config.path_normalization,
            config.is_expiry_required,
            config.has_typed_claims,
            config.are_unlisted_calls_allowed,
            config.is_host_exact
        ),
        (PathNormalization::Base, false, false, true, true)
    );
    for (text, code) in [
        ("{}", "missing-field"),
        ("{trustDomain: A}", "bad-trust-domain"),
        ("{trustDomain: a, federation: [x]}", "not-supported"),
        ("{trustDomain: a, unlistedCalls: maybe}", "bad-value"),
        ("{trustDomain: a, jwt: {clockSkew: 1y}}", "bad-duration"),
        (
            "{trustDomain: a, defaults: {x509SvidTtl: 0s}}",
            "bad-duration",
        ),
        ("{trustDomain: a, trustdomain: b}", "unknown-field"),
    ] {
        assert_eq!(spec(text).unwrap_err().0[0].code, code, "{text}");
    }
}

#[test]
fn a_plan_names_objects_and_fields_that_change() {
    let old =
        set(&(policy("a", "rules: [{to: [{operation: {methods: [GET]}}]}]") + &policy("b", "{}")));
    let new =
        set(&(policy("a", "rules: [{to: [{operation: {methods: [POST]}}]}]") + &policy("c", "{}")));
    let changes = diff_sets(&old, &new);
    let shown: Vec<(ChangeAction, &str)> = changes
        .iter()
        .map(|change| (change.action, change.name.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (ChangeAction::Update, "a"),
            (ChangeAction::Delete, "b"),
            (ChangeAction::Create, "c")
        ]
    );
    assert_eq!(
        changes[0].summary,
        "spec.rules[0].to[0].operation.methods[0]: `GET` -> `POST`"
    );
    assert!(diff_sets(&old, &old).is_empty());
}

#[test]
fn a_flood_of_findings_is_bounded_and_still_an_error() {
    let many: String = (0..400)
        .map(|n| {
            policy(
                &format!("p{n}"),
                "rules: [{to: [{operation: {paths: ['/a*b']}}]}]",
            )
        })
        .collect();
    let found = load(&files(&(many.clone() + &policy("bad", "oops: 1")))).unwrap_err();
    assert!(found.iter().any(|found| found.code == "unknown-field"));
    assert!(found.0.len() <= limits::DIAGNOSTICS_MAX + 1);
    assert!(set(&many).warnings.len() <= limits::DIAGNOSTICS_MAX + 1);
}

#[test]
fn more_rules_than_a_set_may_have_are_refused_by_name() {
    let rules = vec!["{}"; limits::RULES_MAX].join(",");
    let policies: Vec<String> = (0..=limits::SET_RULES_MAX / limits::RULES_MAX)
        .map(|n| policy(&format!("p{n}"), &format!("rules: [{rules}]")))
        .collect();
    let mut all = vec![file("ravelin.yaml", CONFIG)];
    for (n, chunk) in policies.chunks(256).enumerate() {
        all.push(file(&format!("policies/{n}.yaml"), &chunk.concat()));
    }
    let found = load(&all).unwrap_err();
    assert_eq!(found.0[0].code, "too-many-rules", "{found}");
    let one = vec!["{}"; 1_000_000].join(",");
    let huge = policy("p", &format!("rules: [{one}]"));
    let found = load(&[file("ravelin.yaml", CONFIG), file("policies/a.yaml", &huge)]).unwrap_err();
    assert_eq!(found.0[0].code, "file-too-large");
    let some = vec!["{}"; limits::RULES_MAX + 1].join(",");
    assert_eq!(
        errors(&policy("p", &format!("rules: [{some}]"))),
        ["too-many"]
    );
}

proptest::proptest! {
    #[test]
    fn loading_never_panics(text in "(apiVersion: security.istio.io/v1\n|kind: AuthorizationPolicy\n|metadata: \\{name: a\\}\n|spec:\n|  rules:\n|  - from:\n|    - source: |\\{principals: |\\[|\\]|\\}|- |a: |\\*|'|\"|\n|\\PC|  ){0,30}") {
        let _ = load(&files(&text));
    }
}
