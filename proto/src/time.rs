//! Points in time and validity periods: values that are handed in, never read from a clock.

use std::fmt;
use std::time::Duration;

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From Unix seconds; saturates.
    pub const fn from_unix_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// From Unix milliseconds.
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Whole Unix seconds, rounded down.
    pub const fn unix_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Unix milliseconds.
    pub const fn unix_millis(self) -> i64 {
        self.0
    }

    /// Later by `duration`; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Earlier by `duration`; saturates.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// Time passed since `earlier`; zero when that is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC, such as `2026-11-20T13:00:00Z`. Times outside of the years 0 to 9999
    /// are shown as their limit.
    pub fn rfc3339(self) -> String {
        self.to_offset()
            .format(&Rfc3339)
            .unwrap_or_else(|_| format!("@{}ms", self.0))
    }

    /// Reads RFC 3339; `None` when the text is not one.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000))
            .ok()
            .map(Self)
    }

    /// As the `time` crate's type, which certificates use; clamped to the years it can hold.
    pub fn to_offset(self) -> OffsetDateTime {
        const YEAR_0: i128 = -62_167_219_200_000;
        const YEAR_9999_END: i128 = 253_402_300_799_999;
        let millis = i128::from(self.0).clamp(YEAR_0, YEAR_9999_END);
        OffsetDateTime::from_unix_timestamp_nanos(millis * 1_000_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.rfc3339())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_rfc3339(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not an RFC 3339 time")))
    }
}

/// The period in which a credential may be used; both ends belong to it (RFC 5280 4.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First valid moment.
    pub not_before: Timestamp,
    /// Last valid moment.
    pub not_after: Timestamp,
}

impl Validity {
    /// True from `not_before` to `not_after`, both included.
    pub fn contains(self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// From the first to the last valid moment; zero when they are swapped.
    pub fn lifetime(self) -> Duration {
        self.not_after.since(self.not_before)
    }

    /// What is left at `now`; zero once expired.
    pub fn remaining(self, now: Timestamp) -> Duration {
        self.not_after.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let last = Timestamp::from_unix_millis(i64::MAX);
        assert_eq!(last.plus(Duration::from_secs(1)), last);
        assert_eq!(last.plus(Duration::MAX), last);
        let first = Timestamp::from_unix_millis(i64::MIN);
        assert_eq!(first.minus(Duration::MAX), first);
        assert_eq!(first.since(last), Duration::ZERO);
        assert!(!last.rfc3339().is_empty());
        assert!(!first.rfc3339().is_empty());
    }

    #[test]
    fn rfc3339_goes_there_and_back() {
        for secs in [0, 1, -1, 1_793_800_000, 253_402_300_799] {
            let at = Timestamp::from_unix_secs(secs);
            assert_eq!(Timestamp::parse_rfc3339(&at.rfc3339()), Some(at));
        }
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
        let offset = Timestamp::parse_rfc3339("2026-11-20T14:00:00+01:00").unwrap();
        assert_eq!(offset.rfc3339(), "2026-11-20T13:00:00Z");
    }

    #[test]
    fn a_validity_contains_both_of_its_ends() {
        let at = Timestamp::from_unix_secs;
        let validity = Validity {
            not_before: at(10),
            not_after: at(20),
        };
        let rows = [(9, false), (10, true), (15, true), (20, true), (21, false)];
        for (now, want) in rows {
            assert_eq!(validity.contains(at(now)), want, "at {now}");
        }
        assert_eq!(validity.lifetime(), Duration::from_secs(10));
        assert_eq!(validity.remaining(at(12)), Duration::from_secs(8));
        assert_eq!(validity.remaining(at(30)), Duration::ZERO);
    }
}
