//! `ravelin policy who-can`: every principal that may reach a workload, with what it may ask and by which rules; or
//! everything that one principal may reach. The answer is the whole set, computed, not sampled.

use crate::arguments::Shared;
use crate::commands::policy_explain::workload;
use crate::config;
use crate::exit::{Exit, Failure, Outcome};
use crate::mesh_folder;
use crate::output::{Format, Rows, escape_text, now};
use clap::Args;
use ravelin_policies::{
    Access, AnalyzeOptions, Condition, MeshSet, Reach, ReachGroup, ReachQuery, Unanswered,
    WorkloadPolicies, reachable, who_can,
};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use serde_json::json;
use std::net::IpAddr;
use std::path::PathBuf;

/// What is asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin policy who-can --to payments
  ravelin policy who-can --to inventory --method GET --path /inventory/42
  ravelin policy who-can --from orders
  ravelin policy who-can policies/examples/shop -o json
What is not fixed by an option may be anything, and is told for each caller.
Left out of the answer are requests whose host is an IPv6 address, peers whose SPIFFE ID names two namespaces
(`/ns/a/…/ns/b/…`) and methods of other characters than upper-case letters and `-`; conditions with references,
on an IPv6 host or on a header that carries a token are refused by name: ask `policy explain` about single requests.
Exit code 1: nobody can; 2: some workload has no answer, those of the others are printed.")]
pub(crate) struct WhoCanArguments {
    /// The mesh folder; default: the current one, else policies/examples/shop
    mesh: Option<PathBuf>,
    /// Who is called: a SPIFFE ID, NAMESPACE/NAME or NAME; default: every workload
    #[arg(long)]
    to: Option<String>,
    /// Who calls: a SPIFFE ID, NAMESPACE/NAME or NAME; default: everybody
    #[arg(long)]
    from: Option<String>,
    /// Peers without identity alone
    #[arg(long, conflicts_with = "from")]
    plain_text: bool,
    /// Method
    #[arg(long)]
    method: Option<String>,
    /// Path
    #[arg(long)]
    path: Option<String>,
    /// Host
    #[arg(long)]
    host: Option<String>,
    /// Port of the workload
    #[arg(long)]
    port: Option<u16>,
    /// Address of the caller
    #[arg(long)]
    source_ip: Option<IpAddr>,
    /// Requests with a token alone
    #[arg(long, conflicts_with = "without_token")]
    with_token: bool,
    /// Requests without a token alone
    #[arg(long)]
    without_token: bool,
    /// When (RFC 3339), for policies that hold for a while; default: now
    #[arg(long, value_parser = time)]
    at: Option<Timestamp>,
    /// Whenever a policy holds
    #[arg(long, conflicts_with = "at")]
    any_time: bool,
    /// As if the dry-run policies were enforced
    #[arg(long)]
    dry_run: bool,
    /// Also connections whose content is not HTTP
    #[arg(long)]
    tcp: bool,
}

/// What helps where sets of requests have no answer.
pub(crate) const SINGLE: &str = "`ravelin policy explain` answers for single requests";

/// Reads RFC 3339.
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text)
        .ok_or_else(|| "not a time: write RFC 3339, such as 2026-11-21T12:00:00Z".to_owned())
}

/// Answers.
pub(crate) fn run(arguments: WhoCanArguments, shared: &Shared) -> Outcome {
    let mesh = mesh_folder::load_offline(&config::mesh_folder(arguments.mesh.as_deref()))?;
    let options = AnalyzeOptions {
        now: arguments.at.unwrap_or_else(now),
        includes_dry_run: arguments.dry_run,
        includes_connections: arguments.tcp,
    };
    let to = arguments
        .to
        .as_deref()
        .map(|to| workload(&mesh, to))
        .transpose()?;
    let query = query(&mesh, to.as_ref(), arguments)?;
    let (found, unanswered) = match &to {
        Some(to) => match who_can(&mesh, to, &query, &options) {
            Ok(reach) => (vec![reach], Vec::new()),
            Err(error) => {
                return Err(
                    Failure::usage(format!("`{to}` has no answer: {error}")).with_help(SINGLE)
                );
            }
        },
        None => reachable(&mesh, &query, &options),
    };
    if shared.output == Format::Table {
        print_table(&found)?;
    } else {
        print_rows(&found, shared.output)?;
    }
    report(&unanswered)?;
    let is_anybody = found.iter().any(|reach| !reach.groups.is_empty());
    Ok(if is_anybody { Exit::Yes } else { Exit::No })
}

