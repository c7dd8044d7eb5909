//! Which addresses keys may be fetched from. Whoever writes a `jwksUri` must not reach with it what only this machine
//! or its network can reach: metadata services, admin ports, neighbours (advisory A10, threat 46).
//!
//! Judged is the address that is connected to, after the name was resolved: a name that changes helps nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ravelin_proto::http_url::HttpHost;

use crate::config::JwksConfig;

/// Where keys may be fetched from beside public addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    allows_private: bool,
    hosts: Vec<String>,
}

impl Reach {
    pub(super) fn new(config: &JwksConfig) -> Self {
        let hosts = config.allow_private_hosts.iter();
        Self {
            allows_private: config.allow_private_addresses,
            hosts: hosts.map(|host| host.to_ascii_lowercase()).collect(),
        }
    }

    /// True when `ip`, which `host` was resolved to, may be connected to.
    pub(super) fn allows(&self, host: &HttpHost, ip: IpAddr) -> bool {
        self.allows_private || is_public(ip) || self.hosts.contains(&host.to_string())
    }
}

/// True for addresses of the public internet. Everything that is not known to be one is not.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

// SPEC: the IANA registry of special-purpose IPv4 addresses (RFC 6890).
fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocol = a == 192 && b == 0 && c == 0;
    let is_relay = a == 192 && b == 88 && c == 99;
    let is_benchmark = a == 198 && (b == 18 || b == 19);
    let is_reserved = a >= 240;
    !(a == 0
        || ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || is_shared
        || is_protocol
        || is_relay
        || is_benchmark
        || is_reserved)
}

// SPEC: the IANA registry of special-purpose IPv6 addresses. Forms that carry an IPv4 address are judged by it.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [first, second, third, .., high, low] = ip.segments();
    let embedded = |high: u16, low: u16| is_public_v4(v4(high, low));
    let bits = ip.to_bits();
    match (first, second) {
        // `::ffff:a.b.c.d`, IPv4-mapped.
        (0, 0) if bits >> 32 == 0xffff => embedded(high, low),
        // `64:ff9b::a.b.c.d`, NAT64 (RFC 6052).
        (0x64, 0xff9b) if bits >> 32 == 0x64_ff9b << 64 => embedded(high, low),
        // `2002:a.b.c.d::`, 6to4.
        (0x2002, _) => embedded(second, third),
        // `2001::/23`, protocol assignments with Teredo; `2001:db8::/32` and `3fff::/20`, documentation.
        (0x2001, _) => second >= 0x200 && second != 0xdb8,
        (0x3fff, _) => second >= 0x1000,
        // Everything else outside of `2000::/3`: loopback, unspecified, unique local, link-local, multicast, discard.
        (_, _) => first & 0xe000 == 0x2000,
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a10_threat_46_addresses_that_are_not_public_are_told_in_every_spelling() {
        for (ip, want) in [
            ("8.8.8.8", true),
            ("93.184.216.34", true),
            ("100.63.255.255", true),
            ("100.128.0.0", true),
            ("172.15.255.255", true),
            ("172.32.0.0", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("100.100.100.200", false),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("192.0.0.192", false),
            ("192.0.2.1", false),
            ("192.88.99.1", false),
            ("192.168.1.1", false),
            ("198.18.0.1", false),
            ("198.51.100.1", false),
            ("203.0.113.1", false),
            ("224.0.0.1", false),
            ("239.255.255.255", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700::1111", true),
            ("2a00:1450:4001::1", true),
            ("::", false),
            ("::1", false),
            ("::127.0.0.1", false),
            ("::8.8.8.8", false),
            ("::ffff:8.8.8.8", true),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:0:127.0.0.1", false),
            ("64:ff9b::8.8.8.8", true),
            ("64:ff9b::127.0.0.1", false),
            ("64:ff9b::169.254.169.254", false),
            ("64:ff9b:1::8.8.8.8", false),
            ("2002:808:808::1", true),
            ("2002:7f00:1::1", false),
            ("2002:a9fe:a9fe::", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("3fff::1", false),
            ("100::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), want, "{ip}");
        }
    }

    #[test]
    fn a10_private_addresses_are_reached_only_as_configured() {
        let name = |name: &str| HttpHost::Name(name.to_owned());
        let config = |is_allowed: bool, hosts: &[&str]| JwksConfig {
            allow_private_addresses: is_allowed,
            allow_private_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            ..JwksConfig::default()
        };
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for (name, config, host, want) in [
            ("default", config(false, &[]), name("idp"), false),
            ("all", config(true, &[]), name("idp"), true),
            ("listed", config(false, &["IDP"]), name("idp"), true),
            ("another", config(false, &["idp"]), name("idp.evil"), false),
            (
                "by address",
                config(false, &["127.0.0.1"]),
                HttpHost::Ip(loopback),
                true,
            ),
        ] {
            assert_eq!(Reach::new(&config).allows(&host, loopback), want, "{name}");
        }
    }
}
