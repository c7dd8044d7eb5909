//! Rules that change nothing, proven by the analysis for every workload that the folder names as a WorkloadIdentity.
//! Rules of workloads that have something which the analysis refuses by name, such as a reference, are not compared.

use super::{Findings, Mesh};
use crate::analyze::{AnalyzeError, IdleRule, Idleness, redundancy};

/// Rules that never match, and those that others cover or take everything from.
pub(super) fn idle_rules(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    let report = redundancy(mesh.set);
    for rule in &report.idle {
        let (message, help) = told(rule);
        findings.warn("idle-rule", &rule.location, message, help);
    }
    let over: Vec<_> = report
        .unanswered
        .iter()
        .filter(|one| matches!(one.error, AnalyzeError::OverBudget(_)))
        .collect();
    let Some(first) = over.first() else { return };
    let others = match over.len() {
        1 => String::new(),
        count => format!(" and of {} more", count - 1),
    };
    findings.warn_set(
        "analysis-over-budget",
        format!(
            "rules without effect were not looked for among those of `{}`{others}: {}",
            first.workload, first.error
        ),
        "fewer rules or shorter lists for one workload; what is decided is not concerned",
    );
}

/// What is idle, with the rules that prove it.
fn told(idle: &IdleRule) -> (String, &'static str) {
    let (policy, rule) = (&idle.policy, idle.rule);
    match &idle.reason {
        Idleness::NeverMatches => (
            format!("rule {rule} of `{policy}` never matches a request"),
            "two of its conditions exclude each other, or no request has such a value: methods are in upper case, \
             hosts in lower case, paths normalized; mend it, or remove the rule and keep an ALLOW policy without rules",
        ),
        Idleness::Covered(by) => (
            format!(
                "rule {rule} of `{policy}` changes nothing: all that it matches is matched by {}",
                by.join(", ")
            ),
            "remove it, or narrow the rules that cover it",
        ),
        Idleness::Denied(by) => (
            format!(
                "rule {rule} of `{policy}` allows nothing: all that it matches is denied by {}",
                by.join(", ")
            ),
            "narrow the rules that deny it, or remove the rule and keep an ALLOW policy without rules",
        ),
    }
}
