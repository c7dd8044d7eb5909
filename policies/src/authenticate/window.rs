//! For how long a judgement of tokens stays what it is.

use ravelin_proto::time::Timestamp;

/// From `from` on, and before `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    from: Timestamp,
    until: Timestamp,
}

impl Default for Window {
    /// Forever.
    fn default() -> Self {
        Self {
            from: Timestamp::from_unix_millis(i64::MIN),
            until: Timestamp::from_unix_millis(i64::MAX),
        }
    }
}

impl Window {
    /// True once `now` has reached `boundary`. INVARIANT: the answer is the same for every time in the window, which
    /// is narrowed by the question.
    pub(super) fn is_reached(&mut self, boundary: Timestamp, now: Timestamp) -> bool {
        let is_reached = boundary <= now;
        if is_reached {
            self.from = self.from.max(boundary);
        } else {
            self.until = self.until.min(boundary);
        }
        is_reached
    }

    pub(super) fn contains(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_where_an_answer_would_change() {
        let at = Timestamp::from_unix_secs;
        let mut window = Window::default();
        assert!(window.is_reached(at(10), at(20)));
        assert!(!window.is_reached(at(30), at(20)));
        assert!(!window.is_reached(at(40), at(20)));
        for (now, want) in [(9, false), (10, true), (20, true), (29, true), (30, false)] {
            assert_eq!(window.contains(at(now)), want, "{now}");
        }
    }
}
