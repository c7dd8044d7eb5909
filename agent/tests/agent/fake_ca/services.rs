//! The fake's services: what the agent calls is real, the rest answers Unimplemented.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use ravelin_proto::convert::id_to_pb;
use ravelin_proto::pb::ravelin::v1::audit_server::{Audit, AuditServer};
use ravelin_proto::pb::ravelin::v1::sync_server::{Sync, SyncServer};
use ravelin_proto::pb::ravelin::v1::*;
use ravelin_proto::pb::spire::api::server::agent::v1::agent_server::{Agent, AgentServer};
use ravelin_proto::pb::spire::api::server::agent::v1::*;
use ravelin_proto::pb::spire::api::server::svid::v1::svid_server::{Svid, SvidServer};
use ravelin_proto::pb::spire::api::server::svid::v1::*;
use ravelin_proto::pb::spire::api::types;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_runtime::drain::Drain;
use ravelin_runtime::rpc::TlsPeer;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::Shared;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
struct Api {
    shared: Arc<Shared>,
    drain: Drain,
}

pub fn routes(shared: &Arc<Shared>, drain: &Drain) -> Routes {
    let api = Api {
        shared: Arc::clone(shared),
        drain: drain.clone(),
    };
    Routes::new(AgentServer::new(api.clone()))
        .add_service(SvidServer::new(api.clone()))
        .add_service(SyncServer::new(api.clone()))
        .add_service(AuditServer::new(api))
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this fake"))
}

impl Api {
    fn agent<T>(request: &Request<T>) -> Result<SpiffeId, Status> {
        request
            .extensions()
            .get::<TlsPeer>()
            .and_then(|peer| peer.identity.as_ref())
            .map(|identity| identity.id.clone())
            .ok_or_else(|| Status::unauthenticated("no agent"))
    }

    fn sign(&self, csr: &[u8], id: &SpiffeId) -> types::X509svid {
        let mut world = self.shared.world.lock().unwrap();
        world.x509_calls += 1;
        let lifetime = world.svid_lifetime_secs;
        types::X509svid {
            cert_chain: vec![world.authorities[world.active].sign_csr(csr, id, lifetime)],
            id: Some(id_to_pb(id)),
            ..Default::default()
        }
    }
}

#[tonic::async_trait]
impl Agent for Api {
    type AttestAgentStream = Answers<AttestAgentResponse>;

    async fn attest_agent(
        &self,
        request: Request<Streaming<AttestAgentRequest>>,
    ) -> Result<Response<Self::AttestAgentStream>, Status> {
        let first = request
            .into_inner()
            .message()
            .await?
            .and_then(|first| first.step);
        let Some(attest_agent_request::Step::Params(params)) = first else {
            return Err(Status::invalid_argument("params"));
        };
        let token = String::from_utf8(params.data.unwrap().payload).unwrap();
        {
            let mut world = self.shared.world.lock().unwrap();
            let place = world.tokens.iter().position(|held| *held == token);
            let place =
                place.ok_or_else(|| Status::permission_denied("the join token is not valid"))?;
            world.tokens.remove(place);
        }
        let id = self.shared.id("/spire/agent/join_token/0123");
        let svid = self.sign(&params.params.unwrap().csr, &id);
        let result = attest_agent_response::Result {
            svid: Some(svid),
            reattestable: false,
        };
        let answer = AttestAgentResponse {
            step: Some(attest_agent_response::Step::Result(result)),
        };
        Ok(Response::new(Box::pin(stream::iter([Ok(answer)]))))
    }

    async fn renew_agent(
        &self,
        request: Request<RenewAgentRequest>,
    ) -> Result<Response<RenewAgentResponse>, Status> {
        let id = Self::agent(&request)?;
        let svid = self.sign(&request.into_inner().params.unwrap().csr, &id);
        Ok(Response::new(RenewAgentResponse { svid: Some(svid) }))
    }

    async fn count_agents(
        &self,
        _: Request<CountAgentsRequest>,
    ) -> Result<Response<CountAgentsResponse>, Status> {
        no()
    }
    async fn list_agents(
        &self,
        _: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        no()
    }
    async fn get_agent(
        &self,
        _: Request<GetAgentRequest>,
    ) -> Result<Response<types::Agent>, Status> {
        no()
    }
    async fn delete_agent(&self, _: Request<DeleteAgentRequest>) -> Result<Response<()>, Status> {
        no()
    }
    async fn ban_agent(&self, _: Request<BanAgentRequest>) -> Result<Response<()>, Status> {
        no()
    }
    async fn create_join_token(
        &self,
        _: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<types::JoinToken>, Status> {
        no()
    }
    async fn post_status(
        &self,
        _: Request<PostStatusRequest>,
    ) -> Result<Response<PostStatusResponse>, Status> {
        no()
    }
}

#[tonic::async_trait]
impl Svid for Api {
    async fn batch_new_x509svid(
        &self,
        request: Request<BatchNewX509svidRequest>,
    ) -> Result<Response<BatchNewX509svidResponse>, Status> {
        Self::agent(&request)?;
        let params = request.into_inner().params;
        let results = params.into_iter().map(|params| {
            let id = {
                let world = self.shared.world.lock().unwrap();
                let entry = world
                    .entries
                    .iter()
                    .find(|entry| entry.id == params.entry_id);
                entry.map(|entry| entry.spiffe_id.clone())
            };
            match id {
                Some(id) => batch_new_x509svid_response::Result {
                    status: None,
                    svid: Some(self.sign(&params.csr, &id)),
                },
                None => batch_new_x509svid_response::Result {
                    status: Some(types::Status {
                        code: 5,
                        message: "no such entry".into(),
                    }),
                    svid: None,
                },
            }
        });
        Ok(Response::new(BatchNewX509svidResponse {
            results: results.collect(),
        }))
    }

