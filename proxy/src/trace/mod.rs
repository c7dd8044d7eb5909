//! Distributed traces: which trace a call belongs to, a span for it, and what the next hop is told.
//!
//! Without `[tracing]` the proxy is no part of a trace: well-formed headers pass unchanged, malformed ones go. With it each
//! call gets a span of its own, whose id is what the next hop sees as its parent.

pub mod context;
#[cfg(feature = "otel")]
pub mod export;
pub mod headers;
pub mod span;

use std::cell::Cell;

use http::HeaderMap;
use serde::Deserialize;
use tokio::sync::mpsc;

use context::TraceContext;
use headers::Found;
use prometheus_client::metrics::counter::Counter;
use span::FinishedSpan;

/// The `[tracing]` section of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracingConfig {
    /// An OTLP collector (gRPC) on this machine: `unix:PATH` or `http://127.0.0.1:4317`. None: no spans.
    pub endpoint: Option<String>,
    /// Share of the traces that begin here which is sampled; the decision of a caller is respected.
    pub sample: f64,
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample: 0.01,
        }
    }
}

/// Why a `[tracing]` section is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TracingConfigError {
    /// Not a collector on this machine.
    #[error(
        "`tracing.endpoint` must be `unix:PATH` or `http://` and a loopback address with port: spans tell who calls what and go in plain text"
    )]
    Endpoint,
    /// Not a share.
    #[error("`tracing.sample` must lie between 0.0 and 1.0")]
    Sample,
    /// A build without the exporter.
    #[error("`tracing.endpoint`: this program was built without the feature `otel`")]
    NotBuilt,
}

impl TracingConfig {
    /// Refuses what cannot work or would show calls to others.
    pub fn check(&self) -> Result<(), TracingConfigError> {
        if !(0.0..=1.0).contains(&self.sample) {
            return Err(TracingConfigError::Sample);
        }
        let Some(endpoint) = &self.endpoint else {
            return Ok(());
        };
        if cfg!(not(feature = "otel")) {
            return Err(TracingConfigError::NotBuilt);
        }
        let is_fine = match endpoint.strip_prefix("http://") {
            Some(address) => address
                .trim_end_matches('/')
                .parse::<std::net::SocketAddr>()
                .is_ok_and(|address| address.ip().is_loopback()),
            None => endpoint
                .strip_prefix("unix:")
                .is_some_and(|path| !path.is_empty()),
        };
        is_fine.then_some(()).ok_or(TracingConfigError::Endpoint)
    }
}

/// One worker's end of tracing.
#[derive(Debug)]
pub struct Tracer {
    /// None: no part of a trace.
    spans: Option<mpsc::Sender<FinishedSpan>>,
    lost: Counter,
    sample: f64,
    random: Cell<u64>,
}

/// What a call knows of its trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallTrace {
    /// The trace it belongs to; none where nobody traces.
    pub context: Option<TraceContext>,
    /// True when its span is to be exported.
    pub is_recorded: bool,
}

impl Tracer {
    /// With `spans`, every call becomes part of a trace; `sample` is the share of new traces that is sampled.
    pub fn new(spans: Option<mpsc::Sender<FinishedSpan>>, lost: Counter, sample: f64) -> Self {
        let seed = u64::from_le_bytes(ravelin_runtime::crypto::random_bytes::<8>());
        Self {
            spans,
            lost,
            sample,
            random: Cell::new(seed | 1),
        }
    }

    /// Reads the trace of a call from its head, and writes there what the next hop is told.
    pub fn begin(&self, headers: &mut HeaderMap) -> CallTrace {
        let found = headers::read(headers);
        if self.spans.is_none() {
            let context = match found {
                Found::Context(context) => Some(context),
                Found::Malformed => {
                    headers::remove(headers);
                    None
                }
                Found::Nothing | Found::Decision(_) => None,
            };
            return CallTrace {
                context,
                is_recorded: false,
            };
        }
        let context = self.continued(found);
        headers::write(headers, &context);
        CallTrace {
            is_recorded: context.is_sampled == Some(true),
            context: Some(context),
        }
    }

    fn continued(&self, found: Found) -> TraceContext {
        let (mut context, decided) = match found {
            Found::Context(context) => {
                let decided = context.is_sampled;
                (context, decided)
            }
            Found::Decision(decided) => (self.fresh(), Some(decided)),
            Found::Malformed | Found::Nothing => (self.fresh(), None),
        };
        context.parent = context.span;
        context.span = self.span_id();
        context.is_sampled = Some(decided.unwrap_or_else(|| self.is_chosen()));
        context
    }

    /// Queues the span of a call that is over.
    pub fn finish(&self, span: FinishedSpan) {
        if let Some(spans) = &self.spans
            && spans.try_send(span).is_err()
        {
            self.lost.inc();
        }
    }

    fn fresh(&self) -> TraceContext {
        let high = u128::from(self.span_id());
        TraceContext {
            trace: (high << 64) | u128::from(self.next()),
            ..TraceContext::default()
        }
    }

