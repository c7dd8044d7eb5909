//! How many calls each user may hold open on the Workload API: one user cannot starve the others
//! (threat 8). A permit counts until it is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits;

#[derive(Debug, Default)]
struct Counts {
    by_uid: BTreeMap<u32, u32>,
    all: u32,
}

/// Counts open calls by user.
#[derive(Debug, Clone, Default)]
pub(crate) struct Admission(Arc<Mutex<Counts>>);

/// No room for one more call of this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many open calls of one user")]
pub(crate) struct Crowded;

/// The right to hold one call open.
#[derive(Debug)]
pub(crate) struct CallPermit {
    counts: Arc<Mutex<Counts>>,
    uid: u32,
}

impl Admission {
    /// A permit for one call of this user.
    pub(crate) fn admit(&self, uid: u32) -> Result<CallPermit, Crowded> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = counts.by_uid.get(&uid).copied().unwrap_or(0);
        if held >= limits::CALLS_PER_UID_MAX || counts.all >= limits::CALLS_MAX {
            return Err(Crowded);
        }
        counts.all = counts.all.saturating_add(1);
        counts.by_uid.insert(uid, held.saturating_add(1));
        Ok(CallPermit {
            counts: Arc::clone(&self.0),
            uid,
        })
    }

    /// Open calls of all users.
    #[cfg(test)]
    pub(crate) fn open_calls(&self) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all = counts.all.saturating_sub(1);
        let held = counts
            .by_uid
            .get(&self.uid)
            .copied()
            .unwrap_or(0)
            .saturating_sub(1);
        if held == 0 {
            counts.by_uid.remove(&self.uid);
        } else {
            counts.by_uid.insert(self.uid, held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_08_one_user_cannot_take_the_calls_of_another() {
        let admission = Admission::default();
        let mut held: Vec<_> = (0..limits::CALLS_PER_UID_MAX)
            .map(|_| admission.admit(1).unwrap())
            .collect();
        assert_eq!(admission.admit(1).unwrap_err(), Crowded);
        let other = admission.admit(2).unwrap();
        held.pop();
        assert!(admission.admit(1).is_ok());
        drop((held, other));
        assert_eq!(admission.open_calls(), 0);
    }
}
