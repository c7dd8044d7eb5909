//! `spire.api.server.debug.v1.Debug`: how this server is.

use ravelin_proto::convert::id_to_pb;
use ravelin_proto::pb::spire::api::server::debug::v1 as pb;
use ravelin_proto::pb::spire::api::server::debug::v1::debug_server::{Debug, DebugServer};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::hub::Hub;
use crate::registry::SERVER_PATH;
use crate::server_identity::ServerSvid;

/// The service.
#[derive(Debug, Clone)]
pub struct DebugService {
    hub: Hub,
    started_at: Timestamp,
    svid: watch::Receiver<ServerSvid>,
}

impl DebugService {
    /// `svid` is the server's own.
    pub fn server(
        hub: Hub,
        started_at: Timestamp,
        svid: watch::Receiver<ServerSvid>,
    ) -> DebugServer<Self> {
        DebugServer::new(Self {
            hub,
            started_at,
            svid,
        })
    }
}

#[tonic::async_trait]
impl Debug for DebugService {
    async fn get_info(
        &self,
        _request: Request<pb::GetInfoRequest>,
    ) -> Result<Response<pb::GetInfoResponse>, Status> {
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let registry = self.hub.registry();
        let store = self.hub.store();
        let uptime = store.clock().now().since(self.started_at).as_secs();
        let id = SpiffeId::new(store.trust_domain(), SERVER_PATH).ok();
        let leaf = pb::get_info_response::Cert {
            id: id.as_ref().map(id_to_pb),
            expires_at: self.svid.borrow().expires_at.unix_secs(),
            subject: String::new(),
        };
        Ok(Response::new(pb::GetInfoResponse {
            svid_chain: vec![leaf],
            uptime: i32::try_from(uptime).unwrap_or(i32::MAX),
            agents_count: count(registry.agents().count()),
            federated_bundles_count: 0,
            entries_count: count(registry.entry_count()),
        }))
    }
}
