//! Node attestation.
