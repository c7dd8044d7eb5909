//! `MeshConfig`: what holds for the whole mesh (`ravelin.yaml`).

use std::time::Duration;

use ravelin_proto::spiffe_id::TrustDomain;

use crate::object::{Location, Metadata};
use crate::path::PathNormalization;

/// The mesh's own settings; one object a set.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshConfig {
    /// Name, for messages.
    pub metadata: Metadata,
    /// Where it stands.
    pub location: Location,
    /// The trust domain of every identity here.
    pub trust_domain: TrustDomain,
    /// Other names of this trust domain in principals (rule 34).
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// Policies of this namespace hold for all namespaces (rule 65).
    pub root_namespace: String,
    /// What a WorkloadIdentity takes when it does not say.
    pub defaults: IdentityDefaults,
    /// How paths are normalized (rule 87).
    pub path_normalization: PathNormalization,
    /// Widens `exp` and `nbf` of tokens (rule 77).
    pub clock_skew: Duration,
    /// Tokens without `exp` are refused (rule 77; ours: true by default).
    pub is_expiry_required: bool,
    /// Booleans and numbers of claims match their text (rule 50; ours: true by default).
    pub has_typed_claims: bool,
    /// `hosts` compare with the port as it came alone (rule 38; ours: false by default).
    pub is_host_exact: bool,
    /// A workload without any policy: Istio allows (rule 2), we deny by default.
    pub are_unlisted_calls_allowed: bool,
}

/// `spec.defaults` of a MeshConfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityDefaults {
    /// Path or SPIFFE ID of the parent.
    pub parent_id: String,
    /// Seconds.
    pub x509_svid_ttl_secs: u32,
    /// Seconds.
    pub jwt_svid_ttl_secs: u32,
}