fn query(
    mesh: &MeshSet,
    to: Option<&SpiffeId>,
    arguments: WhoCanArguments,
) -> Result<ReachQuery, Failure> {
    let from = arguments
        .from
        .as_deref()
        .map(|from| workload(mesh, from))
        .transpose()?;
    let path = match (arguments.path, to) {
        (Some(path), to) => Some(normalized(mesh, to, &path)?),
        (None, _) => None,
    };
    let has_token = match (arguments.with_token, arguments.without_token) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    };
    Ok(ReachQuery {
        from,
        is_plain_text: arguments.plain_text,
        method: arguments.method,
        path,
        host: arguments.host.map(|host| host.to_ascii_lowercase()),
        port: arguments.port,
        source_ip: arguments.source_ip,
        has_token,
        is_at_any_time: arguments.any_time,
    })
}

/// The path as the workload's proxy judges it.
fn normalized(mesh: &MeshSet, to: Option<&SpiffeId>, path: &str) -> Result<String, Failure> {
    let refused = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("`{}` is not judged: {error}", escape_text(path)))
    };
    let normalized = match to {
        Some(to) => WorkloadPolicies::compile(mesh, &mesh.workload(to), 0)
            .map_err(|error| refused(&error))?
            .normalize(path)
            .map_err(|error| refused(&error))?,
        None => ravelin_policies::normalize(path, mesh.config.path_normalization)
            .map_err(|error| refused(&error))?,
    };
    Ok(normalized.path().to_owned())
}

/// Workloads without an answer end the command with exit code 2: what is printed is then not all.
pub(crate) fn report(unanswered: &[Unanswered]) -> Result<(), Failure> {
    let Some(first) = unanswered.first() else {
        return Ok(());
    };
    for one in unanswered.iter().skip(1) {
        anstream::eprintln!(
            "`{}` has no answer: {}",
            one.workload,
            escape_text(&one.reason)
        );
    }
    let failure = format!(
        "`{}` has no answer: {}",
        first.workload,
        escape_text(&first.reason)
    );
    Err(Failure::usage(failure).with_help(SINGLE))
}

fn print_table(found: &[Reach]) -> Result<(), Failure> {
    for (index, reach) in found.iter().enumerate() {
        if index > 0 {
            say!("")?;
        }
        say!("{} ({})", escape_text(&reach.name), reach.workload)?;
        if reach.groups.is_empty() {
            say!("  nobody")?;
        }
        for group in &reach.groups {
            print_group(group)?;
        }
    }
    Ok(())
}

fn print_group(group: &ReachGroup) -> Result<(), Failure> {
    say!("  {}", escape_text(&group.who.join(", ")))?;
    for access in &group.access {
        let requests = if access.requests.is_empty() {
            "every request".to_owned()
        } else {
            shown(&access.requests)
        };
        say!("    {} {}", access.decision, escape_text(&requests))?;
        say!("      by {}", escape_text(&by(access)))?;
    }
    Ok(())
}

fn by(access: &Access) -> String {
    if access.by.is_empty() {
        "no ALLOW policy is attached, and nothing denies it".to_owned()
    } else {
        access.by.join(", ")
    }
}

/// Conditions on one line.
pub(crate) fn shown(conditions: &[Condition]) -> String {
    let all: Vec<String> = conditions
        .iter()
        .map(|condition| format!("{}: {}", condition.field, condition.values))
        .collect();
    all.join("; ")
}

fn print_rows(found: &[Reach], format: Format) -> Result<(), Failure> {
    let mut rows = Rows::new(&["workload", "name", "who", "decision", "requests", "by"]);
    for reach in found {
        for group in &reach.groups {
            for access in &group.access {
                let requests = if format == Format::Csv {
                    json!(shown(&access.requests))
                } else {
                    json!(access.requests)
                };
                rows.push(json!({
                    "workload": reach.workload,
                    "name": reach.name,
                    "who": group.who,
                    "identities": group.identities,
                    "decision": access.decision,
                    "requests": requests,
                    "by": access.by,
                    "example": access.example,
                }));
            }
        }
    }
    rows.print(format).map(|_| ())
}
