//! Judging: DENY first, then ALLOW; inside a rule clauses, inside a clause patterns (rules 1 to 8, 20 to 22).
//!
//! Nothing here allocates. Where a header has several values, an ALLOW needs all of them and a DENY any (rule 45).

use std::net::IpAddr;

use ravelin_proto::spiffe_id::SpiffeId;
use serde_json::{Map, Value};

use crate::call::{Call, HttpCall};
use crate::compile::{Attached, Options, WorkloadPolicies};
use crate::decision::{ALLOWED, Decision, NO_ALLOW_MATCHED, NO_POLICY, POLICY_DENIED};
use crate::schema::{Clause, Effect, Field, Rule};
use crate::source::small;

/// The decision on a call.
pub(crate) fn decide(policies: &WorkloadPolicies, call: Call<'_>) -> Decision {
    let answer = |is_allowed, code, by: Option<(&Attached, usize, &Rule)>| Decision {
        is_allowed,
        code,
        policy: by.map(|(attached, _, _)| attached.policy.clone()),
        rule: by.map(|(_, index, _)| small(index + 1)),
        revision: policies.revision,
        location: by.map(|(_, _, rule)| rule.location.clone()),
    };
    if let Some(by) = first_match(&policies.deny, Effect::Deny, call, policies.options) {
        return answer(false, POLICY_DENIED, Some(by));
    }
    if !policies.allow.is_empty() {
        return match first_match(&policies.allow, Effect::Allow, call, policies.options) {
            Some(by) => answer(true, ALLOWED, Some(by)),
            None => answer(false, NO_ALLOW_MATCHED, None),
        };
    }
    if policies.deny.is_empty() {
        return answer(policies.options.are_unlisted_calls_allowed, NO_POLICY, None);
    }
    answer(true, ALLOWED, None)
}

fn first_match<'p>(
    policies: &'p [Attached],
    effect: Effect,
    call: Call<'_>,
    options: Options,
) -> Option<(&'p Attached, usize, &'p Rule)> {
    policies.iter().find_map(|attached| {
        let (index, rule) = attached
            .rules
            .iter()
            .enumerate()
            .find(|(_, rule)| rule_matches(rule, effect, call, options))?;
        Some((attached, index, rule))
    })
}

/// Is the rule skipped? An ALLOW rule with an HTTP field, on TCP (rule 54).
pub(crate) fn is_skipped(rule: &Rule, effect: Effect, call: Call<'_>) -> bool {
    matches!(call, Call::Tcp(_))
        && effect == Effect::Allow
        && rule.clauses().any(|clause| clause.field.is_http_only())
}

fn rule_matches(rule: &Rule, effect: Effect, call: Call<'_>, options: Options) -> bool {
    let all = |clauses: &Vec<Clause>| {
        clauses
            .iter()
            .all(|clause| clause_matches(clause, effect, call, options))
    };
    !is_skipped(rule, effect, call)
        && (rule.from.is_empty() || rule.from.iter().any(all))
        && (rule.to.is_empty() || rule.to.iter().any(all))
        && all(&rule.when)
}

/// Does one clause hold?
pub(crate) fn clause_matches(
    clause: &Clause,
    effect: Effect,
    call: Call<'_>,
    options: Options,
) -> bool {
    match call {
        // A DENY on TCP drops what exists for HTTP alone, and so gets wider (rule 56).
        Call::Tcp(_) if clause.field.is_http_only() => effect == Effect::Deny,
        Call::Http(http) => match http_fact(clause, effect, http, options) {
            Some(holds) => holds,
            None => connection_fact(clause, call) != clause.is_negative,
        },
        Call::Tcp(_) => connection_fact(clause, call) != clause.is_negative,
    }
}

/// Whether any pattern matches what the connection tells.
fn connection_fact(clause: &Clause, call: Call<'_>) -> bool {
    let connection = call.connection();
    let id = connection.principal.as_ref();
    let text = |value: Option<&str>| value.is_some_and(|value| any_text(clause, value.as_bytes()));
    let address = |address: IpAddr| {
        clause
            .patterns
            .iter()
            .any(|pattern| pattern.matches_address(address))
    };
    match &clause.field {
        Field::Principal => text(id.and_then(|id| id.as_str().strip_prefix("spiffe://"))),
        Field::TrustDomain => text(id.map(SpiffeId::trust_domain_str)),
        Field::Namespace => id.is_some_and(|id| {
            clause
                .patterns
                .iter()
                .any(|pattern| pattern.matches_namespace(id.path()))
        }),
        Field::ServiceAccount => id.is_some_and(|id| {
            clause
                .patterns
                .iter()
                .any(|pattern| pattern.matches_service_account(id.path()))
        }),
        Field::SourceAddress => address(connection.source_ip),
        Field::RemoteAddress => address(connection.remote_ip),
        Field::DestinationAddress => address(connection.destination_ip),
        Field::DestinationPort => clause
            .patterns
            .iter()
            .any(|pattern| pattern.matches_port(connection.destination_port)),
        Field::ServerName => text(connection.sni.as_deref()),
        Field::RequestPrincipal
        | Field::Host
        | Field::Method
        | Field::Path
        | Field::Header(_)
        | Field::Audience
        | Field::Presenter
        | Field::Claim(_) => false,
    }
}

