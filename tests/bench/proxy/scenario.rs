//! The scenarios: what is called, over what, how often, and the goal that is set for it.

use std::path::Path;
use std::time::Duration;

use ravelin_runtime::tls::Identity;

use crate::backend::{BULK_PATH, SMALL_PATH};
use crate::client::{Call, tls};
use crate::load::{Lanes, Run, Shape};
use crate::measure::{SyscallCount, cpu_secs, float, rss_bytes};
use crate::system::System;

/// Calls of the pass that counts system calls, at most: `strace` makes each many times dearer.
const TRACED_CALLS_MAX: u64 = 600;
/// After the last call: time for what a proxy does behind it, such as giving buffers back.
const SETTLE: Duration = Duration::from_millis(700);

/// One row of the goals.
pub(crate) struct Scenario {
    /// For `--scenario`.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) what: &'static str,
    /// Goal: CPU seconds per 100,000 calls; for `idle` bytes of the called one's proxy, and bytes a connection.
    pub(crate) goal: Goal,
    /// Through both proxies, or to the called one's alone.
    pub(crate) is_pair: bool,
    load: Load,
}

/// What is to be reached.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// CPU seconds per 100,000 calls.
    Cpu(f64),
    /// The same, and p50 and p99 in microseconds.
    CpuAndLatency(f64, u32, u32),
    /// Resident bytes of an idle proxy, and bytes more for each idle connection.
    Idle(u64, u64),
}

#[derive(Clone, Copy)]
enum Load {
    Http1(usize),
    Http2(usize, usize),
    New(usize),
    Bulk(usize),
    Idle(usize),
}

const fn row(
    name: &'static str,
    what: &'static str,
    goal: Goal,
    is_pair: bool,
    load: Load,
) -> Scenario {
    Scenario {
        name,
        what,
        goal,
        is_pair,
        load,
    }
}

/// All of them, in the order in which they run: memory first, before load has touched it.
pub(crate) const ALL: [Scenario; 7] = [
    row(
        "idle",
        "idle; then idle mutual TLS connections, each after one call",
        Goal::Idle(8_000_000, 10_000),
        false,
        Load::Idle(1000),
    ),
    row(
        "pair-16",
        "pair, HTTP/1.1 in and out, 16 connections",
        Goal::CpuAndLatency(2.4, 400, 640),
        true,
        Load::Http1(16),
    ),
    row(
        "pair-64",
        "pair, HTTP/1.1 in and out, 64 connections",
        Goal::Cpu(2.0),
        true,
        Load::Http1(64),
    ),
    row(
        "inbound-h1",
        "inbound alone, HTTP/1.1, 16 connections",
        Goal::Cpu(1.6),
        false,
        Load::Http1(16),
    ),
    row(
        "inbound-h2",
        "inbound alone, HTTP/2, 4 connections of 16 streams",
        Goal::Cpu(0.85),
        false,
        Load::Http2(4, 16),
    ),
    row(
        "connect",
        "inbound alone, a new mutual TLS connection for each call, 4 at once",
        Goal::Cpu(18.0),
        false,
        Load::New(4),
    ),
    row(
        "bulk",
        "pair, HTTP/1.1, answers of 1 MB, 4 connections",
        Goal::Cpu(85.0),
        true,
        Load::Bulk(4),
    ),
];

/// What one round found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// CPU seconds per 100,000 calls.
    pub(crate) cpu: f64,
    /// Calls per second.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// Resident bytes afterwards, of the proxies that took part.
    pub(crate) rss: f64,
    /// Bytes for each idle connection.
    pub(crate) connection: f64,
}

/// Who calls, and how often.
pub(crate) struct Caller<'a> {
    /// What it shows.
    pub(crate) identity: &'a Identity,
    /// What is in every call.
    pub(crate) token: &'a str,
    /// A tenth of the calls.
    pub(crate) is_quick: bool,
}

impl Scenario {
    /// Whether calls are made and CPU time is measured.
    pub(crate) fn is_load(&self) -> bool {
        !matches!(self.load, Load::Idle(_))
    }

