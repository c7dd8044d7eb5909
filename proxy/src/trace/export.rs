//! Spans to an OTLP collector on this machine, in batches. Runs on the control thread; what a collector does not take after a few
//! tries is lost and counted.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use ravelin_proto::pb::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use ravelin_proto::pb::opentelemetry::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use ravelin_proto::pb::opentelemetry::proto::common::v1::any_value::Value;
use ravelin_proto::pb::opentelemetry::proto::common::v1::{
    AnyValue, InstrumentationScope, KeyValue,
};
use ravelin_proto::pb::opentelemetry::proto::resource::v1::Resource;
use ravelin_proto::pb::opentelemetry::proto::trace::v1::span::SpanKind;
use ravelin_proto::pb::opentelemetry::proto::trace::v1::status::StatusCode;
use ravelin_proto::pb::opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use ravelin_runtime::backoff::Backoff;
use ravelin_runtime::rpc::{self, AddressError, ServerAddress};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::transport::Channel;

use super::span::{FinishedSpan, Side};
use crate::limits;
use crate::metrics::Metrics;
use crate::metrics::labels::GrpcStatus;

/// Sends spans until the workers have ended.
#[derive(Debug)]
pub struct Exporter {
    address: ServerAddress,
    resource: Resource,
    queue: mpsc::Receiver<FinishedSpan>,
    client: Option<TraceServiceClient<Channel>>,
    lost: Counter,
    exported: Counter,
    is_failing: bool,
}

impl Exporter {
    /// `endpoint` as the configuration has it, `name` and `workload` for the collector.
    pub fn new(
        endpoint: &str,
        name: &str,
        queue: mpsc::Receiver<FinishedSpan>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, AddressError> {
        let endpoint = endpoint.trim_end_matches('/');
        let address = match endpoint
            .strip_prefix("http://")
            .and_then(|address| address.parse().ok())
        {
            Some(address) => ServerAddress::Tcp(address),
            None => ServerAddress::parse(endpoint)?,
        };
        Ok(Self {
            address,
            resource: Resource {
                attributes: vec![
                    text("service.name", name),
                    text("telemetry.sdk.name", "ravelin"),
                    text("service.version", env!("CARGO_PKG_VERSION")),
                ],
            },
            queue,
            client: None,
            lost: metrics.spans_lost.clone(),
            exported: metrics.spans_exported.clone(),
            is_failing: false,
        })
    }

    /// Runs until every worker has let go of its end of the queue.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(first) = self.queue.recv().await {
            batch.push(first);
            let end = Instant::now() + limits::SPAN_BATCH_WAIT;
            while batch.len() < limits::SPAN_BATCH_MAX {
                match timeout_at(end, self.queue.recv()).await {
                    Ok(Some(span)) => batch.push(span),
                    Ok(None) | Err(_) => break,
                }
            }
            self.send(&mut batch).await;
        }
    }

    async fn send(&mut self, batch: &mut Vec<FinishedSpan>) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: "ravelin-proxy".to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                    }),
                    spans: batch.drain(..).map(|span| message(&span)).collect(),
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let mut backoff = Backoff::new(limits::AGENT_PAUSE_MIN, limits::AGENT_PAUSE_MAX);
        for attempt in 1..=limits::SPAN_EXPORT_TRIES {
            match timeout(limits::SPAN_EXPORT_DEADLINE, self.try_send(&request)).await {
                Ok(Ok(rejected)) => {
                    let rejected = rejected.min(count);
                    self.lost.inc_by(rejected);
                    self.exported.inc_by(count.saturating_sub(rejected));
                    self.is_failing = false;
                    return;
                }
                Ok(Err(reason)) => self.failed(&reason),
                Err(_) => self.failed("no answer in time"),
            }
            if attempt < limits::SPAN_EXPORT_TRIES {
                sleep(backoff.next(crate::control::entropy())).await;
            }
        }
        self.lost.inc_by(count);
    }

    /// One try; the number of spans that the collector did not take.
    async fn try_send(&mut self, request: &ExportTraceServiceRequest) -> Result<u64, String> {
        let mut client = if let Some(client) = self.client.take() {
            client
        } else {
            let channel = rpc::connect(&self.address, None).await;
            TraceServiceClient::new(channel.map_err(|error| error.to_string())?)
        };
        let answer = client.export(request.clone()).await;
        let answer = answer.map_err(|status| format!("{}: {}", status.code(), status.message()))?;
        self.client = Some(client);
        let partial = answer.into_inner().partial_success.unwrap_or_default();
        Ok(u64::try_from(partial.rejected_spans).unwrap_or(0))
    }

    /// WHY: one word at the beginning; the counter tells the rest.
    fn failed(&mut self, reason: &str) {
        if !self.is_failing {
            tracing::warn!(reason, "the collector does not take spans");
        }
        self.is_failing = true;
    }
}

