//! `ravelin policy coverage`: which rules and clauses the folder's tests, or a recorded log, exercised.

use crate::arguments::Shared;
use crate::config;
use crate::decision_log;
use crate::exit::{Exit, Failure, Outcome};
use crate::mesh_folder;
use crate::output::{Format, Rows, escape_text, print_one};
use clap::Args;
use ravelin_policies::{Coverage, CoverageRun, LogLine, PartCoverage, RuleCoverage};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Of which folder, by what.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin policy coverage policies/examples/shop
  ravelin policy coverage --min 90 -o json
  ravelin policy coverage --log week.jsonl --no-tests      which rules real calls use
A rule is exercised when it matched a call; a clause, and one of several entries of `from` or `to`, when it was seen true
and seen false; one of several values when it matched. A record tells nothing of headers, query and most claims.
Exit code 1: below --min.")]
pub(crate) struct CoverageArguments {
    /// The mesh folder; default: the current one, else policies/examples/shop
    mesh: Option<PathBuf>,
    /// Also by the calls of this log, `ravelin audit query --log decision -o jsonl`; `-` for stdin
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// By the log alone
    #[arg(long, requires = "log")]
    no_tests: bool,
    /// Exit with 1 below so many percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(0..=100))]
    min: Option<u64>,
}

/// Measures.
pub(crate) fn run(arguments: CoverageArguments, shared: &Shared) -> Outcome {
    let mesh = mesh_folder::load_offline(&config::mesh_folder(arguments.mesh.as_deref()))?;
    let mut run = CoverageRun::new(&mesh);
    if !arguments.no_tests {
        run.add_tests();
    }
    let read = match &arguments.log {
        None => decision_log::LogRead::default(),
        Some(log) => decision_log::read(log, &mut |line| {
            if let LogLine::Call(call) = line {
                run.add_call(&call);
            }
        })?,
    };
    let coverage = run.finish();
    match shared.output {
        Format::Table => print_table(&coverage)?,
        Format::Json => {
            print_one(to_json(&coverage), Format::Json)?;
        }
        Format::Jsonl | Format::Csv => {
            rows(&coverage).print(shared.output)?;
        }
    }
    read.check()?;
    Ok(exit(&coverage, arguments.min))
}

/// No below the minimum.
pub(crate) fn exit(coverage: &Coverage, min: Option<u64>) -> Exit {
    if min.is_some_and(|min| coverage.percent() < min) {
        Exit::No
    } else {
        Exit::Yes
    }
}

/// Everything, with the sums.
pub(crate) fn to_json(coverage: &Coverage) -> Value {
    let (met, goals) = coverage.goals();
    json!({
        "percent": coverage.percent(),
        "met": met,
        "goals": goals,
        "calls": coverage.calls,
        "rules": coverage.rules,
        "untested": coverage.untested().map(|rule| rule.location.to_string()).collect::<Vec<_>>(),
    })
}

fn rows(coverage: &Coverage) -> Rows {
    let mut rows = Rows::new(&[
        "policy", "rule", "effect", "matched", "decided", "lacks", "location",
    ]);
    for rule in &coverage.rules {
        rows.push(json!({
            "policy": rule.policy.to_string(),
            "rule": rule.rule,
            "effect": rule.effect,
            "matched": rule.matched,
            "decided": rule.decided,
            "lacks": lacks(rule).map(line).collect::<Vec<_>>(),
            "location": rule.location.to_string(),
        }));
    }
    rows
}

fn lacks(rule: &RuleCoverage) -> impl Iterator<Item = &PartCoverage> {
    rule.parts.iter().filter(|part| !part.lacks().is_empty())
}

fn line(part: &PartCoverage) -> String {
    format!("{} {}", part.name, part.lacks())
}

/// For a person: what is lacking, with file and line, and the sums.
pub(crate) fn print_table(coverage: &Coverage) -> Result<(), Failure> {
    for rule in &coverage.rules {
        let is_whole = rule.is_exercised() && lacks(rule).next().is_none();
        let mark = match (rule.is_exercised(), is_whole) {
            (false, _) => "untested",
            (true, false) => "partly  ",
            (true, true) => "ok      ",
        };
        say!(
            "{mark} {} rule {} ({})  {}  matched {}, decided {}",
            escape_text(&rule.policy.to_string()),
            rule.rule,
            rule.effect,
            rule.location,
            rule.matched,
            rule.decided
        )?;
        // All of an untested rule is: its parts say nothing more.
        for part in lacks(rule).filter(|_| rule.is_exercised()) {
            say!(
                "           {}:{}: {}",
                rule.location.path,
                part.line,
                escape_text(&line(part))
            )?;
        }
    }
    let (met, goals) = coverage.goals();
    say!(
        "coverage {}%: {met} of {goals}; {} of {} rules untested; {} calls",
        coverage.percent(),
        coverage.untested().count(),
        coverage.rules.len(),
        coverage.calls
    )
}
