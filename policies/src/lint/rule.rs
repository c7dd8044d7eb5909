//! Lints of the shape of rules: `-` in the wrong place, negative lists, paths and hosts that miss (rules 23, 28, 38, 91).

use super::{Findings, Mesh};
use crate::diagnostic::excerpt;
use crate::matcher::{Pattern, StringMatch};
use crate::schema::{AuthorizationPolicy, Clause, Effect, Field, Rule};

/// Rule 23: `- from` and `- to` are two rules, of which either alone matches.
pub(super) fn split_rules(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    let has_only_from =
        |rule: &Rule| !rule.from.is_empty() && rule.to.is_empty() && rule.when.is_empty();
    let has_only_to =
        |rule: &Rule| rule.from.is_empty() && !rule.to.is_empty() && rule.when.is_empty();
    let has_only_when =
        |rule: &Rule| rule.from.is_empty() && rule.to.is_empty() && !rule.when.is_empty();
    for policy in mesh.policies() {
        for pair in policy.rules.windows(2) {
            let [first, second] = pair else { continue };
            let parts = if has_only_from(first) && has_only_to(second) {
                ("from", "to")
            } else if has_only_to(first) && has_only_from(second) {
                ("to", "from")
            } else if (has_only_from(first) || has_only_to(first)) && has_only_when(second) {
                ("the one", "when")
            } else {
                continue;
            };
            let message = format!(
                "this is a rule of its own: a call needs `{}` or `{}`, not both",
                parts.0, parts.1
            );
            findings.warn(
                "split-rule",
                &second.location,
                message,
                "for one rule that needs both remove the `-` here and indent as the line above",
            );
        }
    }
}

/// Rules 28 and 91: an ALLOW of everything but something also takes what has none of it.
pub(super) fn negative_allows(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    let allows = mesh
        .policies()
        .filter(|policy| policy.effect == Effect::Allow);
    for (policy, part) in allows.flat_map(|policy| parts(policy).map(move |part| (policy, part))) {
        for clause in part.iter().filter(|clause| clause.is_negative) {
            let has_positive = part
                .iter()
                .any(|other| !other.is_negative && other.field == clause.field);
            if has_positive {
                continue;
            }
            let name = excerpt(&clause.name);
            let message = match clause.field {
                Field::Path | Field::Host | Field::Method | Field::DestinationPort => {
                    format!("an ALLOW by `{name}` allows everything that nobody thought of")
                }
                Field::Principal
                | Field::RequestPrincipal
                | Field::Namespace
                | Field::ServiceAccount
                | Field::TrustDomain
                | Field::SourceAddress
                | Field::RemoteAddress
                | Field::DestinationAddress
                | Field::ServerName
                | Field::Header(_)
                | Field::Audience
                | Field::Presenter
                | Field::Claim(_) => {
                    format!("an ALLOW by `{name}` also allows calls that have none of it")
                }
            };
            findings.warn_line(
                "negative-allow",
                &policy.location.path,
                clause.line,
                message,
                "list what is allowed, or deny the rest in a DENY policy",
            );
        }
    }
}

/// Rule 91: a DENY by path misses the same path with or without a `/` behind it. Other tricks are refused before any
/// rule is asked (rule 90).
pub(super) fn denies_by_path(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    let denies = mesh
        .policies()
        .filter(|policy| policy.effect == Effect::Deny);
    for policy in denies {
        for clause in policy.rules.iter().flat_map(Rule::clauses) {
            if clause.field != Field::Path || clause.is_negative {
                continue;
            }
            for (value, missed, add) in missed_paths(clause) {
                let message = format!(
                    "this DENY by `{}` misses `{}`, which applications often take for the same",
                    excerpt(&value),
                    excerpt(&missed)
                );
                let help = format!(
                    "add `{}`, or deny everything but the `notPaths` that are meant",
                    excerpt(&add)
                );
                findings.warn_line(
                    "deny-by-path",
                    &policy.location.path,
                    clause.line,
                    message,
                    &help,
                );
            }
        }
    }
}

/// Values with the path beside them that no value of the list takes, and what would.
fn missed_paths(clause: &Clause) -> Vec<(String, String, String)> {
    let is_taken = |path: &str| {
        clause
            .patterns
            .iter()
            .any(|pattern| pattern.matches_text(path.as_bytes()))
    };
    let mut missed = Vec::new();
    for pattern in &clause.patterns {
        let Pattern::Text(text) = pattern else {
            continue;
        };
        let (value, other, add) = match text {
            StringMatch::Exact(path) if !path.ends_with('/') => {
                (path.clone(), format!("{path}/"), format!("{path}/*"))
            }
            StringMatch::Prefix(path) if path.len() > 1 && path.ends_with('/') => {
                let bare = path.trim_end_matches('/').to_owned();
                (format!("{path}*"), bare.clone(), bare)
            }
            StringMatch::Exact(path) if path.len() > 1 => {
                let bare = path.trim_end_matches('/').to_owned();
                (path.clone(), bare.clone(), bare)
            }
            StringMatch::Exact(_)
            | StringMatch::Prefix(_)
            | StringMatch::Suffix(_)
            | StringMatch::Present => continue,
        };
        if !is_taken(&other) {
            missed.push((value, other, add));
        }
    }
    missed
}

/// Rule 38: a host that names its port, without the same host alone, is missed by calls without port.
pub(super) fn hosts_with_ports(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    let is_exact = mesh.set.config.is_host_exact;
    for policy in mesh.policies() {
        for clause in policy.rules.iter().flat_map(Rule::clauses) {
            if clause.field == Field::Host {
                check_hosts(policy, clause, is_exact, findings);
            }
        }
    }
}

fn check_hosts(
    policy: &AuthorizationPolicy,
    clause: &Clause,
    is_exact: bool,
    findings: &mut Findings<'_>,
) {
    let has = |wanted: &dyn Fn(&str) -> bool| clause.values.iter().any(|value| wanted(value));
    for value in &clause.values {
        let port = value.rsplit_once(':').filter(|(name, port)| {
            let is_port = *port == "*" || port.bytes().all(|byte| byte.is_ascii_digit());
            is_port && !port.is_empty() && (!name.contains(':') || name.ends_with(']'))
        });
        let fault = match port {
            Some((name, _)) if !has(&|other| other == name) => (
                format!(
                    "`{}` is missed by a call that names no port",
                    excerpt(value)
                ),
                "add the host without port",
            ),
            None if is_exact
                && !value.ends_with('*')
                && !has(&|other| other.starts_with(&format!("{value}:"))) =>
            {
                (
                    format!(
                        "with `hostMatching: EXACT`, `{}` is missed by a call that names its port",
                        excerpt(value)
                    ),
                    "add the host with `:*`, or leave `hostMatching` out",
                )
            }
            Some(_) | None => continue,
        };
        let path = &policy.location.path;
        findings.warn_line("host-with-port", path, clause.line, fault.0, fault.1);
    }
}

/// Every list of clauses that hold together: each source, each operation, the conditions.
pub(super) fn parts(policy: &AuthorizationPolicy) -> impl Iterator<Item = &[Clause]> {
    policy.rules.iter().flat_map(|rule| {
        let alternatives = rule.from.iter().chain(&rule.to);
        alternatives
            .map(Vec::as_slice)
            .chain([rule.when.as_slice()])
    })
}
