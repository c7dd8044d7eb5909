//! The tour's table: each call with its expected and actual outcome and the deciding rule.

use super::Actual;
use super::decisions::Decisions;
use super::steps::Step;
use crate::exit::Failure;
use crate::output::{escape_text, table};
use crate::up::deciding_rule;
use owo_colors::OwoColorize as _;
use serde_json::Value;

/// Prints the table. True when every outcome was as declared.
pub(super) fn print(outcomes: &[(&Step, Actual)], decisions: &Decisions) -> Result<bool, Failure> {
    let mut rows = table::empty();
    rows.set_header(["#", "CALL", "EXPECTED", "ACTUAL", "DECIDED BY", ""]);
    let mut failed = Vec::new();
    for (step, actual) in outcomes {
        let decision = decisions.get(&step.number);
        let is_right = is_as_declared(step, actual, decision);
        if !is_right {
            failed.push(step.number);
        }
        rows.add_row([
            step.number.to_string(),
            step.title.to_owned(),
            outcome(step.status, step.code),
            actual_text(actual, decision),
            decision.map_or_else(|| "no record in the decision log".to_owned(), decided_by),
            if is_right {
                "as declared".to_owned()
            } else {
                "NOT AS DECLARED".to_owned()
            },
        ]);
    }
    say!("\n{}", table::finished(&rows))?;
    for (step, _) in outcomes {
        let reason = decisions
            .get(&step.number)
            .and_then(|decision| decision.get("reason"))
            .and_then(Value::as_str);
        if let Some(reason) = reason.filter(|reason| !reason.is_empty()) {
            say!("  {}  {}", step.number, escape_text(reason))?;
        }
    }
    if failed.is_empty() {
        say!(
            "\n{}",
            format!("all {} outcomes were as declared", outcomes.len())
                .green()
                .bold()
        )?;
    } else {
        let numbers: Vec<String> = failed.iter().map(ToString::to_string).collect();
        say!(
            "\n{}",
            format!("not as declared: {}", numbers.join(", "))
                .red()
                .bold()
        )?;
    }
    Ok(failed.is_empty())
}

fn is_as_declared(step: &Step, actual: &Actual, decision: Option<&Value>) -> bool {
    let Some(decision) = decision else {
        return false;
    };
    let text = |key: &str| {
        decision
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let is_allowed = decision.get("is_allowed").and_then(Value::as_bool);
    !actual.is_broken
        && actual.status == step.status
        && is_allowed == Some(step.status == 200)
        && text("code") == step.code
        && text("policy") == step.policy
}

fn outcome(status: u16, code: &str) -> String {
    match status {
        0 => format!("closed, {code}"),
        status => format!("{status} {code}"),
    }
}

fn actual_text(actual: &Actual, decision: Option<&Value>) -> String {
    if actual.is_broken {
        return escape_text(&actual.seen);
    }
    let code = decision
        .and_then(|decision| decision.get("code"))
        .and_then(Value::as_str);
    outcome(actual.status, &escape_text(code.unwrap_or(&actual.seen)))
}

fn decided_by(decision: &Value) -> String {
    match deciding_rule(decision).as_str() {
        "-" => without_rule(decision).to_owned(),
        rule => rule.to_owned(),
    }
}

/// What decided where no rule did.
fn without_rule(decision: &Value) -> &'static str {
    let text = |key: &str| {
        decision
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let code = text("code");
    if text("protocol") == "tls" {
        "mutual TLS"
    } else if code.starts_with("token_") {
        "RequestAuthentication"
    } else if code.starts_with("path_") {
        "path normalization"
    } else {
        "no ALLOW rule matches"
    }
}