/// Whether the clause holds for what the request tells; `None` when it is about the connection.
fn http_fact(
    clause: &Clause,
    effect: Effect,
    call: &HttpCall<'_>,
    options: Options,
) -> Option<bool> {
    let identity = call.identity;
    let text = |value: Option<&str>| value.is_some_and(|value| any_text(clause, value.as_bytes()));
    let is_found = match &clause.field {
        Field::Header(name) => return Some(header_holds(clause, effect, call, name)),
        Field::Host => clause
            .patterns
            .iter()
            .any(|pattern| pattern.matches_host(call.host, options.is_host_exact)),
        Field::Method => text(Some(call.method)),
        Field::Path => text(Some(call.path.path())),
        Field::RequestPrincipal => match (&identity.principal, &identity.issuer) {
            (Some(_), Some(issuer)) => {
                let subject = identity.subject.as_deref().unwrap_or_default();
                clause
                    .patterns
                    .iter()
                    .any(|pattern| pattern.matches_request_principal(issuer, subject))
            }
            _ => false,
        },
        Field::Audience => identity
            .audiences
            .iter()
            .any(|audience| any_text(clause, audience.as_bytes())),
        Field::Presenter => text(identity.presenter.as_deref()),
        Field::Claim(steps) => identity
            .claims
            .as_deref()
            .and_then(|claims| find_claim(claims, steps))
            .is_some_and(|claim| claim_matches(clause, claim, options)),
        Field::Principal
        | Field::Namespace
        | Field::ServiceAccount
        | Field::TrustDomain
        | Field::SourceAddress
        | Field::RemoteAddress
        | Field::DestinationAddress
        | Field::DestinationPort
        | Field::ServerName => return None,
    };
    Some(is_found != clause.is_negative)
}

fn any_text(clause: &Clause, value: &[u8]) -> bool {
    clause
        .patterns
        .iter()
        .any(|pattern| pattern.matches_text(value))
}

// Rule 45 and threat A7: values are tested one by one, never joined. A missing header fails a positive list
// and passes a negative one (rule 28).
fn header_holds(clause: &Clause, effect: Effect, call: &HttpCall<'_>, name: &str) -> bool {
    let (mut count, mut matching) = (0_usize, 0_usize);
    each_header(call, name, &mut |value| {
        count += 1;
        // `*` is presence: an empty value counts (rule 26).
        let is_match = clause
            .patterns
            .iter()
            .any(|pattern| pattern.is_presence() || pattern.matches_text(value));
        matching += usize::from(is_match);
    });
    let fitting = if clause.is_negative {
        count - matching
    } else {
        matching
    };
    if count == 0 {
        return clause.is_negative;
    }
    match effect {
        Effect::Allow => fitting == count,
        Effect::Deny => fitting > 0,
    }
}

/// Values of a header, or of the pseudo-headers that a request has here.
pub(crate) fn each_header(call: &HttpCall<'_>, name: &str, visit: &mut dyn FnMut(&[u8])) {
    match name {
        ":method" => visit(call.method.as_bytes()),
        ":path" => visit(call.path.as_target().as_bytes()),
        ":authority" | "host" => visit(call.host.as_bytes()),
        _ => call.headers.each_value(name, visit),
    }
}

/// Walks into the claims (rule 49).
pub(crate) fn find_claim<'c>(
    claims: &'c Map<String, Value>,
    steps: &[String],
) -> Option<&'c Value> {
    let (first, rest) = steps.split_first()?;
    rest.iter().try_fold(claims.get(first)?, |value, step| {
        value.as_object()?.get(step)
    })
}

// A string, or a list with such a string (rule 48); with typed claims also `true` and `42` (rule 50).
fn claim_matches(clause: &Clause, claim: &Value, options: Options) -> bool {
    match claim {
        Value::String(text) => any_text(clause, text.as_bytes()),
        Value::Array(items) => items
            .iter()
            .any(|item| !item.is_array() && claim_matches(clause, item, options)),
        Value::Bool(value) if options.has_typed_claims => {
            any_text(clause, if *value { b"true" } else { b"false" })
        }
        Value::Number(number) if options.has_typed_claims => number_matches(clause, number),
        Value::Bool(_) | Value::Number(_) | Value::Null | Value::Object(_) => false,
    }
}

fn number_matches(clause: &Clause, number: &serde_json::Number) -> bool {
    use std::io::Write;
    let mut text = [0_u8; 40];
    let mut left = text.as_mut_slice();
    if write!(left, "{number}").is_err() {
        return false;
    }
    let unused = left.len();
    text.get(..text.len() - unused)
        .is_some_and(|text| any_text(clause, text))
}
