//! What the agent knows, as a pure state machine: entries, SVIDs, bundles, subscribers.
//!
//! Every change returns the subscribers whose view it may have changed; the shell wakes them.
//! Time is an argument. A naive model in the tests says the same by looking at everything.

mod denied;
mod jwt;
mod plan;
mod svid;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ravelin_proto::bundle::{Bundle, x509_authority_id};
use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::pb::ravelin::v1::Denylist;
use ravelin_proto::selector::{Selector, is_subset};
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_proto::time::Timestamp;

pub(crate) use denied::{is_denied, is_token_denied};
pub(crate) use jwt::{JwtCache, JwtKey, JwtToken};
pub(crate) use plan::Due;
pub(crate) use svid::{SvidError, X509Svid};
pub(crate) use view::{Identity, WorkloadView};

use crate::renewal::Authorities;

/// Names one open stream.
pub(crate) type SubscriberId = u64;

/// What one message of the sync stream changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Delta {
    /// Revision after it.
    pub revision: u64,
    /// Forget all entries first.
    pub is_snapshot: bool,
    /// New or changed entries.
    pub upserted: Vec<RegistrationEntry>,
    /// Ids of entries that are gone.
    pub removed: Vec<String>,
    /// The own bundle, when changed.
    pub bundle: Option<Bundle>,
    /// Foreign bundles, when changed.
    pub federated: Vec<Bundle>,
    /// The deny-list, when changed.
    pub denylist: Option<Denylist>,
    /// Active authorities, when changed: X.509, JWT, reissue, bound.
    pub authorities: Option<AuthorityChange>,
}

/// Which authorities sign now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AuthorityChange {
    /// Subject key id.
    pub active_x509: String,
    /// Key id.
    pub active_jwt: String,
    /// Replace what another authority signed.
    pub is_reissue: bool,
    /// SVIDs per second; 0 means no bound.
    pub reissue_per_sec_max: u32,
}

/// Why a delta is not taken into use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeltaRefusal {
    /// More entries than the agent keeps.
    #[error("more than {} entries for this agent", crate::limits::ENTRIES_MAX)]
    TooManyEntries,
    /// A bundle of another trust domain as the own one.
    #[error("the bundle is of `{got}`, this agent is of `{want}`")]
    OtherTrustDomain {
        /// Ours.
        want: TrustDomain,
        /// Theirs.
        got: TrustDomain,
    },
    /// A bundle from before the one held: authorities that are gone would be trusted again.
    #[error("bundle {got} is older than bundle {held}, which is held")]
    OlderBundle {
        /// Sequence of the one held.
        held: u64,
        /// Sequence of the one that came.
        got: u64,
    },
}

#[derive(Debug, Clone)]
struct Slot {
    entry: Arc<RegistrationEntry>,
    svid: Option<Arc<X509Svid>>,
    subscribers: BTreeSet<SubscriberId>,
    used_at: Option<Timestamp>,
    failure: Option<Failure>,
}

#[derive(Debug, Clone)]
struct Failure {
    message: String,
    count: u32,
    retry_at: Timestamp,
}

/// The pure core of the agent.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    trust_domain: TrustDomain,
    revision: u64,
    slots: BTreeMap<String, Slot>,
    /// Each entry under its first selector: the candidates of a process are found by its own.
    by_selector: BTreeMap<Selector, BTreeSet<String>>,
    bundle: Option<Arc<Bundle>>,
    /// Least sequence of the next bundle.
    bundle_least: u64,
    federated: BTreeMap<TrustDomain, Arc<Bundle>>,
    denylist: Arc<Denylist>,
    authorities: Authorities,
    subscribers: BTreeMap<SubscriberId, BTreeSet<Selector>>,
    next_subscriber: SubscriberId,
}

