//! `ravelin policy diff OLD NEW`: every request whose decision changes between two mesh folders, as disjoint regions,
//! each with an example that both engines confirm. A folder of an earlier commit is read out of git.

use super::policy_who_can::{report as unanswered, shown};
use crate::arguments::Shared;
use crate::exit::{Exit, Failure, Outcome};
use crate::git_folder;
use crate::mesh_folder;
use crate::output::{Format, Rows, escape_text, now};
use clap::Args;
use ravelin_policies::{
    AnalyzeOptions, Answer, Difference, DifferenceReport, MeshSet, Note, Sample, difference,
};
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

/// The two folders.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin policy diff policies/examples/shop /tmp/shop-next
  ravelin policy diff main: .                    the folder as the branch `main` has it, against the files here
  ravelin policy diff HEAD~1:mesh mesh
  ravelin policy diff v1.4:mesh v1.5:mesh -o json
`REV:PATH` is the folder PATH (below the root of the repository) in a commit; `REV:` is the current folder there.
Requests are compared in normal form. A change of how other targets are read, or which tokens and claims count, is told
as a note, and a note counts as a difference.
Left out are requests whose host is an IPv6 address, peers whose SPIFFE ID names two namespaces (`/ns/a/…/ns/b/…`) and
methods of other characters than upper-case letters and `-`. Workloads with conditions that sets cannot tell (references,
an IPv6 host, a header that carries a token) are named, unless all that holds for them is the same in both folders.
Exit code 0: no difference, 1: some decision changes, 2: some workload could not be compared, the others are printed.")]
pub(crate) struct DiffArguments {
    /// A mesh folder, or REV:PATH
    old: String,
    /// A mesh folder, or REV:PATH
    new: String,
    /// Also requests that another rule decides alike
    #[arg(long)]
    deciders: bool,
    /// As if the dry-run policies were enforced
    #[arg(long)]
    dry_run: bool,
    /// Also connections whose content is not HTTP, for workloads that speak HTTP
    #[arg(long)]
    tcp: bool,
}

/// Compares.
pub(crate) fn run(arguments: DiffArguments, shared: &Shared) -> Outcome {
    let old = load(&arguments.old)?;
    let new = load(&arguments.new)?;
    let options = AnalyzeOptions {
        now: now(),
        includes_dry_run: arguments.dry_run,
        includes_connections: arguments.tcp,
    };
    let report = difference(&old, &new, arguments.deciders, &options);
    if shared.output == Format::Table {
        print_text(&report)?;
    } else {
        print_rows(&report, shared.output)?;
    }
    unanswered(&report.unanswered)?;
    Ok(if report.is_empty() {
        Exit::Yes
    } else {
        Exit::No
    })
}

/// A folder that is there is that folder; anything else with a `:` is of git.
fn load(named: &str) -> Result<MeshSet, Failure> {
    let path = Path::new(named);
    let files = match named.split_once(':') {
        Some((revision, folder)) if !path.exists() => git_folder::read(revision, folder)?,
        _ => mesh_folder::read(path)?,
    };
    mesh_folder::load(&files)
}

fn print_text(report: &DifferenceReport) -> Result<(), Failure> {
    let mut last = "";
    for difference in &report.differences {
        if difference.workload != last {
            last = &difference.workload;
            say!("{} ({last})", escape_text(&difference.name))?;
        }
        print_difference(difference)?;
    }
    for note in &report.notes {
        print_note(note)?;
    }
    say!(
        "{} workloads, {} differences",
        report.workloads,
        report.differences.len() + report.notes.len()
    )
}

fn print_difference(difference: &Difference) -> Result<(), Failure> {
    say!(
        "  {} -> {}",
        escape_text(&answer(&difference.before)),
        escape_text(&answer(&difference.after))
    )?;
    let requests = if difference.requests.is_empty() {
        "every request".to_owned()
    } else {
        shown(&difference.requests)
    };
    say!("    {}", escape_text(&requests))?;
    say!("    such as {}", escape_text(&request(&difference.example)))
}

fn print_note(note: &Note) -> Result<(), Failure> {
    say!("{}", note.workload)?;
    say!("  {}", escape_text(&note.text))?;
    match &note.example {
        Some(example) => say!("    such as {}", escape_text(&request(example))),
        None => Ok(()),
    }
}

fn answer(answer: &Answer) -> String {
    match &answer.by {
        Some(by) => format!("{} by {by}", answer.decision),
        None => answer.decision.clone(),
    }
}

/// A request on one line.
fn request(example: &Sample) -> String {
    let peer = example.principal.as_deref().unwrap_or("plain text");
    if example.is_connection {
        return format!("a connection from {peer} to port {}", example.port);
    }
    let mut text = format!(
        "{} {} host {} from {peer} to port {}",
        example.method, example.target, example.host, example.port
    );
    for (name, value) in &example.headers {
        let _ = write!(text, " `{name}: {value}`");
    }
    if let Some(claims) = &example.claims {
        let _ = write!(text, " with a token {}", json!(claims));
    }
    text
}

fn print_rows(report: &DifferenceReport, format: Format) -> Result<(), Failure> {
    let mut rows = Rows::new(&["workload", "before", "after", "requests", "example"]);
    for difference in &report.differences {
        let is_csv = format == Format::Csv;
        rows.push(json!({
            "workload": difference.workload,
            "name": difference.name,
            "before": difference.before.decision,
            "after": difference.after.decision,
            "before_by": difference.before.by,
            "after_by": difference.after.by,
            "requests": if is_csv { json!(shown(&difference.requests)) } else { json!(difference.requests) },
            "example": if is_csv { json!(request(&difference.example)) } else { json!(difference.example) },
        }));
    }
    for note in &report.notes {
        rows.push(json!({
            "workload": note.workload,
            "note": note.text,
            "example": note.example,
        }));
    }
    rows.print(format).map(|_| ())
}
