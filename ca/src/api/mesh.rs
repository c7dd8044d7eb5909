//! `ravelin.v1.Mesh`: plan, apply, roll back, status.

use std::pin::Pin;

use futures_util::{Stream, stream};
use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::pb::ravelin::v1::mesh_server::{Mesh, MeshServer};
use ravelin_proto::time::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::store_status;
use crate::acks::AgentAck;
use crate::hub::Hub;
use crate::limits::{APPLY_WAIT, LIVENESS_CHECK, MESH_MESSAGE_BYTES_MAX};
use crate::mesh::publish::{self, PublishError, Published};
use crate::mesh::{Proposal, progress};
use crate::sync::mesh::whole;

type Progress = Pin<Box<dyn Stream<Item = Result<pb::ApplyProgress, Status>> + Send>>;

/// The service over a hub.
#[derive(Debug, Clone)]
pub struct MeshService {
    hub: Hub,
}

impl MeshService {
    /// The service, with the message limit that a whole folder needs.
    pub fn server(hub: Hub) -> MeshServer<Self> {
        MeshServer::new(Self::new(hub)).max_decoding_message_size(MESH_MESSAGE_BYTES_MAX)
    }

    pub(crate) fn new(hub: Hub) -> Self {
        Self { hub }
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = Caller::of(request.extensions(), &self.hub.registry());
        caller.admin()?;
        Ok(caller)
    }

    fn progress(&self, published: Published, is_waiting: bool) -> Progress {
        let mut first = progress::of_revision(self.hub.acks(), published.revision);
        first.is_unchanged = published.is_unchanged;
        if !is_waiting || first.missing.is_empty() {
            first.is_done = true;
            return Box::pin(stream::iter([Ok(first)]));
        }
        let wait = Wait {
            ticks: self.hub.acks().ticks(),
            hub: self.hub.clone(),
            published,
            deadline: Instant::now() + APPLY_WAIT,
            last: None,
        };
        Box::pin(stream::unfold(Some(wait), |wait| async move {
            let mut wait = wait?;
            let (item, goes_on) = wait.next().await;
            Some((item, goes_on.then_some(wait)))
        }))
    }

    fn current(&self) -> Option<Proposal> {
        let current = self.hub.store().mesh().borrow().current.clone()?;
        // A set that today's rules refuse is planned over as if it were not there.
        publish::parse_record(self.hub.store(), &current).ok()
    }
}

/// Waiting for the acknowledgements of one revision.
struct Wait {
    hub: Hub,
    ticks: watch::Receiver<u64>,
    published: Published,
    deadline: Instant,
    last: Option<pb::ApplyProgress>,
}

impl Wait {
    /// The next report that says something new, and whether another may follow.
    async fn next(&mut self) -> (Result<pb::ApplyProgress, Status>, bool) {
        loop {
            self.ticks.mark_unchanged();
            let mut now = progress::of_revision(self.hub.acks(), self.published.revision);
            now.is_unchanged = self.published.is_unchanged;
            now.is_done = now.missing.is_empty();
            if now.is_done {
                return (Ok(now), false);
            }
            if self.last.as_ref() != Some(&now) {
                self.last = Some(now.clone());
                return (Ok(now), true);
            }
            if Instant::now() >= self.deadline {
                let status = Status::deadline_exceeded(
                    "the revision is published, but not everybody acknowledged it in time",
                );
                return (Err(status), false);
            }
            // WHY: an agent that is lost stops counting without a tick.
            let until = self.deadline.min(Instant::now() + LIVENESS_CHECK);
            // An elapsed timeout only means to look again.
            let _ = timeout_at(until, self.ticks.changed()).await;
        }
    }
}

fn publish_status(error: PublishError) -> Status {
    match error {
        PublishError::BaseRevision { .. } => Status::aborted(error.to_string()),
        PublishError::NoRevision(_) => Status::not_found(error.to_string()),
        PublishError::Refused { .. } => Status::failed_precondition(error.to_string()),
        PublishError::Store(error) => store_status(&error),
    }
}

fn refused(diagnostics: Vec<pb::Diagnostic>, revision: u64) -> Progress {
    Box::pin(stream::iter([Ok(pb::ApplyProgress {
        revision,
        diagnostics,
        is_done: true,
        ..pb::ApplyProgress::default()
    })]))
}

