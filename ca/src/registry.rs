//! The registry: entries and agents in memory, as one immutable snapshot per commit.
//!
//! Pure. Who may hand out which entry is decided here: an agent holds the entries below itself,
//! below the node aliases that its selectors match, and below those entries in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::selector::{Selector, is_subset};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;

use crate::store::Change;

/// What the registry knows of an attested agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredAgent {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// A banned agent gets nothing.
    pub is_banned: bool,
    /// Attested facts about the node.
    pub selectors: BTreeSet<Selector>,
    /// Serial number of its present X509-SVID, lower-case hex.
    pub serial: String,
    /// Serial number of the SVID before it, still good until the new one was seen; may be empty.
    pub serial_before: String,
    /// When its present SVID expires.
    pub expires_at: Timestamp,
    /// How it was attested, such as `join_token`.
    pub attestation_type: String,
    /// True when it may attest again without an operator.
    pub can_reattest: bool,
    /// The version that it reported; empty when it has not.
    pub version: String,
}

/// Entries and agents as of one commit.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    revision: u64,
    // WHY: shared between snapshots, so that a commit copies only the maps that it changes: an
    // agent's renewal does not copy the entries.
    entries: Arc<BTreeMap<String, Arc<RegistrationEntry>>>,
    by_parent: Arc<BTreeMap<SpiffeId, BTreeSet<String>>>,
    by_spiffe_id: Arc<BTreeMap<SpiffeId, BTreeSet<String>>>,
    agents: Arc<BTreeMap<SpiffeId, Arc<RegisteredAgent>>>,
}

/// The path of the ID that parents node aliases.
pub const SERVER_PATH: &str = "/spire/server";

impl Snapshot {
    /// A snapshot of these entries.
    pub fn of_entries(revision: u64, entries: Vec<RegistrationEntry>) -> Self {
        let mut snapshot = Self {
            revision,
            ..Self::default()
        };
        for entry in entries {
            snapshot.insert(Arc::new(entry));
        }
        snapshot
    }

    /// The change-log revision that this snapshot holds.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// An entry by its id.
    pub fn entry(&self, id: &str) -> Option<&Arc<RegistrationEntry>> {
        self.entries.get(id)
    }

