//! Lints of peers: names that mean somebody in every trust domain (rules 31, 32).

use std::collections::BTreeSet;

use super::{Findings, Mesh};
use crate::diagnostic::excerpt;
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
