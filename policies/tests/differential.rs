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

use ravelin_proto::time::Timestamp;
use reference::case::Expect;
use reference::engine::{Door, Engine};
use reference::generate::{
    ACTIONS, Dice, FIELDS, IDENTITIES, KINDS, TOKENS, call, row, show_tokens,
};
use reference::shrink::shrink;
use reference::{Call, Row, World, judge};
use serde_json::Value;

/// Decisions of an ordinary run.
const DECISIONS: usize = 100_000;
/// Every action, field and kind of match.
const TURNS: usize = ACTIONS.len() * FIELDS.len() * KINDS.len();
/// Every protocol (connections come once for three requests), token and identity.
const CALL_TURNS: usize = 4 * TOKENS.len() * IDENTITIES.len();

/// Threads; the rows of each are the same on every machine.
const WORKERS: usize = 2;
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

/// What one run has seen.
#[derive(Default)]
struct Tally {
    decisions: usize,
    sets: usize,
    allowed: usize,
    paths_refused: usize,
    differences: Vec<String>,
}

impl Tally {
    fn plus(mut self, other: Self) -> Self {
        self.decisions += other.decisions;
        self.sets += other.sets;
        self.allowed += other.allowed;
        self.paths_refused += other.paths_refused;
        self.differences.extend(other.differences);
        self
    }
}

/// Takes every `WORKERS`th turn, from the worker's own seed.
fn run(seed: u64, worker: usize, wanted: usize, calls_each: usize) -> Tally {
    let mut dice = Dice::new(seed.wrapping_add(u64::try_from(worker).unwrap()));
    let mut tally = Tally::default();
    let mut before = None;
    while tally.decisions < wanted && tally.differences.len() < 5 {
        let turn = tally.sets * WORKERS + worker;
        let row = row(&mut dice, turn);
        // Half of the sets come as a change of the one before.
        let previous = before.as_ref().filter(|_| tally.sets % 2 == 1);
        let engine = Engine::load_after(previous, &row).unwrap_or_else(|found| {
            let errors = found.iter().filter(|found| found.is_error);
            let errors: Vec<String> = errors.map(ravelin_policies::Diagnostic::render).collect();
            panic!(
                "seed {seed}, turn {turn} does not load: {}",
                errors.join("\n")
            )
        });
        ask_all(&mut dice, &row, &engine, seed, calls_each, &mut tally);
        before = Some(engine);
        tally.sets += 1;
    }
    tally
}

fn ask_all(
    dice: &mut Dice,
    row: &Row,
    engine: &Engine,
    seed: u64,
    calls_each: usize,
    tally: &mut Tally,
) {
    let config = row.config();
    let start = dice.below(CALL_TURNS);
    for step in 0..calls_each {
        let mut call = call(dice, start + step);
        if !row.tokens.is_empty() && !call.is_tcp() {
            show_tokens(dice, &mut call);
        }
        tally.decisions += 1;
        let door = DOORS[(tally.sets + step) % DOORS.len()];
        let found = sayable(engine.ask_by(door, row, &call));
        if found != judge::ask(row, &row.policies, &config, &call) {
            tally.differences.push(report(row, &call, seed));
            return;
        }
        tally.allowed += usize::from(found.decision.as_deref() == Some("allow"));
        tally.paths_refused += usize::from(found.path_refused.is_some());
        let now = Timestamp::parse_rfc3339(&call.now).unwrap();
        let world = World {
            config: &config,
            documents: &row.policies,
            workload: &row.workload,
        };
        assert_eq!(
            engine.policies.next_change(now),
            judge::next_change(&world, now),
            "seed {seed}, {}: the next change after {}",
            row.id,
            call.now
        );
    }
}

#[test]
fn engine_and_reference_agree_on_every_decision() {
    let wanted = of_environment("RAVELIN_DIFFERENTIAL")
        .map_or(DECISIONS, |count| usize::try_from(count).unwrap());
    let seed = of_environment("RAVELIN_DIFFERENTIAL_SEED").unwrap_or(20_261_121);
    // An ordinary run gives each turn its share of the calls; a long one goes around many times.
    let calls_each = (wanted / TURNS).clamp(1, CALLS_EACH);
    let tally = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| scope.spawn(move || run(seed, worker, wanted / WORKERS, calls_each)))
            .collect();
        let tallies = workers.into_iter().map(|worker| worker.join().unwrap());
        tallies.fold(Tally::default(), Tally::plus)
    });
    println!(
        "{} decisions on {} sets, seed {seed}: {} allowed, {} paths refused, {} differences",
        tally.decisions,
        tally.sets,
        tally.allowed,
        tally.paths_refused,
        tally.differences.len()
    );
    assert!(
        tally.differences.is_empty(),
        "{}",
        tally.differences.join("\n\n")
    );
    assert!(
        tally.sets >= TURNS.min(wanted),
        "{} of {TURNS} turns",
        tally.sets
    );
    assert!(
        tally.allowed > tally.decisions / 20,
        "nothing of worth is asked: {} of {} allowed",
        tally.allowed,
        tally.decisions
    );
}
