//! Who calls: what TLS or the Unix socket vouches for, looked up in the registry.
//!
//! Which caller may use which method is `access`'s table; handlers take the facts from here.

use std::sync::Arc;

use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_runtime::rpc::TlsPeer;
use ravelin_runtime::uds::PeerProcess;
use tonic::{Extensions, Status};

use crate::registry::{RegisteredAgent, Snapshot};

/// The authenticated other end of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A process on the admin socket.
    Local {
        /// Its user number.
        uid: u32,
    },
    /// A registered agent that is not banned, with an SVID that is its present or last one.
    Agent(Arc<RegisteredAgent>),
    /// An agent that was evicted or banned, or whose SVID was replaced.
    FormerAgent {
        /// Its SPIFFE ID.
        id: SpiffeId,
        /// True when it is banned.
        is_banned: bool,
    },
    /// A workload with an X509-SVID of this trust domain.
    Workload {
        /// Its SPIFFE ID.
        id: SpiffeId,
        /// True when one of the entries for this ID is an administrator's.
        is_admin: bool,
    },
    /// TLS without a client certificate.
    Anonymous,
}

impl Caller {
    /// Reads the extensions that the accept loops set.
    pub fn of(extensions: &Extensions, registry: &Snapshot) -> Self {
        if let Some(process) = extensions.get::<PeerProcess>() {
            return Self::Local { uid: process.uid };
        }
        let peer = extensions
            .get::<TlsPeer>()
            .and_then(|peer| peer.identity.as_deref());
        match peer {
            Some(peer) => Self::of_peer(&peer.id, &peer.serial, registry),
            None => Self::Anonymous,
        }
    }

    fn of_peer(id: &SpiffeId, serial: &str, registry: &Snapshot) -> Self {
        if let Some(agent) = registry.agent(id) {
            let is_current = agent.serial == serial || agent.serial_before == serial;
            if agent.is_banned || !is_current {
                return Self::FormerAgent {
                    id: id.clone(),
                    is_banned: agent.is_banned,
                };
            }
            return Self::Agent(Arc::clone(agent));
        }
        if id.path().starts_with("/spire/agent/") {
            return Self::FormerAgent {
                id: id.clone(),
                is_banned: false,
            };
        }
        Self::Workload {
            is_admin: registry
                .entries_by_spiffe_id(id)
                .iter()
                .any(|entry| entry.is_admin),
            id: id.clone(),
        }
    }

    /// The word that stands as actor in the audit log.
    pub fn actor(&self) -> String {
        match self {
            Self::Local { uid } => format!("uid:{uid}"),
            Self::Agent(agent) => agent.id.to_string(),
            Self::FormerAgent { id, .. } | Self::Workload { id, .. } => id.to_string(),
            Self::Anonymous => "anonymous".to_owned(),
        }
    }

    /// The agent, or the refusal that every other caller gets.
    pub fn agent(&self) -> Result<&Arc<RegisteredAgent>, Status> {
        match self {
            Self::Agent(agent) => Ok(agent),
            Self::Local { .. }
            | Self::FormerAgent { .. }
            | Self::Workload { .. }
            | Self::Anonymous => Err(Status::permission_denied("this method is for agents")),
        }
    }

    /// Ok for an administrator: the admin socket, or an SVID of an `admin` entry.
    pub fn admin(&self) -> Result<(), Status> {
        match self {
            Self::Local { .. } | Self::Workload { is_admin: true, .. } => Ok(()),
            Self::Agent(_)
            | Self::FormerAgent { .. }
            | Self::Workload {
                is_admin: false, ..
            }
            | Self::Anonymous => Err(Status::permission_denied(
                "this method is for administrators",
            )),
        }
    }
}
