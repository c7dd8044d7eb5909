//! `ravelin policy replay`: a recorded decision log against a proposed folder; what would be decided otherwise.

use crate::arguments::Shared;
use crate::config;
use crate::decision_log;
use crate::exit::{Exit, Failure, Outcome};
use crate::mesh_folder;
use crate::output::{Format, Rows, escape_text, print_one};
use clap::Args;
use ravelin_policies::{LogLine, Replay, ReplayGroup, ReplayReport};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Which folder and which log.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin audit query --log decision --since 7d --limit 0 -o jsonl > week.jsonl
  ravelin policy replay proposed/ --log week.jsonl
  ravelin policy replay proposed/ --base current/ --log week.jsonl -o json
  ravelin audit query --log decision --limit 0 -o jsonl | ravelin policy replay proposed/ --log -
Exit code 0: no recorded decision would change. 1: some would, or could not be determined (see --allow-undetermined).
2: bad input.
A record does not hold headers, query and claims; where a proposed rule hangs on one, the call is undetermined and
the attribute is named. Tokens are taken as accepted or absent, as recorded; --base checks that.")]
pub(crate) struct ReplayArguments {
    /// The proposed mesh folder; default: the current one, else policies/examples/shop
    mesh: Option<PathBuf>,
    /// The recorded log, `ravelin audit query --log decision -o jsonl`; `-` for stdin
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// The mesh folder that was in force: calls whose tokens may be judged otherwise are then undetermined
    #[arg(long, value_name = "MESH")]
    base: Option<PathBuf>,
    /// Take the dry-run policies of the folder as enforced
    #[arg(long)]
    with_dry_run: bool,
    /// Exit with 0 when nothing changes for certain, though some calls are undetermined
    #[arg(long)]
    allow_undetermined: bool,
}

/// Replays the log.
pub(crate) fn run(arguments: ReplayArguments, shared: &Shared) -> Outcome {
    let mesh = mesh_folder::load_offline(&config::mesh_folder(arguments.mesh.as_deref()))?;
    let base = match &arguments.base {
        None => None,
        Some(base) => Some(mesh_folder::load_offline(base)?),
    };
    let mut replay = Replay::new(&mesh, base.as_ref(), arguments.with_dry_run);
    let read = decision_log::read(&arguments.log, &mut |line| match line {
        LogLine::Call(call) => replay.add(&call),
        LogLine::NotJudged(code) => replay.skip(&code),
        LogLine::Other => {}
    })?;
    let report = replay.finish();
    match shared.output {
        Format::Table => print_report(&report, base.is_some())?,
        Format::Json => {
            print_one(json!(report), Format::Json)?;
        }
        Format::Jsonl | Format::Csv => {
            rows(report.changes.iter().chain(&report.unknown)).print(shared.output)?;
        }
    }
    read.check()?;
    let is_settled = report.changes.is_empty()
        && report.beyond == 0
        && (arguments.allow_undetermined || report.undetermined == 0);
    Ok(if is_settled { Exit::Yes } else { Exit::No })
}

fn rows<'g>(groups: impl Iterator<Item = &'g ReplayGroup>) -> Rows {
    let mut rows = Rows::new(&[
        "calls",
        "workload",
        "method",
        "path",
        "was",
        "was_by",
        "becomes",
        "becomes_by",
        "callers",
    ]);
    for group in groups {
        let mut row = json!(group);
        if let Value::Object(row) = &mut row {
            let callers: Vec<&str> = group.callers.iter().map(|caller| name(caller)).collect();
            row.insert("callers".to_owned(), json!(callers));
        }
        rows.push(row);
    }
    rows
}

fn name(caller: &str) -> &str {
    if caller.is_empty() {
        "(no identity)"
    } else {
        caller
    }
}

fn print_report(report: &ReplayReport, has_base: bool) -> Result<(), Failure> {
    for (title, groups) in [
        ("would change", &report.changes),
        (
            "undetermined, for want of these attributes",
            &report.unknown,
        ),
    ] {
        if groups.is_empty() {
            continue;
        }
        say!("{title}:")?;
        for group in groups {
            print_group(group)?;
        }
        say!("")?;
    }
    say!(
        "{} calls: {} the same ({} by another rule), {} newly allowed, {} newly denied, {} undetermined",
        report.calls,
        report.same,
        report.by_another_rule,
        report.newly_allowed,
        report.newly_denied,
        report.undetermined
    )?;
    let skipped: u64 = report.not_judged.values().sum();
    if skipped > 0 {
        let codes: Vec<String> = report
            .not_judged
            .iter()
            .map(|(code, count)| format!("{} {count}", escape_text(code)))
            .collect();
        say!(
            "{skipped} calls were refused before any policy was asked: {}",
            codes.join(", ")
        )?;
    }
    if report.foreign > 0 {
        say!(
            "{} calls of workloads of another trust domain were left out",
            report.foreign
        )?;
    }
    if report.beyond > 0 {
        say!("{} calls of further groups are not shown", report.beyond)?;
    }
    if report.tokens_as_recorded > 0 && !has_base {
        say!(
            "{} calls go to workloads that accept tokens: taken as accepted or absent, as recorded (--base checks that)",
            report.tokens_as_recorded
        )?;
    }
    Ok(())
}

fn print_group(group: &ReplayGroup) -> Result<(), Failure> {
    let call = format!("{} {}", group.method, group.path);
    say!(
        "  {} calls  {} -> {}  {}  {}",
        group.calls,
        group.was,
        group.becomes,
        escape_text(&group.workload),
        escape_text(call.trim_end())
    )?;
    let (was, becomes) = (escape_text(&group.was_by), escape_text(&group.becomes_by));
    say!("    was by {was}; becomes by {becomes}")?;
    for example in &group.examples {
        say!(
            "    {} {} {}",
            example.time,
            escape_text(name(&example.from)),
            escape_text(&example.path)
        )?;
    }
    Ok(())
}
