//! The CA's gRPC services.

pub mod audit;
pub mod caller;
pub mod entry;
pub mod entry_filter;
pub mod mesh;
pub mod sync;
#[cfg(test)]
mod tests;

use tonic::Status;

use crate::store::StoreError;

/// What a caller hears of a failing store; the log has the rest.
pub(crate) fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::Entry(reason) => Status::invalid_argument(reason.to_string()),
        StoreError::Event(reason) => Status::invalid_argument(reason.clone()),
        _ => {
            tracing::error!(%error, source = ?std::error::Error::source(error), "the store failed");
            Status::unavailable("the CA's store failed; see its log")
        }
    }
}
