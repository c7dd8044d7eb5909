//! `ravelin up --tour`: real calls through the proxies of the example shop, each with its declared outcome.
//!
//! The calls are made by the shop's own services. What decided is read from the decision log, not from the answers: the
//! proxies do not tell a caller why it was refused.

mod calls;
mod decisions;
mod report;
mod steps;
mod strangers;

use crate::commands::svid_mint;
use crate::exit::{Exit, Failure, Outcome};
use crate::limits;
use crate::output::now;
use crate::up::{RunningMesh, UpPlan};
use ravelin_proto::time::Timestamp;
use steps::{Action, STEPS, Step, Token};

/// What one step came to.
#[derive(Debug, Clone, Default)]
struct Actual {
    /// Status code; 0 where the connection was closed instead.
    status: u16,
    /// What the caller saw, for a person.
    seen: String,
    /// `x-request-id` of the call; empty where none got through.
    request_id: String,
    /// Local address of a connection without a call.
    source: String,
    /// The mesh could not even be asked.
    is_broken: bool,
}

/// Refuses a mesh that the tour does not know.
pub(crate) fn check_mesh(plan: &UpPlan) -> Result<(), Failure> {
    for name in ["orders", "inventory", "payments", "notifications"] {
        if plan.service(name).is_none() {
            return Err(Failure::usage(format!(
                "the tour calls `{name}`, and this mesh has no such workload"
            ))
            .with_help("--tour is for the example shop, policies/examples/shop"));
        }
    }
    Ok(())
}

/// Makes the calls and prints the table. `Exit::No` when an outcome was not as declared.
pub(crate) async fn run(running: &RunningMesh) -> Outcome {
    let started = now();
    let ca = running.connect_ca().await?;
    let orders = &service(running.plan(), "orders")?.spiffe_id;
    let (token, expires_at) = svid_mint::jwt(&ca, orders, vec!["payments".to_owned()], 1).await?;
    let expires_at = Timestamp::from_unix_secs(expires_at);

    say!("the tour: {} calls through the proxies ...", STEPS.len())?;
    let mut outcomes: Vec<(&Step, Actual)> = Vec::new();
    let mut late = Vec::new();
    for step in &STEPS {
        if matches!(
            step.action,
            Action::Call {
                token: Token::Expired,
                ..
            }
        ) {
            late.push(step);
        } else {
            outcomes.push((step, calls::make(running, step, None).await?));
        }
    }
    if !late.is_empty() {
        wait_until_expired(expires_at).await?;
    }
    for step in late {
        outcomes.push((step, calls::make(running, step, Some(token.clone())).await?));
    }
    outcomes.sort_by_key(|(step, _)| step.number);
    let decisions = decisions::find(&ca, &outcomes, running.plan(), started).await?;
    let is_as_declared = report::print(&outcomes, &decisions)?;
    Ok(if is_as_declared { Exit::Yes } else { Exit::No })
}

fn service<'a>(plan: &'a UpPlan, name: &str) -> Result<&'a crate::up::Service, Failure> {
    plan.service(name)
        .ok_or_else(|| Failure::usage(format!("the mesh has no workload `{name}`")))
}

/// The shop allows a clock skew of one second; one more so that no rounding decides.
async fn wait_until_expired(expires_at: Timestamp) -> Result<(), Failure> {
    let over = expires_at.plus(std::time::Duration::from_secs(2));
    let wait = over.since(now());
    if wait > limits::TOKEN_EXPIRY_DEADLINE {
        return Err(Failure::no(format!(
            "the CA gave a token that lives until {expires_at}; the tour asked for one second"
        )));
    }
    tokio::time::sleep(wait).await;
    Ok(())
}
