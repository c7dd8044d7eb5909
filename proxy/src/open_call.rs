//! A call in progress. When it is over, however it ends, this is dropped: its metrics are counted, its line of the access log
//! and its decision record are written, and its span goes to the exporter.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header};
use http_body::Frame;
use tokio::time::Instant;

use crate::access_log::line::{Entry, Seen};
use crate::body_counts::BodyCounts;
use crate::decision_log::{CallRecord, Outcome};
use crate::metrics::cells::CallFigures;
use crate::metrics::flags::ResponseFlag;
use crate::metrics::labels::{CallKey, GrpcStatus};
use crate::metrics::meter::Meter;
use crate::relay::Carried;
use crate::route::Route;
use crate::trace::CallTrace;
use crate::trace::span::{FinishedSpan, Side};
use crate::upstream::Answered;
use crate::worker::Worker;

const GRPC_STATUS: &str = "grpc-status";

/// A head as it came.
#[derive(Clone, Copy, Debug)]
pub struct HeadView<'a> {
    method: &'a Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a HeaderMap,
}

impl<'a> From<&'a Parts> for HeadView<'a> {
    fn from(head: &'a Parts) -> Self {
        Self {
            method: &head.method,
            uri: &head.uri,
            version: head.version,
            headers: &head.headers,
        }
    }
}

impl<'a, B> From<&'a Request<B>> for HeadView<'a> {
    fn from(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
        }
    }
}

/// A call in progress.
#[derive(Debug)]
pub struct OpenCall {
    worker: Rc<Worker>,
    meter: Rc<Meter>,
    record: Option<CallRecord>,
    seen: Seen,
    trace: CallTrace,
    request: Option<Rc<BodyCounts>>,
    response: BodyCounts,
    started: Instant,
}

