//! Who may call what: one table over every RPC of this server, and the gate that asks it before any handler runs.
//!
//! The gate judges at each call, not only at the handshake: an SVID that has expired, whose authority left the bundle, that
//! is on the deny-list, or whose agent was banned gets nothing on a connection that is still open (threats 19, 21, 65).
//! A response that is still under way then is cut (`cut`).

mod cut;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use ravelin_proto::bundle::x509_authority_id;
use ravelin_proto::time::Timestamp;
use ravelin_proto::x509_svid::LeafSvid;
use ravelin_runtime::rpc::TlsPeer;
use ravelin_runtime::tls::PeerIdentity;
use tonic::Status;
use tonic::service::Routes;

use super::caller::Caller;
use crate::attest::agents::Agents;
use crate::hub::Hub;
use crate::limits::NOT_BEFORE_BACKDATE;
use crate::registry::RegisteredAgent;
use crate::store::{DeniedIdentity, DeniedSubject};

/// Sets of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// Everybody, without an SVID as well.
    Everybody,
    /// The admin socket and SVIDs of admin entries.
    Administrators,
    /// Attested agents.
    Agents,
    /// Both of the two before.
    AdministratorsAndAgents,
    /// The admin socket alone.
    Local,
    /// Workloads of downstream entries; none of these methods is there yet.
    Downstream,
}

const AGENT: &str = "spire.api.server.agent.v1.Agent";
const BUNDLE: &str = "spire.api.server.bundle.v1.Bundle";
const ENTRY: &str = "spire.api.server.entry.v1.Entry";
const SVID: &str = "spire.api.server.svid.v1.SVID";
const TRUST_DOMAIN: &str = "spire.api.server.trustdomain.v1.TrustDomain";
const LOCAL_AUTHORITY: &str = "spire.api.server.localauthority.v1.LocalAuthority";
const LOGGER: &str = "spire.api.server.logger.v1.Logger";
const DEBUG: &str = "spire.api.server.debug.v1.Debug";
const ADMIN: &str = "ravelin.v1.Admin";
const AUDIT: &str = "ravelin.v1.Audit";
const MESH: &str = "ravelin.v1.Mesh";
const ROTATION: &str = "ravelin.v1.Rotation";
const SYNC: &str = "ravelin.v1.Sync";

/// Methods by service, with who may call them. `*` stands for every other method of the service.
const TABLE: &[(&str, &str, For)] = &[
    (AGENT, "AttestAgent", For::Everybody),
    (AGENT, "RenewAgent", For::Agents),
    (AGENT, "PostStatus", For::Agents),
    (AGENT, "*", For::Administrators),
    (BUNDLE, "GetBundle", For::Everybody),
    (BUNDLE, "GetFederatedBundle", For::AdministratorsAndAgents),
    (BUNDLE, "PublishJWTAuthority", For::Downstream),
    (BUNDLE, "PublishWITAuthority", For::Downstream),
    (BUNDLE, "*", For::Administrators),
    (ENTRY, "GetAuthorizedEntries", For::Agents),
    (ENTRY, "SyncAuthorizedEntries", For::Agents),
    (ENTRY, "*", For::Administrators),
    (SVID, "BatchNewX509SVID", For::Agents),
    (SVID, "NewJWTSVID", For::Agents),
    (SVID, "BatchNewWITSVID", For::Agents),
    (SVID, "NewDownstreamX509CA", For::Downstream),
    (SVID, "*", For::Administrators),
    (TRUST_DOMAIN, "*", For::Administrators),
    (LOCAL_AUTHORITY, "*", For::Administrators),
    (LOGGER, "*", For::Local),
    (DEBUG, "*", For::Local),
    (ADMIN, "*", For::Administrators),
    (AUDIT, "AppendDecisions", For::Agents),
    (AUDIT, "*", For::Administrators),
    (MESH, "*", For::Administrators),
    (ROTATION, "*", For::Administrators),
    (SYNC, "Stream", For::Agents),
    ("grpc.health.v1.Health", "*", For::Local),
    (
        "grpc.reflection.v1.ServerReflection",
        "*",
        For::Administrators,
    ),
    (
        "grpc.reflection.v1alpha.ServerReflection",
        "*",
        For::Administrators,
    ),
];

