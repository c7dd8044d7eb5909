//! Bytes in both directions between two connections, until both ends are done, silent, or ordered to end.

use std::cell::Cell;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::decision_log::Outcome;
use crate::limits;
use crate::metrics::meter::TcpMeter;

/// First and largest size of a copy buffer: small for idle connections, large for busy ones.
const BUFFER_BYTES: (usize, usize) = (8 * 1024, 256 * 1024);

/// Why relaying ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both directions came to their end.
    Completed,
    /// One side broke.
    Failed,
    /// No byte for too long.
    Idle,
    /// The connection is no longer allowed.
    Cut(&'static str),
}

impl Ended {
    /// For the record.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Completed => Outcome::Completed,
            Self::Failed => Outcome::Failed,
            Self::Idle | Self::Cut(_) => Outcome::Cancelled,
        }
    }
}

/// Bytes that were carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// From the caller to the other side.
    pub received: u64,
    /// To the caller.
    pub sent: u64,
}

/// Relays between `caller` and `other` until both are done, or `cut` says why it has to end.
///
/// `meter` counts bytes while they flow. A drain lets bytes run on: their end cannot be announced to the peer.
pub async fn relay<A, B>(
    caller: A,
    other: B,
    cut: impl Future<Output = &'static str>,
    meter: Option<&TcpMeter>,
) -> (Ended, Carried)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut caller_read, mut caller_write) = tokio::io::split(caller);
    let (mut other_read, mut other_write) = tokio::io::split(other);
    let progress = Rc::new(Progress::new(meter));
    let there = copy(
        &mut caller_read,
        &mut other_write,
        &progress,
        Progress::count_received,
    );
    let back = copy(
        &mut other_read,
        &mut caller_write,
        &progress,
        Progress::count_sent,
    );
    let both = async {
        let (there, back) = tokio::join!(there, back);
        if there.is_ok() && back.is_ok() {
            Ended::Completed
        } else {
            Ended::Failed
        }
    };
    let ended = tokio::select! {
        ended = both => ended,
        () = progress.idle() => Ended::Idle,
        code = cut => Ended::Cut(code),
    };
    (ended, progress.carried())
}

struct Progress<'a> {
    meter: Option<&'a TcpMeter>,
    received: Cell<u64>,
    sent: Cell<u64>,
    last: Cell<Instant>,
}

impl<'a> Progress<'a> {
    fn new(meter: Option<&'a TcpMeter>) -> Self {
        Self {
            meter,
            received: Cell::new(0),
            sent: Cell::new(0),
            last: Cell::new(Instant::now()),
        }
    }

    fn count_received(&self, bytes: u64) {
        if let Some(meter) = self.meter {
            meter.received(bytes);
        }
        self.count(&self.received, bytes);
    }

    fn count_sent(&self, bytes: u64) {
        if let Some(meter) = self.meter {
            meter.sent(bytes);
        }
        self.count(&self.sent, bytes);
    }

    fn count(&self, counter: &Cell<u64>, bytes: u64) {
        counter.set(counter.get().saturating_add(bytes));
        self.last.set(Instant::now());
    }

    async fn idle(&self) {
        loop {
            let deadline = self.last.get() + limits::TCP_IDLE;
            if Instant::now() >= deadline {
                return;
            }
            sleep_until(deadline).await;
        }
    }

    fn carried(&self) -> Carried {
        Carried {
            received: self.received.get(),
            sent: self.sent.get(),
        }
    }
}

async fn copy<'a, R, W>(
    read: &mut R,
    write: &mut W,
    progress: &Progress<'a>,
    count_bytes: fn(&Progress<'a>, u64),
) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let result = copy_all(read, write, progress, count_bytes).await;
    // WHY: the other direction may still run; this one is told its end whatever happened.
    let deadline = Instant::now() + limits::DIAL_DEADLINE;
    let closed = timeout_at(deadline, write.shutdown()).await;
    result.and(closed.unwrap_or(Ok(())).or(Ok(())))
}

async fn copy_all<'a, R, W>(
    read: &mut R,
    write: &mut W,
    progress: &Progress<'a>,
    count_bytes: fn(&Progress<'a>, u64),
) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut size, largest) = BUFFER_BYTES;
    let mut buffer = vec![0; size];
    loop {
        let count = read.read(&mut buffer).await?;
        let Some(filled) = buffer.get(..count).filter(|filled| !filled.is_empty()) else {
            return Ok(());
        };
        write.write_all(filled).await?;
        write.flush().await?;
        count_bytes(progress, u64::try_from(count).unwrap_or(u64::MAX));
        if count == size && size < largest {
            size = size.saturating_mul(2);
            buffer.resize(size, 0);
        }
    }
}
