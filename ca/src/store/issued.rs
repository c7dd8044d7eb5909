//! Rows of what was issued: whom it names, through whom it went, who signed it, until when it lives.

use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use sqlx::Row as _;

use super::statements_issuance as sql;
use super::{Store, StoreError, WriteTx};
use crate::authority::state::Kind;
use crate::limits::DENIED_SERIALS_MAX;

/// One SVID on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedSvid {
    /// Serial number, or `jti`.
    pub serial: String,
    /// X.509 or JWT.
    pub kind: Kind,
    /// Whom it names.
    pub spiffe_id: SpiffeId,
    /// Through which agent; empty for none.
    pub agent_id: String,
    /// Who signed it.
    pub authority_id: String,
    /// By which entry; empty for none.
    pub entry_id: String,
    /// Until when it lives.
    pub not_after: Timestamp,
}

impl Store {
    /// When the newest SVID was issued.
    pub async fn newest_issuance(&self) -> Result<Option<Timestamp>, StoreError> {
        let row = sqlx::query(sql::ISSUED_NEWEST)
            .fetch_one(self.readers())
            .await?;
        let newest: Option<i64> = row.try_get(0)?;
        Ok(newest.map(Timestamp::from_unix_millis))
    }

    /// The kind and the end of an SVID, by serial or `jti`.
    pub async fn issued_end(&self, serial: &str) -> Result<Option<(Kind, Timestamp)>, StoreError> {
        let row = sqlx::query(sql::ISSUED_GET)
            .bind(serial)
            .fetch_optional(self.readers())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let kind: String = row.try_get(0)?;
        let end = Timestamp::from_unix_millis(row.try_get(1)?);
        Ok(Kind::from_name(&kind).map(|kind| (kind, end)))
    }

    /// When the last SVID of an ID ends.
    pub async fn end_by_spiffe_id(&self, id: &str) -> Result<Option<Timestamp>, StoreError> {
        self.end(sql::ISSUED_END_BY_SPIFFE_ID, id).await
    }

    /// When the last SVID that went through an agent ends.
    pub async fn end_by_agent(&self, id: &str) -> Result<Option<Timestamp>, StoreError> {
        self.end(sql::ISSUED_END_BY_AGENT, id).await
    }

    /// When the last SVID of an authority ends.
    pub async fn end_by_authority(&self, id: &str) -> Result<Option<Timestamp>, StoreError> {
        self.end(sql::ISSUED_END_BY_AUTHORITY, id).await
    }

    async fn end(&self, text: &'static str, id: &str) -> Result<Option<Timestamp>, StoreError> {
        let row = sqlx::query(text).bind(id).fetch_one(self.readers()).await?;
        let end: Option<i64> = row.try_get(0)?;
        Ok(end.map(Timestamp::from_unix_millis))
    }

    /// SVIDs of an authority that have not ended.
    pub async fn live_by_authority(&self, id: &str, now: Timestamp) -> Result<u32, StoreError> {
        let row = sqlx::query(sql::ISSUED_LIVE_BY_AUTHORITY)
            .bind(id)
            .bind(now.unix_millis())
            .fetch_one(self.readers())
            .await?;
        Ok(u32::try_from(row.try_get::<i64, _>(0)?).unwrap_or(u32::MAX))
    }

    /// Serials of the X509-SVIDs through an agent that have not ended; at most `DENIED_SERIALS_MAX`.
    pub async fn serials_by_agent(
        &self,
        id: &str,
        now: Timestamp,
    ) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(sql::ISSUED_SERIALS_BY_AGENT)
            .bind(id)
            .bind(now.unix_millis())
            .bind(i64::from(DENIED_SERIALS_MAX))
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

impl WriteTx {
    /// Records what is about to be signed. A serial that exists already is an error.
    pub(crate) async fn insert_issued(&mut self, svid: &IssuedSvid) -> Result<(), StoreError> {
        let now = self.now();
        sqlx::query(sql::ISSUED_INSERT)
            .bind(&svid.serial)
            .bind(svid.kind.name())
            .bind(svid.spiffe_id.as_str())
            .bind(&svid.agent_id)
            .bind(&svid.authority_id)
            .bind(&svid.entry_id)
            .bind(now.unix_millis())
            .bind(svid.not_after.unix_millis())
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Drops what ended before `end`; the newest stays, for the clock's sake.
    pub(crate) async fn prune_issued(&mut self, end: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query(sql::ISSUED_PRUNE)
            .bind(end.unix_millis())
            .execute(self.conn())
            .await?;
        Ok(done.rows_affected())
    }
}
