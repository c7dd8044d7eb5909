//! `ravelin policy VERB`: a mesh folder offline, without a CA.

use super::{
    policy_check, policy_coverage, policy_diff, policy_explain, policy_replay, policy_schema,
    policy_suggest, policy_test, policy_who_can,
};
use crate::arguments::Shared;
use crate::exit::Outcome;
use clap::Subcommand;

/// The verbs of `ravelin policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check syntax, types and references, and find what is probably not meant
    Check(policy_check::CheckArguments),
    /// Print the JSON Schema of the folder's kinds, for an editor
    Schema(policy_schema::SchemaArguments),
    /// Run the folder's own tests
    Test(policy_test::TestArguments),
    /// Say how a call would be decided, and why
    Explain(Box<policy_explain::ExplainArguments>),
    /// Judge a recorded decision log again by a proposed folder
    Replay(policy_replay::ReplayArguments),
    /// Say which rules and clauses the tests, or a recorded log, exercised
    Coverage(policy_coverage::CoverageArguments),
    /// Make the smallest policies that allow what was recorded
    Suggest(policy_suggest::SuggestArguments),
    /// Say who can reach what: every principal, every request
    WhoCan(Box<policy_who_can::WhoCanArguments>),
    /// Say which requests two folders decide differently: all of them
    Diff(policy_diff::DiffArguments),
}

/// Runs a verb.
pub(crate) fn run(command: PolicyCommand, shared: &Shared) -> Outcome {
    match command {
        PolicyCommand::Check(check) => policy_check::run(&check, shared),
        PolicyCommand::Schema(schema) => policy_schema::run(&schema),
        PolicyCommand::Test(test) => policy_test::run(test, shared),
        PolicyCommand::Explain(explain) => policy_explain::run(*explain, shared),
        PolicyCommand::Replay(replay) => policy_replay::run(replay, shared),
        PolicyCommand::Coverage(coverage) => policy_coverage::run(coverage, shared),
        PolicyCommand::Suggest(suggest) => policy_suggest::run(suggest, shared),
        PolicyCommand::WhoCan(who_can) => policy_who_can::run(*who_can, shared),
        PolicyCommand::Diff(diff) => policy_diff::run(diff, shared),
    }
}
