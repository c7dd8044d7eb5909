//! The fuzz targets on inputs that a seeded mutator makes of examples: the same ones in every run.
//!
//! `RAVELIN_FUZZ_SECS=300 cargo test --release -p ravelin-policies --test fuzz -- --nocapture` goes on for that long a target;
//! `RAVELIN_FUZZ_SEED` starts elsewhere. `policies/fuzz` has the same targets for libFuzzer.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::wildcard_enum_match_arm,
    clippy::option_option,
    clippy::format_collect,
    unreachable_pub,
    reason = "a test, steered by its environment"
)]

mod counting;
mod mutate;
mod reference;

#[path = "../fuzz/targets/compile_then_evaluate.rs"]
mod compile_then_evaluate;

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

use mutate::Mutator;
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Runs `target` on `turns` inputs, or for as long as the environment says. Each takes at most `bytes` and `factor`
/// times its length of memory.
fn fuzz(
    name: &str,
    (turns, bytes): (u64, i64),
    seeds: &[String],
    make: impl Fn(&mut Mutator) -> Vec<u8>,
    target: fn(&[u8]),
) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("RAVELIN_FUZZ_SEED").unwrap_or(20_261_121);
    let end = number("RAVELIN_FUZZ_SECS").map(|secs| Instant::now() + Duration::from_secs(secs));
    assert!(!seeds.is_empty());
    let mut turn = 0;
    // The examples themselves come first.
    while end.map_or(turn < turns, |end| Instant::now() < end) {
        let input = match seeds.get(usize::try_from(turn).unwrap()) {
            Some(seed) => seed.clone().into_bytes(),
            None => make(&mut Mutator::new(seed, turn)),
        };
        let (result, taken) =
            counting::counted(|| catch_unwind(AssertUnwindSafe(|| target(&input))));
        let allowed = bytes + 1_000 * i64::try_from(input.len()).unwrap();
        assert!(
            result.is_ok() && taken.peak <= allowed,
            "{name}, seed {seed}, turn {turn}, {} bytes of memory, {allowed} allowed: {:?}",
            taken.peak,
            String::from_utf8_lossy(&input)
        );
        turn += 1;
    }
    println!("{name}: {turn} inputs, seed {seed}");
}

fn texts_below(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let mut inside: Vec<_> = fs::read_dir(&path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            inside.sort();
            left.extend(inside);
        } else {
            found.extend(fs::read_to_string(&path));
        }
    }
    found
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn any_file_is_loaded_or_refused_with_a_code_and_a_place() {
    let mut seeds = texts_below("examples");
    seeds.push(targets::MESH.to_owned());
    seeds.extend(owned(mutate::YAML));
    let make = |mutator: &mut Mutator| mutator.make(&seeds, mutate::YAML_WORDS);
    fuzz(
        "yaml_loader",
        (1_500, 8 << 20),
        &seeds,
        make,
        targets::yaml_loader::run,
    );
}

#[test]
fn rule_87_to_89_any_target_is_refused_or_normalized_for_good() {
    let seeds = owned(mutate::PATHS);
    let make = |mutator: &mut Mutator| mutator.make(&seeds, mutate::PATH_WORDS);
    fuzz(
        "path_normalizer",
        (20_000, 1 << 20),
        &seeds,
        make,
        targets::path_normalizer::run,
    );
}

#[test]
fn rule_41_to_43_any_template_matches_what_a_naive_matcher_does() {
    let seeds = owned(mutate::TEMPLATES);
    let make = |mutator: &mut Mutator| mutator.make(&seeds, mutate::TEMPLATE_WORDS);
    fuzz(
        "template_matcher",
        (1_500, 4 << 20),
        &seeds,
        make,
        targets::template_matcher::run,
    );
}

#[test]
fn rule_71_any_token_is_refused_or_says_what_was_accepted() {
    let seeds = owned(mutate::TOKENS);
    let make = |mutator: &mut Mutator| mutator.make(&seeds, mutate::TOKEN_WORDS);
    fuzz(
        "token_parser",
        (8_000, 1 << 20),
        &seeds,
        make,
        targets::token_parser::run,
    );
}

#[test]
fn threat_58_any_row_is_judged_by_the_engine_as_by_the_reference() {
    let rows: Vec<Value> = texts_below("corpus")
        .iter()
        .filter_map(|text| serde_json::from_str::<Vec<Value>>(text).ok())
        .flatten()
        .collect();
    let seeds: Vec<String> = rows.iter().map(Value::to_string).collect();
    let make = |mutator: &mut Mutator| mutator.make_row(&rows, mutate::ROW_WORDS);
    fuzz(
        "compile_then_evaluate",
        (3_000, 16 << 20),
        &seeds,
        make,
        compile_then_evaluate::run,
    );
}
