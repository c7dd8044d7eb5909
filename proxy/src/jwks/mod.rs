//! Keys of remote issuers: fetched by the control thread, handed to the workers as one immutable value.
//!
//! A call never waits for a fetch: keys that are not there yet are a 401 (threat A9). Which addresses are fetched
//! follows from the policies in use; what may be connected to is judged in `address` (advisory A10, threat 46).

pub mod address;
mod fetch;
mod http;
pub mod metrics;
mod origin;
mod roots;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ravelin_policies::KeyAddress;
use ravelin_proto::jwks::JwkSet;
use ravelin_runtime::clock::SharedClock;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::config::JwksConfig;
use crate::limits;
use fetch::{FetchError, Fetched, Fetcher};
use metrics::JwksMetrics;
pub use origin::OriginLine;
use origin::{Origin, Schedule};
pub use roots::{Roots, RootsError};

/// Which addresses are wanted, each with the time that one fetch may take.
pub type WantedKeys = BTreeMap<KeyAddress, Duration>;

/// The keys of every remote issuer that has some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchedKeys(BTreeMap<KeyAddress, Arc<JwkSet>>);

impl FetchedKeys {
    /// The keys of one address; none while there are none.
    pub fn get(&self, address: &KeyAddress) -> Option<Arc<JwkSet>> {
        self.0.get(address).cloned()
    }
}

impl FromIterator<(KeyAddress, Arc<JwkSet>)> for FetchedKeys {
    fn from_iter<I: IntoIterator<Item = (KeyAddress, Arc<JwkSet>)>>(sets: I) -> Self {
        Self(sets.into_iter().collect())
    }
}

/// The fetchers' ends of the channels.
#[derive(Debug)]
pub struct FetchPorts {
    /// What the policies in use name.
    pub wanted: watch::Receiver<WantedKeys>,
    /// Addresses whose keys a worker missed.
    pub missing: mpsc::Receiver<KeyAddress>,
    /// Keys for the workers.
    pub keys: watch::Sender<Arc<FetchedKeys>>,
    /// State for the admin listener.
    pub lines: watch::Sender<Vec<OriginLine>>,
}

/// Fetches what is wanted, when it is due.
#[derive(Debug)]
pub struct Fetchers {
    fetcher: Arc<Fetcher>,
    schedule: Schedule,
    clock: SharedClock,
    metrics: JwksMetrics,
    ports: FetchPorts,
    origins: BTreeMap<KeyAddress, Origin>,
}

type Running = FuturesUnordered<Pin<Box<dyn Future<Output = Done>>>>;
type Done = (KeyAddress, Result<Fetched, FetchError>);

impl Fetchers {
    /// Nothing fetched yet.
    pub fn new(
        config: &JwksConfig,
        roots: Roots,
        clock: SharedClock,
        metrics: JwksMetrics,
        ports: FetchPorts,
    ) -> Self {
        Self {
            fetcher: Arc::new(Fetcher::new(config, roots)),
            schedule: Schedule::new(config),
            clock,
            metrics,
            ports,
            origins: BTreeMap::new(),
        }
    }

    /// Runs for as long as the process does.
    pub async fn run(mut self) {
        let mut running: Running = FuturesUnordered::new();
        self.want();
        loop {
            self.start(&mut running);
            let wakes_at = self.wakes_at(running.len() < limits::KEY_FETCHES_MAX);
            // WHY: every arm is cancel-safe: channels, timers and running fetches lose nothing when they are dropped.
            tokio::select! {
                changed = self.ports.wanted.changed() => match changed {
                    Ok(()) => self.want(),
                    Err(_) => return std::future::pending().await,
                },
                Some(address) = self.ports.missing.recv() => self.missing(&address),
                Some((address, result)) = running.next(), if !running.is_empty() => {
                    self.done(&address, result);
                }
                () = sleep_until(wakes_at.unwrap_or_else(Instant::now)), if wakes_at.is_some() => self.expire(),
            }
        }
    }

