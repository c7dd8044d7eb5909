//! A budget for the HTTP/2 frames of a peer that cost work and carry no call: RST_STREAM, PING, SETTINGS, PRIORITY,
//! WINDOW_UPDATE, empty DATA and unknown types. A peer that spends more than it earns is cut (threat 54).
//!
//! Reads frame headers as they pass, changes no byte, and knows nothing of streams: those rules are the codec's, which has its
//! own bounds on header blocks, small DATA frames and resets that it causes. RFC 9113 sections 4.1 and 10.5.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::stream::PeerStream;
use crate::limits;
use crate::metrics::Metrics;

const HEADER_BYTES: usize = 9;
/// The preface of a client comes before the first frame (RFC 9113 section 3.4).
const PREFACE_BYTES: u32 = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

/// What may be spent: filled by time and by work that was done, never beyond its size.
#[derive(Debug)]
struct Bucket {
    left: u32,
    size: u32,
    per_second: u32,
    filled_at: Instant,
}

impl Bucket {
    fn new(size: u32, per_second: u32, now: Instant) -> Self {
        Self {
            left: size,
            size,
            per_second,
            filled_at: now,
        }
    }

    fn earn(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(self.size);
    }

    /// Takes `count`. The clock is read only when that is more than what is left.
    fn spend(&mut self, count: u32, clock: impl FnOnce() -> Instant) -> bool {
        if self.left < count {
            let now = clock();
            let passed = now.saturating_duration_since(self.filled_at).as_millis();
            let earned = passed.saturating_mul(u128::from(self.per_second)) / 1000;
            if let Ok(earned) = u32::try_from(earned.min(u128::from(self.size)))
                && earned > 0
            {
                self.filled_at = now;
                self.earn(earned);
            }
        }
        match self.left.checked_sub(count) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// Walks over frames and keeps account.
#[derive(Debug)]
struct Account {
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    skip: u32,
    controls: Bucket,
    resets: Bucket,
    written: u32,
}

/// More was spent than earned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Overspent;

impl Account {
    fn new(now: Instant) -> Self {
        Self {
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            skip: PREFACE_BYTES,
            controls: Bucket::new(
                limits::CONTROL_FRAMES_BURST,
                limits::CONTROL_FRAMES_PER_SECOND,
                now,
            ),
            resets: Bucket::new(limits::RESETS_BURST, limits::RESETS_PER_SECOND, now),
            written: 0,
        }
    }

    /// Looks at what was read.
    fn read(&mut self, mut bytes: &[u8], clock: fn() -> Instant) -> Result<(), Overspent> {
        while !bytes.is_empty() {
            let skipped = bytes
                .len()
                .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            bytes = bytes.get(skipped..).unwrap_or_default();
            self.skip = self
                .skip
                .saturating_sub(u32::try_from(skipped).unwrap_or(u32::MAX));
            for byte in bytes.iter().take(HEADER_BYTES - self.header_bytes) {
                if let Some(slot) = self.header.get_mut(self.header_bytes) {
                    *slot = *byte;
                    self.header_bytes = self.header_bytes.saturating_add(1);
                }
                bytes = bytes.get(1..).unwrap_or_default();
            }
            if self.header_bytes == HEADER_BYTES {
                self.header_bytes = 0;
                self.frame(clock)?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, clock: fn() -> Instant) -> Result<(), Overspent> {
        let [high, middle, low, kind, ..] = self.header;
        self.skip = u32::from_be_bytes([0, high, middle, low]);
        let is_paid = match kind {
            // WHY: what carries a call has its own bounds: streams, header blocks, windows.
            HEADERS | CONTINUATION => {
                self.controls.earn(1);
                true
            }
            DATA if self.skip > 0 => {
                self.controls.earn(1);
                true
            }
            RST_STREAM => self.resets.spend(1, clock),
            // WHY: a long SETTINGS is work for each of its pairs.
            _ => {
                let count = self.skip / limits::BYTES_PER_CONTROL_FRAME;
                self.controls.spend(count.saturating_add(1), clock)
            }
        };
        if is_paid { Ok(()) } else { Err(Overspent) }
    }

    /// Answers that were written are work that was asked for: they pay for acknowledgements and for some cancelled calls.
    fn wrote(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.written = self.written.saturating_add(count);
        let earned = self.written / limits::BYTES_PER_CONTROL_FRAME;
        if earned > 0 {
            self.written %= limits::BYTES_PER_CONTROL_FRAME;
            self.controls.earn(earned);
            self.resets.earn(earned);
        }
    }
}

/// A peer's connection whose frames are counted, if it speaks HTTP/2.
#[derive(Debug)]
pub(super) struct FrameBudget {
    stream: PeerStream,
    account: Option<Box<Account>>,
    metrics: Arc<Metrics>,
}

impl FrameBudget {
    /// Counts from the preface on.
    pub(super) fn new(stream: PeerStream, metrics: Arc<Metrics>) -> Self {
        let is_http2 = stream.is_http2();
        Self {
            stream,
            account: is_http2.then(|| Box::new(Account::new(Instant::now()))),
            metrics,
        }
    }
}

impl AsyncRead for FrameBudget {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let (Poll::Ready(Ok(())), Some(account)) = (&polled, &mut this.account) {
            let new = buffer.filled().get(before..).unwrap_or_default();
            if account.read(new, Instant::now).is_err() {
                this.metrics.refused("inbound", "http2_flood");
                return Poll::Ready(Err(io::Error::other("too many frames without a call")));
            }
        }
        polled
    }
}

impl FrameBudget {
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(count)), Some(account)) = (&written, &mut self.account) {
            account.wrote(*count);
        }
        written
    }
}

