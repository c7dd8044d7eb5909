//! Node attestation: which machine an agent runs on, before it may hand out identities.

pub mod agents;
pub mod join_token;
pub mod throttle;
