//! `ravelin token`: join tokens, each good for one agent once.

use crate::arguments::Shared;
use crate::connection::{Ca, ask};
use crate::exit::{Failure, Outcome};
use crate::output::{print_one, time_of_secs};
use clap::{Args, Subcommand};
use ravelin_proto::pb::spire::api::server::agent::v1::CreateJoinTokenRequest;
use ravelin_proto::pb::spire::api::types::Spiffeid;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_runtime::durable;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// The verbs of `ravelin token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a join token; it works once
    Create(CreateArguments),
}

/// What the token is for.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ravelin token create --agent-id spiffe://shop.example/node/web-1 --ttl 10m --write join-token"
)]
pub(crate) struct CreateArguments {
    /// How long the token may be used
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// A SPIFFE ID that the agent gets beside its own, to be the parent of entries
    #[arg(long, value_name = "SPIFFE-ID")]
    agent_id: Option<SpiffeId>,
    /// Write the token to this file, mode 0600, instead of printing it
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// Runs a verb.
pub(crate) async fn run(command: TokenCommand, shared: Shared) -> Outcome {
    let TokenCommand::Create(arguments) = command;
    let ca = Ca::connect(&shared).await?;
    let ttl = i32::try_from(arguments.ttl.as_secs())
        .map_err(|_| Failure::usage("--ttl is longer than a token can live"))?;
    let request = CreateJoinTokenRequest {
        ttl,
        token: String::new(),
        agent_id: arguments.agent_id.as_ref().map(spiffe_id_message),
    };
    let token = ca
        .agents()
        .create_join_token(ask(request))
        .await
        .map_err(|status| Failure::status("create a join token", &status))?
        .into_inner();
    let expires_at = time_of_secs(token.expires_at);
    let Some(file) = arguments.write else {
        return print_one(
            json!({"token": token.value, "expires_at": expires_at}),
            shared.output,
        );
    };
    durable::write_atomically(&file, token.value.as_bytes(), 0o600)
        .map_err(|error| Failure::file("write", &file, error))?;
    print_one(
        json!({"file": file, "expires_at": expires_at}),
        shared.output,
    )
}

/// A SPIFFE ID as SPIRE's API carries it.
pub(crate) fn spiffe_id_message(id: &SpiffeId) -> Spiffeid {
    Spiffeid {
        trust_domain: id.trust_domain().as_str().to_owned(),
        path: id.path().to_owned(),
    }
}

/// A SPIFFE ID of SPIRE's API as text.
pub(crate) fn spiffe_id_text(id: Option<&Spiffeid>) -> String {
    id.map(|id| format!("spiffe://{}{}", id.trust_domain, id.path))
        .unwrap_or_default()
}
