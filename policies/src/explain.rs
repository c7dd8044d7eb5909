//! Why a call was decided as it was; for a denial also which rule came closest, and what it lacked.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::attached::Attached;
use crate::call::{Call, HttpCall};
use crate::clause::{clause_matches, each_header, find_claim, is_skipped};
use crate::compile::WorkloadPolicies;
use crate::decision::{ALLOWED, Decision, NO_ALLOW_MATCHED, NO_POLICY, POLICY_DENIED, PolicyRef};
use crate::diagnostic::excerpt;
use crate::evaluate::decide;
use crate::object::Location;
use crate::schema::{Clause, Effect, Field, Rule};
use crate::source::small;

/// A decision with its reasons. `Display` is the text for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The same as `authorize_http` gives.
    pub decision: Decision,
    /// One line.
    pub reason: String,
    /// What held in the rule that decided.
    pub matched: Vec<String>,
    /// When no ALLOW matched: the rule that lacked least.
    pub nearest: Option<NearestMiss>,
    /// Policies that hold for the workload, `NAMESPACE/NAME (EFFECT)`.
    pub attached: Vec<String>,
}

/// The ALLOW rule that came closest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NearestMiss {
    /// Its policy.
    pub policy: PolicyRef,
    /// Its number, from 1.
    pub rule: u32,
    /// Where it stands.
    pub location: Location,
    /// What it lacked, one line a clause.
    pub missing: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.decision)?;
        writeln!(f, "  {}", self.reason)?;
        for line in &self.matched {
            writeln!(f, "  matched: {line}")?;
        }
        if let Some(nearest) = &self.nearest {
            writeln!(
                f,
                "  closest: {} rule {} at {}",
                nearest.policy, nearest.rule, nearest.location
            )?;
            for line in &nearest.missing {
                writeln!(f, "    lacks: {line}")?;
            }
        }
        match self.attached.as_slice() {
            [] => write!(f, "  no policy holds for this workload"),
            attached => write!(f, "  policies of this workload: {}", attached.join(", ")),
        }
    }
}

/// Decides and explains.
pub(crate) fn explain(policies: &WorkloadPolicies, call: Call<'_>) -> Explanation {
    let decision = decide(policies, call, None);
    let nearest = (decision.code == NO_ALLOW_MATCHED)
        .then(|| nearest_miss(policies, call))
        .flatten();
    Explanation {
        reason: reason(policies, &decision, nearest.as_ref(), call),
        matched: matched(policies, &decision, call),
        nearest,
        attached: policies
            .attached
            .iter()
            .map(|attached| attached_line(attached))
            .collect(),
        decision,
    }
}

fn attached_line(attached: &Attached) -> String {
    let mut marks = attached.effect.name().to_owned();
    if attached.is_dry_run {
        marks.push_str(", dry-run");
    }
    if !attached.window.is_always() {
        marks.push_str(", for a while");
    }
    format!("{} ({marks})", attached.policy)
}

fn reason(
    policies: &WorkloadPolicies,
    decision: &Decision,
    nearest: Option<&NearestMiss>,
    call: Call<'_>,
) -> String {
    let by = || match &decision.by {
        Some(by) => format!("rule {} of `{}` at {}", by.rule, by.policy, by.location),
        None => String::from("no rule"),
    };
    match decision.code {
        POLICY_DENIED => format!("a DENY policy matches: {}", by()),
        ALLOWED if decision.by.is_some() => format!("an ALLOW policy matches: {}", by()),
        ALLOWED => "no DENY policy matches and no ALLOW policy is attached".into(),
        NO_POLICY if decision.is_allowed => {
            "no policy holds for the workload and `unlistedCalls` is `allow`".into()
        }
        NO_POLICY => "no policy holds for the workload and `unlistedCalls` is `deny`".into(),
        _ => {
            let count = allowing(policies, call).count();
            let mut text = format!(
                "no rule of {count} attached ALLOW {} matches",
                if count == 1 { "policy" } else { "policies" }
            );
            if let Some(nearest) = nearest {
                let _ = write!(
                    text,
                    "; closest is rule {} of `{}`",
                    nearest.rule, nearest.policy
                );
                if let Some(first) = nearest.missing.first() {
                    let _ = write!(text, ": {first}");
                }
            }
            text
        }
    }
}

fn matched(policies: &WorkloadPolicies, decision: &Decision, call: Call<'_>) -> Vec<String> {
    let found = decision.by.as_ref().and_then(|by| {
        policies.attached.iter().find_map(|attached| {
            let index = attached
                .refs
                .iter()
                .position(|rule| Arc::ptr_eq(rule, by))?;
            Some((attached.effect, attached.rules.get(index)?))
        })
    });
    let Some((effect, rule)) = found else {
        return Vec::new();
    };
    let holds = |clause: &&Clause| clause_matches(clause, effect, call, policies.options);
    let alternative = |alternatives: &[Vec<Clause>]| -> Vec<String> {
        let found = alternatives
            .iter()
            .find(|clauses| clauses.iter().all(|clause| holds(&clause)));
        found
            .into_iter()
            .flatten()
            .map(|clause| describe(clause, call))
            .collect()
    };
    let mut lines = alternative(&rule.from);
    lines.extend(alternative(&rule.to));
    lines.extend(rule.when.iter().map(|clause| describe(clause, call)));
    if lines.is_empty() {
        lines.push("the rule has no condition".into());
    }
    lines
}

/// The ALLOW policies that are enforced at this moment.
fn allowing<'p>(
    policies: &'p WorkloadPolicies,
    call: Call<'_>,
) -> impl Iterator<Item = &'p Arc<Attached>> {
    policies.attached.iter().filter(move |attached| {
        attached.effect == Effect::Allow
            && !attached.is_dry_run
            && attached.window.contains(call.now())
    })
}

