//! Reading both logs: pages of leaves and of decisions that meet a filter.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::writer::to_i64;
use super::{Store, StoreError, statements};

/// Which records to read. Empty texts and `None` ask for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogFilter {
    /// Unix milliseconds, included.
    pub since_ms: Option<i64>,
    /// Unix milliseconds, included.
    pub until_ms: Option<i64>,
    /// An exact kind, or a prefix with a trailing `*`.
    pub kind: String,
    /// Who did it (audit log only).
    pub actor: String,
    /// Of a leaf: the ID it is about. Of a decision: the workload or its peer.
    pub spiffe_id: String,
    /// SPIFFE ID of the peer (decisions only).
    pub peer: String,
    /// `namespace/name` (decisions only).
    pub policy: String,
    /// 1-based rule number (decisions only).
    pub rule: Option<u32>,
    /// Allowed or denied (decisions only).
    pub is_allowed: Option<bool>,
    /// Serial number of an X509-SVID.
    pub serial: String,
    /// Id of a JWT-SVID.
    pub jti: String,
    /// SPIFFE ID of an agent.
    pub agent_id: String,
}

impl LogFilter {
    /// True when only decisions can meet it.
    pub fn is_decisions_only(&self) -> bool {
        !self.peer.is_empty()
            || !self.policy.is_empty()
            || self.rule.is_some()
            || self.is_allowed.is_some()
    }

    /// True when only leaves can meet it.
    pub fn is_audit_only(&self) -> bool {
        !self.actor.is_empty()
    }

    fn kinds(&self) -> (&str, &str) {
        match self.kind.strip_suffix('*') {
            Some(prefix) => ("", prefix),
            None => (&self.kind, ""),
        }
    }
}

/// A record of either log, with its place for the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// True for a decision, false for a leaf.
    pub is_decision: bool,
    /// Leaf index; of a decision, of its segment's leaf.
    pub index: u64,
    /// Place in the segment; 0 for a leaf.
    pub position: i64,
    /// When it happened.
    pub time_ms: i64,
    /// `svid.issued`; of a decision `call.allowed` or `call.denied`.
    pub kind: String,
    /// What was hashed.
    pub json: String,
}

impl LogRecord {
    /// The order of a merged listing.
    pub fn order(&self) -> (i64, bool, u64, i64) {
        (self.time_ms, self.is_decision, self.index, self.position)
    }
}

/// A stretch of the log and how to read it.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// First leaf index.
    pub from: u64,
    /// Leaf index behind the last.
    pub to: u64,
    /// Go on behind this record.
    pub after: Option<&'a LogRecord>,
    /// Most records.
    pub limit: u32,
    /// From the newest back.
    pub is_newest_first: bool,
}

impl Store {
    /// Leaves that meet the filter.
    pub async fn leaves_page(
        &self,
        filter: &LogFilter,
        page: Page<'_>,
    ) -> Result<Vec<LogRecord>, StoreError> {
        let statement = if page.is_newest_first {
            statements::LEAVES_PAGE_BACK
        } else {
            statements::LEAVES_PAGE
        };
        let from = match (page.after, filter.since_ms) {
            (Some(after), _) => after.index.saturating_add(1),
            (None, Some(since)) => page.from.max(self.first_leaf_since(since).await?),
            (None, None) => page.from,
        };
        let (kind, prefix) = filter.kinds();
        let rows = sqlx::query(statement)
            .bind(to_i64(from))
            .bind(to_i64(page.to))
            .bind(filter.since_ms.unwrap_or(i64::MIN))
            .bind(filter.until_ms.unwrap_or(i64::MAX))
            .bind(kind)
            .bind(prefix)
            .bind(&filter.actor)
            .bind(&filter.spiffe_id)
            .bind(&filter.agent_id)
            .bind(&filter.serial)
            .bind(&filter.jti)
            .bind(i64::from(page.limit))
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(leaf_record).collect()
    }

    async fn first_leaf_since(&self, since_ms: i64) -> Result<u64, StoreError> {
        let row = sqlx::query(statements::LEAVES_FIRST_SINCE)
            .bind(since_ms)
            .fetch_one(self.readers())
            .await?;
        let index: Option<i64> = row.try_get(0)?;
        Ok(index.map_or(u64::MAX, |index| u64::try_from(index).unwrap_or(0)))
    }

    /// Decisions that meet the filter, by time.
    pub async fn decisions_page(
        &self,
        filter: &LogFilter,
        page: Page<'_>,
    ) -> Result<Vec<LogRecord>, StoreError> {
        let statement = if page.is_newest_first {
            statements::DECISIONS_PAGE_BACK
        } else {
            statements::DECISIONS_PAGE
        };
        let (time, index, position) = page.after.map_or((i64::MIN, -1, -1), |after| {
            (after.time_ms, to_i64(after.index), after.position)
        });
        let (kind, prefix) = filter.kinds();
        let rows = sqlx::query(statement)
            .bind(to_i64(page.from))
            .bind(to_i64(page.to))
            .bind(filter.since_ms.unwrap_or(i64::MIN))
            .bind(filter.until_ms.unwrap_or(i64::MAX))
            .bind(time)
            .bind(index)
            .bind(position)
            .bind(kind)
            .bind(prefix)
            .bind(&filter.spiffe_id)
            .bind(&filter.peer)
            .bind(&filter.policy)
            .bind(filter.rule.map_or(-1, i64::from))
            .bind(filter.is_allowed.map_or(-1, i64::from))
            .bind(&filter.serial)
            .bind(&filter.jti)
            .bind(&filter.agent_id)
            .bind(i64::from(page.limit))
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(decision_record).collect()
    }
}

fn leaf_record(row: &SqliteRow) -> Result<LogRecord, StoreError> {
    Ok(LogRecord {
        is_decision: false,
        index: u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0),
        position: 0,
        time_ms: row.try_get(1)?,
        kind: row.try_get(2)?,
        json: row.try_get(3)?,
    })
}

fn decision_record(row: &SqliteRow) -> Result<LogRecord, StoreError> {
    Ok(LogRecord {
        is_decision: true,
        index: u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0),
        position: row.try_get(1)?,
        time_ms: row.try_get(2)?,
        kind: row.try_get(3)?,
        json: row.try_get(4)?,
    })
}
