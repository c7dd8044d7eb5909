//! One thread of the data path: its listeners, live connections, upstream pools and counters. Shares nothing mutable.
//!
//! The control thread swaps in snapshots; the worker adopts them between two calls, judges its live connections by
//! them and reports the generation that it uses.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::clock::SharedClock;
use ravelin_runtime::drain::Drain;
use rustls::ClientConfig;
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::access_log::AccessLogSink;
use crate::capture::config::CaptureConfig;
use crate::config::ProxyConfig;
use crate::connections::{ConnectionLine, Connections, LiveConnection};
use crate::decision_log::DecisionSink;
use crate::identity::{self, IdentityError};
use crate::inbound::handshakes::Handshakes;
use crate::inbound::peers::Peers;
use crate::limits;
use crate::listener::{self, Bound};
use crate::metrics::Metrics;
use crate::metrics::meter::Meters;
use crate::pressure::Pressure;
use crate::snapshot::Snapshot;
use crate::token::Tokens;
use crate::trace::Tracer;
use crate::upstream::balancer::{Clusters, EndpointLine};
use crate::upstream::{Pool, Target};

/// What all workers have in common.
#[derive(Debug)]
pub struct Common {
    /// Configuration of the process.
    pub config: ProxyConfig,
    /// Wall time.
    pub clock: SharedClock,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// Ports of the process's own listeners.
    pub own_ports: BTreeSet<u16>,
}

/// A worker's ends of the channels to the control thread.
#[derive(Debug)]
pub struct WorkerPorts {
    /// Configuration to take into use.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Generation in use.
    pub adopted: watch::Sender<u64>,
    /// Questions of the admin listener.
    pub questions: mpsc::Receiver<Question>,
    /// Decision records.
    pub decisions: DecisionSink,
    /// Tokens, by keys that the control thread fetches.
    pub tokens: Tokens,
    /// Lines of the access log.
    pub access_log: AccessLogSink,
    /// Traces.
    pub tracer: Tracer,
    /// True when the listeners are to be served.
    pub is_open: watch::Receiver<bool>,
    /// Start of the drain.
    pub drain: Drain,
}

/// What the admin listener asks a worker.
#[derive(Debug)]
pub enum Question {
    /// The live connections.
    Connections(oneshot::Sender<Vec<ConnectionLine>>),
    /// The endpoints of the clusters in use.
    Clusters(oneshot::Sender<Vec<EndpointLine>>),
}

/// The state of one worker; everything in it belongs to one thread.
#[derive(Debug)]
pub struct Worker {
    common: Arc<Common>,
    snapshot: RefCell<Option<Arc<Snapshot>>>,
    connections: Rc<Connections>,
    applications: RefCell<HashMap<(SocketAddr, bool), Rc<Pool>>>,
    authorizers: RefCell<HashMap<(SocketAddr, bool), Rc<Pool>>>,
    clusters: Clusters,
    decisions: DecisionSink,
    access_log: AccessLogSink,
    tracer: Tracer,
    meters: Meters,
    tokens: Tokens,
    handshakes: Handshakes,
    peers: Peers,
    pressure: Pressure,
    checked: Rc<Cell<usize>>,
    call_ids: CallIds,
    drain: Drain,
}

/// Runs a worker on the current thread until its drain is over.
pub fn run(
    common: Arc<Common>,
    bound: Vec<(Bound, TcpListener)>,
    ports: WorkerPorts,
) -> std::io::Result<()> {
    // WHY: a `LocalSet` on a runtime of one thread would schedule every task twice.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(serve(common, bound, ports))
}

