//! May a failed request be sent again? Only if it was provably not processed, or is safe to repeat. And how long is a
//! destination waited for that nobody answers at: as long as a restart takes.
//!
//! RFC 9113 section 8.7 (REFUSED_STREAM, GOAWAY), RFC 9110 section 9.2.2 (idempotent methods).

use std::cell::Cell;
use std::error::Error as _;
use std::io::ErrorKind;

use http::Method;
use tokio::time::{Instant, sleep};

use super::dial::DialError;
use crate::limits;

/// What is known about a request that got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The other side did not see it, or says that it did not process it.
    NotProcessed,
    /// The connection ended without one byte of an answer.
    ConnectionLost,
    /// Nothing is known.
    Unknown,
}

/// Reads the fate from hyper's error. `is_returned`: hyper gave the request back unsent.
pub fn fate(error: &hyper::Error, is_returned: bool) -> Fate {
    if is_returned || error.is_canceled() {
        return Fate::NotProcessed;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<h2::Error>() {
            return fate_of_stream(cause);
        }
        if let Some(cause) = cause.downcast_ref::<std::io::Error>()
            && is_lost(cause.kind())
        {
            return Fate::ConnectionLost;
        }
        source = cause.source();
    }
    if error.is_closed() {
        return Fate::NotProcessed;
    }
    if error.is_incomplete_message() {
        Fate::ConnectionLost
    } else {
        Fate::Unknown
    }
}

fn fate_of_stream(error: &h2::Error) -> Fate {
    let is_refused = error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let is_gone =
        error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    if is_refused || is_gone {
        Fate::NotProcessed
    } else if error.is_io() {
        Fate::ConnectionLost
    } else {
        Fate::Unknown
    }
}

fn is_lost(kind: ErrorKind) -> bool {
    [
        ErrorKind::ConnectionReset,
        ErrorKind::ConnectionAborted,
        ErrorKind::BrokenPipe,
        ErrorKind::UnexpectedEof,
        ErrorKind::NotConnected,
    ]
    .contains(&kind)
}

/// True when the request may be sent again after `tries`.
///
/// INVARIANT: never once a byte of its body was read.
pub fn may_repeat(fate: Fate, method: &Method, tries: u32, is_body_touched: bool) -> bool {
    if is_body_touched {
        return false;
    }
    match fate {
        Fate::NotProcessed => tries < limits::TRIES_MAX,
        // WHY: fewer: a request may be what makes its server fall.
        Fate::ConnectionLost => tries < limits::LOST_TRIES_MAX && method.is_idempotent(),
        Fate::Unknown => false,
    }
}

/// Since when nobody answers at a destination. Calls wait for it while that may be a restart; later they are refused at
/// once, until somebody answers again.
#[derive(Debug, Default)]
pub struct Outage {
    since: Cell<Option<Instant>>,
    last: Cell<Option<Instant>>,
}

impl Outage {
    /// Dials until it succeeds or fails for good, or until the destination was away for too long.
    pub async fn outlast<T>(
        &self,
        mut dial: impl AsyncFnMut() -> Result<T, DialError>,
    ) -> Result<T, DialError> {
        let mut pause = limits::RESTART_PAUSE_MIN;
        loop {
            let error = match dial().await {
                Ok(dialled) => {
                    self.since.set(None);
                    return Ok(dialled);
                }
                Err(error) => error,
            };
            if !is_away(&error) || !self.may_be_a_restart(Instant::now()) {
                return Err(error);
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(limits::RESTART_PAUSE_MAX);
        }
    }

    /// Notes a failed dial.
    fn may_be_a_restart(&self, now: Instant) -> bool {
        let is_going_on = |last: &Instant| now.duration_since(*last) < limits::RESTART_WAIT;
        // WHY: after silence nobody knows how long it has been away; that is a new outage.
        let since = match (self.since.get(), self.last.replace(Some(now))) {
            (Some(since), Some(last)) if is_going_on(&last) => since,
            (Some(_) | None, _) => now,
        };
        self.since.set(Some(since));
        now.duration_since(since) < limits::RESTART_WAIT
    }
}

/// True when nobody is there, which a restart would explain; false when somebody refuses.
fn is_away(error: &DialError) -> bool {
    match error {
        DialError::Connect { source, .. } => {
            source.kind() == ErrorKind::ConnectionRefused || is_lost(source.kind())
        }
        DialError::Handshake { source, .. } => is_lost(source.kind()),
        DialError::Http { .. } => true,
        DialError::NotReady
        | DialError::NoEndpoint
        | DialError::NoTunnel(_)
        | DialError::Deadline(_)
        | DialError::Identity(_)
        | DialError::Denied(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_is_repeated_only_when_that_is_safe() {
        use Fate::{ConnectionLost, NotProcessed, Unknown};
        let rows = [
            ("not processed", NotProcessed, Method::POST, 1, false, true),
            (
                "its body was read",
                NotProcessed,
                Method::POST,
                1,
                true,
                false,
            ),
            ("too often", NotProcessed, Method::POST, 4, false, false),
            (
                "lost, idempotent",
                ConnectionLost,
                Method::GET,
                1,
                false,
                true,
            ),
            ("lost twice", ConnectionLost, Method::PUT, 2, false, true),
            (
                "lost three times",
                ConnectionLost,
                Method::GET,
                3,
                false,
                false,
            ),
            (
                "lost, body read",
                ConnectionLost,
                Method::PUT,
                1,
                true,
                false,
            ),
            (
                "lost, not idempotent",
                ConnectionLost,
                Method::POST,
                1,
                false,
                false,
            ),
            ("unknown", Unknown, Method::GET, 1, false, false),
        ];
        for (name, fate, method, tries, is_touched, want) in rows {
            assert_eq!(may_repeat(fate, &method, tries, is_touched), want, "{name}");
        }
    }

    #[test]
    fn a_destination_is_waited_for_as_long_as_a_restart_takes() {
        let start = Instant::now();
        let outage = Outage::default();
        // Milliseconds since the start of the failed dial, and whether another one follows.
        let rows = [
            ("the first", 0, true),
            ("soon", 1_500, true),
            ("for too long", 2_000, false),
            ("and later", 3_900, false),
            ("after silence", 6_000, true),
            ("anew", 7_900, true),
            ("for too long again", 8_000, false),
        ];
        for (name, millis, want) in rows {
            let now = start + Duration::from_millis(millis);
            assert_eq!(outage.may_be_a_restart(now), want, "{name}");
        }
    }
}
