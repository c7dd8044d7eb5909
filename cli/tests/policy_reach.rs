//! `policy who-can` and `policy diff` on the examples, with the real binary: what they print, and how they end.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn example(name: &str) -> String {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/examples");
    examples.join(name).display().to_string()
}

/// Exit code, stdout and stderr of `ravelin policy VERB`.
fn policy(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ravelin"))
        .arg("policy")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stderr = text(&output.stderr);
    assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    (output.status.code().unwrap(), text(&output.stdout), stderr)
}

fn here(arguments: &[&str]) -> (i32, String, String) {
    policy(Path::new("."), arguments)
}

/// A copy of an example, to change.
fn copy(name: &str, to: &Path) {
    fn walk(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    walk(&PathBuf::from(example(name)), to);
}

fn replace(file: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(old), "{text}");
    fs::write(file, text.replace(old, new)).unwrap();
}

#[test]
fn who_can_lists_callers_with_requests_and_rules_and_ends_with_1_for_nobody() {
    let shop = example("shop");
    let (code, out, err) = here(&["who-can", &shop, "--to", "inventory"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for part in [
        "shop/inventory (spiffe://shop.example/ns/shop/sa/inventory)",
        "  shop.example/ns/shop/sa/orders\n    allow method: GET",
        "by shop/inventory-allow-orders rule 1",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    for (question, want) in [
        (["--from", "orders", "--method", "GET"], 0),
        (["--from", "orders", "--method", "DELETE"], 1),
        (["--from", "payments", "--path", "/inventory/1"], 1),
        (["--path", "/a/../inventory/1", "--method", "GET"], 0),
    ] {
        let asked = [
            &["who-can", &shop, "--to", "inventory"],
            question.as_slice(),
        ]
        .concat();
        let (code, out, _) = here(&asked);
        assert_eq!(code, want, "{question:?}: {out}");
        assert_eq!(out.contains("  nobody"), want == 1, "{out}");
    }
    let asked = ["who-can", &shop, "--to", "inventory", "--plain-text"];
    assert_eq!(here(&asked).0, 1);
}

#[test]
fn who_can_as_json_has_an_example_for_each_row() {
    let (code, out, _) = here(&[
        "who-can",
        &example("shop"),
        "--from",
        "orders",
        "-o",
        "json",
    ]);
    assert_eq!(code, 0, "{out}");
    let rows: Value = serde_json::from_str(&out).unwrap();
    let rows = rows.as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"shop/inventory") && names.contains(&"shop/payments"),
        "{names:?}"
    );
    for row in rows {
        let principal = &row["example"]["principal"];
        assert_eq!(*principal, json!("spiffe://shop.example/ns/shop/sa/orders"));
        assert_eq!(row["decision"], json!("allow"));
    }
    let (_, lines, _) = here(&["who-can", &example("shop"), "-o", "jsonl"]);
    assert!(lines.lines().count() >= 4, "{lines}");
}

#[test]
fn who_can_answers_for_the_other_workloads_when_one_cannot_be_analysed() {
    let bank = example("bank");
    let weekend = ["--at", "2026-11-22T12:00:00Z"];
    let asked = [["who-can", &bank].as_slice(), &weekend].concat();
    let (code, out, err) = here(&asked);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("by bank/ledger-break-glass rule 1"), "{out}");
    for part in [
        "policies/bank/transfers.yaml:",
        "the reference in the condition on `request.auth.claims[account]`",
        "ravelin policy explain",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let ledger = [["who-can", &bank, "--to", "ledger"].as_slice(), &weekend].concat();
    assert_eq!(here(&ledger).0, 0);
    let oncall = ["who-can", &bank, "--to", "ledger", "--from", "ops/oncall"];
    for (at, want) in [("2026-11-22T12:00:00Z", 0), ("2026-11-23T06:00:00Z", 1)] {
        assert_eq!(
            here(&[oncall.as_slice(), &["--at", at]].concat()).0,
            want,
            "{at}"
        );
    }
    assert_eq!(here(&[oncall.as_slice(), &["--any-time"]].concat()).0, 0);
    let (code, out, err) = here(&["who-can", &bank, "--to", "transfers"]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("ravelin policy explain"), "{err}");
}

#[test]
fn bad_questions_end_with_2() {
    let shop = example("shop");
    for arguments in [
        vec!["who-can", "missing"],
        vec!["who-can", &shop, "--to", "nobody-of-this-name"],
        vec!["who-can", &shop, "--at", "noon"],
        vec!["who-can", &shop, "--path", "no-slash"],
        vec!["diff", &shop],
        vec!["diff", &shop, "missing"],
        vec!["diff", "no-such-revision:", &shop],
        vec!["diff", "--", "-x:policies", &shop],
    ] {
        let (code, _, err) = here(&arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(err.contains("error"), "{arguments:?}: {err}");
    }
}

#[test]
fn diff_tells_what_changes_with_an_example_and_ends_with_1() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["shop", "bank"] {
        let old = example(name);
        let new = folder.path().join(name);
        copy(name, &new);
        let new = new.display().to_string();
        let (code, out, err) = here(&["diff", &old, &new]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert_eq!(out, "4 workloads, 0 differences\n");
    }
    let new = folder.path().join("shop");
    let inventory = new.join("policies/shop/inventory.yaml");
    replace(&inventory, "/inventory/*", "/inventory/{*}");
    let (old, new) = (example("shop"), new.display().to_string());
    let (code, out, _) = here(&["diff", &old, &new]);
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("allow -> deny") && out.contains("such as GET /inventory/"),
        "{out}"
    );
    assert!(out.ends_with("4 workloads, 1 differences\n"), "{out}");
    let (code, out, _) = here(&["diff", &old, &new, "-o", "json", "--deciders"]);
    assert_eq!(code, 1, "{out}");
    let rows: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&rows[0]["before"], &rows[0]["after"]),
        (&json!("allow"), &json!("deny"))
    );
    assert_eq!(
        rows[0]["before_by"],
        json!("shop/inventory-allow-orders rule 1")
    );
    let example = &rows[0]["example"];
    assert!(
        example["target"]
            .as_str()
            .unwrap()
            .starts_with("/inventory/"),
        "{example}"
    );
}

