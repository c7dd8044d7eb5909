//! What a rotation shows of itself, and what its driver sees of the agents. Pure.

use ravelin_proto::pb::ravelin::v1::rotation_progress::Step as PbStep;
use ravelin_proto::pb::ravelin::v1::{AuthorityKind, RotationProgress};

use super::journal::{Rotation, Step};
use super::state::Kind;
use crate::acks::{AckCount, AgentAck};

/// What the driver sees of the agents.
#[derive(Debug)]
pub(super) struct Sight {
    /// Who holds the present bundle.
    pub(super) holding: AckCount,
    /// Who has left the old authority.
    pub(super) leaving: AckCount,
    /// Live SVIDs on the old authority.
    pub(super) old_svids: u32,
    /// Nothing live hangs on it.
    pub(super) is_old_unused: bool,
}

impl Sight {
    /// Those that the step waits for.
    pub(super) fn count(&self, step: Step) -> &AckCount {
        let is_leaving =
            step == Step::Reissue || (step == Step::Taint && self.holding.missing.is_empty());
        if is_leaving {
            &self.leaving
        } else {
            &self.holding
        }
    }
}

/// Whether an agent and its proxies have left the old authority, by their own word.
pub(super) fn is_off(kind: Kind, ack: &AgentAck, old: &str) -> bool {
    match kind {
        Kind::X509 => {
            ack.acknowledged_at.is_some()
                && ack
                    .x509_svids_by_authority
                    .get(old)
                    .is_none_or(|count| *count == 0)
                && ack
                    .proxies
                    .iter()
                    .all(|proxy| proxy.x509_authority_id != old)
        }
        Kind::Jwt => ack
            .jwt_svids_by_authority
            .get(old)
            .is_none_or(|count| *count == 0),
    }
}

pub(super) fn step_name(rotation: &Rotation) -> &'static str {
    if !rotation.failure.is_empty() {
        return "failed";
    }
    match rotation.step {
        Step::Prepare => "prepare",
        Step::AwaitPrepared => "await_prepared",
        Step::Activate => "activate",
        Step::Reissue => "reissue",
        Step::Taint => "taint",
        Step::Revoke => "revoke",
        Step::AwaitRevoked => "await_revoked",
        Step::Done => "done",
    }
}

/// The kind on the wire.
pub fn kind_to_pb(kind: Kind) -> AuthorityKind {
    match kind {
        Kind::X509 => AuthorityKind::X509,
        Kind::Jwt => AuthorityKind::Jwt,
    }
}

pub(super) fn progress_of(kind: Kind, rotation: Option<&Rotation>) -> RotationProgress {
    let kind = kind_to_pb(kind).into();
    let Some(rotation) = rotation else {
        return RotationProgress {
            step: PbStep::Idle.into(),
            kind,
            ..Default::default()
        };
    };
    let step = match rotation.step {
        _ if !rotation.failure.is_empty() => PbStep::Failed,
        Step::Prepare => PbStep::Prepare,
        Step::AwaitPrepared => PbStep::AwaitPrepared,
        Step::Activate => PbStep::Activate,
        Step::Reissue => PbStep::Reissue,
        Step::Taint => PbStep::Taint,
        Step::Revoke => PbStep::Revoke,
        Step::AwaitRevoked => PbStep::AwaitRevoked,
        Step::Done => PbStep::Done,
    };
    RotationProgress {
        step: step.into(),
        kind,
        old_authority_id: rotation.old_id.clone(),
        new_authority_id: rotation.new_id.clone(),
        message: rotation.failure.clone(),
        started_at: rotation.started_at.unix_secs(),
        ..Default::default()
    }
}
