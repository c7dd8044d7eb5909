//! The real binary: what `ravelin up` refuses, each with exit code 2, one clear message and the state left as it was.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

const MESH: &str = "\
apiVersion: ravelin.dev/v1
kind: MeshConfig
metadata:
  name: mesh
spec:
  trustDomain: one.example
";

const IDENTITY: &str = "\
apiVersion: ravelin.dev/v1
kind: WorkloadIdentity
metadata:
  name: orders
spec:
  selectors: [\"unix:uid:1\"]
";

/// Name of the row, files beside `ravelin.yaml`, what the message has to say.
type BadMesh<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a [&'a str]);

fn mesh(folder: &Path, files: &[(&str, &str)]) {
    fs::write(folder.join("ravelin.yaml"), MESH).unwrap();
    for (path, content) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn up(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ravelin"))
        .args(["up", "--exit", "--data", "data"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Exit code 2, a message with every one of `wanted`, and no panic.
fn assert_refused(output: &Output, wanted: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    for want in wanted {
        assert!(text.contains(want), "`{want}` is missing: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_mesh_with_an_error_is_refused_with_its_place() {
    let unknown_field = IDENTITY.replace("selectors", "selector");
    let unknown_kind = IDENTITY.replace("WorkloadIdentity", "WorkloadIdentiti");
    let other_name = IDENTITY.replace("name: orders", "name: orders2\n  namespace: a")
        + "  spiffeId: /ns/a/sa/orders\n";
    let table: [BadMesh<'_>; 5] = [
        (
            "malformed YAML",
            vec![("identities/a/orders.yaml", "kind: [")],
            &["identities/a/orders.yaml:1:"],
        ),
        (
            "unknown field",
            vec![("identities/a/orders.yaml", &unknown_field)],
            &["identities/a/orders.yaml:6:3", "selector"],
        ),
        (
            "unknown kind",
            vec![("identities/a/orders.yaml", &unknown_kind)],
            &["identities/a/orders.yaml:2:", "WorkloadIdentiti"],
        ),
        (
            "duplicate identity",
            vec![
                ("identities/a/orders.yaml", IDENTITY),
                ("identities/a/other.yaml", &other_name),
            ],
            &["identities/a/other.yaml", "identities/a/orders.yaml"],
        ),
        (
            "a policy without rules to deny by",
            vec![(
                "policies/a/deny.yaml",
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: deny\nspec:\n  action: DENY\n",
            )],
            &["policies/a/deny.yaml:"],
        ),
    ];
    for (name, files, wanted) in table {
        let folder = tempfile::tempdir().unwrap();
        mesh(folder.path(), &files);
        let output = up(folder.path(), &[]);
        assert_refused(&output, wanted);
        assert!(
            !folder.path().join("data").exists(),
            "{name}: state was made"
        );
    }
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    mesh(folder.path(), &[]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = up(folder.path(), &["--ca-listen", &address]);
    assert_refused(&output, &[&address, "the CA cannot listen", "--ca-listen"]);
}

#[test]
fn a_second_up_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    mesh(folder.path(), &[]);
    let data = folder.path().join("data");
    ravelin_runtime::durable::create_private_dir(&data).unwrap();
    let _held = ravelin_runtime::durable::lock_folder(&data).unwrap();
    let output = up(folder.path(), &[]);
    assert_refused(&output, &["data` is in use by", "--data"]);
}

#[test]
fn a_data_folder_of_another_trust_domain_is_refused_and_left() {
    let folder = tempfile::tempdir().unwrap();
    mesh(folder.path(), &[]);
    let data = folder.path().join("data");
    ravelin_runtime::durable::create_private_dir(&data).unwrap();
    fs::write(data.join("trust-domain"), "two.example\n").unwrap();
    let output = up(folder.path(), &[]);
    assert_refused(&output, &["two.example", "one.example", "--data"]);
    let left = fs::read_to_string(data.join("trust-domain")).unwrap();
    assert_eq!(left, "two.example\n");
}

#[test]
fn a_tour_of_another_mesh_than_the_shop_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    mesh(folder.path(), &[]);
    let output = up(folder.path(), &["--tour"]);
    assert_refused(&output, &["the tour calls `orders`"]);
}
