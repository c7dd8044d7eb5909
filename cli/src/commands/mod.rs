//! One file a command group; this one hands each command to its group.

pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod audit_verify;
pub(crate) mod authority;
pub(crate) mod bundle;
pub(crate) mod capture;
pub(crate) mod completions;
pub(crate) mod denylist;
pub(crate) mod entries;
pub(crate) mod explain;
pub(crate) mod mesh;
pub(crate) mod policy;
pub(crate) mod policy_check;
pub(crate) mod policy_coverage;
pub(crate) mod policy_diff;
pub(crate) mod policy_explain;
pub(crate) mod policy_replay;
pub(crate) mod policy_schema;
pub(crate) mod policy_suggest;
pub(crate) mod policy_test;
pub(crate) mod policy_who_can;
pub(crate) mod proxy_status;
pub(crate) mod rotate;
pub(crate) mod serve;
pub(crate) mod svid;
pub(crate) mod svid_mint;
pub(crate) mod token;

use crate::arguments::{Arguments, Command};
use crate::exit::{Failure, Outcome};
use crate::{demo, launch, up};
use std::future::Future;

/// Runs the command that was named.
pub(crate) fn dispatch(arguments: Arguments) -> Outcome {
    let shared = arguments.shared;
    match arguments.command {
        Command::Up(up) => block_on(up::run(up)),
        Command::Ca(ca) => serve::run_ca(ca),
        Command::Agent(agents::AgentCommand::Serve(serve)) => serve::run_agent(serve),
        Command::Agent(agent) => block_on(agents::run(agent, shared)),
        Command::Proxy(proxy) => serve::run_proxy(proxy, shared),
        Command::Plan(plan) => block_on(mesh::plan(plan, shared)),
        Command::Apply(apply) => block_on(mesh::apply(apply, shared)),
        Command::Rollback(rollback) => block_on(mesh::rollback(rollback, shared)),
        Command::Status => block_on(mesh::status(shared)),
        Command::Policy(policy) => policy::run(policy, &shared),
        Command::Token(token) => block_on(token::run(token, shared)),
        Command::Entry(entry) => block_on(entries::run(entry, shared)),
        Command::Authority(authority) => block_on(authority::run(authority, shared)),
        Command::Rotate(rotate) => block_on(rotate::run(rotate, shared)),
        Command::Revoke(revoke) => block_on(denylist::revoke(revoke, shared)),
        Command::Denylist(denylist) => block_on(denylist::run(denylist, shared)),
        Command::Bundle(bundle) => block_on(bundle::run(bundle, shared)),
        Command::Svid(svid) => block_on(svid::run(svid, shared)),
        Command::Audit(audit) => block_on(audit::run(audit, shared)),
        Command::Explain(explain) => block_on(explain::run(explain, shared)),
        Command::Launch(launch) => block_on(launch::run(launch)),
        Command::Demo(demo) => block_on(demo::run(demo)),
        Command::Gate(gate) => launch::gate(gate),
        Command::Completions(completions) => completions::run(&completions),
        Command::Man => completions::man(),
    }
}

/// Runs a command on a runtime of its own.
pub(crate) fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::usage(format!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_background();
    outcome
}
