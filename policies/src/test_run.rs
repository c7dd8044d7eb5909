//! Runs the cases of every PolicyTest against the compiled policies of their workload.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

use crate::analyze::partial::PartialCall;
use crate::authenticate::identity_of_claims;
use crate::call::{Connection, HttpCall, RequestIdentity};
use crate::compile::WorkloadPolicies;
use crate::decision::{CustomCheck, RuleRef};
use crate::explain::Explanation;
use crate::object::Location;
use crate::path::PathRefusal;
use crate::schema::{Expectation, ExpectedCheck, PolicyTest, TestCase};
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
    /// `allow`, `deny` or `refuse`, with all else that the case names.
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
                let actual = "not judged".to_owned();
                let outcome = Outcome::refused(None, "", actual, error.to_string());
                judge(test, case, outcome)
            })),
        }
    }
    report
}

/// What was decided, with all that a case may name.
struct Outcome {
    verdict: Option<Expectation>,
    code: String,
    by: Option<Arc<RuleRef>>,
    is_audited: bool,
    shadow: Option<Expectation>,
    /// Whom a CUSTOM policy asks first.
    custom: Option<String>,
    actual: String,
    explanation: String,
}

impl Outcome {
    fn refused(verdict: Option<Expectation>, code: &str, actual: String, why: String) -> Self {
        Self {
            verdict,
            code: code.to_owned(),
            by: None,
            is_audited: false,
            shadow: None,
            custom: None,
            actual,
            explanation: why,
        }
    }

    fn new(explanation: &Explanation, custom: CustomCheck) -> Self {
        let decision = &explanation.decision;
        let word = |is_allowed| {
            if is_allowed {
                Expectation::Allow
            } else {
                Expectation::Deny
            }
        };
        let mut outcome = Self {
            verdict: Some(word(decision.is_allowed)),
            code: decision.code.to_owned(),
            by: decision.by.clone(),
            is_audited: decision.is_audited,
            shadow: decision
                .shadow
                .as_ref()
                .map(|shadow| word(shadow.is_allowed)),
            custom: None,
            actual: decision.to_string(),
            explanation: explanation.to_string(),
        };
        match custom {
            CustomCheck::NotNeeded => {}
            CustomCheck::Ask { provider, by } => {
                let _ = write!(outcome.actual, "; asks `{}` first, by {by}", provider.name);
                outcome.custom = Some(provider.name.clone());
            }
            // There is nobody to ask (rule 61).
            CustomCheck::Refuse { code, by } => {
                outcome.verdict = Some(Expectation::Deny);
                outcome.actual = format!("deny ({code}) by {by}");
                code.clone_into(&mut outcome.code);
                outcome.by = Some(by);
            }
        }
        outcome
    }
}

fn connection_of(case: &TestCase) -> Connection {
    Connection {
        principal: case.from.clone(),
        source_ip: case.source_ip,
        remote_ip: case.remote_ip,
        destination_ip: case.destination_ip,
        destination_port: case.port,
        sni: case.sni.clone(),
    }
}

/// Hands the call of a case to `judge`; `Err` when its path is not even judged.
fn with_request<T>(
    policies: &WorkloadPolicies,
    case: &TestCase,
    judge: impl FnOnce(&HttpCall<'_>) -> T,
) -> Result<T, PathRefusal> {
    let path = policies.normalize(&case.path)?;
    let identity = case
        .claims
        .as_ref()
        .map_or_else(RequestIdentity::default, |claims| {
            identity_of_claims(claims.clone(), &[])
        });
    Ok(judge(&HttpCall {
        connection: &connection_of(case),
        method: &case.method,
        host: &case.host,
        path: &path,
        headers: &case.headers,
        identity: &identity,
        now: case.at,
    }))
}

/// The call of a case, for coverage; `None` when its path is not even judged.
pub(crate) fn case_call(policies: &WorkloadPolicies, case: &TestCase) -> Option<PartialCall> {
    if case.is_tcp {
        return Some(PartialCall::of_connection(connection_of(case), case.at));
    }
    let call = |call: &HttpCall<'_>| PartialCall::of_request(call, case.headers.clone());
    with_request(policies, case, call).ok()
}

fn run_case(policies: &WorkloadPolicies, test: &PolicyTest, case: &TestCase) -> CaseReport {
    if case.is_tcp {
        let connection = connection_of(case);
        let outcome = Outcome::new(
            &policies.explain_tcp(&connection, case.at),
            policies.custom_tcp(&connection, case.at),
        );
        return judge(test, case, outcome);
    }
    let outcome = with_request(policies, case, |call| {
        Outcome::new(&policies.explain_http(call), policies.custom_http(call))
    });
    let outcome = outcome.unwrap_or_else(|refusal| {
        let actual = format!("refuse ({})", refusal.code());
        let why = refusal.to_string();
        Outcome::refused(Some(Expectation::Refuse), refusal.code(), actual, why)
    });
    judge(test, case, outcome)
}

fn word(expectation: Expectation) -> &'static str {
    match expectation {
        Expectation::Allow => "allow",
        Expectation::Deny => "deny",
        Expectation::Refuse => "refuse",
    }
}

/// Holds what a case names against what came out: each expectation as text, and whether it is met.
fn expectations(test: &PolicyTest, case: &TestCase, outcome: &Outcome) -> Vec<(String, bool)> {
    let mut all = vec![(
        word(case.expect).to_owned(),
        outcome.verdict == Some(case.expect),
    )];
    if let Some(wanted) = &case.policy {
        let is_met = outcome.by.as_ref().is_some_and(|by| {
            let policy = &by.policy;
            *wanted == policy.to_string()
                || (*wanted == *policy.name && *policy.namespace == test.metadata.namespace)
        });
        all.push((format!("by {wanted}"), is_met));
    }
    if let Some(wanted) = case.rule {
        let is_met = outcome.by.as_ref().is_some_and(|by| by.rule == wanted);
        all.push((format!("rule {wanted}"), is_met));
    }
    if let Some(wanted) = &case.code {
        all.push((format!("code {wanted}"), outcome.code == *wanted));
    }
    if let Some(wanted) = case.audited {
        let text = if wanted { "audited" } else { "not audited" };
        all.push((text.to_owned(), outcome.is_audited == wanted));
    }
    if let Some(wanted) = case.shadow {
        let text = format!("with dry-run policies {}", word(wanted));
        all.push((text, outcome.shadow == Some(wanted)));
    }
    match &case.custom {
        None => {}
        Some(ExpectedCheck::Nobody) => {
            all.push(("asking nobody".to_owned(), outcome.custom.is_none()));
        }
        Some(ExpectedCheck::Provider(name)) => {
            let is_met = outcome.custom.as_ref() == Some(name);
            all.push((format!("asking `{name}` first"), is_met));
        }
    }
    all
}

fn judge(test: &PolicyTest, case: &TestCase, outcome: Outcome) -> CaseReport {
    let expectations = expectations(test, case, &outcome);
    let expected: Vec<&str> = expectations.iter().map(|(text, _)| text.as_str()).collect();
    CaseReport {
        test: format!("{}/{}", test.metadata.namespace, test.metadata.name),
        case: case.name.clone(),
        location: case.location.clone(),
        is_passed: expectations.iter().all(|(_, is_met)| *is_met),
        expected: expected.join(" "),
        actual: outcome.actual,
        explanation: outcome.explanation,
    }
}