/// Why a call is refused before its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccessRefusal {
    /// No such method.
    #[error("this server has no such method")]
    Unknown,
    /// The caller shows nothing.
    #[error("this method needs an X.509-SVID of this trust domain")]
    Anonymous,
    /// The caller is not among those who may.
    #[error("this caller may not use this method")]
    Role,
    /// The agent was banned.
    #[error("the agent is banned")]
    Banned,
    /// The agent is unknown, or its SVID was replaced.
    #[error("the agent is not attested, or its SVID was replaced")]
    FormerAgent,
    /// The SVID is over.
    #[error("the X.509-SVID has expired")]
    Expired,
    /// The authority of the SVID left the bundle.
    #[error("the authority of the X.509-SVID is no longer trusted")]
    Authority,
    /// The SVID is cut off.
    #[error("the X.509-SVID is on the deny-list")]
    Denied,
}

impl AccessRefusal {
    /// Stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unknown => "method_unknown",
            Self::Anonymous => "caller_anonymous",
            Self::Role => "caller_role",
            Self::Banned => "agent_banned",
            Self::FormerAgent => "agent_not_active",
            Self::Expired => "svid_expired",
            Self::Authority => "svid_authority",
            Self::Denied => "svid_denied",
        }
    }
}

/// Who may call a method; `None` when this server has no such method.
pub fn who_may(path: &str) -> Option<For> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let of_service = || TABLE.iter().filter(|(name, _, _)| *name == service);
    of_service()
        .find(|(_, name, _)| *name == method)
        .or_else(|| of_service().find(|(_, name, _)| *name == "*"))
        .map(|(_, _, who)| *who)
}

/// Judges a caller against a method.
pub fn judge(caller: &Caller, path: &str) -> Result<(), AccessRefusal> {
    let who = who_may(path).ok_or(AccessRefusal::Unknown)?;
    if who == For::Everybody {
        return Ok(());
    }
    let is_fine = match caller {
        Caller::Anonymous => return Err(AccessRefusal::Anonymous),
        Caller::FormerAgent {
            is_banned: true, ..
        } => return Err(AccessRefusal::Banned),
        Caller::FormerAgent { .. } => return Err(AccessRefusal::FormerAgent),
        Caller::Local { .. } => {
            matches!(
                who,
                For::Local | For::Administrators | For::AdministratorsAndAgents
            )
        }
        Caller::Agent(_) => matches!(who, For::Agents | For::AdministratorsAndAgents),
        Caller::Workload { is_admin: true, .. } => {
            matches!(who, For::Administrators | For::AdministratorsAndAgents)
        }
        Caller::Workload { .. } => false,
    };
    if is_fine {
        Ok(())
    } else {
        Err(AccessRefusal::Role)
    }
}

/// Judges an SVID as it stands now: time, authority, deny-list.
fn judge_svid(hub: &Hub, peer: &PeerIdentity) -> Result<(), AccessRefusal> {
    if hub.store().clock().now() > peer.not_after {
        return Err(AccessRefusal::Expired);
    }
    let bundle = hub.bundle();
    let is_trusted = bundle
        .x509_authorities
        .iter()
        .filter_map(|authority| x509_authority_id(&authority.der))
        .any(|id| peer.authority_id.as_deref() == Some(id.as_str()));
    if !is_trusted {
        return Err(AccessRefusal::Authority);
    }
    let denylist = hub.store().denylists().borrow().clone();
    if denylist
        .entries
        .values()
        .any(|entry| is_denied(entry, peer))
    {
        return Err(AccessRefusal::Denied);
    }
    Ok(())
}

fn is_denied(entry: &DeniedIdentity, peer: &PeerIdentity) -> bool {
    match &entry.subject {
        DeniedSubject::Serial(serial) => *serial == peer.serial,
        DeniedSubject::AgentId(id) => {
            id == peer.id.as_str() || entry.serials.contains(&peer.serial)
        }
        DeniedSubject::SpiffeId(id) => {
            id == peer.id.as_str()
                && entry
                    .issued_until
                    .is_none_or(|until| issued_at(peer) <= Some(until))
        }
        DeniedSubject::Jti(_) => false,
    }
}

