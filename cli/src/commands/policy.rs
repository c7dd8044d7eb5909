//! `ravelin policy check | test | explain`: a mesh folder offline, without a CA.

use super::{policy_explain, policy_replay};
use crate::arguments::Shared;
use crate::config;
use crate::exit::{Exit, Failure, Outcome};
use crate::mesh_folder;
use crate::output::{Format, Rows, escape_text, print_one};
use clap::{Args, Subcommand};
use ravelin_policies::{CaseReport, MeshSet, run_tests};
use serde_json::json;
use std::path::PathBuf;

/// The verbs of `ravelin policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check syntax, types and references
    Check(MeshArguments),
    /// Run the folder's own tests
    Test(MeshArguments),
    /// Say how a call would be decided, and why
    Explain(Box<policy_explain::ExplainArguments>),
    /// Judge a recorded decision log again by a proposed folder
    Replay(policy_replay::ReplayArguments),
}

/// Which folder.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ravelin policy check policies/examples/shop")]
pub(crate) struct MeshArguments {
    /// The mesh folder; default: the current one, else policies/examples/shop
    mesh: Option<PathBuf>,
}

/// Runs a verb.
pub(crate) fn run(command: PolicyCommand, shared: &Shared) -> Outcome {
    match command {
        PolicyCommand::Check(of) => check(&load(of)?, shared),
        PolicyCommand::Test(of) => test(&load(of)?, shared),
        PolicyCommand::Explain(explain) => policy_explain::run(*explain, shared),
        PolicyCommand::Replay(replay) => policy_replay::run(replay, shared),
    }
}

fn load(of: MeshArguments) -> Result<MeshSet, Failure> {
    let files = mesh_folder::read(&config::mesh_folder(of.mesh.as_deref()))?;
    mesh_folder::load(&files)
}

fn check(mesh: &MeshSet, shared: &Shared) -> Outcome {
    let policies = mesh.authorization_policies.len()
        + mesh.request_authentications.len()
        + mesh.peer_authentications.len();
    if shared.output == Format::Table {
        say!(
            "no errors: {} identities, {policies} policies, {} services, {} tests, {} warnings",
            mesh.identities.len(),
            mesh.services.len(),
            mesh.tests.len(),
            mesh.warnings.len(),
        )?;
        return Ok(Exit::Yes);
    }
    print_one(
        json!({
            "trust_domain": mesh.config.trust_domain,
            "identities": mesh.identities.len(),
            "policies": policies,
            "services": mesh.services.len(),
            "tests": mesh.tests.len(),
            "warnings": mesh.warnings.len(),
        }),
        shared.output,
    )
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
