//! The policy tools on the example shop, with the real binary: what they print, and how they end.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
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

#[test]
fn suggest_prints_policies_that_load_and_allow_what_was_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop().display().to_string();
    let mut rows: Vec<String> = (40..43)
        .map(|number| row("orders", "GET", &format!("/inventory/{number}"), true))
        .collect();
    rows.push(row("payments", "GET", "/inventory/50", false));
    let log = log(folder.path(), &rows);
    let (code, yaml, err) = policy(folder.path(), &["suggest", &shop, "--log", &log]);
    assert_eq!((code, err.as_str()), (0, ""), "{yaml}");
    assert!(
        yaml.contains("/inventory/40") && !yaml.contains("payments"),
        "{yaml}"
    );

    let (code, yaml, _) = policy(
        folder.path(),
        &["suggest", &shop, "--log", &log, "--generalize-paths"],
    );
    assert_eq!(code, 0, "{yaml}");
    assert!(yaml.contains("\"/inventory/{*}\""), "{yaml}");
    assert!(
        yaml.contains("# /inventory/{*} stands for 3 recorded paths"),
        "{yaml}"
    );

    // In place of the shop's own policies it decides the log as recorded.
    let copy = folder.path().join("copy");
    for part in ["identities/shop", "policies"] {
        fs::create_dir_all(copy.join(part)).unwrap();
    }
    let from = Path::new(&shop);
    fs::copy(from.join("ravelin.yaml"), copy.join("ravelin.yaml")).unwrap();
    for file in fs::read_dir(from.join("identities/shop")).unwrap() {
        let file = file.unwrap();
        fs::copy(
            file.path(),
            copy.join("identities/shop").join(file.file_name()),
        )
        .unwrap();
    }
    fs::write(copy.join("policies/recorded.yaml"), yaml).unwrap();
    let copy = copy.display().to_string();
    let (code, out, err) = policy(folder.path(), &["replay", &copy, "--log", &log]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn suggest_ends_with_1_when_something_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop().display().to_string();
    let rows = [
        row("gone", "GET", "/inventory/1", true),
        row("orders", "GET", "/a", true),
    ];
    let log = log(folder.path(), &rows);
    let (code, out, _) = policy(folder.path(), &["suggest", &shop, "--log", &log]);
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("# Left out, 1 calls: the caller is not an identity"),
        "{out}"
    );
    let (_, out, _) = policy(
        folder.path(),
        &["suggest", &shop, "--log", &log, "-o", "json"],
    );
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["left_out"][0]["calls"], json!(1));
}

