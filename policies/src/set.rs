//! A whole mesh folder as typed objects: all of it, or every reason why not.

use ravelin_proto::spiffe_id::SpiffeId;

use crate::diagnostic::Diagnostic;
use crate::object::{ObjectRecord, Workload};
use crate::schema::{
    AuthorizationPolicy, MeshConfig, PeerAuthentication, PolicyTest, RequestAuthentication,
    ServiceEntry, WorkloadEntry, WorkloadIdentity,
};

/// Every object of a mesh folder. A value of this type has no error in it.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshSet {
    /// `ravelin.yaml`.
    pub config: MeshConfig,
    /// WorkloadIdentity, by namespace and name.
    pub identities: Vec<WorkloadIdentity>,
    /// AuthorizationPolicy, by namespace and name.
    pub authorization_policies: Vec<AuthorizationPolicy>,
    /// RequestAuthentication, by namespace and name.
    pub request_authentications: Vec<RequestAuthentication>,
    /// PeerAuthentication, by namespace and name.
    pub peer_authentications: Vec<PeerAuthentication>,
    /// ServiceEntry, by namespace and name.
    pub services: Vec<ServiceEntry>,
    /// WorkloadEntry, by namespace and name.
    pub workload_entries: Vec<WorkloadEntry>,
    /// PolicyTest, by namespace and name.
    pub tests: Vec<PolicyTest>,
    /// Every object as text, sorted by kind, namespace and name.
    pub objects: Vec<ObjectRecord>,
    /// What is suspicious, but no error.
    pub warnings: Vec<Diagnostic>,
}

impl MeshSet {
    /// What policies know about the workload of this identity.
    pub fn workload(&self, id: &SpiffeId) -> Workload {
        if let Some(identity) = self
            .identities
            .iter()
            .find(|identity| identity.spiffe_id == *id)
        {
            return Workload {
                spiffe_id: id.clone(),
                namespace: identity.metadata.namespace.clone(),
                name: identity.metadata.name.clone(),
                labels: identity.metadata.labels.clone(),
            };
        }
        let mut parts = id.path().split('/').skip(1);
        let (namespace, name) = match (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) {
            (Some("ns"), Some(namespace), Some("sa"), Some(name), None) => (namespace, name),
            _ => ("", id.path().trim_start_matches('/')),
        };
        Workload {
            spiffe_id: id.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: std::collections::BTreeMap::new(),
        }
    }
}
