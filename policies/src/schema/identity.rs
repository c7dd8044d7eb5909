//! `WorkloadIdentity`: selectors -> SPIFFE ID, and for `ravelin up` the command that is the workload.

use std::net::SocketAddr;

use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::selector::Selector;
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};

use crate::object::{Location, Metadata};

/// One identity that processes may get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadIdentity {
    /// Name, namespace, and the labels that policies select by.
    pub metadata: Metadata,
    /// Where it stands.
    pub location: Location,
    /// Default `/ns/NAMESPACE/sa/NAME` of the mesh's trust domain.
    pub spiffe_id: SpiffeId,
    /// The node (or node alias) that may hand it out.
    pub parent_id: SpiffeId,
    /// At least one; all must be attested.
    pub selectors: Vec<Selector>,
    /// Seconds.
    pub x509_svid_ttl_secs: u32,
    /// Seconds.
    pub jwt_svid_ttl_secs: u32,
    /// DNS names for the X509-SVID.
    pub dns_names: Vec<String>,
    /// Foreign trust domains whose bundles it gets.
    pub federates_with: Vec<TrustDomain>,
    /// Operator's hint.
    pub hint: String,
    /// May use the CA's administrative API.
    pub is_admin: bool,
    /// Used by `ravelin up` alone.
    pub launch: Option<Launch>,
}

/// How `ravelin up` starts the workload and its proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Program and arguments; empty for a proxy without a command.
    pub command: Vec<String>,
    /// Port of the workload itself on loopback.
    pub port: u16,
    /// The proxy's listener for peers.
    pub inbound: Option<SocketAddr>,
    /// The proxy's listener for the workload's own calls.
    pub outbound: Option<SocketAddr>,
    /// What the workload speaks.
    pub protocol: LaunchProtocol,
}

/// `launch.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LaunchProtocol {
    /// HTTP/1.1 and HTTP/2.
    #[default]
    Http,
    /// Anything else.
    Tcp,
}

impl WorkloadIdentity {
    /// The registration entry's id: `mesh:NAMESPACE/NAME`.
    pub fn entry_id(&self) -> String {
        format!("mesh:{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// As a registration entry. It was checked when the set was loaded.
    pub fn to_entry(&self) -> RegistrationEntry {
        let mut entry = RegistrationEntry::new(
            &self.entry_id(),
            self.spiffe_id.clone(),
            self.parent_id.clone(),
            self.selectors.clone(),
        );
        entry.x509_svid_ttl_secs = self.x509_svid_ttl_secs;
        entry.jwt_svid_ttl_secs = self.jwt_svid_ttl_secs;
        entry.dns_names.clone_from(&self.dns_names);
        entry.federates_with.clone_from(&self.federates_with);
        entry.hint.clone_from(&self.hint);
        entry.is_admin = self.is_admin;
        entry
    }
}
