//! What the mesh calls its workloads and services: the values of Istio's labels, looked up by SPIFFE ID and by service.
//!
//! Pure. Built by the control thread from one mesh revision; of what the mesh does not name, the SPIFFE ID tells what it can.

use std::collections::HashMap;
use std::sync::Arc;

use ravelin_policies::{MeshSet, Workload};
use ravelin_proto::spiffe_id::SpiffeId;

/// A workload as labels name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadNames {
    /// Name of its WorkloadIdentity.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// SPIFFE ID.
    pub principal: String,
    /// Label `app`.
    pub app: String,
    /// Label `version`.
    pub version: String,
    /// Its trust domain: what a cluster is in Istio, one site of the mesh.
    pub cluster: String,
    /// Label `service.istio.io/canonical-name`, `app.kubernetes.io/name` or `app`, else its name.
    pub canonical_service: String,
    /// Label `service.istio.io/canonical-revision`, `app.kubernetes.io/version` or `version`, else `latest`.
    pub canonical_revision: String,
}

/// A service as labels name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceNames {
    /// The declared host.
    pub host: String,
    /// Name of its ServiceEntry.
    pub name: String,
    /// Namespace of its ServiceEntry.
    pub namespace: String,
}

/// Names of one mesh revision.
#[derive(Debug, Default)]
pub struct MeshNames {
    workloads: HashMap<SpiffeId, Arc<WorkloadNames>>,
    services: HashMap<String, Arc<ServiceNames>>,
    own: HashMap<(SpiffeId, u16), Arc<ServiceNames>>,
}

impl MeshNames {
    /// Reads the names of `set`.
    pub fn new(set: &MeshSet) -> Self {
        let mut names = Self::default();
        for identity in &set.identities {
            let workload = set.workload(&identity.spiffe_id);
            names
                .workloads
                .entry(identity.spiffe_id.clone())
                .or_insert_with(|| Arc::new(named(&workload)));
        }
        for service in &set.services {
            for host in &service.hosts {
                let host = host.to_ascii_lowercase();
                let known = Arc::new(ServiceNames {
                    name: service.metadata.name.clone(),
                    namespace: service.metadata.namespace.clone(),
                    host: host.clone(),
                });
                for port in &service.ports {
                    names
                        .services
                        .entry(format!("{host}:{}", port.number))
                        .or_insert_with(|| Arc::clone(&known));
                    for endpoint in &service.endpoints {
                        for id in &service.subject_alt_names {
                            names
                                .own
                                .entry((id.clone(), endpoint.port_for(port)))
                                .or_insert_with(|| Arc::clone(&known));
                        }
                    }
                }
            }
        }
        names
    }

    /// The names of a workload of this mesh, or those that its SPIFFE ID tells.
    pub fn workload(&self, id: &SpiffeId) -> Arc<WorkloadNames> {
        self.workloads
            .get(id)
            .map_or_else(|| Arc::new(by_id(id)), Arc::clone)
    }

    /// The names of a service by the `host:port` of its route.
    pub fn service(&self, route: &str) -> Option<&Arc<ServiceNames>> {
        self.services.get(route)
    }

    /// The service that `id` serves on the listener with this port.
    pub fn own_service(&self, id: &SpiffeId, port: u16) -> Option<&Arc<ServiceNames>> {
        self.own.get(&(id.clone(), port))
    }
}

fn named(workload: &Workload) -> WorkloadNames {
    let label = |keys: &[&str]| {
        keys.iter()
            .find_map(|key| workload.labels.get(*key))
            .cloned()
    };
    let app = label(&["app"]).unwrap_or_default();
    WorkloadNames {
        workload: workload.name.clone(),
        namespace: workload.namespace.clone(),
        principal: workload.spiffe_id.to_string(),
        version: label(&["version"]).unwrap_or_default(),
        cluster: workload.spiffe_id.trust_domain().to_string(),
        canonical_service: label(&[
            "service.istio.io/canonical-name",
            "app.kubernetes.io/name",
            "app",
        ])
        .unwrap_or_else(|| workload.name.clone()),
        canonical_revision: label(&[
            "service.istio.io/canonical-revision",
            "app.kubernetes.io/version",
            "version",
        ])
        .unwrap_or_else(|| "latest".to_owned()),
        app,
    }
}

