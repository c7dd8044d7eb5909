//! What changes while the calls go on, each at its own pace; none waits for another.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ravelin_proto::pb::ravelin::v1::AuthorityKind;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout_at};

use crate::flows::PolicyState;
use crate::site::SoakSite;

const FLIP_EVERY: Duration = Duration::from_secs(1);
/// How long the application that restarts stays away.
const AWAY: Duration = Duration::from_millis(200);

/// How often what changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rhythm {
    /// The X.509 authority.
    pub(crate) rotate: Duration,
    /// An application.
    pub(crate) restart: Duration,
    /// A proxy's process.
    pub(crate) takeover: Duration,
}

/// What was changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Of each policy: milliseconds from `apply` to the last proxy's acknowledgement.
    pub(crate) flip_millis: Vec<u32>,
    /// Whole rotations, the old authority revoked.
    pub(crate) rotations: u64,
    /// Restarts of the application.
    pub(crate) restarts: u64,
    /// Takeovers.
    pub(crate) takeovers: u64,
}

/// The pacemaker.
#[derive(Debug)]
pub(crate) struct Changes {
    policy: Arc<PolicyState>,
    is_flip_allowed: bool,
    flip: Interval,
    rotate: Interval,
    restart: Interval,
    takeover: Interval,
    counts: Mutex<Counts>,
}

impl Changes {
    /// Begins now.
    pub(crate) fn new(rhythm: Rhythm, policy: Arc<PolicyState>) -> Self {
        policy.changed(false);
        Self {
            policy,
            is_flip_allowed: false,
            flip: every(FLIP_EVERY),
            rotate: every(rhythm.rotate),
            restart: every(rhythm.restart),
            takeover: every(rhythm.takeover),
            counts: Mutex::default(),
        }
    }

    /// What was changed so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts.lock().unwrap().clone()
    }

    /// Changes what is due, for `time`. A step that has begun is finished, also past the end.
    pub(crate) async fn run_for(&mut self, time: Duration, site: &mut SoakSite) {
        let end = Instant::now() + time;
        let SoakSite {
            app,
            payments,
            node,
            policies,
            ..
        } = site;
        let (policy, counts) = (&self.policy, &self.counts);
        let is_flip_allowed = &mut self.is_flip_allowed;
        let flips = each(&mut self.flip, end, async || {
            *is_flip_allowed = !*is_flip_allowed;
            let started = Instant::now();
            policy.changing();
            let files = policies.with_flip(*is_flip_allowed).messages();
            node.admin().publish(files).await;
            policy.changed(*is_flip_allowed);
            let millis = u32::try_from(started.elapsed().as_millis());
            let mut counts = counts.lock().unwrap();
            counts.flip_millis.push(millis.unwrap_or(u32::MAX));
        });
        let rotations = each(&mut self.rotate, end, async || {
            node.admin().rotate(AuthorityKind::X509, true).await;
            counts.lock().unwrap().rotations += 1;
        });
        let restarts = each(&mut self.restart, end, async || {
            app.restart(AWAY).await;
            counts.lock().unwrap().restarts += 1;
        });
        let takeovers = each(&mut self.takeover, end, async || {
            payments.replace().await;
            counts.lock().unwrap().takeovers += 1;
        });
        tokio::join!(flips, rotations, restarts, takeovers);
    }
}

/// Does `step` at every beat until `end`.
async fn each(beat: &mut Interval, end: Instant, mut step: impl AsyncFnMut()) {
    while timeout_at(end, beat.tick()).await.is_ok() {
        step().await;
    }
}

/// The first beat comes after half of the time.
fn every(time: Duration) -> Interval {
    let mut beat = interval_at(Instant::now() + time / 2, time);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}
