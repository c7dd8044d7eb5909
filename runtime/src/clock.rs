//! The one front door to wall time. Everything that judges validity takes a `Clock`, so that tests can jump.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use ravelin_proto::time::Timestamp;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// Tells the wall time.
pub trait Clock: Debug + Send + Sync {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// A clock that several parts hold.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's clock, ready to share.
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "the front door that the ban points to"
    )]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_unix_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands still until it is told otherwise. Copies show the same time.
#[derive(Debug, Clone)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.unix_millis())))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().plus(by));
    }

    /// Jumps to `now`, forward or back.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.unix_millis(), Ordering::SeqCst);
    }

    /// The same clock, ready to share.
    pub fn shared(&self) -> SharedClock {
        Arc::new(self.clone())
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Lets rustls read the same clock as everything else.
#[derive(Debug)]
pub(crate) struct TlsTime(pub(crate) SharedClock);

impl TimeProvider for TlsTime {
    fn current_time(&self) -> Option<UnixTime> {
        to_unix_time(self.0.now())
    }
}

/// `None` before 1970: rustls then refuses every certificate, as it should.
pub(crate) fn to_unix_time(now: Timestamp) -> Option<UnixTime> {
    let secs = u64::try_from(now.unix_secs()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(secs)))
}

pub(crate) fn from_unix_time(now: UnixTime) -> Timestamp {
    Timestamp::from_unix_secs(i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_clock_moves_only_when_told_and_copies_move_with_it() {
        let clock = TestClock::new(Timestamp::from_unix_secs(1000));
        let shared = clock.shared();
        clock.advance(Duration::from_secs(5));
        assert_eq!(shared.now(), Timestamp::from_unix_secs(1005));
        clock.set(Timestamp::from_unix_secs(3));
        assert_eq!(shared.now(), Timestamp::from_unix_secs(3));
    }

    #[test]
    fn a_time_before_1970_is_no_time_for_tls() {
        let clock = TestClock::new(Timestamp::from_unix_secs(-1));
        assert!(TlsTime(clock.shared()).current_time().is_none());
    }
}