    /// Takes up new addresses and lets go of those that no policy names any more, with their keys.
    fn want(&mut self) {
        let wanted = self.ports.wanted.borrow_and_update().clone();
        self.origins
            .retain(|address, _| wanted.contains_key(address));
        let now = Instant::now();
        for (address, timeout) in wanted {
            self.origins
                .entry(address)
                .or_insert_with(|| Origin::new(now))
                .timeout = timeout;
        }
        self.metrics.keep(self.origins.keys());
        self.publish();
    }

    fn missing(&mut self, address: &KeyAddress) {
        if let Some(origin) = self.origins.get_mut(address) {
            origin.key_is_missing(Instant::now(), &self.schedule);
        }
    }

    fn start(&mut self, running: &mut Running) {
        let now = Instant::now();
        for (address, origin) in &mut self.origins {
            if running.len() >= limits::KEY_FETCHES_MAX {
                return;
            }
            if !origin.is_due(now) {
                continue;
            }
            origin.start(now);
            let (fetcher, clock) = (Arc::clone(&self.fetcher), Arc::clone(&self.clock));
            let (address, timeout) = (address.clone(), origin.timeout);
            running.push(Box::pin(async move {
                let result = fetcher.fetch(&address, timeout, &clock).await;
                (address, result)
            }));
        }
    }

    fn done(&mut self, address: &KeyAddress, result: Result<Fetched, FetchError>) {
        let code = result.as_ref().map_or_else(FetchError::code, |_| "ok");
        self.metrics.fetched(code);
        let Some(origin) = self.origins.get_mut(address) else {
            return;
        };
        let (now, entropy) = (Instant::now(), super::control::entropy());
        match result {
            Ok(fetched) => {
                let at = self.clock.now();
                self.metrics.succeeded(address, at);
                if fetched.left_out > 0 {
                    tracing::warn!(%address, left_out = fetched.left_out, "keys of an issuer are left out");
                }
                if fetched.private > 0 {
                    tracing::error!(%address, private = fetched.private, "an issuer publishes private keys, which are not used");
                }
                let keys = fetched.set.keys.len();
                if origin.succeeded(fetched.set, now, at, &self.schedule, entropy) {
                    tracing::info!(%address, keys, "other keys of an issuer in use");
                } else {
                    tracing::debug!(%address, keys, "the keys of an issuer are unchanged");
                }
            }
            Err(error) => {
                origin.failed(&error, now, &self.schedule, entropy);
                let pause = origin.next_at().saturating_duration_since(now);
                let has_keys = origin.keys().is_some();
                tracing::warn!(%address, code, %error, has_keys, ?pause, "the keys of an issuer cannot be fetched");
            }
        }
        self.expire();
    }

    /// Drops keys that are past their greatest age.
    fn expire(&mut self) {
        let now = Instant::now();
        for (address, origin) in &mut self.origins {
            if origin.expire(now, &self.schedule) {
                tracing::error!(%address, "the keys of an issuer are too old and no longer used");
            }
        }
        self.publish();
    }

    fn wakes_at(&self, may_start: bool) -> Option<Instant> {
        let wakes = self.origins.values();
        wakes
            .filter_map(|origin| origin.wakes_at(&self.schedule, may_start))
            .min()
    }

    /// INVARIANT: the workers get another value only when some key is another, since they forget verified tokens then.
    fn publish(&self) {
        let keys: FetchedKeys = self
            .origins
            .iter()
            .filter_map(|(address, origin)| Some((address.clone(), origin.keys()?)))
            .collect();
        self.ports.keys.send_if_modified(|known| {
            let is_other = **known != keys;
            if is_other {
                *known = Arc::new(keys);
            }
            is_other
        });
        let (now, at) = (Instant::now(), self.clock.now());
        let lines = self.origins.iter();
        let lines = lines.map(|(address, origin)| origin.line(address, now, at));
        self.ports.lines.send_replace(lines.collect());
    }
}

#[cfg(test)]
#[allow(
    clippy::too_many_lines,
    clippy::format_collect,
    reason = "tests are tables"
)]
mod tests;
