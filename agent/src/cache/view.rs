//! What one process may see: its identities in their stable order, and the bundles that go with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ravelin_proto::bundle::Bundle;
use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::selector::Selector;
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_proto::time::Timestamp;

use super::{Cache, X509Svid};

/// One identity of a process.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The entry that gives it.
    pub entry: Arc<RegistrationEntry>,
    /// Its hint; empty when an older entry of the same process has that hint.
    pub hint: String,
    /// The SVID, when there is a live one.
    pub svid: Option<Arc<X509Svid>>,
    /// Why the last attempt to get one failed.
    pub failure: Option<String>,
}

/// Everything that a process may see.
#[derive(Debug, Clone)]
pub(crate) struct WorkloadView {
    /// In order; the first is the default one.
    pub identities: Vec<Identity>,
    /// The own trust domain's bundle.
    pub bundle: Option<Arc<Bundle>>,
    /// Bundles of the trust domains that one of the entries federates with.
    pub federated: BTreeMap<TrustDomain, Arc<Bundle>>,
}

/// Whether an entry matches a process, and what is missing.
#[derive(Debug, Clone)]
pub(crate) struct EntryJudgement {
    /// The entry.
    pub entry: Arc<RegistrationEntry>,
    /// Selectors that the process lacks; empty for a match.
    pub missing: Vec<Selector>,
}

impl Cache {
    /// The view of a process with these selectors.
    pub(crate) fn view(&self, selectors: &BTreeSet<Selector>, now: Timestamp) -> WorkloadView {
        let mut slots: Vec<_> = self
            .matching_ids(selectors)
            .into_iter()
            .filter_map(|id| self.slots.get(&id))
            .collect();
        slots.sort_by(|a, b| order_key(&a.entry).cmp(&order_key(&b.entry)));
        let hints = oldest_hints(slots.iter().map(|slot| &*slot.entry));
        let federated = slots
            .iter()
            .flat_map(|slot| &slot.entry.federates_with)
            .filter_map(|td| Some((td.clone(), Arc::clone(self.federated.get(td)?))))
            .collect();
        let identities = slots
            .into_iter()
            .map(|slot| Identity {
                hint: hints
                    .get(slot.entry.hint.as_str())
                    .filter(|id| **id == slot.entry.id)
                    .map_or_else(String::new, |_| slot.entry.hint.clone()),
                entry: Arc::clone(&slot.entry),
                svid: slot.svid.clone().filter(|svid| svid.is_live(now)),
                failure: slot.failure.as_ref().map(|failure| failure.message.clone()),
            })
            .collect();
        WorkloadView {
            identities,
            bundle: self.bundle.clone(),
            federated,
        }
    }

    /// Every entry against these selectors: the matches first, then the nearest misses.
    pub(crate) fn judge(&self, selectors: &BTreeSet<Selector>) -> Vec<EntryJudgement> {
        let mut judged: Vec<EntryJudgement> = self
            .entries()
            .map(|entry| EntryJudgement {
                missing: entry
                    .selectors
                    .iter()
                    .filter(|selector| !selectors.contains(*selector))
                    .cloned()
                    .collect(),
                entry: Arc::clone(entry),
            })
            .collect();
        judged.sort_by(|a, b| {
            (a.missing.len(), order_key(&a.entry)).cmp(&(b.missing.len(), order_key(&b.entry)))
        });
        judged
    }
}

/// Identities that a launcher vouched for come first, then the most specific, then the oldest.
fn order_key(entry: &RegistrationEntry) -> (bool, usize, Timestamp, &str) {
    let is_launched = entry
        .selectors
        .iter()
        .any(|selector| selector.kind() == "launch" && selector.value().starts_with("name:"));
    (
        !is_launched,
        usize::MAX.saturating_sub(entry.selectors.len()),
        entry.created_at,
        &entry.id,
    )
}

/// The entry that keeps each hint: the oldest one.
fn oldest_hints<'a>(
    entries: impl Iterator<Item = &'a RegistrationEntry>,
) -> BTreeMap<&'a str, &'a str> {
    let mut oldest: BTreeMap<&str, &RegistrationEntry> = BTreeMap::new();
    for entry in entries.filter(|entry| !entry.hint.is_empty()) {
        let known = oldest.entry(&entry.hint).or_insert(entry);
        if (entry.created_at, &entry.id) < (known.created_at, &known.id) {
            *known = entry;
        }
    }
    oldest
        .into_iter()
        .map(|(hint, entry)| (hint, entry.id.as_str()))
        .collect()
}
