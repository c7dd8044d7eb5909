//! The sidecar proxy of Ravelin: mutual TLS, tokens and policy on every call, one decision record per call.
//!
//! N single-threaded data workers (`worker`) and one control thread (`control`); they share immutable snapshots and
//! bounded channels. Flow B of the design: `inbound` for what peers call, `outbound` for what the application calls.

pub mod access_log;
mod begun;
pub mod body;
pub mod body_counts;
pub mod capture;
pub mod config;
pub mod connection_line;
pub mod connections;
pub mod control;
pub mod decision_log;
pub mod denylist;
pub mod ext_authz;
pub mod forwarded;
pub mod head;
pub mod identity;
pub mod inbound;
pub mod jwks;
pub mod limits;
pub mod listener;
pub mod live_calls;
pub mod local;
pub mod metrics;
pub mod open_call;
pub mod open_tcp;
pub mod outbound;
pub mod pressure;
pub mod relay;
pub mod respond;
pub mod route;
pub mod serve;
pub mod snapshot;
pub mod takeover;
pub mod token;
pub mod trace;
pub mod tunnel;
pub mod upgrade;
pub mod upstream;
pub mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use ravelin_runtime::clock::{SharedClock, SystemClock};
use ravelin_runtime::drain::Drain;
use tokio::sync::{mpsc, watch};

use access_log::AccessLogSink;
use access_log::writer::Writer;
pub use config::{ConfigError, ProxyConfig};
use control::ControlPorts;
use decision_log::DecisionSink;
use jwks::{FetchPorts, Fetchers};
use listener::{BindError, Bound, Sockets};
use takeover::sockets::Inherited;
use takeover::{Takeover, TakeoverError};
use token::Tokens;
use trace::Tracer;
use trace::span::FinishedSpan;
use worker::{Common, WorkerPorts};

/// Why a proxy does not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listener cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Logging cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] ravelin_runtime::telemetry::TelemetryError),
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
    /// The access log cannot be opened.
    #[error(transparent)]
    AccessLog(#[from] access_log::writer::OpenError),
    /// Whom to trust outside cannot be read.
    #[error(transparent)]
    Roots(#[from] jwks::RootsError),
    /// Listeners cannot be taken over.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// A thread ended before the drain.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// A proxy whose listeners are open.
#[derive(Debug)]
pub struct Proxy {
    common: Arc<Common>,
    sockets: Vec<Sockets>,
    admin: Option<std::net::TcpListener>,
    access_log: Option<Writer>,
    roots: jwks::Roots,
    takeover: Takeover,
}

/// Opens the listeners of `config` and serves until `drain` is over. Blocks.
pub fn run(config: ProxyConfig, drain: Drain) -> Result<(), ProxyError> {
    Proxy::bind(config, SystemClock::shared())?.run(drain)
}

/// As [`run`], on the listeners that the service manager passed, where it passed some.
fn run_activated(
    config: ProxyConfig,
    inherited: Inherited,
    drain: Drain,
) -> Result<(), ProxyError> {
    Proxy::bind_inherited(config, SystemClock::shared(), inherited)?.run(drain)
}

/// What the program `ravelin-proxy` does: no core dumps, logging and signals, then [`run`].
///
/// Not more hardening than that: the agent must be able to attest the proxy by its executable.
pub fn run_program(config: ProxyConfig, drain: Drain) -> Result<(), ProxyError> {
    if let Err(error) = ravelin_runtime::process::forbid_core_dumps() {
        eprintln!("core dumps cannot be switched off: {error}");
    }
    ravelin_runtime::telemetry::init(&config.log)?;
    // WHY: before the first thread, since it clears the variables that say so.
    let inherited = Inherited::from_environment().map_err(TakeoverError::from)?;
    let signals = drain.clone();
    let spawned = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(signals.on_signals())
        });
    spawned.map_err(ProxyError::Thread)?;
    run_activated(config, inherited, drain)
}

impl Proxy {
    /// Checks `config` and opens its listeners.
    pub fn bind(config: ProxyConfig, clock: SharedClock) -> Result<Self, ProxyError> {
        Self::bind_inherited(config, clock, Inherited::default())
    }

