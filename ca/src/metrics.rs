//! Metrics of the CA.
