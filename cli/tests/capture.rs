//! `ravelin proxy capture` as a person types it: what it prints, and what it says where it cannot work.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

const CONFIG: &str = "name = 'orders'\nagent_socket = '/run/ravelin/agent.sock'\n[capture]\noutbound = true\ninbound = 15006\n[[capture.workload_ports]]\nport = 8080\n";

fn capture(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ravelin"))
        .args(["proxy", "capture", "--config", "proxy.toml"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn folder(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("proxy.toml"), config).unwrap();
    folder
}

/// A program in place of `nft`: keeps what it is given and ends as `script` says.
fn stand_in(folder: &Path, script: &str) {
    let path = folder.join("nft");
    std::fs::write(&path, format!("#!/bin/sh\ncat > given\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_rules_are_printed_and_the_same_rules_are_applied_and_undone() {
    let folder = folder(CONFIG);
    let choices = [
        "--user",
        "990",
        "--exclude-port",
        "8081",
        "--exclude-network",
        "10.9.0.0/16",
    ];
    let printed = capture(folder.path(), &[&["--print"], &choices[..]].concat());
    assert_eq!(printed.status.code(), Some(0), "{}", text(&printed.stderr));
    let rules = text(&printed.stdout);
    for line in [
        "meta skuid { 990 } return",
        "tcp dport { 8081 } return",
        "ip daddr { 10.9.0.0/16 } return",
    ] {
        assert!(rules.contains(line), "{line}: {rules}");
    }
    stand_in(folder.path(), "exit 0");
    let applied = capture(
        folder.path(),
        &[&["--apply", "--nft", "./nft"], &choices[..]].concat(),
    );
    assert_eq!(applied.status.code(), Some(0), "{}", text(&applied.stderr));
    let given = || std::fs::read_to_string(folder.path().join("given")).unwrap();
    assert_eq!(given(), rules);
    let undone = capture(folder.path(), &["--undo", "--nft", "./nft"]);
    assert_eq!(undone.status.code(), Some(0), "{}", text(&undone.stderr));
    assert_eq!(
        given(),
        "table inet ravelin_orders\ndelete table inet ravelin_orders\n"
    );
}

/// Name, configuration, arguments, what the stand-in does, exit code, what is said.
type Row<'a> = (&'a str, &'a str, &'a [&'a str], &'a str, i32, &'a str);

#[test]
fn what_cannot_be_done_is_said_with_its_exit_code_and_what_to_do() {
    let plain = "name = 'orders'\nagent_socket = '/run/ravelin/agent.sock'\n";
    let rows: [Row; 9] = [
        ("no action", CONFIG, &["--user", "990"], "", 2, "--print"),
        (
            "two actions",
            CONFIG,
            &["--print", "--undo"],
            "",
            2,
            "cannot be used with",
        ),
        (
            "nothing to capture",
            plain,
            &["--print", "--user", "990"],
            "",
            2,
            "captures nothing",
        ),
        ("no user", CONFIG, &["--print"], "", 2, "--user"),
        (
            "root",
            CONFIG,
            &["--print", "--user", "root"],
            "",
            2,
            "every program of root",
        ),
        (
            "nobody's name",
            CONFIG,
            &["--print", "--user", "no such"],
            "",
            2,
            "is not a user",
        ),
        (
            "no nft",
            CONFIG,
            &["--apply", "--user", "990", "--nft", "./none"],
            "",
            3,
            "install the package `nftables`",
        ),
        (
            "no privilege",
            CONFIG,
            &["--apply", "--user", "990", "--nft", "./nft"],
            "echo 'netlink: Error: cache initialization failed: Operation not permitted' >&2; exit 1",
            1,
            "CAP_NET_ADMIN",
        ),
        (
            "a kernel without nat",
            CONFIG,
            &["--apply", "--user", "990", "--nft", "./nft"],
            "echo '/dev/stdin:6:3-9: Error: Could not process rule: No such file or directory' >&2; exit 1",
            2,
            "nf_tables",
        ),
    ];
    for (name, config, arguments, script, exit, says) in rows {
        let folder = folder(config);
        stand_in(folder.path(), script);
        let output = capture(folder.path(), arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{name}: {said}");
        assert!(said.contains(says), "{name}: {said}");
    }
}
