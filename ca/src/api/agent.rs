//! `spire.api.server.agent.v1.Agent`: attestation, renewal, and what administrators do with agents.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use ravelin_proto::convert::{id_from_pb, id_to_pb, selector_from_pb, selector_to_pb};
use ravelin_proto::pb::spire::api::server::agent::v1 as pb;
use ravelin_proto::pb::spire::api::server::agent::v1::agent_server::{Agent, AgentServer};
use ravelin_proto::pb::spire::api::server::agent::v1::attest_agent_request::Step as AttestStep;
use ravelin_proto::pb::spire::api::server::agent::v1::attest_agent_response::{
    Result as AttestResult, Step as AttestAnswer,
};
use ravelin_proto::pb::spire::api::types;
use ravelin_proto::selector::Selector;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::rpc::TlsPeer;
use ravelin_runtime::uds::PeerProcess;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::caller::Caller;
use super::{status, store_status};
use crate::attest::agents::Agents;
use crate::attest::join_token::{JOIN_TOKEN, JoinTokens};
use crate::hub::Hub;
use crate::issuance::csr::VerifiedCsr;
use crate::issuance::issuer::X509Svid;
use crate::limits::{ATTEST_DEADLINE, JOIN_TOKEN_BYTES_MAX, PAGE_MAX};
use crate::registry::RegisteredAgent;

/// The service.
#[derive(Debug, Clone)]
pub struct AgentService {
    hub: Hub,
    tokens: Arc<JoinTokens>,
    agents: Arc<Agents>,
}

impl AgentService {
    /// Over the registry.
    pub fn server(hub: Hub, tokens: Arc<JoinTokens>, agents: Arc<Agents>) -> AgentServer<Self> {
        AgentServer::new(Self {
            hub,
            tokens,
            agents,
        })
    }

    fn caller<T>(&self, request: &Request<T>) -> Caller {
        Caller::of(request.extensions(), &self.hub.registry())
    }

    async fn attest(
        &self,
        params: pb::attest_agent_request::Params,
        remote: std::net::IpAddr,
    ) -> Result<AttestResult, Status> {
        let data = params.data.unwrap_or_default();
        if data.r#type != JOIN_TOKEN {
            return Err(Status::invalid_argument(format!(
                "attestation type `{}` is not supported; `{JOIN_TOKEN}` is",
                data.r#type
                    .chars()
                    .filter(char::is_ascii_graphic)
                    .take(64)
                    .collect::<String>()
            )));
        }
        if data.payload.len() > JOIN_TOKEN_BYTES_MAX {
            return Err(Status::invalid_argument("the join token is too long"));
        }
        let token = String::from_utf8(data.payload)
            .map_err(|_| Status::invalid_argument("the join token is not UTF-8"))?;
        // A bad request must not use the token up.
        let csr = match VerifiedCsr::parse(&params.params.unwrap_or_default().csr) {
            Ok(csr) => csr,
            Err(refusal) => {
                let refusal = refusal.into();
                let logged = self.tokens.refuse(remote, &refusal).await;
                logged.map_err(|error| status::of_attest(&error))?;
                return Err(status::of_issue_refusal(&refusal));
            }
        };
        let attested = self.tokens.attest(&token, csr, remote).await;
        let svid = attested.map_err(|error| status::of_attest(&error))?;
        Ok(AttestResult {
            svid: Some(svid_to_pb(svid, "")),
            reattestable: false,
        })
    }

    fn find(&self, id: Option<&types::Spiffeid>) -> Result<Arc<RegisteredAgent>, Status> {
        let id = id_from_pb(id, "id").map_err(|error| status::of_convert(&error))?;
        let registry = self.hub.registry();
        registry
            .agent(&id)
            .cloned()
            .ok_or_else(|| Status::not_found("there is no such agent"))
    }

    fn matching(&self, filter: Filter) -> Result<Vec<Arc<RegisteredAgent>>, Status> {
        let filter = filter.checked()?;
        let registry = self.hub.registry();
        Ok(registry
            .agents()
            .filter(|agent| filter.accepts(agent))
            .cloned()
            .collect())
    }
}

/// An SVID on the wire.
pub(crate) fn svid_to_pb(svid: X509Svid, hint: &str) -> types::X509svid {
    types::X509svid {
        cert_chain: vec![svid.der],
        id: Some(id_to_pb(&svid.id)),
        expires_at: svid.not_after.unix_secs(),
        hint: hint.to_owned(),
    }
}

fn agent_to_pb(agent: &RegisteredAgent, mask: Option<&types::AgentMask>) -> types::Agent {
    let all = types::AgentMask {
        attestation_type: true,
        x509svid_serial_number: true,
        x509svid_expires_at: true,
        selectors: true,
        banned: true,
        can_reattest: true,
        agent_version: true,
    };
    let mask = mask.copied().unwrap_or(all);
    let text = |is_wanted: bool, text: &String| {
        if is_wanted {
            text.clone()
        } else {
            String::new()
        }
    };
    types::Agent {
        id: Some(id_to_pb(&agent.id)),
        attestation_type: text(mask.attestation_type, &agent.attestation_type),
        x509svid_serial_number: text(mask.x509svid_serial_number, &agent.serial),
        x509svid_expires_at: if mask.x509svid_expires_at {
            agent.expires_at.unix_secs()
        } else {
            0
        },
        selectors: if mask.selectors {
            agent.selectors.iter().map(selector_to_pb).collect()
        } else {
            Vec::new()
        },
        banned: mask.banned && agent.is_banned,
        can_reattest: mask.can_reattest && agent.can_reattest,
        agent_version: text(mask.agent_version, &agent.version),
    }
}

