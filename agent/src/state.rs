//! What the agent's tasks share: the pure cores behind short locks, and the signals between tasks.
//!
//! No lock is held across an await. Whoever changes a core wakes whom the core names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ravelin_proto::convert::ConvertError;
use ravelin_proto::pb::ravelin::v1::{MeshFile, ProxyAck, SyncResponse, sync_request};
use ravelin_proto::selector::Selector;
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::time::Timestamp;
use ravelin_runtime::clock::SharedClock;
use tokio::sync::{Notify, watch};

use crate::cache::{
    Cache, DeltaRefusal, JwtCache, SubscriberId, WorkloadView, X509Svid, is_token_denied,
};
use crate::delta;
use crate::mesh::{MeshRefusal, MeshStore};
use crate::proxies::{OwnAck, ProxyId, ProxyTable, ProxyTableFull};
use crate::renewal::Authorities;
use crate::storage::{StoredSvid, StoredSvids};

/// Why a message of the CA is not taken into use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncRefusal {
    /// It cannot be read.
    #[error(transparent)]
    Malformed(#[from] ConvertError),
    /// The cache refuses it.
    #[error(transparent)]
    Delta(#[from] DeltaRefusal),
    /// The mesh revision in it is refused.
    #[error(transparent)]
    Mesh(#[from] MeshRefusal),
}

/// What a person is told about the agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// A sync stream is open and its first message is in use.
    pub is_synced: bool,
    /// When the last message of the CA came.
    pub last_sync_at: Option<Timestamp>,
    /// The last thing that went wrong and was not mended since.
    pub last_error: String,
    /// Why the last message of the CA was not taken.
    pub refusal: String,
}

/// The agent's shared state.
#[derive(Debug)]
pub(crate) struct State {
    trust_domain: TrustDomain,
    clock: SharedClock,
    cache: Mutex<Cache>,
    jwts: Mutex<JwtCache>,
    proxies: Mutex<ProxyTable>,
    mesh: Mutex<MeshStore>,
    own: Mutex<Option<Arc<X509Svid>>>,
    progress: Mutex<Progress>,
    wakers: Mutex<BTreeMap<SubscriberId, Arc<Notify>>>,
    /// Something may have become due to sign.
    pub issue_due: Notify,
    /// Ticks when an acknowledgement may read differently.
    pub ack_tick: watch::Sender<u64>,
    /// Ticks when the workloads' SVIDs changed.
    pub svids_tick: watch::Sender<u64>,
    /// Ticks when mesh, deny-list, bundle or authorities changed.
    pub config_tick: watch::Sender<u64>,
    /// Ticks when the CA and the agent do not trust each other (any more).
    pub(crate) distrust_tick: watch::Sender<u64>,
    /// Ticks when the agent's own SVID changed.
    pub own_tick: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tick(sender: &watch::Sender<u64>) {
    sender.send_modify(|count| *count = count.wrapping_add(1));
}

impl State {
    /// An empty state.
    pub(crate) fn new(trust_domain: TrustDomain, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            cache: Mutex::new(Cache::new(trust_domain.clone())),
            trust_domain,
            clock,
            jwts: Mutex::default(),
            proxies: Mutex::default(),
            mesh: Mutex::default(),
            own: Mutex::default(),
            progress: Mutex::default(),
            wakers: Mutex::default(),
            issue_due: Notify::new(),
            ack_tick: watch::Sender::new(0),
            svids_tick: watch::Sender::new(0),
            config_tick: watch::Sender::new(0),
            distrust_tick: watch::Sender::new(0),
            own_tick: watch::Sender::new(0),
        })
    }

    /// The trust domain of this agent.
    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The clock.
    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// Looks at the cache.
    pub(crate) fn with_cache<T>(&self, look: impl FnOnce(&Cache) -> T) -> T {
        look(&lock(&self.cache))
    }

    /// The node attested anew: the next bundle counts even if it is older than the one held.
    pub(crate) fn trust_anew(&self) {
        lock(&self.cache).trust_anew();
    }

    /// Works on the cache of JWT-SVIDs.
    pub(crate) fn with_jwts<T>(&self, work: impl FnOnce(&mut JwtCache) -> T) -> T {
        work(&mut lock(&self.jwts))
    }

    /// Looks at the mesh revisions held.
    pub(crate) fn with_mesh<T>(&self, look: impl FnOnce(&MeshStore) -> T) -> T {
        look(&lock(&self.mesh))
    }

    /// Takes a message of the CA, or the snapshot from disk, into use: all of it or nothing.
    pub(crate) fn apply(&self, response: SyncResponse) -> Result<(), SyncRefusal> {
        let (delta, mesh) = delta::from_pb(response)?;
        let touched = {
            let mut store = lock(&self.mesh);
            let mut next = store.clone();
            if let Some(mesh) = mesh {
                next.take(mesh, mesh_digest)?;
            }
            let touched = lock(&self.cache).apply(delta, self.now())?;
            *store = next;
            touched
        };
        self.drop_stale_jwts();
        self.wake(&touched);
        tick(&self.config_tick);
        tick(&self.svids_tick);
        self.issue_due.notify_one();
        tick(&self.ack_tick);
        Ok(())
    }

    /// JWT-SVIDs of entries that are gone, of keys that are tainted, removed or being replaced, and on the deny-list.
    fn drop_stale_jwts(&self) {
        let (keys, authorities, ids, denylist) = self.with_cache(|cache| {
            let keys: BTreeSet<String> = cache.bundle().map_or_else(BTreeSet::new, |bundle| {
                bundle
                    .jwt_authorities
                    .iter()
                    .filter(|authority| !authority.is_tainted)
                    .map(|authority| authority.key_id.clone())
                    .collect()
            });
            let ids: BTreeMap<String, SpiffeId> = cache
                .entries()
                .map(|entry| (entry.id.clone(), entry.spiffe_id.clone()))
                .collect();
            (keys, cache.authorities().clone(), ids, cache.denylist())
        });
        self.with_jwts(|jwts| {
            jwts.retain(
                |entry_id, spiffe_id| ids.get(entry_id) == Some(spiffe_id),
                |token| {
                    keys.contains(&token.key_id)
                        && is_jwt_key_current(&authorities, &token.key_id)
                        && !is_token_denied(&denylist, token)
                },
            );
        });
    }

    /// The whole state for the disk.
    pub(crate) fn snapshot(&self) -> SyncResponse {
        let mesh = self.with_mesh(MeshStore::held);
        self.with_cache(|cache| delta::snapshot(cache, mesh.map(|mesh| mesh.as_ref().clone())))
    }

    /// The workloads' SVIDs for the disk.
    pub(crate) fn stored_svids(&self) -> StoredSvids {
        self.with_cache(|cache| StoredSvids {
            svids: cache.svids().map(|(id, svid)| stored(id, svid)).collect(),
        })
    }

    /// Takes the workloads' SVIDs back from disk.
    pub(crate) fn restore_svids(&self, stored: StoredSvids) {
        let now = self.now();
        let mut cache = lock(&self.cache);
        for kept in stored.svids {
            match read_stored(&kept) {
                Ok(svid) if svid.is_live(now) => cache.restore_svid(&kept.entry_id, svid),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(entry = ?kept.entry_id, %error, "leaving out an SVID from disk");
                }
            }
        }
    }

    /// Keeps a new SVID of a workload; false when it may not be handed out (any more).
    pub(crate) fn store_svid(&self, entry_id: &str, svid: X509Svid) -> bool {
        let Some(touched) = lock(&self.cache).store_svid(entry_id, svid) else {
            return false;
        };
        self.wake(&touched);
        tick(&self.svids_tick);
        tick(&self.ack_tick);
        true
    }

    /// No SVID for this entry for now.
    pub(crate) fn note_failure(
        &self,
        entry_id: &str,
        message: &str,
        pause: impl Fn(u32) -> std::time::Duration,
    ) {
        let touched = lock(&self.cache).note_failure(entry_id, message, pause, self.now());
        self.wake(&touched);
    }

    /// The CA can be reached again: what failed may be tried at once.
    pub(crate) fn clear_failures(&self) {
        lock(&self.cache).clear_failures();
        self.issue_due.notify_one();
    }

    /// Drops what has expired. Counts of live SVIDs may read differently from then on.
    pub(crate) fn expire(&self) {
        if let Some(touched) = lock(&self.cache).expire(self.now()) {
            self.wake(&touched);
            tick(&self.svids_tick);
        }
        tick(&self.ack_tick);
    }

    /// Opens a subscription; it ends when it is dropped.
    pub(crate) fn subscribe(self: &Arc<Self>, selectors: BTreeSet<Selector>) -> Subscription {
        let id = lock(&self.cache).subscribe(selectors.clone(), self.now());
        let changed = Arc::new(Notify::new());
        lock(&self.wakers).insert(id, Arc::clone(&changed));
        self.issue_due.notify_one();
        Subscription {
            state: Arc::clone(self),
            id,
            selectors,
            changed,
        }
    }

    fn wake(&self, subscribers: &BTreeSet<SubscriberId>) {
        let wakers = lock(&self.wakers);
        for subscriber in subscribers {
            if let Some(changed) = wakers.get(subscriber) {
                changed.notify_one();
            }
        }
    }

    /// The agent's own SVID.
    pub(crate) fn own(&self) -> Option<Arc<X509Svid>> {
        lock(&self.own).clone()
    }

    /// Takes a new SVID of the agent into use.
    pub(crate) fn set_own(&self, svid: X509Svid) {
        *lock(&self.own) = Some(Arc::new(svid));
        tick(&self.own_tick);
        tick(&self.ack_tick);
    }

    /// The CA and the agent do not trust each other: the node has to attest again.
    pub(crate) fn note_distrust(&self) {
        tick(&self.distrust_tick);
    }

    /// What a person is told.
    pub(crate) fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    /// Changes what a person is told.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.progress));
    }

    /// A proxy opened its stream.
    pub(crate) fn attach_proxy(
        &self,
        name: &str,
        id: &SpiffeId,
    ) -> Result<ProxyId, ProxyTableFull> {
        let proxy = lock(&self.proxies).attach(name, id.as_str())?;
        tick(&self.ack_tick);
        Ok(proxy)
    }

    /// A proxy acknowledged.
    pub(crate) fn acknowledge_proxy(&self, proxy: ProxyId, ack: ProxyAck) {
        lock(&self.proxies).acknowledge(proxy, ack);
        tick(&self.ack_tick);
    }

    /// A proxy is gone.
    pub(crate) fn detach_proxy(&self, proxy: ProxyId) {
        lock(&self.proxies).detach(proxy);
        tick(&self.ack_tick);
    }

    /// What each proxy has acknowledged.
    pub(crate) fn proxy_acks(&self) -> Vec<ProxyAck> {
        lock(&self.proxies).acks()
    }

    /// The acknowledgement as it stands now.
    pub(crate) fn compose_ack(&self) -> sync_request::Ack {
        let now = self.now();
        let mut own = self.with_cache(|cache| OwnAck {
            revision: cache.revision(),
            bundle_sequence: cache.bundle_sequence(),
            denylist_number: cache.denylist().number,
            x509_svids_by_authority: cache.svids_by_authority(now),
            ..OwnAck::default()
        });
        if let Some(svid) = self.own().filter(|svid| svid.is_live(now)) {
            let count = own
                .x509_svids_by_authority
                .entry(svid.authority_id.clone())
                .or_default();
            *count = count.saturating_add(1);
        }
        own.jwt_svids_by_authority = self.with_jwts(|jwts| jwts.by_authority(now));
        own.mesh_revision = self.with_mesh(MeshStore::revision);
        own.refusal = self.progress().refusal;
        lock(&self.proxies).compose(own)
    }
}

