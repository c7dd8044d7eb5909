//! Runs commands as named workloads: the agent learns the name of a process before the process runs its first
//! instruction, and learns it again after the agent was restarted.

use crate::config;
use crate::connection::AgentAdmin;
use crate::exit::{Exit, Failure, Outcome};
use crate::limits;
use clap::Args;
use ravelin_proto::pb::ravelin::v1::{LaunchRequest, LaunchResponse};
use ravelin_runtime::process;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// The command and its name.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ravelin launch orders -- ./orders --listen 127.0.0.1:9101\nThe process gets the selector `launch:name:orders`."
)]
pub(crate) struct LaunchArguments {
    /// Name of the workload; becomes the selector `launch:name:NAME`
    name: String,
    /// The agent's admin socket; default `.ravelin/agent-admin.sock` if it is there
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<String>,
    /// The command to run
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// What to become.
#[derive(Debug, Args)]
pub(crate) struct GateArguments {
    /// The command to become
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Waits for one byte on stdin, then becomes the command. The process id stays, so what was registered for it holds.
pub(crate) fn gate(arguments: GateArguments) -> Outcome {
    process::exit_with_parent(None).map_err(|error| {
        Failure::usage(format!("cannot tie the process to its parent: {error}"))
    })?;
    let mut byte = [0_u8; 1];
    if !matches!(std::io::stdin().read(&mut byte), Ok(1)) {
        return Err(Failure::unreachable(
            "the launcher ended before it released this process",
        ));
    }
    let (program, rest) = split(&arguments.command)?;
    let error = std::process::Command::new(program)
        .args(rest)
        .stdin(Stdio::null())
        .exec();
    Err(Failure::usage(format!("cannot run `{program}`: {error}")))
}

/// Runs a command, registers it, and ends as it ends.
pub(crate) async fn run(arguments: LaunchArguments) -> Outcome {
    let socket = config::agent_admin_socket(arguments.admin_socket.as_deref());
    let registrar = Registrar::start(socket);
    let mut command = gated(&arguments.command)?;
    let mut child = command
        .spawn()
        .map_err(|error| Failure::usage(format!("cannot run the command: {error}")))?;
    if let Err(failure) = registrar.release(&arguments.name, &mut child).await {
        let _ = child.kill().await;
        return Err(failure);
    }
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| Failure::usage(format!("cannot listen for signals: {error}")))?;
    let status = tokio::select! {
        status = child.wait() => status,
        _ = stop.recv() => { terminate(&child); child.wait().await }
        _ = tokio::signal::ctrl_c() => { terminate(&child); child.wait().await }
    };
    let status =
        status.map_err(|error| Failure::usage(format!("cannot wait for the command: {error}")))?;
    Ok(if status.success() {
        Exit::Yes
    } else {
        Exit::No
    })
}

/// Tells a child to end.
pub(crate) fn terminate(child: &Child) {
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // WHY: the only error is that it has ended already.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// A command behind the gate, in a process group of its own, so that Ctrl-C reaches the launcher alone.
pub(crate) fn gated(command: &[String]) -> Result<Command, Failure> {
    let (program, rest) = split(command)?;
    let own = own_program()?;
    let program = if program == "ravelin" {
        own.clone()
    } else {
        PathBuf::from(program)
    };
    let mut gated = Command::new(own);
    gated
        .arg("gate")
        .arg("--")
        .arg(program)
        .args(rest)
        .stdin(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    Ok(gated)
}

/// The file of this very program.
pub(crate) fn own_program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::usage(format!("cannot find the program itself: {error}")))
}

fn split(command: &[String]) -> Result<(&str, &[String]), Failure> {
    command
        .split_first()
        .map(|(program, rest)| (program.as_str(), rest))
        .ok_or_else(|| Failure::usage("no command was given"))
}

struct Order {
    request: LaunchRequest,
    done: oneshot::Sender<()>,
}

/// Keeps processes registered with the agent, also across restarts of the agent.
#[derive(Clone)]
pub(crate) struct Registrar {
    orders: mpsc::Sender<Order>,
    socket: PathBuf,
}

impl Registrar {
    /// Starts the task that holds the stream to the agent.
    pub(crate) fn start(socket: PathBuf) -> Self {
        let (orders, receiver) = mpsc::channel(limits::LAUNCH_QUEUE);
        tokio::spawn(keep_registered(socket.clone(), receiver));
        Self { orders, socket }
    }

    /// Registers a gated child under a name, then lets it run.
    pub(crate) async fn release(&self, name: &str, child: &mut Child) -> Result<(), Failure> {
        let ended = || Failure::usage(format!("`{name}` ended before it was started"));
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or_else(ended)?;
        let start_time_ticks = process::start_time_ticks(pid).map_err(|_| ended())?;
        let (done, is_done) = oneshot::channel();
        let order = Order {
            request: LaunchRequest {
                name: name.to_owned(),
                pid,
                start_time_ticks,
            },
            done,
        };
        let unreachable = || {
            Failure::unreachable(format!(
                "the agent at `{}` did not register `{name}`",
                self.socket.display()
            ))
            .with_help("is the agent running? name its admin socket with --admin-socket")
        };
        self.orders.send(order).await.map_err(|_| unreachable())?;
        tokio::time::timeout(limits::PART_READY_DEADLINE, is_done)
            .await
            .map_err(|_| unreachable())?
            .map_err(|_| unreachable())?;
        open_gate(child)
            .await
            .map_err(|error| Failure::usage(format!("cannot start `{name}`: {error}")))
    }
}

/// Lets a gated child run.
pub(crate) async fn open_gate(child: &mut Child) -> std::io::Result<()> {
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(b"\n").await?;
        stdin.shutdown().await?;
    }
    Ok(())
}

