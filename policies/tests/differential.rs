//! Engine and reference on the same rows, made at random from a seed: no answer may differ.
//!
//! `RAVELIN_DIFFERENTIAL=10000000 cargo test --release -p ravelin-policies --test differential -- --nocapture` is the long run;
//! `RAVELIN_DIFFERENTIAL_SEED` starts it elsewhere.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::wildcard_enum_match_arm,
    clippy::option_option,
    clippy::format_collect,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test, steered by its environment"
)]

mod reference;

use std::env;

use reference::case::Expect;
use reference::engine::{Door, Engine};
use reference::generate::{
    ACTIONS, Dice, FIELDS, IDENTITIES, KINDS, TOKENS, call, row, show_tokens,
};
use reference::shrink::shrink;
use reference::{Call, Row, judge};
use serde_json::Value;

/// Decisions of an ordinary run.
const DECISIONS: usize = 100_000;
/// Every action, field and kind of match.
const TURNS: usize = ACTIONS.len() * FIELDS.len() * KINDS.len();
/// Every protocol (connections come once for three requests), token and identity.
const CALL_TURNS: usize = 4 * TOKENS.len() * IDENTITIES.len();

/// Most calls of one set: more sets say more than more calls.
const CALLS_EACH: usize = 100;

fn of_environment(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

const DOORS: [Door; 3] = [Door::Whole, Door::OnConnection, Door::Explained];

/// What the engine says by one of its doors, and the reference, where they differ.
fn difference(
    row: &Row,
    config: &Value,
    engine: &Engine,
    call: &Call,
    doors: &[Door],
) -> Option<(Expect, Expect)> {
    let wanted = judge::ask(row, &row.policies, config, call);
    let mut found = doors
        .iter()
        .map(|door| sayable(engine.ask_by(*door, row, call)));
    let other = found.find(|found| *found != wanted)?;
    Some((other, wanted))
}

/// Headers made of claims, and the names of a token's faults, are not the reference's matter.
fn sayable(mut found: Expect) -> Expect {
    found.token_headers = None;
    found.token_refused = found
        .token_refused
        .map(|refused| refused.split(' ').next().unwrap_or_default().to_owned());
    found
}

fn report(row: &Row, call: &Call, seed: u64) -> String {
    let is_still = |row: &Row, call: &Call| {
        Engine::load(row)
            .is_ok_and(|engine| difference(row, &row.config(), &engine, call, &DOORS).is_some())
    };
    if !is_still(row, call) {
        return format!(
            "seed {seed}, {}: only as a change of the set before: {}",
            row.id,
            serde_json::to_string(call).unwrap()
        );
    }
    let mut small = shrink(row, call, &is_still);
    let engine = Engine::load(&small).unwrap();
    let config = small.config();
    let (found, wanted) = difference(&small, &config, &engine, &small.calls[0], &DOORS).unwrap();
    small.calls[0].expect = wanted.clone();
    format!(
        "seed {seed}, {}: the engine says\n{}\nthe reference\n{}\nrow:\n{}",
        row.id,
        serde_json::to_string(&found).unwrap(),
        serde_json::to_string(&wanted).unwrap(),
        serde_json::to_string(&small).unwrap()
    )
}

#[test]
fn engine_and_reference_agree_on_every_decision() {
    let wanted = of_environment("RAVELIN_DIFFERENTIAL")
        .map_or(DECISIONS, |count| usize::try_from(count).unwrap());
    let seed = of_environment("RAVELIN_DIFFERENTIAL_SEED").unwrap_or(20_261_121);
    let mut dice = Dice::new(seed);
    // An ordinary run gives each turn its share of the calls; a long one goes around many times.
    let calls_each = (wanted / TURNS).clamp(1, CALLS_EACH);
    let (mut decisions, mut turn, mut differences) = (0, 0, Vec::new());
    let (mut allowed, mut refused, mut before) = (0, 0, None);
    while decisions < wanted && differences.len() < 5 {
        let row = row(&mut dice, turn);
        // Half of the sets come as a change of the one before.
        let engine = match Engine::load_after(before.as_ref().filter(|_| turn % 2 == 1), &row) {
            Ok(engine) => engine,
            Err(found) => {
                let errors: Vec<String> = found
                    .iter()
                    .filter(|found| found.is_error)
                    .map(ravelin_policies::Diagnostic::render)
                    .collect();
                panic!(
                    "seed {seed}, turn {turn} does not load: {}",
                    errors.join("\n")
                );
            }
        };
        let config = row.config();
        let start = dice.below(CALL_TURNS);
        for step in 0..calls_each {
            let mut call = call(&mut dice, start + step);
            if !row.tokens.is_empty() && !call.is_tcp() {
                show_tokens(&mut dice, &mut call);
            }
            decisions += 1;
            let door = DOORS[(turn + step) % DOORS.len()];
            let found = sayable(engine.ask_by(door, &row, &call));
            if found != judge::ask(&row, &row.policies, &config, &call) {
                differences.push(report(&row, &call, seed));
                break;
            }
            allowed += usize::from(found.decision.as_deref() == Some("allow"));
            refused += usize::from(found.path_refused.is_some());
        }
        before = Some(engine);
        turn += 1;
    }
    println!(
        "{decisions} decisions on {turn} sets, seed {seed}: {allowed} allowed, {refused} paths refused, {} differences",
        differences.len()
    );
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    assert!(turn >= TURNS.min(wanted), "{turn} of {TURNS} turns");
    assert!(
        allowed > decisions / 20,
        "nothing of worth is asked: {allowed} of {decisions} allowed"
    );
}
