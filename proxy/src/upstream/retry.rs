//! May a failed request be sent again? Only if it was provably not processed, or is safe to repeat.
//!
//! Pure. RFC 9113 section 8.7 (REFUSED_STREAM, GOAWAY), RFC 9110 section 9.2.2 (idempotent methods).

use std::error::Error as _;

use http::Method;

/// What is known about a request that got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The other side did not see it, or says that it did not process it.
    NotProcessed,
    /// The connection, used before, ended without one byte of an answer.
    ConnectionClosed,
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
            let is_refused =
                cause.is_remote() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
            let is_gone = cause.is_go_away()
                && cause.is_remote()
                && cause.reason() == Some(h2::Reason::NO_ERROR);
            return if is_refused || is_gone {
                Fate::NotProcessed
            } else {
                Fate::Unknown
            };
        }
        source = cause.source();
    }
    if error.is_closed() {
        return Fate::NotProcessed;
    }
    if error.is_incomplete_message() {
        Fate::ConnectionClosed
    } else {
        Fate::Unknown
    }
}

/// True when the request may be sent again.
///
/// INVARIANT: never once a byte of its body was read.
pub fn may_repeat(fate: Fate, method: &Method, is_reused: bool, is_body_touched: bool) -> bool {
    if is_body_touched {
        return false;
    }
    match fate {
        Fate::NotProcessed => true,
        Fate::ConnectionClosed => is_reused && method.is_idempotent(),
        Fate::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_repeated_only_when_that_is_safe() {
        let rows = [
            (
                "not processed",
                Fate::NotProcessed,
                Method::POST,
                false,
                false,
                true,
            ),
            (
                "body was read",
                Fate::NotProcessed,
                Method::POST,
                false,
                true,
                false,
            ),
            (
                "stale and idempotent",
                Fate::ConnectionClosed,
                Method::GET,
                true,
                false,
                true,
            ),
            (
                "stale and not idempotent",
                Fate::ConnectionClosed,
                Method::POST,
                true,
                false,
                false,
            ),
            (
                "fresh connection",
                Fate::ConnectionClosed,
                Method::GET,
                false,
                false,
                false,
            ),
            ("unknown", Fate::Unknown, Method::GET, true, false, false),
        ];
        for (name, fate, method, is_reused, is_touched, want) in rows {
            assert_eq!(
                may_repeat(fate, &method, is_reused, is_touched),
                want,
                "{name}"
            );
        }
    }
}