async fn serve(
    common: Arc<Common>,
    bound: Vec<(Bound, TcpListener)>,
    mut ports: WorkerPorts,
) -> std::io::Result<()> {
    let worker = Rc::new(Worker::new(
        common,
        ports.decisions,
        ports.access_log,
        ports.tracer,
        ports.tokens,
        ports.drain.clone(),
    ));
    worker.adopt(ports.snapshots.borrow_and_update().clone(), &ports.adopted);
    for (bound, socket) in bound {
        let listener = tokio::net::TcpListener::from_std(socket)?;
        let is_open = ports.is_open.clone();
        tokio::task::spawn_local(listener::accept(
            Rc::clone(&worker),
            bound,
            listener,
            is_open,
        ));
    }
    let mut look = interval(limits::PRESSURE_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut judge = interval(limits::JUDGE_EVERY);
    judge.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (draining, drain) = (Rc::clone(&worker), ports.drain.clone());
    let mut finished = std::pin::pin!(async move {
        drain.started().await;
        draining.finish().await;
    });
    // INVARIANT: live connections are judged until the last one has ended, also in a drain.
    loop {
        // WHY: every arm is cancel-safe: watch, interval and channel lose nothing when they are dropped.
        tokio::select! {
            changed = ports.snapshots.changed() => {
                if changed.is_err() {
                    break;
                }
                let snapshot = ports.snapshots.borrow_and_update().clone();
                worker.adopt(snapshot, &ports.adopted);
            }
            _ = judge.tick() => {
                worker.judge();
                worker.access_log.flush();
                worker.meters.tidy();
            }
            _ = look.tick(), if worker.pressure.is_bounded() => worker.pressure.look(),
            Some(question) = ports.questions.recv() => worker.answer(question),
            () = finished.as_mut() => break,
        }
    }
    Ok(())
}

impl Worker {
    fn new(
        common: Arc<Common>,
        decisions: DecisionSink,
        access_log: AccessLogSink,
        tracer: Tracer,
        tokens: Tokens,
        drain: Drain,
    ) -> Self {
        let pressure = Pressure::new(
            common
                .config
                .memory_max_mib
                .map(|mib| mib.saturating_mul(1 << 20)),
        );
        Self {
            meters: Meters::new(Arc::clone(&common.metrics.series)),
            access_log,
            tracer,
            common,
            snapshot: RefCell::new(None),
            connections: Rc::new(Connections::default()),
            applications: RefCell::new(HashMap::new()),
            authorizers: RefCell::new(HashMap::new()),
            clusters: Clusters::default(),
            decisions,
            tokens,
            handshakes: Handshakes::default(),
            peers: Peers::default(),
            pressure,
            checked: Rc::default(),
            call_ids: CallIds::new(),
            drain,
        }
    }

    /// The configuration in use; none before the first one arrived.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.borrow().clone()
    }

    /// Generation of the own SVID in use.
    pub fn identity_generation(&self) -> u64 {
        self.snapshot
            .borrow()
            .as_ref()
            .map_or(0, |snapshot| snapshot.identity_generation)
    }

    /// Wall time.
    pub fn now(&self) -> Timestamp {
        self.common.clock.now()
    }

    /// Proxies in front of this one that are believed.
    pub fn trusted_proxies(&self) -> usize {
        self.common.config.num_trusted_proxies
    }

    /// Which redirected connections are taken.
    pub fn capture(&self) -> &CaptureConfig {
        &self.common.config.capture
    }

    /// True for a port that this process listens on.
    pub fn is_own_port(&self, port: u16) -> bool {
        self.common.own_ports.contains(&port)
    }

    /// Metrics of the process.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.common.metrics
    }

    /// Live connections.
    pub fn connections(&self) -> &Rc<Connections> {
        &self.connections
    }

    /// Decision records.
    pub fn decisions(&self) -> &DecisionSink {
        &self.decisions
    }

    /// Lines of the access log.
    pub fn access_log(&self) -> &AccessLogSink {
        &self.access_log
    }

    /// Traces.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Series of calls and connections.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// Open connections of peers.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Memory of the process.
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// Bytes that are held for external authorizers.
    pub fn checked(&self) -> &Rc<Cell<usize>> {
        &self.checked
    }

    /// TLS handshakes with peers that are under way.
    pub fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    /// Judges tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Connections to other proxies.
    pub fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    /// Start of the drain.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Connections to the application at `address`, in plain text.
    pub fn application(&self, address: SocketAddr, is_http2: bool) -> Rc<Pool> {
        let mut applications = self.applications.borrow_mut();
        let pool = applications
            .entry((address, is_http2))
            .or_insert_with(|| Pool::new(Target::Application { address, is_http2 }));
        Rc::clone(pool)
    }

    /// Connections to the authorizer at `address`, in plain text.
    pub fn authorizer(&self, address: SocketAddr, is_http2: bool) -> Rc<Pool> {
        let mut authorizers = self.authorizers.borrow_mut();
        let pool = authorizers
            .entry((address, is_http2))
            .or_insert_with(|| Pool::new(Target::Authorizer { address, is_http2 }));
        Rc::clone(pool)
    }

    /// A new id for a call.
    pub fn call_id(&self) -> HeaderValue {
        self.call_ids.next()
    }

    /// TLS towards a peer that must be one of `expected`.
    pub fn client_config(
        &self,
        snapshot: &Snapshot,
        expected: &[SpiffeId],
        protocols: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, IdentityError> {
        identity::client_config(
            &snapshot.svid.identity,
            &snapshot.bundles,
            expected,
            protocols,
            &self.common.clock,
        )
    }

    fn adopt(&self, snapshot: Option<Arc<Snapshot>>, adopted: &watch::Sender<u64>) {
        let Some(snapshot) = snapshot else {
            return;
        };
        let old = self.snapshot.replace(Some(Arc::clone(&snapshot)));
        let is_rerouted = old
            .as_ref()
            .is_none_or(|old| !Arc::ptr_eq(&old.routes, &snapshot.routes));
        if is_rerouted {
            self.clusters.adopt(&snapshot.routes);
            // WHY: the same files name the authorizers; those that are still meant are dialled again.
            self.authorizers.borrow_mut().clear();
        }
        self.judge();
        adopted.send_replace(snapshot.generation);
    }

    fn judge(&self) {
        let Some(snapshot) = self.snapshot() else {
            return;
        };
        if let Some(before) = self.tokens.changed_since(&snapshot) {
            self.connections
                .authenticate_again(&self.tokens, &before, &snapshot);
        }
        self.connections.judge(&snapshot, self.now());
        self.tidy(snapshot.identity_generation);
        for pool in self.applications.borrow().values() {
            pool.tidy(snapshot.identity_generation);
        }
    }

    /// Lets go of connections that must not be used again, except those to the application.
    fn tidy(&self, generation: u64) {
        self.clusters.tidy(generation);
        for pool in self.authorizers.borrow().values() {
            pool.tidy(generation);
        }
    }

    /// Judges one new connection by the newest configuration, which may have changed during its handshake.
    pub fn judge_one(&self, connection: &LiveConnection) {
        if let Some(snapshot) = self.snapshot() {
            connection.judge(&snapshot, self.now());
        }
    }

    fn answer(&self, question: Question) {
        match question {
            Question::Connections(reply) => {
                // WHY: an asker that went away wants no answer.
                let _ = reply.send(self.connections.lines());
            }
            Question::Clusters(reply) => {
                let _ = reply.send(self.clusters.lines());
            }
        }
    }

    /// Waits until no connection is open, letting go of idle ones to peers.
    async fn drained(&self) {
        while !self.connections.is_empty() {
            self.tidy(u64::MAX);
            // WHY: a timeout only means another look at the pools.
            let _ = timeout(limits::LISTENER_LINGER, self.connections.emptied()).await;
        }
    }

    /// Lets calls in flight finish, then ends what is left.
    async fn finish(&self) {
        tokio::time::sleep(limits::LISTENER_LINGER).await;
        self.connections.drain();
        let is_drained = timeout(self.common.config.drain, self.drained())
            .await
            .is_ok();
        if !is_drained {
            tracing::warn!(
                connections = self.connections.len(),
                "drain deadline reached, cutting connections"
            );
            self.connections.end("drain_deadline");
            let cut = timeout(limits::CUT_DEADLINE, self.drained()).await;
            if cut.is_err() {
                tracing::warn!(
                    connections = self.connections.len(),
                    "connections did not end"
                );
            }
        }
    }
}

/// Ids of calls: a random start per worker and a count, printed like a UUID.
#[derive(Debug)]
struct CallIds {
    start: u64,
    count: Cell<u64>,
}

impl CallIds {
    fn new() -> Self {
        Self {
            start: u64::from_le_bytes(ravelin_runtime::crypto::random_bytes::<8>()),
            count: Cell::new(u64::from_le_bytes(
                ravelin_runtime::crypto::random_bytes::<8>(),
            )),
        }
    }

    fn next(&self) -> HeaderValue {
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        let id = (u128::from(self.start) << 64) | u128::from(count);
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = uuid::Uuid::from_u128(id)
            .hyphenated()
            .encode_lower(&mut text);
        HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}
