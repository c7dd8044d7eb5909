//! Bounds how fast one address can guess: a bucket of failed attempts that refills by one a second. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ravelin_proto::time::Timestamp;

use crate::limits::{ATTEST_ADDRESSES_MAX, ATTEST_FAILURES_MAX};

/// Failures by address.
#[derive(Debug, Default)]
pub struct Throttle {
    by_address: BTreeMap<IpAddr, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    failures: u32,
    at: Timestamp,
}

impl Bucket {
    fn at(self, now: Timestamp) -> u32 {
        // WHY: after a clock that stood ahead was set right, nobody is to wait until it is there again.
        if now < self.at {
            return 0;
        }
        let refilled = u32::try_from(now.since(self.at).as_secs()).unwrap_or(u32::MAX);
        self.failures.saturating_sub(refilled)
    }
}

impl Throttle {
    /// Whether this address may try now.
    pub fn may_try(&self, address: IpAddr, now: Timestamp) -> bool {
        let failures = self
            .by_address
            .get(&address)
            .map_or(0, |bucket| bucket.at(now));
        failures < ATTEST_FAILURES_MAX
    }

    /// Remembers a failure.
    pub fn record_failure(&mut self, address: IpAddr, now: Timestamp) {
        if self.by_address.len() >= ATTEST_ADDRESSES_MAX && !self.by_address.contains_key(&address)
        {
            self.by_address.retain(|_, bucket| bucket.at(now) > 0);
            if self.by_address.len() >= ATTEST_ADDRESSES_MAX {
                // Full of recent failures: the smallest address makes room.
                self.by_address.pop_first();
            }
        }
        let failures = self
            .by_address
            .get(&address)
            .map_or(0, |bucket| bucket.at(now));
        let bucket = Bucket {
            failures: failures.saturating_add(1),
            at: now,
        };
        self.by_address.insert(address, bucket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    #[test]
    fn threat_15_guessing_is_slowed_down_per_address() {
        let mut throttle = Throttle::default();
        let (one, other) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let now = Timestamp::from_unix_secs(1000);
        for _ in 0..ATTEST_FAILURES_MAX {
            assert!(throttle.may_try(one, now));
            throttle.record_failure(one, now);
        }
        assert!(!throttle.may_try(one, now));
        assert!(throttle.may_try(other, now));
        assert!(throttle.may_try(one, now.plus(Duration::from_secs(1))));
        let before = Timestamp::from_unix_secs(900);
        assert!(throttle.may_try(one, before), "the clock was set back");
    }

    #[test]
    fn the_memory_of_failures_is_bounded() {
        let mut throttle = Throttle::default();
        let now = Timestamp::from_unix_secs(1000);
        for number in 0..10_000_u32 {
            throttle.record_failure(IpAddr::from(Ipv4Addr::from(number)), now);
        }
        assert_eq!(throttle.by_address.len(), ATTEST_ADDRESSES_MAX);
    }
}
