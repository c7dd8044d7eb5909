//! The launchers' service: processes registered for as long as the launcher's stream is open.

use std::sync::Arc;

use futures_util::stream;
use ravelin_proto::pb::ravelin::v1::launch_server::Launch;
use ravelin_proto::pb::ravelin::v1::{LaunchRequest, LaunchResponse};
use ravelin_runtime::drain::Drain;
use ravelin_runtime::process;
use tonic::{Request, Response, Status, Streaming};

use crate::attestor::launch::{LaunchError, LaunchTable, ProcessKey};
use crate::workload_api::Responses;

/// The service; on the admin socket alone.
#[derive(Debug, Clone)]
pub(crate) struct LaunchApi {
    /// Registered processes.
    pub launches: Arc<LaunchTable>,
    /// Ends all streams.
    pub drain: Drain,
}

struct Registrations {
    launches: Arc<LaunchTable>,
    drain: Drain,
    inbound: Streaming<LaunchRequest>,
    held: Vec<ProcessKey>,
}

impl Drop for Registrations {
    fn drop(&mut self) {
        for process in self.held.drain(..) {
            self.launches.remove(process);
        }
    }
}

impl Registrations {
    async fn next(&mut self) -> Result<Option<LaunchResponse>, Status> {
        // Cancel-safe: `message` keeps what it has read.
        let request = tokio::select! {
            message = self.inbound.message() => message?,
            () = self.drain.started() => return Err(Status::unavailable("the agent is ending")),
        };
        let Some(request) = request else {
            return Ok(None);
        };
        let process = check(&request)?;
        self.launches
            .register(process, &request.name)
            .map_err(|error| match error {
                LaunchError::Name => Status::invalid_argument(error.to_string()),
                LaunchError::Taken(..) => Status::already_exists(error.to_string()),
                LaunchError::Full => Status::resource_exhausted(error.to_string()),
            })?;
        self.held.push(process);
        tracing::info!(name = %request.name, pid = request.pid, "process registered by its launcher");
        Ok(Some(LaunchResponse {
            name: request.name,
            pid: request.pid,
        }))
    }
}

/// The process must run, and be the one that the launcher means.
fn check(request: &LaunchRequest) -> Result<ProcessKey, Status> {
    let start_time_ticks = process::start_time_ticks(request.pid)
        .map_err(|error| Status::not_found(error.to_string()))?;
    if start_time_ticks != request.start_time_ticks {
        return Err(Status::not_found(format!(
            "process {} is another one than the launcher started",
            request.pid
        )));
    }
    Ok(ProcessKey {
        pid: request.pid,
        start_time_ticks,
    })
}

#[tonic::async_trait]
impl Launch for LaunchApi {
    type RegisterStream = Responses<LaunchResponse>;

    async fn register(
        &self,
        request: Request<Streaming<LaunchRequest>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let registrations = Registrations {
            launches: Arc::clone(&self.launches),
            drain: self.drain.clone(),
            inbound: request.into_inner(),
            held: Vec::new(),
        };
        let answers = stream::unfold(Some(registrations), |registrations| async move {
            let mut registrations = registrations?;
            match registrations.next().await {
                Ok(Some(response)) => Some((Ok(response), Some(registrations))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
