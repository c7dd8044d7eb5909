//! The series of calls and connections as OpenMetrics text, in Istio's names.

use std::fmt::Write as _;

use super::cells::{BYTE_BOUNDS, CallCells, Histogram, HistogramSum, TIME_BOUNDS, TcpCells};
use super::labels::CallKey;
use super::series::{Key, SeriesView, Shard};

type CounterFamily<T> = (&'static str, &'static str, fn(&T) -> u64);
/// A histogram, and the unit that it is told in.
struct HistogramFamily {
    name: &'static str,
    help: &'static str,
    of: fn(&CallCells) -> &Histogram,
    bounds: &'static [u64],
    /// What is kept, by what is told.
    scale: u64,
}

const TCP: [CounterFamily<TcpCells>; 4] = [
    ("istio_tcp_connections_opened", "TCP connections", |cells| {
        cells.opened.total()
    }),
    (
        "istio_tcp_connections_closed",
        "TCP connections that ended",
        |cells| cells.closed.total(),
    ),
    ("istio_tcp_sent_bytes", "Bytes to the caller", |cells| {
        cells.sent.total()
    }),
    (
        "istio_tcp_received_bytes",
        "Bytes from the caller",
        |cells| cells.received.total(),
    ),
];

/// Microseconds in a millisecond: sums of times are kept in the former and told in the latter.
const TIME_SCALE: u64 = 1_000;

const HISTOGRAMS: [HistogramFamily; 3] = [
    HistogramFamily {
        name: "istio_request_duration_milliseconds",
        help: "Time from head to end",
        of: |cells| &cells.durations,
        bounds: &TIME_BOUNDS,
        scale: TIME_SCALE,
    },
    HistogramFamily {
        name: "istio_request_bytes",
        help: "Bytes of request bodies",
        of: |cells| &cells.request_bytes,
        bounds: &BYTE_BOUNDS,
        scale: 1,
    },
    HistogramFamily {
        name: "istio_response_bytes",
        help: "Bytes of response bodies",
        of: |cells| &cells.response_bytes,
        bounds: &BYTE_BOUNDS,
        scale: 1,
    },
];

/// Writes every family.
pub(super) fn write(text: &mut String, series: &[SeriesView]) {
    counters(
        text,
        series,
        "istio_requests",
        "Calls",
        |_| true,
        |cells| cells.calls.total(),
    );
    for family in HISTOGRAMS {
        histograms(text, series, &family);
    }
    let is_grpc = |key: CallKey| key.grpc.is_grpc();
    counters(
        text,
        series,
        "istio_request_messages",
        "gRPC messages of callers",
        is_grpc,
        |cells| cells.request_messages.total(),
    );
    counters(
        text,
        series,
        "istio_response_messages",
        "gRPC messages to callers",
        is_grpc,
        |cells| cells.response_messages.total(),
    );
    for (name, help, of) in TCP {
        tcp(text, series, name, help, of);
    }
}

fn family(text: &mut String, name: &str, help: &str, kind: &str) {
    // WHY: here and below, writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

fn call_parts(view: &SeriesView) -> Option<(CallKey, impl Iterator<Item = &CallCells>)> {
    let Key::Call(key) = view.1 else {
        return None;
    };
    let parts = view.2.iter().filter_map(|shard| match shard {
        Shard::Call(cells) => Some(&**cells),
        Shard::Tcp(_) => None,
    });
    Some((key, parts))
}

fn counters(
    text: &mut String,
    series: &[SeriesView],
    name: &str,
    help: &str,
    is_wanted: fn(CallKey) -> bool,
    of: fn(&CallCells) -> u64,
) {
    family(text, name, help, "counter");
    for view in series {
        let Some((key, parts)) = call_parts(view).filter(|(key, _)| is_wanted(*key)) else {
            continue;
        };
        let total = parts.fold(0_u64, |sum, cells| sum.wrapping_add(of(cells)));
        let _ = write!(text, "{name}_total{{{}", view.0);
        key.render(text);
        let _ = writeln!(text, "}} {total}");
    }
}

fn histograms(text: &mut String, series: &[SeriesView], told: &HistogramFamily) {
    let (name, scale) = (told.name, told.scale);
    family(text, name, told.help, "histogram");
    let mut labels = String::new();
    for view in series {
        let Some((key, parts)) = call_parts(view) else {
            continue;
        };
        let mut sum = HistogramSum::default();
        for cells in parts {
            (told.of)(cells).add_to(&mut sum);
        }
        labels.clear();
        labels.push_str(&view.0);
        key.render(&mut labels);
        let mut total = 0_u64;
        for (index, count) in sum.counts.iter().enumerate() {
            total = total.saturating_add(*count);
            let _ = match told.bounds.get(index) {
                Some(bound) => {
                    let tenths = bound % scale * 10 / scale;
                    writeln!(
                        text,
                        "{name}_bucket{{{labels},le=\"{}.{tenths}\"}} {total}",
                        bound / scale
                    )
                }
                None => writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}"),
            };
        }
        let (whole, rest) = (sum.sum / scale, sum.sum % scale);
        let _ = writeln!(text, "{name}_sum{{{labels}}} {whole}.{rest:03}");
        let _ = writeln!(text, "{name}_count{{{labels}}} {total}");
    }
}

fn tcp(text: &mut String, series: &[SeriesView], name: &str, help: &str, of: fn(&TcpCells) -> u64) {
    family(text, name, help, "counter");
    for (edge, key, shards) in series {
        let Key::Tcp(flag) = key else {
            continue;
        };
        let total = shards.iter().fold(0_u64, |sum, shard| match shard {
            Shard::Tcp(cells) => sum.wrapping_add(of(cells)),
            Shard::Call(_) => sum,
        });
        let flag = flag.as_str();
        let _ = writeln!(
            text,
            "{name}_total{{{edge},request_protocol=\"tcp\",response_flags=\"{flag}\"}} {total}"
        );
    }
}
