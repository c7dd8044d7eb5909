//! `ravelin policy check | test | explain`: a mesh folder offline, without a CA.

use super::{policy_check, policy_explain, policy_replay};
use crate::arguments::Shared;
use crate::config;
use crate::exit::{Exit, Failure, Outcome};
use crate::mesh_folder;
use crate::output::{Format, Rows, escape_text};
use clap::{Args, Subcommand};
use ravelin_policies::{CaseReport, MeshSet, run_tests};
use serde_json::json;
use std::path::PathBuf;

/// The verbs of `ravelin policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check syntax, types and references, and find what is probably not meant
    Check(policy_check::CheckArguments),
    /// Run the folder's own tests
    Test(MeshArguments),
    /// Say how a call would be decided, and why
    Explain(Box<policy_explain::ExplainArguments>),
    /// Judge a recorded decision log again by a proposed folder
    Replay(policy_replay::ReplayArguments),
}

/// Which folder.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ravelin policy test policies/examples/shop")]
pub(crate) struct MeshArguments {
    /// The mesh folder; default: the current one, else policies/examples/shop
    mesh: Option<PathBuf>,
}

/// Runs a verb.
pub(crate) fn run(command: PolicyCommand, shared: &Shared) -> Outcome {
    match command {
        PolicyCommand::Check(check) => policy_check::run(&check, shared),
        PolicyCommand::Test(of) => test(&load(&of)?, shared),
        PolicyCommand::Explain(explain) => policy_explain::run(*explain, shared),
        PolicyCommand::Replay(replay) => policy_replay::run(replay, shared),
    }
}

fn load(of: &MeshArguments) -> Result<MeshSet, Failure> {
    mesh_folder::load_offline(&config::mesh_folder(of.mesh.as_deref()))
}

fn test(mesh: &MeshSet, shared: &Shared) -> Outcome {
    let report = run_tests(mesh);
    if shared.output == Format::Table {
        for case in &report.cases {
            print_case(case)?;
        }
        say!("{} cases, {} failed", report.cases.len(), report.failed())?;
    } else {
        let mut rows = Rows::new(&["test", "case", "passed", "expected", "actual", "location"]);
        for case in &report.cases {
            rows.push(json!({
                "test": case.test,
                "case": case.case,
                "passed": case.is_passed,
                "expected": case.expected,
                "actual": case.actual,
                "location": case.location.to_string(),
                "explanation": case.explanation,
            }));
        }
        rows.print(shared.output)?;
    }
    Ok(if report.is_passed() {
        Exit::Yes
    } else {
        Exit::No
    })
}

fn print_case(case: &CaseReport) -> Result<(), Failure> {
    let mark = if case.is_passed { "ok  " } else { "FAIL" };
    say!(
        "{mark} {}: {}",
        escape_text(&case.test),
        escape_text(&case.case)
    )?;
    if case.is_passed {
        return Ok(());
    }
    say!("     {}", case.location)?;
    say!("     expected {}", escape_text(&case.expected))?;
    say!("     actual   {}", escape_text(&case.actual))?;
    for line in case.explanation.lines() {
        say!("     {}", escape_text(line))?;
    }
    Ok(())
}
