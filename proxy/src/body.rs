//! Bodies on their way through: bounded, with trailers cleaned, and never replayed once a byte was read.
//!
//! [`RequestBody`] goes to the upstream; its source stays with the call, so that a request that was provably not
//! processed can be sent again. [`ProxyBody`] goes to the caller and carries the call's record to its end.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::body_counts::BodyCounts;
use crate::decision_log::Outcome;
use crate::head;
use crate::limits;
use crate::live_calls::RegisteredCall;
use crate::open_call::OpenCall;
use crate::upstream::{Lease, Upload};

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More bytes than the proxy passes on.
    #[error("the body is longer than {max} bytes", max = limits::REQUEST_BODY_BYTES_MAX)]
    TooLarge,
    /// The call is no longer allowed.
    #[error("the call is no longer allowed")]
    Denied,
    /// Silence.
    #[error("the body made no progress in time")]
    Idle,
    /// The connection it came from broke.
    #[error("the body ended early")]
    Read(#[from] hyper::Error),
}

/// The beginning of a body that was read before it is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadAhead {
    /// At most as many bytes as were asked for.
    pub bytes: Bytes,
    /// Nothing follows.
    pub is_whole: bool,
}

/// Where a request body comes from: held by the call, read by the try that is on its way.
#[derive(Debug)]
pub struct BodySource {
    ahead: RefCell<VecDeque<Frame<Bytes>>>,
    incoming: RefCell<Option<Incoming>>,
    is_touched: Cell<bool>,
    is_too_large: Cell<bool>,
    counts: Rc<BodyCounts>,
    activity: Rc<Activity>,
}

impl BodySource {
    /// Takes the body of a request.
    pub fn new(incoming: Incoming) -> Rc<Self> {
        Self::made(VecDeque::new(), Some(incoming))
    }

    /// A body of the proxy's own.
    pub fn of_bytes(bytes: Bytes) -> Rc<Self> {
        let frame = (!bytes.is_empty()).then(|| Frame::data(bytes));
        Self::made(frame.into_iter().collect(), None)
    }

    fn made(ahead: VecDeque<Frame<Bytes>>, incoming: Option<Incoming>) -> Rc<Self> {
        Rc::new(Self {
            ahead: RefCell::new(ahead),
            incoming: RefCell::new(incoming),
            is_touched: Cell::new(false),
            is_too_large: Cell::new(false),
            counts: Rc::default(),
            activity: Activity::new(),
        })
    }

    /// Reads until there are more than `max` bytes, or to the end. What was read is forwarded, as one piece.
    ///
    /// INVARIANT: what is held grows with the bytes alone, never with the number of frames that a peer cuts them into.
    pub async fn read_ahead(&self, max: usize) -> Result<ReadAhead, BodyError> {
        let (mut bytes, mut trailers) = (BytesMut::new(), None);
        let mut is_whole = false;
        while !is_whole && bytes.len() <= max {
            let frame = std::future::poll_fn(|context| self.poll_incoming(context)).await;
            let Some(frame) = frame.transpose()?.map(clean) else {
                is_whole = true;
                continue;
            };
            match frame.into_data() {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => trailers = Some(frame),
            }
        }
        let bytes = bytes.freeze();
        let shown = bytes.slice(..bytes.len().min(max));
        let data = (!bytes.is_empty()).then(|| Frame::data(bytes));
        self.ahead
            .borrow_mut()
            .extend(data.into_iter().chain(trailers));
        Ok(ReadAhead {
            bytes: shown,
            is_whole,
        })
    }

    fn poll_incoming(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut slot = self.incoming.borrow_mut();
        let Some(incoming) = slot.as_mut() else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(incoming).poll_frame(context);
        if let Poll::Ready(None) = polled {
            slot.take();
        }
        polled
    }

