//! Counters in Istio's names. A connection resolves its series once; a call then costs atomic additions only.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::jwks::metrics::JwksMetrics;

/// Labels of the request metrics.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CallLabels {
    /// `source` or `destination`.
    pub reporter: &'static str,
    /// SPIFFE ID of the caller.
    pub source_principal: String,
    /// SPIFFE ID of the one that is called.
    pub destination_principal: String,
    /// Service, where the caller's side knows it.
    pub destination_service: String,
    /// `http` or `tcp`.
    pub request_protocol: &'static str,
    /// Status; 0 where none was given.
    pub response_code: u16,
    /// `mutual_tls` or `none`.
    pub connection_security_policy: &'static str,
}

/// Labels of a refusal.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RefusalLabels {
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// Stable code.
    pub code: &'static str,
}

/// Label of a dry-run answer.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DryRunLabels {
    /// `allowed` or `denied`.
    pub result: &'static str,
}

/// Labels of a question to an external authorizer.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CustomLabels {
    /// Its name.
    pub provider: String,
    /// `allowed`, or the code of the refusal.
    pub result: &'static str,
}

/// Labels of a connection gauge.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DirectionLabels {
    /// `inbound` or `outbound`.
    pub direction: &'static str,
}

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<CallLabels, Counter>,
    durations: Family<CallLabels, Buckets>,
    response_bytes: Family<CallLabels, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    dry_runs: Family<DryRunLabels, Counter>,
    customs: Family<CustomLabels, Counter>,
    tcp_opened: Family<CallLabels, Counter>,
    tcp_closed: Family<CallLabels, Counter>,
    tcp_sent: Family<CallLabels, Counter>,
    tcp_received: Family<CallLabels, Counter>,
    connections: Family<DirectionLabels, Gauge>,
    /// Decision records that did not fit the queue.
    pub decisions_lost: Counter,
    /// Requests that were sent again because they had not been processed.
    pub retries: Counter,
    /// Mesh revision in use.
    pub mesh_revision: Gauge,
    /// Sequence number of the bundle in use.
    pub bundle_sequence: Gauge,
    /// Number of the deny-list in use.
    pub denylist_number: Gauge,
    /// Expiry of the SVID in use, Unix seconds.
    pub svid_expires: Gauge,
    /// SVIDs taken into use.
    pub svid_changes: Counter,
    /// 1 while the stream to the agent stands.
    pub agent_connected: Gauge,
    /// Fetches of keys.
    pub jwks: JwksMetrics,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Family::default(),
            response_bytes: Family::default(),
            refusals: Family::default(),
            dry_runs: Family::default(),
            customs: Family::default(),
            tcp_opened: Family::default(),
            tcp_closed: Family::default(),
            tcp_sent: Family::default(),
            tcp_received: Family::default(),
            connections: Family::default(),
            decisions_lost: Counter::default(),
            retries: Counter::default(),
            mesh_revision: Gauge::default(),
            bundle_sequence: Gauge::default(),
            denylist_number: Gauge::default(),
            svid_expires: Gauge::default(),
            svid_changes: Counter::default(),
            agent_connected: Gauge::default(),
            jwks: JwksMetrics::default(),
        };
        metrics.register_calls();
        metrics.register_state();
        metrics.jwks.register(&mut metrics.registry);
        Arc::new(metrics)
    }

    fn register_calls(&mut self) {
        let registry = &mut self.registry;
        registry.register("istio_requests", "Calls", self.requests.clone());
        registry.register(
            "istio_request_duration_milliseconds",
            "Time from head to end",
            self.durations.clone(),
        );
        registry.register(
            "istio_response_body_bytes",
            "Bytes of response bodies",
            self.response_bytes.clone(),
        );
        registry.register(
            "istio_tcp_connections_opened",
            "TCP connections",
            self.tcp_opened.clone(),
        );
        registry.register(
            "istio_tcp_connections_closed",
            "TCP connections that ended",
            self.tcp_closed.clone(),
        );
        registry.register(
            "istio_tcp_sent_bytes",
            "Bytes to the caller",
            self.tcp_sent.clone(),
        );
        registry.register(
            "istio_tcp_received_bytes",
            "Bytes from the caller",
            self.tcp_received.clone(),
        );
        registry.register(
            "ravelin_proxy_refusals",
            "Refused calls and connections",
            self.refusals.clone(),
        );
        registry.register(
            "ravelin_proxy_dry_run",
            "Answers if the dry-run policies were enforced as well",
            self.dry_runs.clone(),
        );
        registry.register(
            "ravelin_proxy_custom_checks",
            "Questions to external authorizers",
            self.customs.clone(),
        );
        registry.register(
            "ravelin_proxy_retries",
            "Requests sent again, not having been processed",
            self.retries.clone(),
        );
        registry.register(
            "ravelin_proxy_decisions_lost",
            "Decision records that were lost",
            self.decisions_lost.clone(),
        );
    }

    fn register_state(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "ravelin_proxy_connections",
            "Open connections",
            self.connections.clone(),
        );
        registry.register(
            "ravelin_proxy_mesh_revision",
            "Mesh revision in use",
            self.mesh_revision.clone(),
        );
        registry.register(
            "ravelin_proxy_bundle_sequence",
            "Bundle in use",
            self.bundle_sequence.clone(),
        );
        registry.register(
            "ravelin_proxy_denylist_number",
            "Deny-list in use",
            self.denylist_number.clone(),
        );
        registry.register(
            "identity_cert_expiration_timestamp_seconds",
            "Expiry of the SVID in use",
            self.svid_expires.clone(),
        );
        registry.register(
            "identity_cert_refresh_count",
            "SVIDs taken into use",
            self.svid_changes.clone(),
        );
        registry.register(
            "ravelin_proxy_agent_connected",
            "The stream to the agent stands",
            self.agent_connected.clone(),
        );
    }

    /// The text exposition.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }

    /// Counts a refusal.
    pub fn refused(&self, direction: &'static str, code: &'static str) {
        self.refusals
            .get_or_create(&RefusalLabels { direction, code })
            .inc();
    }

    /// Counts a question to an external authorizer.
    pub fn custom(&self, provider: &str, result: &'static str) {
        let provider = provider.to_owned();
        self.customs
            .get_or_create(&CustomLabels { provider, result })
            .inc();
    }

    /// Counts what would be decided if the dry-run policies were enforced.
    pub fn dry_run(&self, is_allowed: bool) {
        let result = if is_allowed { "allowed" } else { "denied" };
        self.dry_runs.get_or_create(&DryRunLabels { result }).inc();
    }

    /// Counts an open connection until the returned guard is dropped.
    pub fn connection(&self, direction: &'static str) -> OpenGauge {
        let gauge = self
            .connections
            .get_or_create_owned(&DirectionLabels { direction });
        gauge.inc();
        OpenGauge(gauge)
    }

    /// The series of one connection.
    pub fn counters(self: &Arc<Self>, labels: CallLabels) -> ConnectionCounters {
        ConnectionCounters {
            metrics: Arc::clone(self),
            labels,
            series: RefCell::new(Vec::new()),
        }
    }

    /// The series of one TCP connection, whose opening is counted here.
    pub fn tcp(&self, labels: &CallLabels) -> TcpCounters {
        self.tcp_opened.get_or_create(labels).inc();
        TcpCounters {
            closed: self.tcp_closed.get_or_create_owned(labels),
            sent: self.tcp_sent.get_or_create_owned(labels),
            received: self.tcp_received.get_or_create_owned(labels),
        }
    }
}