    /// Checks `config` and opens its listeners, as far as they are neither among `inherited` nor with the proxy that holds
    /// the takeover socket.
    pub fn bind_inherited(
        config: ProxyConfig,
        clock: SharedClock,
        inherited: Inherited,
    ) -> Result<Self, ProxyError> {
        config.check()?;
        let (mut takeover, mut inherited) =
            Takeover::begin(&config.name, config.takeover.as_deref(), inherited)?;
        let sockets = listener::bind(&config, &mut inherited)?;
        let admin = config
            .admin
            .map(|address| listener::bind_admin(address, &mut inherited))
            .transpose()?;
        inherited.check_all_taken().map_err(TakeoverError::from)?;
        let held = sockets.iter().flat_map(|listener| &listener.sockets);
        for socket in held.chain(&admin) {
            takeover.hold(socket).map_err(ProxyError::Thread)?;
        }
        let roots = jwks::Roots::new(config.jwks.ca_file.clone())?;
        let own = sockets.iter().map(|sockets| sockets.address);
        let own_ports = own.chain(config.admin).map(|address| address.port());
        let metrics = metrics::Metrics::new();
        let access_log = Writer::start(&config.access_log.to, metrics.access_log_lost.clone())?;
        Ok(Self {
            common: Arc::new(Common {
                own_ports: own_ports.collect(),
                config,
                clock,
                metrics,
            }),
            sockets,
            admin,
            access_log,
            roots,
            takeover,
        })
    }

    /// Where the HTTP outbound listener is.
    pub fn outbound_address(&self) -> Option<SocketAddr> {
        self.address_of(|bound| matches!(bound, Bound::Outbound))
    }

    /// Where the inbound listeners are, in the order of the configuration.
    pub fn inbound_addresses(&self) -> Vec<SocketAddr> {
        self.addresses_of(|bound| matches!(bound, Bound::Inbound(_)))
    }

    /// Where captured connections of peers are redirected to.
    pub fn captured_inbound_address(&self) -> Option<SocketAddr> {
        self.address_of(|bound| matches!(bound, Bound::CapturedInbound))
    }

    /// Where the HTTP listeners for one service are, in the order of the configuration.
    pub fn http_outbound_addresses(&self) -> Vec<SocketAddr> {
        self.addresses_of(|bound| matches!(bound, Bound::HttpOutbound(_)))
    }

    /// Where the plain TCP listeners are, in the order of the configuration.
    pub fn tcp_outbound_addresses(&self) -> Vec<SocketAddr> {
        self.addresses_of(|bound| matches!(bound, Bound::TcpOutbound(_)))
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
            .as_ref()
            .and_then(|admin| admin.local_addr().ok())
    }

    fn address_of(&self, is_wanted: fn(&Bound) -> bool) -> Option<SocketAddr> {
        self.addresses_of(is_wanted).first().copied()
    }

    fn addresses_of(&self, is_wanted: fn(&Bound) -> bool) -> Vec<SocketAddr> {
        self.sockets
            .iter()
            .filter(|sockets| is_wanted(&sockets.bound))
            .map(|sockets| sockets.address)
            .collect()
    }

