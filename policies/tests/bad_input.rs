//! Files that are made to hurt: each is refused by name, at its place, within bounded memory.
//!
//! Time is bounded through the counted limits of `limits.rs`; no clock is looked at. An engine that has nothing denies.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::format_collect,
    clippy::result_large_err,
    unreachable_pub,
    reason = "tables of a test"
)]

mod counting;
mod support;

use counting::counted;
use ravelin_policies::*;
use support::*;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const MIB: i64 = 1024 * 1024;

/// Of the errors of a mesh folder with this file the one with that code, else the first: code, line, column; and the
/// memory that it took.
fn error_in(content: &str, wanted: &str) -> (&'static str, u32, u32, i64) {
    let files = vec![
        file("ravelin.yaml", CONFIG),
        file("identities/all.yaml", IDENTITIES),
        file("policies/all.yaml", content),
    ];
    let (found, taken) = counted(|| load(&files));
    let Err(found) = found else {
        return ("", 0, 0, taken.peak);
    };
    let mut errors = found.iter().filter(|found| found.is_error);
    let first = errors
        .clone()
        .find(|found| found.code == wanted)
        .or_else(|| errors.next())
        .unwrap();
    if first.line > 0 {
        assert_eq!(first.path, "policies/all.yaml");
        assert!(first.snippet.contains('^'), "no caret: {}", first.render());
    }
    (first.code, first.line, first.column, taken.peak)
}

/// Rules that are well made, `count` of them in one policy.
fn rules(count: usize) -> String {
    policy("p", &format!("rules:\n{}", "- {}\n".repeat(count)))
}

