//! Runs the cases of every PolicyTest against the compiled policies of their workload.

use std::fmt;
use std::fmt::Write as _;

use serde::Serialize;

use crate::authenticate::identity_of_claims;
use crate::call::{Connection, HttpCall, RequestIdentity};
use crate::compile::WorkloadPolicies;
use crate::explain::Explanation;
use crate::object::Location;
use crate::schema::{Expectation, PolicyTest, TestCase};
use crate::set::MeshSet;

/// What became of all cases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestReport {
    /// In the order of the files' objects.
    pub cases: Vec<CaseReport>,
}

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseReport {
    /// `NAMESPACE/NAME` of the PolicyTest.
    pub test: String,
    /// The case's name.
    pub case: String,
    /// Where it stands.
    pub location: Location,
    /// As expected?
    pub is_passed: bool,
    /// `allow`, `deny` or `refuse`, with policy and rule where the case names them.
    pub expected: String,
    /// What was decided.
    pub actual: String,
    /// Why, in full; for a path that is not judged, the refusal.
    pub explanation: String,
}

impl TestReport {
    /// True when every case is as expected.
    pub fn is_passed(&self) -> bool {
        self.cases.iter().all(|case| case.is_passed)
    }

    /// Cases that are not as expected.
    pub fn failed(&self) -> usize {
        self.cases.iter().filter(|case| !case.is_passed).count()
    }
}

impl fmt::Display for TestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in &self.cases {
            let mark = if case.is_passed { "ok  " } else { "FAIL" };
            writeln!(f, "{mark} {} / {}: {}", case.test, case.case, case.actual)?;
            if !case.is_passed {
                writeln!(f, "     expected {} at {}", case.expected, case.location)?;
                for line in case.explanation.lines() {
                    writeln!(f, "     {line}")?;
                }
            }
        }
        write!(f, "{} cases, {} failed", self.cases.len(), self.failed())
    }
}

/// Runs every case of the set.
pub fn run_tests(set: &MeshSet) -> TestReport {
    let mut report = TestReport { cases: Vec::new() };
    for test in &set.tests {
        match WorkloadPolicies::compile(set, &set.workload(&test.workload), 0) {
            Ok(policies) => report.cases.extend(
                test.cases
                    .iter()
                    .map(|case| run_case(&policies, test, case)),
            ),
            Err(error) => report.cases.extend(test.cases.iter().map(|case| {
                let outcome = Outcome {
                    verdict: None,
                    actual: "not judged".into(),
                    explanation: error.to_string(),
                };
                judge(test, case, outcome)
            })),
        }
    }
    report
}

struct Outcome {
    verdict: Option<Expectation>,
    actual: String,
    explanation: String,
}

fn run_case(policies: &WorkloadPolicies, test: &PolicyTest, case: &TestCase) -> CaseReport {
    let connection = Connection {
        principal: case.from.clone(),
        source_ip: case.source_ip,
        remote_ip: case.remote_ip,
        destination_ip: case.destination_ip,
        destination_port: case.port,
        sni: case.sni.clone(),
    };
    if case.is_tcp {
        return explained(test, case, &policies.explain_tcp(&connection, case.at));
    }
    let path = match policies.normalize(&case.path) {
        Ok(path) => path,
        Err(refusal) => {
            let outcome = Outcome {
                verdict: Some(Expectation::Refuse),
                actual: format!("refuse ({})", refusal.code()),
                explanation: refusal.to_string(),
            };
            return judge(test, case, outcome);
        }
    };
    let identity = case
        .claims
        .as_ref()
        .map_or_else(RequestIdentity::default, |claims| {
            identity_of_claims(claims.clone(), &[])
        });
    let call = HttpCall {
        connection: &connection,
        method: &case.method,
        host: &case.host,
        path: &path,
        headers: &case.headers,
        identity: &identity,
        now: case.at,
    };
    explained(test, case, &policies.explain_http(&call))
}

fn explained(test: &PolicyTest, case: &TestCase, explanation: &Explanation) -> CaseReport {
    let decision = &explanation.decision;
    let is_named = case.policy.as_ref().is_none_or(|wanted| {
        decision.by.as_ref().is_some_and(|by| {
            let policy = &by.policy;
            *wanted == policy.to_string()
                || (*wanted == *policy.name && *policy.namespace == test.metadata.namespace)
        })
    });
    let is_rule = case
        .rule
        .is_none_or(|wanted| decision.by.as_ref().is_some_and(|by| by.rule == wanted));
    let verdict = if decision.is_allowed {
        Expectation::Allow
    } else {
        Expectation::Deny
    };
    let outcome = Outcome {
        verdict: (is_named && is_rule).then_some(verdict),
        actual: decision.to_string(),
        explanation: explanation.to_string(),
    };
    judge(test, case, outcome)
}

fn judge(test: &PolicyTest, case: &TestCase, outcome: Outcome) -> CaseReport {
    let mut expected = match case.expect {
        Expectation::Allow => "allow",
        Expectation::Deny => "deny",
        Expectation::Refuse => "refuse",
    }
    .to_owned();
    if let Some(policy) = &case.policy {
        let _ = write!(expected, " by {policy}");
    }
    if let Some(rule) = case.rule {
        let _ = write!(expected, " rule {rule}");
    }
    CaseReport {
        test: format!("{}/{}", test.metadata.namespace, test.metadata.name),
        case: case.name.clone(),
        location: case.location.clone(),
        is_passed: outcome.verdict == Some(case.expect),
        expected,
        actual: outcome.actual,
        explanation: outcome.explanation,
    }
}
