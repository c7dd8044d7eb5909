//! What each live agent and its proxies have taken into use, and waiting for it.
//!
//! An agent is live while its `Sync` stream is open, and for [`AGENT_LOST`] after it broke.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ravelin_proto::pb::ravelin::v1::{ProxyAck, sync_request::Ack};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::clock::SharedClock;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::limits::{AGENT_LOST, LIVENESS_CHECK};

/// The last acknowledgement of one agent; zeros before its first.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentAck {
    /// The agent's SPIFFE ID.
    pub agent_id: SpiffeId,
    /// True while its stream is open.
    pub is_connected: bool,
    /// When the stream broke.
    pub lost_at: Option<Timestamp>,
    /// Change-log revision in use.
    pub revision: u64,
    /// Bundle sequence in use by the agent and every proxy on it.
    pub bundle_sequence: u64,
    /// Deny-list number in use by the agent and every proxy on it.
    pub denylist_number: u64,
    /// Mesh revision in use by the agent and every proxy on it.
    pub mesh_revision: u64,
    /// Live X509-SVIDs by authority (subject key id, lower-case hex).
    pub x509_svids_by_authority: BTreeMap<String, u32>,
    /// Cached JWT-SVIDs by key id.
    pub jwt_svids_by_authority: BTreeMap<String, u32>,
    /// One a proxy.
    pub proxies: Vec<ProxyAck>,
    /// Why the last revision was not taken; empty when it was.
    pub refusal: String,
    /// When the last acknowledgement came; `None` before the first.
    pub acknowledged_at: Option<Timestamp>,
    /// The version that the agent reported.
    pub version: String,
    stream: u64,
}

impl AgentAck {
    fn connected(agent_id: SpiffeId, stream: u64, version: String) -> Self {
        Self {
            agent_id,
            is_connected: true,
            lost_at: None,
            revision: 0,
            bundle_sequence: 0,
            denylist_number: 0,
            mesh_revision: 0,
            x509_svids_by_authority: BTreeMap::new(),
            jwt_svids_by_authority: BTreeMap::new(),
            proxies: Vec::new(),
            refusal: String::new(),
            acknowledged_at: None,
            version,
            stream,
        }
    }

    fn is_live(&self, now: Timestamp) -> bool {
        self.is_connected
            || self
                .lost_at
                .is_some_and(|lost| now.since(lost) < AGENT_LOST)
    }
}

/// How many of the live agents meet a condition, and which do not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AckCount {
    /// Live agents that meet it.
    pub done: u32,
    /// Live agents.
    pub total: u32,
    /// SPIFFE IDs of the others.
    pub missing: Vec<String>,
}

/// Acknowledgements of all agents.
#[derive(Debug)]
pub struct AckTable {
    clock: SharedClock,
    agents: Mutex<Table>,
    ticks: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    by_agent: BTreeMap<SpiffeId, AgentAck>,
    open: BTreeMap<SpiffeId, CancellationToken>,
    streams: u64,
}

/// Names one stream: an older stream's end must not disconnect its successor.
#[derive(Debug, Clone)]
pub struct StreamId {
    agent_id: SpiffeId,
    number: u64,
    replaced: CancellationToken,
}

impl StreamId {
    /// Returns once a newer stream of the same agent has taken over.
    pub async fn replaced(&self) {
        self.replaced.cancelled().await;
    }
}

