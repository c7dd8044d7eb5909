//! `ravelin policy suggest`: from a recorded decision log to the policies that allow what was recorded and nothing else.

use crate::arguments::Shared;
use crate::config;
use crate::decision_log;
use crate::exit::{Exit, Failure, Outcome};
use crate::mesh_folder;
use crate::output::{Format, Rows, print_one, put};
use clap::Args;
use ravelin_policies::{
    Diagnostic, Generalize, LogLine, SourceFile, Suggest, SuggestOptions, Suggestion,
};
use serde_json::json;
use std::path::{Path, PathBuf};

/// From which log.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin audit query --log decision --since 30d --limit 0 -o jsonl > month.jsonl
  ravelin policy suggest --log month.jsonl > policies/shop/recorded.yaml
  ravelin policy suggest --log month.jsonl --generalize-paths --ids 5
One policy a workload, with the fewest rules: callers that do the same share one. A rule asks for a token where every
recorded call of its callers carried one. Hosts, addresses and headers are not looked at. The fewest are searched for on
small tables; large ones are covered greedily, which is exact too, perhaps with a rule more. A proxy that records only a
share of its allowed calls has not recorded all that is needed.
Exit code 0: every call is allowed by the suggestion. 1: some were left out; comments say which. 2: bad input.")]
pub(crate) struct SuggestArguments {
    /// The mesh folder with the identities; default: the current one, else policies/examples/shop
    mesh: Option<PathBuf>,
    /// The recorded log, `ravelin audit query --log decision -o jsonl`; `-` for stdin
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// Also allow what was denied
    #[arg(long)]
    include_denied: bool,
    /// Turn path segments that look like identifiers into `{*}`, and say what that allows besides
    #[arg(long)]
    generalize_paths: bool,
    /// So many different segments in one place that look like identifiers become `{*}`
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 2,
        requires = "generalize_paths"
    )]
    ids: usize,
    /// So many different segments in one place become `{*}`, whatever they look like
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 20,
        requires = "generalize_paths"
    )]
    segments: usize,
}

/// Suggests.
pub(crate) fn run(arguments: SuggestArguments, shared: &Shared) -> Outcome {
    let folder = config::mesh_folder(arguments.mesh.as_deref());
    let mesh = mesh_folder::load_offline(&folder)?;
    let options = SuggestOptions {
        includes_denied: arguments.include_denied,
        generalize: arguments.generalize_paths.then_some(Generalize {
            ids_min: arguments.ids,
            segments_min: arguments.segments,
        }),
    };
    let mut suggest = Suggest::new(&mesh, options);
    let mut full = None;
    let read = decision_log::read(&arguments.log, &mut |line| {
        if let LogLine::Call(call) = line
            && full.is_none()
        {
            full = suggest.add(&call).err();
        }
    })?;
    if let Some(error) = full {
        return Err(Failure::usage(error.to_string())
            .with_help("export a shorter time with `--since` and `--until`"));
    }
    let suggestion = suggest.finish();
    check(&folder, &suggestion)?;
    match shared.output {
        Format::Table => put(&suggestion.to_yaml())?,
        Format::Json => {
            print_one(json!(suggestion), Format::Json)?;
        }
        Format::Jsonl | Format::Csv => {
            rows(&suggestion).print(shared.output)?;
        }
    }
    read.check()?;
    Ok(if suggestion.left_out.is_empty() {
        Exit::Yes
    } else {
        Exit::No
    })
}

/// A rule a row.
fn rows(suggestion: &Suggestion) -> Rows {
    let mut rows = Rows::new(&[
        "namespace",
        "policy",
        "workload",
        "rule",
        "calls",
        "from",
        "to",
    ]);
    for policy in &suggestion.policies {
        for (rule, number) in policy.rules.iter().zip(1_u32..) {
            rows.push(json!({
                "namespace": policy.namespace,
                "policy": policy.name,
                "workload": policy.workload,
                "rule": number,
                "calls": rule.calls,
                "from": rule.from,
                "to": rule.to,
            }));
        }
    }
    rows
}

/// The suggestion loads beside the rest of the folder; what it brings up there goes to stderr.
fn check(folder: &Path, suggestion: &Suggestion) -> Result<(), Failure> {
    let (mut sources, _) = mesh_folder::sources(&mesh_folder::read_offline(folder)?);
    let is_ours = |path: &str| path.starts_with("policies/suggested/");
    for policy in &suggestion.policies {
        let path = format!(
            "policies/suggested/{}-{}.yaml",
            policy.namespace, policy.name
        );
        let source = SourceFile::from_bytes(&path, policy.to_yaml().as_bytes());
        let source = source.map_err(|found| refused(std::slice::from_ref(&found)))?;
        sources.push(source);
    }
    let set = ravelin_policies::load_with_defaults(&sources).map_err(|found| refused(&found.0))?;
    let lints = ravelin_policies::lint::all(&set, &sources);
    let findings = set.warnings.iter().chain(&lints);
    // What the folder allows already is what was recorded: that is no finding.
    let is_told = |finding: &&Diagnostic| is_ours(&finding.path) && finding.code != "idle-rule";
    for finding in findings.filter(is_told) {
        anstream::eprintln!("{}", finding.render().trim_end());
    }
    Ok(())
}

fn refused(found: &[Diagnostic]) -> Failure {
    for finding in found {
        anstream::eprintln!("{}", finding.render().trim_end());
    }
    Failure::usage("the suggestion would not load beside the folder")
        .with_help("it may be too large: --generalize-paths makes it smaller")
}
