//! One agent's stream: wakes when something changed, sends what concerns the agent, takes its
//! acknowledgements. Owns no task; it lives in the response that gRPC polls.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use ravelin_proto::bundle::Bundle;
use ravelin_proto::convert::{bundle_to_pb, entry_to_pb};
use ravelin_proto::pb::ravelin::v1::sync_request::{Ack, Hello, Step};
use ravelin_proto::pb::ravelin::v1::{AuthorityState, SyncRequest, SyncResponse};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_runtime::drain::Drain;
use tokio::sync::watch;
use tonic::Status;

use super::delta::{AgentView, EntryDelta};
use super::mesh;
use crate::acks::StreamId;
use crate::hub::Hub;
use crate::limits::{ACK_AUTHORITIES_MAX, ACK_PROXIES_MAX, ACK_TEXT_BYTES_MAX, SYNC_ENTRIES_MAX};
use crate::registry::Snapshot;
use crate::store::{Denylist, MeshPair};

/// The state of one open stream.
pub struct AgentStream {
    hub: Hub,
    drain: Drain,
    agent_id: SpiffeId,
    view: AgentView,
    connection: Connection,
    registry: watch::Receiver<u64>,
    bundle: watch::Receiver<Arc<Bundle>>,
    authorities: watch::Receiver<AuthorityState>,
    mesh: watch::Receiver<MeshPair>,
    denylist: watch::Receiver<Arc<Denylist>>,
    sent: Sent,
    pending: VecDeque<SyncResponse>,
}

impl std::fmt::Debug for AgentStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentStream")
            .field("agent_id", &self.agent_id)
            .finish_non_exhaustive()
    }
}

/// The agent's row in the table of acknowledgements, for as long as the stream lives.
struct Connection {
    hub: Hub,
    id: StreamId,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.hub.acks().disconnect(&self.id);
    }
}

/// What the agent was told last, entries apart.
#[derive(Debug, Default)]
struct Sent {
    authorities: Option<AuthorityState>,
    bundle: Option<Arc<Bundle>>,
    denylist_number: Option<u64>,
    mesh_revision: u64,
}

/// What woke the stream.
enum Wake {
    Change,
    Request(Option<Result<SyncRequest, Status>>),
    Replaced,
    Drain,
}

impl AgentStream {
    /// Registers the agent as live and prepares its first response.
    pub async fn open(
        hub: Hub,
        agent_id: SpiffeId,
        hello: Hello,
        drain: Drain,
    ) -> Result<Self, Status> {
        // Every watch is marked as seen before its value is read: a change in between wakes.
        let store = hub.store().clone();
        let mut registry = store.revisions();
        registry.mark_unchanged();
        // The rows are read after the snapshot, so they reach at least as far.
        let snapshot = hub.registry();
        // The caller was judged before it said hello; it may have been cut off since.
        check_agent(&snapshot, &agent_id)?;
        let rows = match hello.revision {
            0 => None,
            revision => store.changes_since(revision).await.unwrap_or_else(|error| {
                tracing::warn!(%error, agent = %agent_id, "the change log cannot be read");
                None
            }),
        };
        let (view, delta) = rows
            .and_then(|rows| AgentView::tail(agent_id.clone(), &snapshot, &rows))
            .unwrap_or_else(|| AgentView::snapshot(agent_id.clone(), &snapshot));
        let version: String = hello
            .agent_version
            .chars()
            .take(ACK_TEXT_BYTES_MAX)
            .collect();
        let connection = Connection {
            id: hub.acks().connect(&agent_id, &version),
            hub: hub.clone(),
        };
        let mut stream = Self {
            bundle: hub.bundles(),
            authorities: hub.authorities(),
            mesh: store.mesh(),
            denylist: store.denylists(),
            registry,
            hub,
            drain,
            agent_id,
            view,
            connection,
            sent: Sent {
                mesh_revision: hello.mesh_revision,
                ..Sent::default()
            },
            pending: VecDeque::new(),
        };
        let first = stream.compose(Some(delta));
        stream.enqueue(first);
        Ok(stream)
    }