/// Certificates are backdated by a fixed time.
fn issued_at(peer: &PeerIdentity) -> Option<Timestamp> {
    let leaf = LeafSvid::parse(peer.chain.first()?).ok()?;
    Some(leaf.validity.not_before.plus(NOT_BEFORE_BACKDATE))
}

/// What the gate asks.
#[derive(Debug, Clone)]
pub struct Gate {
    hub: Hub,
    agents: Arc<Agents>,
}

impl Gate {
    /// A gate over the registry.
    pub fn new(hub: Hub, agents: Arc<Agents>) -> Self {
        Self { hub, agents }
    }

    /// Puts the gate before every route.
    pub fn guard(self, routes: Routes) -> Routes {
        Routes::from(
            routes
                .into_axum_router()
                .layer(from_fn_with_state(self, pass)),
        )
    }

    /// Lets a call pass, or not. Returns the agent that shows its new SVID for the first time.
    fn check(&self, request: &Request<Body>) -> Result<Option<Arc<RegisteredAgent>>, Status> {
        let extensions = request.extensions();
        let path = request.uri().path();
        let peer = extensions
            .get::<TlsPeer>()
            .and_then(|peer| peer.identity.clone());
        let caller = Caller::of(extensions, &self.hub.registry());
        let judged = judge(&caller, path).and_then(|()| match &peer {
            // WHY: an agent whose SVID is over still needs the bundle and attestation.
            Some(peer) if who_may(path) != Some(For::Everybody) => judge_svid(&self.hub, peer),
            Some(_) | None => Ok(()),
        });
        if let Err(refusal) = judged {
            tracing::info!(
                code = refusal.code(),
                caller = caller.actor(),
                path,
                "call refused"
            );
            return Err(super::status::of_access(refusal, path));
        }
        let is_first_use = |agent: &RegisteredAgent| {
            !agent.serial_before.is_empty()
                && peer
                    .as_ref()
                    .is_some_and(|peer| peer.serial == agent.serial)
        };
        match caller {
            Caller::Agent(agent) if is_first_use(&agent) => Ok(Some(agent)),
            Caller::Agent(_)
            | Caller::Local { .. }
            | Caller::FormerAgent { .. }
            | Caller::Workload { .. }
            | Caller::Anonymous => Ok(None),
        }
    }

    /// Why a call that was let in may not go on; `None` while it may.
    fn judge_again(&self, peer: &PeerIdentity, path: &str) -> Option<AccessRefusal> {
        let caller = Caller::of_peer(&peer.id, &peer.serial, &self.hub.registry());
        let judged = judge(&caller, path).and_then(|()| judge_svid(&self.hub, peer));
        match judged {
            // WHY: a stream over the SVID before the present one ends with its connection, and one of an agent that was
            // evicted by itself; an agent under an authority that has gone must still hear of the bundle without it.
            Ok(()) | Err(AccessRefusal::FormerAgent | AccessRefusal::Authority) => None,
            Err(refusal) => Some(refusal),
        }
    }

    async fn settle(&self, agent: &RegisteredAgent) -> Result<(), Status> {
        let done = self.agents.settle(&agent.id, &agent.serial).await;
        done.map_err(|error| super::store_status(&error))
    }
}

async fn pass(State(gate): State<Gate>, request: Request<Body>, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let peer = request
        .extensions()
        .get::<TlsPeer>()
        .and_then(|peer| peer.identity.clone())
        .filter(|_| who_may(&path) != Some(For::Everybody));
    let settled = match gate.check(&request) {
        Ok(Some(agent)) => gate.settle(&agent).await,
        Ok(None) => Ok(()),
        Err(status) => Err(status),
    };
    match settled {
        Ok(()) => {
            let response = next.run(request).await;
            match peer {
                Some(peer) => cut::guard(gate, peer, path, response),
                None => response,
            }
        }
        Err(status) => status.into_http(),
    }
}

#[cfg(test)]
mod tests;
