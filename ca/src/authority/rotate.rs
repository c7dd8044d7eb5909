//! Drives rotations and the schedule: asks the pure `journal` and `schedule` what is due, does it, records it, reports it.
//!
//! The one writer of rotations. Callers send commands and watch progress; a caller that leaves changes nothing.

use std::sync::Arc;

use ravelin_proto::pb::ravelin::v1::RotationProgress;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::drain::Drain;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::custody::{Custody, CustodyError, Verb};
use super::journal::{Facts, Next, Rotation, Step};
use super::progress::{Sight, is_off, progress_of, step_name};
use super::schedule::{self, Due};
use super::state::{Authority, Kind};
use crate::hub::Hub;
use crate::limits::{AGENT_LOST, COMMANDS_WAITING_MAX, ROTATION_LOOK, ROTATION_STEP_MAX};
use crate::server_identity::ServerSvid;
use crate::store::StoreError;

/// What stands as actor where nobody asked.
const SCHEDULE: &str = "ca";

#[derive(Debug)]
struct Command {
    kind: Kind,
    is_revoking_old: bool,
    actor: String,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// How callers reach the driver.
#[derive(Debug, Clone)]
pub struct Rotations {
    commands: mpsc::Sender<Command>,
    x509: watch::Receiver<RotationProgress>,
    jwt: watch::Receiver<RotationProgress>,
}

/// The driver.
#[derive(Debug)]
pub struct Rotator {
    hub: Hub,
    custody: Arc<Custody>,
    server_svid: watch::Receiver<ServerSvid>,
    commands: mpsc::Receiver<Command>,
    x509: Track,
    jwt: Track,
    started: Instant,
}

#[derive(Debug)]
struct Track {
    rotation: Option<Rotation>,
    progress: watch::Sender<RotationProgress>,
}

impl Rotations {
    /// Starts a rotation, or joins the one that is under way, or goes on with the one that gave up.
    pub async fn start(
        &self,
        kind: Kind,
        is_revoking_old: bool,
        actor: &str,
    ) -> Result<watch::Receiver<RotationProgress>, StoreError> {
        let (done, answer) = oneshot::channel();
        let stopped = || StoreError::Stopped("the rotation driver ended".to_owned());
        let command = Command {
            kind,
            is_revoking_old,
            actor: actor.to_owned(),
            done,
        };
        self.commands.send(command).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())??;
        Ok(self.progress(kind))
    }

    /// Where the newest rotation of a kind stands.
    pub fn progress(&self, kind: Kind) -> watch::Receiver<RotationProgress> {
        match kind {
            Kind::X509 => self.x509.clone(),
            Kind::Jwt => self.jwt.clone(),
        }
    }
}

impl Rotator {
    /// Reads where the rotations stood; `server_svid` tells who signed the CA's own SVID.
    pub async fn open(
        hub: Hub,
        custody: Arc<Custody>,
        server_svid: watch::Receiver<ServerSvid>,
    ) -> Result<(Rotations, Self), StoreError> {
        let (sender, commands) = mpsc::channel(COMMANDS_WAITING_MAX);
        let mut tracks = Vec::new();
        for kind in Kind::ALL {
            let rotation = hub.store().rotation(kind).await?;
            let progress = watch::Sender::new(progress_of(kind, rotation.as_ref()));
            tracks.push(Track { rotation, progress });
        }
        let mut tracks = tracks.into_iter();
        let (Some(x509), Some(jwt)) = (tracks.next(), tracks.next()) else {
            return Err(StoreError::Stopped("no rotation to drive".to_owned()));
        };
        let rotations = Rotations {
            commands: sender,
            x509: x509.progress.subscribe(),
            jwt: jwt.progress.subscribe(),
        };
        let started = Instant::now();
        Ok((
            rotations,
            Self {
                hub,
                custody,
                server_svid,
                commands,
                x509,
                jwt,
                started,
            },
        ))
    }

    /// Makes and activates authorities where none can sign: at the first start, and after an outage that outlasted
    /// them. Nobody can depend on one that has expired.
    pub async fn bootstrap(custody: &Custody, now: Timestamp) -> Result<(), CustodyError> {
        for kind in Kind::ALL {
            let authorities = custody.authorities();
            let set = authorities.of(kind);
            let can_sign = |one: &&Authority| one.validity.not_after > now;
            if set.active().as_ref().is_some_and(can_sign) {
                continue;
            }
            for id in set.expired(now) {
                custody.apply(kind, Verb::Prune(id), SCHEDULE).await?;
            }
            let prepared = set.prepared().filter(can_sign).map(|one| one.id.clone());
            let id = match prepared {
                Some(id) => id,
                None => custody.prepare(kind, SCHEDULE).await?.id,
            };
            custody.apply(kind, Verb::Activate(id), SCHEDULE).await?;
        }
        Ok(())
    }

