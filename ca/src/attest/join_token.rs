//! Attestation by join token: a secret that an administrator hands to one agent, good for one use.
//!
//! The token itself is neither stored nor logged nor part of an ID: its SHA-256 stands for it. Using it up, the agent's
//! registration and the audit events are one transaction of the store's one writer (threats 14 to 17).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::secret::Secret;
use ravelin_proto::selector::{Selector, SelectorError};
use ravelin_proto::spiffe_id::{SpiffeId, SpiffeIdError, TrustDomain};
use ravelin_proto::time::Timestamp;
use ravelin_runtime::crypto;

use super::throttle::Throttle;
use crate::audit::Event;
use crate::hub::Hub;
use crate::issuance::authorize::Grant;
use crate::issuance::csr::VerifiedCsr;
use crate::issuance::issuer::{IssueError, IssueRefusal, Issuer, Planned, X509Svid};
use crate::issuance::sign::Ticket;
use crate::limits::{
    JOIN_TOKEN_BYTES_MAX, JOIN_TOKEN_BYTES_MIN, JOIN_TOKEN_LIFE, JOIN_TOKEN_LIFE_MAX,
};
use crate::registry::{RegisteredAgent, SERVER_PATH};
use crate::store::{StoreError, TokenUse, WriteTx};

/// The name of this way to attest, on the wire and in the registry.
pub const JOIN_TOKEN: &str = "join_token";
/// The kind of the selector that names the agent itself.
const AGENT_SELECTOR: &str = "spiffe_id";

/// Why an agent is not attested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestRefusal {
    /// Unknown, used before or expired: outside these are one answer.
    #[error("the join token is not valid")]
    Token(&'static str),
    /// An agent of this ID exists (threat 17).
    #[error("an agent of this ID is attested already")]
    Exists(SpiffeId),
    /// Too many failures from one address.
    #[error("too many failed attestations from this address; wait a moment")]
    Throttled,
}

impl AttestRefusal {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Token(code) => code,
            Self::Exists(_) => "agent_exists",
            Self::Throttled => "attest_throttled",
        }
    }
}

