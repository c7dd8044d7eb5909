//! A bounded load on one URL through a proxy: `cargo run --release -p ravelin-tests --bin load -- --help`.
//!
//! Prints calls, failures by status and latencies; exits 1 when a single call failed. A timing is printed, never judged.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use http::Uri;
use ravelin_tests::http_call::Call;
use ravelin_tests::load::{CALLS_MAX, LoadPlan, LoadReport};
use tokio_util::sync::CancellationToken;

/// Makes calls at a steady rate over kept connections, and counts every failure.
#[derive(Debug, Parser)]
#[command(
    after_help = "Example: from orders to inventory, through the proxies of `ravelin up`:
  cargo run --release -p ravelin-tests --bin load -- --url http://127.0.0.1:15201/inventory/apples --host inventory.shop --rps 1000 --secs 30"
)]
struct Arguments {
    /// Where to connect, and the path; the outbound listener of the caller's proxy
    #[arg(long)]
    url: Uri,
    /// The `Host` header; default: the URL's own
    #[arg(long)]
    host: Option<String>,
    /// Calls per second
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rps: u32,
    /// How long
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    secs: u64,
    /// Kept connections
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// The method
    #[arg(long, default_value = "GET")]
    method: http::Method,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let plan = match plan(&arguments) {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads to run on: {error}");
            return ExitCode::from(2);
        }
    };
    let stop = CancellationToken::new();
    let report = runtime.block_on(async {
        let interrupted = stop.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                interrupted.cancel();
            }
        });
        plan.run(stop).await
    });
    print(&report);
    if report.failed() == 0 && report.answered > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

fn plan(arguments: &Arguments) -> Result<LoadPlan, String> {
    let url = &arguments.url;
    if url.scheme_str() != Some("http") {
        return Err(format!("`{url}` does not begin with http://"));
    }
    let authority = url
        .authority()
        .ok_or_else(|| format!("`{url}` has no host"))?;
    let calls = u64::from(arguments.rps).saturating_mul(arguments.secs);
    if usize::try_from(calls).is_ok_and(|calls| calls > CALLS_MAX) {
        return Err(format!("{calls} calls are more than {CALLS_MAX}"));
    }
    let address = resolve(authority.host(), authority.port_u16().unwrap_or(80))?;
    let target = url
        .path_and_query()
        .map_or_else(|| "/".to_owned(), ToString::to_string);
    let host = arguments
        .host
        .clone()
        .unwrap_or_else(|| authority.to_string());
    Ok(LoadPlan {
        address,
        call: Call::get(&host, &target).with_method(arguments.method.clone()),
        calls_per_sec: arguments.rps,
        connections: arguments.connections,
        time: Duration::from_secs(arguments.secs),
    })
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    let mut found = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("`{host}` is not a host: {error}"))?;
    found
        .next()
        .ok_or_else(|| format!("`{host}` has no address"))
}

fn print(report: &LoadReport) {
    println!("calls     {}", report.calls());
    println!("answered  {}", report.answered);
    println!("failed    {}", report.failed());
    for (reason, count) in &report.failures {
        println!("  {count} x {reason}");
    }
    let secs = report.elapsed.as_secs_f64();
    println!("time      {secs:.1} s");
    println!("rate      {:.0} calls/s", report.calls_per_sec());
    for (name, share) in [("p50", 500), ("p90", 900), ("p99", 990), ("max", 1000)] {
        println!("{name}       {} us", report.latency_us(share));
    }
}
