//! `ravelin ca serve | agent serve | proxy serve`: the long-running parts, each from its configuration file.

use super::{block_on, capture, proxy_status};
use crate::arguments::Shared;
use crate::exit::{Exit, Failure, Outcome, chain};
use clap::{Args, Subcommand};
use ravelin_agent::AgentConfig;
use ravelin_ca::CaConfig;
use ravelin_proxy::ProxyConfig;
use ravelin_runtime::clock::SystemClock;
use ravelin_runtime::drain::Drain;
use ravelin_runtime::process;
use ravelin_runtime::telemetry::{self, TelemetryConfig};
use std::path::PathBuf;

/// The verbs of `ravelin ca`.
#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Run the certificate authority
    Serve(ServeArguments),
}

/// The verbs of `ravelin proxy`.
#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// Run the sidecar proxy
    Serve(ServeArguments),
    /// Show whether a running proxy is ready, its identity, what it uses and what it lost
    Status(proxy_status::AdminArguments),
    /// List the services that a running proxy sends calls to
    Routes(proxy_status::AdminArguments),
    /// List the endpoints that a running proxy has called
    Clusters(proxy_status::AdminArguments),
    /// List the open connections of a running proxy
    Connections(proxy_status::AdminArguments),
    /// Redirect an application's connections to its proxy, without the application's help
    Capture(capture::CaptureArguments),
}

/// Where the configuration is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin ca serve --config /etc/ravelin/ca.toml
  ravelin agent serve --config /etc/ravelin/agent.toml --check
`ravelin up` writes such files to .ravelin/; deploy/ has some to start from.")]
pub(crate) struct ServeArguments {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and end
    #[arg(long)]
    check: bool,
    /// End when the process that started this one ends
    #[arg(long)]
    exit_with_parent: bool,
}

impl ServeArguments {
    fn valid(&self) -> Outcome {
        say!("{} is valid", self.config.display())?;
        Ok(Exit::Yes)
    }

    fn tie_to_parent(&self) -> Result<(), Failure> {
        if !self.exit_with_parent {
            return Ok(());
        }
        process::exit_with_parent(None).map_err(|error| Failure::usage(error.to_string()))
    }
}

/// Runs the CA.
pub(crate) fn run_ca(command: CaCommand) -> Outcome {
    let CaCommand::Serve(arguments) = command;
    let config =
        CaConfig::load(&arguments.config).map_err(|error| Failure::usage(error.to_string()))?;
    config
        .check()
        .map_err(|error| Failure::usage(error.to_string()))?;
    if arguments.check {
        return arguments.valid();
    }
    arguments.tie_to_parent()?;
    prepare(&config.log)?;
    block_on(async move {
        let drain = signalled();
        let running = ravelin_ca::start(config, SystemClock::shared(), drain)
            .await
            .map_err(|error| Failure::usage(format!("the CA cannot start: {}", chain(&error))))?;
        running
            .wait()
            .await
            .map_err(|error| Failure::usage(format!("the CA ended: {}", chain(&error))))?;
        Ok(Exit::Yes)
    })
}

/// Runs the agent.
pub(crate) fn run_agent(arguments: ServeArguments) -> Outcome {
    let config =
        AgentConfig::load(&arguments.config).map_err(|error| Failure::usage(error.to_string()))?;
    if arguments.check {
        return arguments.valid();
    }
    arguments.tie_to_parent()?;
    prepare(&config.log)?;
    block_on(async move {
        let drain = signalled();
        let running = ravelin_agent::start(config, SystemClock::shared(), drain)
            .await
            .map_err(|error| {
                Failure::usage(format!("the agent cannot start: {}", chain(&error)))
            })?;
        running
            .wait()
            .await
            .map_err(|error| Failure::usage(format!("the agent ended: {}", chain(&error))))?;
        Ok(Exit::Yes)
    })
}

/// Runs the proxy, which brings its own threads, or redirects connections to it.
pub(crate) fn run_proxy(command: ProxyCommand, shared: Shared) -> Outcome {
    let arguments = match command {
        ProxyCommand::Serve(arguments) => arguments,
        ProxyCommand::Capture(arguments) => return capture::run(&arguments),
        ProxyCommand::Status(of) => return block_on(proxy_status::status(of, shared)),
        ProxyCommand::Routes(of) => return block_on(proxy_status::routes(of, shared)),
        ProxyCommand::Clusters(of) => return block_on(proxy_status::clusters(of, shared)),
        ProxyCommand::Connections(of) => return block_on(proxy_status::connections(of, shared)),
    };
    let config =
        ProxyConfig::load(&arguments.config).map_err(|error| Failure::usage(error.to_string()))?;
    if arguments.check {
        return arguments.valid();
    }
    arguments.tie_to_parent()?;
    ravelin_proxy::run_program(config, Drain::new())
        .map_err(|error| Failure::usage(format!("the proxy ended: {}", chain(&error))))?;
    Ok(Exit::Yes)
}

/// No core dumps, no ptrace; then logging.
fn prepare(log: &TelemetryConfig) -> Result<(), Failure> {
    process::harden()
        .map_err(|error| Failure::usage(format!("the process cannot be hardened: {error}")))?;
    telemetry::init(log).map_err(|error| Failure::usage(error.to_string()))
}

fn signalled() -> Drain {
    let drain = Drain::new();
    tokio::spawn(drain.clone().on_signals());
    drain
}
