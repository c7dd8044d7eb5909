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

    pub(crate) fn of_peer(id: &SpiffeId, serial: &str, registry: &Snapshot) -> Self {
        if let Some(agent) = registry.agent(id) {
            let is_current =
                !serial.is_empty() && (agent.serial == serial || agent.serial_before == serial);
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

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::OwnedFd;

    use ravelin_proto::time::Timestamp;
    use ravelin_runtime::tls::PeerIdentity;
    use tonic::Request;

    use super::*;
    use crate::store::tests::{entry, trust_domain};
    use crate::sync::tests::agent;

    /// A request from the admin socket.
    pub(crate) fn local<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(PeerProcess {
            pid: 1,
            uid: 0,
            gid: 0,
            pidfd: Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap())),
        });
        request
    }

    /// A request over TLS with that SVID.
    pub(crate) fn with_svid<T>(id: &SpiffeId, serial: &str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(TlsPeer {
            identity: Some(Arc::new(PeerIdentity {
                id: id.clone(),
                serial: serial.to_owned(),
                authority_id: None,
                not_after: Timestamp::from_unix_secs(2_000_000_000),
                chain: Vec::new(),
            })),
            remote_addr: ([127, 0, 0, 1], 1).into(),
        });
        request
    }

    /// A request of a registered agent.
    pub(crate) fn of_agent<T>(agent: &RegisteredAgent, message: T) -> Request<T> {
        with_svid(&agent.id, &agent.serial, message)
    }

    #[test]
    fn threat_19_a_caller_is_what_its_svid_and_the_registry_say() {
        let mut admin = entry("admin", "/admin", "/node/local");
        admin.is_admin = true;
        let mut registry = Snapshot::of_entries(1, vec![admin, entry("w", "/w", "/node/local")]);
        let mut banned = agent("banned");
        banned.is_banned = true;
        registry.replace_agents(vec![agent("a"), banned]);
        let id = |path: &str| SpiffeId::new(&trust_domain(), path).unwrap();
        for (path, serial, may_be_agent, may_be_admin) in [
            ("/spire/agent/a", "5ea", true, false),
            ("/spire/agent/a", "other", false, false),
            ("/spire/agent/a", "", false, false),
            ("/spire/agent/banned", "5ebanned", false, false),
            ("/spire/agent/unknown", "1", false, false),
            ("/w", "1", false, false),
            ("/admin", "1", false, true),
        ] {
            let request = with_svid(&id(path), serial, ());
            let caller = Caller::of(request.extensions(), &registry);
            assert_eq!(caller.agent().is_ok(), may_be_agent, "{path} {serial}");
            assert_eq!(caller.admin().is_ok(), may_be_admin, "{path} {serial}");
        }
        assert!(
            Caller::of(local(()).extensions(), &registry)
                .admin()
                .is_ok()
        );
        let anonymous = Caller::of(Request::new(()).extensions(), &registry);
        assert!(anonymous.admin().is_err() && anonymous.agent().is_err());
    }
}
