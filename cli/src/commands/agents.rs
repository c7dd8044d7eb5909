//! `ravelin agent list | show | ban | evict`: the agents that the CA knows.

use super::serve::ServeArguments;
use super::token::{spiffe_id_message, spiffe_id_text};
use crate::arguments::Shared;
use crate::connection::{Ca, ask};
use crate::exit::{Exit, Failure, Outcome};
use crate::limits;
use crate::output::{Rows, print_one, time_of_secs};
use clap::{Args, Subcommand};
use ravelin_proto::pb::spire::api::server::agent::v1::{
    BanAgentRequest, DeleteAgentRequest, GetAgentRequest, ListAgentsRequest,
};
use ravelin_proto::pb::spire::api::types::{Agent, Selector};
use ravelin_proto::spiffe_id::SpiffeId;
use serde_json::{Value, json};

/// The verbs of `ravelin agent`.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Run the node agent
    Serve(ServeArguments),
    /// List the agents that the CA knows
    #[command(after_help = "Example:\n  ravelin agent list -o json")]
    List,
    /// Show one agent
    Show(AgentArguments),
    /// Ban an agent for good: it can neither renew nor attest again
    Ban(AgentArguments),
    /// Forget an agent; it can attest again with a new token
    Evict(AgentArguments),
}

/// Which agent.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ravelin agent show spiffe://shop.example/spire/agent/join_token/0123..\n\
    `ravelin agent list` shows the SPIFFE IDs"
)]
pub(crate) struct AgentArguments {
    /// Its SPIFFE ID
    #[arg(value_name = "SPIFFE-ID")]
    id: SpiffeId,
}

/// Runs a verb.
pub(crate) async fn run(command: AgentCommand, shared: Shared) -> Outcome {
    let ca = Ca::connect(&shared).await?;
    match command {
        AgentCommand::Serve(_) => Err(Failure::usage("`agent serve` runs by itself")),
        AgentCommand::List => list(&ca, &shared).await,
        AgentCommand::Show(of) => show(&ca, &of.id, &shared).await,
        AgentCommand::Ban(of) => {
            let request = BanAgentRequest {
                id: Some(spiffe_id_message(&of.id)),
            };
            ca.agents()
                .ban_agent(ask(request))
                .await
                .map_err(|status| Failure::status("ban the agent", &status))?;
            say!("banned {}", of.id)?;
            Ok(Exit::Yes)
        }
        AgentCommand::Evict(of) => {
            let request = DeleteAgentRequest {
                id: Some(spiffe_id_message(&of.id)),
            };
            ca.agents()
                .delete_agent(ask(request))
                .await
                .map_err(|status| Failure::status("evict the agent", &status))?;
            say!("evicted {}", of.id)?;
            Ok(Exit::Yes)
        }
    }
}

async fn list(ca: &Ca, shared: &Shared) -> Outcome {
    let mut rows = Rows::new(&[
        "spiffe_id",
        "attestation",
        "expires_at",
        "banned",
        "version",
    ]);
    let mut page_token = String::new();
    loop {
        let request = ListAgentsRequest {
            page_size: limits::PAGE_ROWS,
            page_token,
            ..ListAgentsRequest::default()
        };
        let page = ca
            .agents()
            .list_agents(ask(request))
            .await
            .map_err(|status| Failure::status("list agents", &status))?
            .into_inner();
        for agent in &page.agents {
            rows.push(row(agent));
        }
        if page.next_page_token.is_empty() {
            return rows.print(shared.output);
        }
        page_token = page.next_page_token;
    }
}

async fn show(ca: &Ca, id: &SpiffeId, shared: &Shared) -> Outcome {
    let request = GetAgentRequest {
        id: Some(spiffe_id_message(id)),
        output_mask: None,
    };
    let agent = ca
        .agents()
        .get_agent(ask(request))
        .await
        .map_err(|status| Failure::status("show the agent", &status))?
        .into_inner();
    print_one(row(&agent), shared.output)
}

fn row(agent: &Agent) -> Value {
    json!({
        "spiffe_id": spiffe_id_text(agent.id.as_ref()),
        "attestation": agent.attestation_type,
        "serial": agent.x509svid_serial_number,
        "expires_at": time_of_secs(agent.x509svid_expires_at),
        "selectors": selectors_text(&agent.selectors),
        "banned": agent.banned,
        "can_reattest": agent.can_reattest,
        "version": agent.agent_version,
    })
}

/// Selectors as `type:value`.
pub(crate) fn selectors_text(selectors: &[Selector]) -> Vec<String> {
    selectors
        .iter()
        .map(|selector| format!("{}:{}", selector.r#type, selector.value))
        .collect()
}
