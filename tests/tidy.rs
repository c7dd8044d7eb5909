//! The rules of the house that a program can check, one test a rule.
//!
//! Each failure names file and line. A rule that is in the way is changed here, with its reason.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ravelin_tests::workspace_root;

const PARTS: [&str; 8] = [
    "proto", "runtime", "policies", "ca", "agent", "proxy", "cli", "tests",
];

/// Every tracked Rust file: path below the root, text.
fn sources() -> Vec<(String, String)> {
    let root = workspace_root();
    let mut files = Vec::new();
    for part in PARTS {
        collect(&root.join(part), &mut files);
    }
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            (name, text)
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("node_modules") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

fn is_test_file(name: &str) -> bool {
    name.starts_with("tests/")
        || name.contains("/tests/")
        || name.ends_with("/tests.rs")
        || name.ends_with("_tests.rs")
        || name.contains("/benches/")
}

/// The text before the first test module: what the size and content rules speak of.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]").next().unwrap_or(text)
}

fn refuse(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

/// Lines of non-test code that hold one of `needles`, outside of the files that `excepted` names.
fn lines_with(needles: &[&str], excepted: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in sources() {
        if is_test_file(&name) || excepted.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        for (number, line) in without_tests(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            if needles.iter().any(|needle| code.contains(needle)) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn every_file_begins_with_what_it_is_in_at_most_ten_lines() {
    let mut found = Vec::new();
    for (name, text) in sources() {
        let header = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .count();
        if !(1..=10).contains(&header) {
            found.push(format!("{name}: {header} header lines"));
        }
    }
    refuse("a file begins with one to ten `//!` lines", &found);
}

#[test]
fn no_file_has_more_than_500_lines_without_its_tests() {
    let mut found = Vec::new();
    for (name, text) in sources() {
        let lines = without_tests(&text).lines().count();
        if lines > 500 && !is_test_file(&name) {
            found.push(format!("{name}: {lines} lines"));
        }
    }
    refuse("a file is small enough to hold", &found);
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    const NOTHING: [&str; 8] = [
        "utils", "util", "common", "helpers", "types", "misc", "manager", "service",
    ];
    let mut found = Vec::new();
    for (name, _) in sources() {
        let is_empty_name = Path::new(&name)
            .with_extension("")
            .components()
            .any(|part| NOTHING.iter().any(|word| part.as_os_str() == *word));
        if is_empty_name {
            found.push(name);
        }
    }
    refuse("a module is named for what it does", &found);
}

#[test]
fn imports_go_down() {
    let allowed: [(&str, &[&str]); 6] = [
        ("proto", &[]),
        ("policies", &["proto"]),
        ("runtime", &["proto"]),
        ("ca", &["proto", "policies", "runtime"]),
        ("agent", &["proto", "policies", "runtime"]),
        ("proxy", &["proto", "policies", "runtime"]),
    ];
    let mut found = Vec::new();
    for (part, below) in allowed {
        let manifest = fs::read_to_string(workspace_root().join(part).join("Cargo.toml")).unwrap();
        for other in PARTS {
            let names_it = manifest.contains(&format!("ravelin-{other}.workspace"))
                || manifest.contains(&format!("ravelin-{other} ="));
            if names_it && !below.contains(&other) {
                found.push(format!("{part} imports {other}"));
            }
        }
    }
    refuse(
        "proto <- policies, runtime <- ca, agent, proxy <- cli, tests",
        &found,
    );
}

#[test]
fn proto_and_policies_are_pure() {
    let needles = [
        "tokio",
        "std::fs",
        "std::net::Tcp",
        "SystemTime",
        "Instant",
        "std::env",
        "rand::",
        "println!",
        "tracing::",
    ];
    let others: Vec<String> = PARTS
        .iter()
        .filter(|part| !["proto", "policies"].contains(part))
        .map(|part| format!("{part}/"))
        .chain(["proto/build.rs".to_owned(), "policies/benches".to_owned()])
        .collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    refuse(
        "no runtime, file, clock or entropy in proto and policies",
        &lines_with(&needles, &others),
    );
}

#[test]
fn each_big_dependency_has_one_front_door() {
    let doors: [(&[&str], &[&str]); 4] = [
        (
            &[
                "aws_lc_rs::",
                "aws_lc_rs as",
                "use ring",
                " ring::",
                "(ring::",
            ],
            &["runtime/src/crypto"],
        ),
        (&["sqlx::", "use sqlx"], &["ca/src/store"]),
        (&["serde_saphyr"], &["policies/src/document"]),
        (&["spiffe::", "use spiffe"], &["tests/"]),
    ];
    for (needles, excepted) in doors {
        let found: Vec<String> = lines_with(needles, excepted)
            .into_iter()
            .filter(|line| !line.contains("_spiffe::"))
            .collect();
        refuse(
            &format!("{needles:?} is touched in {excepted:?} alone"),
            &found,
        );
    }
}

#[test]
fn unsafe_code_stands_in_one_module_alone() {
    let found = lines_with(&["unsafe "], &["runtime/src/peer_pidfd.rs"]);
    refuse(
        "unsafe code is forbidden outside of runtime/src/peer_pidfd.rs",
        &found,
    );
}

#[test]
fn sql_lives_in_the_store_alone() {
    let needles = ["\"SELECT ", "\"INSERT ", "\"UPDATE ", "\"DELETE FROM"];
    refuse(
        "SQL lives in ca/src/store",
        &lines_with(&needles, &["ca/src/store"]),
    );
}

#[test]
fn time_is_an_argument() {
    let found = lines_with(
        &["SystemTime::now", "OffsetDateTime::now"],
        &["runtime/src/clock.rs"],
    );
    refuse("the clock is read in runtime/src/clock.rs", &found);
}

#[test]
fn no_test_sleeps() {
    let mut found = Vec::new();
    for (name, text) in sources() {
        let is_for_a_person = name.starts_with("tests/bench/") || name.starts_with("tests/soak/");
        if name == "tests/tidy.rs" || is_for_a_person {
            continue;
        }
        let tests = if is_test_file(&name) {
            text.as_str()
        } else {
            text.split_once("\n#[cfg(test)]")
                .map_or("", |(_, tests)| tests)
        };
        for line in tests.lines() {
            if line.contains("thread::sleep(") || line.contains("time::sleep(") {
                found.push(format!("{name}: {}", line.trim()));
            }
        }
    }
    refuse(
        "a test waits for what it needs, never for time to pass",
        &found,
    );
}

#[test]
fn nothing_is_unfinished_in_disguise() {
    let needles = [
        "todo!(",
        "unimplemented!(",
        "FIXME",
        "XXX",
        "in a real system",
    ];
    refuse(
        "what is missing is absent and refused by name",
        &lines_with(&needles, &["tests/tidy.rs"]),
    );
}

#[test]
fn every_part_names_its_limits_in_one_file() {
    let found: Vec<String> = ["runtime", "policies", "ca", "agent", "proxy"]
        .iter()
        .map(|part| format!("{part}/src/limits.rs"))
        .filter(|path| !workspace_root().join(path).is_file())
        .collect();
    refuse("a bound lives in PART/src/limits.rs", &found);
}

/// Words of the README and of the threat table that look like test names are tests.
#[test]
fn documents_name_tests_that_exist() {
    let all: String = sources().into_iter().map(|(_, text)| text).collect();
    let mut found = Vec::new();
    for document in ["README.md", "SECURITY.md", "tests/threats.md"] {
        let text = fs::read_to_string(workspace_root().join(document)).unwrap();
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            let looks_like_test =
                word.matches('_').count() >= 3 && word.chars().all(|c| !c.is_ascii_uppercase());
            if looks_like_test && !all.contains(&format!("fn {word}")) && !all.contains(word) {
                found.push(format!("{document}: `{word}`"));
            }
        }
    }
    refuse("a document names tests that exist", &found);
}

#[test]
fn the_table_of_threats_has_each_number_once() {
    let table = fs::read_to_string(workspace_root().join("tests/threats.md")).unwrap();
    let numbers: Vec<u32> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok())
        .collect();
    let wanted: Vec<u32> = (1..=70).collect();
    assert_eq!(numbers, wanted, "tests/threats.md");
}

#[test]
fn threat_68_no_banned_crate_and_no_unknown_licence() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--filter-platform",
        ])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .current_dir(workspace_root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let banned = [
        "openssl",
        "openssl-sys",
        "native-tls",
        "serde_yaml",
        "rsa",
        "chrono",
        "protobuf",
    ];
    let licences: BTreeSet<&str> = [
        "MIT",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Zlib",
        "0BSD",
        "Unicode-3.0",
        "MPL-2.0",
        "CC0-1.0",
        "Unlicense",
        "OpenSSL",
        "BSL-1.0",
        "CDLA-Permissive-2.0",
        "MIT-0",
    ]
    .into();
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if banned.contains(&name) {
            found.push(format!("`{name}` is banned"));
        }
        let licence = package["license"].as_str().unwrap_or("none");
        let is_known = licence
            .split(" OR ")
            .flat_map(|choice| choice.split('/'))
            .any(|choice| {
                choice.split(" AND ").all(|one| {
                    licences.contains(
                        one.trim_matches(['(', ')', ' '].as_slice())
                            .split(" WITH ")
                            .next()
                            .unwrap(),
                    )
                })
            });
        if !is_known {
            found.push(format!("`{name}` has the licence `{licence}`"));
        }
    }
    refuse("every dependency is allowed", &found);
}
