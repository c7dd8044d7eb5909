//! Prints decisions as they happen, from the decision log of the CA.

use super::start::RunningMesh;
use crate::exit::Outcome;
use crate::limits;
use crate::output::{escape_text, now};
use owo_colors::OwoColorize as _;
use ravelin_proto::pb::ravelin::v1::{AuditQuery, AuditRecord};
use ravelin_proto::time::Timestamp;
use serde_json::Value;

/// Follows the decision log until it is dropped; a CA that is away is asked again.
pub(crate) async fn follow(running: &RunningMesh, since_ms: i64) -> Outcome {
    say!("decisions as they happen (Ctrl-C ends the mesh):")?;
    let mut since_ms = since_ms;
    loop {
        if let Ok(ca) = running.connect_ca().await {
            let query = AuditQuery {
                since_ms,
                log: "decision".to_owned(),
                follow: true,
                ..AuditQuery::default()
            };
            if let Ok(stream) = ca.audit().query(query).await {
                let mut stream = stream.into_inner();
                while let Ok(Some(record)) = stream.message().await {
                    since_ms = since_ms.max(record.time_ms.saturating_add(1));
                    say!("{}", line(&record))?;
                }
            }
        }
        since_ms = since_ms.min(now().unix_millis());
        tokio::time::sleep(limits::FOLLOW_PAUSE).await;
    }
}

/// One decision as one line.
pub(crate) fn line(record: &AuditRecord) -> String {
    let decision: Value = serde_json::from_str(&record.json).unwrap_or(Value::Null);
    let text = |key: &str| {
        let value = decision
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default();
        escape_text(value)
    };
    let is_allowed = decision
        .get("is_allowed")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let word = if is_allowed {
        "allow".green().to_string()
    } else {
        "deny ".red().to_string()
    };
    let time = Timestamp::from_unix_millis(record.time_ms);
    let call = match text("protocol").as_str() {
        "http" => format!("{} {}", text("method"), text("path")),
        other => other.to_owned(),
    };
    let peer = text("peer");
    let peer = if peer.is_empty() {
        "(no identity)".to_owned()
    } else {
        peer
    };
    format!(
        "{time} {word} {} -> {}  {call}  {}  {}",
        short(&peer),
        short(&text("workload")),
        text("code"),
        deciding_rule(&decision),
    )
}

/// Policy and rule that decided, or a dash.
pub(crate) fn deciding_rule(decision: &Value) -> String {
    let mut rule = named_rule(decision);
    if decision.get("is_audited").and_then(Value::as_bool) == Some(true) {
        rule.push_str(", audited");
    }
    if let Some(dry_run) = decision.get("dry_run") {
        let is_allowed = dry_run.get("is_allowed").and_then(Value::as_bool) == Some(true);
        let answer = if is_allowed { "allowed" } else { "denied" };
        rule.push_str("; dry run: ");
        rule.push_str(answer);
        rule.push_str(" by ");
        rule.push_str(&named_rule(dry_run));
    }
    rule
}

fn named_rule(decision: &Value) -> String {
    let policy = decision
        .get("policy")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let rule = decision.get("rule").and_then(Value::as_u64).unwrap_or(0);
    match (policy, rule) {
        ("", _) => "-".to_owned(),
        (policy, 0) => escape_text(policy),
        (policy, rule) => format!("{} rule {rule}", escape_text(policy)),
    }
}

/// The last segment of a SPIFFE ID.
fn short(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_decision_names_its_policy_and_rule() {
        let table = [
            (json!({"policy": "shop/a", "rule": 2}), "shop/a rule 2"),
            (json!({"policy": "shop/a", "rule": 0}), "shop/a"),
            (json!({"policy": "", "rule": 0}), "-"),
            (
                json!({"policy": "shop/a", "rule": 2, "is_audited": true}),
                "shop/a rule 2, audited",
            ),
            (
                json!({"policy": "shop/a", "rule": 2, "dry_run": {"is_allowed": false, "policy": "shop/b", "rule": 1}}),
                "shop/a rule 2; dry run: denied by shop/b rule 1",
            ),
            (json!({}), "-"),
        ];
        for (decision, want) in table {
            assert_eq!(deciding_rule(&decision), want);
        }
    }

    #[test]
    fn a_line_cannot_be_forged_by_a_path() {
        let record = AuditRecord {
            json: json!({"protocol": "http", "method": "GET", "path": "/a\n2026 allow", "workload": "spiffe://x/y"}).to_string(),
            ..AuditRecord::default()
        };
        assert!(!line(&record).contains('\n'));
    }
}
