//! One address of keys: what is held, and when it is asked again. Pure: times and entropy are arguments.

use std::sync::Arc;
use std::time::Duration;

use ravelin_policies::KeyAddress;
use ravelin_proto::jwks::JwkSet;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::backoff::Backoff;
use serde::Serialize;
use tokio::time::Instant;

use super::fetch::FetchError;
use crate::config::JwksConfig;
use crate::limits;

/// When keys are fetched and for how long they are good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) refresh: Duration,
    pub(super) max_age: Duration,
    pub(super) refetch_pause: Duration,
}

impl Schedule {
    pub(super) fn new(config: &JwksConfig) -> Self {
        Self {
            refresh: config.refresh,
            max_age: config.max_age,
            refetch_pause: config.refetch_pause,
        }
    }
}

/// The state of one address, as the admin listener shows it. No key, only their ids.
#[derive(Clone, Debug, Serialize)]
pub struct OriginLine {
    /// What the policies name.
    pub address: String,
    /// `jwks_uri` or `issuer`.
    pub kind: &'static str,
    /// `missing`: tokens are refused; `stale`: the last fetch failed, the last good keys are used; or `fresh`.
    pub state: &'static str,
    /// Ids of the keys in use; empty text for a key without one.
    pub key_ids: Vec<String>,
    /// When they were fetched.
    pub fetched_at: Option<Timestamp>,
    /// When the next fetch is due.
    pub next_fetch_at: Timestamp,
    /// Why the last fetch failed.
    pub failure: Option<String>,
}

#[derive(Debug)]
pub(super) struct Origin {
    pub(super) timeout: Duration,
    held: Option<Held>,
    started_at: Option<Instant>,
    is_running: bool,
    next_at: Instant,
    backoff: Backoff,
    failure: Option<String>,
}

#[derive(Debug)]
struct Held {
    set: Arc<JwkSet>,
    fetched_at: Instant,
    shown_at: Timestamp,
}

impl Origin {
    /// Due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            timeout: Duration::ZERO,
            held: None,
            started_at: None,
            is_running: false,
            next_at: now,
            backoff: Backoff::new(limits::KEY_FETCH_PAUSE_MIN, limits::KEY_FETCH_PAUSE_MAX),
            failure: None,
        }
    }

    pub(super) fn keys(&self) -> Option<Arc<JwkSet>> {
        self.held.as_ref().map(|held| Arc::clone(&held.set))
    }

    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.is_running && self.next_at <= now
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.is_running = true;
        self.started_at = Some(now);
    }

    /// True when the keys are others than before.
    pub(super) fn succeeded(
        &mut self,
        set: JwkSet,
        now: Instant,
        shown_at: Timestamp,
        schedule: &Schedule,
        entropy: f64,
    ) -> bool {
        self.is_running = false;
        self.failure = None;
        self.backoff.reset();
        // WHY: proxies that started together do not stay together.
        let jitter = 1.0 - 0.1 * entropy.clamp(0.0, 1.0);
        self.next_at = now + schedule.refresh.mul_f64(jitter);
        let known = self.keys().filter(|known| **known == set);
        let is_other = known.is_none();
        self.held = Some(Held {
            set: known.unwrap_or_else(|| Arc::new(set)),
            fetched_at: now,
            shown_at,
        });
        is_other
    }

    /// The last good keys stay in use, up to their greatest age.
    pub(super) fn failed(
        &mut self,
        error: &FetchError,
        now: Instant,
        schedule: &Schedule,
        entropy: f64,
    ) {
        self.is_running = false;
        self.failure = Some(format!("{}: {error}", error.code()));
        self.next_at = now + self.backoff.next(entropy).min(schedule.refresh);
    }

    /// A token named a key that is not here: the next fetch comes sooner, never before the pause is over.
    pub(super) fn key_is_missing(&mut self, now: Instant, schedule: &Schedule) {
        let earliest = match self.started_at {
            Some(started_at) => started_at + schedule.refetch_pause,
            None => now,
        };
        // WHY: while an address fails, its own growing pause holds.
        if self.failure.is_none() {
            self.next_at = self.next_at.min(earliest);
        }
    }

    /// True when keys are dropped because of their age.
    pub(super) fn expire(&mut self, now: Instant, schedule: &Schedule) -> bool {
        let is_old = |held: &mut Held| held.fetched_at + schedule.max_age <= now;
        self.held.take_if(is_old).is_some()
    }

    /// When something is to be done without being told. While no fetch may start, the end of another one tells.
    pub(super) fn wakes_at(&self, schedule: &Schedule, may_start: bool) -> Option<Instant> {
        let due = (may_start && !self.is_running).then_some(self.next_at);
        let end = self.held.as_ref();
        let end = end.map(|held| held.fetched_at + schedule.max_age);
        [due, end].into_iter().flatten().min()
    }

    pub(super) fn line(&self, address: &KeyAddress, now: Instant, at: Timestamp) -> OriginLine {
        let keys = self.held.iter().flat_map(|held| &held.set.keys);
        OriginLine {
            address: address.to_string(),
            kind: match address {
                KeyAddress::JwksUri(_) => "jwks_uri",
                KeyAddress::Issuer(_) => "issuer",
            },
            state: match (&self.held, &self.failure) {
                (None, _) => "missing",
                (Some(_), Some(_)) => "stale",
                (Some(_), None) => "fresh",
            },
            key_ids: keys
                .map(|key| key.kid.clone().unwrap_or_default())
                .collect(),
            fetched_at: self.held.as_ref().map(|held| held.shown_at),
            next_fetch_at: at.plus(self.next_at.saturating_duration_since(now)),
            failure: self.failure.clone(),
        }
    }
}