fn nearest_miss(policies: &WorkloadPolicies, call: Call<'_>) -> Option<NearestMiss> {
    allowing(policies, call)
        .flat_map(|attached| {
            attached
                .rules
                .iter()
                .enumerate()
                .map(move |(index, rule)| (attached, index, rule))
        })
        .map(|(attached, index, rule)| (missing(rule, policies, call), attached, index, rule))
        .min_by_key(|((count, _), _, _, _)| *count)
        .map(|((_, missing), attached, index, rule)| NearestMiss {
            policy: attached.policy.clone(),
            rule: small(index + 1),
            location: rule.location.clone(),
            missing,
        })
}

/// How much a rule lacks, and what. A wrong caller weighs more than a wrong operation.
fn missing(rule: &Rule, policies: &WorkloadPolicies, call: Call<'_>) -> (usize, Vec<String>) {
    if is_skipped(rule, Effect::Allow, call) {
        return (
            usize::MAX,
            vec![
                "the rule names something that only HTTP has, and this is a bare connection".into(),
            ],
        );
    }
    let failing = |clauses: &[Clause]| -> Vec<String> {
        clauses
            .iter()
            .filter(|clause| !clause_matches(clause, Effect::Allow, call, policies.options))
            .map(|clause| describe(clause, call))
            .collect()
    };
    let best = |alternatives: &[Vec<Clause>]| -> Vec<String> {
        alternatives
            .iter()
            .map(|clauses| failing(clauses))
            .min_by_key(Vec::len)
            .unwrap_or_default()
    };
    let (from, to, when) = (best(&rule.from), best(&rule.to), failing(&rule.when));
    (
        3 * from.len() + 2 * to.len() + 2 * when.len(),
        [from, to, when].concat(),
    )
}

fn describe(clause: &Clause, call: Call<'_>) -> String {
    let wanted: Vec<&str> = clause.values.iter().map(String::as_str).take(4).collect();
    let more = if clause.values.len() > 4 { ", .." } else { "" };
    let verb = if clause.is_negative {
        "none of"
    } else {
        "one of"
    };
    excerpt_line(format!(
        "`{}` wants {verb} [{}{more}]; the call has {}",
        clause.name,
        wanted.join(", "),
        actual(clause, call)
    ))
}

fn excerpt_line(text: String) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn actual(clause: &Clause, call: Call<'_>) -> String {
    let connection = call.connection();
    let id = connection.principal.as_ref();
    let shown = |value: Option<&str>| {
        value.map_or_else(
            || "none".to_owned(),
            |value| format!("`{}`", excerpt(value)),
        )
    };
    match (&clause.field, call) {
        (Field::Principal | Field::Namespace | Field::ServiceAccount | Field::TrustDomain, _) => id
            .map_or_else(
                || "no peer identity (plain text)".into(),
                |id| shown(Some(id.as_str())),
            ),
        (Field::SourceAddress, _) => shown(Some(&connection.source_ip.to_string())),
        (Field::RemoteAddress, _) => shown(Some(&connection.remote_ip.to_string())),
        (Field::DestinationAddress, _) => shown(Some(&connection.destination_ip.to_string())),
        (Field::DestinationPort, _) => shown(Some(&connection.destination_port.to_string())),
        (Field::ServerName, _) => shown(connection.sni.as_deref()),
        (_, Call::Tcp(..)) => "no request (a bare connection)".into(),
        (field, Call::Http(http)) => actual_http(field, http),
    }
}

fn actual_http(field: &Field, call: &HttpCall<'_>) -> String {
    let identity = call.identity;
    let shown = |value: Option<&str>| {
        value.map_or_else(
            || "none".to_owned(),
            |value| format!("`{}`", excerpt(value)),
        )
    };
    match field {
        Field::Host => shown(Some(call.host)),
        Field::Method => shown(Some(call.method)),
        Field::Path => shown(Some(call.path.path())),
        Field::RequestPrincipal if identity.principal.is_none() => "no accepted token".into(),
        Field::RequestPrincipal => shown(identity.principal.as_deref()),
        Field::Presenter => shown(identity.presenter.as_deref()),
        Field::Audience if identity.audiences.is_empty() => "none".into(),
        Field::Audience => shown(Some(&identity.audiences.join(", "))),
        Field::Claim(steps) => {
            let claim = identity
                .claims
                .as_deref()
                .and_then(|claims| find_claim(claims, steps));
            shown(claim.map(Value::to_string).as_deref())
        }
        Field::Header(name) if is_secret_header(name) => "a value that is not shown".into(),
        // The query may carry a token (rule 72).
        Field::Header(name) if name == ":path" => shown(Some(call.path.path())),
        Field::Header(name) => {
            let mut values = Vec::new();
            each_header(call, name, &mut |value| {
                values.push(String::from_utf8_lossy(value).into_owned());
            });
            shown((!values.is_empty()).then(|| values.join(", ")).as_deref())
        }
        Field::Principal
        | Field::Namespace
        | Field::ServiceAccount
        | Field::TrustDomain
        | Field::SourceAddress
        | Field::RemoteAddress
        | Field::DestinationAddress
        | Field::DestinationPort
        | Field::ServerName => String::new(),
    }
}

/// A name by which tokens and passwords travel; the explanation ends up in logs (threat 41).
fn is_secret_header(name: &str) -> bool {
    const PARTS: [&str; 9] = [
        "auth",
        "cookie",
        "credential",
        "jwt",
        "key",
        "password",
        "secret",
        "session",
        "token",
    ];
    PARTS.iter().any(|part| name.contains(part))
}
