//! The span of one call, as it waits for the exporter: nothing in it was formatted yet.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};
use ravelin_proto::time::Timestamp;

use super::context::TraceContext;
use crate::decision_log::ConnectionFacts;
use crate::metrics::labels::GrpcStatus;

/// Which side of a call the span tells of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// The proxy of the one that is called: SERVER.
    #[default]
    Inbound,
    /// The caller's proxy: CLIENT.
    Outbound,
}

/// A call that is over.
#[derive(Clone, Debug, Default)]
pub struct FinishedSpan {
    /// Trace, own id and parent.
    pub context: TraceContext,
    /// Which side.
    pub side: Side,
    /// When the head had arrived.
    pub start: Timestamp,
    /// From the head to the end.
    pub latency: Duration,
    /// Who called whom.
    pub connection: Arc<ConnectionFacts>,
    /// HTTP method.
    pub method: Option<Method>,
    /// Host with port.
    pub host: Option<HeaderValue>,
    /// Path that was judged, without query.
    pub path: String,
    /// `x-request-id`.
    pub call_id: Option<HeaderValue>,
    /// `host:port` of the service that was meant; empty inbound.
    pub service: String,
    /// Status; 0 where none was given.
    pub status: u16,
    /// gRPC status.
    pub grpc: GrpcStatus,
    /// Code of the decision, or of the refusal; empty without one.
    pub code: &'static str,
    /// Flag of the access log.
    pub flag: &'static str,
}