#[derive(Default)]
struct Registered {
    processes: BTreeMap<i32, LaunchRequest>,
    waiting: BTreeMap<i32, oneshot::Sender<()>>,
}

impl Registered {
    fn add(&mut self, order: Order) {
        let pid = order.request.pid;
        self.processes.insert(pid, order.request);
        self.waiting.insert(pid, order.done);
    }
}

async fn keep_registered(socket: PathBuf, mut orders: mpsc::Receiver<Order>) {
    let mut registered = Registered::default();
    loop {
        // WHY: the agent answers a stream with its first request, so there is none without a process.
        if registered.processes.is_empty() {
            let Some(order) = orders.recv().await else {
                return;
            };
            registered.add(order);
        }
        // WHY: a bounded pause and no count: the launcher is useless without its agent, which may be away for hours.
        if let Some((requests, responses)) = open(&socket, &mut registered).await
            && !relay(&mut orders, &mut registered, requests, responses).await
        {
            return;
        }
        if orders.is_closed() {
            return;
        }
        tokio::time::sleep(limits::RESTART_PAUSE_MIN).await;
    }
}

type Responses = Streaming<LaunchResponse>;

async fn open(
    socket: &Path,
    registered: &mut Registered,
) -> Option<(mpsc::Sender<LaunchRequest>, Responses)> {
    registered.processes.retain(|pid, known| {
        process::start_time_ticks(*pid).is_ok_and(|ticks| ticks == known.start_time_ticks)
    });
    let (requests, receiver) = mpsc::channel(limits::LAUNCH_QUEUE);
    for known in registered.processes.values() {
        requests.try_send(known.clone()).ok()?;
    }
    let agent = AgentAdmin::connect(socket).await.ok()?;
    let responses = agent
        .launch()
        .register(ReceiverStream::new(receiver))
        .await
        .ok()?;
    Some((requests, responses.into_inner()))
}

/// Relays until the stream breaks (true) or nobody can give orders any more (false).
async fn relay(
    orders: &mut mpsc::Receiver<Order>,
    registered: &mut Registered,
    requests: mpsc::Sender<LaunchRequest>,
    mut responses: Responses,
) -> bool {
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some(order) = order else { return false };
                let request = order.request.clone();
                registered.add(order);
                if requests.send(request).await.is_err() {
                    return true;
                }
            }
            response = responses.message() => match response {
                Ok(Some(response)) => {
                    if let Some(done) = registered.waiting.remove(&response.pid) {
                        let _ = done.send(());
                    }
                }
                Ok(None) | Err(_) => return true,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ravelin_proto::pb::ravelin::v1::launch_server::{Launch, LaunchServer};
    use ravelin_runtime::drain::Drain;
    use ravelin_runtime::rpc::{RpcLimits, serve_uds};
    use ravelin_runtime::uds::UdsListener;
    use std::time::Duration;
    use tokio::task::JoinHandle;
    use tonic::service::Routes;
    use tonic::{Request, Response, Status};

    /// An agent that answers each registration and tells the test.
    struct FakeAgent {
        seen: mpsc::Sender<LaunchRequest>,
    }

    #[tonic::async_trait]
    impl Launch for FakeAgent {
        type RegisterStream = ReceiverStream<Result<LaunchResponse, Status>>;

        async fn register(
            &self,
            request: Request<Streaming<LaunchRequest>>,
        ) -> Result<Response<Self::RegisterStream>, Status> {
            let seen = self.seen.clone();
            let mut requests = request.into_inner();
            let (responses, receiver) = mpsc::channel(8);
            tokio::spawn(async move {
                while let Ok(Some(request)) = requests.message().await {
                    let (name, pid) = (request.name.clone(), request.pid);
                    let _ = responses.send(Ok(LaunchResponse { name, pid })).await;
                    let _ = seen.send(request).await;
                }
            });
            Ok(Response::new(ReceiverStream::new(receiver)))
        }
    }

    fn agent(socket: &Path, seen: mpsc::Sender<LaunchRequest>) -> (Drain, JoinHandle<()>) {
        let listener = UdsListener::bind(socket, 0o600).unwrap();
        let routes = Routes::new(LaunchServer::new(FakeAgent { seen }));
        let drain = Drain::new();
        let limits = RpcLimits {
            drain_deadline: Duration::ZERO,
            ..RpcLimits::default()
        };
        let serving = serve_uds(listener, routes, limits, drain.clone());
        let task = tokio::spawn(async move { serving.await.unwrap() });
        (drain, task)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_process_runs_once_it_is_registered_and_is_registered_again_after_the_agent_restarted()
     {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("a.sock");
        let (sender, mut seen) = mpsc::channel(8);
        let registrar = Registrar::start(socket.clone());
        let mut child = Command::new("sh")
            .args(["-c", "read line; exec tail -f /dev/null"])
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (first, task) = agent(&socket, sender.clone());
        registrar.release("orders", &mut child).await.unwrap();
        assert!(child.stdin.is_none(), "the gate was opened");
        let registered = seen.recv().await.unwrap();
        assert_eq!(registered.name, "orders");

        first.start();
        task.await.unwrap();
        let (_second, _task) = agent(&socket, sender);
        let again = tokio::time::timeout(Duration::from_secs(20), seen.recv());
        assert_eq!(again.await.unwrap().unwrap(), registered);
    }
}