impl OpenCall {
    /// Opens the record of a call whose head has arrived, as it came.
    pub fn open<'a>(
        worker: Rc<Worker>,
        meter: Rc<Meter>,
        record: CallRecord,
        head: impl Into<HeadView<'a>>,
        side: Side,
    ) -> Self {
        let head = head.into();
        let is_grpc = is_grpc(head.headers);
        let response = BodyCounts::default();
        if is_grpc {
            response.count_messages();
        }
        let of = |name| {
            let value = head.headers.get(name).cloned();
            value.filter(|_| worker.access_log().is_on())
        };
        let seen = Seen {
            side,
            version: head.version,
            method: head.method.clone(),
            target: head.uri.path_and_query().cloned(),
            user_agent: of(header::USER_AGENT),
            forwarded_for: of(header::HeaderName::from_static("x-forwarded-for")),
            refusal: "",
            cut: None,
            head_after: None,
            upstream: None,
            peer: None,
            service: None,
            grpc: if is_grpc {
                GrpcStatus::Unknown
            } else {
                GrpcStatus::NotGrpc
            },
            trace: None,
        };
        Self {
            worker,
            meter,
            record: Some(record),
            seen,
            trace: CallTrace::default(),
            request: None,
            response,
            started: Instant::now(),
        }
    }

    /// The record so far.
    pub fn record(&mut self) -> Option<&mut CallRecord> {
        self.record.as_mut()
    }

    /// Reads the trace from the head and writes there what the next hop is told.
    pub fn begin_trace(&mut self, headers: &mut HeaderMap) {
        self.trace = self.worker.tracer().begin(headers);
        if let (Some(context), Some(record)) = (self.trace.context, &mut self.record) {
            self.seen.trace = Some(context.trace);
            record.trace_id = context.trace_text();
        }
    }

    /// Says which service is meant, and counts the call in its series.
    pub fn routed(&mut self, route: &Arc<Route>, meter: Rc<Meter>) {
        self.seen.service = Some(Arc::clone(route));
        self.meter = meter;
    }

    /// Counts the body of the request.
    pub fn count_request(&mut self, counts: Rc<BodyCounts>) {
        if self.seen.grpc.is_grpc() {
            counts.count_messages();
        }
        self.request = Some(counts);
    }

    /// Says who answered, and how.
    pub fn answered(&mut self, answered: &Answered) {
        self.seen.head_after = Some(self.started.elapsed());
        self.seen.upstream = Some(answered.address);
        self.seen.peer.clone_from(&answered.peer);
        self.read_grpc_status(answered.response.headers());
        self.set_status(answered.response.status());
    }

    /// Says that a CONNECT is granted.
    pub fn granted(&mut self) {
        self.set_status(StatusCode::OK);
    }

    /// Says that another protocol follows.
    pub fn switched(&mut self) {
        self.set_status(StatusCode::SWITCHING_PROTOCOLS);
    }

    /// Counts what a tunnel carried.
    pub fn carried(&mut self, carried: Carried) {
        self.request.get_or_insert_default().add(carried.received);
        self.response.add(carried.sent);
    }

    /// Says that the proxy itself answers: the call is over with that, unless something failed before.
    pub fn refused(&mut self, status: StatusCode, code: &'static str) {
        self.seen.refusal = code;
        self.set_status(status);
        if let Some(record) = &mut self.record
            && record.outcome == Outcome::Cancelled
        {
            record.outcome = Outcome::Completed;
        }
    }

    /// Says why the call was cut off.
    pub fn cut(&mut self, code: &str) {
        self.seen.cut = Some(code.to_owned());
        if let Some(record) = &mut self.record {
            record.verdict.reason = format!("cut: {code}");
            record.outcome = Outcome::Cancelled;
        }
    }

    /// Says how the call ended; without it the record says `cancelled`.
    pub fn ended(&mut self, outcome: Outcome) {
        if let Some(record) = &mut self.record {
            record.outcome = outcome;
        }
    }

    /// Counts a piece of the response, or reads its trailers.
    pub fn count_frame(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.response.feed(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            self.read_grpc_status(trailers);
        }
    }

    fn set_status(&mut self, status: StatusCode) {
        if let Some(record) = &mut self.record {
            record.status = status.as_u16();
        }
    }

    /// Reads the status of a gRPC call where the head tells it (trailers-only).
    pub fn read_grpc_status(&mut self, headers: &HeaderMap) {
        if self.seen.grpc.is_grpc()
            && let Some(value) = headers.get(GRPC_STATUS)
        {
            self.seen.grpc = GrpcStatus::parse(value.as_bytes());
        }
    }

    fn figures(&self, record: &CallRecord) -> CallFigures {
        let request = self.request.as_ref();
        CallFigures {
            latency: record.latency,
            request_bytes: request.map_or(0, |counts| counts.bytes()),
            response_bytes: self.response.bytes(),
            request_messages: request.map_or(0, |counts| counts.messages()),
            response_messages: self.response.messages(),
        }
    }

    fn export(&self, record: &CallRecord, flag: ResponseFlag) {
        let Some(context) = self.trace.context.filter(|_| self.trace.is_recorded) else {
            return;
        };
        let code = match self.seen.refusal {
            "" => record.verdict.code,
            refusal => refusal,
        };
        self.worker.tracer().finish(FinishedSpan {
            context,
            side: self.seen.side,
            start: record.time,
            latency: record.latency,
            connection: Arc::clone(&record.connection),
            method: record.method.clone(),
            host: record.host.clone(),
            path: record.path.clone(),
            call_id: Some(record.call_id.clone()),
            service: self
                .seen
                .service
                .as_ref()
                .map(|route| route.service.clone())
                .unwrap_or_default(),
            status: record.status,
            grpc: self.seen.grpc,
            code,
            flag: flag.as_str(),
        });
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        record.latency = self.started.elapsed();
        let figures = self.figures(&record);
        let flag = ResponseFlag::of_call(self.seen.refusal, record.outcome);
        self.meter
            .count(CallKey::new(record.status, self.seen.grpc, flag), &figures);
        self.worker.access_log().call(&Entry {
            record: &record,
            seen: &self.seen,
            figures: &figures,
            flag,
        });
        self.export(&record, flag);
        if !record.verdict.code.is_empty() {
            self.worker.decisions().write(record);
        }
    }
}

/// `application/grpc`, with or without a format; not gRPC-Web, which is framed otherwise.
fn is_grpc(headers: &HeaderMap) -> bool {
    const PREFIX: &[u8] = b"application/grpc";
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(PREFIX))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+") || rest.starts_with(b";"))
}
