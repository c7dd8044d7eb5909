//! Lints of peers: names that mean somebody in every trust domain (rules 31, 32).

use std::collections::BTreeSet;

use super::{Findings, Mesh};
use crate::diagnostic::{excerpt, near_miss};
use crate::matcher::{Pattern, StringMatch};
use crate::schema::{Clause, Effect, Field, KeyOrigin, Rule};
use crate::set::MeshSet;

/// Rule 32: `namespaces` and `serviceAccounts` look at no trust domain, and more than one is known here.
pub(super) fn any_trust_domain(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    let foreign = foreign_domains(mesh.set);
    let Some(example) = foreign.first() else {
        return;
    };
    for policy in mesh.policies() {
        for rule in policy.rules.iter() {
            let pins = |clauses: &[Clause]| clauses.iter().any(pins_domain);
            let sources = rule
                .from
                .iter()
                .map(Vec::as_slice)
                .chain([rule.when.as_slice()]);
            for source in sources.filter(|source| !pins(source) && !pins(&rule.when)) {
                for clause in source.iter().filter(|clause| widens(clause, policy.effect)) {
                    let message = format!(
                        "`{}` means these names in every trust domain, `{}` too",
                        excerpt(&clause.name),
                        excerpt(example)
                    );
                    findings.warn_line(
                        "any-trust-domain",
                        &policy.location.path,
                        clause.line,
                        message,
                        "add `trustDomains` beside it, or name `principals`",
                    );
                }
            }
        }
    }
}

/// Namespaces and service accounts that no workload of the mesh has, unless they may be of another trust domain.
pub(super) fn unknown_names(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    if mesh.set.identities.is_empty() || !foreign_domains(mesh.set).is_empty() {
        return;
    }
    let ids = || {
        mesh.set
            .identities
            .iter()
            .map(|identity| &identity.spiffe_id)
    };
    let namespaces: BTreeSet<&str> = ids()
        .filter_map(|id| account_of(id.path()))
        .map(|(namespace, _)| namespace)
        .collect();
    let accounts: BTreeSet<String> = ids()
        .filter_map(|id| account_of(id.path()))
        .map(|(namespace, name)| format!("{namespace}/{name}"))
        .collect();
    for policy in mesh.policies() {
        for clause in policy.rules.iter().flat_map(Rule::clauses) {
            for pattern in &clause.patterns {
                let (what, name, near) = match pattern {
                    Pattern::Text(StringMatch::Exact(name))
                        if clause.field == Field::Namespace
                            && !namespaces.contains(name.as_str()) =>
                    {
                        (
                            "namespace",
                            name.clone(),
                            near_miss(name, namespaces.iter().copied()),
                        )
                    }
                    Pattern::ServiceAccount { namespace, account } => {
                        let name = format!("{namespace}/{account}");
                        if accounts.contains(&name) {
                            continue;
                        }
                        let near = near_miss(&name, accounts.iter().map(String::as_str));
                        ("service account", name, near)
                    }
                    Pattern::Text(_)
                    | Pattern::Template(_)
                    | Pattern::Address(_)
                    | Pattern::Port(_)
                    | Pattern::RequestPrincipal { .. }
                    | Pattern::Reference(_) => continue,
                };
                let message = format!("no workload has the {what} `{}`", excerpt(&name));
                let help = near
                    .unwrap_or_else(|| "add a WorkloadIdentity for it, or remove it".to_owned());
                findings.warn_line(
                    "unknown-name",
                    &policy.location.path,
                    clause.line,
                    message,
                    &help,
                );
            }
        }
    }
}

/// Namespace and account of `/ns/NAMESPACE/sa/NAME`.
fn account_of(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("/ns/")?.split_once("/sa/")
}

/// A name that lets a stranger in: positive in an ALLOW, an exception of a DENY.
fn widens(clause: &Clause, effect: Effect) -> bool {
    let is_name = matches!(clause.field, Field::Namespace | Field::ServiceAccount);
    let is_present = |pattern: &Pattern| matches!(pattern, Pattern::Text(StringMatch::Present));
    let opens = match effect {
        Effect::Allow => !clause.is_negative,
        Effect::Deny => clause.is_negative,
        Effect::Audit | Effect::Custom => false,
    };
    is_name && opens && !clause.patterns.iter().all(is_present)
}

fn pins_domain(clause: &Clause) -> bool {
    matches!(clause.field, Field::TrustDomain | Field::Principal) && !clause.is_negative
}

/// Every trust domain but the mesh's own that files name: aliases, federation, services, keys, principals.
fn foreign_domains(set: &MeshSet) -> BTreeSet<String> {
    let own = set.config.trust_domain.as_str();
    let aliases = set.config.trust_domain_aliases.iter();
    let federated = set
        .identities
        .iter()
        .flat_map(|identity| &identity.federates_with);
    let rules = set
        .request_authentications
        .iter()
        .flat_map(|object| &object.rules);
    let keys = rules.filter_map(|rule| match &rule.keys {
        KeyOrigin::TrustDomain(domain) => Some(domain),
        KeyOrigin::Inline(_) | KeyOrigin::Remote(_) => None,
    });
    let peers = set
        .services
        .iter()
        .flat_map(|service| &service.subject_alt_names);
    let mut names: BTreeSet<String> = aliases
        .chain(federated)
        .chain(keys)
        .map(ToString::to_string)
        .chain(peers.map(|id| id.trust_domain_str().to_owned()))
        .collect();
    let clauses = set
        .authorization_policies
        .iter()
        .flat_map(|policy| policy.rules.iter().flat_map(Rule::clauses))
        .filter(|clause| pins_domain(clause));
    for pattern in clauses.flat_map(|clause| &clause.patterns) {
        if let Pattern::Text(StringMatch::Exact(text)) = pattern {
            let (domain, _) = text.split_once('/').unwrap_or((text, ""));
            names.insert(domain.to_owned());
        }
    }
    names.remove(own);
    // The literal that examples use for the mesh's own (rule 34).
    names.remove("cluster.local");
    names
}
