//! `RequestAuthentication` and `PeerAuthentication` (security.istio.io).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ravelin_proto::http_url::HttpUrl;
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
    /// Bound to a gateway or a service by `targetRefs`: it loads, and holds for no workload here (rule 67).
    pub has_target_refs: bool,
    /// One per issuer, usually.
    pub rules: Vec<Arc<JwtRule>>,
}

/// One accepted issuer.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtRule {
    /// Where it stands.
    pub location: Location,
    /// `iss`, exactly; `None`: whoever signs with these keys (rule 76).
    pub issuer: Option<String>,
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
    /// Fetched by whoever runs the engine: this crate does no IO.
    Remote(RemoteKeys),
}

/// Keys that are fetched (rule 76).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteKeys {
    /// From where.
    pub address: KeyAddress,
    /// How long one fetch may take.
    pub timeout: Duration,
}

/// What names a set of fetched keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyAddress {
    /// `jwksUri`.
    JwksUri(HttpUrl),
    /// An issuer without `jwks` and `jwksUri`: its discovery document names the key set (OpenID Connect Discovery 4).
    Issuer(HttpUrl),
}

impl KeyAddress {
    /// The address that is asked first.
    pub fn url(&self) -> &HttpUrl {
        match self {
            Self::JwksUri(url) | Self::Issuer(url) => url,
        }
    }
}

impl fmt::Display for KeyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url().fmt(f)
    }
}

impl KeyOrigin {
    pub(crate) fn trust_domain(&self) -> Option<&TrustDomain> {
        match self {
            Self::Inline(_) | Self::Remote(_) => None,
            Self::TrustDomain(trust_domain) => Some(trust_domain),
        }
    }

    pub(crate) fn remote(&self) -> Option<&RemoteKeys> {
        match self {
            Self::Inline(_) | Self::TrustDomain(_) => None,
            Self::Remote(remote) => Some(remote),
        }
    }
}

/// Where a token may stand in a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
