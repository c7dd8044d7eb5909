//! Sealed segments of the decision log: the records of an agent's proxies, digested into one leaf.

use ravelin_proto::pb::ravelin::v1::Decision;
use ravelin_proto::spiffe_id::SpiffeId;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::Row;

use super::writer::to_i64;
use super::{Store, StoreError, WriteTx, kinds, statements};
use crate::audit::Event;
use crate::audit::canonical::to_canonical;

/// A segment on its way into the store: canonical lines, checked against the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Unique per agent.
    pub segment_id: String,
    /// Canonical JSON, one a record.
    pub lines: Vec<String>,
    /// Records that the agent or its proxies lost before this segment.
    pub lost: u64,
}

/// What queries filter decisions by, drawn from the canonical JSON and from nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct DecisionColumns {
    pub(crate) time_ms: i64,
    pub(crate) workload: String,
    pub(crate) peer: String,
    pub(crate) policy: String,
    pub(crate) rule: i64,
    pub(crate) is_allowed: bool,
    pub(crate) code: String,
    pub(crate) serial: String,
    pub(crate) jti: String,
}

impl DecisionColumns {
    /// The columns that belong to a record's parsed JSON.
    pub(crate) fn of(record: &Value) -> Self {
        let text = |name: &str| {
            record
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let number = |name: &str| record.get(name).and_then(Value::as_i64).unwrap_or(0);
        Self {
            time_ms: number("time_ms"),
            workload: text("workload"),
            peer: text("peer"),
            policy: text("policy"),
            rule: number("rule"),
            is_allowed: record
                .get("is_allowed")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            code: text("code"),
            serial: text("peer_serial"),
            jti: text("jti"),
        }
    }
}

/// The columns that belong to a record's parsed JSON.
pub(crate) fn decision_columns(record: &Value) -> DecisionColumns {
    DecisionColumns::of(record)
}

/// The canonical JSON of one decision.
pub fn decision_json(decision: &Decision) -> String {
    let mut record = json!({
        "time_ms": decision.time_ms,
        "call_id": decision.call_id,
        "workload": decision.workload,
        "peer": decision.peer,
        "peer_serial": decision.peer_serial,
        "protocol": decision.protocol,
        "method": decision.method,
        "host": decision.host,
        "path": decision.path,
        "request_principal": decision.request_principal,
        "jti": decision.jti,
        "is_allowed": decision.is_allowed,
        "code": decision.code,
        "policy": decision.policy,
        "rule": decision.rule,
        "mesh_revision": decision.mesh_revision,
        "status": decision.status,
        "latency_us": decision.latency_us,
        "outcome": decision.outcome,
        "trace_id": decision.trace_id,
        "source_address": decision.source_address,
        "port": decision.port,
        "reason": decision.reason,
        "sni": decision.sni,
        "destination_address": decision.destination_address,
        "remote_address": decision.remote_address,
        "raw_path": decision.raw_path,
    });
    // WHY: written where they say something, so that the records of older proxies stay as they are.
    if let Value::Object(fields) = &mut record {
        if decision.is_audited {
            fields.insert("is_audited".to_owned(), Value::Bool(true));
        }
        if let Some(dry_run) = &decision.dry_run {
            let answer = json!({
                "is_allowed": dry_run.is_allowed,
                "code": dry_run.code,
                "policy": dry_run.policy,
                "rule": dry_run.rule,
            });
            fields.insert("dry_run".to_owned(), answer);
        }
    }
    to_canonical(&record)
}

/// The digest that the leaf carries: SHA-256 over the lines, joined by line feeds.
pub(crate) fn segment_digest(lines: &[String]) -> String {
    let mut hasher = Sha256::new();
    for (position, line) in lines.iter().enumerate() {
        if position > 0 {
            hasher.update(b"\n");
        }
        hasher.update(line.as_bytes());
    }
    hex::encode(hasher.finalize())
}

impl WriteTx {
    /// Stores a segment and its leaf; false when the agent had delivered it before.
    pub async fn seal_decisions(
        &mut self,
        segment: &Segment,
        agent_id: &SpiffeId,
    ) -> Result<bool, StoreError> {
        let known = sqlx::query(statements::SEGMENTS_GET)
            .bind(agent_id.as_str())
            .bind(&segment.segment_id)
            .fetch_optional(self.conn())
            .await?;
        if known.is_some() {
            return Ok(false);
        }
        let records = u64::try_from(segment.lines.len()).unwrap_or(u64::MAX);
        let leaf = self.audit(
            Event::new(kinds::DECISIONS_SEALED, agent_id.as_str())
                .with("segment_id", segment.segment_id.as_str())
                .with("agent_id", agent_id.as_str())
                .with("records", records)
                .with("lost", segment.lost)
                .with("digest", segment_digest(&segment.lines)),
        )?;
        sqlx::query(statements::SEGMENTS_INSERT)
            .bind(&segment.segment_id)
            .bind(agent_id.as_str())
            .bind(to_i64(leaf.index))
            .bind(to_i64(records))
            .bind(to_i64(segment.lost))
            .execute(self.conn())
            .await?;
        for (line, position) in segment.lines.iter().zip(0_i64..) {
            let record: Value =
                serde_json::from_str(line).map_err(|error| StoreError::Event(error.to_string()))?;
            let columns = DecisionColumns::of(&record);
            sqlx::query(statements::DECISIONS_INSERT)
                .bind(to_i64(leaf.index))
                .bind(position)
                .bind(columns.time_ms)
                .bind(columns.workload)
                .bind(columns.peer)
                .bind(columns.policy)
                .bind(columns.rule)
                .bind(columns.is_allowed)
                .bind(columns.code)
                .bind(columns.serial)
                .bind(columns.jti)
                .bind(line)
                .execute(self.conn())
                .await?;
        }
        Ok(true)
    }
}

impl Store {
    /// The lines of the segment whose leaf has this index, in order.
    pub async fn segment_lines(&self, leaf_index: u64) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(statements::DECISIONS_OF_LEAF)
            .bind(to_i64(leaf_index))
            .fetch_all(self.readers())
            .await?;
        rows.iter()
            .map(|row| row.try_get(0).map_err(StoreError::from))
            .collect()
    }
}
