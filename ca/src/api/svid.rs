//! `spire.api.server.svid.v1.SVID`: SVIDs for agents' workloads, and those that administrators mint.

use std::sync::Arc;
use std::time::Duration;

use ravelin_proto::convert::{id_from_pb, id_to_pb};
use ravelin_proto::pb::spire::api::server::svid::v1 as pb;
use ravelin_proto::pb::spire::api::server::svid::v1::svid_server::{Svid, SvidServer};
use ravelin_proto::pb::spire::api::types;
use tonic::{Request, Response, Status};

use super::agent::svid_to_pb;
use super::caller::Caller;
use super::status;
use crate::authority::state::Kind;
use crate::hub::Hub;
use crate::issuance::authorize::Grant;
use crate::issuance::csr::{NamedCsr, VerifiedCsr};
use crate::issuance::issuer::{IssueRefusal, Issuer, JwtSvid};
use crate::limits::ISSUE_BATCH_MAX;

/// The service.
#[derive(Debug, Clone)]
pub struct SvidService {
    hub: Hub,
    issuer: Arc<Issuer>,
}

impl SvidService {
    /// Over the issuer.
    pub fn server(hub: Hub, issuer: Arc<Issuer>) -> SvidServer<Self> {
        SvidServer::new(Self { hub, issuer })
    }

    fn caller<T>(&self, request: &Request<T>) -> Caller {
        Caller::of(request.extensions(), &self.hub.registry())
    }

    /// Puts a refusal on record before it is answered.
    async fn refuse(&self, kind: Kind, actor: &str, refusal: impl Into<IssueRefusal>) -> Status {
        let refusal = refusal.into();
        match self.issuer.refuse(kind, actor, &refusal).await {
            Ok(()) => status::of_issue_refusal(&refusal),
            Err(error) => status::of_issue(&error),
        }
    }

    fn hint(&self, entry_id: &str) -> String {
        self.hub
            .registry()
            .entry(entry_id)
            .map(|entry| entry.hint.clone())
            .unwrap_or_default()
    }
}

fn life(secs: i32) -> Result<Option<Duration>, Status> {
    match u64::try_from(secs) {
        Ok(0) => Ok(None),
        Ok(secs) => Ok(Some(Duration::from_secs(secs))),
        Err(_) => Err(Status::invalid_argument("`ttl` is negative")),
    }
}

fn jwt_to_pb(svid: JwtSvid, hint: String) -> types::Jwtsvid {
    types::Jwtsvid {
        token: svid.token,
        id: Some(id_to_pb(&svid.id)),
        expires_at: svid.expires_at.unix_secs(),
        issued_at: svid.issued_at.unix_secs(),
        hint,
    }
}

fn not_here<T>(method: &str) -> Result<T, Status> {
    Err(status::unimplemented(&format!(
        "spire.api.server.svid.v1.SVID/{method}"
    )))
}

#[tonic::async_trait]
impl Svid for SvidService {
    async fn mint_x509svid(
        &self,
        request: Request<pb::MintX509svidRequest>,
    ) -> Result<Response<pb::MintX509svidResponse>, Status> {
        let actor = self.caller(&request).actor();
        let request = request.into_inner();
        let life = life(request.ttl)?;
        let named = match NamedCsr::parse(&request.csr) {
            Ok(named) => named,
            Err(refusal) => return Err(self.refuse(Kind::X509, &actor, refusal).await),
        };
        let trust_domain = &self.issuer.profile().trust_domain;
        let grant = match Grant::to_administrator(trust_domain, named.id, named.dns_names, life) {
            Ok(grant) => grant,
            Err(refusal) => return Err(self.refuse(Kind::X509, &actor, refusal).await),
        };
        let issued = self.issuer.x509(&actor, named.csr, grant).await;
        let svid = issued.map_err(|error| status::of_issue(&error))?;
        Ok(Response::new(pb::MintX509svidResponse {
            svid: Some(svid_to_pb(svid, "")),
        }))
    }

