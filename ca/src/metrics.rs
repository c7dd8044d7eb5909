//! What an operator watches of the CA, read from the parts at each scrape.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::authority::custody::Custody;
use crate::authority::state::Kind;
use crate::hub::Hub;

/// Reads the parts.
#[derive(Debug)]
struct CaCollector {
    hub: Hub,
    custody: Arc<Custody>,
}

/// The registry that the operator's listener shows.
pub fn registry(hub: Hub, custody: Arc<Custody>) -> Registry {
    let mut registry = Registry::with_prefix("ravelin_ca");
    registry.register_collector(Box::new(CaCollector { hub, custody }));
    registry
}

fn gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Collector for CaCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let snapshot = self.hub.registry();
        let store = self.hub.store();
        let authorities = self.custody.authorities();
        let end = |kind: Kind| {
            authorities
                .of(kind)
                .active()
                .map_or(0, |active| active.validity.not_after.unix_secs())
        };
        let connected = self
            .hub
            .acks()
            .live_agents()
            .iter()
            .filter(|ack| ack.is_connected)
            .count();
        let audit_size = *store.audit_sizes().borrow();
        let rows = [
            (
                "entries",
                "Registration entries",
                gauge(snapshot.entry_count()),
            ),
            (
                "agents",
                "Attested agents",
                gauge(snapshot.agents().count()),
            ),
            (
                "agents_connected",
                "Agents with an open sync stream",
                gauge(connected),
            ),
            (
                "audit_log_size",
                "Leaves of the audit log",
                i64::try_from(audit_size).unwrap_or(i64::MAX),
            ),
            (
                "bundle_sequence",
                "Sequence number of the trust bundle",
                i64::try_from(authorities.bundle.sequence).unwrap_or(i64::MAX),
            ),
            (
                "x509_authority_expires_seconds",
                "When the active X.509 authority expires, in Unix time",
                end(Kind::X509),
            ),
            (
                "jwt_authority_expires_seconds",
                "When the active JWT authority expires, in Unix time",
                end(Kind::Jwt),
            ),
        ];
        for (name, help, value) in rows {
            let metric = ConstGauge::new(value);
            let described = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(described)?;
        }
        Ok(())
    }
}
