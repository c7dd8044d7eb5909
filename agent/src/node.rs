//! The agent's own identity: attested once with a join token, then renewed at half of its life.
//!
//! An agent whose SVID has expired (a long outage, say) stays up, serves what is still valid, says
//! so in its status and attests again as soon as it finds a live join token.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ravelin_proto::pb::spire::api::server::agent::v1::{
    AgentX509svidParams, AttestAgentRequest, RenewAgentRequest, agent_client::AgentClient,
    attest_agent_request, attest_agent_response,
};
use ravelin_proto::pb::spire::api::types::{AttestationData, X509svid};
use ravelin_proto::secret::Secret;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::backoff::Backoff;
use ravelin_runtime::drain::Drain;

use crate::ca_client::{CaClient, CaError, call, within};
use crate::cache::X509Svid;
use crate::csr::NewKey;
use crate::entropy;
use crate::limits;
use crate::renewal::{self, Renewal};
use crate::state::{self, State};
use crate::storage::{Storage, StorageError};

/// Where the join token comes from.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenSource {
    /// Read again at each attempt.
    pub file: Option<PathBuf>,
    /// From the configuration.
    pub value: Option<Secret<String>>,
}

/// Why the node has no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// No token to attest with.
    #[error("no join token: create one with `ravelin token create` and set `join_token_file`")]
    TokenMissing,
    /// The token file cannot be used.
    #[error("cannot use the join token file `{}`: {reason}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The own SVID ran out while the CA was away, and attesting again failed.
    #[error("the agent's own SVID expired at {at}; attesting again failed: {source}")]
    Expired {
        /// When.
        at: Timestamp,
        /// Why it was not replaced.
        source: Box<NodeError>,
    },
    /// A rotation went by while this agent was away.
    #[error(
        "the CA and this agent do not trust each other: give the agent a new join token and trust bundle; attesting again failed: {source}"
    )]
    Distrusted {
        /// Why it was not mended.
        source: Box<NodeError>,
    },
    /// The CA.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The task that keeps the agent's own SVID.
#[derive(Debug)]
pub(crate) struct Node {
    /// Shared state.
    pub state: Arc<State>,
    /// The way to the CA.
    pub ca: Arc<CaClient>,
    /// The disk.
    pub storage: Arc<Storage>,
    /// The join token.
    pub token: TokenSource,
}