    async fn mint_jwtsvid(
        &self,
        request: Request<pb::MintJwtsvidRequest>,
    ) -> Result<Response<pb::MintJwtsvidResponse>, Status> {
        let actor = self.caller(&request).actor();
        let request = request.into_inner();
        let life = life(request.ttl)?;
        let id =
            id_from_pb(request.id.as_ref(), "id").map_err(|error| status::of_convert(&error))?;
        let trust_domain = &self.issuer.profile().trust_domain;
        let grant = match Grant::to_administrator(trust_domain, id, Vec::new(), life) {
            Ok(grant) => grant,
            Err(refusal) => return Err(self.refuse(Kind::Jwt, &actor, refusal).await),
        };
        let issued = self.issuer.jwt(&actor, grant, request.audience).await;
        let svid = issued.map_err(|error| status::of_issue(&error))?;
        let svid = Some(jwt_to_pb(svid, String::new()));
        Ok(Response::new(pb::MintJwtsvidResponse { svid }))
    }

    async fn mint_witsvid(
        &self,
        _request: Request<pb::MintWitsvidRequest>,
    ) -> Result<Response<pb::MintWitsvidResponse>, Status> {
        not_here("MintWITSVID")
    }

    async fn batch_new_x509svid(
        &self,
        request: Request<pb::BatchNewX509svidRequest>,
    ) -> Result<Response<pb::BatchNewX509svidResponse>, Status> {
        let caller = self.caller(&request);
        let agent = caller.agent()?.id.clone();
        let params = request.into_inner().params;
        if params.len() > ISSUE_BATCH_MAX {
            return Err(Status::invalid_argument(format!(
                "a batch has at most {ISSUE_BATCH_MAX} requests"
            )));
        }
        let registry = self.hub.registry();
        let requests = params
            .iter()
            .map(|params| {
                // The cheap question first: no signature is checked for somebody else's entry.
                let grant = Grant::to_agent(&registry, &agent, &params.entry_id)?;
                Ok((VerifiedCsr::parse(&params.csr)?, grant))
            })
            .collect();
        let issued = self.issuer.x509_batch(agent.as_str(), requests).await;
        let results = issued
            .map_err(|error| status::of_issue(&error))?
            .into_iter()
            .zip(params)
            .map(|(issued, params)| match issued {
                Ok(svid) => pb::batch_new_x509svid_response::Result {
                    status: Some(types::Status {
                        code: 0,
                        message: "OK".to_owned(),
                    }),
                    svid: Some(svid_to_pb(svid, &self.hint(&params.entry_id))),
                },
                Err(error) => {
                    let refusal = status::of_issue(&error);
                    pb::batch_new_x509svid_response::Result {
                        status: Some(types::Status {
                            code: refusal.code().into(),
                            message: refusal.message().to_owned(),
                        }),
                        svid: None,
                    }
                }
            })
            .collect();
        Ok(Response::new(pb::BatchNewX509svidResponse { results }))
    }

    async fn new_jwtsvid(
        &self,
        request: Request<pb::NewJwtsvidRequest>,
    ) -> Result<Response<pb::NewJwtsvidResponse>, Status> {
        let caller = self.caller(&request);
        let agent = caller.agent()?.id.clone();
        let request = request.into_inner();
        let grant = match Grant::to_agent(&self.hub.registry(), &agent, &request.entry_id) {
            Ok(grant) => grant,
            Err(refusal) => return Err(self.refuse(Kind::Jwt, agent.as_str(), refusal).await),
        };
        let issued = self
            .issuer
            .jwt(agent.as_str(), grant, request.audience)
            .await;
        let svid = issued.map_err(|error| status::of_issue(&error))?;
        let svid = Some(jwt_to_pb(svid, self.hint(&request.entry_id)));
        Ok(Response::new(pb::NewJwtsvidResponse { svid }))
    }

    async fn batch_new_witsvid(
        &self,
        _request: Request<pb::BatchNewWitsvidRequest>,
    ) -> Result<Response<pb::BatchNewWitsvidResponse>, Status> {
        not_here("BatchNewWITSVID")
    }

    async fn new_downstream_x509ca(
        &self,
        _request: Request<pb::NewDownstreamX509caRequest>,
    ) -> Result<Response<pb::NewDownstreamX509caResponse>, Status> {
        not_here("NewDownstreamX509CA")
    }
}