    fn call(&self, caller: &Caller) -> Call {
        let is_bulk = matches!(self.load, Load::Bulk(_));
        Call::new(if is_bulk { BULK_PATH } else { SMALL_PATH }, caller.token)
    }

    fn calls(&self, caller: &Caller) -> u64 {
        let calls = match self.load {
            Load::Http1(_) | Load::Http2(..) => 30_000,
            Load::New(_) => 3_000,
            Load::Bulk(_) => 1_000,
            Load::Idle(connections) => u64::try_from(connections).unwrap_or(u64::MAX),
        };
        if caller.is_quick { calls / 6 } else { calls }
    }

    fn shape(&self, caller: &Caller) -> Shape {
        let http1 = || tls(caller.identity, b"http/1.1");
        match self.load {
            Load::Http1(count) | Load::Bulk(count) => {
                Shape::Http1((!self.is_pair).then(http1), count)
            }
            Load::Http2(connections, streams) => {
                Shape::Http2(tls(caller.identity, b"h2"), connections, streams)
            }
            Load::New(at_once) => Shape::New(http1(), at_once),
            Load::Idle(_) => {
                let count = usize::try_from(self.calls(caller)).unwrap_or(usize::MAX);
                Shape::Http1(Some(http1()), count)
            }
        }
    }

    async fn lanes(&self, system: &System, caller: &Caller<'_>) -> Result<Lanes, String> {
        let address = if self.is_pair {
            system.outbound
        } else {
            system.inbound
        };
        Lanes::open(address, &self.shape(caller)).await
    }

    /// One round on one system.
    pub(crate) async fn measure(
        &self,
        system: &System,
        caller: &Caller<'_>,
    ) -> Result<Sample, String> {
        if !self.is_load() {
            return self.measure_idle(system, caller).await;
        }
        let (call, calls) = (self.call(caller), self.calls(caller));
        let mut lanes = self.lanes(system, caller).await?;
        lanes.run(&call, calls / 10).await?;
        let pids = system.pids(self.is_pair);
        let before: f64 = pids.iter().copied().map(cpu_secs).sum();
        let run = lanes.run(&call, calls).await?;
        let after: f64 = pids.iter().copied().map(cpu_secs).sum();
        Ok(sample(&run, after - before, &pids))
    }

    async fn measure_idle(&self, system: &System, caller: &Caller<'_>) -> Result<Sample, String> {
        let pids = system.pids(false);
        let before = rss_bytes(pids[0]);
        let mut lanes = self.lanes(system, caller).await?;
        let connections = self.calls(caller);
        lanes.run(&self.call(caller), connections).await?;
        tokio::time::sleep(SETTLE).await;
        let grown = rss_bytes(pids[0]).saturating_sub(before);
        Ok(Sample {
            rss: float(before),
            connection: float(grown) / float(connections),
            ..Sample::default()
        })
    }

    /// System calls per call, in a pass of its own.
    pub(crate) async fn syscalls(
        &self,
        system: &System,
        caller: &Caller<'_>,
        folder: &Path,
    ) -> Option<f64> {
        let call = self.call(caller);
        let calls = self.calls(caller).min(TRACED_CALLS_MAX);
        let mut lanes = self.lanes(system, caller).await.ok()?;
        lanes.run(&call, calls / 10).await.ok()?;
        let mut counts = Vec::new();
        for pid in system.pids(self.is_pair) {
            counts.push(SyscallCount::attach(pid, folder)?);
        }
        let ran = lanes.run(&call, calls).await;
        let mut sum = 0;
        for count in counts {
            sum += count.finish().await?;
        }
        ran.ok().map(|_| float(sum) / float(calls))
    }
}

fn sample(run: &Run, cpu: f64, pids: &[u32]) -> Sample {
    Sample {
        cpu: cpu / float(run.calls) * 100_000.0,
        rate: float(run.calls) / run.secs.max(f64::EPSILON),
        p50: f64::from(run.latency_us(500)),
        p99: f64::from(run.latency_us(990)),
        rss: float(pids.iter().copied().map(rss_bytes).sum()),
        connection: 0.0,
    }
}
