//! `spire.api.server.localauthority.v1.LocalAuthority`: the verbs of authorities one by one, as SPIRE has them.
//!
//! Dangerous orders are refused unless forced by name: the metadata `ravelin-danger-force` holds the authority's id.

use std::sync::Arc;

use ravelin_proto::pb::spire::api::server::localauthority::v1 as pb;
use ravelin_proto::pb::spire::api::server::localauthority::v1::local_authority_server::{
    LocalAuthority, LocalAuthorityServer,
};
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::{status, store_status};
use crate::authority::custody::{Custody, Verb};
use crate::authority::state::{Authority, Kind, State};
use crate::hub::Hub;

/// The metadata that forces an order for the authority that it names.
pub const DANGER_FORCE: &str = "ravelin-danger-force";

/// The service.
#[derive(Debug, Clone)]
pub struct LocalAuthorityService {
    hub: Hub,
    custody: Arc<Custody>,
}

impl LocalAuthorityService {
    /// Over the authorities in custody.
    pub fn server(hub: Hub, custody: Arc<Custody>) -> LocalAuthorityServer<Self> {
        LocalAuthorityServer::new(Self { hub, custody })
    }

    fn newest(&self, kind: Kind, state: State) -> Option<pb::AuthorityState> {
        self.custody.authorities().of(kind).newest(state).map(to_pb)
    }

    async fn prepare<T>(&self, kind: Kind, request: &Request<T>) -> Result<Authority, Status> {
        let made = self.custody.prepare(kind, &self.actor(request)).await;
        made.map_err(|error| status::of_custody(&error))
    }

    async fn activate<T>(
        &self,
        kind: Kind,
        request: &Request<T>,
        id: &str,
    ) -> Result<Authority, Status> {
        let id = named(id)?;
        let sequence = self.custody.authorities().bundle.sequence;
        let missing = self
            .hub
            .acks()
            .missing(|ack| ack.bundle_sequence >= sequence);
        if !missing.is_empty() && !is_forced(request, id) {
            return Err(Status::failed_precondition(format!(
                "{} have not acknowledged the bundle that holds authority `{id}`: wait, or rotate with --wait",
                missing.join(", ")
            )));
        }
        self.apply(kind, Verb::Activate(id.to_owned()), request)
            .await
    }

    async fn revoke<T>(
        &self,
        kind: Kind,
        request: &Request<T>,
        id: &str,
    ) -> Result<Authority, Status> {
        let id = named(id)?;
        let live = match kind {
            Kind::X509 => self.hub.acks().x509_svids_on(id),
            Kind::Jwt => {
                let store = self.hub.store();
                let live = store.live_by_authority(id, store.clock().now()).await;
                live.map_err(|error| store_status(&error))?
            }
        };
        if live > 0 && !is_forced(request, id) {
            return Err(Status::failed_precondition(format!(
                "{live} live SVIDs hang on authority `{id}`: taint it and wait, or rotate with --wait --revoke-old"
            )));
        }
        self.apply(kind, Verb::Revoke(id.to_owned()), request).await
    }

    async fn apply<T>(
        &self,
        kind: Kind,
        verb: Verb,
        request: &Request<T>,
    ) -> Result<Authority, Status> {
        let done = self.custody.apply(kind, verb, &self.actor(request)).await;
        done.map_err(|error| status::of_custody(&error))
    }

    fn actor<T>(&self, request: &Request<T>) -> String {
        Caller::of(request.extensions(), &self.hub.registry()).actor()
    }
}

fn named(id: &str) -> Result<&str, Status> {
    if id.is_empty() {
        return Err(Status::invalid_argument("`authority_id` is missing"));
    }
    Ok(id)
}

fn is_forced<T>(request: &Request<T>, id: &str) -> bool {
    request
        .metadata()
        .get(DANGER_FORCE)
        .is_some_and(|named| named.as_bytes() == id.as_bytes())
}

fn to_pb(authority: &Authority) -> pb::AuthorityState {
    pb::AuthorityState {
        authority_id: authority.id.clone(),
        expires_at: authority.validity.not_after.unix_secs(),
        upstream_authority_subject_key_id: String::new(),
    }
}

fn not_here<T>(method: &str) -> Result<T, Status> {
    Err(status::unimplemented(&format!(
        "spire.api.server.localauthority.v1.LocalAuthority/{method}"
    )))
}

#[tonic::async_trait]
impl LocalAuthority for LocalAuthorityService {
    async fn get_jwt_authority_state(
        &self,
        _request: Request<pb::GetJwtAuthorityStateRequest>,
    ) -> Result<Response<pb::GetJwtAuthorityStateResponse>, Status> {
        Ok(Response::new(pb::GetJwtAuthorityStateResponse {
            active: self.newest(Kind::Jwt, State::Active),
            prepared: self.newest(Kind::Jwt, State::Prepared),
            old: self.newest(Kind::Jwt, State::Retired),
        }))
    }

    async fn prepare_jwt_authority(
        &self,
        request: Request<pb::PrepareJwtAuthorityRequest>,
    ) -> Result<Response<pb::PrepareJwtAuthorityResponse>, Status> {
        let made = self.prepare(Kind::Jwt, &request).await?;
        let prepared_authority = Some(to_pb(&made));
        Ok(Response::new(pb::PrepareJwtAuthorityResponse {
            prepared_authority,
        }))
    }

