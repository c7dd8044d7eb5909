//! `ravelin up`: a whole mesh on this machine from one folder. It needs no root and no other program.
//!
//! The CA, the agent, the proxies and the workloads are child processes; the first three are this same program with
//! configuration files written to `.ravelin/`. Ctrl-C ends them in order; a child that dies is started again.

mod config_files;
mod decisions;
mod folder;
mod part;
mod plan;
mod start;
mod view;

pub(crate) use decisions::{deciding_rule, line as decision_line};
pub(crate) use plan::{Service, UpPlan};
pub(crate) use start::RunningMesh;

use crate::config;
use crate::exit::{Exit, Outcome};
use crate::{mesh_folder, tour};
use clap::Args;
use ravelin_proto::pb::ravelin::v1::MeshFile;
use ravelin_runtime::drain::Drain;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Which mesh, and what to do with it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin up                          the example shop; Ctrl-C ends it
  ravelin up --tour                   and show its calls with their decisions
  ravelin up --tour --exit            end after the tour; exit code 0 when every outcome was as declared
  ravelin up ./mesh --data /tmp/mesh  another mesh folder, another data folder")]
pub(crate) struct UpArguments {
    /// The mesh folder; default: the current one, else policies/examples/shop
    mesh: Option<PathBuf>,
    /// Make calls through the proxies and show each with its outcome and the deciding rule
    #[arg(long)]
    tour: bool,
    /// End once everything is up (with --tour: after the tour)
    #[arg(long)]
    exit: bool,
    /// Where state is kept
    #[arg(long, value_name = "FOLDER", default_value = config::UP_FOLDER)]
    data: PathBuf,
    /// Where the CA listens for agents
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    ca_listen: SocketAddr,
}

/// Brings the mesh up and keeps it up.
pub(crate) async fn run(arguments: UpArguments) -> Outcome {
    let mesh_path = config::mesh_folder(arguments.mesh.as_deref());
    let files = mesh_folder::read(&mesh_path)?;
    let mesh = mesh_folder::load(&files)?;
    let plan = UpPlan::new(&mesh, arguments.ca_listen)?;
    if arguments.tour {
        tour::check_mesh(&plan)?;
    }
    let folder = folder::UpFolder::open(&arguments.data, &plan.trust_domain)?;
    plan.check_addresses()?;
    config_files::write(&folder, &plan)?;

    let drain = Drain::new();
    tokio::spawn(drain.clone().on_signals());
    let mut running = RunningMesh::new(folder, plan);
    let outcome = tokio::select! {
        outcome = stay_up(&mut running, files, &arguments, &mesh_path) => outcome,
        () = drain.started() => {
            anstream::eprintln!("ending the mesh ...");
            Ok(Exit::Yes)
        }
    };
    running.end().await;
    outcome
}

async fn stay_up(
    running: &mut RunningMesh,
    files: Vec<MeshFile>,
    arguments: &UpArguments,
    mesh_path: &Path,
) -> Outcome {
    let since_ms = crate::output::now().unix_millis();
    running
        .start(files, mesh_folder::git_commit(mesh_path))
        .await?;
    view::print(running, mesh_path).await?;
    if arguments.tour {
        let outcome = tour::run(running).await?;
        if arguments.exit {
            return Ok(outcome);
        }
    } else if arguments.exit {
        return Ok(Exit::Yes);
    }
    decisions::follow(running, since_ms).await
}