    /// The responses, until the agent leaves, is cut off, or the CA drains.
    pub fn run<S>(self, requests: S) -> impl Stream<Item = Result<SyncResponse, Status>> + Send
    where
        S: Stream<Item = Result<SyncRequest, Status>> + Send + Unpin + 'static,
    {
        stream::unfold(Some((self, requests)), |state| async move {
            let (mut stream, mut requests) = state?;
            match stream.next(&mut requests).await {
                Ok(Some(response)) => Some((Ok(response), Some((stream, requests)))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        })
    }

    async fn next<S>(&mut self, requests: &mut S) -> Result<Option<SyncResponse>, Status>
    where
        S: Stream<Item = Result<SyncRequest, Status>> + Send + Unpin,
    {
        loop {
            if let Some(response) = self.pending.pop_front() {
                return Ok(Some(response));
            }
            match self.wake(requests).await {
                Wake::Request(None) => return Ok(None),
                Wake::Request(Some(request)) => self.take(request?)?,
                Wake::Replaced => {
                    return Err(Status::aborted("a newer stream of this agent took over"));
                }
                Wake::Drain => return Err(Status::unavailable("the CA is draining")),
                Wake::Change => self.look()?,
            }
        }
    }

    async fn wake<S>(&mut self, requests: &mut S) -> Wake
    where
        S: Stream<Item = Result<SyncRequest, Status>> + Send + Unpin,
    {
        // Every arm is cancel-safe: a watch keeps its mark, a stream keeps its item.
        tokio::select! {
            biased;
            () = self.drain.started() => Wake::Drain,
            () = self.connection.id.replaced() => Wake::Replaced,
            Ok(()) = self.registry.changed() => Wake::Change,
            Ok(()) = self.bundle.changed() => Wake::Change,
            Ok(()) = self.authorities.changed() => Wake::Change,
            Ok(()) = self.mesh.changed() => Wake::Change,
            Ok(()) = self.denylist.changed() => Wake::Change,
            request = requests.next() => Wake::Request(request),
        }
    }

    fn take(&mut self, request: SyncRequest) -> Result<(), Status> {
        match request.step {
            Some(Step::Ack(ack)) => {
                check_ack(&ack)?;
                if !ack.refusal.is_empty() {
                    tracing::warn!(agent = %self.agent_id, refusal = %ack.refusal, "an agent refuses the last revision");
                }
                self.hub.acks().record(&self.connection.id, ack);
                Ok(())
            }
            Some(Step::Hello(_)) | None => Err(Status::invalid_argument(
                "a request after the first is not `ack`",
            )),
        }
    }

    /// Something changed: cut the agent off, or put together what it has to hear.
    fn look(&mut self) -> Result<(), Status> {
        let revision = *self.registry.borrow_and_update();
        let registry = self.hub.registry();
        if let Err(status) = check_agent(&registry, &self.agent_id) {
            self.hub.acks().forget(&self.agent_id);
            return Err(status);
        }
        let delta = if self.view.revision() < revision.max(registry.revision()) {
            let rows = self.hub.store().recent_changes(self.view.revision());
            self.view.advance(&registry, rows.as_deref())
        } else {
            None
        };
        let response = self.compose(delta);
        if !is_empty(&response) {
            self.enqueue(response);
        }
        Ok(())
    }

    /// One message with everything that changed since the last.
    fn compose(&mut self, delta: Option<EntryDelta>) -> SyncResponse {
        let delta = delta.unwrap_or(EntryDelta {
            revision: self.view.revision(),
            is_snapshot: false,
            upserted: Vec::new(),
            removed: Vec::new(),
        });
        let mut response = SyncResponse {
            revision: delta.revision,
            is_snapshot: delta.is_snapshot,
            upserted_entries: delta
                .upserted
                .iter()
                .map(|entry| entry_to_pb(entry))
                .collect(),
            removed_entry_ids: delta.removed,
            ..SyncResponse::default()
        };
        // INVARIANT: authorities are read before the bundle, so that an authority named here
        // never misses from a bundle that was published before it became active.
        let authorities = self.authorities.borrow_and_update().clone();
        if self.sent.authorities.as_ref() != Some(&authorities) {
            response.authorities = Some(authorities.clone());
            self.sent.authorities = Some(authorities);
        }
        let bundle = Arc::clone(&self.bundle.borrow_and_update());
        if bundle.sequence > 0 && self.sent.bundle.as_ref() != Some(&bundle) {
            response.bundle = Some(bundle_to_pb(&bundle));
            self.sent.bundle = Some(bundle);
        }
        let denylist = Arc::clone(&self.denylist.borrow_and_update());
        if self.sent.denylist_number != Some(denylist.number) {
            response.denylist = Some(denylist.to_pb());
            self.sent.denylist_number = Some(denylist.number);
        }
        let pair = self.mesh.borrow_and_update().clone();
        if let Some(current) = pair.current
            && current.revision != self.sent.mesh_revision
        {
            response.mesh = Some(match pair.previous {
                Some(base) if base.revision == self.sent.mesh_revision => {
                    mesh::difference(&base, &current)
                }
                _ => mesh::whole(&current),
            });
            self.sent.mesh_revision = current.revision;
        }
        response
    }

    /// Splits a message with very many entries. All but the last part carry revision 0, so that an
    /// agent that loses the stream in between asks for a snapshot again.
    fn enqueue(&mut self, mut response: SyncResponse) {
        let mut entries = std::mem::take(&mut response.upserted_entries);
        while entries.len() > SYNC_ENTRIES_MAX {
            let rest = entries.split_off(SYNC_ENTRIES_MAX);
            self.pending.push_back(SyncResponse {
                revision: 0,
                is_snapshot: response.is_snapshot,
                upserted_entries: std::mem::replace(&mut entries, rest),
                ..SyncResponse::default()
            });
            response.is_snapshot = false;
        }
        response.upserted_entries = entries;
        self.pending.push_back(response);
    }
}

fn check_agent(registry: &Snapshot, agent_id: &SpiffeId) -> Result<(), Status> {
    match registry.agent(agent_id) {
        Some(agent) if !agent.is_banned => Ok(()),
        Some(_) | None => Err(Status::permission_denied("the agent is banned or evicted")),
    }
}

fn is_empty(response: &SyncResponse) -> bool {
    response.upserted_entries.is_empty()
        && response.removed_entry_ids.is_empty()
        && response.bundle.is_none()
        && response.authorities.is_none()
        && response.denylist.is_none()
        && response.mesh.is_none()
}

fn check_ack(ack: &Ack) -> Result<(), Status> {
    let is_small = ack.proxies.len() <= ACK_PROXIES_MAX
        && ack.x509_svids_by_authority.len() <= ACK_AUTHORITIES_MAX
        && ack.jwt_svids_by_authority.len() <= ACK_AUTHORITIES_MAX
        && ack.refusal.len() <= ACK_TEXT_BYTES_MAX
        && ack.proxies.iter().all(|proxy| {
            proxy.name.len() <= ACK_TEXT_BYTES_MAX
                && proxy.spiffe_id.len() <= ACK_TEXT_BYTES_MAX
                && proxy.refusal.len() <= ACK_TEXT_BYTES_MAX
        });
    if is_small {
        Ok(())
    } else {
        Err(Status::invalid_argument("the acknowledgement is too large"))
    }
}
