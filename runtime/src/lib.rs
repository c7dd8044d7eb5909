//! What Ravelin's programs share at run time: the crypto provider, TLS by SPIFFE ID, Unix sockets that know
//! their peer, gRPC over both, the Workload API client, drain, telemetry and configuration.
//!
//! Nothing here decides who may do what. The crypto provider is picked in `crypto` and nowhere else.

#[cfg(all(feature = "aws-lc", feature = "ring"))]
compile_error!(
    "the features `aws-lc` and `ring` exclude each other: use --no-default-features --features ring"
);
#[cfg(not(any(feature = "aws-lc", feature = "ring")))]
compile_error!("one of the features `aws-lc` and `ring` is needed");

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod drain;
pub mod durable;
pub mod jwt;
pub mod limits;
mod peer_pidfd;
pub mod process;
pub mod rpc;
pub mod telemetry;
pub mod tls;
pub mod uds;
pub mod workload_client;
