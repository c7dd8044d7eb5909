//! Lints of protocols: HTTP fields where TCP is spoken, and providers of CUSTOM policies (rules 54 to 57, 61).

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Mesh};
use crate::attached::provider_named;
use crate::diagnostic::excerpt;
use crate::object::Workload;
use crate::schema::{AuthorizationPolicy, Clause, Effect, LaunchProtocol, Rule};

/// Workloads whose content is not HTTP, on some port: by `launch.protocol`, or a port of a service of theirs.
fn tcp_workloads<'m>(mesh: &'m Mesh<'_>) -> BTreeSet<&'m str> {
    let launched = mesh.set.identities.iter().filter(|identity| {
        identity
            .launch
            .as_ref()
            .is_some_and(|launch| launch.protocol == LaunchProtocol::Tcp)
    });
    let has_tcp_port = mesh
        .set
        .services
        .iter()
        .filter(|service| service.ports.iter().any(|port| !port.protocol.is_http()));
    launched
        .map(|identity| identity.spiffe_id.as_str())
        .chain(
            has_tcp_port
                .flat_map(|service| &service.subject_alt_names)
                .map(ravelin_proto::spiffe_id::SpiffeId::as_str),
        )
        .collect()
}

/// Rules 54 and 56: on TCP an ALLOW rule with an HTTP field is skipped, and any other gets wider.
pub(super) fn http_fields_on_tcp(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    let tcp = tcp_workloads(mesh);
    if tcp.is_empty() {
        return;
    }
    for policy in mesh.policies() {
        let mut workloads = mesh.workloads_of_policy(policy);
        let Some(workload) = workloads.find(|workload| tcp.contains(workload.spiffe_id.as_str()))
        else {
            continue;
        };
        for rule in policy.rules.iter() {
            if let Some(clause) = rule.clauses().find(|clause| clause.field.is_http_only()) {
                report_rule(policy, rule, clause, workload, findings);
            }
        }
    }
}

fn report_rule(
    policy: &AuthorizationPolicy,
    rule: &Rule,
    clause: &Clause,
    workload: &Workload,
    findings: &mut Findings<'_>,
) {
    let whom = format!("`{}/{}`", workload.namespace, workload.name);
    let is_http_alone = rule.clauses().all(|clause| clause.field.is_http_only());
    let (effect, name) = (policy.effect.name(), excerpt(&clause.name));
    let message = match policy.effect {
        Effect::Allow => format!(
            "{whom} speaks TCP, where this rule never allows: `{name}` exists for HTTP alone"
        ),
        Effect::Deny | Effect::Audit | Effect::Custom if is_http_alone => format!(
            "{whom} speaks TCP, where this {effect} rule takes every connection: its fields exist for HTTP alone"
        ),
        Effect::Deny | Effect::Audit | Effect::Custom => format!(
            "{whom} speaks TCP, where this {effect} rule is wider: `{name}` is left out of it"
        ),
    };
    findings.warn(
        "http-fields-on-tcp",
        &rule.location,
        message,
        "add `ports` of HTTP, or a `selector` of workloads that speak HTTP",
    );
}

/// Rules 57 and 61: one provider a workload, and one that speaks gRPC where TCP is to be asked about.
pub(super) fn providers(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    let tcp = tcp_workloads(mesh);
    let mut first: BTreeMap<(&str, &str), &AuthorizationPolicy> = BTreeMap::new();
    let customs = mesh
        .policies()
        .filter(|policy| policy.effect == Effect::Custom);
    for policy in customs {
        let Some(name) = policy.provider.as_deref() else {
            continue;
        };
        let known = &mesh.set.config.extension_providers;
        let is_http = provider_named(Some(name), known)
            .is_some_and(|provider| !provider.judges_connections());
        let mut has_other = false;
        for workload in mesh.workloads_of_policy(policy) {
            let key = (workload.namespace.as_str(), workload.name.as_str());
            let other = first.entry(key).or_insert(policy);
            if other.provider.as_deref() != Some(name) && !has_other {
                has_other = true;
                let message = format!(
                    "`{}/{}` has CUSTOM policies with several providers: `{name}` here, another at {}; every matching call is refused",
                    workload.namespace, workload.name, other.location
                );
                findings.warn(
                    "several-providers",
                    &policy.location,
                    message,
                    "name the same provider in all of them",
                );
            }
        }
        let on_tcp = mesh
            .workloads_of_policy(policy)
            .find(|workload| is_http && tcp.contains(workload.spiffe_id.as_str()));
        if let Some(workload) = on_tcp {
            let message = format!(
                "`{}/{}` speaks TCP, and the provider `{name}` is asked by HTTP: its connections are not asked about",
                workload.namespace, workload.name
            );
            findings.warn(
                "http-provider-on-tcp",
                &policy.location,
                message,
                "use a provider with `envoyExtAuthzGrpc`",
            );
        }
    }
}