/// The filter of both list methods, as it came.
struct Filter {
    attestation_type: String,
    selectors: Option<types::SelectorMatch>,
    is_banned: Option<bool>,
    can_reattest: Option<bool>,
    expires_before: String,
}

/// The filter, with each part parsed.
struct CheckedFilter {
    attestation_type: String,
    selectors: Option<(Vec<Selector>, types::selector_match::MatchBehavior)>,
    is_banned: Option<bool>,
    can_reattest: Option<bool>,
    expires_before: Option<Timestamp>,
}

impl Filter {
    fn checked(self) -> Result<CheckedFilter, Status> {
        let selectors = self
            .selectors
            .map(|wanted| {
                let parsed: Result<Vec<_>, _> =
                    wanted.selectors.iter().map(selector_from_pb).collect();
                parsed.map(|selectors| (selectors, wanted.r#match()))
            })
            .transpose()
            .map_err(|error| status::of_convert(&error))?;
        let expires_before = match self.expires_before.as_str() {
            "" => None,
            text => Some(Timestamp::parse_rfc3339(text).ok_or_else(|| {
                Status::invalid_argument("`by_expires_before` is not an RFC 3339 time")
            })?),
        };
        Ok(CheckedFilter {
            attestation_type: self.attestation_type,
            selectors,
            is_banned: self.is_banned,
            can_reattest: self.can_reattest,
            expires_before,
        })
    }
}

impl CheckedFilter {
    fn accepts(&self, agent: &RegisteredAgent) -> bool {
        use types::selector_match::MatchBehavior;
        let is_type =
            self.attestation_type.is_empty() || self.attestation_type == agent.attestation_type;
        let is_selected = self.selectors.as_ref().is_none_or(|(wanted, behaviour)| {
            let has_all = wanted.iter().all(|one| agent.selectors.contains(one));
            let is_within = agent.selectors.iter().all(|one| wanted.contains(one));
            match behaviour {
                MatchBehavior::MatchExact => has_all && is_within,
                MatchBehavior::MatchSubset => is_within,
                MatchBehavior::MatchSuperset => has_all,
                MatchBehavior::MatchAny => wanted.iter().any(|one| agent.selectors.contains(one)),
            }
        });
        is_type
            && is_selected
            && self
                .is_banned
                .is_none_or(|wanted| wanted == agent.is_banned)
            && self
                .can_reattest
                .is_none_or(|wanted| wanted == agent.can_reattest)
            && self
                .expires_before
                .is_none_or(|before| agent.expires_at < before)
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    async fn count_agents(
        &self,
        request: Request<pb::CountAgentsRequest>,
    ) -> Result<Response<pb::CountAgentsResponse>, Status> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let found = self.matching(Filter {
            attestation_type: filter.by_attestation_type,
            selectors: filter.by_selector_match,
            is_banned: filter.by_banned,
            can_reattest: filter.by_can_reattest,
            expires_before: filter.by_expires_before,
        })?;
        let count = i32::try_from(found.len()).unwrap_or(i32::MAX);
        Ok(Response::new(pb::CountAgentsResponse { count }))
    }

    async fn list_agents(
        &self,
        request: Request<pb::ListAgentsRequest>,
    ) -> Result<Response<pb::ListAgentsResponse>, Status> {
        let request = request.into_inner();
        let filter = request.filter.unwrap_or_default();
        let found = self.matching(Filter {
            attestation_type: filter.by_attestation_type,
            selectors: filter.by_selector_match,
            is_banned: filter.by_banned,
            can_reattest: filter.by_can_reattest,
            expires_before: filter.by_expires_before,
        })?;
        let size = match usize::try_from(request.page_size) {
            Ok(0) => PAGE_MAX,
            Ok(size) => size.min(PAGE_MAX),
            Err(_) => return Err(Status::invalid_argument("`page_size` is negative")),
        };
        // The token is the last ID of the page before: pages stay right while agents come and go.
        let mut rest = found
            .iter()
            .filter(|agent| agent.id.as_str() > request.page_token.as_str())
            .peekable();
        let mask = request.output_mask.as_ref();
        let page: Vec<_> = rest
            .by_ref()
            .take(size)
            .map(|agent| agent_to_pb(agent, mask))
            .collect();
        let last = page.last().and_then(|agent| agent.id.as_ref());
        let next_page_token = match (rest.peek(), last) {
            (Some(_), Some(id)) => format!("spiffe://{}{}", id.trust_domain, id.path),
            _ => String::new(),
        };
        Ok(Response::new(pb::ListAgentsResponse {
            agents: page,
            next_page_token,
        }))
    }

    async fn get_agent(
        &self,
        request: Request<pb::GetAgentRequest>,
    ) -> Result<Response<types::Agent>, Status> {
        let request = request.into_inner();
        let agent = self.find(request.id.as_ref())?;
        Ok(Response::new(agent_to_pb(
            &agent,
            request.output_mask.as_ref(),
        )))
    }

    async fn delete_agent(
        &self,
        request: Request<pb::DeleteAgentRequest>,
    ) -> Result<Response<()>, Status> {
        let actor = self.caller(&request).actor();
        let agent = self.find(request.into_inner().id.as_ref())?;
        let done = self.agents.evict(&agent.id, &actor).await;
        done.map_err(|error| store_status(&error))?
            .ok_or_else(|| Status::not_found("there is no such agent"))?;
        Ok(Response::new(()))
    }

    async fn ban_agent(
        &self,
        request: Request<pb::BanAgentRequest>,
    ) -> Result<Response<()>, Status> {
        let actor = self.caller(&request).actor();
        let agent = self.find(request.into_inner().id.as_ref())?;
        let done = self.agents.ban(&agent.id, &actor).await;
        done.map_err(|error| store_status(&error))?
            .ok_or_else(|| Status::not_found("there is no such agent"))?;
        Ok(Response::new(()))
    }

    type AttestAgentStream =
        Pin<Box<dyn Stream<Item = Result<pb::AttestAgentResponse, Status>> + Send>>;

    async fn attest_agent(
        &self,
        request: Request<Streaming<pb::AttestAgentRequest>>,
    ) -> Result<Response<Self::AttestAgentStream>, Status> {
        let remote = request
            .extensions()
            .get::<TlsPeer>()
            .map(|peer| peer.remote_addr.ip())
            .or_else(|| {
                let local = std::net::IpAddr::from([127, 0, 0, 1]);
                request.extensions().get::<PeerProcess>().map(|_| local)
            })
            .ok_or_else(|| Status::internal("the connection has no address"))?;
        let mut steps = request.into_inner();
        let first = timeout(ATTEST_DEADLINE, steps.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no attestation data came"))??;
        let Some(AttestStep::Params(params)) = first.and_then(|request| request.step) else {
            return Err(Status::invalid_argument(
                "the first request has no `params`",
            ));
        };
        let result = self.attest(params, remote).await?;
        let answer = pb::AttestAgentResponse {
            step: Some(AttestAnswer::Result(result)),
        };
        Ok(Response::new(Box::pin(stream::iter([Ok(answer)]))))
    }

    async fn renew_agent(
        &self,
        request: Request<pb::RenewAgentRequest>,
    ) -> Result<Response<pb::RenewAgentResponse>, Status> {
        let caller = self.caller(&request);
        let agent = caller.agent()?;
        let used_serial = request
            .extensions()
            .get::<TlsPeer>()
            .and_then(|peer| peer.identity.as_ref())
            .map(|peer| peer.serial.clone())
            .unwrap_or_default();
        let csr = &request.get_ref().params.clone().unwrap_or_default().csr;
        let csr = match VerifiedCsr::parse(csr) {
            Ok(csr) => csr,
            Err(refusal) => {
                let error = self.agents.refuse(&agent.id, refusal.into()).await;
                return Err(status::of_issue(&error));
            }
        };
        let renewed = self.agents.renew(&agent.id, &used_serial, csr).await;
        let svid = renewed.map_err(|error| status::of_issue(&error))?;
        Ok(Response::new(pb::RenewAgentResponse {
            svid: Some(svid_to_pb(svid, "")),
        }))
    }

    async fn create_join_token(
        &self,
        request: Request<pb::CreateJoinTokenRequest>,
    ) -> Result<Response<types::JoinToken>, Status> {
        let actor = self.caller(&request).actor();
        let request = request.into_inner();
        let life = match u64::try_from(request.ttl) {
            Ok(0) => None,
            Ok(secs) => Some(Duration::from_secs(secs)),
            Err(_) => return Err(Status::invalid_argument("`ttl` is negative")),
        };
        let alias = request
            .agent_id
            .as_ref()
            .map(|id| id_from_pb(Some(id), "agent_id"))
            .transpose()
            .map_err(|error| status::of_convert(&error))?;
        let chosen = (!request.token.is_empty()).then_some(request.token);
        let made = self.tokens.create(&actor, life, chosen, alias).await;
        let token = made.map_err(|error| status::of_token(&error))?;
        Ok(Response::new(types::JoinToken {
            value: token.value.to_string(),
            expires_at: token.expires_at.unix_secs(),
        }))
    }

    async fn post_status(
        &self,
        request: Request<pb::PostStatusRequest>,
    ) -> Result<Response<pb::PostStatusResponse>, Status> {
        let caller = self.caller(&request);
        let agent = caller.agent()?;
        let version = &request.get_ref().agent_version;
        if !version.is_empty() && *version != agent.version {
            let done = self.agents.report_version(&agent.id, version).await;
            done.map_err(|error| store_status(&error))?;
        }
        Ok(Response::new(pb::PostStatusResponse {}))
    }
}
