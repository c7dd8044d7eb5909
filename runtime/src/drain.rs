//! The signal that a program ends: stop accepting, finish what is in flight, close. It only goes one way.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code after a second signal, as a shell gives it for SIGINT.
const EXIT_CODE_IMPATIENT: i32 = 130;

/// Copies share one signal. A child starts with its parent, and can be started alone.
#[derive(Debug, Clone, Default)]
pub struct Drain(CancellationToken);

impl Drain {
    /// A signal that nobody has given yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the drain. More than once is the same as once.
    pub fn start(&self) {
        self.0.cancel();
    }

    /// Returns once the drain has begun; at once if it has. Safe to drop and call again.
    pub async fn started(&self) {
        self.0.cancelled().await;
    }

    /// As `started`, for code that needs an owned future.
    pub fn into_started(self) -> impl Future<Output = ()> + Send + 'static {
        self.0.cancelled_owned()
    }

    /// Whether the drain has begun.
    pub fn is_started(&self) -> bool {
        self.0.is_cancelled()
    }

    /// A drain that begins with this one, or earlier on its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Waits for SIGINT or SIGTERM, begins the drain, and ends the process at once on a second signal. Never returns
    /// before the program ends.
    pub async fn on_signals(self) -> std::io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            // Both arms are cancel-safe: a signal that is not received stays pending.
            let is_open = tokio::select! {
                got = interrupt.recv() => got.is_some(),
                got = terminate.recv() => got.is_some(),
            };
            if !is_open {
                return Ok(());
            }
            if self.is_started() {
                tracing::warn!("second signal: ending without drain");
                std::process::exit(EXIT_CODE_IMPATIENT);
            }
            tracing::info!("signal: draining");
            self.start();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_starts_with_its_parent_and_not_the_other_way() {
        let parent = Drain::new();
        let (first, second) = (parent.child(), parent.child());
        first.start();
        assert!(first.is_started() && !parent.is_started() && !second.is_started());
        parent.start();
        second.started().await;
        assert!(second.is_started());
    }
}