fn agent_status(ack: AgentAck) -> pb::AgentStatus {
    pb::AgentStatus {
        agent_id: ack.agent_id.to_string(),
        is_connected: ack.is_connected,
        revision: ack.revision,
        bundle_sequence: ack.bundle_sequence,
        mesh_revision: ack.mesh_revision,
        denylist_number: ack.denylist_number,
        acknowledged_at: ack.acknowledged_at.map_or(0, Timestamp::unix_secs),
        proxies: u32::try_from(ack.proxies.len()).unwrap_or(u32::MAX),
        refusal: ack.refusal,
    }
}

#[tonic::async_trait]
impl Mesh for MeshService {
    type ApplyStream = Progress;
    type RollbackStream = Progress;

    async fn plan(
        &self,
        request: Request<pb::PlanRequest>,
    ) -> Result<Response<pb::PlanResponse>, Status> {
        self.caller(&request)?;
        let store = self.hub.store();
        let base_revision = store.mesh().borrow().revision();
        let files = request.into_inner().files;
        let response = match Proposal::parse(&files, store.trust_domain()) {
            Ok(proposal) => pb::PlanResponse {
                changes: proposal.changes_from(self.current().as_ref()),
                diagnostics: proposal.warnings(),
                base_revision,
            },
            Err(diagnostics) => pb::PlanResponse {
                changes: Vec::new(),
                diagnostics,
                base_revision,
            },
        };
        Ok(Response::new(response))
    }

    async fn apply(
        &self,
        request: Request<pb::ApplyRequest>,
    ) -> Result<Response<Self::ApplyStream>, Status> {
        let actor = self.caller(&request)?.actor();
        let request = request.into_inner();
        if request.git_commit.len() > 128 || !request.git_commit.is_ascii() {
            return Err(Status::invalid_argument("`git_commit` is not a commit"));
        }
        let store = self.hub.store();
        let proposal = match Proposal::parse(&request.files, store.trust_domain()) {
            Ok(proposal) => proposal,
            Err(diagnostics) => {
                let current = store.mesh().borrow().revision();
                return Ok(Response::new(refused(diagnostics, current)));
            }
        };
        let published = publish::apply(
            store,
            proposal,
            request.git_commit,
            request.base_revision,
            actor,
        )
        .await
        .map_err(publish_status)?;
        Ok(Response::new(self.progress(published, request.wait)))
    }

    async fn rollback(
        &self,
        request: Request<pb::RollbackRequest>,
    ) -> Result<Response<Self::RollbackStream>, Status> {
        let actor = self.caller(&request)?.actor();
        let request = request.into_inner();
        match publish::roll_back(self.hub.store(), request.revision, actor).await {
            Ok(published) => Ok(Response::new(self.progress(published, request.wait))),
            Err(PublishError::Refused { diagnostics, .. }) => {
                let current = self.hub.store().mesh().borrow().revision();
                Ok(Response::new(refused(diagnostics, current)))
            }
            Err(error) => Err(publish_status(error)),
        }
    }

    async fn get_status(
        &self,
        request: Request<pb::MeshStatusRequest>,
    ) -> Result<Response<pb::MeshStatus>, Status> {
        self.caller(&request)?;
        let store = self.hub.store();
        let mut status = pb::MeshStatus {
            change_revision: self.hub.registry().revision(),
            bundle_sequence: self.hub.bundle().sequence,
            denylist_number: store.denylists().borrow().number,
            agents: self
                .hub
                .acks()
                .live_agents()
                .into_iter()
                .map(agent_status)
                .collect(),
            ..pb::MeshStatus::default()
        };
        if let Some(current) = &store.mesh().borrow().current {
            status.revision = current.revision;
            status.digest.clone_from(&current.digest);
            status.git_commit.clone_from(&current.git_commit);
            status.created_at = current.created_at.unix_secs();
        }
        Ok(Response::new(status))
    }

    async fn get_revision(
        &self,
        request: Request<pb::GetRevisionRequest>,
    ) -> Result<Response<pb::MeshRevision>, Status> {
        self.caller(&request)?;
        let store = self.hub.store();
        let revision = match request.into_inner().revision {
            0 => store.mesh().borrow().revision(),
            revision => revision,
        };
        let record = store
            .mesh_record(revision)
            .await
            .map_err(|error| store_status(&error))?
            .ok_or_else(|| Status::not_found(format!("there is no revision {revision}")))?;
        Ok(Response::new(whole(&record)))
    }
}
