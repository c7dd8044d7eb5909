//! Which SVIDs to ask the CA for, and when to look again: the issuance plan over the cache.

use std::sync::Arc;

use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::time::Timestamp;

use super::{Cache, Slot};
use crate::limits;
use crate::renewal::{self, Reason, Renewal};

/// One SVID to ask for.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    /// For this entry.
    pub entry: Arc<RegistrationEntry>,
    /// Why.
    pub reason: Reason,
}

/// What to ask for now, the most urgent first, and when to look again.
#[derive(Debug, Clone, Default)]
pub(crate) struct IssuePlan {
    /// Ask for these.
    pub due: Vec<Due>,
    /// Next moment at which something becomes due; `None` when only a change can do that.
    pub wake_at: Option<Timestamp>,
}

impl Cache {
    /// The plan at `now`: only identities that a process here uses or used lately.
    pub(crate) fn issue_plan(&self, now: Timestamp) -> IssuePlan {
        let mut plan = IssuePlan::default();
        for slot in self.slots.values().filter(|slot| is_wanted(slot, now)) {
            match self.renewal_of(slot, now) {
                Renewal::Now(reason) => plan.due.push(Due {
                    entry: Arc::clone(&slot.entry),
                    reason,
                }),
                Renewal::At(at) => plan.wake_at = Some(earliest(plan.wake_at, at)),
            }
        }
        plan.due.sort_by_key(|due| due.reason);
        plan
    }

    fn renewal_of(&self, slot: &Slot, now: Timestamp) -> Renewal {
        let wanted = match &slot.svid {
            None => Renewal::Now(Reason::Missing),
            Some(svid) => match renewal::plan(&svid.tracked(), &self.authorities, now) {
                Renewal::At(_) if svid.entry_revision != slot.entry.revision => {
                    Renewal::Now(Reason::EntryChanged)
                }
                renewal @ (Renewal::Now(_) | Renewal::At(_)) => renewal,
            },
        };
        match (&slot.failure, wanted) {
            (Some(failure), Renewal::Now(_)) if now < failure.retry_at => {
                Renewal::At(failure.retry_at)
            }
            _ => wanted,
        }
    }
}

fn is_wanted(slot: &Slot, now: Timestamp) -> bool {
    !slot.subscribers.is_empty()
        || slot
            .used_at
            .is_some_and(|used_at| now.since(used_at) < limits::UNUSED_MAX)
}

fn earliest(known: Option<Timestamp>, at: Timestamp) -> Timestamp {
    known.map_or(at, |known| known.min(at))
}
