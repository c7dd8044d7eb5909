//! `spire.api.server.logger.v1.Logger`: the log level. Changing it at run time is not here yet, each method by its name.

use ravelin_proto::pb::spire::api::server::logger::v1 as pb;
use ravelin_proto::pb::spire::api::server::logger::v1::logger_server::{Logger, LoggerServer};
use ravelin_proto::pb::spire::api::types;
use tonic::{Request, Response, Status};

use super::status;

/// The service.
#[derive(Debug, Clone, Copy)]
pub struct LoggerService;

impl LoggerService {
    /// Knows nothing yet.
    pub fn server() -> LoggerServer<Self> {
        LoggerServer::new(Self)
    }
}

fn not_here<T>(method: &str) -> Result<T, Status> {
    Err(status::unimplemented(&format!(
        "spire.api.server.logger.v1.Logger/{method}"
    )))
}

#[tonic::async_trait]
impl Logger for LoggerService {
    async fn get_logger(
        &self,
        _request: Request<pb::GetLoggerRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        not_here("GetLogger")
    }

    async fn set_log_level(
        &self,
        _request: Request<pb::SetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        not_here("SetLogLevel")
    }

    async fn reset_log_level(
        &self,
        _request: Request<pb::ResetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        not_here("ResetLogLevel")
    }
}