    /// Runs until drain begins or the store stops.
    pub async fn run(mut self, drain: Drain) -> Result<(), StoreError> {
        let mut ticks = self.hub.acks().ticks();
        loop {
            for kind in Kind::ALL {
                while self.turn(kind).await? {}
                self.keep_schedule(kind).await?;
            }
            // Every arm is cancel-safe: a command is received whole or not at all.
            tokio::select! {
                () = drain.started() => return Ok(()),
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command).await?,
                    None => return Ok(()),
                },
                _ = ticks.changed() => {}
                _ = self.server_svid.changed() => {}
                () = sleep(ROTATION_LOOK) => {}
            }
        }
    }

    fn track(&self, kind: Kind) -> &Track {
        match kind {
            Kind::X509 => &self.x509,
            Kind::Jwt => &self.jwt,
        }
    }

    fn now(&self) -> Timestamp {
        self.hub.store().clock().now()
    }

    async fn obey(&mut self, command: Command) -> Result<(), StoreError> {
        let now = self.now();
        let authorities = self.custody.authorities();
        let set = authorities.of(command.kind);
        let present = self.track(command.kind).rotation.clone();
        let rotation = if let Some(present) = present.filter(|present| present.is_resumable(set)) {
            present.resumed(command.is_revoking_old, now)
        } else {
            let old = set.active().map_or("", |old| old.id.as_str());
            Rotation::new(old, command.is_revoking_old, &command.actor, now)
        };
        let saved = self.save(command.kind, rotation).await;
        let answer = match &saved {
            Ok(()) => Ok(()),
            Err(error) => Err(StoreError::Stopped(error.to_string())),
        };
        // The caller may have left.
        let _ = command.done.send(answer);
        saved
    }

    async fn save(&mut self, kind: Kind, rotation: Rotation) -> Result<(), StoreError> {
        let saved = rotation.clone();
        let event = crate::audit::Event::new("rotation.step", rotation.actor.as_str())
            .with("authority_kind", kind.name())
            .with("step", step_name(&rotation))
            .with("old_authority_id", rotation.old_id.as_str())
            .with("new_authority_id", rotation.new_id.as_str());
        self.hub
            .store()
            .write(move |tx| {
                Box::pin(async move {
                    tx.save_rotation(kind, &saved).await?;
                    tx.audit(event).map(|_| ())
                })
            })
            .await?;
        let track = match kind {
            Kind::X509 => &mut self.x509,
            Kind::Jwt => &mut self.jwt,
        };
        track
            .progress
            .send_replace(progress_of(kind, Some(&rotation)));
        track.rotation = Some(rotation);
        Ok(())
    }

    /// One act or one step; `false` when there is nothing to do but wait.
    async fn turn(&mut self, kind: Kind) -> Result<bool, StoreError> {
        let Some(rotation) = self
            .track(kind)
            .rotation
            .clone()
            .filter(Rotation::is_running)
        else {
            return Ok(false);
        };
        let is_reissuing = matches!(rotation.step, Step::Reissue | Step::Taint);
        self.custody.set_reissuing(kind, is_reissuing);
        let authorities = self.custody.authorities();
        let sight = self.look(kind, &rotation).await?;
        let facts = Facts {
            set: authorities.of(kind),
            is_acknowledged: sight.holding.missing.is_empty(),
            is_old_unused: sight.is_old_unused,
        };
        let (new_id, old_id) = (rotation.new_id.clone(), rotation.old_id.clone());
        let acted = match rotation.next(&facts) {
            Next::End => return Ok(false),
            Next::Wait => return self.wait(kind, rotation, sight).await,
            Next::Enter(step) => {
                self.save(kind, rotation.entered(step, self.now())).await?;
                if matches!(step, Step::Done | Step::Revoke) {
                    self.custody.set_reissuing(kind, false);
                }
                return Ok(true);
            }
            Next::Prepare => match authorities.of(kind).prepared() {
                Some(prepared) => Ok(prepared.clone()),
                None => self.custody.prepare(kind, &rotation.actor).await,
            },
            Next::Activate => self.act(kind, Verb::Activate(new_id), &rotation).await,
            Next::Taint => self.act(kind, Verb::Taint(old_id), &rotation).await,
            Next::Revoke => self.act(kind, Verb::Revoke(old_id), &rotation).await,
        };
        match acted {
            Ok(authority) if rotation.step == Step::Prepare => {
                self.save(
                    kind,
                    Rotation {
                        new_id: authority.id,
                        ..rotation
                    },
                )
                .await?;
                Ok(true)
            }
            Ok(_) => Ok(true),
            Err(CustodyError::Store(error)) => Err(error),
            Err(error) => {
                tracing::error!(%kind, %error, "the rotation gives up");
                self.custody.set_reissuing(kind, false);
                self.save(kind, rotation.given_up(&error.to_string()))
                    .await?;
                Ok(false)
            }
        }
    }

    async fn act(
        &self,
        kind: Kind,
        verb: Verb,
        rotation: &Rotation,
    ) -> Result<Authority, CustodyError> {
        tracing::info!(%kind, ?verb, "rotation");
        self.custody.apply(kind, verb, &rotation.actor).await
    }

    /// Shows what is waited for; gives up when it takes too long. Tokens age out in their own time.
    async fn wait(
        &mut self,
        kind: Kind,
        rotation: Rotation,
        sight: Sight,
    ) -> Result<bool, StoreError> {
        let is_ageing = kind == Kind::Jwt && matches!(rotation.step, Step::Reissue | Step::Taint);
        if !is_ageing && self.now().since(rotation.step_started_at) > ROTATION_STEP_MAX {
            let who = sight.count(rotation.step).missing.join(", ");
            let why = format!("waited too long for {who}; rotate again to go on from here");
            self.custody.set_reissuing(kind, false);
            self.save(kind, rotation.given_up(&why)).await?;
            return Ok(false);
        }
        let count = sight.count(rotation.step);
        let progress = RotationProgress {
            done: count.done,
            total: count.total,
            missing: count.missing.clone(),
            old_svids: sight.old_svids,
            ..progress_of(kind, Some(&rotation))
        };
        self.track(kind).progress.send_if_modified(|shown| {
            let is_new = *shown != progress;
            if is_new {
                *shown = progress;
            }
            is_new
        });
        Ok(false)
    }

    async fn look(&self, kind: Kind, rotation: &Rotation) -> Result<Sight, StoreError> {
        let acks = self.hub.acks();
        let sequence = self.custody.authorities().bundle.sequence;
        let mut holding = acks.count(|ack| ack.bundle_sequence >= sequence);
        let old = rotation.old_id.as_str();
        let mut leaving = acks.count(|ack| is_off(kind, ack, old));
        let absent = self.absent();
        for count in [&mut holding, &mut leaving] {
            count.total = count
                .total
                .saturating_add(u32::try_from(absent.len()).unwrap_or(u32::MAX));
            count.missing.extend(absent.iter().cloned());
        }
        let old_svids = match kind {
            Kind::X509 => acks.x509_svids_on(old),
            // Tokens are in the hands of workloads: what counts is when the last one ends.
            Kind::Jwt => self.hub.store().live_by_authority(old, self.now()).await?,
        };
        let is_old_unused = leaving.missing.is_empty()
            && old_svids == 0
            && (kind == Kind::Jwt || self.server_svid.borrow().authority_id != old);
        Ok(Sight {
            holding,
            leaving,
            old_svids,
            is_old_unused,
        })
    }

    /// Shortly after a start the agents that have not come back yet count as missing: they are not gone, we were.
    fn absent(&self) -> Vec<String> {
        if self.started.elapsed() >= AGENT_LOST {
            return Vec::new();
        }
        let now = self.now();
        let live: Vec<_> = self.hub.acks().live_agents();
        self.hub
            .registry()
            .agents()
            .filter(|agent| !agent.is_banned && agent.expires_at > now)
            .filter(|agent| !live.iter().any(|ack| ack.agent_id == agent.id))
            .map(|agent| agent.id.to_string())
            .collect()
    }

    /// Scheduled verbs, and the end of what has expired. A failure is tried again at the next look.
    async fn keep_schedule(&mut self, kind: Kind) -> Result<(), StoreError> {
        match self.scheduled(kind).await {
            Ok(()) => Ok(()),
            Err(CustodyError::Store(error)) => Err(error),
            Err(error) => {
                tracing::error!(%kind, %error, "the schedule of authorities is held up");
                Ok(())
            }
        }
    }

    async fn scheduled(&self, kind: Kind) -> Result<(), CustodyError> {
        let authorities = self.custody.authorities();
        let set = authorities.of(kind);
        for id in set.expired(self.now()) {
            self.custody.apply(kind, Verb::Prune(id), SCHEDULE).await?;
        }
        let sequence = authorities.bundle.sequence;
        let missing = self
            .hub
            .acks()
            .missing(|ack| ack.bundle_sequence >= sequence);
        let is_acknowledged = missing.is_empty() && self.absent().is_empty();
        let is_rotating = self
            .track(kind)
            .rotation
            .as_ref()
            .is_some_and(Rotation::is_running);
        match schedule::due(set, is_acknowledged, self.now()) {
            Due::Nothing => {}
            // The rotation does these itself, in its order.
            Due::Prepare
            | Due::Activate {
                is_forced: false, ..
            } if is_rotating => {}
            Due::Prepare => {
                let made = self.custody.prepare(kind, SCHEDULE).await?;
                tracing::info!(%kind, id = made.id, "prepared the next authority by schedule");
            }
            Due::Activate { id, is_forced } => {
                if is_forced {
                    tracing::error!(%kind, %id, ?missing, "last safe moment: activating an authority that not everybody has acknowledged");
                } else {
                    tracing::info!(%kind, %id, "activated the next authority by schedule");
                }
                self.custody
                    .apply(kind, Verb::Activate(id), SCHEDULE)
                    .await?;
            }
        }
        Ok(())
    }
}
