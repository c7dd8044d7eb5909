//! Documents in the shapes of Istio's public documentation and samples load unmodified; what is not acted on is said.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "a test over files of the repository"
)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use ravelin_policies::*;
use support::*;

fn fixtures() -> Vec<SourceFile> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/istio");
    let mut files: Vec<SourceFile> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            SourceFile::from_bytes(&name, &std::fs::read(entry.path()).unwrap()).unwrap()
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn warned(set: &MeshSet) -> BTreeSet<&'static str> {
    set.warnings.iter().map(|found| found.code).collect()
}

#[test]
fn documents_of_istio_load_unmodified_one_by_one_and_as_a_folder() {
    let files = fixtures();
    for file in &files {
        let set = load_with_defaults(std::slice::from_ref(file))
            .unwrap_or_else(|found| panic!("{found}"));
        assert!(!set.objects.is_empty(), "{}", file.path);
    }
    let set = load_with_defaults(&files).unwrap_or_else(|found| panic!("{found}"));
    assert!(!set.config.is_given());
    assert_eq!(set.config.trust_domain.as_str(), TRUST_DOMAIN_DEFAULT);
    assert!(set.authorization_policies.len() > 20 && set.services.len() > 12);
    // The folder of a mesh takes them as well, beside its own MeshConfig.
    let config = "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec:\n  trustDomain: cluster.local\n  extensionProviders:\n  - {name: our-own-check, envoyExtAuthzGrpc: {service: 10.0.0.1, port: 9000}}\n  - {name: sample-check-grpc, envoyExtAuthzGrpc: {service: 10.0.0.1, port: 9000}}\n";
    let mut all = files;
    all.push(file("ravelin.yaml", config));
    let set = load(&all).unwrap_or_else(|found| panic!("{found}"));
    assert!(!warned(&set).contains("unknown-provider"));
}

#[test]
fn services_that_no_proxy_can_reach_load_and_are_not_routed() {
    let set = load_with_defaults(&fixtures()).unwrap();
    let routed: Vec<&str> = set
        .services
        .iter()
        .filter(|service| service.is_routed)
        .map(|service| service.metadata.name.as_str())
        .collect();
    assert_eq!(routed, ["probe-outside"]);
    let said = set
        .warnings
        .iter()
        .filter(|found| found.code == "not-routed" && found.message.contains("this service"))
        .count();
    assert_eq!(said, set.services.len() - routed.len());
}

#[test]
fn kinds_of_kubernetes_that_only_run_something_are_ignored_with_a_warning() {
    let set = load_with_defaults(&fixtures()).unwrap();
    let ignored = set
        .warnings
        .iter()
        .filter(|found| found.code == "ignored-kind")
        .count();
    assert_eq!(ignored, 7);
    for (kind, version, code, help) in [
        ("Deployment", "apps/v1", "", ""),
        ("Deployment", "v1", "unknown-kind", "did you mean"),
        (
            "Secret",
            "v1",
            "kind-not-supported",
            "every proxy would get it",
        ),
        (
            "NetworkPolicy",
            "networking.k8s.io/v1",
            "kind-not-supported",
            "AuthorizationPolicy",
        ),
        (
            "Role",
            "rbac.authorization.k8s.io/v1",
            "kind-not-supported",
            "cluster",
        ),
        ("List", "v1", "kind-not-supported", "`---`"),
        (
            "VirtualService",
            "networking.istio.io/v1",
            "kind-not-supported",
            "",
        ),
        (
            "DestinationRule",
            "networking.istio.io/v1",
            "kind-not-supported",
            "",
        ),
        (
            "Gateway",
            "gateway.networking.k8s.io/v1",
            "kind-not-supported",
            "",
        ),
        (
            "ServiceRole",
            "rbac.istio.io/v1alpha1",
            "kind-not-supported",
            "AuthorizationPolicy",
        ),
        (
            "Policy",
            "authentication.istio.io/v1alpha1",
            "kind-not-supported",
            "PeerAuthentication",
        ),
        (
            "AuthorisationPolicy",
            "security.istio.io/v1",
            "unknown-kind",
            "did you mean `AuthorizationPolicy`?",
        ),
        ("Servic", "v1", "unknown-kind", "did you mean `Service`?"),
    ] {
        let text =
            format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\ndata: {{a: b}}\n");
        match load_with_defaults(&[file("a.yaml", &text)]) {
            Ok(set) => assert_eq!((code, set.warnings[0].code), ("", "ignored-kind"), "{kind}"),
            Err(found) => {
                assert_eq!(found.0[0].code, code, "{kind}: {found}");
                let said = found.0[0].help.clone().unwrap_or_default();
                assert!(said.contains(help), "{kind}: {said}");
            }
        }
    }
}

#[test]
fn the_right_kind_under_the_wrong_group_of_istio_loads_with_a_warning() {
    let files = fixtures();
    let wrong = files
        .iter()
        .find(|file| file.path == "wrong-group.yaml")
        .unwrap();
    let set = load_with_defaults(std::slice::from_ref(wrong)).unwrap();
    let helps: Vec<&str> = set
        .warnings
        .iter()
        .filter(|found| found.code == "wrong-api-group")
        .filter_map(|found| found.help.as_deref())
        .collect();
    assert_eq!(
        helps,
        [
            "write `security.istio.io/v1`",
            "write `security.istio.io/v1`",
            "write `networking.istio.io/v1`",
            "write `security.istio.io/v1`",
            "write `security.istio.io/v1`",
        ]
    );
    for (version, kind) in [
        ("security.istio.io/v2", "AuthorizationPolicy"),
        ("rbac.istio.io/v1alpha1", "AuthorizationPolicy"),
        ("security.istio.io", "AuthorizationPolicy"),
        ("v1", "AuthorizationPolicy"),
        ("security.istio.io/v1alpha3", "ServiceEntry"),
        ("security.istio.io/v1", "WorkloadIdentity"),
        ("ravelin.dev/v1", "AuthorizationPolicy"),
    ] {
        let text =
            format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n");
        let found = load_with_defaults(&[file("a.yaml", &text)]).unwrap_err();
        assert_eq!(found.0[0].code, "bad-api-version", "{version} {kind}");
    }
}

#[test]
fn without_a_mesh_config_only_an_offline_look_is_possible() {
    let text = policy("a", "rules: [{}]");
    assert_eq!(
        load(&[file("a.yaml", &text)]).unwrap_err().0[0].code,
        "no-mesh-config"
    );
    let set = load_with_defaults(&[file("a.yaml", &text)]).unwrap();
    assert_eq!((set.config.is_given(), set.warnings.len()), (false, 0));
    // A MeshConfig that is there and broken is not replaced by defaults.
    let broken = "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec: {trustDomain: A B}\n";
    assert!(load_with_defaults(&[file("ravelin.yaml", broken), file("a.yaml", &text)]).is_err());
}