    fn poll_frame(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let ahead = self.ahead.borrow_mut().pop_front();
        match ahead {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.poll_incoming(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        let incoming = self.incoming.borrow();
        self.ahead.borrow().is_empty() && incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.borrow();
        let ahead = ahead.iter().filter_map(Frame::data_ref);
        let ahead = ahead.fold(0_u64, |sum, data| {
            sum.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX))
        });
        let incoming = self.incoming.borrow();
        let rest = incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint.set_lower(rest.lower().saturating_add(ahead));
        hint
    }

    /// True once any try has read from it: the request cannot be sent again.
    pub fn is_touched(&self) -> bool {
        self.is_touched.get()
    }

    /// True when the limit ended it.
    pub fn is_too_large(&self) -> bool {
        self.is_too_large.get()
    }

    /// The last sign of life of the call, in either direction.
    pub fn activity(&self) -> Rc<Activity> {
        Rc::clone(&self.activity)
    }

    /// What passed so far.
    pub fn counts(&self) -> Rc<BodyCounts> {
        Rc::clone(&self.counts)
    }

    /// A reader for one try.
    pub fn reader(self: &Rc<Self>) -> RequestBody {
        RequestBody {
            source: Rc::clone(self),
            upload: Upload::new(),
            left: limits::REQUEST_BODY_BYTES_MAX,
            idle: IdleTimer::new(self.activity()),
        }
    }
}

/// A request body as the upstream connection reads it.
#[derive(Debug)]
pub struct RequestBody {
    source: Rc<BodySource>,
    upload: Rc<Upload>,
    left: u64,
    idle: IdleTimer,
}

impl RequestBody {
    /// How far it has come.
    pub fn upload(&self) -> Rc<Upload> {
        Rc::clone(&self.upload)
    }
}