    fn span_id(&self) -> u64 {
        self.next().max(1)
    }

    fn is_chosen(&self) -> bool {
        // WHY: the upper 32 bits are an even draw from 0 to 1, and exact in a float.
        let draw = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        f64::from(draw) < self.sample * (f64::from(u32::MAX) + 1.0)
    }

    /// splitmix64: ids need to differ, not to be secret.
    fn next(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn tracer(is_on: bool, sample: f64) -> Tracer {
        let spans = is_on.then(|| mpsc::channel(1).0);
        Tracer::new(spans, Counter::default(), sample)
    }

    #[test]
    fn without_tracing_what_is_well_formed_passes_unchanged_and_the_rest_goes() {
        let tracer = tracer(false, 1.0);
        let mut good = headers(&[("traceparent", PARENT), ("tracestate", "a=1")]);
        let before = good.clone();
        let trace = tracer.begin(&mut good);
        assert_eq!((good, trace.is_recorded), (before, false));
        assert_eq!(
            trace.context.unwrap().trace_text(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        let mut bad = headers(&[("traceparent", "00-x"), ("tracestate", "a=1"), ("b3", "0")]);
        assert_eq!(tracer.begin(&mut bad), CallTrace::default());
        assert!(bad.is_empty());
        let mut none = HeaderMap::new();
        assert_eq!(tracer.begin(&mut none), CallTrace::default());
        assert!(none.is_empty());
    }

    #[test]
    fn each_hop_has_a_new_span_and_the_callers_decision_holds() {
        let rows = [
            ("sampled", &[("traceparent", PARENT)][..], 0.0, true, true),
            (
                "not sampled",
                &[(
                    "traceparent",
                    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
                )],
                1.0,
                false,
                true,
            ),
            (
                "b3",
                &[("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0")],
                1.0,
                false,
                true,
            ),
            (
                "b3 without a decision",
                &[("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7")],
                1.0,
                true,
                true,
            ),
            ("b3 no", &[("b3", "0")], 1.0, false, false),
            (
                "malformed",
                &[("traceparent", "00-0-0-01"), ("tracestate", "a=1")],
                0.0,
                false,
                false,
            ),
            ("new", &[], 1.0, true, false),
        ];
        for (name, pairs, sample, is_recorded, is_same_trace) in rows {
            let mut map = headers(pairs);
            let trace = tracer(true, sample).begin(&mut map);
            let context = trace.context.unwrap();
            assert_eq!(trace.is_recorded, is_recorded, "{name}");
            assert_eq!(
                context.trace_text() == "4bf92f3577b34da6a3ce929d0e0e4736",
                is_same_trace,
                "{name}"
            );
            assert_eq!(
                context.parent,
                if is_same_trace {
                    0x00f0_67aa_0ba9_02b7
                } else {
                    0
                },
                "{name}"
            );
            assert!(
                context.span != 0 && context.span != context.parent,
                "{name}"
            );
            let told = map["traceparent"].to_str().unwrap();
            let wanted = format!(
                "00-{}-{:016x}-0{}",
                context.trace_text(),
                context.span,
                u8::from(is_recorded)
            );
            assert_eq!(told, wanted, "{name}");
            assert!(!map.contains_key("tracestate"), "{name}");
        }
    }

    #[test]
    fn the_share_of_new_traces_is_about_what_was_asked() {
        let tracer = tracer(true, 0.25);
        let chosen = (0..10_000).filter(|_| tracer.is_chosen()).count();
        assert!((2_200..2_800).contains(&chosen), "{chosen}");
    }

    #[test]
    fn a_full_queue_loses_spans_and_counts_them() {
        let (spans, _queue) = mpsc::channel(2);
        let lost = Counter::default();
        let tracer = Tracer::new(Some(spans), lost.clone(), 1.0);
        for _ in 0..5 {
            tracer.finish(FinishedSpan::default());
        }
        assert_eq!(lost.get(), 3);
    }

    #[test]
    fn spans_go_to_a_collector_on_this_machine_alone() {
        let rows = [
            ("http://127.0.0.1:4317", cfg!(feature = "otel")),
            ("http://[::1]:4317/", cfg!(feature = "otel")),
            ("unix:/run/otel.sock", cfg!(feature = "otel")),
            ("http://192.0.2.1:4317", false),
            ("http://collector:4317", false),
            ("https://127.0.0.1:4317", false),
            ("unix:", false),
            ("127.0.0.1:4317", false),
        ];
        for (endpoint, is_fine) in rows {
            let config = TracingConfig {
                endpoint: Some(endpoint.to_owned()),
                ..TracingConfig::default()
            };
            assert_eq!(config.check().is_ok(), is_fine, "{endpoint}");
        }
        let config = TracingConfig {
            sample: 1.5,
            ..TracingConfig::default()
        };
        assert_eq!(config.check(), Err(TracingConfigError::Sample));
    }
}
