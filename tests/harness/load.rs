//! A bounded, paced load over kept connections, with every failure counted by its reason.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::http_call::{Call, HttpConnection};

/// Calls that a load makes at most, whatever its rate and time.
pub const CALLS_MAX: usize = 5_000_000;

/// What to do.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Where to connect: the outbound listener of the caller's proxy.
    pub address: SocketAddr,
    /// The call that is made again and again.
    pub call: Call,
    /// Calls per second over all connections.
    pub calls_per_sec: u32,
    /// Kept connections.
    pub connections: u32,
    /// The end, unless it is stopped before.
    pub time: Duration,
}

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    /// Calls that were answered with 200.
    pub answered: usize,
    /// Every other end, by status (and the proxy's code) or by error.
    pub failures: BTreeMap<String, usize>,
    /// The slowest calls of all come last.
    latencies_us: Vec<u32>,
    /// How long it took.
    pub elapsed: Duration,
}

impl LoadReport {
    /// Calls made.
    pub fn calls(&self) -> usize {
        self.answered + self.failed()
    }

    /// Calls that failed.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// Latency in microseconds that `share` (per mille) of the answered calls did not exceed.
    pub fn latency_us(&self, share: usize) -> u32 {
        let last = self.latencies_us.len().saturating_sub(1);
        let index = last * share.min(1000) / 1000;
        self.latencies_us.get(index).copied().unwrap_or_default()
    }

    /// The rate that was reached.
    pub fn calls_per_sec(&self) -> f64 {
        let calls = u32::try_from(self.calls()).map_or(f64::MAX, f64::from);
        calls / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        for (reason, count) in other.failures {
            *self.failures.entry(reason).or_default() += count;
        }
        self.latencies_us.extend(other.latencies_us);
    }
}

impl LoadPlan {
    /// Makes the calls, until `stop` or the time is over.
    pub async fn run(self, stop: CancellationToken) -> LoadReport {
        let started = Instant::now();
        let connections = self.connections.max(1);
        let pace = Duration::from_secs(1) * connections / self.calls_per_sec.max(1);
        let calls = CALLS_MAX / usize::try_from(connections).unwrap_or(1);
        let mut workers = JoinSet::new();
        for index in 0..connections {
            let worker = Worker {
                plan: self.clone(),
                connection: None,
                report: LoadReport::default(),
            };
            // Spread over one beat, so that the connections do not call all at once.
            let first = started + pace * index / connections;
            workers.spawn(worker.run(first, pace, calls, stop.clone()));
        }
        let mut report = LoadReport::default();
        while let Some(part) = workers.join_next().await {
            report.add(part.unwrap());
        }
        report.latencies_us.sort_unstable();
        report.elapsed = started.elapsed();
        report
    }
}

struct Worker {
    plan: LoadPlan,
    connection: Option<HttpConnection>,
    report: LoadReport,
}

impl Worker {
    async fn run(
        mut self,
        first: Instant,
        pace: Duration,
        calls: usize,
        stop: CancellationToken,
    ) -> LoadReport {
        let end = Instant::now() + self.plan.time;
        let mut beat = tokio::time::interval_at(first, pace.max(Duration::from_micros(1)));
        beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for _ in 0..calls {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = beat.tick() => {}
            }
            // Not the beat's own time: a load that cannot keep up ends in time, with fewer calls.
            let started = Instant::now();
            if started >= end {
                break;
            }
            match self.call().await {
                Ok(()) => {
                    self.report.answered += 1;
                    let latency = u32::try_from(started.elapsed().as_micros());
                    self.report.latencies_us.push(latency.unwrap_or(u32::MAX));
                }
                Err(reason) => *self.report.failures.entry(reason).or_default() += 1,
            }
        }
        self.report
    }

    async fn call(&mut self) -> Result<(), String> {
        let is_over = match &mut self.connection {
            Some(connection) => connection.is_over().await,
            None => true,
        };
        if is_over {
            self.connection = Some(HttpConnection::open(self.plan.address).await?);
        }
        let Some(connection) = &mut self.connection else {
            return Err("no connection".to_owned());
        };
        match connection.call(&self.plan.call).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.code())
                .trim_end()
                .to_owned()),
            Err(error) => {
                self.connection = None;
                Err(error)
            }
        }
    }
}

/// Makes one call again and again, at a slow pace, until it is answered with `status`; fails after `limit`.
pub async fn until_status(address: SocketAddr, call: &Call, status: u16, limit: Duration) {
    let deadline = Instant::now() + limit;
    let mut beat = interval(Duration::from_millis(20));
    let mut last = String::new();
    while Instant::now() < deadline {
        beat.tick().await;
        match crate::http_call::call_once(address, call).await {
            Ok(answer) if answer.status == status => return,
            Ok(answer) => last = format!("{} {} {}", answer.status, answer.code(), answer.body),
            Err(error) => last = error,
        }
    }
    panic!(
        "waited {limit:?} in vain for {status} from `{}{}`; last: {last}",
        call.host, call.target
    );
}
