//! Where the two halves of the CA meet: registry, bundle, authorities, acknowledgements.
//!
//! The issuance half publishes what it has made durable; every `Sync` stream watches it here.

use std::sync::Arc;

use ravelin_proto::bundle::Bundle;
use ravelin_proto::pb::ravelin::v1::AuthorityState;
use tokio::sync::watch;

use crate::acks::AckTable;
use crate::audit::Sequencer;
use crate::registry::Snapshot;
use crate::store::Store;

/// Shared state of the CA. Clones share everything.
#[derive(Debug, Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    sequencer: Sequencer,
    bundle: watch::Sender<Arc<Bundle>>,
    authorities: watch::Sender<AuthorityState>,
    acks: AckTable,
}

impl Hub {
    /// A hub over the store, with an empty bundle until the issuance half publishes one.
    pub fn new(store: Store) -> Self {
        let bundle = Bundle {
            trust_domain: store.trust_domain().clone(),
            x509_authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            refresh_hint_secs: 0,
            sequence: 0,
        };
        Self {
            inner: Arc::new(Inner {
                sequencer: Sequencer::new(store.clone()),
                bundle: watch::Sender::new(Arc::new(bundle)),
                authorities: watch::Sender::new(AuthorityState::default()),
                acks: AckTable::new(Arc::clone(store.clock())),
                store,
            }),
        }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Appends events that come with no other write.
    pub fn sequencer(&self) -> &Sequencer {
        &self.inner.sequencer
    }

    /// Entries and agents as of the last commit.
    pub fn registry(&self) -> Arc<Snapshot> {
        self.inner.store.registry()
    }

    /// Ticks with the change-log revision: entries, agents and bans.
    pub fn agents_changed(&self) -> watch::Receiver<u64> {
        self.inner.store.revisions()
    }

    /// Publishes the trust bundle to every agent. An older sequence than the present is ignored.
    pub fn publish_bundle(&self, bundle: Bundle) {
        self.inner.bundle.send_if_modified(|present| {
            let is_newer = bundle.sequence >= present.sequence && **present != bundle;
            if is_newer {
                *present = Arc::new(bundle);
            }
            is_newer
        });
    }

    /// The bundle as published last.
    pub fn bundle(&self) -> Arc<Bundle> {
        Arc::clone(&self.inner.bundle.borrow())
    }

    /// Ticks with each published bundle.
    pub fn bundles(&self) -> watch::Receiver<Arc<Bundle>> {
        self.inner.bundle.subscribe()
    }

    /// Tells every agent which authorities sign, and whether to reissue.
    pub fn set_authorities(&self, state: AuthorityState) {
        self.inner.authorities.send_if_modified(|present| {
            let is_new = *present != state;
            if is_new {
                *present = state;
            }
            is_new
        });
    }

    /// Ticks when other authorities sign or reissue was switched.
    pub fn authorities(&self) -> watch::Receiver<AuthorityState> {
        self.inner.authorities.subscribe()
    }

    /// What agents and proxies have taken into use.
    pub fn acks(&self) -> &AckTable {
        &self.inner.acks
    }
}
