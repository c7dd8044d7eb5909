//! `ravelin policy check`: every finding in a folder, each with its place, and an exit code for a pipeline.

use crate::arguments::Shared;
use crate::config;
use crate::exit::{Exit, Failure, Outcome};
use crate::mesh_folder;
use crate::output::{Format, Rows, escape_text};
use clap::Args;
use ravelin_policies::{Diagnostic, MeshSet, lint, load_with_defaults};
use serde_json::json;
use std::path::PathBuf;

/// Which folder, and how strict.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 without errors, 1 with --strict and warnings, 2 with errors.\n\nExample:\n  ravelin policy check --strict policies/examples/shop"
)]
pub(crate) struct CheckArguments {
    /// The mesh folder, any folder with files of Istio, or one file; default: the current folder, else policies/examples/shop
    mesh: Option<PathBuf>,
    /// Warnings end with exit code 1
    #[arg(long)]
    strict: bool,
}

/// Checks and prints.
pub(crate) fn run(arguments: &CheckArguments, shared: &Shared) -> Outcome {
    let folder = config::mesh_folder(arguments.mesh.as_deref());
    let files = mesh_folder::read_offline(&folder)?;
    let (sources, mut findings) = mesh_folder::sources(&files);
    let mut mesh = None;
    if findings.is_empty() {
        match load_with_defaults(&sources) {
            Ok(loaded) => {
                mesh_folder::note_defaults(&loaded);
                findings.clone_from(&loaded.warnings);
                findings.extend(lint::all(&loaded, &sources));
                findings
                    .sort_by(|a, b| (&a.path, a.line, a.column).cmp(&(&b.path, b.line, b.column)));
                mesh = Some(loaded);
            }
            Err(found) => findings = found.0,
        }
    }
    print(&findings, mesh.as_ref(), shared.output)?;
    if findings.iter().any(|finding| finding.is_error) {
        return Err(mesh_folder::refusal(&findings));
    }
    Ok(if arguments.strict && !findings.is_empty() {
        Exit::No
    } else {
        Exit::Yes
    })
}

fn print(findings: &[Diagnostic], mesh: Option<&MeshSet>, format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        return rows(findings).print(format).map(|_| ());
    }
    for finding in findings {
        for line in finding.render().lines() {
            say!("{}", escape_text(line))?;
        }
        say!("")?;
    }
    let Some(mesh) = mesh else { return Ok(()) };
    let policies = mesh.authorization_policies.len()
        + mesh.request_authentications.len()
        + mesh.peer_authentications.len();
    say!(
        "no errors: {} identities, {policies} policies, {} services, {} tests, {} warnings",
        mesh.identities.len(),
        mesh.services.len(),
        mesh.tests.len(),
        findings.len(),
    )
}

fn rows(findings: &[Diagnostic]) -> Rows {
    let columns = ["level", "code", "path", "line", "column", "message", "help"];
    let mut rows = Rows::new(&columns);
    for finding in findings {
        rows.push(json!({
            "level": if finding.is_error { "error" } else { "warning" },
            "code": finding.code,
            "path": finding.path,
            "line": finding.line,
            "column": finding.column,
            "message": finding.message,
            "help": finding.help,
        }));
    }
    rows
}
