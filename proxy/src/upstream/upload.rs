//! How far the body of one try has come, and until when its answer may be waited for.
//!
//! The answer's deadline starts when the body has ended; until then only a body that stands still is given up.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::limits;

/// Progress of one try's body, seen by the try that waits for the answer.
#[derive(Debug)]
pub struct Upload {
    progressed_at: Cell<Instant>,
    ended_at: Cell<Option<Instant>>,
    end: Notify,
}

impl Upload {
    /// A body of which nothing was read yet.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            progressed_at: Cell::new(Instant::now()),
            ended_at: Cell::new(None),
            end: Notify::new(),
        })
    }

    /// Bytes were read for the upstream.
    pub fn progress(&self) {
        self.progressed_at.set(Instant::now());
    }

    /// Nothing more will be read, whatever the reason.
    pub fn end(&self) {
        if self.ended_at.get().is_none() {
            self.ended_at.set(Some(Instant::now()));
            self.end.notify_one();
        }
    }

    /// Waits until an answer is overdue.
    pub async fn overdue(&self) {
        loop {
            let until = self.deadline();
            if Instant::now() >= until {
                return;
            }
            // WHY: an end brings the deadline forward; progress only moves it back and is looked at when it is due.
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.end.notified() => {}
            }
        }
    }

    fn deadline(&self) -> Instant {
        match self.ended_at.get() {
            Some(ended_at) => ended_at + limits::RESPONSE_HEAD_DEADLINE,
            None => self.progressed_at.get() + limits::BODY_IDLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn threat_54_an_answer_is_overdue_after_the_end_of_the_body_or_after_its_silence() {
        let seconds = Duration::from_secs;
        // Seconds until the last progress, until the end, and until the answer is overdue.
        let rows = [
            ("no body", 0, Some(0), 120),
            ("a long upload", 1_000, Some(1_000), 1_120),
            ("an end after a pause", 10, Some(200), 320),
            ("a body that stands still", 40, None, 340),
            ("a body that never starts", 0, None, 300),
        ];
        for (name, progress, end, want) in rows {
            let upload = Upload::new();
            let start = upload.progressed_at.get();
            upload.progressed_at.set(start + seconds(progress));
            upload.ended_at.set(end.map(|end| start + seconds(end)));
            assert_eq!(upload.deadline(), start + seconds(want), "{name}");
        }
    }
}
