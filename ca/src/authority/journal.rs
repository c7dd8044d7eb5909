//! The journal of one rotation: which step it is at, and what has to be true before the next. Pure.
//!
//! Persisted before each act, so a CA that dies at any moment goes on where it stood. Each act is idempotent: the driver
//! asks `next` again after a restart and gets the same answer.

use ravelin_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::{AuthoritySet, State};

/// A step of the cycle, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Make the next authority.
    Prepare,
    /// Wait until every live agent and proxy holds it.
    AwaitPrepared,
    /// Let it sign.
    Activate,
    /// Wait until nothing live hangs on the old one.
    Reissue,
    /// Mark the old one, and wait until everybody has seen the mark.
    Taint,
    /// Take the old one out of the bundle.
    Revoke,
    /// Wait until every live agent and proxy has dropped it.
    AwaitRevoked,
    /// Finished.
    Done,
}

/// One rotation as it is kept in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Where it stands.
    pub step: Step,
    /// The authority that was active when it began; empty when there was none.
    pub old_id: String,
    /// The authority that takes over; empty before it is prepared.
    pub new_id: String,
    /// Taint and revoke the old one as well.
    pub is_revoking_old: bool,
    /// Who asked for it.
    pub actor: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When the present step began.
    pub step_started_at: Timestamp,
    /// Why it was given up; empty when it was not.
    pub failure: String,
}

/// What the driver sees when it asks.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The authorities of the rotation's kind.
    pub set: &'a AuthoritySet,
    /// Every live agent and proxy has acknowledged the present bundle.
    pub is_acknowledged: bool,
    /// Nothing live hangs on the old authority, the CA's own SVID included.
    pub is_old_unused: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait for an acknowledgement.
    Wait,
    /// Prepare the next authority, or take the one that is prepared already; then record its id.
    Prepare,
    /// Activate the new authority.
    Activate,
    /// Taint the old authority.
    Taint,
    /// Revoke the old authority.
    Revoke,
    /// The present step is through: record this one.
    Enter(Step),
    /// Nothing more.
    End,
}

impl Rotation {
    /// A rotation that begins now, away from `old_id`.
    pub fn new(old_id: &str, is_revoking_old: bool, actor: &str, now: Timestamp) -> Self {
        Self {
            step: Step::Prepare,
            old_id: old_id.to_owned(),
            new_id: String::new(),
            is_revoking_old,
            actor: actor.to_owned(),
            started_at: now,
            step_started_at: now,
            failure: String::new(),
        }
    }

    /// Whether the driver still has something to do.
    pub fn is_running(&self) -> bool {
        self.step != Step::Done && self.failure.is_empty()
    }

    /// Whether going on makes sense: not once it is done, nor when the authority that it prepared is gone meanwhile.
    pub fn is_resumable(&self, set: &AuthoritySet) -> bool {
        let is_alive = set
            .find(&self.new_id)
            .is_some_and(|new| matches!(new.state, State::Prepared | State::Active));
        self.step != Step::Done && (self.new_id.is_empty() || is_alive)
    }

    /// The rotation at another step.
    pub fn entered(mut self, step: Step, now: Timestamp) -> Self {
        self.step = step;
        self.step_started_at = now;
        self
    }

    /// The rotation, given up at its step for this reason.
    pub fn given_up(mut self, why: &str) -> Self {
        why.clone_into(&mut self.failure);
        self
    }

    /// The rotation, taken up again where it stood.
    pub fn resumed(mut self, is_revoking_old: bool, now: Timestamp) -> Self {
        self.failure.clear();
        self.is_revoking_old |= is_revoking_old;
        self.step_started_at = now;
        self
    }