    /// Every entry, by id.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<RegistrationEntry>> {
        self.entries.values()
    }

    /// Entries whose id is greater than `after`, by id: one page after another.
    pub fn entries_after<'s>(
        &'s self,
        after: &str,
    ) -> impl Iterator<Item = &'s Arc<RegistrationEntry>> + use<'s> {
        self.entries
            .range::<str, _>((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded))
            .map(|(_, entry)| entry)
    }

    /// How many entries there are.
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Entries directly below a parent.
    pub fn entries_by_parent(&self, parent: &SpiffeId) -> Vec<Arc<RegistrationEntry>> {
        self.collect(self.by_parent.get(parent))
    }

    /// Entries that give an identity.
    pub fn entries_by_spiffe_id(&self, id: &SpiffeId) -> Vec<Arc<RegistrationEntry>> {
        self.collect(self.by_spiffe_id.get(id))
    }

    fn collect(&self, ids: Option<&BTreeSet<String>>) -> Vec<Arc<RegistrationEntry>> {
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.entries.get(id).cloned())
            .collect()
    }

    /// True when an entry hangs below this ID.
    pub fn is_parent(&self, id: &SpiffeId) -> bool {
        self.by_parent.contains_key(id)
    }

    /// True when the entry decides about other entries: a node alias, or a parent.
    pub fn is_structural(&self, entry: &RegistrationEntry) -> bool {
        entry.parent_id.path() == SERVER_PATH || self.is_parent(&entry.spiffe_id)
    }

    /// An agent by its SPIFFE ID.
    pub fn agent(&self, id: &SpiffeId) -> Option<&Arc<RegisteredAgent>> {
        self.agents.get(id)
    }

    /// Every agent, by SPIFFE ID.
    pub fn agents(&self) -> impl Iterator<Item = &Arc<RegisteredAgent>> {
        self.agents.values()
    }

    /// The IDs whose entries the agent may hand out: itself, its aliases and the identities below.
    /// Empty for an agent that is unknown or banned.
    pub fn parents_of_agent(&self, agent_id: &SpiffeId) -> BTreeSet<SpiffeId> {
        self.walk(agent_id).0
    }

    /// Entries that an agent may hand out, by id. Aliases themselves are not among them.
    pub fn authorized_entries(
        &self,
        agent_id: &SpiffeId,
    ) -> BTreeMap<String, Arc<RegistrationEntry>> {
        self.walk(agent_id).1
    }

    /// True when the agent may hand out this entry.
    pub fn is_authorized(&self, agent_id: &SpiffeId, entry_id: &str) -> bool {
        self.entries
            .get(entry_id)
            .is_some_and(|entry| self.parents_of_agent(agent_id).contains(&entry.parent_id))
    }

    fn walk(
        &self,
        agent_id: &SpiffeId,
    ) -> (BTreeSet<SpiffeId>, BTreeMap<String, Arc<RegistrationEntry>>) {
        let mut parents = BTreeSet::new();
        let mut found = BTreeMap::new();
        let Some(agent) = self.agents.get(agent_id).filter(|agent| !agent.is_banned) else {
            return (parents, found);
        };
        let mut open = vec![agent.id.clone()];
        open.extend(self.aliases_of(agent).map(|alias| alias.spiffe_id.clone()));
        while let Some(parent) = open.pop() {
            if !parents.insert(parent.clone()) {
                continue;
            }
            for entry in self.entries_by_parent(&parent) {
                open.push(entry.spiffe_id.clone());
                found.insert(entry.id.clone(), entry);
            }
        }
        (parents, found)
    }

    fn aliases_of<'s>(
        &'s self,
        agent: &'s RegisteredAgent,
    ) -> impl Iterator<Item = &'s Arc<RegistrationEntry>> {
        SpiffeId::new(&agent.id.trust_domain(), SERVER_PATH)
            .ok()
            .and_then(|server| self.by_parent.get(&server))
            .into_iter()
            .flatten()
            .filter_map(|id| self.entries.get(id))
            .filter(|alias| is_subset(&alias.selectors, &agent.selectors))
    }

    fn insert(&mut self, entry: Arc<RegistrationEntry>) {
        self.remove(&entry.id);
        Arc::make_mut(&mut self.by_parent)
            .entry(entry.parent_id.clone())
            .or_default()
            .insert(entry.id.clone());
        Arc::make_mut(&mut self.by_spiffe_id)
            .entry(entry.spiffe_id.clone())
            .or_default()
            .insert(entry.id.clone());
        Arc::make_mut(&mut self.entries).insert(entry.id.clone(), entry);
    }

    fn remove(&mut self, id: &str) {
        let Some(entry) = self.entries.get(id).cloned() else {
            return;
        };
        Arc::make_mut(&mut self.entries).remove(id);
        unlink(Arc::make_mut(&mut self.by_parent), &entry.parent_id, id);
        unlink(Arc::make_mut(&mut self.by_spiffe_id), &entry.spiffe_id, id);
    }

    pub(crate) fn replace_agents(&mut self, agents: Vec<RegisteredAgent>) {
        let agents = agents
            .into_iter()
            .map(|agent| (agent.id.clone(), Arc::new(agent)));
        self.agents = Arc::new(agents.collect());
    }

    pub(crate) fn apply(&mut self, revision: u64, change: &Change) {
        self.revision = revision;
        match change {
            Change::EntryUpserted(entry) => self.insert(Arc::clone(entry)),
            Change::EntryRemoved { id } => self.remove(id),
            Change::AgentUpserted(agent) => {
                Arc::make_mut(&mut self.agents).insert(agent.id.clone(), Arc::clone(agent));
            }
            Change::AgentRemoved(id) => {
                Arc::make_mut(&mut self.agents).remove(id);
            }
            Change::DeniedAdded(_) | Change::DeniedRemoved(_) | Change::Mesh(_) => {}
        }
    }
}

fn unlink(index: &mut BTreeMap<SpiffeId, BTreeSet<String>>, key: &SpiffeId, id: &str) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