impl Node {
    /// Runs until the drain.
    pub(crate) async fn run(self, drain: Drain) {
        let mut backoff = Backoff::new(limits::RECONNECT_FIRST, limits::RECONNECT_MAX);
        let mut config = self.state.config_tick.subscribe();
        let mut distrust = self.state.distrust_tick.subscribe();
        while !drain.is_started() {
            let is_distrusted = distrust.has_changed().unwrap_or(false);
            distrust.borrow_and_update();
            let pause = match self.step(is_distrusted).await {
                Ok(pause) => {
                    backoff.reset();
                    pause
                }
                Err(error) => {
                    let pause = backoff.next(entropy::unit());
                    tracing::warn!(%error, retry_in = ?pause, "the node has no fresh identity");
                    let text = error.to_string();
                    self.state.note(|progress| progress.last_error = text);
                    tokio::select! {
                        () = drain.started() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                    continue;
                }
            };
            // `changed` marks what it saw: a copy waits, so that the next turn still sees it.
            let mut mark = distrust.clone();
            // Cancel-safe: each arm waits for something that stays true.
            tokio::select! {
                () = drain.started() => {}
                () = tokio::time::sleep(pause) => {}
                _ = config.changed() => {}
                _ = mark.changed() => {}
            }
        }
    }

    /// Attests or renews if that is due; returns how long to wait.
    async fn step(&self, is_distrusted: bool) -> Result<Duration, NodeError> {
        let now = self.state.now();
        let Some(own) = self.state.own() else {
            self.attest().await?;
            return Ok(limits::REFUSED_FIRST);
        };
        if !own.is_live(now) {
            let at = own.validity.not_after;
            self.attest().await.map_err(|source| NodeError::Expired {
                at,
                source: Box::new(source),
            })?;
            return Ok(limits::REFUSED_FIRST);
        }
        if is_distrusted {
            tracing::warn!("the CA and this agent do not trust each other: attesting again");
            self.attest()
                .await
                .map_err(|source| NodeError::Distrusted {
                    source: Box::new(source),
                })?;
            return Ok(limits::REFUSED_FIRST);
        }
        let authorities = self.state.with_cache(|cache| cache.authorities().clone());
        match renewal::plan(&own.tracked(), &authorities, now) {
            Renewal::Now(reason) => {
                self.renew(&own).await?;
                tracing::info!(?reason, "renewed the agent's own SVID");
                Ok(limits::REFUSED_FIRST)
            }
            Renewal::At(at) => Ok(renewal::pause_until(Some(at), now, limits::SLEEP_MAX)),
        }
    }

    async fn attest(&self) -> Result<(), NodeError> {
        const CALL: &str = "AttestAgent";
        let token = self.token.read()?;
        let key = NewKey::generate().map_err(CaError::from)?;
        let mut client = AgentClient::new(self.ca.bootstrap_channel().await?);
        let params = attest_agent_request::Params {
            data: Some(AttestationData {
                r#type: "join_token".into(),
                payload: token.as_bytes().to_vec(),
            }),
            params: Some(AgentX509svidParams {
                csr: key.csr.clone(),
            }),
        };
        let first = AttestAgentRequest {
            step: Some(attest_agent_request::Step::Params(params)),
        };
        let answer = within(CALL, limits::CA_CALL_WAIT, async {
            let refused = |status| CaError::Refused {
                call: CALL,
                status: Box::new(status),
            };
            // The request side stays open until the answer is there.
            let requests =
                tokio_stream::StreamExt::chain(tokio_stream::once(first), tokio_stream::pending());
            let mut answers = client
                .attest_agent(requests)
                .await
                .map_err(refused)?
                .into_inner();
            answers.message().await.map_err(refused)
        })
        .await?;
        let svid = match answer.and_then(|answer| answer.step) {
            Some(attest_agent_response::Step::Result(result)) => result.svid,
            Some(attest_agent_response::Step::Challenge(_)) | None => None,
        };
        let own = self.take(CALL, svid, &key)?;
        self.ca.trust_file_until_synced();
        self.state.trust_anew();
        tracing::info!(agent_id = %own.spiffe_id, expires_at = %own.validity.not_after, "node attested");
        self.keep(own)
    }

    async fn renew(&self, own: &X509Svid) -> Result<(), NodeError> {
        const CALL: &str = "RenewAgent";
        let key = NewKey::generate().map_err(CaError::from)?;
        let mut client = AgentClient::new(self.ca.channel().await?);
        let request = RenewAgentRequest {
            params: Some(AgentX509svidParams {
                csr: key.csr.clone(),
            }),
        };
        let answer = call(CALL, client.renew_agent(request)).await?;
        let new = self.take(CALL, answer.svid, &key)?;
        let new = new
            .expect_id(&own.spiffe_id)
            .map_err(|error| CaError::Malformed {
                call: CALL,
                reason: error.to_string(),
            })?;
        self.keep(new)
    }

    fn take(
        &self,
        call: &'static str,
        svid: Option<X509svid>,
        key: &NewKey,
    ) -> Result<X509Svid, CaError> {
        let malformed = |reason: String| CaError::Malformed { call, reason };
        let chain = svid
            .ok_or_else(|| malformed("no SVID in it".into()))?
            .cert_chain;
        if !chain.first().is_some_and(|leaf| key.is_key_of(leaf)) {
            return Err(malformed(
                "the SVID is not for the key that was sent".into(),
            ));
        }
        let svid = X509Svid::parse(chain, key.key.clone(), 0, self.state.now())
            .map_err(|error| malformed(error.to_string()))?;
        let is_agent = svid.spiffe_id.is_member_of(self.state.trust_domain())
            && svid.spiffe_id.path().starts_with("/spire/agent/");
        if !is_agent {
            return Err(malformed(format!(
                "`{}` is not an agent's ID",
                svid.spiffe_id
            )));
        }
        Ok(svid)
    }

    fn keep(&self, own: X509Svid) -> Result<(), NodeError> {
        // INVARIANT: on disk before it is shown: from its first use on the CA refuses the one before, and a crash in
        // between would leave a node that only a new join token helps.
        let saved = self.storage.save_node(&state::stored("", &own));
        self.state.set_own(own);
        self.state.note(|progress| progress.last_error.clear());
        Ok(saved?)
    }
}

impl TokenSource {
    fn read(&self) -> Result<Secret<String>, NodeError> {
        let Some(path) = &self.file else {
            return self.value.clone().ok_or(NodeError::TokenMissing);
        };
        let failed = |reason: String| NodeError::TokenFile {
            path: path.clone(),
            reason,
        };
        let text =
            Secret::new(std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?);
        let token = text.trim();
        if token.is_empty() || token.len() > limits::JOIN_TOKEN_BYTES_MAX {
            return Err(failed("it holds no join token".into()));
        }
        Ok(Secret::new(token.to_owned()))
    }
}
