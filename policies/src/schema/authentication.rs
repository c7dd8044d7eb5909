//! `RequestAuthentication` and `PeerAuthentication` (security.istio.io).

use std::collections::BTreeMap;
use std::sync::Arc;

use ravelin_proto::jwks::JwkSet;
use ravelin_proto::spiffe_id::TrustDomain;

use crate::object::{Labels, Location, Metadata};

/// Which tokens are accepted by the workloads that it selects.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestAuthentication {
    /// Name and namespace.
    pub metadata: Metadata,
    /// Where it stands.
    pub location: Location,
    /// Whom it holds for; `None`: everyone in its namespace.
    pub selector: Option<Labels>,
    /// One per issuer, usually.
    pub rules: Vec<Arc<JwtRule>>,
}

/// One accepted issuer.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtRule {
    /// Where it stands.
    pub location: Location,
    /// `iss`, exactly.
    pub issuer: String,
    /// Any overlap passes; empty: not checked (rule 74).
    pub audiences: Vec<String>,
    /// Where its keys come from.
    pub keys: KeyOrigin,
    /// Where its tokens stand (rules 72, 73).
    pub places: Vec<TokenPlace>,
    /// The token is forwarded (rule 79).
    pub forwards_token: bool,
    /// Header that takes the token's payload as base64url.
    pub payload_header: Option<String>,
    /// Header, and the steps to the claim that it takes.
    pub claim_headers: Vec<(String, Vec<String>)>,
    /// Dotted paths of claims that are split on spaces, `scope` and `permission` included (rule 51).
    pub space_delimited: Vec<Vec<String>>,
}

/// Where the keys of an issuer come from.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyOrigin {
    /// `jwks` or `jwksFile`.
    Inline(Arc<JwkSet>),
    /// `jwksUri: spiffe://TD`: the JWT bundle of that trust domain; its tokens are JWT-SVIDs.
    TrustDomain(TrustDomain),
}

impl KeyOrigin {
    pub(crate) fn trust_domain(&self) -> Option<&TrustDomain> {
        match self {
            Self::Inline(_) => None,
            Self::TrustDomain(trust_domain) => Some(trust_domain),
        }
    }
}

/// Where a token may stand in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenPlace {
    /// A header, behind an exact prefix.
    Header {
        /// Lower case.
        name: String,
        /// Such as `Bearer `.
        prefix: String,
    },
    /// A query parameter.
    Param(String),
    /// A cookie.
    Cookie(String),
}

/// Whether peers must show an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Name and namespace.
    pub metadata: Metadata,
    /// Where it stands.
    pub location: Location,
    /// Whom it holds for; `None`: everyone in its namespace.
    pub selector: Option<Labels>,
    /// `None`: inherited (`UNSET`).
    pub mode: Option<PeerMode>,
    /// By workload port.
    pub port_modes: BTreeMap<u16, Option<PeerMode>>,
}

/// How connections are accepted (rule 82).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerMode {
    /// Mutual TLS alone. The default here.
    Strict,
    /// Mutual TLS or plain text.
    Permissive,
    /// Plain text alone.
    Disable,
}
