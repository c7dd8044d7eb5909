//! Mixed load through real proxies while everything around them changes:
//! `cargo build --release -p ravelin-proxy && cargo run --release -p ravelin-tests --bin soak -- --minutes 30`.
//!
//! Every second another policy, every 20 s new SVIDs, every few minutes another authority, applications that restart and
//! a proxy that is replaced. Prints a table; exits 1 when a call failed that every declared policy allows, when a policy
//! was not enforced once it was acknowledged, or when a proxy's memory grew.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]
#![allow(clippy::unwrap_used, reason = "a driver may fail loudly")]

mod apps;
mod changes;
mod flows;
mod report;
mod site;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use ravelin_tests::programs::beside;
use tokio_util::sync::CancellationToken;

use changes::{Changes, Rhythm};
use flows::{Flows, PolicyState};
use report::Report;
use site::SoakSite;

/// Loads two pairs of proxies while policies, SVIDs, authorities, applications and a proxy change.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// Seconds between two rotations of the X.509 authority; the first comes after half of that
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(30..=86_400))]
    rotate_every: u64,
    /// Seconds between two restarts of an application
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=86_400))]
    restart_every: u64,
    /// Seconds between two takeovers of a proxy by a new process
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    takeover_every: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(program) = beside("ravelin-proxy") else {
        eprintln!(
            "error: `ravelin-proxy` is missing: `cargo build --release -p ravelin-proxy` first"
        );
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads to run on: {error}");
            return ExitCode::from(2);
        }
    };
    let report = runtime.block_on(soak(&arguments, program));
    report.print();
    if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

async fn soak(arguments: &Arguments, program: std::path::PathBuf) -> Report {
    let mut site = SoakSite::start(program).await;
    let policy = Arc::new(PolicyState::default());
    let stop = CancellationToken::new();
    let flows = Flows::start(&site, &policy, &stop);
    let rhythm = Rhythm {
        rotate: Duration::from_secs(arguments.rotate_every),
        restart: Duration::from_secs(arguments.restart_every),
        takeover: Duration::from_secs(arguments.takeover_every),
    };
    let mut changes = Changes::new(rhythm, policy);
    let mut report = Report::default();
    for minute in 1..=arguments.minutes {
        changes.run_for(Duration::from_mins(1), &mut site).await;
        report.minute(minute, &flows, &site);
    }
    stop.cancel();
    flows.ended().await;
    report.finish(&flows, &changes, &site).await;
    report
}
