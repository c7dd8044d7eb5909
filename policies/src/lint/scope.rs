//! Lints of scope: objects that hold for nobody, and a namespace that is taken for the root (rules 65, 83).

use std::collections::BTreeSet;

use super::{Findings, Mesh};
use crate::diagnostic::near_miss;
use crate::object::{Labels, Location, Metadata};

/// The root namespace of Istio, whose name files keep when another is configured.
const ISTIO_ROOT: &str = "istio-system";

/// Kind, name and place.
type Object<'o> = (&'static str, &'o Metadata, &'o Location);

/// Objects of namespaces without workloads, of a namespace that was the root elsewhere, and ignored selectors.
pub(super) fn empty_namespaces(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    let set = mesh.set;
    let root = set.config.root_namespace.as_str();
    let known: BTreeSet<&str> = mesh.workloads.keys().map(String::as_str).collect();
    let policies = mesh
        .policies()
        .map(|object| ("AuthorizationPolicy", &object.metadata, &object.location));
    let tokens = set
        .request_authentications
        .iter()
        .filter(|object| !object.has_target_refs)
        .map(|object| ("RequestAuthentication", &object.metadata, &object.location));
    let peers = set
        .peer_authentications
        .iter()
        .map(|object| ("PeerAuthentication", &object.metadata, &object.location));
    let all: Vec<Object<'_>> = policies.chain(tokens).chain(peers).collect();
    for (kind, metadata, location) in all {
        let namespace = metadata.namespace.as_str();
        if namespace == root || known.contains(namespace) {
            continue;
        }
        if namespace == ISTIO_ROOT {
            let message = format!(
                "this {kind} holds in namespace `{namespace}` alone: the root namespace is `{root}`"
            );
            let help = format!("for all namespaces put it into `{root}`");
            findings.warn("not-the-root", location, message, &help);
        } else if !set.identities.is_empty() {
            let message =
                format!("this {kind} holds for nobody: namespace `{namespace}` has no workload");
            let help = near_miss(namespace, known.iter().copied().chain([root]))
                .unwrap_or_else(|| "add a WorkloadIdentity there, or remove it".to_owned());
            findings.warn("empty-namespace", location, message, &help);
        }
    }
    ignored_selectors(mesh, findings);
}

/// Rule 83: a PeerAuthentication with a selector in the root namespace is ignored, unlike other kinds.
fn ignored_selectors(mesh: &Mesh<'_>, findings: &mut Findings<'_>) {
    let root = &mesh.set.config.root_namespace;
    let has_selector = |selector: &Option<Labels>| selector.is_some();
    for object in &mesh.set.peer_authentications {
        if object.metadata.namespace == *root && has_selector(&object.selector) {
            findings.warn(
                "ignored-selector",
                &object.location,
                format!("a PeerAuthentication with a `selector` in the root namespace `{root}` is ignored"),
                "put it into the namespace of the workloads that it selects",
            );
        }
    }
}
