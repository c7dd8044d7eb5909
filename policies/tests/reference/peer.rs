//! The peer: principal, namespace, service account, trust domain (rules 29 to 34), and its mode (rules 82 to 84).

use serde_json::Value;

use super::text::matches;
use super::{World, at, name_of, namespace_of, text_at};

/// `spiffe://TD/a/b` as trust domain and segments.
fn parts(id: &str) -> (&str, Vec<&str>) {
    let rest = id.strip_prefix("spiffe://").unwrap_or(id);
    let mut segments = rest.split('/');
    let domain = segments.next().unwrap_or_default();
    (domain, segments.collect())
}

/// Rule 30, after rule 34: a member of the mesh is one under each of the mesh's names.
pub fn principal_matches(world: &World<'_>, pattern: &str, id: &str) -> bool {
    let pattern = pattern.strip_prefix("spiffe://").unwrap_or(pattern);
    let own = world.own_domains();
    let segments: Vec<&str> = pattern.split('/').collect();
    let shown = id.strip_prefix("spiffe://").unwrap_or(id);
    if let [domain, rest @ ..] = segments.as_slice()
        && rest.len() == 4
        && (own.contains(domain) || *domain == "cluster.local")
    {
        return own
            .iter()
            .any(|own| matches(&format!("{own}/{}", rest.join("/")), shown));
    }
    matches(pattern, shown)
}

/// Rule 29: what stands behind `ns`.
pub fn namespace_matches(pattern: &str, id: &str) -> bool {
    let (_, segments) = parts(id);
    // `/ns/NAMESPACE/` wants something behind the namespace.
    segments
        .windows(3)
        .any(|window| window[0] == "ns" && matches(pattern, window[1]))
}

/// Rule 31: `ns/NAMESPACE`, anything between, `sa/ACCOUNT`, anything behind, in any trust domain.
pub fn account_matches(pattern: &str, own_namespace: &str, id: &str) -> bool {
    let (namespace, account) = pattern.split_once('/').unwrap_or((own_namespace, pattern));
    let (_, segments) = parts(id);
    let find = |from: usize, key: &str, value: &str| {
        (from..segments.len().saturating_sub(1))
            .filter(|index| segments[*index] == key && segments[index + 1] == value)
            .collect::<Vec<usize>>()
    };
    find(0, "ns", namespace)
        .into_iter()
        .any(|index| !find(index + 2, "sa", account).is_empty())
}

/// Rule 33, with the aliases of rule 34.
pub fn domain_matches(world: &World<'_>, pattern: &str, id: &str) -> bool {
    let (domain, _) = parts(id);
    let own = world.own_domains();
    if own.contains(&pattern) {
        return own.contains(&domain);
    }
    matches(pattern, domain)
}

/// Rules 82 to 84: the port's mode, else the workload's, the namespace's, the mesh's, and STRICT when nobody says.
pub fn mode(world: &World<'_>, port: u16) -> String {
    let of_scope = |is_here: &dyn Fn(&Value) -> bool| {
        world
            .attached("PeerAuthentication")
            .into_iter()
            .filter(|document| is_here(document))
            .min_by_key(|document| {
                let created = text_at(document, &["metadata", "creationTimestamp"]);
                (
                    created.unwrap_or("9").to_owned(),
                    name_of(document).to_owned(),
                )
            })
    };
    let has_selector = |document: &Value| at(document, &["spec", "selector"]).is_some();
    let is_root = |document: &Value| namespace_of(document) == world.root_namespace();
    let workload = of_scope(&|document| has_selector(document) && !is_root(document));
    let namespace = of_scope(&|document| !has_selector(document) && !is_root(document));
    let mesh = of_scope(&|document| !has_selector(document) && is_root(document));
    let said = |document: Option<&Value>, keys: &[&str]| {
        document
            .and_then(|document| text_at(document, keys))
            .filter(|mode| *mode != "UNSET")
            .map(str::to_owned)
    };
    let port = port.to_string();
    said(workload, &["spec", "portLevelMtls", &port, "mode"])
        .or_else(|| said(workload, &["spec", "mtls", "mode"]))
        .or_else(|| said(namespace, &["spec", "mtls", "mode"]))
        .or_else(|| said(mesh, &["spec", "mtls", "mode"]))
        .unwrap_or_else(|| "STRICT".into())
}
