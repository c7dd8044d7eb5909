//! Decisions of the proxies on their way to the CA: collected, sealed into segments on disk,
//! shipped oldest first. A queue that is full drops what is new and counts it; nothing blocks a call.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message;
use ravelin_proto::pb::ravelin::v1::{Decision, DecisionSegment, audit_client::AuditClient};
use ravelin_runtime::backoff::Backoff;
use ravelin_runtime::drain::Drain;
use ravelin_runtime::durable;
use tokio::sync::Notify;

use crate::ca_client::{CaClient, CaError, call};
use crate::entropy;
use crate::limits;
use crate::metrics::Metrics;

const FILE_MODE: u32 = 0o600;
const ENDING: &str = "segment";

/// Where sealed segments wait.
#[derive(Debug)]
pub(crate) struct DecisionQueue {
    folder: PathBuf,
    open: Mutex<Open>,
    sealed: Mutex<Sealed>,
    ready: Notify,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Open {
    decisions: VecDeque<Decision>,
    lost: u64,
}

/// Segments on disk by name, which orders them by age, with their sizes.
#[derive(Debug, Default)]
struct Sealed {
    sizes: BTreeMap<String, u64>,
    bytes: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DecisionQueue {
    /// Opens the queue; segments of an earlier run are shipped first.
    pub(crate) fn open(folder: &Path, metrics: Metrics) -> io::Result<Self> {
        durable::create_private_dir(folder).map_err(io::Error::other)?;
        let mut sealed = Sealed::default();
        for file in std::fs::read_dir(folder)? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            if name.ends_with(ENDING) {
                sealed.add(name, file.metadata()?.len());
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            open: Mutex::default(),
            sealed: Mutex::new(sealed),
            ready: Notify::new(),
            metrics,
        })
    }

    /// Takes decisions of one proxy, judged as `workload`; `lost` were lost before they came here.
    pub(crate) fn push(&self, workload: &str, decisions: Vec<Decision>, lost: u64) {
        let mut open = lock(&self.open);
        open.lost = open.lost.saturating_add(lost);
        let mut dropped = 0_u64;
        for decision in decisions {
            let decision = Decision {
                workload: workload.to_owned(),
                ..decision
            };
            // WHY: one that the CA cannot take would hold up those of every other proxy.
            if open.decisions.len() >= limits::DECISIONS_IN_MEMORY_MAX
                || json_bytes_max(&decision) > limits::DECISION_BYTES_MAX
            {
                dropped = dropped.saturating_add(1);
                continue;
            }
            self.metrics.decisions.inc();
            open.decisions.push_back(decision);
        }
        open.lost = open.lost.saturating_add(dropped);
        self.metrics
            .decisions_lost
            .inc_by(lost.saturating_add(dropped));
    }

    /// Bytes that wait on disk.
    pub(crate) fn bytes(&self) -> u64 {
        lock(&self.sealed).bytes
    }

    /// Seals what is open until the drain, and once more then.
    pub(crate) async fn seal_until(self: Arc<Self>, drain: Drain) {
        while !drain.is_started() {
            tokio::select! {
                () = drain.started() => {}
                () = tokio::time::sleep(limits::SEGMENT_AGE_MAX) => {}
            }
            self.seal_all();
        }
    }

    fn seal_all(&self) {
        while let Some(segment) = self.next_segment() {
            self.seal(&segment);
        }
    }

    fn next_segment(&self) -> Option<DecisionSegment> {
        let mut open = lock(&self.open);
        if open.decisions.is_empty() {
            return None;
        }
        let count = open.decisions.len().min(limits::SEGMENT_DECISIONS_MAX);
        Some(DecisionSegment {
            segment_id: uuid::Uuid::now_v7().to_string(),
            decisions: open.decisions.drain(..count).collect(),
            lost: std::mem::take(&mut open.lost),
        })
    }

    fn seal(&self, segment: &DecisionSegment) {
        let bytes = segment.encode_to_vec();
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let name = format!("{}.{ENDING}", segment.segment_id);
        let has_room = self.bytes().saturating_add(size) <= limits::QUEUE_BYTES_MAX;
        let written = has_room
            && durable::write_atomically(&self.folder.join(&name), &bytes, FILE_MODE)
                .inspect_err(|error| tracing::error!(%error, "cannot keep decisions on disk"))
                .is_ok();
        if written {
            lock(&self.sealed).add(name, size);
            self.ready.notify_one();
            return;
        }
        let count = u64::try_from(segment.decisions.len()).unwrap_or(u64::MAX);
        tracing::warn!(
            decisions = count,
            "the queue of decisions is full: dropping"
        );
        self.metrics.decisions_lost.inc_by(count);
        let mut open = lock(&self.open);
        open.lost = open.lost.saturating_add(count).saturating_add(segment.lost);
    }

    fn oldest(&self) -> Option<String> {
        lock(&self.sealed).sizes.keys().next().cloned()
    }

    fn read(&self, name: &str) -> Option<DecisionSegment> {
        let bytes = std::fs::read(self.folder.join(name)).ok()?;
        DecisionSegment::decode(bytes.as_slice()).ok()
    }

    fn remove(&self, name: &str) {
        if let Err(error) = std::fs::remove_file(self.folder.join(name)) {
            // The CA knows the segment's id: a second delivery is not stored twice.
            tracing::warn!(%error, segment = name, "cannot remove a shipped segment");
        }
        let mut sealed = lock(&self.sealed);
        if let Some(size) = sealed.sizes.remove(name) {
            sealed.bytes = sealed.bytes.saturating_sub(size);
        }
    }