#[test]
fn diff_names_what_it_cannot_compare_and_compares_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    copy("bank", folder.path());
    let policies = folder.path().join("policies/bank");
    replace(
        &policies.join("transfers.yaml"),
        "\"confirmed\"",
        "\"agreed\"",
    );
    replace(
        &policies.join("ledger.yaml"),
        "[\"POST\"]",
        "[\"POST\", \"PUT\"]",
    );
    let new = folder.path().display().to_string();
    let (code, out, err) = here(&["diff", &example("bank"), &new]);
    assert_eq!(code, 2, "{out}");
    assert!(
        out.contains("deny -> allow") && out.contains("such as PUT /entries"),
        "{out}"
    );
    assert!(
        err.contains("sa/transfers") && err.contains("the reference in"),
        "{err}"
    );
}

#[test]
fn diff_reads_a_folder_out_of_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let mesh = folder.path().join("mesh");
    copy("shop", &mesh);
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(["-c", "commit.gpgsign=false"])
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "first"]);
    assert_eq!(policy(folder.path(), &["diff", "HEAD:mesh", "mesh"]).0, 0);
    replace(
        &mesh.join("policies/shop/inventory.yaml"),
        "/inventory/*",
        "/inventory/{*}",
    );
    let (code, out, err) = policy(folder.path(), &["diff", "HEAD:mesh", "mesh"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("allow -> deny"), "{out}");
    git(&["commit", "-q", "-a", "-m", "second"]);
    for (at, arguments, want) in [
        (folder.path(), ["diff", "HEAD~1:mesh", "HEAD:mesh"], 1),
        (folder.path(), ["diff", "HEAD:mesh", "mesh"], 0),
        (&mesh, ["diff", "HEAD~1:", "."], 1),
        (&mesh, ["diff", "HEAD:", "."], 0),
        (folder.path(), ["diff", "HEAD:", "mesh"], 2),
        (folder.path(), ["diff", "HEAD~7:mesh", "mesh"], 2),
    ] {
        let (code, out, err) = policy(at, &arguments);
        assert_eq!(code, want, "{arguments:?}: {out}{err}");
    }
}

#[test]
fn help_says_what_is_left_out_and_what_counts() {
    for verb in ["who-can", "diff"] {
        let (code, out, _) = here(&[verb, "--help"]);
        assert_eq!(code, 0);
        assert!(out.contains("IPv6") && out.contains("namespaces"), "{out}");
    }
    let (_, out, _) = here(&["diff", "--help"]);
    assert!(out.contains("counts as a difference"), "{out}");
}
