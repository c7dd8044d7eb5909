//! What the proxy counts. Calls and connections in Istio's names (`series`, `meter`); everything else in a registry.
//!
//! Reading happens on the control thread and never waits for, or holds up, a worker.

pub mod cells;
mod exposition;
pub mod flags;
pub mod labels;
pub mod meter;
pub mod names;
pub mod series;

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use ravelin_proto::time::Timestamp;

use crate::jwks::metrics::JwksMetrics;
use series::SeriesStore;

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

/// Bounds of the time that a configuration takes to be in use, in seconds; the goal is 10 ms.
const CONFIG_SWAP_SECS: [f64; 7] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 1.0];

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    refusals: Family<RefusalLabels, Counter>,
    dry_runs: Family<DryRunLabels, Counter>,
    customs: Family<CustomLabels, Counter>,
    connections: Family<DirectionLabels, Gauge>,
    /// Series of calls and TCP connections.
    pub series: Arc<SeriesStore>,
    series_now: Gauge,
    series_refused: Counter,
    /// Decision records that did not fit the queue.
    pub decisions_lost: Counter,
    /// Lines of the access log that did not fit its queue or could not be written.
    pub access_log_lost: Counter,
    /// Spans that did not fit the queue or that no collector took.
    pub spans_lost: Counter,
    /// Spans that a collector took.
    pub spans_exported: Counter,
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
    /// Seconds from a new configuration to its use by every worker.
    pub config_swaps: Histogram,
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
            refusals: Family::default(),
            dry_runs: Family::default(),
            customs: Family::default(),
            connections: Family::default(),
            series: SeriesStore::new(),
            series_now: Gauge::default(),
            series_refused: Counter::default(),
            decisions_lost: Counter::default(),
            access_log_lost: Counter::default(),
            spans_lost: Counter::default(),
            spans_exported: Counter::default(),
            retries: Counter::default(),
            mesh_revision: Gauge::default(),
            bundle_sequence: Gauge::default(),
            denylist_number: Gauge::default(),
            svid_expires: Gauge::default(),
            svid_changes: Counter::default(),
            config_swaps: Histogram::new(CONFIG_SWAP_SECS),
            agent_connected: Gauge::default(),
            jwks: JwksMetrics::default(),
        };
        metrics.register_calls();
        metrics.register_loss();
        metrics.register_state();
        metrics.jwks.register(&mut metrics.registry);
        Arc::new(metrics)
    }

    fn register_calls(&mut self) {
        let registry = &mut self.registry;
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
    }

    fn register_loss(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "ravelin_proxy_decisions_lost",
            "Decision records that were lost",
            self.decisions_lost.clone(),
        );
        registry.register(
            "ravelin_proxy_access_log_lost",
            "Lines of the access log that were lost",
            self.access_log_lost.clone(),
        );
        registry.register(
            "ravelin_proxy_spans_lost",
            "Spans that were lost",
            self.spans_lost.clone(),
        );
        registry.register(
            "ravelin_proxy_spans_exported",
            "Spans that a collector took",
            self.spans_exported.clone(),
        );
        registry.register(
            "ravelin_proxy_series",
            "Series of calls and TCP connections",
            self.series_now.clone(),
        );
        registry.register(
            "ravelin_proxy_series_refused",
            "Series that were counted in the overflow series for want of room",
            self.series_refused.clone(),
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
            "ravelin_proxy_config_swap_seconds",
            "From a new configuration to its use by every worker",
            self.config_swaps.clone(),
        );
        registry.register(
            "ravelin_proxy_agent_connected",
            "The stream to the agent stands",
            self.agent_connected.clone(),
        );
    }

    /// The text exposition, without series that have expired by `now`.
    pub fn render(&self, now: Timestamp) -> String {
        const END: &str = "# EOF\n";
        self.series.sweep(now);
        set(
            &self.series_now,
            u64::try_from(self.series.len()).unwrap_or(u64::MAX),
        );
        raise_to(&self.series_refused, self.series.refused());
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        if text.ends_with(END) {
            text.truncate(text.len().saturating_sub(END.len()));
        }
        exposition::write(&mut text, &self.series.view());
        text.push_str(END);
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
}

/// Counts one connection down when it ends.
#[derive(Debug)]
pub struct OpenGauge(Gauge);

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.dec();
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
