//! Where a captured connection may lead. Whoever can make the application dial an address must not reach with it what
//! only the proxy or this machine can reach: the proxy's own listeners, loopback, metadata services (threat 55).
//!
//! Pure. Judged is the destination that the kernel names, in every spelling of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Amazon's metadata service over IPv6: a unique local address that leads to no neighbour.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Why a captured connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationRefusal {
    /// One of the proxy's own listeners.
    Itself,
    /// Opened by the proxy's own user: the redirect leads in a circle.
    Loop,
    /// `0.0.0.0/8` or `::`.
    Unspecified,
    /// `127.0.0.0/8` or `::1`.
    Loopback,
    /// `169.254.0.0/16` or `fe80::/10`, where metadata services are.
    LinkLocal,
    /// A group of machines.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// An address of another machine, where peers are to reach this one.
    NotLocal,
    /// A port of the application that the configuration does not name.
    PortNotCaptured,
    /// No service of the mesh has this address and port.
    Unknown,
}

impl DestinationRefusal {
    /// Stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Itself => "destination_itself",
            Self::Loop => "capture_loop",
            Self::Unspecified => "destination_unspecified",
            Self::Loopback => "destination_loopback",
            Self::LinkLocal => "destination_link_local",
            Self::Multicast => "destination_multicast",
            Self::Broadcast => "destination_broadcast",
            Self::NotLocal => "destination_not_local",
            Self::PortNotCaptured => "port_not_captured",
            Self::Unknown => "unknown_destination",
        }
    }

    /// One line for a person.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Itself => "the destination is a listener of the proxy itself",
            Self::Loop => {
                "the proxy's own connection was redirected to it: is the exempt user the one that it runs as?"
            }
            Self::Unspecified => "the destination is no address",
            Self::Loopback => "the destination is a loopback address",
            Self::LinkLocal => "the destination is a link-local address",
            Self::Multicast => "the destination is a multicast address",
            Self::Broadcast => "the destination is a broadcast address",
            Self::NotLocal => "the destination is not an address of this machine",
            Self::PortNotCaptured => "`capture.workload_ports` does not name the port",
            Self::Unknown => "no service of the mesh has this address and port",
        }
    }
}

/// What is known of the destination of a connection that the application opened.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// As the kernel names it.
    pub address: SocketAddr,
    /// True for one of the proxy's own listeners, at any address of this machine.
    pub is_own_listener: bool,
    /// The service of the mesh that is there, `HOST:PORT`.
    pub service: Option<&'a str>,
}

/// Judges where a connection of the application leads. `allowed` are services that may be at loopback and link-local
/// addresses.
pub fn judge_outbound(
    destination: Destination<'_>,
    allowed: &[String],
) -> Result<(), DestinationRefusal> {
    if destination.is_own_listener {
        return Err(DestinationRefusal::Itself);
    }
    let place = place(destination.address.ip());
    let is_allowed = destination
        .service
        .is_some_and(|service| allowed.iter().any(|allowed| allowed == service));
    match place {
        Err(DestinationRefusal::Loopback | DestinationRefusal::LinkLocal) if is_allowed => Ok(()),
        Err(refusal) => Err(refusal),
        Ok(()) if destination.service.is_none() => Err(DestinationRefusal::Unknown),
        Ok(()) => Ok(()),
    }
}

/// Judges where a connection of a peer leads: to a captured port of this machine.
pub fn judge_inbound(
    address: SocketAddr,
    is_own_listener: bool,
    is_local: bool,
    is_captured: bool,
) -> Result<(), DestinationRefusal> {
    if is_own_listener {
        return Err(DestinationRefusal::Itself);
    }
    place(address.ip())?;
    if !is_local {
        return Err(DestinationRefusal::NotLocal);
    }
    if !is_captured {
        return Err(DestinationRefusal::PortNotCaptured);
    }
    Ok(())
}

/// Refuses addresses that do not lead to another machine's service.
fn place(ip: IpAddr) -> Result<(), DestinationRefusal> {
    match ip {
        IpAddr::V4(ip) => place_v4(ip),
        IpAddr::V6(ip) => match carried_v4(ip) {
            Some(carried) => place_v4(carried),
            None => place_v6(ip),
        },
    }
}

fn place_v4(ip: Ipv4Addr) -> Result<(), DestinationRefusal> {
    let [first, ..] = ip.octets();
    if first == 0 {
        Err(DestinationRefusal::Unspecified)
    } else if ip.is_loopback() {
        Err(DestinationRefusal::Loopback)
    } else if ip.is_link_local() {
        Err(DestinationRefusal::LinkLocal)
    } else if ip.is_multicast() {
        Err(DestinationRefusal::Multicast)
    } else if ip.is_broadcast() {
        Err(DestinationRefusal::Broadcast)
    } else {
        Ok(())
    }
}