/// False for a key that is being replaced: its tokens are not handed out while a reissue runs.
pub(crate) fn is_jwt_key_current(authorities: &Authorities, key_id: &str) -> bool {
    !authorities.is_reissue || authorities.active_jwt.is_empty() || authorities.active_jwt == key_id
}

/// An SVID as it lies on disk.
pub(crate) fn stored(entry_id: &str, svid: &X509Svid) -> StoredSvid {
    StoredSvid {
        entry_id: entry_id.to_owned(),
        chain: svid.chain.clone(),
        key: svid.key.to_vec(),
        entry_revision: svid.entry_revision,
        issued_at_ms: svid.issued_at.unix_millis(),
    }
}

/// An SVID back from disk.
pub(crate) fn read_stored(stored: &StoredSvid) -> Result<X509Svid, crate::cache::SvidError> {
    X509Svid::parse(
        stored.chain.clone(),
        ravelin_proto::secret::Secret::new(stored.key.clone()),
        stored.entry_revision,
        Timestamp::from_unix_millis(stored.issued_at_ms),
    )
}

fn mesh_digest(files: &[MeshFile]) -> String {
    ravelin_policies::set_digest(
        &files
            .iter()
            .map(|file| ravelin_policies::SourceFile {
                path: file.path.clone(),
                content: String::from_utf8_lossy(&file.content).into_owned(),
            })
            .collect::<Vec<_>>(),
    )
}

/// One open stream's place in the cache.
#[derive(Debug)]
pub(crate) struct Subscription {
    state: Arc<State>,
    id: SubscriberId,
    selectors: BTreeSet<Selector>,
    changed: Arc<Notify>,
}

impl Subscription {
    /// What the process may see now.
    pub(crate) fn view(&self) -> WorkloadView {
        let now = self.state.now();
        self.state
            .with_cache(|cache| cache.view(&self.selectors, now))
    }

    /// The selectors that it was opened with.
    pub(crate) fn selectors(&self) -> &BTreeSet<Selector> {
        &self.selectors
    }

    /// Returns when the view may have changed since the last call. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.state.wakers).remove(&self.id);
        lock(&self.state.cache).unsubscribe(self.id, self.state.now());
    }
}
