//! Rows of attested agents.

use ravelin_proto::selector::Selector;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use super::statements_issuance as sql;
use super::{Change, Store, StoreError, WriteTx};
use crate::registry::RegisteredAgent;

#[derive(Debug, Serialize, Deserialize)]
struct AgentRow {
    id: SpiffeId,
    is_banned: bool,
    selectors: Vec<String>,
    serial: String,
    serial_before: String,
    expires_at: Timestamp,
    attestation_type: String,
    can_reattest: bool,
    version: String,
}

fn broken(detail: impl ToString) -> StoreError {
    StoreError::Row {
        table: "agents",
        detail: detail.to_string(),
    }
}

impl AgentRow {
    fn of(agent: &RegisteredAgent) -> Self {
        Self {
            id: agent.id.clone(),
            is_banned: agent.is_banned,
            selectors: agent.selectors.iter().map(Selector::to_string).collect(),
            serial: agent.serial.clone(),
            serial_before: agent.serial_before.clone(),
            expires_at: agent.expires_at,
            attestation_type: agent.attestation_type.clone(),
            can_reattest: agent.can_reattest,
            version: agent.version.clone(),
        }
    }

    fn into_agent(self) -> Result<RegisteredAgent, StoreError> {
        let selectors: Result<_, _> = self
            .selectors
            .iter()
            .map(|text| Selector::parse(text).map_err(broken))
            .collect();
        Ok(RegisteredAgent {
            id: self.id,
            is_banned: self.is_banned,
            selectors: selectors?,
            serial: self.serial,
            serial_before: self.serial_before,
            expires_at: self.expires_at,
            attestation_type: self.attestation_type,
            can_reattest: self.can_reattest,
            version: self.version,
        })
    }
}

impl Store {
    /// Every agent on record.
    pub async fn agents(&self) -> Result<Vec<RegisteredAgent>, StoreError> {
        let rows = sqlx::query(sql::AGENTS_ALL)
            .fetch_all(self.readers())
            .await?;
        rows.iter()
            .map(|row| {
                let json: String = row.try_get(0)?;
                serde_json::from_str::<AgentRow>(&json)
                    .map_err(broken)?
                    .into_agent()
            })
            .collect()
    }
}

impl WriteTx {
    /// Creates or replaces an agent; the registry follows with the commit.
    pub(crate) async fn put_agent(&mut self, agent: RegisteredAgent) -> Result<(), StoreError> {
        let json = serde_json::to_string(&AgentRow::of(&agent)).map_err(broken)?;
        sqlx::query(sql::AGENTS_PUT)
            .bind(agent.id.as_str())
            .bind(json)
            .execute(self.conn())
            .await?;
        self.change(Change::AgentUpserted(agent.into()));
        Ok(())
    }

    /// Forgets an agent.
    pub(crate) async fn delete_agent(&mut self, id: &SpiffeId) -> Result<(), StoreError> {
        sqlx::query(sql::AGENTS_DELETE)
            .bind(id.as_str())
            .execute(self.conn())
            .await?;
        self.change(Change::AgentRemoved(id.clone()));
        Ok(())
    }
}
