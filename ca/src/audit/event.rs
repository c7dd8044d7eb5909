//! One event of the audit log, and the leaf that it becomes.

use ravelin_proto::time::Timestamp;
use serde_json::{Map, Value};

use super::canonical::to_canonical;

/// What happened, who did it, and the facts.
///
/// These fields can be queried by name: `spiffe_id`, `agent_id`, `serial`, `jti`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// A stable word such as `svid.issued`.
    pub kind: &'static str,
    /// A SPIFFE ID, `uid:1000` of a local administrator, or `ca` for the CA itself.
    pub actor: String,
    /// Facts; never a key, a token or another secret.
    pub fields: Map<String, Value>,
}

impl Event {
    /// An event without facts.
    pub fn new(kind: &'static str, actor: impl Into<String>) -> Self {
        Self {
            kind,
            actor: actor.into(),
            fields: Map::new(),
        }
    }

    /// The same with one more fact.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }
}

/// The place of an event in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// From 0, without gaps.
    pub index: u64,
    /// RFC 6962 leaf hash of the canonical JSON.
    pub hash: [u8; 32],
}

/// A leaf with all its columns, on its way into the store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StagedLeaf {
    pub(crate) index: u64,
    pub(crate) hash: [u8; 32],
    pub(crate) json: String,
    pub(crate) columns: Columns,
}

impl StagedLeaf {
    pub(crate) fn leaf(&self) -> Leaf {
        Leaf {
            index: self.index,
            hash: self.hash,
        }
    }
}

/// What queries filter by, drawn from the canonical JSON and from nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Columns {
    pub(crate) time_ms: i64,
    pub(crate) kind: String,
    pub(crate) actor: String,
    pub(crate) spiffe_id: String,
    pub(crate) agent_id: String,
    pub(crate) serial: String,
    pub(crate) jti: String,
}

/// The canonical JSON of an event at its place in the log.
pub(crate) fn leaf_json(index: u64, time: Timestamp, event: &Event) -> String {
    let mut object = Map::new();
    object.insert("index".to_owned(), index.into());
    object.insert("time_ms".to_owned(), time.unix_millis().into());
    object.insert("kind".to_owned(), event.kind.into());
    object.insert("actor".to_owned(), event.actor.clone().into());
    object.insert("fields".to_owned(), Value::Object(event.fields.clone()));
    to_canonical(&Value::Object(object))
}

impl Columns {
    /// The columns that belong to a leaf's parsed JSON.
    pub(crate) fn of(leaf: &Value) -> Self {
        let text =
            |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let field = |name: &str| text(leaf.get("fields").and_then(|fields| fields.get(name)));
        Self {
            time_ms: leaf.get("time_ms").and_then(Value::as_i64).unwrap_or(0),
            kind: text(leaf.get("kind")),
            actor: text(leaf.get("actor")),
            spiffe_id: field("spiffe_id"),
            agent_id: field("agent_id"),
            serial: field("serial"),
            jti: field("jti"),
        }
    }
}
