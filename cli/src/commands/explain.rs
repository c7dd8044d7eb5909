//! `ravelin explain --pid N`: why a process has the identities that it has, or none.

use super::agents::selectors_text;
use crate::arguments::Shared;
use crate::config;
use crate::connection::{AgentAdmin, ask};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Format, Rows, escape_text};
use clap::Args;
use ravelin_proto::pb::ravelin::v1::ExplainWorkloadRequest;
use serde_json::json;

/// Which process.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ravelin explain --pid $$      the identities of this shell, and why"
)]
pub(crate) struct ExplainArguments {
    /// Process to explain
    #[arg(long)]
    pid: i32,
    /// The agent's admin socket; default `.ravelin/agent-admin.sock` if it is there
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<String>,
}

/// Asks the agent on this machine.
pub(crate) async fn run(arguments: ExplainArguments, shared: Shared) -> Outcome {
    let agent = AgentAdmin::connect(&config::agent_admin_socket(
        arguments.admin_socket.as_deref(),
    ))
    .await?;
    let answer = agent
        .status()
        .explain_workload(ask(ExplainWorkloadRequest { pid: arguments.pid }))
        .await
        .map_err(|status| Failure::status("explain the process", &status))?
        .into_inner();
    if shared.output == Format::Table {
        say!("selectors of process {}:", arguments.pid)?;
        for selector in selectors_text(&answer.selectors) {
            say!("  {}", escape_text(&selector))?;
        }
        say!("")?;
    }
    let mut rows = Rows::new(&["match", "spiffe_id", "entry_id", "missing"]);
    let mut is_matched = false;
    for entry in &answer.entries {
        is_matched |= entry.is_match;
        rows.push(json!({
            "match": entry.is_match,
            "spiffe_id": entry.spiffe_id,
            "entry_id": entry.entry_id,
            "missing": selectors_text(&entry.missing),
        }));
    }
    rows.print(shared.output)?;
    Ok(if is_matched { Exit::Yes } else { Exit::No })
}
