//! `ravelin plan | apply | rollback | status`: the mesh folder against the CA.

use crate::arguments::Shared;
use crate::config;
use crate::connection::{Ca, ask, ask_within};
use crate::exit::{Exit, Failure, Outcome};
use crate::limits;
use crate::mesh_folder;
use crate::output::progress::Progress;
use crate::output::{Format, Rows, escape_text, print_one, time_of_secs};
use clap::Args;
use owo_colors::OwoColorize as _;
use ravelin_proto::pb::ravelin::v1::change::Action;
use ravelin_proto::pb::ravelin::v1::{
    AgentStatus, ApplyProgress, ApplyRequest, Change, Diagnostic, MeshStatus, MeshStatusRequest,
    PlanRequest, PlanResponse, RollbackRequest,
};
use serde_json::{Value, json};
use std::path::PathBuf;
use tonic::Streaming;

/// Which folder to compare.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ravelin plan policies/examples/shop\nExit code 1: the folder differs from what is in force."
)]
pub(crate) struct PlanArguments {
    /// The mesh folder; default: the current one, else policies/examples/shop
    mesh: Option<PathBuf>,
}

/// Which folder to publish.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ravelin apply policies/examples/shop --wait\n  ravelin apply --base 7      only if revision 7 is still the current one"
)]
pub(crate) struct ApplyArguments {
    /// The mesh folder; default: the current one, else policies/examples/shop
    mesh: Option<PathBuf>,
    /// Return when all live agents and proxies have acknowledged
    #[arg(long)]
    wait: bool,
    /// Refuse when the current revision is another one
    #[arg(long, value_name = "REVISION")]
    base: Option<u64>,
}

/// Which revision to return to.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ravelin rollback 3 --wait")]
pub(crate) struct RollbackArguments {
    /// The revision whose content is published again
    revision: u64,
    /// Return when all live agents and proxies have acknowledged
    #[arg(long)]
    wait: bool,
}

/// Shows what applying would change. Exit code 1 when something would.
pub(crate) async fn plan(arguments: PlanArguments, shared: Shared) -> Outcome {
    let folder = config::mesh_folder(arguments.mesh.as_deref());
    let files = mesh_folder::read(&folder)?;
    let ca = Ca::connect(&shared).await?;
    let plan = ca
        .mesh()
        .plan(ask(PlanRequest { files }))
        .await
        .map_err(|status| Failure::status("plan", &status))?
        .into_inner();
    refuse_errors(&plan.diagnostics)?;
    print_plan(&plan, &shared)?;
    Ok(if plan.changes.is_empty() {
        Exit::Yes
    } else {
        Exit::No
    })
}

/// Publishes the folder.
pub(crate) async fn apply(arguments: ApplyArguments, shared: Shared) -> Outcome {
    let folder = config::mesh_folder(arguments.mesh.as_deref());
    let request = ApplyRequest {
        files: mesh_folder::read(&folder)?,
        git_commit: mesh_folder::git_commit(&folder),
        base_revision: arguments.base.unwrap_or(0),
        wait: arguments.wait,
    };
    let ca = Ca::connect(&shared).await?;
    let last = publish(&ca, request).await?;
    print_applied(&last, &shared)
}

/// Publishes an earlier revision again.
pub(crate) async fn rollback(arguments: RollbackArguments, shared: Shared) -> Outcome {
    let ca = Ca::connect(&shared).await?;
    let request = RollbackRequest {
        revision: arguments.revision,
        wait: arguments.wait,
    };
    let stream = ca
        .mesh()
        .rollback(ask_within(request, limits::ACKNOWLEDGE_DEADLINE))
        .await
        .map_err(|status| Failure::status("rollback", &status))?
        .into_inner();
    let last = follow("rollback", stream).await?;
    print_applied(&last, &shared)
}

/// Shows revision and acknowledgements.
pub(crate) async fn status(shared: Shared) -> Outcome {
    let ca = Ca::connect(&shared).await?;
    let status = ca
        .mesh()
        .get_status(ask(MeshStatusRequest {}))
        .await
        .map_err(|status| Failure::status("show the status", &status))?
        .into_inner();
    print_status(&status, &shared)
}

/// Sends a folder to the CA and waits for the last report.
pub(crate) async fn publish(ca: &Ca, request: ApplyRequest) -> Result<ApplyProgress, Failure> {
    let stream = ca
        .mesh()
        .apply(ask_within(request, limits::ACKNOWLEDGE_DEADLINE))
        .await
        .map_err(|status| Failure::status("apply", &status))?
        .into_inner();
    follow("apply", stream).await
}

