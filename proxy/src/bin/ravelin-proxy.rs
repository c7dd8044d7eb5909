//! The sidecar alone: `ravelin-proxy --config FILE [--check]`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ravelin_proxy::{ProxyConfig, ProxyError};
use ravelin_runtime::drain::Drain;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The mTLS sidecar of Ravelin.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example: ravelin-proxy --config /etc/ravelin/proxies/orders.toml"
)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Validate the configuration and exit.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match ProxyConfig::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        println!("`{}` is valid", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    match ravelin_proxy::run_program(config, Drain::new()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ (ProxyError::Config(_) | ProxyError::Bind(_))) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
