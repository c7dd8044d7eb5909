//! What was found, as a table for people and as JSON: medians over the rounds, and our share of each peer's cost.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::measure::{load_average, median, processor};
use crate::scenario::{Goal, Sample, Scenario};

/// One system in one scenario.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// Such as `nginx`.
    pub(crate) name: &'static str,
    /// One a round.
    pub(crate) samples: Vec<Sample>,
    /// System calls per call; none where they cannot be counted.
    pub(crate) syscalls: Option<f64>,
    /// Why there is no (further) sample.
    pub(crate) failure: Option<String>,
}

impl Found {
    fn median(&self, of: fn(&Sample) -> f64) -> Option<f64> {
        median(&self.samples.iter().map(of).collect::<Vec<_>>())
    }
}

/// Everything.
pub(crate) struct Report<'a> {
    /// Name, version and configuration of each system, or why it is absent.
    pub(crate) systems: Vec<(String, String)>,
    /// Load averages before anything ran.
    pub(crate) load_before: String,
    /// By scenario.
    pub(crate) rows: Vec<(&'a Scenario, Vec<Found>)>,
}

impl Report<'_> {
    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{}, {} CPUs; load average before {}, after {}\n",
            processor(),
            cpus(),
            self.load_before,
            load_average()
        );
        for (name, what) in &self.systems {
            push(&mut text, format_args!("  {name:<8} {what}\n"));
        }
        for (scenario, found) in &self.rows {
            push(
                &mut text,
                format_args!("\n{}: {}\n", scenario.name, scenario.what),
            );
            match scenario.goal {
                Goal::Idle(rss, connection) => idle_rows(&mut text, found, rss, connection),
                Goal::Cpu(cpu) => load_rows(&mut text, found, &format!("{cpu} CPU s")),
                Goal::CpuAndLatency(cpu, p50, p99) => {
                    let goal = format!("{cpu} CPU s, p50 {p50} us, p99 {p99} us");
                    load_rows(&mut text, found, &goal);
                }
            }
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(scenario, found)| {
                let goal = match scenario.goal {
                    Goal::Cpu(cpu) => json!({"cpu_secs_per_100k": cpu}),
                    Goal::CpuAndLatency(cpu, p50, p99) => {
                        json!({"cpu_secs_per_100k": cpu, "p50_us": p50, "p99_us": p99})
                    }
                    Goal::Idle(rss, connection) => {
                        json!({"rss_bytes": rss, "bytes_per_connection": connection})
                    }
                };
                let systems: Vec<Value> = found.iter().map(|it| found_json(it, found)).collect();
                json!({
                    "scenario": scenario.name,
                    "what": scenario.what,
                    "goal": goal,
                    "systems": systems,
                })
            })
            .collect();
        let systems: Vec<Value> = self
            .systems
            .iter()
            .map(|(name, what)| json!({"name": name, "what": what}))
            .collect();
        json!({
            "processor": processor(),
            "cpus": cpus(),
            "load_average_before": self.load_before,
            "load_average_after": load_average(),
            "systems": systems,
            "scenarios": rows,
        })
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(0, std::num::NonZero::get)
}

fn found_json(it: &Found, all: &[Found]) -> Value {
    json!({
        "name": it.name,
        "rounds": it.samples.len(),
        "cpu_secs_per_100k": it.median(|sample| sample.cpu),
        "cpu_rounds": it.samples.iter().map(|sample| sample.cpu).collect::<Vec<_>>(),
        "ravelin_to_this": ratio(all, it, |sample| sample.cpu),
        "calls_per_sec": it.median(|sample| sample.rate),
        "p50_us": it.median(|sample| sample.p50),
        "p99_us": it.median(|sample| sample.p99),
        "rss_bytes": it.median(|sample| sample.rss),
        "bytes_per_connection": it.median(|sample| sample.connection),
        "syscalls_per_call": it.syscalls,
        "failure": it.failure,
    })
}

/// Ravelin's value over this one's.
fn ratio(all: &[Found], it: &Found, of: fn(&Sample) -> f64) -> Option<f64> {
    let own = all
        .iter()
        .find(|found| found.name == "ravelin")?
        .median(of)?;
    let other = it.median(of)?;
    (other > 0.0).then(|| own / other)
}

fn load_rows(text: &mut String, found: &[Found], goal: &str) {
    push(
        text,
        format_args!(
            "  {:<8} {:>10} {:>14} {:>9} {:>8} {:>8} {:>14} {:>8}   (goal: {goal})\n",
            "",
            "CPU s/100k",
            "ravelin / this",
            "calls/s",
            "p50 us",
            "p99 us",
            "syscalls/call",
            "RSS MB"
        ),
    );
    for it in found {
        push(
            text,
            format_args!(
                "  {:<8} {:>10} {:>14} {:>9} {:>8} {:>8} {:>14} {:>8}{}\n",
                it.name,
                shown(it.median(|sample| sample.cpu), 2),
                shown(ratio(found, it, |sample| sample.cpu), 2),
                shown(it.median(|sample| sample.rate), 0),
                shown(it.median(|sample| sample.p50), 0),
                shown(it.median(|sample| sample.p99), 0),
                shown(it.syscalls, 2),
                shown(it.median(|sample| sample.rss / 1e6), 1),
                failure(it)
            ),
        );
    }
}

fn idle_rows(text: &mut String, found: &[Found], rss: u64, connection: u64) {
    push(
        text,
        format_args!(
            "  {:<8} {:>12} {:>20}   (goal: {} MB, {} KB)\n",
            "",
            "idle RSS MB",
            "KB per connection",
            rss / 1_000_000,
            connection / 1000
        ),
    );
    for it in found {
        push(
            text,
            format_args!(
                "  {:<8} {:>12} {:>20}{}\n",
                it.name,
                shown(it.samples.first().map(|sample| sample.rss / 1e6), 1),
                shown(it.samples.first().map(|sample| sample.connection / 1e3), 1),
                failure(it)
            ),
        );
    }
}

fn failure(it: &Found) -> String {
    it.failure
        .as_ref()
        .map(|why| format!("   failed: {}", why.replace(['\r', '\n'], " ")))
        .unwrap_or_default()
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn push(text: &mut String, line: std::fmt::Arguments) {
    // WHY: writing to a String cannot fail.
    let _ = text.write_fmt(line);
}