    /// Ships sealed segments to the CA until the drain.
    pub(crate) async fn ship_until(self: Arc<Self>, ca: Arc<CaClient>, drain: Drain) {
        let mut backoff = Backoff::new(limits::RECONNECT_FIRST, limits::RECONNECT_MAX);
        while !drain.is_started() {
            let Some(name) = self.oldest() else {
                // Cancel-safe: a permit that is not taken stays.
                tokio::select! {
                    () = drain.started() => {}
                    () = self.ready.notified() => {}
                }
                continue;
            };
            match self.ship(&ca, &name).await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    let pause = backoff.next(entropy::unit());
                    tracing::debug!(%error, retry_in = ?pause, "decisions wait for the CA");
                    tokio::select! {
                        () = drain.started() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    async fn ship(&self, ca: &CaClient, name: &str) -> Result<(), CaError> {
        let Some(segment) = self.read(name) else {
            tracing::error!(
                segment = name,
                "dropping a segment of decisions that cannot be read"
            );
            self.metrics.decisions_lost.inc();
            self.remove(name);
            lock(&self.open).lost += 1;
            return Ok(());
        };
        let count = u64::try_from(segment.decisions.len()).unwrap_or(u64::MAX);
        let mut client = AuditClient::new(ca.channel().await?);
        let lost = segment.lost;
        match call("AppendDecisions", client.append_decisions(segment)).await {
            Ok(_) => {
                self.metrics.decisions_shipped.inc_by(count);
            }
            Err(error) if error.is_malformed_request() => {
                tracing::error!(%error, segment = name, "the CA cannot take a segment of decisions: dropping it");
                self.metrics.decisions_lost.inc_by(count);
                let mut open = lock(&self.open);
                open.lost = open.lost.saturating_add(count).saturating_add(lost);
            }
            Err(error) => return Err(error),
        }
        self.remove(name);
        Ok(())
    }
}

/// At most so many bytes does its text come to as JSON: one that is escaped takes six.
fn json_bytes_max(decision: &Decision) -> usize {
    let is_escaped = |byte: &u8| byte.is_ascii_control() || matches!(byte, b'"' | b'\\');
    let bytes = decision.encode_to_vec();
    let escaped = bytes.iter().filter(|byte| is_escaped(byte)).count();
    bytes.len().saturating_add(escaped.saturating_mul(5))
}

impl Sealed {
    fn add(&mut self, name: String, size: u64) {
        self.sizes.insert(name, size);
        self.bytes = self.bytes.saturating_add(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions(count: usize) -> Vec<Decision> {
        vec![
            Decision {
                workload: "forged".into(),
                ..Decision::default()
            };
            count
        ]
    }

    #[test]
    fn decisions_survive_a_restart_in_order_and_under_the_attested_identity() {
        let folder = tempfile::tempdir().unwrap();
        let queue = DecisionQueue::open(folder.path(), Metrics::default()).unwrap();
        queue.push(
            "spiffe://td/a",
            decisions(limits::SEGMENT_DECISIONS_MAX + 1),
            3,
        );
        queue.seal_all();
        let again = DecisionQueue::open(folder.path(), Metrics::default()).unwrap();
        assert_eq!(again.bytes(), queue.bytes());
        let mut got = Vec::new();
        while let Some(name) = again.oldest() {
            let segment = again.read(&name).unwrap();
            assert!(
                segment
                    .decisions
                    .iter()
                    .all(|decision| decision.workload == "spiffe://td/a")
            );
            got.push((segment.decisions.len(), segment.lost));
            again.remove(&name);
        }
        assert_eq!(got, [(limits::SEGMENT_DECISIONS_MAX, 3), (1, 0)]);
        assert_eq!(again.bytes(), 0);
    }

    #[test]
    fn threat_64_a_decision_that_the_ca_would_refuse_does_not_hold_up_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        let queue = DecisionQueue::open(folder.path(), metrics.clone()).unwrap();
        let of = |path: String| Decision {
            path,
            ..Decision::default()
        };
        let long = "a".repeat(limits::DECISION_BYTES_MAX);
        let escaped = "\u{1}".repeat(limits::DECISION_BYTES_MAX / 6);
        let fine = "a".repeat(limits::DECISION_BYTES_MAX / 2);
        queue.push("w", vec![of(long), of(escaped), of(fine)], 0);
        assert_eq!(metrics.decisions_lost.get(), 2);
        queue.seal_all();
        let segment = queue.read(&queue.oldest().unwrap()).unwrap();
        assert_eq!((segment.decisions.len(), segment.lost), (1, 2));
    }

    #[test]
    fn a_full_queue_drops_what_is_new_and_counts_it() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        let queue = DecisionQueue::open(folder.path(), metrics.clone()).unwrap();
        queue.push("w", decisions(limits::DECISIONS_IN_MEMORY_MAX + 5), 0);
        assert_eq!(metrics.decisions_lost.get(), 5);
        lock(&queue.sealed).bytes = limits::QUEUE_BYTES_MAX;
        let all = u64::try_from(limits::DECISIONS_IN_MEMORY_MAX).unwrap();
        queue.seal_all();
        assert_eq!(metrics.decisions_lost.get(), 5 + all);
        lock(&queue.sealed).bytes = 0;
        queue.push("w", decisions(1), 0);
        queue.seal_all();
        let segment = queue.read(&queue.oldest().unwrap()).unwrap();
        assert_eq!(
            (segment.decisions.len(), segment.lost),
            (1, 5 + all),
            "the loss travels along"
        );
    }
}
