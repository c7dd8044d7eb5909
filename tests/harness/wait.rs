//! Bounded waiting: a test looks again and again for what it needs, and fails by name when it does not come.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// For what should take well under a second on an idle machine: a busy one gets this long.
pub const SOON: Duration = Duration::from_secs(30);
/// For whole cycles, such as a rotation.
pub const CYCLE: Duration = Duration::from_secs(90);
const PACE: Duration = Duration::from_millis(20);

/// Looks until `look` finds something. Panics with `what` when it has not within `limit`.
pub async fn until<T, Look: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Look,
) -> T {
    let deadline = Instant::now() + limit;
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        if let Ok(Some(found)) = timeout_at(deadline, look()).await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain: {what}"
        );
    }
}

/// As [`until`], for a condition.
pub async fn until_true<Look: Future<Output = bool>>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Look,
) {
    until(what, limit, || {
        let looking = look();
        async move { looking.await.then_some(()) }
    })
    .await;
}

/// The result of a future that has to end within `limit`.
pub async fn within<T>(what: &str, limit: Duration, step: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(limit, step).await;
    done.unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}
