//! `ravelin.v1.Sync`: one stream per agent.

use std::pin::Pin;

use futures_util::Stream;
use ravelin_proto::pb::ravelin::v1::sync_request::{Hello, Step};
use ravelin_proto::pb::ravelin::v1::sync_server::{Sync, SyncServer};
use ravelin_proto::pb::ravelin::v1::{SyncRequest, SyncResponse};
use ravelin_runtime::drain::Drain;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::caller::Caller;
use crate::hub::Hub;
use crate::limits::SYNC_HELLO;
use crate::sync::stream::AgentStream;

/// The service over a hub.
#[derive(Debug, Clone)]
pub struct SyncService {
    hub: Hub,
    drain: Drain,
}

impl SyncService {
    /// Streams end when `drain` begins.
    pub fn server(hub: Hub, drain: Drain) -> SyncServer<Self> {
        SyncServer::new(Self { hub, drain })
    }
}

async fn hello(requests: &mut Streaming<SyncRequest>) -> Result<Hello, Status> {
    let first = timeout(SYNC_HELLO, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no `hello` came"))??;
    match first.and_then(|request| request.step) {
        Some(Step::Hello(hello)) => Ok(hello),
        Some(Step::Ack(_)) | None => {
            Err(Status::invalid_argument("the first request is not `hello`"))
        }
    }
}

#[tonic::async_trait]
impl Sync for SyncService {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<SyncResponse, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let caller = Caller::of(request.extensions(), &self.hub.registry());
        let agent = caller.agent()?.id.clone();
        let mut requests = request.into_inner();
        let hello = hello(&mut requests).await?;
        let stream = AgentStream::open(self.hub.clone(), agent, hello, self.drain.clone()).await?;
        Ok(Response::new(Box::pin(stream.run(requests))))
    }
}
