//! What a soak prints: a line a minute, and a table at the end. What it is judged by: failures, and memory that grows.

use ravelin_tests::metrics::{histogram, total};

use crate::changes::Changes;
use crate::changes::Counts;
use crate::flows::{Flows, Tally, percentile};
use crate::site::SoakSite;

/// Growth of a process that is memory in use and not a leak: buffers of the most calls that met so far.
const GROWTH_KB_MAX: u64 = 4 * 1024;
/// A configuration is in use by all workers within this time, in seconds (a bucket of the metric).
const SWAP_GOAL_SECS: &str = "0.01";

/// Everything that is worth knowing.
#[derive(Debug, Default)]
pub(crate) struct Report {
    flows: Vec<(&'static str, Tally)>,
    counts: Counts,
    renewals: u64,
    swaps: u64,
    swaps_in_goal: u64,
    calls_before: u64,
    answers_before: Vec<usize>,
    // For each minute: the memory of each proxy that is not replaced.
    rss_kb: Vec<[u64; 2]>,
}

impl Report {
    /// Prints and remembers one minute.
    pub(crate) fn minute(&mut self, minute: u64, flows: &Flows, site: &SoakSite) {
        let tallies = flows.tallies();
        let calls: u64 = tallies.iter().map(|(_, tally)| tally.calls).sum();
        let failed: u64 = tallies.iter().map(|(_, tally)| tally.failed()).sum();
        self.answers_before.resize(tallies.len(), 0);
        let mut latencies = Vec::new();
        for ((_, tally), before) in tallies.iter().zip(&mut self.answers_before) {
            latencies.extend(tally.latencies.iter().skip(*before));
            *before = tally.latencies.len();
        }
        let [orders, inventory, payments] = site.proxies().map(crate::site::SoakProxy::rss_kb);
        self.rss_kb.push([orders, inventory]);
        println!(
            "minute {minute:>4}: {:>7} calls, {failed} failed in all, p50 {} us, p99 {} us; RSS KB: orders {orders}, inventory {inventory}, payments {payments}",
            calls - self.calls_before,
            percentile(&mut latencies, 500),
            percentile(&mut latencies, 990),
        );
        self.calls_before = calls;
    }

    /// Takes the last numbers.
    pub(crate) async fn finish(&mut self, flows: &Flows, changes: &Changes, site: &SoakSite) {
        self.flows = flows.tallies();
        self.counts = changes.counts();
        for proxy in [&site.orders, &site.inventory] {
            let metrics = proxy.metrics().await;
            self.renewals += total(&metrics, "identity_cert_refresh_count_total");
            let name = "ravelin_proxy_config_swap_seconds";
            let (in_goal, all) = histogram(&metrics, name, SWAP_GOAL_SECS);
            self.swaps += all;
            self.swaps_in_goal += in_goal;
        }
    }

    /// No failure, every flow at work, and memory that stays.
    pub(crate) fn is_good(&self) -> bool {
        let is_flow_good = |tally: &Tally| tally.failed() == 0 && !tally.latencies.is_empty();
        self.flows.iter().all(|(_, tally)| is_flow_good(tally))
            && !self.flows.is_empty()
            && self
                .growth_kb()
                .iter()
                .all(|growth| *growth <= GROWTH_KB_MAX)
    }

    /// From the first half to the second: by the lowest minute of each, so that one burst is no leak. The first minute, in
    /// which everything is used for the first time, does not count.
    fn growth_kb(&self) -> [u64; 2] {
        let minutes = self.rss_kb.get(1..).unwrap_or_default();
        let (first, second) = minutes.split_at(minutes.len() / 2);
        let lowest = |minutes: &[[u64; 2]], proxy: usize| {
            minutes
                .iter()
                .filter_map(|minute| minute.get(proxy))
                .min()
                .copied()
        };
        [0, 1].map(
            |proxy| match (lowest(first, proxy), lowest(second, proxy)) {
                (Some(first), Some(second)) => second.saturating_sub(first),
                _ => 0,
            },
        )
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        println!();
        println!(
            "| flow | calls | denied by policy | failed | p50 us | p99 us | max us |\n|---|---|---|---|---|---|---|"
        );
        for (name, tally) in &self.flows {
            let mut latencies = tally.latencies.clone();
            println!(
                "| {name} | {} | {} | {} | {} | {} | {} |",
                tally.calls,
                tally.denied,
                tally.failed(),
                percentile(&mut latencies, 500),
                percentile(&mut latencies, 990),
                percentile(&mut latencies, 1000),
            );
        }
        let mut flips = self.counts.flip_millis.clone();
        println!(
            "\npolicies {} (applied and acknowledged: p50 {} ms, p99 {} ms), SVIDs {} taken, rotations {}, restarts of the application {}, takeovers {}",
            flips.len(),
            percentile(&mut flips, 500),
            percentile(&mut flips, 990),
            self.renewals,
            self.counts.rotations,
            self.counts.restarts,
            self.counts.takeovers,
        );
        println!(
            "configurations {}, in use by every worker within 10 ms: {}",
            self.swaps, self.swaps_in_goal
        );
        let [orders, inventory] = self.growth_kb();
        println!("growth of memory: orders {orders} KB, inventory {inventory} KB");
        for (name, tally) in &self.flows {
            for (reason, count) in &tally.failures {
                println!("failed: {name}: {count} x {reason}");
            }
        }
        println!("{}", if self.is_good() { "good" } else { "NOT GOOD" });
    }
}