/// Why attestation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// A considered No; it is in the audit log.
    #[error(transparent)]
    Refused(#[from] AttestRefusal),
    /// The SVID could not be issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The ID cannot be formed.
    #[error("the agent's ID cannot be formed: {0}")]
    Id(#[from] SpiffeIdError),
    /// The selector cannot be formed.
    #[error("the agent's selector cannot be formed: {0}")]
    Selector(#[from] SelectorError),
}

impl From<StoreError> for AttestError {
    fn from(error: StoreError) -> Self {
        Self::Issue(error.into())
    }
}

/// Why a token is not made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A chosen token that can be guessed, or is too long.
    #[error(
        "a join token has {JOIN_TOKEN_BYTES_MIN} to {JOIN_TOKEN_BYTES_MAX} printable characters without spaces"
    )]
    Form,
    /// A life that is negative or too long.
    #[error("a join token lives at most {} days", JOIN_TOKEN_LIFE_MAX.as_secs() / 86_400)]
    Life,
    /// The token exists, or was used once.
    #[error("this join token exists or was used before; choose another one")]
    Exists,
    /// The alias is of another trust domain, or reserved.
    #[error("`{0}` cannot be the ID of a node: it is of another trust domain or reserved")]
    Alias(SpiffeId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The agent's ID or selector cannot be formed.
    #[error(transparent)]
    Agent(#[from] AttestError),
}

/// A token as its maker sees it, once.
#[derive(Debug)]
pub struct JoinToken {
    /// The secret.
    pub value: Secret<String>,
    /// When it can no longer be used.
    pub expires_at: Timestamp,
}

/// The ID of the agent that attests with this token.
pub fn agent_id(trust_domain: &TrustDomain, token: &str) -> Result<SpiffeId, SpiffeIdError> {
    let digest = hex::encode(crypto::digest_sha256(token.as_bytes()));
    let short = digest.get(..32).unwrap_or(&digest);
    SpiffeId::new(trust_domain, &format!("/spire/agent/{JOIN_TOKEN}/{short}"))
}

/// Makes tokens and takes them.
#[derive(Debug)]
pub struct JoinTokens {
    hub: Hub,
    issuer: Arc<Issuer>,
    agent_life: Duration,
    throttle: Mutex<Throttle>,
}

impl JoinTokens {
    /// `agent_life` is the life of an agent's SVID.
    pub fn new(hub: Hub, issuer: Arc<Issuer>, agent_life: Duration) -> Self {
        Self {
            hub,
            issuer,
            agent_life,
            throttle: Mutex::default(),
        }
    }

    /// Makes a token; with `alias`, also the entry that gives the agent that node's ID.
    pub async fn create(
        &self,
        actor: &str,
        life: Option<Duration>,
        chosen: Option<String>,
        alias: Option<SpiffeId>,
    ) -> Result<JoinToken, TokenError> {
        let life = life.unwrap_or(JOIN_TOKEN_LIFE);
        if life > JOIN_TOKEN_LIFE_MAX || life.is_zero() {
            return Err(TokenError::Life);
        }
        let value = Secret::new(match chosen {
            Some(chosen) if is_token(&chosen) => chosen,
            Some(_) => return Err(TokenError::Form),
            None => hex::encode(crypto::random_bytes::<16>()),
        });
        let store = self.hub.store();
        let agent = agent_id(store.trust_domain(), &value).map_err(AttestError::from)?;
        let entry = alias
            .map(|alias| self.alias_entry(alias, &agent))
            .transpose()?;
        let expires_at = store.clock().now().plus(life);
        let hash = crypto::digest_sha256(value.as_bytes());
        let actor = actor.to_owned();
        store
            .write(move |tx| {
                Box::pin(async move {
                    if !tx.insert_token(hash, expires_at).await? {
                        return Err(TokenError::Exists);
                    }
                    let mut event = Event::new("token.created", actor.as_str())
                        .with("agent_id", agent.as_str())
                        .with("expires_at", expires_at.rfc3339());
                    if let Some(entry) = entry {
                        event = event.with("node_id", entry.spiffe_id.as_str());
                        tx.put_entry(entry, &actor).await?;
                    }
                    tx.audit(event)?;
                    Ok(())
                })
            })
            .await?;
        Ok(JoinToken { value, expires_at })
    }

    fn alias_entry(
        &self,
        alias: SpiffeId,
        agent: &SpiffeId,
    ) -> Result<RegistrationEntry, TokenError> {
        let trust_domain = self.hub.store().trust_domain();
        let is_reserved = alias.path() == "/spire" || alias.path().starts_with("/spire/");
        if !alias.is_member_of(trust_domain) || alias.is_root() || is_reserved {
            return Err(TokenError::Alias(alias));
        }
        let server = SpiffeId::new(trust_domain, SERVER_PATH).map_err(AttestError::from)?;
        let selector = Selector::new(AGENT_SELECTOR, agent.as_str()).map_err(AttestError::from)?;
        let id = uuid::Builder::from_random_bytes(crypto::random_bytes())
            .into_uuid()
            .to_string();
        Ok(RegistrationEntry::new(&id, alias, server, vec![selector]))
    }

    /// Takes a token and issues the agent's SVID. Of any number of callers with one token one wins.
    pub async fn attest(
        &self,
        token: &str,
        csr: VerifiedCsr,
        remote: IpAddr,
    ) -> Result<X509Svid, AttestError> {
        let now = self.may_try(remote)?;
        let agent_id = agent_id(self.hub.store().trust_domain(), token)?;
        let actor = agent_id.to_string();
        let grant = Grant::to_attested_agent(agent_id.clone(), self.agent_life);
        let planned = self.issuer.plan(&csr, grant).map_err(IssueError::from)?;
        let hash = crypto::digest_sha256(token.as_bytes());
        let agent = RegisteredAgent {
            selectors: BTreeSet::from([Selector::new(AGENT_SELECTOR, agent_id.as_str())?]),
            id: agent_id,
            is_banned: false,
            serial: planned.serial(),
            serial_before: String::new(),
            expires_at: planned.not_after(),
            attestation_type: JOIN_TOKEN.to_owned(),
            can_reattest: false,
            version: String::new(),
        };
        let outcome: Result<(Planned, Ticket), AttestRefusal> = self
            .hub
            .store()
            .write(move |tx| Box::pin(register(tx, hash, agent, planned, remote)))
            .await?;
        match outcome {
            Ok((planned, ticket)) => Ok(self.issuer.redeem(planned, ticket, &actor).await?),
            Err(refusal) => {
                self.throttle().record_failure(remote, now);
                Err(refusal.into())
            }
        }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_try(&self, remote: IpAddr) -> Result<Timestamp, AttestRefusal> {
        let now = self.hub.store().clock().now();
        if self.throttle().may_try(remote, now) {
            Ok(now)
        } else {
            Err(AttestRefusal::Throttled)
        }
    }

    /// Records a refusal that came before the token was looked at. It counts as a failure: strangers may not fill the
    /// audit log either.
    pub async fn refuse(&self, remote: IpAddr, refusal: &IssueRefusal) -> Result<(), AttestError> {
        let now = self.may_try(remote)?;
        self.throttle().record_failure(remote, now);
        let event = Event::new("agent.refused", "anonymous")
            .with("code", refusal.code())
            .with("reason", refusal.to_string())
            .with("remote", remote.to_string());
        self.hub
            .store()
            .write::<_, StoreError, _>(move |tx| Box::pin(async move { tx.audit(event) }))
            .await?;
        Ok(())
    }
}

/// One transaction: use the token, register the agent, record both intents. A refusal is recorded as well.
async fn register(
    tx: &mut WriteTx,
    hash: [u8; 32],
    agent: RegisteredAgent,
    planned: Planned,
    remote: IpAddr,
) -> Result<Result<(Planned, Ticket), AttestRefusal>, AttestError> {
    let refusal = match tx.use_token(hash).await? {
        TokenUse::Taken => tx
            .with_snapshot(|registry| registry.agent(&agent.id).is_some())
            .then(|| AttestRefusal::Exists(agent.id.clone())),
        TokenUse::UsedBefore => Some(AttestRefusal::Token("token_used")),
        TokenUse::Expired => Some(AttestRefusal::Token("token_expired")),
        TokenUse::Unknown => Some(AttestRefusal::Token("token_unknown")),
    };
    let event = |kind| {
        Event::new(kind, agent.id.as_str())
            .with("agent_id", agent.id.as_str())
            .with("attestation_type", JOIN_TOKEN)
            .with("remote", remote.to_string())
    };
    if let Some(refusal) = refusal {
        tx.audit(event("agent.refused").with("code", refusal.code()))?;
        return Ok(Err(refusal));
    }
    tx.audit(event("agent.attested").with("serial", planned.serial()))?;
    let ticket = Issuer::record(tx, &planned, agent.id.as_str()).await?;
    tx.put_agent(agent).await?;
    Ok(Ok((planned, ticket)))
}

fn is_token(text: &str) -> bool {
    (JOIN_TOKEN_BYTES_MIN..=JOIN_TOKEN_BYTES_MAX).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_16_a_token_never_shows_in_the_agents_id_and_cannot_form_its_path() {
        let td = TrustDomain::parse("td").unwrap();
        for token in ["../../admin", "plain", "a/b", "", "\u{0}"] {
            let id = agent_id(&td, token).unwrap();
            let last = id.path().strip_prefix("/spire/agent/join_token/").unwrap();
            assert!(
                last.len() == 32 && last.bytes().all(|b| b.is_ascii_hexdigit()),
                "{id}"
            );
        }
    }

    #[test]
    fn threat_15_a_chosen_token_is_hard_to_guess() {
        for (token, want) in [
            ("short", false),
            ("0123456789012345678901", true),
            ("has a space 0123456789012", false),
            (&"x".repeat(JOIN_TOKEN_BYTES_MAX + 1), false),
        ] {
            assert_eq!(is_token(token), want, "{token}");
        }
    }
}
