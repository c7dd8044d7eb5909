//! Counters of fetches of keys.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use ravelin_policies::KeyAddress;
use ravelin_proto::time::Timestamp;

/// Labels of the count of fetches.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// Labels of what is known of one address.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AddressLabels {
    address: String,
}

/// Metrics of the fetchers; copies count the same.
#[derive(Clone, Debug, Default)]
pub struct JwksMetrics {
    fetches: Family<ResultLabels, Counter>,
    succeeded_at: Family<AddressLabels, Gauge>,
    known: Arc<Mutex<BTreeSet<String>>>,
}

impl JwksMetrics {
    /// Names them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "ravelin_proxy_jwks_fetches",
            "Fetches of keys by their result",
            self.fetches.clone(),
        );
        registry.register(
            "ravelin_proxy_jwks_fetched_timestamp_seconds",
            "Last good fetch of keys, Unix seconds",
            self.succeeded_at.clone(),
        );
    }

    pub(super) fn fetched(&self, result: &'static str) {
        self.fetches.get_or_create(&ResultLabels { result }).inc();
    }

    pub(super) fn succeeded(&self, address: &KeyAddress, at: Timestamp) {
        let address = address.to_string();
        let labels = AddressLabels {
            address: address.clone(),
        };
        self.succeeded_at.get_or_create(&labels).set(at.unix_secs());
        self.known().insert(address);
    }

    /// Forgets addresses that are no longer fetched.
    pub(super) fn keep<'a>(&self, addresses: impl Iterator<Item = &'a KeyAddress>) {
        let kept: BTreeSet<String> = addresses.map(ToString::to_string).collect();
        self.known().retain(|address| {
            let is_kept = kept.contains(address);
            if !is_kept {
                let address = address.clone();
                self.succeeded_at.remove(&AddressLabels { address });
            }
            is_kept
        });
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        // WHY: only the control thread comes here; the lock is for the copies' sake.
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