    async fn activate_jwt_authority(
        &self,
        request: Request<pb::ActivateJwtAuthorityRequest>,
    ) -> Result<Response<pb::ActivateJwtAuthorityResponse>, Status> {
        let id = &request.get_ref().authority_id;
        let done = self.activate(Kind::Jwt, &request, id).await?;
        let activated_authority = Some(to_pb(&done));
        Ok(Response::new(pb::ActivateJwtAuthorityResponse {
            activated_authority,
        }))
    }

    async fn taint_jwt_authority(
        &self,
        request: Request<pb::TaintJwtAuthorityRequest>,
    ) -> Result<Response<pb::TaintJwtAuthorityResponse>, Status> {
        let id = named(&request.get_ref().authority_id)?.to_owned();
        let done = self.apply(Kind::Jwt, Verb::Taint(id), &request).await?;
        let tainted_authority = Some(to_pb(&done));
        Ok(Response::new(pb::TaintJwtAuthorityResponse {
            tainted_authority,
        }))
    }

    async fn revoke_jwt_authority(
        &self,
        request: Request<pb::RevokeJwtAuthorityRequest>,
    ) -> Result<Response<pb::RevokeJwtAuthorityResponse>, Status> {
        let id = &request.get_ref().authority_id;
        let done = self.revoke(Kind::Jwt, &request, id).await?;
        let revoked_authority = Some(to_pb(&done));
        Ok(Response::new(pb::RevokeJwtAuthorityResponse {
            revoked_authority,
        }))
    }

    async fn get_x509_authority_state(
        &self,
        _request: Request<pb::GetX509AuthorityStateRequest>,
    ) -> Result<Response<pb::GetX509AuthorityStateResponse>, Status> {
        Ok(Response::new(pb::GetX509AuthorityStateResponse {
            active: self.newest(Kind::X509, State::Active),
            prepared: self.newest(Kind::X509, State::Prepared),
            old: self.newest(Kind::X509, State::Retired),
        }))
    }

    async fn prepare_x509_authority(
        &self,
        request: Request<pb::PrepareX509AuthorityRequest>,
    ) -> Result<Response<pb::PrepareX509AuthorityResponse>, Status> {
        let made = self.prepare(Kind::X509, &request).await?;
        let prepared_authority = Some(to_pb(&made));
        Ok(Response::new(pb::PrepareX509AuthorityResponse {
            prepared_authority,
        }))
    }

    async fn activate_x509_authority(
        &self,
        request: Request<pb::ActivateX509AuthorityRequest>,
    ) -> Result<Response<pb::ActivateX509AuthorityResponse>, Status> {
        let id = &request.get_ref().authority_id;
        let done = self.activate(Kind::X509, &request, id).await?;
        let activated_authority = Some(to_pb(&done));
        Ok(Response::new(pb::ActivateX509AuthorityResponse {
            activated_authority,
        }))
    }

    async fn taint_x509_authority(
        &self,
        request: Request<pb::TaintX509AuthorityRequest>,
    ) -> Result<Response<pb::TaintX509AuthorityResponse>, Status> {
        let id = named(&request.get_ref().authority_id)?.to_owned();
        let done = self.apply(Kind::X509, Verb::Taint(id), &request).await?;
        let tainted_authority = Some(to_pb(&done));
        Ok(Response::new(pb::TaintX509AuthorityResponse {
            tainted_authority,
        }))
    }

    async fn revoke_x509_authority(
        &self,
        request: Request<pb::RevokeX509AuthorityRequest>,
    ) -> Result<Response<pb::RevokeX509AuthorityResponse>, Status> {
        let id = &request.get_ref().authority_id;
        let done = self.revoke(Kind::X509, &request, id).await?;
        let revoked_authority = Some(to_pb(&done));
        Ok(Response::new(pb::RevokeX509AuthorityResponse {
            revoked_authority,
        }))
    }

    async fn taint_x509_upstream_authority(
        &self,
        _request: Request<pb::TaintX509UpstreamAuthorityRequest>,
    ) -> Result<Response<pb::TaintX509UpstreamAuthorityResponse>, Status> {
        not_here("TaintX509UpstreamAuthority")
    }

    async fn revoke_x509_upstream_authority(
        &self,
        _request: Request<pb::RevokeX509UpstreamAuthorityRequest>,
    ) -> Result<Response<pb::RevokeX509UpstreamAuthorityResponse>, Status> {
        not_here("RevokeX509UpstreamAuthority")
    }

    async fn get_wit_authority_state(
        &self,
        _request: Request<pb::GetWitAuthorityStateRequest>,
    ) -> Result<Response<pb::GetWitAuthorityStateResponse>, Status> {
        not_here("GetWITAuthorityState")
    }

    async fn prepare_wit_authority(
        &self,
        _request: Request<pb::PrepareWitAuthorityRequest>,
    ) -> Result<Response<pb::PrepareWitAuthorityResponse>, Status> {
        not_here("PrepareWITAuthority")
    }

    async fn activate_wit_authority(
        &self,
        _request: Request<pb::ActivateWitAuthorityRequest>,
    ) -> Result<Response<pb::ActivateWitAuthorityResponse>, Status> {
        not_here("ActivateWITAuthority")
    }

    async fn taint_wit_authority(
        &self,
        _request: Request<pb::TaintWitAuthorityRequest>,
    ) -> Result<Response<pb::TaintWitAuthorityResponse>, Status> {
        not_here("TaintWITAuthority")
    }

    async fn revoke_wit_authority(
        &self,
        _request: Request<pb::RevokeWitAuthorityRequest>,
    ) -> Result<Response<pb::RevokeWitAuthorityResponse>, Status> {
        not_here("RevokeWITAuthority")
    }
}
