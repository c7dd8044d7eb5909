//! The CA's gRPC services.

pub mod caller;
pub mod sync;
