//! One record per judged call, handed to the control thread over a bounded queue. Loss is counted.
//!
//! A record is written when the call is over, however it ends: `OpenCall` writes it on drop. Refusals are
//! always recorded, allowed calls by the configured share. Never blocks a call.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method};
use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::time::Timestamp;
use tokio::sync::mpsc;

use crate::limits;

/// How a call ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The whole response was passed on.
    Completed,
    /// The caller went away, or the connection was cut.
    #[default]
    Cancelled,
    /// The other side failed.
    Failed,
}

impl Outcome {
    /// Word of the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// What is the same for all calls of one connection.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFacts {
    /// SPIFFE ID of the workload behind this proxy.
    pub workload: String,
    /// SPIFFE ID of the peer; empty without one.
    pub peer: String,
    /// Serial number of the peer's SVID.
    pub peer_serial: String,
    /// `http`, `tcp` or `tls`.
    pub protocol: &'static str,
    /// Where the connection comes from.
    pub source: Option<SocketAddr>,
    /// Port of the workload.
    pub port: u16,
    /// Address and port that the connection came to.
    pub local: Option<SocketAddr>,
    /// Address that the connection came to.
    pub destination: Option<IpAddr>,
    /// Server name of the TLS handshake; empty without one.
    pub sni: String,
}

/// What decided.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The answer.
    pub is_allowed: bool,
    /// Stable code.
    pub code: &'static str,
    /// `namespace/name`; empty where no policy decided.
    pub policy: String,
    /// 1-based; 0 where no rule decided.
    pub rule: u32,
    /// Mesh revision that decided.
    pub revision: u64,
    /// One line for a person.
    pub reason: String,
    /// Recorded whatever the sampling says.
    pub is_audited: bool,
    /// Another answer, which the dry-run policies would give if they were enforced.
    pub dry_run: Option<pb::DryRun>,
}

/// One call, in the cheapest form that can cross threads.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// Facts of the connection.
    pub connection: Arc<ConnectionFacts>,
    /// When the head had arrived.
    pub time: Timestamp,
    /// Value of `x-request-id`.
    pub call_id: HeaderValue,
    /// HTTP method.
    pub method: Option<Method>,
    /// Host with port.
    pub host: Option<HeaderValue>,
    /// Path that was judged.
    pub path: String,
    /// The client's address, where trusted proxies name it.
    pub remote: Option<IpAddr>,
    /// The path as it came, where it is not `path`.
    pub raw_path: String,
    /// `<issuer>/<subject>` of an accepted token.
    pub request_principal: String,
    /// Token id.
    pub jti: String,
    /// What decided.
    pub verdict: Verdict,
    /// Status of the answer; 0 where none was given.
    pub status: u16,
    /// From the head to the end.
    pub latency: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// Trace id of `traceparent`.
    pub trace_id: String,
}

impl CallRecord {
    /// A record of something that happened on `connection` now.
    pub fn new(connection: Arc<ConnectionFacts>, time: Timestamp, call_id: HeaderValue) -> Self {
        Self {
            connection,
            time,
            call_id,
            method: None,
            host: None,
            path: String::new(),
            remote: None,
            raw_path: String::new(),
            request_principal: String::new(),
            jti: String::new(),
            verdict: Verdict::default(),
            status: 0,
            latency: Duration::ZERO,
            outcome: Outcome::default(),
            trace_id: String::new(),
        }
    }

    /// The message for the agent, every text bounded.
    pub fn to_pb(&self) -> pb::Decision {
        let connection = &self.connection;
        pb::Decision {
            time_ms: self.time.unix_millis(),
            call_id: header_text(&self.call_id),
            workload: connection.workload.clone(),
            peer: connection.peer.clone(),
            peer_serial: connection.peer_serial.clone(),
            protocol: connection.protocol.to_owned(),
            method: bounded(self.method.as_ref().map_or("", Method::as_str)),
            host: self.host.as_ref().map(header_text).unwrap_or_default(),
            path: bounded(&self.path),
            request_principal: bounded(&self.request_principal),
            jti: bounded(&self.jti),
            is_allowed: self.verdict.is_allowed,
            code: self.verdict.code.to_owned(),
            policy: self.verdict.policy.clone(),
            rule: self.verdict.rule,
            mesh_revision: self.verdict.revision,
            status: u32::from(self.status),
            latency_us: u64::try_from(self.latency.as_micros()).unwrap_or(u64::MAX),
            outcome: self.outcome.as_str().to_owned(),
            trace_id: bounded(&self.trace_id),
            source_address: connection
                .source
                .map(|source| source.to_string())
                .unwrap_or_default(),
            port: u32::from(connection.port),
            reason: bounded(&self.verdict.reason),
            sni: bounded(&connection.sni),
            destination_address: address(connection.destination),
            remote_address: address(self.remote),
            raw_path: bounded(&self.raw_path),
            is_audited: self.verdict.is_audited,
            dry_run: self.verdict.dry_run.clone(),
        }
    }
}

fn address(address: Option<IpAddr>) -> String {
    address
        .map(|address| address.to_string())
        .unwrap_or_default()
}

fn header_text(value: &HeaderValue) -> String {
    bounded(&String::from_utf8_lossy(value.as_bytes()))
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(limits::DECISION_FIELD_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// A worker's end of the queue.
#[derive(Debug)]
pub struct DecisionSink {
    queue: mpsc::Sender<CallRecord>,
    lost: Arc<AtomicU64>,
    sample_allowed: f64,
    owed: Cell<f64>,
}

impl DecisionSink {
    /// `sample_allowed` is the share of allowed calls that is recorded, 0.0 to 1.0.
    pub fn new(queue: mpsc::Sender<CallRecord>, lost: Arc<AtomicU64>, sample_allowed: f64) -> Self {
        Self {
            queue,
            lost,
            sample_allowed,
            owed: Cell::new(0.0),
        }
    }

    /// Queues `record` unless it is an allowed call outside the sample that no policy wants to see.
    pub fn write(&self, record: CallRecord) {
        let verdict = &record.verdict;
        if verdict.is_allowed && !verdict.is_audited && !self.is_sampled() {
            return;
        }
        if self.queue.try_send(record).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_sampled(&self) -> bool {
        let owed = self.owed.get() + self.sample_allowed;
        let is_due = owed >= 1.0;
        self.owed.set(if is_due { owed - 1.0 } else { owed });
        is_due
    }
}
