//! Lints of tokens: principals that match nobody, claims without a RequestAuthentication, loose issuers (rules 35, 53, 74).

use std::collections::BTreeSet;

use super::{Findings, Mesh};
use crate::diagnostic::excerpt;
use crate::schema::{AuthorizationPolicy, Effect, Field, KeyAddress, KeyOrigin, Rule};

/// Rule 35: a request principal is `ISSUER/SUBJECT`; an issuer alone is split at its last `/`.
pub(super) fn bare_issuers(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    let issuers: BTreeSet<&str> = mesh
        .set
        .request_authentications
        .iter()
        .flat_map(|object| &object.rules)
        .filter_map(|rule| rule.issuer.as_deref())
        .collect();
    for policy in mesh.policies() {
        let clauses = policy.rules.iter().flat_map(Rule::clauses);
        for clause in clauses.filter(|clause| clause.field == Field::RequestPrincipal) {
            for value in clause
                .values
                .iter()
                .filter(|value| is_bare(value, &issuers))
            {
                let message = format!(
                    "`{}` looks like an issuer alone; a request principal is `ISSUER/SUBJECT`",
                    excerpt(value)
                );
                let help = format!(
                    "for every subject write `{}/*`",
                    excerpt(value.trim_end_matches('/'))
                );
                findings.warn_line(
                    "bare-issuer",
                    &policy.location.path,
                    clause.line,
                    message,
                    &help,
                );
            }
        }
    }
}

fn is_bare(value: &str, issuers: &BTreeSet<&str>) -> bool {
    if value.contains('*') {
        return false;
    }
    let Some((issuer, subject)) = value.rsplit_once('/') else {
        return true;
    };
    let is_url = value.starts_with("https://") || value.starts_with("http://");
    let has_no_host = matches!(issuer, "https:/" | "http:/");
    issuers.contains(value)
        || subject.is_empty()
        || (is_url && (has_no_host || (!issuers.is_empty() && !issuers.contains(issuer))))
}

/// Rule 53: without a RequestAuthentication no token is looked at, whatever the call carries.
pub(super) fn unauthenticated_claims(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    for policy in mesh.policies() {
        let Some((line, name)) = token_clause(policy) else {
            continue;
        };
        let bare = mesh.workloads_of_policy(policy).find(|workload| {
            let holds = |namespace: &str| {
                namespace == workload.namespace || namespace == mesh.set.config.root_namespace
            };
            !mesh.set.request_authentications.iter().any(|object| {
                !object.has_target_refs
                    && holds(&object.metadata.namespace)
                    && object
                        .selector
                        .as_ref()
                        .is_none_or(|labels| workload.has_labels(labels))
            })
        });
        let Some(workload) = bare else { continue };
        let whom = match workload.name.as_str() {
            "" => format!("namespace `{}`", workload.namespace),
            name => format!("`{}/{name}`", workload.namespace),
        };
        let message = format!(
            "`{}` needs a token, and no RequestAuthentication holds for {}: none is accepted there",
            excerpt(name),
            excerpt(&whom)
        );
        findings.warn_line(
            "no-request-authentication",
            &policy.location.path,
            line,
            message,
            "add a RequestAuthentication for it, with the issuer and its keys",
        );
    }
}

/// The first clause that wants a token.
fn token_clause(policy: &AuthorizationPolicy) -> Option<(u32, &str)> {
    let is_judged = matches!(policy.effect, Effect::Allow | Effect::Deny);
    let mut clauses = policy.rules.iter().flat_map(Rule::clauses);
    let found = clauses.find(|clause| {
        is_judged
            && matches!(
                clause.field,
                Field::RequestPrincipal | Field::Audience | Field::Presenter | Field::Claim(_)
            )
    })?;
    Some((found.line, &found.name))
}

/// Rule 74: without `audiences` a token for another service passes here too; and keys or issuers over plain HTTP.
pub(super) fn loose_tokens(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    let objects = mesh.set.request_authentications.iter();
    for rule in objects.flat_map(|object| &object.rules) {
        let issuer = rule.issuer.as_deref().unwrap_or("any issuer");
        if rule.audiences.is_empty() {
            findings.warn(
                "no-audiences",
                &rule.location,
                format!(
                    "tokens of `{}` for any other service are accepted here too",
                    excerpt(issuer)
                ),
                "name the `audiences` that tokens for this workload have",
            );
        }
        let is_discovered = matches!(&rule.keys, KeyOrigin::Remote(keys) if matches!(keys.address, KeyAddress::Issuer(_)));
        if issuer.starts_with("http://") && is_discovered {
            findings.warn(
                "issuer-over-http",
                &rule.location,
                format!(
                    "the keys of `{}` are found over plain HTTP: who is on the way may sign tokens",
                    excerpt(issuer)
                ),
                "use an issuer with https, or name its keys by `jwks` or `jwksUri`",
            );
        } else if issuer.starts_with("http://") {
            findings.warn(
                "issuer-over-http",
                &rule.location,
                format!("the issuer `{}` is named by plain HTTP", excerpt(issuer)),
                "an issuer is compared by letter; check that its tokens say `http` and not `https`",
            );
        }
    }
}