impl Cache {
    /// An empty cache of one trust domain.
    pub(crate) fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            revision: 0,
            slots: BTreeMap::new(),
            by_selector: BTreeMap::new(),
            bundle: None,
            bundle_least: 0,
            federated: BTreeMap::new(),
            denylist: Arc::new(Denylist::default()),
            authorities: Authorities::default(),
            subscribers: BTreeMap::new(),
            next_subscriber: 0,
        }
    }

    /// Takes a message of the CA (or the stored snapshot) into use. Returns whom it concerns.
    pub(crate) fn apply(
        &mut self,
        delta: Delta,
        now: Timestamp,
    ) -> Result<BTreeSet<SubscriberId>, DeltaRefusal> {
        self.check(&delta)?;
        let mut touched = BTreeSet::new();
        let mut gone: BTreeSet<String> = delta.removed.into_iter().collect();
        if delta.is_snapshot {
            let kept: BTreeSet<&String> = delta.upserted.iter().map(|entry| &entry.id).collect();
            gone.extend(self.slots.keys().filter(|id| !kept.contains(id)).cloned());
        }
        for id in gone {
            touched.extend(self.remove_entry(&id));
        }
        for entry in delta.upserted {
            touched.extend(self.upsert_entry(entry, now));
        }
        let is_bundle_change = delta.bundle.is_some() || !delta.federated.is_empty();
        if let Some(bundle) = delta.bundle {
            self.bundle_least = bundle.sequence;
            self.bundle = Some(Arc::new(bundle));
        }
        for bundle in delta.federated {
            self.federated
                .insert(bundle.trust_domain.clone(), Arc::new(bundle));
        }
        if let Some(change) = delta.authorities {
            self.authorities.active_x509 = change.active_x509;
            self.authorities.active_jwt = change.active_jwt;
            self.authorities.is_reissue = change.is_reissue;
            self.authorities.reissue_per_sec_max = change.reissue_per_sec_max;
        }
        self.authorities.trusted_x509 = self.bundle.as_deref().map(trusted_ids).unwrap_or_default();
        if let Some(denylist) = delta.denylist
            && denylist.number >= self.denylist.number
        {
            self.denylist = Arc::new(denylist);
            touched.extend(self.drop_denied());
        }
        if is_bundle_change {
            touched.extend(self.subscribers.keys().copied());
        }
        self.revision = delta.revision;
        Ok(touched)
    }

    fn check(&self, delta: &Delta) -> Result<(), DeltaRefusal> {
        let held = if delta.is_snapshot {
            0
        } else {
            self.slots.len()
        };
        if held.saturating_add(delta.upserted.len()) > crate::limits::ENTRIES_MAX {
            return Err(DeltaRefusal::TooManyEntries);
        }
        match &delta.bundle {
            Some(bundle) if bundle.trust_domain != self.trust_domain => {
                Err(DeltaRefusal::OtherTrustDomain {
                    want: self.trust_domain.clone(),
                    got: bundle.trust_domain.clone(),
                })
            }
            Some(bundle) if bundle.sequence < self.bundle_least => Err(DeltaRefusal::OlderBundle {
                held: self.bundle_least,
                got: bundle.sequence,
            }),
            _ => Ok(()),
        }
    }

    /// The node attested anew, by the trust that its operator gave it: the next bundle may be of any sequence.
    pub(crate) fn trust_anew(&mut self) {
        self.bundle_least = 0;
    }

    fn remove_entry(&mut self, id: &str) -> BTreeSet<SubscriberId> {
        let Some(slot) = self.slots.remove(id) else {
            return BTreeSet::new();
        };
        if let Some(first) = slot.entry.selectors.first()
            && let Some(ids) = self.by_selector.get_mut(first)
        {
            ids.remove(id);
            if ids.is_empty() {
                self.by_selector.remove(first);
            }
        }
        slot.subscribers
    }

    fn upsert_entry(&mut self, entry: RegistrationEntry, now: Timestamp) -> BTreeSet<SubscriberId> {
        let old = self.slots.get(&entry.id).cloned();
        let mut touched = self.remove_entry(&entry.id);
        let matching: BTreeSet<SubscriberId> = self
            .subscribers
            .iter()
            .filter(|(_, selectors)| is_served(&entry, selectors))
            .map(|(id, _)| *id)
            .collect();
        touched.extend(&matching);
        // An SVID for another identity than the entry's is never handed out again.
        let svid = old
            .as_ref()
            .and_then(|slot| slot.svid.clone())
            .filter(|svid| svid.spiffe_id == entry.spiffe_id);
        if let Some(first) = entry.selectors.first() {
            self.by_selector
                .entry(first.clone())
                .or_default()
                .insert(entry.id.clone());
        }
        let used_at = if matching.is_empty() {
            old.and_then(|slot| slot.used_at)
        } else {
            Some(now)
        };
        self.slots.insert(
            entry.id.clone(),
            Slot {
                entry: Arc::new(entry),
                svid,
                subscribers: matching,
                used_at,
                failure: None,
            },
        );
        touched
    }

    fn drop_denied(&mut self) -> BTreeSet<SubscriberId> {
        let mut touched = BTreeSet::new();
        let denylist = Arc::clone(&self.denylist);
        for slot in self.slots.values_mut() {
            if slot
                .svid
                .as_ref()
                .is_some_and(|svid| is_denied(&denylist, svid))
            {
                slot.svid = None;
                touched.extend(&slot.subscribers);
            }
        }
        touched
    }

    /// Opens a subscription for a process with these selectors; its identities count as used.
    pub(crate) fn subscribe(
        &mut self,
        selectors: BTreeSet<Selector>,
        now: Timestamp,
    ) -> SubscriberId {
        self.next_subscriber = self.next_subscriber.wrapping_add(1);
        let subscriber = self.next_subscriber;
        for id in self.matching_ids(&selectors) {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.subscribers.insert(subscriber);
                slot.used_at = Some(now);
            }
        }
        self.subscribers.insert(subscriber, selectors);
        subscriber
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(&mut self, subscriber: SubscriberId, now: Timestamp) {
        let Some(selectors) = self.subscribers.remove(&subscriber) else {
            return;
        };
        for id in self.matching_ids(&selectors) {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.subscribers.remove(&subscriber);
                slot.used_at = Some(now);
            }
        }
    }

    /// Keeps a new SVID; `None` when the entry is gone or means another identity by now.
    pub(crate) fn store_svid(
        &mut self,
        entry_id: &str,
        svid: X509Svid,
    ) -> Option<BTreeSet<SubscriberId>> {
        let slot = self.slots.get_mut(entry_id)?;
        if slot.entry.spiffe_id != svid.spiffe_id || is_denied(&self.denylist, &svid) {
            return None;
        }
        slot.svid = Some(Arc::new(svid));
        slot.failure = None;
        Some(slot.subscribers.clone())
    }

    /// Takes an SVID back from disk; it counts as used from then.
    pub(crate) fn restore_svid(&mut self, entry_id: &str, svid: X509Svid) {
        let used_at = svid.issued_at;
        if self.store_svid(entry_id, svid).is_some()
            && let Some(slot) = self.slots.get_mut(entry_id)
        {
            slot.used_at = Some(used_at);
        }
    }

    /// The CA (or the way to it) did not give an SVID for this entry: try again at `retry_at`.
    pub(crate) fn note_failure(
        &mut self,
        entry_id: &str,
        message: &str,
        pause: impl Fn(u32) -> std::time::Duration,
        now: Timestamp,
    ) -> BTreeSet<SubscriberId> {
        let Some(slot) = self.slots.get_mut(entry_id) else {
            return BTreeSet::new();
        };
        let count = slot.failure.as_ref().map_or(0, |failure| failure.count);
        slot.failure = Some(Failure {
            message: message.to_owned(),
            count: count.saturating_add(1),
            retry_at: now.plus(pause(count)),
        });
        slot.subscribers.clone()
    }

    /// Forgets pauses: the way to the CA is open again.
    pub(crate) fn clear_failures(&mut self) {
        for slot in self.slots.values_mut() {
            slot.failure = None;
        }
    }

    /// Drops SVIDs that have expired; `None` when there was none.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Option<BTreeSet<SubscriberId>> {
        let mut touched = None;
        for slot in self.slots.values_mut() {
            if slot.svid.as_ref().is_some_and(|svid| !svid.is_live(now)) {
                slot.svid = None;
                touched
                    .get_or_insert_with(BTreeSet::new)
                    .extend(&slot.subscribers);
            }
        }
        touched
    }

    fn matching_ids(&self, selectors: &BTreeSet<Selector>) -> Vec<String> {
        selectors
            .iter()
            .filter_map(|selector| self.by_selector.get(selector))
            .flatten()
            .filter(|id| {
                self.slots
                    .get(*id)
                    .is_some_and(|slot| is_served(&slot.entry, selectors))
            })
            .cloned()
            .collect()
    }

    /// Last change-log revision.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The own trust bundle, once known.
    pub(crate) fn bundle(&self) -> Option<Arc<Bundle>> {
        self.bundle.clone()
    }

    /// Foreign bundles.
    pub(crate) fn federated(&self) -> &BTreeMap<TrustDomain, Arc<Bundle>> {
        &self.federated
    }

    /// Sequence number of the own bundle; 0 without one.
    pub(crate) fn bundle_sequence(&self) -> u64 {
        self.bundle.as_ref().map_or(0, |bundle| bundle.sequence)
    }

    /// The deny-list.
    pub(crate) fn denylist(&self) -> Arc<Denylist> {
        Arc::clone(&self.denylist)
    }

    /// What is known of the authorities.
    pub(crate) fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// Every entry.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<RegistrationEntry>> {
        self.slots.values().map(|slot| &slot.entry)
    }

    /// Every SVID with its entry's id.
    pub(crate) fn svids(&self) -> impl Iterator<Item = (&String, &Arc<X509Svid>)> {
        self.slots
            .iter()
            .filter_map(|(id, slot)| slot.svid.as_ref().map(|svid| (id, svid)))
    }

    /// Live SVIDs per authority.
    pub(crate) fn svids_by_authority(&self, now: Timestamp) -> BTreeMap<String, u32> {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for (_, svid) in self.svids().filter(|(_, svid)| svid.is_live(now)) {
            let count = counts.entry(svid.authority_id.clone()).or_default();
            *count = count.saturating_add(1);
        }
        counts
    }

    /// True when an entry asks for the hash of an executable, which is dear to compute.
    pub(crate) fn needs_hashes(&self) -> bool {
        self.entries().any(|entry| {
            entry.selectors.iter().any(|selector| {
                selector.kind() == "unix" && selector.value().starts_with("sha256:")
            })
        })
    }
}

/// True when the process may have this identity; one that is kept for a store is not served.
fn is_served(entry: &RegistrationEntry, selectors: &BTreeSet<Selector>) -> bool {
    !entry.store_svid && is_subset(&entry.selectors, selectors)
}

/// Subject key ids of the X.509 authorities that may still be trusted.
fn trusted_ids(bundle: &Bundle) -> BTreeSet<String> {
    bundle
        .x509_authorities
        .iter()
        .filter(|authority| !authority.is_tainted)
        .filter_map(|authority| x509_authority_id(&authority.der))
        .collect()
}
