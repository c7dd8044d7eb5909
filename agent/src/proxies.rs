//! The proxies attached to this agent and what each has taken into use: a pure table.
//!
//! An acknowledgement to the CA carries the lowest number among agent and proxies, so that the CA
//! never activates or revokes ahead of a proxy. A proxy that is gone does not count any more.

use std::collections::BTreeMap;

use ravelin_proto::pb::ravelin::v1::{ProxyAck, sync_request};

use crate::limits;

/// Names one open stream of a proxy.
pub(crate) type ProxyId = u64;

/// The agent's own part of an acknowledgement.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct OwnAck {
    /// Change-log revision in use.
    pub revision: u64,
    /// Bundle in use.
    pub bundle_sequence: u64,
    /// Deny-list in use.
    pub denylist_number: u64,
    /// Mesh revision held.
    pub mesh_revision: u64,
    /// Live X509-SVIDs per authority.
    pub x509_svids_by_authority: BTreeMap<String, u32>,
    /// Cached JWT-SVIDs per key id.
    pub jwt_svids_by_authority: BTreeMap<String, u32>,
    /// Why the last message was not taken.
    pub refusal: String,
}

/// No room for one more proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {} proxies on this node", limits::PROXIES_MAX)]
pub(crate) struct ProxyTableFull;

/// Every attached proxy. One that has not acknowledged yet counts as holding nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProxyTable {
    proxies: BTreeMap<ProxyId, ProxyAck>,
    next: ProxyId,
}

impl ProxyTable {
    /// A proxy opened its stream.
    pub(crate) fn attach(
        &mut self,
        name: &str,
        spiffe_id: &str,
    ) -> Result<ProxyId, ProxyTableFull> {
        if self.proxies.len() >= limits::PROXIES_MAX {
            return Err(ProxyTableFull);
        }
        self.next = self.next.wrapping_add(1);
        let ack = ProxyAck {
            name: bounded(name, limits::PROXY_NAME_CHARS_MAX),
            spiffe_id: spiffe_id.to_owned(),
            ..ProxyAck::default()
        };
        self.proxies.insert(self.next, ack);
        Ok(self.next)
    }

    /// A proxy acknowledged. Its name and identity stay what they were at attestation.
    pub(crate) fn acknowledge(&mut self, proxy: ProxyId, ack: ProxyAck) {
        if let Some(held) = self.proxies.get_mut(&proxy) {
            *held = ProxyAck {
                name: std::mem::take(&mut held.name),
                spiffe_id: std::mem::take(&mut held.spiffe_id),
                refusal: bounded(&ack.refusal, limits::REFUSAL_CHARS_MAX),
                ..ack
            };
        }
    }

    /// A proxy closed its stream, or its process ended.
    pub(crate) fn detach(&mut self, proxy: ProxyId) {
        self.proxies.remove(&proxy);
    }

    /// What each proxy has acknowledged.
    pub(crate) fn acks(&self) -> Vec<ProxyAck> {
        self.proxies.values().cloned().collect()
    }

    /// What one proxy has acknowledged.
    #[cfg(test)]
    pub(crate) fn ack(&self, proxy: ProxyId) -> Option<&ProxyAck> {
        self.proxies.get(&proxy)
    }

    /// The acknowledgement of agent and proxies together: the lowest of each number.
    pub(crate) fn compose(&self, own: OwnAck) -> sync_request::Ack {
        let lowest = |own: u64, of: fn(&ProxyAck) -> u64| {
            self.proxies
                .values()
                .map(of)
                .min()
                .map_or(own, |low| low.min(own))
        };
        sync_request::Ack {
            revision: own.revision,
            bundle_sequence: lowest(own.bundle_sequence, |ack| ack.bundle_sequence),
            denylist_number: lowest(own.denylist_number, |ack| ack.denylist_number),
            mesh_revision: lowest(own.mesh_revision, |ack| ack.mesh_revision),
            x509_svids_by_authority: own.x509_svids_by_authority.into_iter().collect(),
            jwt_svids_by_authority: own.jwt_svids_by_authority.into_iter().collect(),
            proxies: self.acks(),
            refusal: own.refusal,
        }
    }
}

/// At most so many characters, without those that control a terminal or a log.
pub(crate) fn bounded(text: &str, chars_max: usize) -> String {
    text.chars()
        .take(chars_max)
        .filter(|c| !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(bundle: u64, denylist: u64, mesh: u64) -> ProxyAck {
        ProxyAck {
            name: "forged".into(),
            spiffe_id: "spiffe://td/forged".into(),
            bundle_sequence: bundle,
            denylist_number: denylist,
            mesh_revision: mesh,
            ..ProxyAck::default()
        }
    }

    fn numbers(table: &ProxyTable) -> (u64, u64, u64, u64) {
        let own = OwnAck {
            revision: 9,
            bundle_sequence: 5,
            denylist_number: 5,
            mesh_revision: 5,
            ..OwnAck::default()
        };
        let ack = table.compose(own);
        (
            ack.revision,
            ack.bundle_sequence,
            ack.denylist_number,
            ack.mesh_revision,
        )
    }

    #[test]
    fn an_acknowledgement_carries_the_lowest_numbers_of_agent_and_proxies() {
        let mut table = ProxyTable::default();
        assert_eq!(numbers(&table), (9, 5, 5, 5), "no proxy");
        let slow = table.attach("slow", "spiffe://td/slow").unwrap();
        assert_eq!(numbers(&table), (9, 0, 0, 0), "attached, not acknowledged");
        table.acknowledge(slow, ack(4, 7, 3));
        assert_eq!(numbers(&table), (9, 4, 5, 3));
        let quick = table.attach("quick", "spiffe://td/quick").unwrap();
        table.acknowledge(quick, ack(5, 5, 5));
        assert_eq!(numbers(&table), (9, 4, 5, 3));
        table.detach(slow);
        assert_eq!(
            numbers(&table),
            (9, 5, 5, 5),
            "a proxy that is gone does not count"
        );
    }

    #[test]
    fn a_proxy_cannot_acknowledge_in_the_name_of_another() {
        let mut table = ProxyTable::default();
        let proxy = table.attach("orders", "spiffe://td/orders").unwrap();
        table.acknowledge(proxy, ack(1, 1, 1));
        let held = table.ack(proxy).unwrap();
        assert_eq!(
            (held.name.as_str(), held.spiffe_id.as_str()),
            ("orders", "spiffe://td/orders")
        );
        table.acknowledge(99, ack(1, 1, 1));
        assert_eq!(table.acks().len(), 1);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = ProxyTable::default();
        for _ in 0..limits::PROXIES_MAX {
            table.attach("p", "spiffe://td/p").unwrap();
        }
        assert_eq!(table.attach("p", "spiffe://td/p"), Err(ProxyTableFull));
    }
}
