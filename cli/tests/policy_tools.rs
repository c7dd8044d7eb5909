//! The policy tools on the example shop, with the real binary: what they print, and how they end.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn shop() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/examples/shop")
}

fn ravelin(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ravelin"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Exit code, stdout and stderr of `ravelin policy VERB`, on the shop unless a folder is named.
fn policy(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let arguments: Vec<&str> = ["policy"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    let output = ravelin(folder, &arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stderr = text(&output.stderr);
    assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    (output.status.code().unwrap(), text(&output.stdout), stderr)
}

/// A row of the log: `peer` calls inventory.
fn row(peer: &str, method: &str, path: &str, is_allowed: bool) -> String {
    let id = |name: &str| format!("spiffe://shop.example/ns/shop/sa/{name}");
    let (code, policy, rule) = if is_allowed {
        ("allowed", "shop/inventory-allow-orders", 1)
    } else {
        ("no_allow_matched", "", 0)
    };
    let record = json!({
        "time_ms": 1_800_000_000_000_i64, "call_id": "c", "workload": id("inventory"), "peer": id(peer),
        "peer_serial": "1", "protocol": "http", "method": method, "host": "inventory.shop", "path": path,
        "request_principal": "", "jti": "", "is_allowed": is_allowed, "code": code, "policy": policy,
        "rule": rule, "mesh_revision": 1, "status": 200, "latency_us": 5, "outcome": "completed",
        "trace_id": "", "source_address": "127.0.0.1:4711", "port": 15102, "reason": "", "sni": "",
        "destination_address": "127.0.0.1", "remote_address": "", "raw_path": "",
    });
    json!({"time": "2027-01-15T08:00:00Z", "log": "decision", "index": 1, "kind": "call", "who": "", "what": "", "record": record}).to_string()
}

fn log(folder: &Path, rows: &[String]) -> String {
    let path = folder.join("log.jsonl");
    fs::write(&path, rows.join("\n")).unwrap();
    path.display().to_string()
}

#[test]
fn replay_says_what_would_change_and_ends_with_1_when_something_does() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop().display().to_string();
    let same = log(
        folder.path(),
        &[row("orders", "GET", "/inventory/42", true)],
    );
    let (code, out, _) = policy(folder.path(), &["replay", &shop, "--log", &same]);
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains("1 calls: 1 the same (0 by another rule)"),
        "{out}"
    );

    let rows = [
        row("orders", "GET", "/inventory/42", true),
        row("orders", "DELETE", "/inventory/42", true),
        row("orders", "DELETE", "/inventory/43", true),
        row("payments", "GET", "/inventory/42", false),
    ];
    let changed = log(folder.path(), &rows);
    let (code, out, _) = policy(
        folder.path(),
        &["replay", &shop, "--log", &changed, "-o", "json"],
    );
    assert_eq!(code, 1, "{out}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&report["newly_denied"], &report["same"]),
        (&json!(2), &json!(2))
    );
    let group = &report["changes"][0];
    assert_eq!(
        (
            &group["path"],
            &group["method"],
            &group["calls"],
            &group["becomes"]
        ),
        (
            &json!("/inventory/{*}"),
            &json!("DELETE"),
            &json!(2),
            &json!("deny")
        )
    );
    let (_, lines, _) = policy(
        folder.path(),
        &["replay", &shop, "--log", &changed, "-o", "jsonl"],
    );
    assert_eq!(lines.lines().count(), 1, "{lines}");
    let (_, table, _) = policy(folder.path(), &["replay", &shop, "--log", &changed]);
    assert!(
        table.contains("allow -> deny") && table.contains("no_allow_matched"),
        "{table}"
    );
}

#[test]
fn replay_names_each_bad_line_and_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop().display().to_string();
    let rows = [
        row("orders", "GET", "/inventory/42", true),
        "nonsense".to_owned(),
    ];
    let log = log(folder.path(), &rows);
    let (code, _, err) = policy(folder.path(), &["replay", &shop, "--log", &log]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("log.jsonl:2: not a record"), "{err}");
    for arguments in [
        ["replay", &shop, "--log", "missing.jsonl"],
        ["replay", "missing", "--log", &log],
    ] {
        assert_eq!(policy(folder.path(), &arguments).0, 2);
    }
}
