//! The CA's gRPC services.

pub mod access;
pub mod admin;
pub mod agent;
pub mod audit;
pub mod bundle;
pub mod caller;
pub mod debug;
pub mod entry;
pub mod entry_filter;
pub mod localauthority;
pub mod logger;
pub mod mesh;
pub mod rotation;
pub mod status;
pub mod svid;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod trustdomain;

use tonic::Status;

use crate::store::StoreError;

/// What a caller hears of a failing store; the log has the rest.
pub(crate) fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::Entry(reason) => Status::invalid_argument(reason.to_string()),
        StoreError::Event(reason) => Status::invalid_argument(reason.clone()),
        StoreError::Folder { .. }
        | StoreError::Locked { .. }
        | StoreError::Corrupt { .. }
        | StoreError::ForeignDatabase { .. }
        | StoreError::NewerSchema { .. }
        | StoreError::ForeignTrustDomain { .. }
        | StoreError::Tampered { .. }
        | StoreError::Row { .. }
        | StoreError::Stopped(_)
        | StoreError::Database(_) => {
            tracing::error!(%error, source = ?std::error::Error::source(error), "the store failed");
            Status::unavailable("the CA's store failed; see its log")
        }
    }
}