#[test]
fn coverage_names_untested_rules_with_file_and_line_and_holds_a_minimum() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop().display().to_string();
    let (code, out, _) = policy(folder.path(), &["coverage", &shop]);
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains("coverage ") && out.contains("shop/deny-admin rule 1 (DENY)"),
        "{out}"
    );
    let log = log(
        folder.path(),
        &[row("orders", "GET", "/inventory/42", true)],
    );
    let (code, out, _) = policy(
        folder.path(),
        &[
            "coverage",
            &shop,
            "--log",
            &log,
            "--no-tests",
            "--min",
            "90",
        ],
    );
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains(
            "untested shop/payments-allow-orders rule 1 (ALLOW)  policies/shop/payments.yaml:"
        ),
        "{out}"
    );
    let (_, out, _) = policy(folder.path(), &["coverage", &shop, "-o", "json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert!(json["percent"].as_u64().unwrap() > 50, "{out}");
    assert!(json["rules"][0]["parts"].is_array());
}

#[test]
fn test_writes_junit_and_fails_below_the_minimum() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop().display().to_string();
    let junit = folder.path().join("report.xml");
    let junit = junit.to_str().unwrap();
    let (code, out, _) = policy(
        folder.path(),
        &["test", &shop, "--coverage", "--junit", junit],
    );
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains(" cases, 0 failed") && out.contains("coverage "),
        "{out}"
    );
    let xml = fs::read_to_string(junit).unwrap();
    assert!(
        xml.contains("failures=\"0\"") && xml.contains("<testcase classname=\"shop/"),
        "{xml}"
    );
    let (code, _, _) = policy(
        folder.path(),
        &["test", &shop, "--coverage", "--min", "100"],
    );
    assert_eq!(code, 1);
    assert_eq!(policy(folder.path(), &["test", &shop, "--min", "100"]).0, 2);
    let (_, out, _) = policy(folder.path(), &["test", &shop, "--coverage", "-o", "json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["cases"][0]["passed"], json!(true));
}

/// A folder with one workload and these policies.
fn mesh(folder: &Path, policies: &str) -> String {
    fs::write(
        folder.join("ravelin.yaml"),
        "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec: {trustDomain: td, extensionProviders: [{name: authz, envoyExtAuthzGrpc: {service: 127.0.0.1, port: 9000}}]}\n",
    )
    .unwrap();
    let identity = "apiVersion: ravelin.dev/v1\nkind: WorkloadIdentity\nmetadata: {name: a, namespace: n, labels: {app: a}}\nspec: {selectors: ['launch:name:a']}\n";
    fs::write(folder.join("all.yaml"), format!("{identity}{policies}")).unwrap();
    folder.display().to_string()
}

#[test]
fn explain_takes_everything_that_a_call_has_and_shows_custom_audit_and_dry_run() {
    let folder = tempfile::tempdir().unwrap();
    let header = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n";
    let policies = format!(
        "{header}metadata: {{name: allow, namespace: n, annotations: {{ravelin.dev/not-after: '2030-01-01T00:00:00Z'}}}}
spec:
  rules:
  - when:
    - {{key: connection.sni, values: [a.n]}}
    - {{key: remote.ip, values: [203.0.113.9]}}
    - {{key: destination.ip, values: [10.0.0.1]}}
{header}metadata: {{name: later, namespace: n, annotations: {{istio.io/dry-run: 'true'}}}}
spec: {{action: DENY, rules: [{{}}]}}
{header}metadata: {{name: ask, namespace: n}}
spec: {{action: CUSTOM, provider: {{name: authz}}, rules: [{{to: [{{operation: {{paths: [/asked]}}}}]}}]}}
"
    );
    let mesh = mesh(folder.path(), &policies);
    let whole = [
        "explain",
        &mesh,
        "--from",
        "a",
        "--to",
        "a",
        "--path",
        "/asked",
        "--sni",
        "a.n",
        "--remote-ip",
        "203.0.113.9",
        "--destination-ip",
        "10.0.0.1",
        "--at",
        "2029-01-01T00:00:00Z",
    ];
    let (code, out, err) = policy(folder.path(), &whole);
    assert_eq!(code, 0, "{out}{err}");
    for part in [
        "allow by n/allow rule 1",
        "audited",
        "with the dry-run policies enforced: deny",
        "external authorizer `authz`",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (_, out, _) = policy(folder.path(), &[whole.as_slice(), &["-o", "json"]].concat());
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["custom"]["provider"], json!("authz"));
    assert_eq!(
        json["explanation"]["decision"]["shadow"]["is_allowed"],
        json!(false)
    );

    for changed in [
        ("a.n", "b.n"),
        ("203.0.113.9", "203.0.113.8"),
        ("10.0.0.1", "10.0.0.2"),
    ] {
        let call: Vec<&str> = whole
            .iter()
            .map(|part| if *part == changed.0 { changed.1 } else { part })
            .collect();
        assert_eq!(policy(folder.path(), &call).0, 1, "{changed:?}");
    }
    // Outside of its window no rule of the policy matches, and nothing is opened by that.
    let (in_time, late) = ("2029-01-01T00:00:00Z", "2031-01-01T00:00:00Z");
    let call: Vec<&str> = whole
        .iter()
        .map(|part| if *part == in_time { late } else { part })
        .collect();
    let (code, out, _) = policy(folder.path(), &call);
    assert!(
        code == 1 && out.contains("no attached ALLOW policy holds at this moment"),
        "{out}"
    );
    let (code, out, _) = policy(folder.path(), &["explain", &mesh, "--to", "a"]);
    assert!(code == 1 && out.contains("plaintext_refused"), "{out}");
    assert_eq!(
        policy(
            folder.path(),
            &["explain", &mesh, "--to", "a", "--at", "noon"]
        )
        .0,
        2
    );
}
