//! The deny-list: identities that are cut off before they expire. Small, so all of it is in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Row, SqliteConnection};

use super::{Change, StoreError, WriteTx, kinds, statements};
use crate::audit::Event;
use crate::audit::canonical::to_canonical;

/// What is cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeniedSubject {
    /// Every SVID of this ID.
    SpiffeId(String),
    /// One X509-SVID: lower-case hex without leading zeros.
    Serial(String),
    /// An agent and every X509-SVID issued through it.
    AgentId(String),
    /// One JWT-SVID.
    Jti(String),
}

/// One identity that is cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeniedIdentity {
    /// Unique id.
    pub id: String,
    /// What is cut off.
    pub subject: DeniedSubject,
    /// Why, in a person's words.
    pub reason: String,
    /// When it was added.
    pub created_at: Timestamp,
    /// When the last SVID that it names has expired.
    pub expires_at: Timestamp,
    /// Who added it.
    pub created_by: String,
    /// With an agent: serials of the X509-SVIDs issued through it.
    pub serials: Vec<String>,
    /// With a SPIFFE ID: only SVIDs issued up to then; `None` means all.
    pub issued_until: Option<Timestamp>,
}

impl DeniedIdentity {
    /// As the message.
    pub fn to_pb(&self) -> pb::DenylistEntry {
        use pb::denylist_entry::Subject;
        let subject = match self.subject.clone() {
            DeniedSubject::SpiffeId(id) => Subject::SpiffeId(id),
            DeniedSubject::Serial(serial) => Subject::Serial(serial),
            DeniedSubject::AgentId(id) => Subject::AgentId(id),
            DeniedSubject::Jti(jti) => Subject::Jti(jti),
        };
        pb::DenylistEntry {
            id: self.id.clone(),
            reason: self.reason.clone(),
            created_at: self.created_at.unix_secs(),
            expires_at: self.expires_at.unix_secs(),
            created_by: self.created_by.clone(),
            serials: self.serials.clone(),
            issued_until: self.issued_until.map_or(0, Timestamp::unix_secs),
            subject: Some(subject),
        }
    }

    fn event(&self, kind: &'static str, actor: &str) -> Event {
        let (name, value) = match &self.subject {
            DeniedSubject::SpiffeId(id) => ("spiffe_id", id),
            DeniedSubject::Serial(serial) => ("serial", serial),
            DeniedSubject::AgentId(id) => ("agent_id", id),
            DeniedSubject::Jti(jti) => ("jti", jti),
        };
        Event::new(kind, actor)
            .with("id", self.id.as_str())
            .with(name, value.as_str())
    }
}

/// The deny-list as of one commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Denylist {
    /// Only grows.
    pub number: u64,
    /// By id.
    pub entries: BTreeMap<String, Arc<DeniedIdentity>>,
}

impl Denylist {
    /// As the message.
    pub fn to_pb(&self) -> pb::Denylist {
        pb::Denylist {
            number: self.number,
            entries: self.entries.values().map(|entry| entry.to_pb()).collect(),
        }
    }
}

pub(crate) fn to_json(entry: &DeniedIdentity) -> String {
    // INVARIANT: strings, numbers and lists always serialize.
    to_canonical(&serde_json::to_value(entry).unwrap_or_default())
}

pub(super) async fn all(
    conn: &mut SqliteConnection,
) -> Result<BTreeMap<String, Arc<DeniedIdentity>>, StoreError> {
    let rows = sqlx::query(statements::DENYLIST_ALL)
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            let json: String = row.try_get(0)?;
            let entry: DeniedIdentity =
                serde_json::from_str(&json).map_err(|error| StoreError::Row {
                    table: "denylist",
                    detail: error.to_string(),
                })?;
            Ok((entry.id.clone(), Arc::new(entry)))
        })
        .collect()
}

impl WriteTx {
    /// Cuts an identity off. Streams push it to every agent once this is durable.
    pub async fn add_denied(
        &mut self,
        entry: DeniedIdentity,
        actor: &str,
    ) -> Result<(), StoreError> {
        let json = to_json(&entry);
        sqlx::query(statements::DENYLIST_INSERT)
            .bind(&entry.id)
            .bind(entry.expires_at.unix_millis())
            .bind(&json)
            .execute(self.conn())
            .await?;
        let value: Value = serde_json::from_str(&json).unwrap_or_default();
        let event = entry
            .event(kinds::DENYLIST_ADDED, actor)
            .with("entry", value)
            .with("change", self.next_revision());
        self.audit(event)?;
        self.change(Change::DeniedAdded(Arc::new(entry)));
        Ok(())
    }

    /// Takes an identity off the list; `None` when there is none of that id.
    pub async fn remove_denied(
        &mut self,
        id: &str,
        actor: &str,
        why: &str,
    ) -> Result<Option<DeniedIdentity>, StoreError> {
        let row = sqlx::query(statements::DENYLIST_GET)
            .bind(id)
            .fetch_optional(self.conn())
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let json: String = row.try_get(0)?;
        let entry: DeniedIdentity =
            serde_json::from_str(&json).map_err(|error| StoreError::Row {
                table: "denylist",
                detail: error.to_string(),
            })?;
        sqlx::query(statements::DENYLIST_DELETE)
            .bind(id)
            .execute(self.conn())
            .await?;
        let event = entry
            .event(kinds::DENYLIST_REMOVED, actor)
            .with("why", why)
            .with("change", self.next_revision());
        self.audit(event)?;
        self.change(Change::DeniedRemoved(id.to_owned()));
        Ok(Some(entry))
    }

    /// Drops what names only expired SVIDs; returns how many.
    pub async fn prune_denylist(&mut self) -> Result<usize, StoreError> {
        let now = self.now().unix_millis();
        let rows = sqlx::query(statements::DENYLIST_EXPIRED)
            .bind(now)
            .fetch_all(self.conn())
            .await?;
        let count = rows.len();
        for row in rows {
            let id: String = row.try_get(0)?;
            self.remove_denied(&id, "ca", "expired").await?;
        }
        Ok(count)
    }
}
