//! The real binary: wrong usage, bad input and servers that are not there, each with its exit code and one clear message.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::path::Path;
use std::process::{Command, Output};

/// Runs `ravelin` in an empty folder, so that no running mesh is found.
fn ravelin(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ravelin"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("RAVELIN_SERVER")
        .env_remove("SPIFFE_ENDPOINT_SOCKET")
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_command_has_help_and_its_group_an_example() {
    let folder = tempfile::tempdir().unwrap();
    let commands = [
        "up",
        "ca serve",
        "agent serve",
        "agent show",
        "proxy serve",
        "proxy capture",
        "proxy status",
        "proxy routes",
        "proxy clusters",
        "proxy connections",
        "plan",
        "apply",
        "rollback",
        "policy check",
        "policy schema",
        "policy explain",
        "policy replay",
        "policy test",
        "policy coverage",
        "policy suggest",
        "token create",
        "entry create",
        "entry list",
        "authority activate",
        "rotate",
        "revoke",
        "denylist list",
        "bundle export",
        "svid fetch x509",
        "svid fetch jwt",
        "svid validate",
        "svid mint jwt",
        "audit query",
        "audit verify",
        "explain",
        "launch",
        "completions",
    ];
    for command in commands {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.push("--help");
        let output = ravelin(folder.path(), &arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(text.contains("Example"), "{command}: {text}");
    }
}

#[test]
fn wrong_usage_ends_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let table = [
        "",
        "nothing",
        "rotate",
        "rotate wit",
        "revoke",
        "revoke --serial 1 --jti 2",
        "revoke --serial xyz",
        "svid fetch jwt",
        "entry create --spiffe-id not-an-id --parent-id spiffe://a/b",
        "audit query --since yesterday",
        "audit query --log nothing",
        "entry list -o yaml",
        "entry list --server ftp://nowhere",
        "ca serve --config missing.toml",
        "agent serve --config missing.toml",
        "proxy serve --config missing.toml",
        "up missing-folder",
        "plan missing-folder",
        "policy check missing-folder",
        "policy schema VirtualService",
        "audit verify missing.jsonl",
        "audit verify --store missing.db",
    ];
    for line in table {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = ravelin(folder.path(), &arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "`{line}`: {}",
            stderr(&output)
        );
        assert!(
            !stderr(&output).contains("panicked"),
            "`{line}`: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_server_that_is_not_there_ends_with_exit_code_3_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let table = [
        "entry list --server unix:nobody.sock",
        "status --server unix:nobody.sock",
        "audit verify --server unix:nobody.sock",
        "rotate x509 --server unix:nobody.sock",
        "svid fetch x509 --socket nobody.sock",
        "svid fetch jwt --audience a --socket unix:nobody.sock",
        "explain --pid 1 --admin-socket nobody.sock",
    ];
    for line in table {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = ravelin(folder.path(), &arguments);
        assert_eq!(
            output.status.code(),
            Some(3),
            "`{line}`: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains("help: start"),
            "`{line}`: {}",
            stderr(&output)
        );
    }
}

#[test]
fn completions_and_manual_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, want) in [
        (vec!["completions", "bash"], "_ravelin"),
        (vec!["completions", "zsh"], "#compdef ravelin"),
        (vec!["man"], ".TH ravelin"),
    ] {
        let output = ravelin(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(want), "{arguments:?}");
        assert!(
            !text.contains("gate") || arguments[0] != "man",
            "hidden commands stay hidden"
        );
    }
}

#[test]
fn a_gate_without_its_launcher_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ravelin"))
        .args(["gate", "--", "touch", "made"])
        .current_dir(folder.path())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(!folder.path().join("made").exists());
}