fn message(span: &FinishedSpan) -> Span {
    let context = &span.context;
    let start = u64::try_from(span.start.unix_millis())
        .unwrap_or(0)
        .saturating_mul(1_000_000);
    let length = u64::try_from(span.latency.as_nanos()).unwrap_or(u64::MAX);
    let method = span.method.as_ref().map_or("", http::Method::as_str);
    let (kind, name) = match span.side {
        Side::Inbound => (SpanKind::Server, method.to_owned()),
        Side::Outbound => (SpanKind::Client, format!("{method} {}", span.service)),
    };
    let parent = (context.parent != 0).then(|| context.parent.to_be_bytes().to_vec());
    Span {
        trace_id: context.trace.to_be_bytes().to_vec(),
        span_id: context.span.to_be_bytes().to_vec(),
        parent_span_id: parent.unwrap_or_default(),
        name: name.trim_end().to_owned(),
        kind: kind.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(length),
        attributes: attributes(span, method),
        status: Some(status(span)),
        flags: 1,
        ..Span::default()
    }
}

/// The names are those of OpenTelemetry's conventions for HTTP where there is one. No header but the request id, no query.
fn attributes(span: &FinishedSpan, method: &str) -> Vec<KeyValue> {
    let header = |value: &Option<http::HeaderValue>| {
        value
            .as_ref()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .unwrap_or_default()
    };
    let facts = &span.connection;
    let source = facts.source.map(|source| source.ip().to_string());
    let texts = [
        ("http.request.method", method),
        ("url.path", &span.path),
        ("server.address", &header(&span.host)),
        ("client.address", &source.unwrap_or_default()),
        ("ravelin.workload", &facts.workload),
        ("ravelin.peer", &facts.peer),
        ("ravelin.service", &span.service),
        ("ravelin.code", span.code),
        ("ravelin.response_flags", span.flag),
        ("ravelin.request_id", &header(&span.call_id)),
    ];
    let mut attributes: Vec<KeyValue> = texts
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| text(key, value))
        .collect();
    attributes.push(number("http.response.status_code", span.status.into()));
    if let GrpcStatus::Code(code) = span.grpc {
        attributes.push(number("rpc.grpc.status_code", code.into()));
    }
    attributes
}

/// A server's span is an error from 500 on, a client's from 400 on (conventions for HTTP).
fn status(span: &FinishedSpan) -> Status {
    let least = match span.side {
        Side::Inbound => 500,
        Side::Outbound => 400,
    };
    let is_grpc_error = matches!(span.grpc, GrpcStatus::Code(code) if code != 0);
    let is_error = span.status >= least || span.status == 0 || is_grpc_error;
    let code = if is_error {
        StatusCode::Error
    } else {
        StatusCode::Unset
    };
    Status {
        code: code.into(),
        ..Status::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let end = value.floor_char_boundary(limits::DECISION_FIELD_BYTES_MAX);
    pair(
        key,
        Value::StringValue(value.get(..end).unwrap_or_default().to_owned()),
    )
}

fn number(key: &str, value: i64) -> KeyValue {
    pair(key, Value::IntValue(value))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
    }
}
