//! The real binary: `policy check` on mesh folders, on plain files of Istio, on broken ones; findings and exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Exit code, stdout, stderr of `ravelin policy ..` in the root of the repository.
fn policy(arguments: &[&str]) -> (i32, String, String) {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(env!("CARGO_BIN_EXE_ravelin"))
        .arg("policy")
        .args(arguments)
        .current_dir(root)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        fs::write(folder.path().join(path), content).unwrap();
    }
    folder
}

const CONFIG: (&str, &str) = (
    "ravelin.yaml",
    "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec: {trustDomain: shop.example}\n",
);
const DENY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec:\n  action: DENY\n  rules:\n  - to:\n    - operation:\n        paths: [/admin]\n";

#[test]
fn a_clean_folder_ends_with_0_also_when_strict() {
    let clean = folder(&[
        CONFIG,
        ("a.yaml", &DENY.replace("paths: [/admin]", "notPaths: [/a]")),
    ]);
    let path = clean.path().to_str().unwrap();
    let (code, out, _) = policy(&["check", "--strict", path]);
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "no errors: 0 identities, 1 policies, 0 services, 0 tests, 0 warnings\n"
        )
    );
}

#[test]
fn a_warning_ends_with_0_and_with_1_when_strict_and_has_its_place() {
    let warned = folder(&[CONFIG, ("a.yaml", DENY)]);
    let path = warned.path().to_str().unwrap();
    let (code, out, _) = policy(&["check", path]);
    assert_eq!(code, 0);
    assert!(out.contains("a.yaml:9:9: warning[deny-by-path]"), "{out}");
    assert!(
        out.contains(" 9 |         paths: [/admin]\n   |         ^^^^^^^^^^^^^^^"),
        "{out}"
    );
    assert!(out.ends_with("1 warnings\n"), "{out}");
    assert_eq!(policy(&["check", "--strict", path]).0, 1);
    let (code, out, _) = policy(&["check", "-o", "jsonl", path]);
    assert_eq!((code, out.lines().count()), (0, 1));
    for wanted in [
        "\"code\":\"deny-by-path\"",
        "\"line\":9",
        "\"level\":\"warning\"",
    ] {
        assert!(out.contains(wanted), "{out}");
    }
    let (_, out, _) = policy(&["check", "-o", "json", path]);
    assert!(
        out.trim_start().starts_with('[') && out.contains("deny-by-path"),
        "{out}"
    );
}

#[test]
fn errors_end_with_2_and_every_file_is_told_of() {
    let broken = folder(&[
        CONFIG,
        ("a.yaml", "a: [\n"),
        ("b.yaml", &DENY.replace("paths", "pahts")),
    ]);
    let path = broken.path().to_str().unwrap();
    let (code, out, err) = policy(&["check", path]);
    assert_eq!(code, 2);
    assert!(
        out.contains("a.yaml:1:4: error[yaml]") && out.contains("b.yaml:9:9: error[unknown-field]"),
        "{out}"
    );
    assert!(
        out.contains("did you mean `paths`?") && err.contains("2 error(s)"),
        "{out}{err}"
    );
    let (code, out, _) = policy(&["check", "-o", "jsonl", path]);
    assert_eq!((code, out.lines().count()), (2, 2));
    let binary = folder(&[CONFIG]);
    fs::write(binary.path().join("a.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    let (code, out, _) = policy(&["check", binary.path().to_str().unwrap()]);
    assert!(code == 2 && out.contains("error[not-utf8]"), "{out}");
}

#[test]
fn files_of_istio_without_a_mesh_are_checked_and_never_planned() {
    let (code, out, err) = policy(&["check", "policies/tests/istio"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("trust domain is `cluster.local`"), "{err}");
    assert!(out.contains("no errors: 0 identities"), "{out}");
    let (code, _, _) = policy(&["check", "policies/tests/istio/peer-authentication.yaml"]);
    assert_eq!(code, 0);
    let plain = folder(&[("a.yaml", DENY)]);
    let output = Command::new(env!("CARGO_BIN_EXE_ravelin"))
        .args(["apply", plain.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("has no `ravelin.yaml`"), "{said}");
}

#[test]
fn a_schema_is_printed_for_every_kind_or_one() {
    let (code, out, _) = policy(&["schema"]);
    assert!(
        code == 0 && out.contains("2020-12") && out.contains("\"AuthorizationPolicy\""),
        "{out}"
    );
    let (code, out, _) = policy(&["schema", "PeerAuthentication"]);
    assert!(
        code == 0 && out.contains("portLevelMtls") && !out.contains("jwtRules"),
        "{out}"
    );
    let (code, _, err) = policy(&["schema", "Gateway"]);
    assert!(code == 2 && err.contains("the kinds are"), "{err}");
}

#[test]
fn the_examples_have_no_error() {
    for example in ["shop", "bank"] {
        let (code, out, err) = policy(&["check", &format!("policies/examples/{example}")]);
        assert_eq!(code, 0, "{out}{err}");
        assert!(!err.contains("cluster.local"), "{err}");
    }
}