impl AsyncWrite for FrameBudget {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![0, 0, u8::try_from(payload).unwrap(), kind, 0, 0, 0, 0, 1];
        bytes.resize(bytes.len() + payload, 0);
        bytes
    }

    /// How many frames of a kind pass before the account is overspent; `None`: all of a hundred thousand.
    fn passed(kind: u8, payload: usize, written: usize) -> Option<u32> {
        let mut account = Account::new(Instant::now());
        account.skip = 0;
        (0..100_000).find(|_| {
            account.wrote(written);
            // A clock that stands still: only work is paid for.
            account.controls.filled_at = Instant::now();
            account.resets.filled_at = Instant::now();
            account.read(&frame(kind, payload), Instant::now).is_err()
        })
    }

    #[test]
    fn threat_54_frames_that_carry_no_call_are_paid_by_work_or_by_time() {
        let burst = Some(limits::CONTROL_FRAMES_BURST);
        let rows = [
            ("PING that nobody reads", 6, 8, 0, burst),
            ("SETTINGS", 4, 6, 0, burst),
            (
                "long SETTINGS",
                4,
                192,
                0,
                Some(limits::CONTROL_FRAMES_BURST / 4),
            ),
            ("PRIORITY", 2, 5, 0, burst),
            ("WINDOW_UPDATE", 8, 4, 0, burst),
            ("empty DATA", 0, 0, 0, burst),
            ("an unknown type", 77, 3, 0, burst),
            ("RST_STREAM", 3, 4, 0, Some(limits::RESETS_BURST)),
            ("HEADERS", 1, 30, 0, None),
            ("DATA", 0, 1, 0, None),
            ("WINDOW_UPDATE while answers flow", 8, 4, 200, None),
            ("RST_STREAM while answers flow", 3, 4, 200, None),
        ];
        for (name, kind, payload, written, want) in rows {
            assert_eq!(passed(kind, payload, written), want, "{name}");
        }
    }

    #[test]
    fn threat_54_an_answer_to_each_ping_does_not_pay_for_the_next() {
        let cut = passed(6, 8, 17).unwrap();
        assert!(cut > limits::CONTROL_FRAMES_BURST);
    }

    #[test]
    fn threat_54_frames_are_counted_however_they_are_cut() {
        let mut bytes = vec![0; 24];
        for _ in 0..=limits::RESETS_BURST {
            bytes.extend(frame(1, 40));
            bytes.extend(frame(3, 4));
        }
        for size in [1, 2, 8, 9, 10, 13, 50, 4096] {
            let mut account = Account::new(Instant::now());
            let mut results = bytes.chunks(size).map(|chunk| {
                account.resets.filled_at = Instant::now();
                account.read(chunk, Instant::now)
            });
            assert!(results.any(|result| result.is_err()), "{size}");
        }
    }

    #[test]
    fn threat_54_time_fills_a_bucket() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, 10, start);
        let at = |ms| move || start + Duration::from_millis(ms);
        assert!(bucket.spend(1, at(0)) && bucket.spend(1, at(0)));
        assert!(!bucket.spend(1, at(99)));
        assert!(bucket.spend(1, at(100)));
        assert!(!bucket.spend(1, at(150)));
        assert!(bucket.spend(1, at(5000)) && bucket.spend(1, at(5000)));
        assert!(!bucket.spend(1, at(5000)), "never beyond its size");
    }
}