fn place_v6(ip: Ipv6Addr) -> Result<(), DestinationRefusal> {
    if ip.is_unspecified() {
        Err(DestinationRefusal::Unspecified)
    } else if ip.is_loopback() {
        Err(DestinationRefusal::Loopback)
    } else if ip.is_unicast_link_local() || ip == METADATA_V6 {
        Err(DestinationRefusal::LinkLocal)
    } else if ip.is_multicast() {
        Err(DestinationRefusal::Multicast)
    } else {
        Ok(())
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64 (RFC 6052) or 6to4.
fn carried_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [first, second, third, .., high, low] = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    let bits = ip.to_bits();
    match first {
        0 if bits >> 32 == 0xffff || (bits >> 32 == 0 && high != 0) => Some(v4(high, low)),
        0x64 if bits >> 32 == 0x64_ff9b << 64 => Some(v4(high, low)),
        0x2002 => Some(v4(second, third)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DestinationRefusal as Refusal;

    type Row = (&'static str, Option<&'static str>, Result<(), Refusal>);
    const OUTBOUND: [Row; 30] = [
        ("10.1.2.3:80", Some("a.shop:80"), Ok(())),
        ("[fd77::2]:80", Some("a.shop:80"), Ok(())),
        ("240.240.0.1:80", Some("a.shop:80"), Ok(())),
        ("10.1.2.3:80", None, Err(Refusal::Unknown)),
        ("93.184.216.34:443", None, Err(Refusal::Unknown)),
        ("127.0.0.1:5432", None, Err(Refusal::Loopback)),
        ("127.0.0.1:80", Some("a.shop:80"), Err(Refusal::Loopback)),
        ("127.255.0.9:80", Some("a.shop:80"), Err(Refusal::Loopback)),
        ("127.0.0.1:80", Some("local.shop:80"), Ok(())),
        ("[::1]:80", Some("a.shop:80"), Err(Refusal::Loopback)),
        ("[::1]:80", Some("local.shop:80"), Ok(())),
        (
            "[::ffff:127.0.0.1]:80",
            Some("a.shop:80"),
            Err(Refusal::Loopback),
        ),
        (
            "[::127.0.0.1]:80",
            Some("a.shop:80"),
            Err(Refusal::Loopback),
        ),
        (
            "[64:ff9b::7f00:1]:80",
            Some("a.shop:80"),
            Err(Refusal::Loopback),
        ),
        (
            "[2002:7f00:1::]:80",
            Some("a.shop:80"),
            Err(Refusal::Loopback),
        ),
        ("169.254.169.254:80", None, Err(Refusal::LinkLocal)),
        (
            "169.254.169.254:80",
            Some("a.shop:80"),
            Err(Refusal::LinkLocal),
        ),
        ("[::ffff:169.254.169.254]:80", None, Err(Refusal::LinkLocal)),
        ("[64:ff9b::a9fe:a9fe]:80", None, Err(Refusal::LinkLocal)),
        ("[2002:a9fe:a9fe::1]:80", None, Err(Refusal::LinkLocal)),
        ("[fe80::1]:80", None, Err(Refusal::LinkLocal)),
        ("[febf::1]:80", None, Err(Refusal::LinkLocal)),
        ("[fd00:ec2::254]:80", None, Err(Refusal::LinkLocal)),
        (
            "0.0.0.0:80",
            Some("local.shop:80"),
            Err(Refusal::Unspecified),
        ),
        ("0.1.2.3:80", None, Err(Refusal::Unspecified)),
        ("[::]:80", Some("local.shop:80"), Err(Refusal::Unspecified)),
        (
            "224.0.0.1:80",
            Some("local.shop:80"),
            Err(Refusal::Multicast),
        ),
        ("[ff02::1]:80", None, Err(Refusal::Multicast)),
        ("255.255.255.255:80", None, Err(Refusal::Broadcast)),
        ("[::ffff:255.255.255.255]:80", None, Err(Refusal::Broadcast)),
    ];

    #[test]
    fn threat_55_a_captured_connection_leads_to_a_service_and_nowhere_else() {
        let allowed = ["local.shop:80".to_owned()];
        for (address, service, want) in OUTBOUND {
            let destination = Destination {
                address: address.parse().unwrap(),
                is_own_listener: false,
                service,
            };
            assert_eq!(
                judge_outbound(destination, &allowed),
                want,
                "{address} {service:?}"
            );
            let own = Destination {
                is_own_listener: true,
                ..destination
            };
            assert_eq!(
                judge_outbound(own, &allowed),
                Err(Refusal::Itself),
                "{address}"
            );
        }
    }

    #[test]
    fn threat_55_a_peer_reaches_the_captured_ports_of_this_machine_alone() {
        let rows = [
            ("10.1.2.3:8080", false, true, true, Ok(())),
            ("[fd77::2]:8080", false, true, true, Ok(())),
            ("10.1.2.3:15006", true, true, true, Err(Refusal::Itself)),
            ("10.1.2.3:8080", false, false, true, Err(Refusal::NotLocal)),
            (
                "10.1.2.3:22",
                false,
                true,
                false,
                Err(Refusal::PortNotCaptured),
            ),
            ("127.0.0.1:8080", false, true, true, Err(Refusal::Loopback)),
            ("[::1]:8080", false, true, true, Err(Refusal::Loopback)),
            (
                "169.254.169.254:8080",
                false,
                true,
                true,
                Err(Refusal::LinkLocal),
            ),
            ("[fe80::1]:8080", false, true, true, Err(Refusal::LinkLocal)),
        ];
        for (address, is_own, is_local, is_captured, want) in rows {
            let judged = judge_inbound(address.parse().unwrap(), is_own, is_local, is_captured);
            assert_eq!(judged, want, "{address}");
        }
    }

    #[test]
    fn each_refusal_has_a_code_and_a_reason_of_its_own() {
        let all = [
            Refusal::Itself,
            Refusal::Loop,
            Refusal::Unspecified,
            Refusal::Loopback,
            Refusal::LinkLocal,
            Refusal::Multicast,
            Refusal::Broadcast,
            Refusal::NotLocal,
            Refusal::PortNotCaptured,
            Refusal::Unknown,
        ];
        let codes: std::collections::BTreeSet<&str> = all.iter().map(|one| one.code()).collect();
        let reasons: std::collections::BTreeSet<&str> =
            all.iter().map(|one| one.reason()).collect();
        assert_eq!((codes.len(), reasons.len()), (all.len(), all.len()));
    }
}
