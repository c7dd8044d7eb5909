//! Handshakes under way, counted by source address: one client without identity must not fill a listener.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use crate::limits;

/// Handshakes under way on one worker.
#[derive(Clone, Debug, Default)]
pub struct Handshakes(Rc<RefCell<HashMap<IpAddr, usize>>>);

/// One handshake, until it is dropped.
#[derive(Debug)]
pub struct Place {
    handshakes: Handshakes,
    source: IpAddr,
}

impl Handshakes {
    /// A place for one more handshake with `source`; none when it has too many under way.
    pub fn enter(&self, source: IpAddr) -> Option<Place> {
        let mut counts = self.0.borrow_mut();
        let count = counts.entry(source).or_default();
        if *count >= limits::HANDSHAKES_PER_SOURCE_MAX {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Place {
            handshakes: self.clone(),
            source,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.handshakes.0.borrow_mut();
        match counts.get_mut(&self.source) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            Some(_) | None => drop(counts.remove(&self.source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_54_a_source_has_a_bounded_number_of_handshakes_under_way() {
        let handshakes = Handshakes::default();
        let [one, other] = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
        let mut places: Vec<Place> = std::iter::from_fn(|| handshakes.enter(one)).collect();
        assert_eq!(places.len(), limits::HANDSHAKES_PER_SOURCE_MAX);
        assert!(handshakes.enter(other).is_some(), "another source goes on");
        places.pop();
        assert!(
            handshakes.enter(one).is_some(),
            "an ended handshake makes room"
        );
        drop(places);
        assert!(handshakes.0.borrow().is_empty(), "nothing is kept");
    }
}
