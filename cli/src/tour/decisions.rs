//! Finds the decision of each call in the decision log of the CA.

use super::steps::Step;
use super::{Actual, service};
use crate::connection::Ca;
use crate::exit::Failure;
use crate::limits;
use crate::up::UpPlan;
use ravelin_proto::pb::ravelin::v1::AuditQuery;
use ravelin_proto::time::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

/// Decisions by number of the step; a step without one has none in the log.
pub(super) type Decisions = BTreeMap<u32, Value>;

/// Follows the log until each step has its decision, or the deadline has passed.
pub(super) async fn find(
    ca: &Ca,
    outcomes: &[(&Step, Actual)],
    plan: &UpPlan,
    since: Timestamp,
) -> Result<Decisions, Failure> {
    let query = AuditQuery {
        since_ms: since.unix_millis(),
        log: "decision".to_owned(),
        follow: true,
        ..AuditQuery::default()
    };
    let mut stream = ca
        .audit()
        .query(query)
        .await
        .map_err(|status| Failure::status("read the decision log", &status))?
        .into_inner();
    let mut found = Decisions::new();
    let deadline = tokio::time::Instant::now() + limits::DECISION_DEADLINE;
    while found.len() < outcomes.len() {
        let Ok(next) = tokio::time::timeout_at(deadline, stream.message()).await else {
            break;
        };
        let record = next.map_err(|status| Failure::status("read the decision log", &status))?;
        let Some(record) = record else { break };
        let Ok(decision) = serde_json::from_str::<Value>(&record.json) else {
            continue;
        };
        for (step, actual) in outcomes {
            if !found.contains_key(&step.number) && is_of(&decision, step, actual, plan) {
                found.insert(step.number, decision.clone());
            }
        }
    }
    Ok(found)
}

/// A call is known by its id, a connection without a call by its source address.
fn is_of(decision: &Value, step: &Step, actual: &Actual, plan: &UpPlan) -> bool {
    let text = |key: &str| {
        decision
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let is_judge = service(plan, step.to).is_ok_and(|to| text("workload") == to.spiffe_id.as_str());
    let is_call = !actual.request_id.is_empty() && text("call_id") == actual.request_id;
    let is_connection = !actual.source.is_empty() && text("source_address") == actual.source;
    is_judge && (is_call || is_connection)
}
