//! The grammar: `ravelin NOUN VERB`, with a few verbs of their own for what people do daily.

use crate::commands::{
    agents, audit, authority, bundle, completions, denylist, entries, explain, mesh, policy,
    rotate, serve, svid, token,
};
use crate::output::Format;
use crate::{demo, launch, up};
use clap::{Args, Parser, Subcommand};

/// Identity, mutual TLS, authorization and proof for services: a SPIFFE CA and a mesh of small proxies.
#[derive(Debug, Parser)]
#[command(
    name = "ravelin",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(after_help = "Examples:
  ravelin up                            a whole mesh on this machine, from the example shop
  ravelin up --tour --exit              show its calls and their decisions, then end
  ravelin svid fetch x509               the identity of this shell (second terminal)
  ravelin audit query --since 5m        who got which identity, who called what
  ravelin rotate x509 --wait            rotate the authority, by acknowledgement

Exit codes: 0 yes or done, 1 a considered no (denied, test failed, difference, tampering),
2 wrong usage or bad input, 3 the other side cannot be reached.")]
pub(crate) struct Arguments {
    /// Options that every command takes.
    #[command(flatten)]
    pub(crate) shared: Shared,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shared {
    /// Form of what is printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// The CA: `unix:PATH` or `https://HOST:PORT`; default `.ravelin/ca/admin.sock` if it is there
    #[arg(long, global = true, env = "RAVELIN_SERVER", value_name = "ADDRESS")]
    pub(crate) server: Option<String>,
}

/// What `ravelin` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole mesh on this machine from one folder
    Up(up::UpArguments),
    /// The certificate authority
    #[command(subcommand)]
    Ca(serve::CaCommand),
    /// The node agent, and the agents that a CA knows
    #[command(subcommand)]
    Agent(agents::AgentCommand),
    /// The sidecar proxy
    #[command(subcommand)]
    Proxy(serve::ProxyCommand),
    /// Show what applying a mesh folder would change
    Plan(mesh::PlanArguments),
    /// Publish a mesh folder as one atomic revision
    Apply(mesh::ApplyArguments),
    /// Publish the content of an earlier revision again
    Rollback(mesh::RollbackArguments),
    /// Show the current revision and what agents have acknowledged
    Status,
    /// Check, test and explain the policies of a mesh folder
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Join tokens for new agents
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Registration entries: selectors to SPIFFE ID
    #[command(subcommand)]
    Entry(entries::EntryCommand),
    /// The authorities that sign for the trust domain, step by step
    #[command(subcommand)]
    Authority(authority::AuthorityCommand),
    /// Rotate an authority, waiting for acknowledgement at each step
    Rotate(rotate::RotateArguments),
    /// Cut off an identity before it expires
    Revoke(denylist::RevokeArguments),
    /// Identities that are cut off
    #[command(subcommand)]
    Denylist(denylist::DenylistCommand),
    /// The trust bundle
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Fetch, watch, validate and mint SVIDs
    #[command(subcommand)]
    Svid(svid::SvidCommand),
    /// Query and verify the audit log and the decision log
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Say why a process has an identity, or none
    Explain(explain::ExplainArguments),
    /// Run a command as a named workload
    Launch(launch::LaunchArguments),
    /// The services of the example shop
    #[command(subcommand, hide = true)]
    Demo(demo::DemoCommand),
    /// Wait for a byte on stdin, then become COMMAND
    #[command(hide = true)]
    Gate(launch::GateArguments),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArguments),
    /// Print the manual page
    Man,
}
