//! The control thread: configuration from the agent, decision records to it, and the admin listener.
//!
//! Nothing here is on the path of a call. While the agent is away the last good configuration stays in use.

pub mod admin;
pub mod agent;
pub mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ravelin_runtime::backoff::Backoff;
use ravelin_runtime::drain::Drain;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::ProxyError;
use crate::decision_log::CallRecord;
use crate::jwks::{Fetchers, OriginLine, WantedKeys};
use crate::limits;
use crate::metrics::{self, Metrics};
use crate::snapshot::Snapshot;
use crate::takeover::{Takeover, TakeoverPorts};
use crate::trace::span::FinishedSpan;
use crate::worker::{Common, Question};
use store::Store;

/// The control thread's ends of the channels to the workers.
#[derive(Debug)]
pub struct ControlPorts {
    /// Configuration for the workers.
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    /// What each worker uses.
    pub adopted: Vec<watch::Receiver<u64>>,
    /// Questions to each worker.
    pub questions: Vec<mpsc::Sender<Question>>,
    /// Records of all workers.
    pub decisions: mpsc::Receiver<CallRecord>,
    /// Records that found the queue full.
    pub lost: Arc<AtomicU64>,
    /// True once all workers have ended.
    pub finished: watch::Receiver<bool>,
    /// Which keys the policies in use name.
    pub wanted_keys: watch::Sender<WantedKeys>,
    /// Keys of remote issuers.
    pub fetchers: Fetchers,
    /// Spans of all workers, where they are exported.
    pub spans: Option<mpsc::Receiver<FinishedSpan>>,
    /// State of the fetchers.
    pub key_origins: watch::Receiver<Vec<OriginLine>>,
    /// Set when the listeners are to be served.
    pub open: watch::Sender<bool>,
    /// Start of the drain.
    pub drain: Drain,
}

/// The control thread's state.
#[derive(Debug)]
pub struct Control {
    common: Arc<Common>,
    store: Store,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    adopted: Vec<watch::Receiver<u64>>,
    decisions: mpsc::Receiver<CallRecord>,
    lost: Arc<AtomicU64>,
    lost_reported: u64,
    finished: watch::Receiver<bool>,
    wanted_keys: watch::Sender<WantedKeys>,
    ready: watch::Sender<bool>,
}

/// Runs the control thread until the workers have ended and their last records are sent.
pub fn run(
    common: Arc<Common>,
    admin: Option<std::net::TcpListener>,
    takeover: Takeover,
    ports: ControlPorts,
) -> Result<(), ProxyError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ProxyError::Thread)?;
    runtime.block_on(async move {
        let admin = admin.map(TcpListener::from_std).transpose();
        let admin = admin.map_err(ProxyError::Thread)?;
        let (ready, is_ready) = watch::channel(false);
        let (handed_over, is_handed_over) = watch::channel(false);
        let is_open = ports.open.subscribe();
        let takeover = takeover.run(TakeoverPorts {
            ready: is_ready,
            open: ports.open,
            handed_over,
            drain: ports.drain.clone(),
        });
        let state = admin::State::new(
            Arc::clone(&common),
            ports.snapshots.subscribe(),
            ports.questions,
            ports.key_origins,
            ports.drain.clone(),
        );
        let exporting = export(&common, ports.spans);
        let series = sweep(Arc::clone(&common));
        let control = Control {
            store: Store::new(Arc::clone(&common.clock)),
            common,
            snapshots: ports.snapshots,
            adopted: ports.adopted,
            decisions: ports.decisions,
            lost: ports.lost,
            lost_reported: 0,
            finished: ports.finished,
            wanted_keys: ports.wanted_keys,
            ready,
        };
        // WHY: the admin listener lives as long as the control loop, so that a drain can be watched; but one process at a
        // time answers on it.
        let admin = async {
            if reached(is_open).await {
                admin::serve(admin, state, reached(is_handed_over)).await;
            }
            std::future::pending::<()>().await;
        };
        let takeover = async {
            takeover.await?;
            std::future::pending().await
        };
        let result = tokio::select! {
            () = control.follow() => Ok(()),
            () = admin => Ok(()),
            () = ports.fetchers.run() => Ok(()),
            () = series => Ok(()),
            failed = takeover => failed,
        };
        if let Some(exporting) = exporting {
            // WHY: a collector that does not answer must not hold up the end.
            let _ = timeout(limits::FLUSH_DEADLINE, exporting).await;
        }
        result
    })
}

