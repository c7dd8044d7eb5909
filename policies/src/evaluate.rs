//! Judging: DENY first, then ALLOW; inside a rule clauses, inside a clause patterns (rules 1 to 8, 20 to 22).
//!
//! Nothing here allocates. Where a header has several values, an ALLOW needs all of them and a DENY any (rule 45).

use std::net::IpAddr;
use std::sync::Arc;

use ravelin_proto::spiffe_id::SpiffeId;
use serde_json::{Map, Value};

use crate::call::{Call, HttpCall};
use crate::compile::{Attached, Options, WorkloadPolicies};
use crate::decision::{
    ALLOWED, BAD_PROVIDER, CustomCheck, Decision, NO_ALLOW_MATCHED, NO_POLICY, POLICY_DENIED,
    RuleRef, Shadow,
};
use crate::matcher::{Pattern, Reference};
use crate::schema::{CheckProtocol, Clause, Effect, Field, Rule};

/// The decision on a call.
pub(crate) fn decide(policies: &WorkloadPolicies, call: Call<'_>) -> Decision {
    let enforced = answer(policies, call, false);
    let is_audited = !enforced.is_always
        || first_match(policies, call, |attached| attached.effect == Effect::Audit).is_some();
    let shadow = policies.has_dry_run.then(|| {
        let shadow = answer(policies, call, true);
        Shadow {
            is_allowed: shadow.is_allowed,
            code: shadow.code,
            by: shadow.by,
        }
    });
    Decision {
        is_allowed: enforced.is_allowed,
        code: enforced.code,
        by: enforced.by,
        revision: policies.revision,
        is_audited,
        shadow,
    }
}

struct Answer {
    is_allowed: bool,
    code: &'static str,
    by: Option<Arc<RuleRef>>,
    /// Its policy has no window.
    is_always: bool,
}

/// DENY, then ALLOW, then the default; with or without the dry-run policies.
fn answer(policies: &WorkloadPolicies, call: Call<'_>, with_dry_run: bool) -> Answer {
    let of = |effect: Effect| {
        move |attached: &&Attached| {
            attached.effect == effect && (with_dry_run || !attached.is_dry_run)
        }
    };
    let has = |effect: Effect| {
        policies
            .attached
            .iter()
            .filter(of(effect))
            .any(|attached| attached.window.contains(call.now()))
    };
    let answer = |is_allowed, code, by: Option<(&Attached, &Arc<RuleRef>)>| Answer {
        is_allowed,
        code,
        by: by.map(|(_, rule)| Arc::clone(rule)),
        is_always: by.is_none_or(|(attached, _)| attached.window.is_always()),
    };
    if let Some(by) = first_match(policies, call, |attached| of(Effect::Deny)(&attached)) {
        return answer(false, POLICY_DENIED, Some(by));
    }
    if has(Effect::Allow) {
        return match first_match(policies, call, |attached| of(Effect::Allow)(&attached)) {
            Some(by) => answer(true, ALLOWED, Some(by)),
            None => answer(false, NO_ALLOW_MATCHED, None),
        };
    }
    // An AUDIT alone changes nothing, so it does not open a workload that nobody listed (rule 7).
    if has(Effect::Deny) || has(Effect::Custom) {
        return answer(true, ALLOWED, None);
    }
    answer(policies.options.are_unlisted_calls_allowed, NO_POLICY, None)
}

/// Whether an external authorizer has to be asked (rules 6, 57, 61, 63).
pub(crate) fn custom(policies: &WorkloadPolicies, call: Call<'_>) -> CustomCheck {
    let is_custom = |attached: &Attached| {
        attached.effect == Effect::Custom && !is_http_authorizer_on_tcp(policies, attached, call)
    };
    let Some((attached, by)) = first_match(policies, call, is_custom) else {
        return CustomCheck::NotNeeded;
    };
    let by = Arc::clone(by);
    let is_only = policies
        .attached
        .iter()
        .filter(|other| other.effect == Effect::Custom)
        .all(|other| other.provider == attached.provider);
    match policies.provider(attached) {
        Some(provider) if is_only => CustomCheck::Ask {
            provider: Arc::clone(provider),
            by,
        },
        Some(_) | None => CustomCheck::Refuse {
            code: BAD_PROVIDER,
            by,
        },
    }
}

