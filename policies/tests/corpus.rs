//! The rows of `policies/corpus`: each by the engine, and by the reference where nothing is refused on loading.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::wildcard_enum_match_arm,
    clippy::option_option,
    clippy::format_collect,
    unreachable_pub,
    reason = "tables of a test"
)]

mod reference;

use std::collections::BTreeSet;
use std::path::Path;

use reference::case::Expect;
use reference::engine::Engine;
use reference::{Row, World, judge, peer};
use serde_json::{Map, Value};

fn rows() -> Vec<Row> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    paths.sort();
    let mut rows = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let read: Vec<Row> = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        rows.extend(read);
    }
    rows
}

/// Each field that is expected and is not so.
fn unmet(expected: &Expect, found: &Expect) -> Vec<String> {
    let fields = |expect: &Expect| -> Map<String, Value> {
        serde_json::to_value(expect)
            .unwrap()
            .as_object()
            .unwrap()
            .clone()
    };
    let found = fields(found);
    fields(expected)
        .into_iter()
        .filter(|(name, value)| found.get(name) != Some(value))
        .map(|(name, value)| {
            format!(
                "{name}: expected {value}, found {}",
                found.get(&name).unwrap_or(&Value::Null)
            )
        })
        .collect()
}

/// What the reference cannot say is left out: codes of token refusals, and headers made of claims.
fn sayable(expected: &Expect) -> Expect {
    let mut expected = expected.clone();
    expected.token_headers = None;
    expected.token_refused = expected
        .token_refused
        .map(|refused| refused.split(' ').next().unwrap_or_default().to_owned());
    expected
}

fn check(row: &Row, failures: &mut Vec<String>) {
    let mut fail = |what: String| failures.push(format!("{}: {what}", row.id));
    let engine = match (Engine::load(row), &row.refused) {
        (Ok(engine), None) => engine,
        (Ok(_), Some(code)) => return fail(format!("loads, but should be refused: {code}")),
        (Err(found), None) => return fail(format!("does not load: {found}")),
        (Err(found), Some(code)) => {
            let first = found
                .iter()
                .find(|found| found.is_error)
                .map_or("", |found| found.code);
            if first != code {
                fail(format!("refused with {first} instead of {code}"));
            }
            return;
        }
    };
    let warnings = engine.warnings(row);
    for wanted in &row.warnings {
        if !warnings.contains(&wanted.as_str()) {
            fail(format!("no warning {wanted}, but {warnings:?}"));
        }
    }
    let (documents, config) = (row.documents(), row.config());
    for (port, mode) in &row.peer_modes {
        let world = World {
            config: &config,
            documents: &documents,
            workload: &row.workload,
        };
        let port = port.parse().unwrap();
        for (who, found) in [
            ("engine", engine.mode(port).to_owned()),
            ("reference", peer::mode(&world, port)),
        ] {
            if found != *mode {
                fail(format!(
                    "{who}: the mode of port {port} is {found} instead of {mode}"
                ));
            }
        }
    }
    for (index, call) in row.calls.iter().enumerate() {
        let place = if call.name.is_empty() {
            format!("call {}", index + 1)
        } else {
            call.name.clone()
        };
        let found = engine.ask(row, call);
        let unmet_here = unmet(&call.expect, &found);
        if !unmet_here.is_empty() {
            fail(format!("{place}: engine: {}", unmet_here.join("; ")));
        }
        let found = judge::ask(row, &documents, &config, call);
        let unmet_here = unmet(&sayable(&call.expect), &found);
        if !unmet_here.is_empty() {
            fail(format!("{place}: reference: {}", unmet_here.join("; ")));
        }
    }
}

#[test]
fn every_row_of_the_corpus_is_as_expected_by_engine_and_reference() {
    let mut failures = Vec::new();
    for row in rows() {
        check(&row, &mut failures);
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn every_numbered_rule_and_every_advisory_has_a_row() {
    let rows = rows();
    let known: Vec<String> = (1..=91)
        .map(|rule| rule.to_string())
        .chain((1..=20).map(|advisory| format!("A{advisory}")))
        .collect();
    let held: BTreeSet<&String> = rows.iter().flat_map(|row| &row.rules).collect();
    let missing: Vec<&String> = known.iter().filter(|rule| !held.contains(rule)).collect();
    assert!(missing.is_empty(), "no row holds {missing:?}");
    let unknown: Vec<&&String> = held.iter().filter(|rule| !known.contains(rule)).collect();
    assert!(unknown.is_empty(), "there is no rule {unknown:?}");
    let mut ids = BTreeSet::new();
    for row in &rows {
        assert!(ids.insert(&row.id), "two rows are called {}", row.id);
        assert!(
            row.refused.is_some()
                || !row.warnings.is_empty()
                || !row.calls.is_empty()
                || !row.peer_modes.is_empty(),
            "{} expects nothing",
            row.id
        );
        for call in &row.calls {
            assert_ne!(
                call.expect,
                Expect::default(),
                "{} expects nothing of a call",
                row.id
            );
        }
    }
}
