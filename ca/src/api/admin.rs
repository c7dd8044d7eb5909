//! `ravelin.v1.Admin`: health, and cutting identities off before they expire.

use std::sync::Arc;

use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::pb::ravelin::v1::admin_server::{Admin, AdminServer};
use ravelin_proto::pb::ravelin::v1::revoke_request::Subject;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::crypto;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::store_status;
use crate::attest::agents::Agents;
use crate::authority::custody::Custody;
use crate::authority::state::Kind;
use crate::hub::Hub;
use crate::limits::REASON_BYTES_MAX;
use crate::store::{DeniedIdentity, DeniedSubject, StoreError};

/// The service.
#[derive(Debug, Clone)]
pub struct AdminService {
    hub: Hub,
    custody: Arc<Custody>,
    agents: Arc<Agents>,
    started_at: Timestamp,
}

/// What a revocation names, with when the last SVID that it names ends.
struct Cut {
    subject: DeniedSubject,
    expires_at: Timestamp,
    serials: Vec<String>,
    issued_until: Option<Timestamp>,
}

impl AdminService {
    /// Over the registry and the authorities.
    pub fn server(
        hub: Hub,
        custody: Arc<Custody>,
        agents: Arc<Agents>,
        started_at: Timestamp,
    ) -> AdminServer<Self> {
        AdminServer::new(Self {
            hub,
            custody,
            agents,
            started_at,
        })
    }

    fn id(&self, text: &str) -> Result<SpiffeId, Status> {
        let id = SpiffeId::parse(text)
            .map_err(|error| Status::invalid_argument(format!("not a SPIFFE ID: {error}")))?;
        if !id.is_member_of(self.hub.store().trust_domain()) {
            return Err(Status::invalid_argument(
                "the ID is of another trust domain",
            ));
        }
        Ok(id)
    }

    async fn cut(&self, subject: Subject, now: Timestamp) -> Result<Cut, Status> {
        let failed = |error: StoreError| store_status(&error);
        let store = self.hub.store();
        match subject {
            Subject::SpiffeId(text) => {
                let id = self.id(&text)?;
                let end = store.end_by_spiffe_id(id.as_str()).await.map_err(failed)?;
                Ok(Cut {
                    subject: DeniedSubject::SpiffeId(id.to_string()),
                    expires_at: live_end(end, now)?,
                    serials: Vec::new(),
                    issued_until: Some(now),
                })
            }
            Subject::AgentId(text) => {
                let id = self.id(&text)?;
                let end = store.end_by_agent(id.as_str()).await.map_err(failed)?;
                // The ban stands whatever is still live; it is on the list for an agent's life at least.
                let least = now.plus(self.agents.life());
                Ok(Cut {
                    subject: DeniedSubject::AgentId(id.to_string()),
                    expires_at: end.map_or(least, |end| end.max(least)),
                    serials: store
                        .serials_by_agent(id.as_str(), now)
                        .await
                        .map_err(failed)?,
                    issued_until: None,
                })
            }
            Subject::Serial(text) => {
                let serial = text.to_ascii_lowercase();
                let serial = serial.trim_start_matches('0').to_owned();
                let expires_at = self.end_of(&serial, Kind::X509, now).await?;
                Ok(Cut::one(DeniedSubject::Serial(serial), expires_at))
            }
            Subject::Jti(jti) => {
                let expires_at = self.end_of(&jti, Kind::Jwt, now).await?;
                Ok(Cut::one(DeniedSubject::Jti(jti), expires_at))
            }
        }
    }

    async fn end_of(&self, serial: &str, kind: Kind, now: Timestamp) -> Result<Timestamp, Status> {
        let issued = self.hub.store().issued_end(serial).await;
        let end = issued
            .map_err(|error| store_status(&error))?
            .filter(|(found, _)| *found == kind)
            .map(|(_, end)| end);
        live_end(end, now)
    }
}

impl Cut {
    fn one(subject: DeniedSubject, expires_at: Timestamp) -> Self {
        Self {
            subject,
            expires_at,
            serials: Vec::new(),
            issued_until: None,
        }
    }
}

