//! The CA's gRPC services.
