//! Protocols that users have, by programs that we did not write, through two proxies with strict mutual TLS: refused
//! without a policy, and carried with one.

mod curl;
mod databases;
mod grpc;
mod websocket;