fn live_end(end: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, Status> {
    end.filter(|end| *end >= now)
        .ok_or_else(|| Status::not_found("no live SVID of this CA is named by this"))
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn get_health(
        &self,
        _request: Request<pb::HealthRequest>,
    ) -> Result<Response<pb::HealthResponse>, Status> {
        let authorities = self.custody.authorities();
        let store = self.hub.store();
        let active = |kind: Kind| {
            let active = authorities.of(kind).active();
            active
                .map(|one| (one.id.clone(), one.validity.not_after))
                .unwrap_or_default()
        };
        let (x509_id, x509_end) = active(Kind::X509);
        let (jwt_id, jwt_end) = active(Kind::Jwt);
        let now = store.clock().now();
        let registry = self.hub.registry();
        let connected = self
            .hub
            .acks()
            .live_agents()
            .iter()
            .filter(|ack| ack.is_connected)
            .count();
        let mesh = store
            .mesh()
            .borrow()
            .current
            .as_ref()
            .map_or(0, |mesh| mesh.revision);
        let audit_size = *store.audit_sizes().borrow();
        Ok(Response::new(pb::HealthResponse {
            is_ready: x509_end > now && jwt_end > now,
            trust_domain: store.trust_domain().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at.unix_secs(),
            active_x509_authority_id: x509_id,
            x509_authority_expires_at: x509_end.unix_secs(),
            active_jwt_authority_id: jwt_id,
            jwt_authority_expires_at: jwt_end.unix_secs(),
            audit_size,
            agents_connected: u32::try_from(connected).unwrap_or(u32::MAX),
            entries: u32::try_from(registry.entry_count()).unwrap_or(u32::MAX),
            mesh_revision: mesh,
        }))
    }

    async fn revoke(
        &self,
        request: Request<pb::RevokeRequest>,
    ) -> Result<Response<pb::DenylistEntry>, Status> {
        let actor = Caller::of(request.extensions(), &self.hub.registry()).actor();
        let request = request.into_inner();
        if request.reason.len() > REASON_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "`reason` has at most {REASON_BYTES_MAX} bytes"
            )));
        }
        let subject = request.subject.ok_or_else(|| {
            Status::invalid_argument("name one of spiffe_id, serial, agent_id, jti")
        })?;
        let now = self.hub.store().clock().now();
        // WHY the ban comes first: nothing may be issued through the agent after its serials were listed.
        if let Subject::AgentId(text) = &subject {
            let id = self.id(text)?;
            let banned = self.agents.ban(&id, &actor).await;
            banned
                .map_err(|error| store_status(&error))?
                .ok_or_else(|| Status::not_found("there is no such agent"))?;
        }
        let cut = self.cut(subject, now).await?;
        let entry = DeniedIdentity {
            id: uuid::Builder::from_random_bytes(crypto::random_bytes())
                .into_uuid()
                .to_string(),
            subject: cut.subject,
            reason: request.reason,
            created_at: now,
            expires_at: cut.expires_at,
            created_by: actor.clone(),
            serials: cut.serials,
            issued_until: cut.issued_until,
        };
        let answer = entry.to_pb();
        self.hub
            .store()
            .write(move |tx| Box::pin(async move { tx.add_denied(entry, &actor).await }))
            .await
            .map_err(|error| store_status(&error))?;
        Ok(Response::new(answer))
    }

    async fn list_denylist(
        &self,
        _request: Request<pb::ListDenylistRequest>,
    ) -> Result<Response<pb::Denylist>, Status> {
        let denylist = self.hub.store().denylists().borrow().to_pb();
        Ok(Response::new(denylist))
    }

    async fn remove_denylist_entry(
        &self,
        request: Request<pb::RemoveDenylistEntryRequest>,
    ) -> Result<Response<pb::DenylistEntry>, Status> {
        let actor = Caller::of(request.extensions(), &self.hub.registry()).actor();
        let id = request.into_inner().id;
        let removed = self
            .hub
            .store()
            .write(move |tx| {
                Box::pin(async move { tx.remove_denied(&id, &actor, "administrator").await })
            })
            .await
            .map_err(|error: StoreError| store_status(&error))?
            .ok_or_else(|| Status::not_found("there is no such deny-list entry"))?;
        Ok(Response::new(removed.to_pb()))
    }
}
