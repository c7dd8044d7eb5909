//! Lints of plain text: a DENY of somebody who need not say who he is (rule 85).

use super::{Findings, Mesh};
use crate::compile::PeerModes;
use crate::diagnostic::excerpt;
use crate::schema::{AuthorizationPolicy, Clause, Effect, Field, Rule};

/// Rule 85: where plain text is accepted, a peer without identity passes a DENY that names identities.
pub(super) fn denies_in_plain_text(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    if mesh.set.peer_authentications.is_empty() {
        return;
    }
    let root = mesh.set.config.root_namespace.as_str();
    for policy in mesh
        .policies()
        .filter(|policy| policy.effect == Effect::Deny)
    {
        let Some(clause) = named_peer(policy) else {
            continue;
        };
        let open = mesh.workloads_of_policy(policy).find(|workload| {
            PeerModes::resolve(&mesh.set.peer_authentications, workload, root).has_plain_text()
        });
        let Some(workload) = open else { continue };
        let whom = match workload.name.as_str() {
            "" => format!("namespace `{}`", workload.namespace),
            name => format!("`{}/{name}`", workload.namespace),
        };
        let message = format!(
            "{} accepts plain text, where a peer has no identity and passes this DENY by `{}`",
            excerpt(&whom),
            excerpt(&clause.name)
        );
        findings.warn_line(
            "deny-in-plain-text",
            &policy.location.path,
            clause.line,
            message,
            "make its PeerAuthentication STRICT, or deny `notPrincipals: [\"*\"]` as well",
        );
    }
}

/// The first positive list of peers; none when a rule denies peers without identity.
fn named_peer(policy: &AuthorizationPolicy) -> Option<&Clause> {
    let is_peer = |clause: &&Clause| {
        matches!(
            clause.field,
            Field::Principal | Field::Namespace | Field::ServiceAccount | Field::TrustDomain
        )
    };
    let mut clauses = policy.rules.iter().flat_map(Rule::clauses).filter(is_peer);
    clauses.find(|clause| !clause.is_negative)
}
