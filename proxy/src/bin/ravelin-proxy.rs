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
    /// Take the listeners over from the proxy that holds this socket, if one does; then hold it for the next one.
    #[arg(long, value_name = "SOCKET")]
    takeover: Option<PathBuf>,
    /// Validate the configuration and exit.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut config = match ProxyConfig::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{}", whole(&error));
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        println!("`{}` is valid", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    if arguments.takeover.is_some() {
        config.takeover = arguments.takeover;
    }
    match ravelin_proxy::run_program(config, Drain::new()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ (ProxyError::Config(_) | ProxyError::Bind(_))) => {
            eprintln!("{}", whole(&error));
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("{}", whole(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and what caused it, in one line; a cause that the text above it already tells is not repeated.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = next.source();
    }
    text
}
