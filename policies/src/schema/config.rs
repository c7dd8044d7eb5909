//! `MeshConfig`: what holds for the whole mesh (`ravelin.yaml`).

use std::sync::Arc;
use std::time::Duration;

use ravelin_proto::spiffe_id::TrustDomain;

use crate::matcher::StringMatch;
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
    /// Booleans and numbers of claims match their text (rule 50; ours, false by default).
    pub has_typed_claims: bool,
    /// `hosts` compare with the port as it came alone (rule 38; ours: false by default).
    pub is_host_exact: bool,
    /// A workload without any policy: Istio allows (rule 2), we deny by default.
    pub are_unlisted_calls_allowed: bool,
    /// External authorizers of CUSTOM policies, by name (rule 62).
    pub extension_providers: Vec<Arc<ExtensionProvider>>,
}

impl MeshConfig {
    /// False for the defaults of a folder without `ravelin.yaml`.
    pub fn is_given(&self) -> bool {
        self.location.line > 0
    }
}

/// An external authorizer (rule 62): `extensionProviders` of Istio's mesh config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionProvider {
    /// Unique; what `provider.name` of a policy says.
    pub name: String,
    /// Where it stands.
    pub location: Location,
    /// Host of a service of the mesh, or an address.
    pub service: String,
    /// Port of the service.
    pub port: u16,
    /// How long an answer may take. Istio waits 600 s by default; we 2 s.
    pub timeout: Duration,
    /// Calls pass when the authorizer cannot be asked. False by default: fail closed.
    pub is_fail_open: bool,
    /// The status of a call that is refused because the authorizer cannot be asked; 403 by default.
    pub status_on_error: u16,
    /// How much of the body it gets.
    pub body: Option<CheckedBody>,
    /// What it speaks.
    pub protocol: CheckProtocol,
}

impl ExtensionProvider {
    /// Is it asked about connections whose content is not HTTP? One that speaks HTTP has nothing to say there (rule 57).
    pub fn judges_connections(&self) -> bool {
        self.protocol == CheckProtocol::Grpc
    }
}

/// `includeRequestBodyInCheck`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckedBody {
    /// Most bytes that are sent.
    pub max_request_bytes: u32,
    /// A longer body is cut; otherwise such a call is refused with 413.
    pub allows_partial: bool,
    /// As bytes instead of text (gRPC).
    pub is_packed_as_bytes: bool,
}

/// How an external authorizer is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckProtocol {
    /// `envoy.service.auth.v3.Authorization` over gRPC.
    Grpc,
    /// A request of the same method to `path_prefix` and the call's path.
    Http {
        /// Before the path.
        path_prefix: String,
        /// Headers of the call that are sent, besides those that always are. Lower case.
        request_headers: Vec<HeaderPattern>,
        /// Headers that are added, name and value.
        additional_headers: Vec<(String, String)>,
        /// Headers of a permitting answer that replace those of the call.
        upstream_headers_on_allow: Vec<HeaderPattern>,
        /// Headers of a permitting answer that the caller gets.
        downstream_headers_on_allow: Vec<HeaderPattern>,
        /// Headers of a refusing answer that the caller gets.
        downstream_headers_on_deny: Vec<HeaderPattern>,
    },
}

/// A header's name: exact, `prefix*` or `*suffix`, in lower case. `*` alone does not exist (rule 62).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderPattern(pub(crate) StringMatch);

impl HeaderPattern {
    /// True for a name (in lower case) that it means.
    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name.as_bytes())
    }
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
