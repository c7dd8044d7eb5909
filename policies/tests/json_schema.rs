//! The JSON Schema for editors and the loader agree: on every document of the repository, and on what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "a test over files of the repository"
)]

mod support;

use std::path::{Path, PathBuf};

use jsonschema::Validator;
use ravelin_policies::*;
use serde_json::{Value, json};
use support::*;

fn validator() -> Validator {
    jsonschema::draft202012::new(&schema_of_all()).unwrap()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn files_below(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
        &mut found,
    );
    found.retain(|path| {
        path.extension()
            .is_some_and(|ending| endings.iter().any(|known| ending == *known))
    });
    found
}

/// The documents of a YAML text as JSON.
fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

fn faults(validator: &Validator, document: &Value) -> Vec<String> {
    validator
        .iter_errors(document)
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect()
}

#[test]
fn every_example_and_every_document_of_istio_fits_the_schema() {
    let validator = validator();
    let mut count = 0;
    let files = files_below("examples", &["yaml"])
        .into_iter()
        .chain(files_below("tests/istio", &["yaml"]));
    for path in files.filter(|path| !path.ends_with("wrong-group.yaml")) {
        for document in documents(&std::fs::read_to_string(&path).unwrap()) {
            assert_eq!(
                faults(&validator, &document),
                [""; 0],
                "{}\n{document}",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count > 90, "{count}");
}

#[test]
fn every_policy_of_the_corpus_that_loads_fits_the_schema() {
    let validator = validator();
    let mut count = 0;
    for path in files_below("corpus", &["json"]) {
        let cases: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for case in cases.as_array().into_iter().flatten() {
            for document in case["policies"].as_array().into_iter().flatten() {
                if load_with_defaults(&[file("a.yaml", &document.to_string())]).is_ok() {
                    assert_eq!(faults(&validator, document), [""; 0], "{document}");
                    count += 1;
                }
            }
        }
    }
    assert!(count > 100, "{count}");
}

/// Every mapping of a document, by the path to it.
fn mappings(document: &Value, path: String, found: &mut Vec<String>) {
    match document {
        Value::Object(members) => {
            found.push(path.clone());
            for (name, value) in members {
                let step = name.replace('~', "~0").replace('/', "~1");
                mappings(value, format!("{path}/{step}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                mappings(value, format!("{path}/{index}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Mappings whose names are anyone's, and parts that nobody looks into.
fn is_open(path: &str) -> bool {
    let open = [
        "labels",
        "matchLabels",
        "annotations",
        "ports",
        "portLevelMtls",
        "headers",
        "claims",
        "includeAdditionalHeadersInCheck",
    ];
    open.iter().any(|name| path.ends_with(&format!("/{name}")))
        || ["/claims/", "/managedFields/", "/status", "/ownerReferences"]
            .iter()
            .any(|part| path.contains(part))
}

#[test]
fn an_unknown_field_anywhere_is_refused_by_the_schema_and_by_the_loader() {
    let validator = validator();
    let mut count = 0;
    let files = files_below("examples", &["yaml"])
        .into_iter()
        .chain(files_below("tests/istio", &["yaml"]));
    for path in files.filter(|path| !path.ends_with("wrong-group.yaml")) {
        for document in documents(&std::fs::read_to_string(&path).unwrap()) {
            if !schema_kinds().contains(&document["kind"].as_str().unwrap()) {
                continue;
            }
            let mut paths = Vec::new();
            mappings(&document, String::new(), &mut paths);
            for place in paths.into_iter().filter(|place| !is_open(place)) {
                let mut changed = document.clone();
                let mapping = changed
                    .pointer_mut(&place)
                    .unwrap()
                    .as_object_mut()
                    .unwrap();
                mapping.insert("zebra".into(), json!("x"));
                assert!(!validator.is_valid(&changed), "{place} of {document}");
                let found =
                    load_with_defaults(&[file("a.yaml", &changed.to_string())]).unwrap_err();
                assert!(
                    found.iter().any(|found| found.code == "unknown-field"),
                    "{place} of {document}: {found}"
                );
                count += 1;
            }
        }
    }
    assert!(count > 400, "{count}");
}

#[test]
fn what_is_of_another_type_or_missing_is_refused_by_both() {
    let validator = validator();
    let object = |kind: &str, group: &str, spec: Value| json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": "a"}, "spec": spec});
    let policy = |spec: Value| object("AuthorizationPolicy", "security.istio.io", spec);
    for document in [
        policy(json!({"action": "ALOW"})),
        policy(json!({"action": true})),
        policy(json!({"rules": {}})),
        policy(json!({"rules": [null]})),
        policy(json!({"rules": [{"from": []}]})),
        policy(json!({"rules": [{"from": [{}]}]})),
        policy(json!({"rules": [{"to": [{"operation": {"paths": "/a"}}]}]})),
        policy(json!({"rules": [{"to": [{"operation": {"paths": [""]}}]}]})),
        policy(json!({"rules": [{"to": [{"operation": {"methods": [true]}}]}]})),
        policy(json!({"rules": [{"when": [{"key": "source.ipp", "values": ["10.0.0.1"]}]}]})),
        policy(json!({"rules": [{"when": [{"values": ["10.0.0.1"]}]}]})),
        policy(json!({"selector": {"matchLabels": {"a": 1}}})),
        policy(json!({"selector": {}})),
        policy(json!({"targetRefs": [{"kind": "Servic", "name": "a"}]})),
        object("AuthorizationPolicy", "security.example.com", json!({})),
        object(
            "PeerAuthentication",
            "security.istio.io",
            json!({"mtls": {"mode": "STRIKT"}}),
        ),
        object(
            "PeerAuthentication",
            "security.istio.io",
            json!({"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"80": "STRICT"}}),
        ),
        object(
            "RequestAuthentication",
            "security.istio.io",
            json!({"jwtRules": [{"issuer": "a", "jwks": 1}]}),
        ),
        object(
            "RequestAuthentication",
            "security.istio.io",
            json!({"jwtRules": [{"issuer": "https://a", "forwardOriginalToken": "yes"}]}),
        ),
        object(
            "ServiceEntry",
            "networking.istio.io",
            json!({"hosts": ["a.b"], "resolution": "DNSS", "ports": [{"number": 80, "name": "a", "protocol": "HTTP"}]}),
        ),
        object(
            "ServiceEntry",
            "networking.istio.io",
            json!({"hosts": ["a.b"], "resolution": "DNS"}),
        ),
        object(
            "ServiceEntry",
            "networking.istio.io",
            json!({"hosts": ["a.b"], "resolution": "DNS", "ports": [{"number": 0, "name": "a", "protocol": "HTTP"}]}),
        ),
        object("WorkloadIdentity", "ravelin.dev", json!({"selectors": []})),
        object(
            "WorkloadIdentity",
            "ravelin.dev",
            json!({"selectors": ["unix:uid:1"], "x509SvidTtl": "1 hour"}),
        ),
        object(
            "MeshConfig",
            "ravelin.dev",
            json!({"trustDomain": "a", "unlistedCalls": "maybe"}),
        ),
        object("Gateway", "networking.istio.io", json!({})),
    ] {
        assert!(!validator.is_valid(&document), "{document}");
        assert!(
            load_with_defaults(&[file("a.yaml", &document.to_string())]).is_err(),
            "{document}"
        );
    }
}

#[test]
fn each_kind_has_a_schema_of_its_own_and_it_is_one_of_the_draft() {
    for kind in schema_kinds() {
        let schema = schema_of_kind(kind).unwrap();
        assert!(jsonschema::meta::is_valid(&schema), "{kind}");
        assert_eq!(schema["properties"]["kind"]["const"], kind);
        jsonschema::draft202012::new(&schema).unwrap();
    }
    assert!(jsonschema::meta::is_valid(&schema_of_all()));
    assert_eq!(schema_of_kind("VirtualService"), None);
}