impl AckTable {
    /// An empty table.
    pub fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            agents: Mutex::default(),
            ticks: watch::Sender::new(0),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is whole between any two statements, so a panic elsewhere did not break it.
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        self.ticks.send_modify(|tick| *tick = tick.wrapping_add(1));
    }

    /// An agent opened its stream. What it had acknowledged counts again once it says so.
    pub fn connect(&self, agent_id: &SpiffeId, version: &str) -> StreamId {
        let replaced = CancellationToken::new();
        let number = {
            let mut table = self.table();
            if let Some(older) = table.open.insert(agent_id.clone(), replaced.clone()) {
                older.cancel();
            }
            table.streams = table.streams.wrapping_add(1);
            let number = table.streams;
            let ack = AgentAck::connected(agent_id.clone(), number, version.to_owned());
            table.by_agent.insert(agent_id.clone(), ack);
            number
        };
        self.tick();
        StreamId {
            agent_id: agent_id.clone(),
            number,
            replaced,
        }
    }

    /// The stream ended. Ignored when a newer one took its place.
    pub fn disconnect(&self, stream: &StreamId) {
        let now = self.clock.now();
        {
            let mut table = self.table();
            if let Some(ack) = table.by_agent.get_mut(&stream.agent_id)
                && ack.stream == stream.number
            {
                ack.is_connected = false;
                ack.lost_at = Some(now);
                table.open.remove(&stream.agent_id);
            }
        }
        self.tick();
    }

    /// An agent acknowledged. Ignored when the stream is no longer its newest.
    pub fn record(&self, stream: &StreamId, ack: Ack) {
        let now = self.clock.now();
        if let Some(known) = self.table().by_agent.get_mut(&stream.agent_id)
            && known.stream == stream.number
        {
            known.revision = ack.revision;
            known.bundle_sequence = ack.bundle_sequence;
            known.denylist_number = ack.denylist_number;
            known.mesh_revision = ack.mesh_revision;
            known.x509_svids_by_authority = ack.x509_svids_by_authority.into_iter().collect();
            known.jwt_svids_by_authority = ack.jwt_svids_by_authority.into_iter().collect();
            known.proxies = ack.proxies;
            known.refusal = ack.refusal;
            known.acknowledged_at = Some(now);
        }
        self.tick();
    }

    /// A banned or evicted agent counts no longer.
    pub fn forget(&self, agent_id: &SpiffeId) {
        {
            let mut table = self.table();
            table.by_agent.remove(agent_id);
            table.open.remove(agent_id);
        }
        self.tick();
    }

    /// Live agents, by SPIFFE ID.
    pub fn live_agents(&self) -> Vec<AgentAck> {
        let now = self.clock.now();
        self.table()
            .by_agent
            .values()
            .filter(|ack| ack.is_live(now))
            .cloned()
            .collect()
    }

    /// Counts live agents by a condition.
    pub fn count(&self, is_done: impl Fn(&AgentAck) -> bool) -> AckCount {
        let now = self.clock.now();
        let mut count = AckCount::default();
        for ack in self
            .table()
            .by_agent
            .values()
            .filter(|ack| ack.is_live(now))
        {
            count.total = count.total.saturating_add(1);
            if is_done(ack) {
                count.done = count.done.saturating_add(1);
            } else {
                count.missing.push(ack.agent_id.to_string());
            }
        }
        count
    }

    /// SPIFFE IDs of the live agents that do not meet a condition.
    pub fn missing(&self, is_done: impl Fn(&AgentAck) -> bool) -> Vec<String> {
        self.count(is_done).missing
    }

    /// Live X509-SVIDs that agents report for an authority.
    pub fn x509_svids_on(&self, authority_id: &str) -> u32 {
        self.sum(|ack| ack.x509_svids_by_authority.get(authority_id).copied())
    }

    /// Cached JWT-SVIDs that agents report for a key.
    pub fn jwt_svids_on(&self, key_id: &str) -> u32 {
        self.sum(|ack| ack.jwt_svids_by_authority.get(key_id).copied())
    }

    fn sum(&self, of: impl Fn(&AgentAck) -> Option<u32>) -> u32 {
        let now = self.clock.now();
        self.table()
            .by_agent
            .values()
            .filter(|ack| ack.is_live(now))
            .filter_map(of)
            .fold(0, u32::saturating_add)
    }

    /// Ticks with each connection, loss and acknowledgement.
    pub fn ticks(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    /// Waits until every live agent meets a condition; `Err` with the count at the deadline.
    pub async fn wait_for(
        &self,
        is_done: impl Fn(&AgentAck) -> bool,
        deadline: Instant,
    ) -> Result<AckCount, AckCount> {
        let mut ticks = self.ticks();
        loop {
            ticks.mark_unchanged();
            let count = self.count(&is_done);
            if count.missing.is_empty() {
                return Ok(count);
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(count);
            }
            // WHY: an agent that is lost stops counting without a tick.
            let until = deadline.min(now + LIVENESS_CHECK);
            // An elapsed timeout only means to look again.
            let _ = timeout_at(until, ticks.changed()).await;
        }
    }
}
