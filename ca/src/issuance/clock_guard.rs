//! Refuses to sign when the clock stands before what has been signed already: a clock that ran back would make
//! SVIDs that overlap in time with others, or bring an expired authority back to life (threat 29).

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ravelin_proto::time::Timestamp;

use crate::limits::CLOCK_BACK_MAX;

/// The clock moved back further than it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the clock shows {now}, {} s before the newest issuance ({newest}); set the clock right",
    .newest.since(*.now).as_secs()
)]
pub struct ClockRefusal {
    /// What the clock shows.
    pub now: Timestamp,
    /// When the newest SVID was issued.
    pub newest: Timestamp,
}

/// Remembers the newest issuance.
#[derive(Debug)]
pub struct ClockGuard {
    newest_ms: AtomicI64,
}

impl ClockGuard {
    /// Starts from the newest issuance on record.
    pub fn new(newest: Option<Timestamp>) -> Self {
        Self {
            newest_ms: AtomicI64::new(newest.map_or(i64::MIN, Timestamp::unix_millis)),
        }
    }

    /// Passes a time that may be signed with. It may lie a little before the newest issuance.
    pub fn check(&self, now: Timestamp) -> Result<Timestamp, ClockRefusal> {
        let newest = Timestamp::from_unix_millis(self.newest_ms.load(Ordering::Acquire));
        if newest.since(now) > CLOCK_BACK_MAX {
            return Err(ClockRefusal { now, newest });
        }
        Ok(now)
    }

    /// Remembers that something was issued at that time.
    pub fn record(&self, at: Timestamp) {
        self.newest_ms.fetch_max(at.unix_millis(), Ordering::AcqRel);
    }

    /// How far the clock may lag.
    pub fn tolerance() -> Duration {
        CLOCK_BACK_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_29_a_clock_that_ran_back_stops_issuance_until_it_is_set_right() {
        let at = Timestamp::from_unix_secs;
        let guard = ClockGuard::new(None);
        assert!(guard.check(at(-1000)).is_ok(), "nothing was issued yet");
        guard.record(at(10_000));
        guard.record(at(9000));
        let rows = [
            (10_000, true),
            (9950, true),
            (9940, true),
            (9939, false),
            (6400, false),
            (20_000, true),
        ];
        for (now, is_fine) in rows {
            assert_eq!(guard.check(at(now)).is_ok(), is_fine, "at {now}");
        }
        assert!(
            ClockGuard::new(Some(at(10_000))).check(at(0)).is_err(),
            "after a restart as well"
        );
    }
}
