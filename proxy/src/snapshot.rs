//! Everything that a worker judges and connects by, as one immutable value that is swapped whole.
//!
//! Built by the control thread alone (`control/store.rs`).

use std::sync::Arc;

use ravelin_policies::{RequestIdentity, WorkloadPolicies};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::tls::{self, X509Bundles};

use crate::denylist::Denylist;
use crate::identity::{OwnSvid, Peer, ServerConfigs};
use crate::metrics::names::MeshNames;
use crate::route::Routes;
use crate::token::{self, TrustDomainKeys};

/// The configuration in use.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows with each snapshot.
    pub generation: u64,
    /// Grows with each own SVID.
    pub identity_generation: u64,
    /// Grows with each X.509 bundle.
    pub bundle_generation: u64,
    /// The identity that policies are compiled for.
    pub workload: SpiffeId,
    /// Own SVID.
    pub svid: Arc<OwnSvid>,
    /// Trust bundles.
    pub bundles: Arc<X509Bundles>,
    /// For the inbound listeners.
    pub server: ServerConfigs,
    /// Token keys by trust domain.
    pub token_keys: Arc<TrustDomainKeys>,
    /// Who is cut off.
    pub denylist: Arc<Denylist>,
    /// Compiled policies of the workload.
    pub policies: Arc<WorkloadPolicies>,
    /// Services of the mesh.
    pub routes: Arc<Routes>,
    /// What metrics call workloads and services.
    pub names: Arc<MeshNames>,
    /// Revision of policies and routes.
    pub mesh_revision: u64,
    /// Sequence number of the bundle.
    pub bundle_sequence: u64,
}

impl Snapshot {
    /// True for a peer on the deny-list.
    pub fn is_denied(&self, peer: &Peer, now: Timestamp) -> bool {
        self.denylist
            .is_peer_denied(peer.id().as_str(), peer.serial(), peer.issued_at(), now)
    }

    /// True for an accepted token on the deny-list.
    pub fn is_token_denied(&self, identity: &RequestIdentity, now: Timestamp) -> bool {
        token::is_denied(&self.denylist, identity, now)
    }

    /// True while the peer's chain leads to an authority of its own trust domain.
    pub fn is_trusted(&self, peer: &Peer, now: Timestamp) -> bool {
        tls::verify_chain(&self.bundles, &peer.identity().chain, now).is_ok()
    }

    /// True once the own SVID has expired: the proxy then takes and makes no calls.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.svid.expires_at < now
    }
}