/// Lets idle series expire, also while nobody reads them.
async fn sweep(common: Arc<Common>) {
    let mut every = interval(limits::SERIES_SWEEP_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        common.metrics.series.sweep(common.clock.now());
    }
}

/// Starts the exporter of spans, which ends when the workers have ended.
#[cfg(feature = "otel")]
fn export(common: &Common, spans: Option<mpsc::Receiver<FinishedSpan>>) -> Option<JoinHandle<()>> {
    let config = &common.config;
    let (spans, endpoint) = (spans?, config.tracing.endpoint.as_ref()?);
    match crate::trace::export::Exporter::new(endpoint, &config.name, spans, &common.metrics) {
        Ok(exporter) => Some(tokio::spawn(exporter.run())),
        Err(error) => {
            tracing::error!(%error, "no spans are exported");
            None
        }
    }
}

/// This build exports no spans; a configuration that asks for them is refused.
#[cfg(not(feature = "otel"))]
fn export(_: &Common, _: Option<mpsc::Receiver<FinishedSpan>>) -> Option<JoinHandle<()>> {
    None
}

impl Control {
    /// Keeps the stream to the agent until the workers have ended.
    async fn follow(mut self) {
        let mut backoff = Backoff::new(limits::AGENT_PAUSE_MIN, limits::AGENT_PAUSE_MAX);
        loop {
            let ended = agent::session(&mut self, &mut backoff).await;
            self.metrics().agent_connected.set(0);
            match ended {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "no stream to the agent, keeping the last configuration");
                }
            }
            let pause = backoff.next(entropy());
            if timeout(pause, finished(&mut self.finished)).await.is_ok() {
                return;
            }
        }
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.common.metrics
    }

    /// Gives `snapshot` to the workers and waits until all of them use it.
    async fn publish(&mut self, snapshot: Arc<Snapshot>) -> bool {
        let generation = snapshot.generation;
        let metrics = self.metrics();
        metrics::set(&metrics.mesh_revision, snapshot.mesh_revision);
        metrics::set(&metrics.bundle_sequence, snapshot.bundle_sequence);
        metrics::set(&metrics.denylist_number, snapshot.denylist.number());
        metrics
            .svid_expires
            .set(snapshot.svid.expires_at.unix_secs());
        metrics::raise_to(&metrics.svid_changes, snapshot.identity_generation);
        let wanted = snapshot.policies.authentication().remote_keys();
        self.wanted_keys.send_if_modified(|known| {
            let is_other = *known != wanted;
            *known = wanted;
            is_other
        });
        self.snapshots.send_replace(Some(snapshot));
        let swapped = Instant::now();
        let adopted = timeout(limits::ADOPT_DEADLINE, self.all_adopted(generation)).await;
        let took = swapped.elapsed().as_secs_f64();
        self.metrics().config_swaps.observe(took);
        self.ready.send_replace(adopted.is_ok());
        adopted.is_ok()
    }

    async fn all_adopted(&mut self, generation: u64) {
        for worker in &mut self.adopted {
            // WHY: a worker that has ended uses nothing any more.
            let _ = worker.wait_for(|adopted| *adopted >= generation).await;
        }
    }

    /// Records lost since the last report.
    fn take_lost(&mut self) -> u64 {
        let total = self.lost.load(Ordering::Relaxed);
        metrics::raise_to(&self.common.metrics.decisions_lost, total);
        let lost = total.saturating_sub(self.lost_reported);
        self.lost_reported = total;
        lost
    }
}

/// True once `flag` is set; false when nobody can set it any more.
async fn reached(mut flag: watch::Receiver<bool>) -> bool {
    flag.wait_for(|is_set| *is_set).await.is_ok()
}

/// Waits until all workers have ended.
async fn finished(finished: &mut watch::Receiver<bool>) {
    // WHY: a sender that is gone means that the process is ending.
    let _ = finished.wait_for(|finished| *finished).await;
}

pub(crate) fn entropy() -> f64 {
    f64::from(u32::from_le_bytes(
        ravelin_runtime::crypto::random_bytes::<4>(),
    )) / f64::from(u32::MAX)
}