#[test]
fn threat_57_61_62_yaml_that_is_cyclic_huge_or_deep_is_refused_at_its_place_in_bounded_memory() {
    let laughs: String = (1..=9)
        .map(|n| {
            format!(
                "l{n}: &l{n} [{}]\n",
                vec![format!("*l{}", n - 1); 10].join(", ")
            )
        })
        .collect();
    let laughs = format!("l0: &l0 lol\n{laughs}");
    let long_laughs = format!(
        "a: &a '{}'\nb: [{}]\n",
        "x".repeat(200_000),
        ["*a"; 100].join(", ")
    );
    let deep_flow = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_maps = format!("a: {}1{}", "{b: ".repeat(10_000), "}".repeat(10_000));
    let deep_blocks: String = (0..1_300)
        .map(|n| format!("{}a:\n", " ".repeat(n)))
        .collect();
    let deep_dashes = format!("a:\n {}x\n", "- ".repeat(10_000));
    let deep_anchors = format!("a: {}x{}", "&a [".repeat(10_000), "]".repeat(10_000));
    let documents = "--- {}\n".repeat(100_000);
    let empty_documents = "---\n".repeat(200_000);
    let keys: String = (0..100_000).map(|n| format!("k{n}: 1\n")).collect();
    let same_keys = "a: 1\n".repeat(150_000);
    let faults = format!("a: [{}]", "!!x 1, ".repeat(50_000));
    let scalar = format!("a: {}", "x".repeat(900_000));
    let quoted = format!("a: '{}'", "x".repeat(900_000));
    let folded = format!("a: >\n{}", " x\n".repeat(200_000));
    let open_quote = format!("a: '{}", "x\n\n ".repeat(200_000));
    let key = format!("{}: 1", "k".repeat(300_000));
    let comments = "# x\n".repeat(200_000);
    let rows: Vec<(&str, &str, &str, u32)> = vec![
        ("billion laughs", &laughs, "too-many-nodes", 7),
        ("laughs of bytes", &long_laughs, "too-many-aliases", 2),
        ("cyclic list", "a: &x [1, *x]\n", "yaml-alias", 1),
        (
            "cyclic mapping",
            "a: &x\n  b:\n    c: *x\n",
            "yaml-alias",
            3,
        ),
        ("unknown alias", "a: 1\nb: *x\n", "yaml", 2),
        ("10,000 lists", &deep_flow, "yaml", 1),
        ("10,000 mappings", &deep_maps, "too-deep", 1),
        ("blocks", &deep_blocks, "yaml", 33),
        ("10,000 dashes", &deep_dashes, "yaml", 2),
        ("anchors in depth", &deep_anchors, "yaml", 1),
        ("documents", &documents, "too-many-documents", 1001),
        ("empty documents", &empty_documents, "", 0),
        ("keys", &keys, "too-many-nodes", 100_000),
        ("one key many times", &same_keys, "duplicate-key", 2),
        ("faults without end", &faults, "yaml-tag", 1),
        ("long scalar", &scalar, "value-too-long", 1),
        ("long quoted scalar", &quoted, "value-too-long", 1),
        ("long folded scalar", &folded, "value-too-long", 2),
        ("a quote that never ends", &open_quote, "yaml", 1),
        ("long key", &key, "value-too-long", 1),
        ("nothing but comments", &comments, "", 0),
        ("merge key", "a: &x {b: 1}\nc:\n  <<: *x\n", "yaml-merge", 3),
        ("tag", "a: !!python/object:os.system x\n", "yaml-tag", 1),
        ("directive", "%TAG ! tag:x,2000:\n---\na: 1\n", "yaml", 1),
        ("key that is a list", "? [a]\n: 1\n", "yaml-key", 1),
        ("tab", "a:\n\t- b\n", "yaml", 2),
    ];
    let mut failed = Vec::new();
    for (name, content, code, line) in rows {
        let (found, at, column, peak) = error_in(content, code);
        if (found, at) != (code, line) || (line > 0 && column == 0) || peak > 64 * MIB {
            failed.push(format!(
                "{name}: {found} at {at}:{column}, {} KiB, wants {code} at {line}",
                peak / 1024
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn threat_57_62_sizes_beyond_the_limits_are_refused_before_they_are_read() {
    let million = rules(1_000_000);
    let hundred = vec![b'x'; 100 * 1024 * 1024];
    let (refused, taken) = counted(|| SourceFile::from_bytes("policies/all.yaml", &hundred));
    assert_eq!(refused.unwrap_err().code, "file-too-large");
    assert!(taken.peak < MIB, "{}", taken.peak);
    for (name, content) in [
        ("a million rules", million),
        ("100 MB", String::from_utf8(hundred).unwrap()),
    ] {
        let (code, _, _, peak) = error_in(&content, "file-too-large");
        assert_eq!(code, "file-too-large", "{name}");
        assert!(peak < MIB, "{name}: {peak}");
    }
    // As many rules as fit a file are one policy of too many.
    let (code, line, _, peak) = error_in(&rules(140_000), "too-many");
    assert_eq!((code, line > 0), ("too-many", true));
    assert!(peak < 256 * MIB, "{peak}");
    // And in many files: the set has an end as well, and what was refused is not kept.
    let list = format!("a: [{}]\n", "1,".repeat(limits::NODES_MAX - 10));
    let count = limits::SET_NODES_MAX / limits::NODES_MAX + 2;
    let many: Vec<SourceFile> = (10..10 + count)
        .map(|n| file(&format!("policies/{n}.yaml"), &list))
        .collect();
    let (found, taken) = counted(|| load(&many));
    let found = found.unwrap_err();
    let beyond: Vec<&str> = found
        .iter()
        .filter(|found| found.code == "too-many-nodes")
        .map(|found| found.path.as_str())
        .collect();
    assert_eq!(beyond, ["policies/30.yaml", "policies/31.yaml"]);
    assert!(taken.peak < 64 * MIB, "{} MiB", taken.peak / MIB);
    let too_many: Vec<SourceFile> = (0..=limits::FILES_MAX)
        .map(|n| file(&format!("{n}.yaml"), ""))
        .collect();
    assert_eq!(load(&too_many).unwrap_err().0[0].code, "set-too-large");
    let too_long: Vec<SourceFile> = (0..65)
        .map(|n| file(&format!("{n}.yaml"), &" ".repeat(limits::FILE_BYTES_MAX)))
        .collect();
    assert_eq!(load(&too_long).unwrap_err().0[0].code, "set-too-large");
}

#[test]
fn threat_57_bytes_that_are_no_text_are_refused_at_their_place() {
    for (name, bytes, want) in [
        (
            "invalid UTF-8",
            &b"a: 1\nb: \xc3\x28\n"[..],
            Some(("not-utf8", 2, 4)),
        ),
        (
            "half a character at the end",
            b"a: \xe2\x82",
            Some(("not-utf8", 1, 4)),
        ),
        ("overlong", b"a: \xc0\xaf", Some(("not-utf8", 1, 4))),
        ("a surrogate", b"a: \xed\xa0\x80", Some(("not-utf8", 1, 4))),
        ("UTF-16", b"\xff\xfea\0:\0", Some(("not-utf8", 1, 1))),
        ("NUL", b"a: 1\nb: x\0y\n", Some(("not-text", 2, 5))),
        ("BOM", b"\xef\xbb\xbfa: 1\n", None),
        ("CRLF", b"a: 1\r\nb: 2\r\n", None),
    ] {
        let found = SourceFile::from_bytes("policies/all.yaml", bytes);
        let found = found
            .err()
            .map(|found| (found.code, found.line, found.column));
        assert_eq!(found, want, "{name}");
    }
}

#[test]
fn a_byte_order_mark_and_carriage_returns_change_nothing() {
    let plain = policy("a", "rules:\n- to:\n  - operation:\n      paths: ['/a']");
    let plain = plain.trim_start().trim_start_matches("---\n");
    let wanted = load(&files(plain)).unwrap().authorization_policies;
    assert_eq!(wanted.len(), 1);
    for (name, text) in [
        ("BOM", format!("\u{feff}{plain}")),
        ("CRLF", plain.replace('\n', "\r\n")),
        ("both", format!("\u{feff}{}", plain.replace('\n', "\r\n"))),
    ] {
        match load(&files(&text)) {
            Ok(set) => assert_eq!(set.authorization_policies, wanted, "{name}"),
            Err(found) => panic!("{name}: {found}"),
        }
    }
    // And a place behind them is the one that an editor shows.
    let broken = plain.replace("paths", "pahts").replace('\n', "\r\n");
    let (code, line, column, _) = error_in(&broken, "unknown-field");
    assert_eq!((code, line, column), ("unknown-field", 8, 9));
}

#[test]
fn threat_58_what_is_misspelt_or_malformed_is_refused_with_code_place_and_caret() {
    let rule = |text: &str| policy("p", &format!("rules:\n- {text}"));
    let annotated = |name: &str, value: &str| {
        policy("p", "rules: [{}]").replace(
            "namespace: shop}",
            &format!("namespace: shop, annotations: {{{name}: '{value}'}}}}"),
        )
    };
    let rows: Vec<(&str, String, &str)> = vec![
        (
            "unknown field of the spec",
            policy("p", "acton: DENY"),
            "unknown-field",
        ),
        (
            "unknown field of a rule",
            rule("form: [{source: {principals: [a]}}]"),
            "unknown-field",
        ),
        (
            "unknown field of a source",
            rule("from: [{source: {principal: [a]}}]"),
            "unknown-field",
        ),
        (
            "unknown action",
            policy("p", "action: BLOCK\nrules: [{}]"),
            "bad-value",
        ),
        (
            "action in lower case",
            policy("p", "action: deny\nrules: [{}]"),
            "bad-value",
        ),
        (
            "unknown key",
            rule("when: [{key: request.body, values: [a]}]"),
            "unknown-key",
        ),
        (
            "bad CIDR",
            rule("from: [{source: {ipBlocks: [10.0.0.0/33]}}]"),
            "bad-value",
        ),
        (
            "bad address",
            rule("from: [{source: {ipBlocks: [10.0.0]}}]"),
            "bad-value",
        ),
        (
            "bad address of IPv6",
            rule("from: [{source: {ipBlocks: ['::g/64']}}]"),
            "bad-value",
        ),
        (
            "bad port",
            rule("to: [{operation: {ports: ['65536']}}]"),
            "bad-number",
        ),
        (
            "template",
            rule("to: [{operation: {paths: ['/a/{*}b']}}]"),
            "bad-value",
        ),
        (
            "two rests",
            rule("to: [{operation: {paths: ['/{**}/{**}']}}]"),
            "bad-value",
        ),
        ("empty list", rule("from: []"), "empty-list"),
        ("text for a list", rule("from: x"), "wrong-type"),
        (
            "list for a text",
            policy("p", "action: [DENY]\nrules: [{}]"),
            "wrong-type",
        ),
        (
            "dry run",
            annotated("istio.io/dry-run", "perhaps"),
            "bad-value",
        ),
        (
            "time",
            annotated("ravelin.dev/not-before", "tomorrow"),
            "bad-time",
        ),
        (
            "no such day",
            annotated("ravelin.dev/not-after", "2026-02-30T00:00:00Z"),
            "bad-time",
        ),
        (
            "annotation of ours",
            annotated("ravelin.dev/al-of", "request.auth.claims[a]"),
            "unknown-annotation",
        ),
        (
            "kind",
            policy("p", "{}").replace("AuthorizationPolicy", "AuthorisationPolicy"),
            "unknown-kind",
        ),
        (
            "version",
            policy("p", "{}").replace("istio.io/v1", "istio.io/v9"),
            "bad-api-version",
        ),
        (
            "no name",
            policy("p", "{}").replace("name: p, ", ""),
            "missing-field",
        ),
    ];
    let mut failed = Vec::new();
    for (name, content, code) in rows {
        let (found, line, column, _) = error_in(&content, code);
        if found != code || line == 0 || column == 0 {
            failed.push(format!(
                "{name}: `{found}` at {line}:{column}, wants `{code}`"
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn an_engine_that_has_nothing_to_judge_by_denies() {
    // One error, and there is no set at all: nothing is compiled, and the proxy keeps its last good one or refuses.
    assert!(
        load(&files(
            &(policy("good", "rules: [{}]") + &policy("bad", "rules: [{form: []}]"))
        ))
        .is_err()
    );
    // Nothing attached is a No (we differ from rule 2), as is an ALLOW that never matches (rule 11).
    for (name, policies) in [
        ("nothing", String::new()),
        (
            "another workload's",
            policy("a", "selector: {matchLabels: {app: orders}}\nrules: [{}]"),
        ),
        ("audit alone", policy("a", "action: AUDIT\nrules: [{}]")),
        (
            "dry run alone",
            policy("a", "rules: [{}]").replace(
                "namespace: shop}",
                "namespace: shop, annotations: {istio.io/dry-run: 'true'}}",
            ),
        ),
        ("an ALLOW without rules", policy("a", "{}")),
        (
            "a window that is over",
            policy("a", "rules: [{}]").replace(
                "namespace: shop}",
                "namespace: shop, annotations: {ravelin.dev/not-after: '2001-01-01T00:00:00Z'}}",
            ),
        ),
    ] {
        let compiled = compile(&policies);
        let call = Call::default();
        assert!(!call.http(&compiled).is_allowed, "{name}");
        assert!(!call.tcp(&compiled).is_allowed, "{name}, bare connection");
    }
    // What cannot be a path is not judged at all, and policies of another trust domain are not compiled.
    let compiled = compile(&policy("a", "rules: [{}]"));
    for target in ["", "x", "/%", "/%00", "/a b", "http://a/b"] {
        assert!(compiled.normalize(target).is_err(), "{target:?}");
    }
    let set = set("");
    let foreign =
        ravelin_proto::spiffe_id::SpiffeId::parse("spiffe://other.example/ns/shop/sa/payments")
            .unwrap();
    assert!(WorkloadPolicies::compile(&set, &set.workload(&foreign), 1).is_err());
}

#[test]
fn threat_61_matching_is_linear_in_the_text_and_allocates_nothing() {
    // What hangs a backtracking matcher: repeated parts before a text that does not end as the pattern does.
    let policies = compile(&policy(
        "a",
        "rules:\n- to:\n  - operation:\n      paths: ['/{*}/{*}/{*}/{*}/{*}/{*}/{*}/{*}/{**}/a/a/a/a/b', '*aaaaaaaaaaaaaaaab', '/aaaaaaaa*']",
    ));
    let paths = [
        "/a".repeat(30_000),
        format!("/{}", "a".repeat(60_000)),
        format!("/b{}", "/a".repeat(30_000)),
    ];
    for path in paths {
        let normalized = policies.normalize(&path).unwrap();
        let connection = Call::default().connection();
        let call = HttpCall {
            connection: &connection,
            method: "GET",
            host: "payments",
            path: &normalized,
            headers: &Vec::new(),
            identity: &RequestIdentity::default(),
            now: NOW,
        };
        let (decision, taken) = counted(|| policies.authorize_http(&call));
        assert_eq!(
            decision.is_allowed,
            path.starts_with("/aaaaaaaa"),
            "{}",
            &path[..20]
        );
        assert_eq!(taken.allocations, 0, "{}", &path[..20]);
    }
}