impl Drop for RequestBody {
    /// The connection lets go of a body that it has read to the end or needs no more.
    fn drop(&mut self) {
        self.upload.end();
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this.source.poll_frame(context) {
            Poll::Pending => this.idle.poll_pending(context),
            Poll::Ready(None) => {
                this.source.is_touched.set(true);
                this.upload.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(result)) => {
                this.source.is_touched.set(true);
                this.upload.progress();
                this.idle.progress();
                let frame = clean(result?);
                let length = frame
                    .data_ref()
                    .map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
                let Some(left) = this.left.checked_sub(length) else {
                    this.source.is_too_large.set(true);
                    return Poll::Ready(Some(Err(BodyError::TooLarge)));
                };
                this.left = left;
                if let Some(data) = frame.data_ref() {
                    this.source.counts.feed(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

/// The body of an answer: the proxy's own line, or what the upstream sends.
#[derive(Debug)]
pub enum ProxyBody {
    /// One line of the proxy.
    Text(Option<Bytes>, Option<Box<OpenCall>>),
    /// Passed on from the upstream.
    Relayed(Box<RelayedBody>),
}

/// A response body on its way, with the record of its call.
#[derive(Debug)]
pub struct RelayedBody {
    incoming: Incoming,
    call: OpenCall,
    lease: Option<Lease>,
    live: Option<RegisteredCall>,
    idle: IdleTimer,
}

impl ProxyBody {
    /// A body of the proxy's own.
    pub fn text(text: Bytes) -> Self {
        Self::Text(Some(text), None)
    }

    /// Ties the record of a refused call to its answer.
    pub fn with_call(self, call: OpenCall) -> Self {
        match self {
            Self::Text(text, _) => Self::Text(text, Some(Box::new(call))),
            Self::Relayed(relayed) => Self::Relayed(relayed),
        }
    }

    /// Passes on `incoming`; `lease` gives the upstream connection back at the end.
    /// `live` ends the body early when the call is no longer allowed; `activity` is the one of the request's body.
    pub fn relay(
        incoming: Incoming,
        mut call: OpenCall,
        lease: Option<Lease>,
        live: Option<RegisteredCall>,
        activity: Rc<Activity>,
    ) -> Self {
        if incoming.is_end_stream() {
            call.ended(Outcome::Completed);
        }
        Self::Relayed(Box::new(RelayedBody {
            incoming,
            call,
            lease,
            live,
            idle: IdleTimer::new(activity),
        }))
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Text(text, _) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Relayed(relayed) => relayed.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text, _) => text.is_none(),
            Self::Relayed(relayed) => relayed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text, _) => SizeHint::with_exact(
                text.as_ref()
                    .map_or(0, |text| u64::try_from(text.len()).unwrap_or(0)),
            ),
            Self::Relayed(relayed) => relayed.incoming.size_hint(),
        }
    }
}

impl RelayedBody {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let cut = self.live.as_ref().map(|live| live.poll_cut(context));
        if let Some(Poll::Ready(code)) = cut {
            self.lease = None;
            self.call.cut(code);
            return Poll::Ready(Some(Err(BodyError::Denied)));
        }
        let polled = match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Pending => self.idle.poll_pending(context),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(result)) => {
                self.idle.progress();
                Poll::Ready(Some(result.map(clean).map_err(BodyError::from)))
            }
        };
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => self.completed(),
            Poll::Ready(Some(Err(_))) => {
                self.lease = None;
                self.call.ended(Outcome::Failed);
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.call.count_frame(frame);
                // WHY: nothing follows trailers, and an HTTP/2 server does not ask for more.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.completed();
                }
            }
        }
        polled
    }

    fn completed(&mut self) {
        self.call.ended(Outcome::Completed);
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

/// Trailers obey the same rules as heads.
fn clean(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            clean_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

fn clean_trailers(trailers: &mut HeaderMap) {
    head::remove_hop_fields(trailers);
    head::remove_claims(trailers);
    trailers.remove(http::header::HOST);
    trailers.remove(http::header::CONTENT_LENGTH);
    trailers.remove(http::header::AUTHORIZATION);
}

/// When a call last made progress: a stream in one direction keeps the other one alive.
#[derive(Debug)]
pub struct Activity(Cell<Instant>);

impl Activity {
    fn new() -> Rc<Self> {
        Rc::new(Self(Cell::new(Instant::now())))
    }
}

/// Ends a body whose call stands still for too long. Costs no timer while bytes flow.
#[derive(Debug)]
struct IdleTimer {
    activity: Rc<Activity>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    const LIMIT: Duration = limits::BODY_IDLE;

    fn new(activity: Rc<Activity>) -> Self {
        Self {
            activity,
            sleep: None,
        }
    }

    fn progress(&self) {
        self.activity.0.set(Instant::now());
    }

    fn poll_pending<T>(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, BodyError>>> {
        let deadline = || self.activity.0.get() + Self::LIMIT;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline())));
        while sleep.as_mut().poll(context).is_ready() {
            let next = self.activity.0.get() + Self::LIMIT;
            if next <= Instant::now() {
                return Poll::Ready(Some(Err(BodyError::Idle)));
            }
            // WHY: progress moves the deadline without touching the timer; the timer is set anew when it is due.
            sleep.as_mut().reset(next);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[tokio::test]
    async fn a_body_is_silent_only_while_its_whole_call_is() {
        let past = Instant::now() - Duration::from_millis(1);
        let activity = Activity::new();
        let busy = IdleTimer::new(Rc::clone(&activity));
        // The timer of one direction is due; whether the call is over depends on both.
        for (name, is_moving, want) in [("it moves", true, false), ("silence", false, true)] {
            let mut quiet = IdleTimer::new(Rc::clone(&activity));
            quiet.sleep = Some(Box::pin(tokio::time::sleep_until(past)));
            activity.0.set(past - limits::BODY_IDLE);
            if is_moving {
                busy.progress();
            }
            let mut context = Context::from_waker(Waker::noop());
            let polled: Poll<Option<Result<(), BodyError>>> = quiet.poll_pending(&mut context);
            assert_eq!(polled.is_ready(), want, "{name}");
        }
    }
}