    /// What is to be done, given the facts.
    pub fn next(&self, facts: &Facts<'_>) -> Next {
        let new_state = facts
            .set
            .find(&self.new_id)
            .map(|authority| authority.state);
        let old = facts.set.find(&self.old_id);
        match self.step {
            Step::Prepare if new_state == Some(State::Prepared) => Next::Enter(Step::AwaitPrepared),
            Step::Prepare => Next::Prepare,
            // The schedule may have forced the activation meanwhile.
            Step::AwaitPrepared if facts.is_acknowledged || new_state != Some(State::Prepared) => {
                Next::Enter(Step::Activate)
            }
            Step::Activate if new_state == Some(State::Prepared) => Next::Activate,
            Step::Activate => Next::Enter(Step::Reissue),
            Step::Reissue if facts.is_old_unused => {
                let step = if self.is_revoking_old {
                    Step::Taint
                } else {
                    Step::Done
                };
                Next::Enter(step)
            }
            Step::Taint => match old {
                Some(old) if old.state == State::Retired && !old.is_tainted => Next::Taint,
                Some(old) if old.state == State::Retired => {
                    // WHY: an SVID that was on its way while the authority changed shows up after the mark.
                    if facts.is_acknowledged && facts.is_old_unused {
                        Next::Enter(Step::Revoke)
                    } else {
                        Next::Wait
                    }
                }
                Some(_) | None => Next::Enter(Step::Revoke),
            },
            Step::Revoke => match old {
                Some(old) if old.state == State::Retired => Next::Revoke,
                Some(_) | None => Next::Enter(Step::AwaitRevoked),
            },
            Step::AwaitRevoked if facts.is_acknowledged => Next::Enter(Step::Done),
            Step::AwaitPrepared | Step::Reissue | Step::AwaitRevoked => Next::Wait,
            Step::Done => Next::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{Authority, Kind};
    use super::*;
    use ravelin_proto::time::Validity;

    fn authority(id: &str) -> Authority {
        let (not_before, not_after) = (Timestamp::default(), Timestamp::from_unix_secs(1000));
        Authority {
            id: id.to_owned(),
            kind: Kind::X509,
            state: State::Prepared,
            is_tainted: false,
            validity: Validity {
                not_before,
                not_after,
            },
            public: Vec::new(),
        }
    }

    struct World {
        set: AuthoritySet,
        rotation: Rotation,
        log: Vec<String>,
    }

    impl World {
        fn new(is_revoking_old: bool) -> Self {
            let now = Timestamp::default();
            let set = AuthoritySet::new(Kind::X509, Vec::new())
                .prepare(authority("a"))
                .and_then(|set| set.activate("a", now))
                .unwrap();
            Self {
                set,
                rotation: Rotation::new("a", is_revoking_old, "uid:0", now),
                log: Vec::new(),
            }
        }

        /// One turn of the driver; `is_crashing` loses what was decided after the act, before the record.
        fn turn(&mut self, is_acknowledged: bool, is_old_unused: bool, is_crashing: bool) -> bool {
            let now = Timestamp::default();
            let facts = Facts {
                set: &self.set,
                is_acknowledged,
                is_old_unused,
            };
            let next = self.rotation.next(&facts);
            self.log.push(format!("{next:?}"));
            let set = self.set.clone();
            match next {
                Next::Wait | Next::End => return false,
                Next::Prepare => {
                    if set.prepared().is_none() {
                        self.set = set.prepare(authority("b")).unwrap();
                    }
                    if !is_crashing {
                        self.rotation.new_id = "b".into();
                    }
                }
                Next::Activate => self.set = set.activate("b", now).unwrap(),
                Next::Taint => self.set = set.taint("a").unwrap(),
                Next::Revoke => self.set = set.revoke("a").unwrap(),
                Next::Enter(step) if !is_crashing => {
                    self.rotation = self.rotation.clone().entered(step, now);
                }
                Next::Enter(_) => {}
            }
            true
        }
    }

    #[test]
    fn nothing_is_activated_or_revoked_before_everybody_has_acknowledged() {
        let mut world = World::new(true);
        while world.turn(false, false, false) {}
        assert_eq!(world.rotation.step, Step::AwaitPrepared);
        assert_eq!(world.set.active().unwrap().id, "a");
        while world.turn(true, false, false) {}
        assert_eq!(world.rotation.step, Step::Reissue);
        assert_eq!(world.set.active().unwrap().id, "b");
        while world.turn(false, true, false) {}
        assert_eq!(world.rotation.step, Step::Taint);
        assert!(world.set.find("a").unwrap().is_tainted);
        assert!(world.set.find("a").unwrap().is_published());
        while world.turn(true, false, false) {}
        assert_eq!(
            world.rotation.step,
            Step::Taint,
            "a late SVID holds the revocation back"
        );
        while world.turn(true, true, false) {}
        assert_eq!(world.rotation.step, Step::Done);
        assert_eq!(world.set.published().count(), 1);
    }

    #[test]
    fn without_revocation_the_old_authority_stays_in_the_bundle() {
        let mut world = World::new(false);
        while world.turn(true, true, false) {}
        assert_eq!(world.rotation.step, Step::Done);
        assert_eq!(world.set.published().count(), 2);
        assert!(!world.set.find("a").unwrap().is_tainted);
    }

    #[test]
    fn a_rotation_whose_new_authority_is_gone_begins_anew() {
        let mut world = World::new(true);
        while world.turn(false, false, false) {}
        let given_up = world.rotation.clone().given_up("nobody answers");
        assert!(!given_up.is_running() && given_up.is_resumable(&world.set));
        let pruned = world.set.clone().prune("b");
        assert!(!given_up.is_resumable(&pruned));
        while world.turn(true, true, false) {}
        assert!(!world.rotation.is_resumable(&world.set), "it is done");
    }

    #[test]
    fn a_crash_between_any_act_and_its_record_changes_nothing_about_the_outcome() {
        for crash_at in 0..16 {
            let mut world = World::new(true);
            for turn in 0..40 {
                world.turn(true, true, turn == crash_at);
            }
            assert_eq!(
                world.rotation.step,
                Step::Done,
                "crash at {crash_at}: {:?}",
                world.log
            );
            assert_eq!(world.set.active().unwrap().id, "b");
            assert_eq!(world.set.published().count(), 1, "crash at {crash_at}");
        }
    }
}
