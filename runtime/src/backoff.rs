//! How long to wait before the next try: doubling with jitter, up to a cap. Pure: entropy is an argument.

use std::time::Duration;

/// Doubles from `first` to `cap`; each wait is between half and all of its step.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    step: Duration,
}

impl Backoff {
    /// The first wait is at most `first`, no wait is longer than `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            step: first.min(cap),
        }
    }

    /// The next wait. `entropy` is a number from 0 to 1; anything else is taken as the nearer of both.
    pub fn next(&mut self, entropy: f64) -> Duration {
        let entropy = if entropy.is_nan() {
            1.0
        } else {
            entropy.clamp(0.0, 1.0)
        };
        let step = self.step;
        self.step = step.saturating_mul(2).min(self.cap);
        step.mul_f64(f64::midpoint(1.0, entropy))
    }

    /// The next wait is the first again: call it when a try has succeeded.
    pub fn reset(&mut self) {
        self.step = self.first.min(self.cap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let waits: Vec<u64> = (0..5).map(|_| backoff.next(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.next(1.0), Duration::from_secs(1));
    }

    #[test]
    fn jitter_stays_between_half_and_all_of_a_step() {
        for (entropy, want_ms) in [
            (0.0, 500),
            (0.5, 750),
            (1.0, 1000),
            (7.0, 1000),
            (-3.0, 500),
            (f64::NAN, 1000),
        ] {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
            assert_eq!(
                backoff.next(entropy),
                Duration::from_millis(want_ms),
                "{entropy}"
            );
        }
    }
}
