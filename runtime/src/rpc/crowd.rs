//! Open connections by where they come from, so that one source leaves room for the others.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A user on a Unix socket.
    User(u32),
    /// An address; of IPv6 the first 64 bits, which is what one site has.
    Address(IpAddr),
}

impl Source {
    pub(crate) fn of_address(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// Open connections by source.
#[derive(Debug, Default)]
pub(crate) struct Crowd(Mutex<BTreeMap<Source, usize>>);

/// One connection of a source, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    source: Source,
}

impl Crowd {
    /// A place, unless the source has as many as it may.
    pub(crate) fn admit(self: &Arc<Self>, source: Source, most: usize) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = open.get(&source).copied().unwrap_or(0);
        if held >= most {
            return None;
        }
        open.insert(source, held.saturating_add(1));
        Some(Place {
            crowd: Arc::clone(self),
            source,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.source) {
            Some(held) if *held > 1 => *held -= 1,
            Some(_) | None => {
                open.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_08_a_source_is_an_address_or_the_site_that_it_is_of() {
        let rows = [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ];
        for (one, other, is_same) in rows {
            let source = |text: &str| Source::of_address(text.parse().unwrap());
            assert_eq!(source(one) == source(other), is_same, "{one} {other}");
        }
    }
}
