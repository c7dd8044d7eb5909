//! Classes of what is not text: addresses, ports, moments.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use ravelin_proto::time::Timestamp;

use super::bits::Bits;
use crate::schema::Window;

/// Addresses that no list of blocks tells apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressClass {
    /// Numbers of the blocks that contain them.
    pub(crate) matching: Bits,
    pub(crate) witness: IpAddr,
}

/// Every class of addresses. An IPv4 address in IPv6 form is the IPv4 address.
pub(crate) fn addresses(blocks: &[IpNet], preferred: &[IpAddr]) -> Vec<AddressClass> {
    let mut starts = BTreeSet::from([
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)),
        IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 1, 0, 0)),
    ]);
    for block in blocks {
        starts.insert(block.network());
        starts.extend(after(block.broadcast()));
    }
    let mut found: BTreeMap<Bits, IpAddr> = BTreeMap::new();
    for address in starts {
        if address.to_canonical() == address {
            found.entry(matching(blocks, address)).or_insert(address);
        }
    }
    for address in preferred.iter().rev() {
        if let Some(witness) = found.get_mut(&matching(blocks, *address)) {
            *witness = *address;
        }
    }
    found
        .into_iter()
        .map(|(matching, witness)| AddressClass { matching, witness })
        .collect()
}

fn matching(blocks: &[IpNet], address: IpAddr) -> Bits {
    let numbers = (0..).zip(blocks);
    Bits::of(
        blocks.len(),
        numbers.filter_map(|(number, block)| block.contains(&address).then_some(number)),
    )
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4
            .to_bits()
            .checked_add(1)
            .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        IpAddr::V6(v6) => v6
            .to_bits()
            .checked_add(1)
            .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    }
}

/// The named ports, then one that stands for all others, if there is one.
pub(crate) fn ports(named: &BTreeSet<u16>, preferred: u16) -> Vec<u16> {
    let other = [preferred, 8080, 80]
        .into_iter()
        .chain(1024..=u16::MAX)
        .chain(0..1024)
        .find(|port| !named.contains(port));
    named.iter().copied().chain(other).collect()
}

/// Between two changes: from the first moment on, before the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) from: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
}

impl Period {
    pub(crate) fn contains(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until)
    }

    /// A moment in it: `preferred` if it is.
    pub(crate) fn moment(&self, preferred: Timestamp) -> Timestamp {
        match (self.from, self.until) {
            _ if self.contains(preferred) => preferred,
            (Some(from), _) => from,
            (None, Some(until)) => Timestamp::from_unix_millis(until.unix_millis() - 1),
            (None, None) => preferred,
        }
    }
}

/// All time, cut where a window begins or ends.
pub(crate) fn periods(windows: &[Window]) -> Vec<Period> {
    let cuts: BTreeSet<Timestamp> = windows
        .iter()
        .flat_map(|window| [window.not_before, window.not_after])
        .flatten()
        .collect();
    let starts = std::iter::once(None).chain(cuts.iter().copied().map(Some));
    let ends = cuts.iter().copied().map(Some).chain(std::iter::once(None));
    starts
        .zip(ends)
        .map(|(from, until)| Period { from, until })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_36_nested_blocks_are_told_apart_and_a_covered_block_is_no_class() {
        let blocks: Vec<IpNet> = ["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "fd00::/8"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let found = addresses(&blocks, &["10.200.0.1".parse().unwrap()]);
        let mut shown: Vec<(Vec<usize>, String)> = found
            .iter()
            .map(|class| (class.matching.iter().collect(), class.witness.to_string()))
            .collect();
        shown.sort();
        assert_eq!(
            shown,
            [
                (vec![], "0.0.0.0".to_owned()),
                (vec![0, 1], "10.0.0.0".to_owned()),
                (vec![0, 2], "10.200.0.1".to_owned()),
                (vec![3], "fd00::".to_owned()),
            ]
        );
    }

    #[test]
    fn time_is_cut_at_every_change_and_each_period_has_a_moment() {
        let at = Timestamp::from_unix_secs;
        let window = Window {
            not_before: Some(at(10)),
            not_after: Some(at(20)),
        };
        let found = periods(&[window]);
        assert_eq!(found.len(), 3);
        for (period, inside) in found.iter().zip([false, true, false]) {
            let moment = period.moment(at(15));
            assert!(period.contains(moment));
            assert_eq!(window.contains(moment), inside);
        }
    }
}