fn is_http_authorizer_on_tcp(
    policies: &WorkloadPolicies,
    attached: &Attached,
    call: Call<'_>,
) -> bool {
    matches!(call, Call::Tcp(..))
        && policies
            .provider(attached)
            .is_some_and(|provider| provider.protocol != CheckProtocol::Grpc)
}

fn first_match<'p>(
    policies: &'p WorkloadPolicies,
    call: Call<'_>,
    is_asked: impl Fn(&Attached) -> bool,
) -> Option<(&'p Attached, &'p Arc<RuleRef>)> {
    policies
        .attached
        .iter()
        .filter(|attached| is_asked(attached) && attached.window.contains(call.now()))
        .find_map(|attached| {
            let index = attached
                .rules
                .iter()
                .position(|rule| rule_matches(rule, attached.effect, call, policies.options))?;
            Some((attached, attached.refs.get(index)?))
        })
}

/// Is the rule skipped? An ALLOW rule with an HTTP field, on TCP (rule 54).
pub(crate) fn is_skipped(rule: &Rule, effect: Effect, call: Call<'_>) -> bool {
    matches!(call, Call::Tcp(..))
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
        // Every other effect drops on TCP what exists for HTTP alone, and so gets wider (rules 56, 57).
        Call::Tcp(..) if clause.field.is_http_only() => effect != Effect::Allow,
        Call::Http(http) => match http_fact(clause, effect, http, options) {
            Some(holds) => holds,
            None => connection_fact(clause, call) != clause.is_negative,
        },
        Call::Tcp(..) => connection_fact(clause, call) != clause.is_negative,
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
            .is_some_and(|claim| claim_holds(clause, claim, call, options)),
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
        Effect::Deny | Effect::Audit | Effect::Custom => fitting > 0,
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
fn claim_holds(clause: &Clause, claim: &Value, call: &HttpCall<'_>, options: Options) -> bool {
    let matches = |pattern: &Pattern| match claim {
        Value::Array(items) => items
            .iter()
            .any(|item| value_matches(pattern, item, call, options)),
        Value::String(_) | Value::Bool(_) | Value::Number(_) | Value::Null | Value::Object(_) => {
            value_matches(pattern, claim, call, options)
        }
    };
    if clause.is_all_of {
        clause.patterns.iter().all(matches)
    } else {
        clause.patterns.iter().any(matches)
    }
}

fn value_matches(pattern: &Pattern, value: &Value, call: &HttpCall<'_>, options: Options) -> bool {
    match value {
        Value::String(text) => text_matches(pattern, text.as_bytes(), call),
        Value::Bool(value) if options.has_typed_claims => {
            text_matches(pattern, if *value { b"true" } else { b"false" }, call)
        }
        Value::Number(number) if options.has_typed_claims => number_matches(pattern, number, call),
        Value::Bool(_) | Value::Number(_) | Value::Null | Value::Array(_) | Value::Object(_) => {
            false
        }
    }
}

fn number_matches(pattern: &Pattern, number: &serde_json::Number, call: &HttpCall<'_>) -> bool {
    use std::io::Write;
    let mut text = [0_u8; 40];
    let mut left = text.as_mut_slice();
    if write!(left, "{number}").is_err() {
        return false;
    }
    let unused = left.len();
    text.get(..text.len() - unused)
        .is_some_and(|text| text_matches(pattern, text, call))
}

fn text_matches(pattern: &Pattern, value: &[u8], call: &HttpCall<'_>) -> bool {
    match pattern {
        Pattern::Reference(reference) => refers_to(reference, value, call),
        Pattern::Text(_)
        | Pattern::Template(_)
        | Pattern::Address(_)
        | Pattern::Port(_)
        | Pattern::ServiceAccount { .. }
        | Pattern::RequestPrincipal { .. } => pattern.matches_text(value),
    }
}

/// Is `value` what the request has there? What is missing, empty or repeated equals nothing.
fn refers_to(reference: &Reference, value: &[u8], call: &HttpCall<'_>) -> bool {
    match reference {
        Reference::Header(name) => {
            let (mut count, mut is_equal) = (0_usize, false);
            each_header(call, name, &mut |found| {
                count += 1;
                is_equal = !found.is_empty() && found == value;
            });
            count == 1 && is_equal
        }
        Reference::PathSegment(number) => call
            .path
            .path()
            .split('/')
            .nth(usize::from(*number))
            .is_some_and(|segment| !segment.is_empty() && segment.as_bytes() == value),
    }
}
