//! The operator's service: what this agent holds, and why a process gets the identities it gets.

use std::sync::Arc;

use ravelin_proto::convert::selector_to_pb;
use ravelin_proto::pb::ravelin::v1::agent_admin_server::AgentAdmin;
use ravelin_proto::pb::ravelin::v1::{
    AgentAdminStatus, AgentAdminStatusRequest, CachedIdentity, EntryMatch, ExplainWorkloadRequest,
    ExplainWorkloadResponse,
};
use tonic::{Request, Response, Status};

use crate::attestor::Attestor;
use crate::limits;
use crate::mesh::MeshStore;
use crate::state::State;

/// The service; on the admin socket alone.
#[derive(Debug, Clone)]
pub(crate) struct AgentAdminApi {
    /// Shared state.
    pub state: Arc<State>,
    /// Attests processes.
    pub attestor: Arc<Attestor>,
}

#[tonic::async_trait]
impl AgentAdmin for AgentAdminApi {
    async fn get_status(
        &self,
        _: Request<AgentAdminStatusRequest>,
    ) -> Result<Response<AgentAdminStatus>, Status> {
        let own = self.state.own();
        let progress = self.state.progress();
        let mesh_revision = self.state.with_mesh(MeshStore::revision);
        let proxies = self.state.proxy_acks();
        let status = self.state.with_cache(|cache| AgentAdminStatus {
            agent_id: own
                .as_ref()
                .map_or_else(String::new, |own| own.spiffe_id.as_str().to_owned()),
            svid_expires_at: own
                .as_ref()
                .map_or(0, |own| own.validity.not_after.unix_secs()),
            is_synced: progress.is_synced,
            last_sync_at: progress
                .last_sync_at
                .map_or(0, ravelin_proto::time::Timestamp::unix_secs),
            revision: cache.revision(),
            bundle_sequence: cache.bundle_sequence(),
            mesh_revision,
            identities: cache
                .svids()
                .map(|(entry_id, svid)| CachedIdentity {
                    entry_id: entry_id.clone(),
                    spiffe_id: svid.spiffe_id.as_str().to_owned(),
                    expires_at: svid.validity.not_after.unix_secs(),
                    x509_authority_id: svid.authority_id.clone(),
                    serial: svid.serial.clone(),
                })
                .collect(),
            proxies,
            last_error: progress.last_error,
        });
        Ok(Response::new(status))
    }

    async fn explain_workload(
        &self,
        request: Request<ExplainWorkloadRequest>,
    ) -> Result<Response<ExplainWorkloadResponse>, Status> {
        let (attestor, pid) = (Arc::clone(&self.attestor), request.get_ref().pid);
        let selectors = tokio::task::spawn_blocking(move || attestor.explain(pid))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::not_found(error.to_string()))?;
        let judged = self.state.with_cache(|cache| cache.judge(&selectors));
        Ok(Response::new(ExplainWorkloadResponse {
            selectors: selectors.iter().map(selector_to_pb).collect(),
            entries: judged
                .into_iter()
                .take(limits::EXPLAINED_ENTRIES_MAX)
                .map(|judgement| EntryMatch {
                    entry_id: judgement.entry.id.clone(),
                    spiffe_id: judgement.entry.spiffe_id.as_str().to_owned(),
                    is_match: judgement.missing.is_empty(),
                    missing: judgement.missing.iter().map(selector_to_pb).collect(),
                })
                .collect(),
        }))
    }
}