/// `/ns/NAMESPACE/sa/NAME` tells both; of another path nothing is guessed.
fn by_id(id: &SpiffeId) -> WorkloadNames {
    let parts: Vec<&str> = id.path().split('/').skip(1).collect();
    let (namespace, name) = match parts.as_slice() {
        ["ns", namespace, "sa", name] => (*namespace, *name),
        _ => ("", ""),
    };
    WorkloadNames {
        workload: name.to_owned(),
        namespace: namespace.to_owned(),
        principal: id.to_string(),
        cluster: id.trust_domain().to_string(),
        canonical_service: name.to_owned(),
        canonical_revision: "latest".to_owned(),
        ..WorkloadNames::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ravelin_policies::{SourceFile, load};

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).unwrap()
    }

    fn names() -> MeshNames {
        let files = [
            (
                "ravelin.yaml",
                "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec: {trustDomain: shop.example}\n",
            ),
            (
                "identities/shop/all.yaml",
                "apiVersion: ravelin.dev/v1\nkind: WorkloadIdentity\nmetadata: {name: web, namespace: shop, labels: {app: front, version: v2}}\nspec: {selectors: ['launch:name:web']}\n---\napiVersion: ravelin.dev/v1\nkind: WorkloadIdentity\nmetadata: {name: plain, namespace: shop}\nspec: {selectors: ['launch:name:plain']}\n",
            ),
            (
                "services/shop/all.yaml",
                "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: web, namespace: shop}\nspec: {hosts: [Web.shop], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8443}], endpoints: [{address: 127.0.0.1}], subjectAltNames: ['spiffe://shop.example/ns/shop/sa/web']}\n",
            ),
        ];
        let files = files.map(|(path, content)| SourceFile {
            path: path.into(),
            content: content.into(),
        });
        MeshNames::new(&load(&files).unwrap())
    }

    #[test]
    fn a_workload_is_named_by_its_identity_and_labels_else_by_its_spiffe_id() {
        let names = names();
        let rows = [
            (
                "spiffe://shop.example/ns/shop/sa/web",
                "web",
                "shop",
                "front",
                "v2",
                "front",
                "v2",
            ),
            (
                "spiffe://shop.example/ns/shop/sa/plain",
                "plain",
                "shop",
                "",
                "",
                "plain",
                "latest",
            ),
            (
                "spiffe://other.example/ns/a/sa/b",
                "b",
                "a",
                "",
                "",
                "b",
                "latest",
            ),
            (
                "spiffe://other.example/host/7",
                "",
                "",
                "",
                "",
                "",
                "latest",
            ),
        ];
        for (principal, workload, namespace, app, version, service, revision) in rows {
            let found = names.workload(&id(principal));
            assert_eq!(
                [
                    &found.principal,
                    &found.workload,
                    &found.namespace,
                    &found.app,
                    &found.version,
                    &found.canonical_service,
                    &found.canonical_revision
                ],
                [
                    principal, workload, namespace, app, version, service, revision
                ],
            );
        }
        assert_eq!(
            names.workload(&id("spiffe://other.example/x")).cluster,
            "other.example"
        );
    }

    #[test]
    fn a_service_is_found_by_its_route_and_by_who_serves_it_where() {
        let names = names();
        assert_eq!(names.service("web.shop:80").unwrap().name, "web");
        assert!(names.service("web.shop:81").is_none());
        let web = id("spiffe://shop.example/ns/shop/sa/web");
        assert_eq!(names.own_service(&web, 8443).unwrap().host, "web.shop");
        assert!(names.own_service(&web, 80).is_none());
        assert!(
            names
                .own_service(&id("spiffe://shop.example/x"), 8443)
                .is_none()
        );
    }
}