/// Counts one connection down when it ends.
#[derive(Debug)]
pub struct OpenGauge(Gauge);

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counters of one TCP connection; its end is counted on drop.
#[derive(Debug)]
pub struct TcpCounters {
    closed: Counter,
    sent: Counter,
    received: Counter,
}

impl TcpCounters {
    /// Counts bytes to and from the caller.
    pub fn count(&self, sent: u64, received: u64) {
        self.sent.inc_by(sent);
        self.received.inc_by(received);
    }
}

impl Drop for TcpCounters {
    fn drop(&mut self) {
        self.closed.inc();
    }
}

/// The resolved series of one connection, by status.
#[derive(Debug)]
pub struct ConnectionCounters {
    metrics: Arc<Metrics>,
    labels: CallLabels,
    series: RefCell<Vec<CallSeries>>,
}

#[derive(Debug)]
struct CallSeries {
    status: u16,
    calls: Counter,
    durations: Buckets,
    response_bytes: Counter,
}

impl ConnectionCounters {
    /// Counts one call that is over.
    pub fn count_call(&self, status: u16, latency: Duration, response_bytes: u64) {
        let mut series = self.series.borrow_mut();
        if let Some(known) = series.iter().find(|known| known.status == status) {
            known.count(latency, response_bytes);
            return;
        }
        let labels = CallLabels {
            response_code: status,
            ..self.labels.clone()
        };
        let resolved = CallSeries {
            status,
            calls: self.metrics.requests.get_or_create_owned(&labels),
            durations: self.metrics.durations.get_or_create_owned(&labels),
            response_bytes: self.metrics.response_bytes.get_or_create_owned(&labels),
        };
        resolved.count(latency, response_bytes);
        series.push(resolved);
    }
}

impl CallSeries {
    fn count(&self, latency: Duration, response_bytes: u64) {
        self.calls.inc();
        self.durations.observe(latency);
        self.response_bytes.inc_by(response_bytes);
    }
}

/// A histogram of milliseconds without a lock.
#[derive(Clone, Debug, Default)]
pub struct Buckets(Arc<BucketCells>);

#[derive(Debug, Default)]
struct BucketCells {
    counts: [AtomicU64; BOUNDS.len()],
    sum_micros: AtomicU64,
}

const BOUNDS: [f64; 14] = [
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    5000.0,
    30000.0,
    f64::MAX,
];

impl Buckets {
    fn observe(&self, latency: Duration) {
        let millis = latency.as_secs_f64() * 1000.0;
        let cell = BOUNDS
            .iter()
            .zip(&self.0.counts)
            .find(|(bound, _)| millis <= **bound);
        if let Some((_, cell)) = cell {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl TypedMetric for Buckets {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Buckets {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let buckets: Vec<(f64, u64)> = BOUNDS
            .iter()
            .zip(&self.0.counts)
            .map(|(bound, cell)| (*bound, cell.load(Ordering::Relaxed)))
            .collect();
        let sum =
            Duration::from_micros(self.0.sum_micros.load(Ordering::Relaxed)).as_secs_f64() * 1000.0;
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Copies a counter that lives elsewhere into `target`.
pub fn raise_to(target: &Counter, total: u64) {
    let known = target.get();
    if total > known {
        target.inc_by(total.saturating_sub(known));
    }
}

/// A gauge's value from an unsigned number.
pub fn set(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}
