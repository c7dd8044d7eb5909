//! What happens to an attested agent: renewal, first use of a new SVID, its version, ban and eviction.

use std::sync::Arc;
use std::time::Duration;

use ravelin_proto::spiffe_id::SpiffeId;

use crate::audit::Event;
use crate::authority::state::Kind;
use crate::hub::Hub;
use crate::issuance::authorize::{Grant, GrantRefusal};
use crate::issuance::csr::VerifiedCsr;
use crate::issuance::issuer::{IssueError, IssueRefusal, Issuer, X509Svid};
use crate::limits::VERSION_BYTES_MAX;
use crate::registry::RegisteredAgent;
use crate::store::StoreError;

/// Changes agents on record.
#[derive(Debug)]
pub struct Agents {
    hub: Hub,
    issuer: Arc<Issuer>,
    life: Duration,
}

impl Agents {
    /// `life` is the life of an agent's SVID.
    pub fn new(hub: Hub, issuer: Arc<Issuer>, life: Duration) -> Self {
        Self { hub, issuer, life }
    }

    /// The life of an agent's SVID.
    pub fn life(&self) -> Duration {
        self.life
    }

    /// Issues an agent its next SVID. The one that it used for this call stays good until the next one was seen, so a
    /// lost answer costs nothing.
    pub async fn renew(
        &self,
        id: &SpiffeId,
        used_serial: &str,
        csr: VerifiedCsr,
    ) -> Result<X509Svid, IssueError> {
        let grant = Grant::to_attested_agent(id.clone(), self.life);
        let planned = match self.issuer.plan(&csr, grant) {
            Ok(planned) => planned,
            Err(refusal) => return Err(self.refuse(id, refusal).await),
        };
        let (agent, used_serial) = (id.clone(), used_serial.to_owned());
        let (planned, ticket) = self
            .hub
            .store()
            .write(move |tx| {
                Box::pin(async move {
                    // The registry of this transaction, not of the moment when the call came in.
                    let present = tx.with_snapshot(|registry| registry.agent(&agent).cloned());
                    let Some(present) = present.filter(|present| !present.is_banned) else {
                        return Err(IssueError::Refused(GrantRefusal::Agent.into()));
                    };
                    tx.audit(
                        Event::new("agent.renewed", agent.as_str())
                            .with("agent_id", agent.as_str())
                            .with("serial", planned.serial()),
                    )?;
                    let ticket = Issuer::record(tx, &planned, agent.as_str()).await?;
                    tx.put_agent(RegisteredAgent {
                        serial: planned.serial(),
                        serial_before: used_serial,
                        expires_at: planned.not_after(),
                        ..RegisteredAgent::clone(&present)
                    })
                    .await?;
                    Ok((planned, ticket))
                })
            })
            .await?;
        self.issuer.redeem(planned, ticket, id.as_str()).await
    }

    /// Puts the refusal of an agent's request on record; gives it back as the error to answer with.
    pub async fn refuse(&self, id: &SpiffeId, refusal: IssueRefusal) -> IssueError {
        match self.issuer.refuse(Kind::X509, id.as_str(), &refusal).await {
            Ok(()) => refusal.into(),
            Err(error) => error,
        }
    }

    /// The new SVID was seen: the one before it is good no more.
    pub async fn settle(&self, id: &SpiffeId, serial: &str) -> Result<(), StoreError> {
        let serial = serial.to_owned();
        self.update(id, move |agent| {
            if agent.serial == serial {
                agent.serial_before.clear();
            }
        })
        .await
        .map(|_| ())
    }

    /// Takes down the version that an agent reports.
    pub async fn report_version(&self, id: &SpiffeId, version: &str) -> Result<(), StoreError> {
        let version: String = version
            .chars()
            .filter(|c| !c.is_control())
            .take(VERSION_BYTES_MAX)
            .collect();
        self.update(id, move |agent| agent.version = version)
            .await
            .map(|_| ())
    }

    /// Bans an agent: nothing more is issued through it, and it cannot come back. `None` when it is unknown.
    pub async fn ban(&self, id: &SpiffeId, actor: &str) -> Result<Option<()>, StoreError> {
        let (agent, actor) = (id.clone(), actor.to_owned());
        let done = self
            .hub
            .store()
            .write(move |tx| {
                Box::pin(async move {
                    let present = tx.with_snapshot(|registry| registry.agent(&agent).cloned());
                    let Some(present) = present else {
                        return Ok::<_, StoreError>(None);
                    };
                    if !present.is_banned {
                        tx.audit(
                            Event::new("agent.banned", actor).with("agent_id", agent.as_str()),
                        )?;
                        let banned = RegisteredAgent {
                            is_banned: true,
                            ..RegisteredAgent::clone(&present)
                        };
                        tx.put_agent(banned).await?;
                    }
                    Ok(Some(()))
                })
            })
            .await?;
        self.hub.acks().forget(id);
        Ok(done)
    }

    /// Forgets an agent; it may attest anew. `None` when it is unknown.
    pub async fn evict(&self, id: &SpiffeId, actor: &str) -> Result<Option<()>, StoreError> {
        let (agent, actor) = (id.clone(), actor.to_owned());
        let done = self
            .hub
            .store()
            .write(move |tx| {
                Box::pin(async move {
                    if tx.with_snapshot(|registry| registry.agent(&agent).is_none()) {
                        return Ok::<_, StoreError>(None);
                    }
                    tx.audit(Event::new("agent.evicted", actor).with("agent_id", agent.as_str()))?;
                    tx.delete_agent(&agent).await?;
                    Ok(Some(()))
                })
            })
            .await?;
        self.hub.acks().forget(id);
        Ok(done)
    }

    async fn update(
        &self,
        id: &SpiffeId,
        change: impl FnOnce(&mut RegisteredAgent) + Send + 'static,
    ) -> Result<bool, StoreError> {
        let id = id.clone();
        self.hub
            .store()
            .write(move |tx| {
                Box::pin(async move {
                    let present = tx.with_snapshot(|registry| registry.agent(&id).cloned());
                    let Some(present) = present else {
                        return Ok(false);
                    };
                    let mut changed = RegisteredAgent::clone(&present);
                    change(&mut changed);
                    if changed == *present {
                        return Ok(false);
                    }
                    tx.put_agent(changed).await?;
                    Ok(true)
                })
            })
            .await
    }
}

impl From<GrantRefusal> for IssueError {
    fn from(refusal: GrantRefusal) -> Self {
        Self::Refused(IssueRefusal::Grant(refusal))
    }
}
