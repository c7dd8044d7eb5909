//! Counters of the agent, in Prometheus's words.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Every counter. Copies count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// X509-SVIDs received.
    pub x509_issued: Counter,
    /// Attempts to get X509-SVIDs that failed.
    pub x509_failed: Counter,
    /// JWT-SVIDs received.
    pub jwt_issued: Counter,
    /// JWT-SVIDs handed out from the cache.
    pub jwt_cached: Counter,
    /// Calls of the Workload API that were let in.
    pub calls_admitted: Counter,
    /// Calls that were refused because a user held too many.
    pub calls_crowded: Counter,
    /// Processes that were attested.
    pub attested: Counter,
    /// Processes that could not be attested.
    pub attest_failed: Counter,
    /// Calls of processes that have no identity.
    pub denied: Counter,
    /// Decisions of proxies received.
    pub decisions: Counter,
    /// Decisions lost: here, or in a proxy before they came.
    pub decisions_lost: Counter,
    /// Decisions that the CA has taken.
    pub decisions_shipped: Counter,
}

impl Metrics {
    /// Registers every counter.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let rows = [
            (
                "x509_svids_issued",
                "X509-SVIDs received",
                &self.x509_issued,
            ),
            (
                "x509_svids_failed",
                "failed attempts to get X509-SVIDs",
                &self.x509_failed,
            ),
            ("jwt_svids_issued", "JWT-SVIDs received", &self.jwt_issued),
            (
                "jwt_svids_cached",
                "JWT-SVIDs handed out from the cache",
                &self.jwt_cached,
            ),
            (
                "workload_calls",
                "calls of the Workload API let in",
                &self.calls_admitted,
            ),
            (
                "workload_calls_crowded",
                "calls refused, too many of one user",
                &self.calls_crowded,
            ),
            ("workloads_attested", "processes attested", &self.attested),
            (
                "workloads_attest_failed",
                "processes that could not be attested",
                &self.attest_failed,
            ),
            (
                "workloads_denied",
                "calls of processes without identity",
                &self.denied,
            ),
            (
                "decisions",
                "decisions received from proxies",
                &self.decisions,
            ),
            ("decisions_lost", "decisions lost", &self.decisions_lost),
            (
                "decisions_shipped",
                "decisions taken by the CA",
                &self.decisions_shipped,
            ),
        ];
        for (name, help, counter) in rows {
            registry.register(format!("ravelin_agent_{name}"), help, counter.clone());
        }
    }
}