    /// Serves until `drain` was started and is over. Blocks.
    pub fn run(mut self, drain: Drain) -> Result<(), ProxyError> {
        let workers = self.common.config.worker_count();
        let (decisions, records) = mpsc::channel(limits::DECISION_QUEUE_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let snapshots = watch::Sender::new(None);
        let (finished, is_finished) = watch::channel(false);
        let open = watch::Sender::new(!self.takeover.is_inherited());
        let (fetched, keys) = watch::channel(Arc::default());
        let (missing, missed) = mpsc::channel(limits::MISSING_KEYS_QUEUE_MAX);
        let (spans, finished_spans) = self.spans();
        let (mut adopted, mut questions) = (Vec::new(), Vec::new());
        let mut threads = Vec::new();
        for (index, bound) in per_worker(std::mem::take(&mut self.sockets), workers)
            .into_iter()
            .enumerate()
        {
            let (adopted_sender, adopted_receiver) = watch::channel(0);
            let (question_sender, question_receiver) = mpsc::channel(limits::ADMIN_QUEUE_MAX);
            adopted.push(adopted_receiver);
            questions.push(question_sender);
            let sample = self.common.config.decision_sample_allowed;
            let ports = WorkerPorts {
                snapshots: snapshots.subscribe(),
                adopted: adopted_sender,
                questions: question_receiver,
                decisions: DecisionSink::new(decisions.clone(), Arc::clone(&lost), sample),
                tokens: Tokens::new(keys.clone(), missing.clone()),
                access_log: self.access_log_sink(),
                tracer: self.tracer(spans.clone()),
                is_open: open.subscribe(),
                drain: drain.clone(),
            };
            let common = Arc::clone(&self.common);
            threads.push(spawn(format!("worker-{index}"), &drain, move || {
                worker::run(common, bound, ports).map_err(ProxyError::Thread)
            })?);
        }
        drop((decisions, spans));
        let (wanted_keys, wanted) = watch::channel(jwks::WantedKeys::default());
        let (lines, key_origins) = watch::channel(Vec::new());
        let fetchers = Fetchers::new(
            &self.common.config.jwks,
            self.roots,
            Arc::clone(&self.common.clock),
            self.common.metrics.jwks.clone(),
            FetchPorts {
                wanted,
                missing: missed,
                keys: fetched,
                lines,
            },
        );
        let ports = ControlPorts {
            snapshots,
            adopted,
            questions,
            decisions: records,
            lost,
            finished: is_finished,
            wanted_keys,
            fetchers,
            key_origins,
            spans: finished_spans,
            open,
            drain: drain.clone(),
        };
        let (common, admin, takeover) = (self.common, self.admin, self.takeover);
        let control = spawn("control".to_owned(), &drain, move || {
            control::run(common, admin, takeover, ports)
        })?;
        join_all(threads, self.access_log, &finished, control)
    }
}

impl Proxy {
    fn access_log_sink(&self) -> AccessLogSink {
        let common = &self.common;
        let lost = common.metrics.access_log_lost.clone();
        let queue = self.access_log.as_ref().map(Writer::queue);
        AccessLogSink::new(queue, &common.config.access_log, lost)
    }

    fn tracer(&self, spans: Option<mpsc::Sender<FinishedSpan>>) -> Tracer {
        let common = &self.common;
        let lost = common.metrics.spans_lost.clone();
        Tracer::new(spans, lost, common.config.tracing.sample)
    }

    /// The queue of spans, where they are exported.
    fn spans(&self) -> SpanQueue {
        let is_on = self.common.config.tracing.endpoint.is_some();
        is_on.then(|| mpsc::channel(limits::SPAN_QUEUE_MAX)).unzip()
    }
}

type SpanQueue = (
    Option<mpsc::Sender<FinishedSpan>>,
    Option<mpsc::Receiver<FinishedSpan>>,
);

/// Turns one list of sockets per listener into one list per worker.
fn per_worker(sockets: Vec<Sockets>, workers: usize) -> Vec<Vec<(Bound, std::net::TcpListener)>> {
    let mut per_worker: Vec<Vec<(Bound, std::net::TcpListener)>> = Vec::new();
    per_worker.resize_with(workers, Vec::new);
    for listener in sockets {
        let mut sockets = listener.sockets.into_iter();
        // WHY: inherited sockets may be more than the workers; each must have one that accepts from it.
        while !sockets.as_slice().is_empty() {
            for (worker, socket) in per_worker.iter_mut().zip(&mut sockets) {
                worker.push((listener.bound.clone(), socket));
            }
        }
    }
    per_worker
}

type Thread = JoinHandle<Result<(), ProxyError>>;

/// Starts a thread whose end, however it comes, begins the drain of the others.
fn spawn(
    name: String,
    drain: &Drain,
    body: impl FnOnce() -> Result<(), ProxyError> + Send + 'static,
) -> Result<Thread, ProxyError> {
    struct StartOnDrop(Drain);
    impl Drop for StartOnDrop {
        fn drop(&mut self) {
            self.0.start();
        }
    }
    let guard = StartOnDrop(drain.clone());
    std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            let _guard = guard;
            body()
        })
        .map_err(ProxyError::Thread)
}

/// Waits for the workers, then for what they wrote, then for the control thread, which sends their last records.
fn join_all(
    workers: Vec<Thread>,
    access_log: Option<Writer>,
    finished: &watch::Sender<bool>,
    control: Thread,
) -> Result<(), ProxyError> {
    let mut result = Ok(());
    for worker in workers {
        result = result.and(join(worker, "a worker"));
    }
    if let Some(access_log) = access_log {
        access_log.finish(limits::FLUSH_DEADLINE);
    }
    finished.send_replace(true);
    result.and(join(control, "the control thread"))
}

fn join(thread: Thread, what: &'static str) -> Result<(), ProxyError> {
    match thread.join() {
        Ok(ended) => ended,
        Err(_) => Err(ProxyError::Ended(what)),
    }
}