    async fn new_jwtsvid(
        &self,
        request: Request<NewJwtsvidRequest>,
    ) -> Result<Response<NewJwtsvidResponse>, Status> {
        Self::agent(&request)?;
        let request = request.into_inner();
        let mut world = self.shared.world.lock().unwrap();
        world.jwt_calls += 1;
        let entry = world
            .entries
            .iter()
            .find(|entry| entry.id == request.entry_id);
        let id = entry
            .ok_or_else(|| Status::not_found("no such entry"))?
            .spiffe_id
            .clone();
        let token = world
            .jwt_keys
            .last()
            .unwrap()
            .sign(&id, &request.audience, 300);
        let svid = types::Jwtsvid {
            token,
            id: Some(id_to_pb(&id)),
            ..Default::default()
        };
        Ok(Response::new(NewJwtsvidResponse { svid: Some(svid) }))
    }

    async fn mint_x509svid(
        &self,
        _: Request<MintX509svidRequest>,
    ) -> Result<Response<MintX509svidResponse>, Status> {
        no()
    }
    async fn mint_jwtsvid(
        &self,
        _: Request<MintJwtsvidRequest>,
    ) -> Result<Response<MintJwtsvidResponse>, Status> {
        no()
    }
    async fn mint_witsvid(
        &self,
        _: Request<MintWitsvidRequest>,
    ) -> Result<Response<MintWitsvidResponse>, Status> {
        no()
    }
    async fn batch_new_witsvid(
        &self,
        _: Request<BatchNewWitsvidRequest>,
    ) -> Result<Response<BatchNewWitsvidResponse>, Status> {
        no()
    }
    async fn new_downstream_x509ca(
        &self,
        _: Request<NewDownstreamX509caRequest>,
    ) -> Result<Response<NewDownstreamX509caResponse>, Status> {
        no()
    }
}

#[tonic::async_trait]
impl Sync for Api {
    type StreamStream = Answers<SyncResponse>;

    async fn stream(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        Self::agent(&request)?;
        let inbound = request.into_inner();
        let ticks = self.shared.tick.subscribe();
        let state = (self.clone(), inbound, ticks, true);
        let answers = stream::unfold(
            state,
            |(api, mut inbound, mut ticks, mut is_due)| async move {
                loop {
                    if is_due {
                        let answer = api.shared.snapshot();
                        return Some((Ok(answer), (api, inbound, ticks, false)));
                    }
                    tokio::select! {
                        () = api.drain.started() => return None,
                        _ = ticks.changed() => is_due = true,
                        message = inbound.message() => match message {
                            Ok(Some(SyncRequest { step: Some(sync_request::Step::Ack(ack)) })) => {
                                api.shared.acks.send_replace(ack);
                            }
                            Ok(Some(_)) => {}
                            Ok(None) | Err(_) => return None,
                        },
                    }
                }
            },
        );
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl Audit for Api {
    type QueryStream = Answers<AuditRecord>;
    type ExportStream = Answers<ExportRecord>;

    async fn append_decisions(
        &self,
        request: Request<DecisionSegment>,
    ) -> Result<Response<AppendDecisionsResponse>, Status> {
        Self::agent(&request)?;
        let segment = request.into_inner();
        self.shared
            .segments
            .send_modify(|segments| segments.push(segment));
        Ok(Response::new(AppendDecisionsResponse {}))
    }

    async fn query(&self, _: Request<AuditQuery>) -> Result<Response<Self::QueryStream>, Status> {
        no()
    }
    async fn get_checkpoint(
        &self,
        _: Request<GetCheckpointRequest>,
    ) -> Result<Response<Checkpoint>, Status> {
        no()
    }
    async fn prove_inclusion(
        &self,
        _: Request<InclusionRequest>,
    ) -> Result<Response<InclusionProof>, Status> {
        no()
    }
    async fn prove_consistency(
        &self,
        _: Request<ConsistencyRequest>,
    ) -> Result<Response<ConsistencyProof>, Status> {
        no()
    }
    async fn export(
        &self,
        _: Request<ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        no()
    }
}
