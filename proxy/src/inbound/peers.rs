//! Connections of authenticated peers, counted by identity: one workload must not take the places of the others.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use ravelin_proto::spiffe_id::SpiffeId;

use crate::limits;

/// Open connections of peers on one worker.
#[derive(Clone, Debug, Default)]
pub struct Peers(Rc<RefCell<HashMap<SpiffeId, usize>>>);

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub struct PeerPlace {
    peers: Peers,
    id: SpiffeId,
}

impl Peers {
    /// A place for one more connection of `id`; none when it has too many.
    pub fn enter(&self, id: &SpiffeId) -> Option<PeerPlace> {
        let mut counts = self.0.borrow_mut();
        let count = counts.entry(id.clone()).or_default();
        if *count >= limits::CONNECTIONS_PER_PEER_MAX {
            return None;
        }
        *count = count.saturating_add(1);
        Some(PeerPlace {
            peers: self.clone(),
            id: id.clone(),
        })
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let mut counts = self.peers.0.borrow_mut();
        match counts.get_mut(&self.id) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            Some(_) | None => {
                counts.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_54_a_peer_has_so_many_connections_and_no_more() {
        let id = |name: &str| SpiffeId::parse(&format!("spiffe://example.org/{name}")).unwrap();
        let peers = Peers::default();
        let mut places: Vec<PeerPlace> = (0..limits::CONNECTIONS_PER_PEER_MAX)
            .map(|_| peers.enter(&id("a")).unwrap())
            .collect();
        assert!(peers.enter(&id("a")).is_none());
        assert!(peers.enter(&id("b")).is_some(), "another has its own");
        places.pop();
        assert!(peers.enter(&id("a")).is_some(), "an ended one makes room");
        drop(places);
        assert!(peers.0.borrow().is_empty(), "nothing is kept");
    }
}