async fn follow(
    what: &str,
    mut stream: Streaming<ApplyProgress>,
) -> Result<ApplyProgress, Failure> {
    let mut display = Progress::new();
    let mut last: Option<ApplyProgress> = None;
    loop {
        match stream.message().await {
            Ok(Some(progress)) => {
                refuse_errors(&progress.diagnostics)?;
                if !progress.is_done && progress.total > 0 {
                    let missing: Vec<String> = progress
                        .missing
                        .iter()
                        .take(3)
                        .map(|name| escape_text(name))
                        .collect();
                    let revision = progress.revision;
                    let step = format!("wait for revision {revision}");
                    display.step(
                        &step,
                        progress.acknowledged,
                        progress.total,
                        &missing.join(", "),
                    );
                }
                last = Some(progress);
            }
            Ok(None) => break,
            Err(status) => {
                display.finish("unknown");
                let failure = Failure::status(what, &status);
                let missing = last.map(|progress| progress.missing).unwrap_or_default();
                if missing.is_empty() {
                    return Err(failure);
                }
                return Err(failure.with_help(format!(
                    "not acknowledged by: {}",
                    escape_text(&missing.join(", "))
                )));
            }
        }
    }
    display.finish("done");
    last.ok_or_else(|| Failure::no(format!("{what}: the CA reported nothing")))
}

fn refuse_errors(diagnostics: &[Diagnostic]) -> Result<(), Failure> {
    for diagnostic in diagnostics {
        anstream::eprintln!("{}", diagnostic.text.trim_end());
    }
    let errors = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error)
        .count();
    if errors == 0 {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the mesh folder has {errors} error(s); nothing was changed"
    ))
    .with_help("mend the lines above; `ravelin policy check` shows the same without a CA"))
}

fn print_plan(plan: &PlanResponse, shared: &Shared) -> Outcome {
    if shared.output == Format::Table {
        for change in &plan.changes {
            print_change(change)?;
        }
        if plan.changes.is_empty() {
            say!(
                "no changes: revision {} is what the folder says",
                plan.base_revision
            )?;
        } else {
            let count = plan.changes.len();
            say!(
                "\n{count} change(s) against revision {}; `ravelin apply` publishes them",
                plan.base_revision
            )?;
        }
        return Ok(Exit::Yes);
    }
    let mut rows = Rows::new(&["action", "kind", "namespace", "name", "summary"]);
    for change in &plan.changes {
        rows.push(json!({
            "action": action_text(change.action()),
            "kind": change.kind,
            "namespace": change.namespace,
            "name": change.name,
            "summary": change.summary,
        }));
    }
    rows.print(shared.output)
}

fn print_change(change: &Change) -> Result<(), Failure> {
    let name = format!("{} {}/{}", change.kind, change.namespace, change.name);
    let summary = escape_text(&change.summary);
    match change.action() {
        Action::Create => say!("{} {name}  {summary}", "+".green()),
        Action::Update => say!("{} {name}  {summary}", "~".yellow()),
        Action::Delete => say!("{} {name}  {summary}", "-".red()),
        Action::Unspecified => say!("? {name}  {summary}"),
    }
}

fn action_text(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Delete => "delete",
        Action::Unspecified => "unknown",
    }
}

fn print_applied(last: &ApplyProgress, shared: &Shared) -> Outcome {
    let is_complete = last.missing.is_empty();
    if shared.output == Format::Table {
        if last.is_unchanged {
            say!("revision {} is already what the folder says", last.revision)?;
        } else {
            say!("published revision {}", last.revision)?;
        }
        if last.total > 0 {
            say!("acknowledged by {} of {}", last.acknowledged, last.total)?;
        }
        for missing in &last.missing {
            say!("  not acknowledged: {}", escape_text(missing))?;
        }
    } else {
        print_one(applied_row(last), shared.output)?;
    }
    Ok(if is_complete { Exit::Yes } else { Exit::No })
}

fn applied_row(last: &ApplyProgress) -> Value {
    json!({
        "revision": last.revision,
        "acknowledged": last.acknowledged,
        "total": last.total,
        "missing": last.missing,
        "unchanged": last.is_unchanged,
    })
}

fn print_status(status: &MeshStatus, shared: &Shared) -> Outcome {
    if shared.output == Format::Table {
        say!("mesh revision    {}", status.revision)?;
        say!("digest           {}", status.digest)?;
        if !status.git_commit.is_empty() {
            say!("git commit       {}", escape_text(&status.git_commit))?;
        }
        say!("bundle sequence  {}", status.bundle_sequence)?;
        say!("deny-list        {}\n", status.denylist_number)?;
    }
    let columns = [
        "agent",
        "connected",
        "mesh_revision",
        "bundle_sequence",
        "denylist",
        "proxies",
        "acknowledged_at",
        "refusal",
    ];
    let agents: Vec<Value> = status.agents.iter().map(agent_row).collect();
    if matches!(shared.output, Format::Json | Format::Jsonl) {
        let whole = json!({
            "revision": status.revision,
            "digest": status.digest,
            "git_commit": status.git_commit,
            "created_at": time_of_secs(status.created_at),
            "bundle_sequence": status.bundle_sequence,
            "denylist": status.denylist_number,
            "agents": agents,
        });
        return print_one(whole, shared.output);
    }
    let mut rows = Rows::new(&columns);
    for agent in agents {
        rows.push(agent);
    }
    rows.print(shared.output)
}

fn agent_row(agent: &AgentStatus) -> Value {
    json!({
        "agent": agent.agent_id,
        "connected": agent.is_connected,
        "revision": agent.revision,
        "mesh_revision": agent.mesh_revision,
        "bundle_sequence": agent.bundle_sequence,
        "denylist": agent.denylist_number,
        "proxies": agent.proxies,
        "acknowledged_at": time_of_secs(agent.acknowledged_at),
        "refusal": agent.refusal,
    })
}
