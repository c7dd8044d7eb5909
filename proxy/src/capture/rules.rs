//! The nftables rules that redirect an application's connections to its proxy, as text for `nft -f`.
//!
//! Pure. One table for each proxy, `inet ravelin_NAME`, replaced whole in one transaction: applying it twice changes nothing,
//! and removing it leaves every other table as it is.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};

use ipnet::IpNet;

use crate::config::ProxyConfig;
use crate::limits;

/// What is redirected, and what is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    proxy: String,
    users: BTreeSet<u32>,
    outbound: Option<u16>,
    inbound: Option<(u16, BTreeSet<u16>)>,
    exclude_ports: BTreeSet<u16>,
    exclude_networks: BTreeSet<IpNet>,
}

/// What a person may choose beside the proxy's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// Users whose connections are not redirected: the proxy's, and those of other programs that need no proxy.
    pub users: BTreeSet<u32>,
    /// Ports that are dialled directly, such as that of the CA.
    pub exclude_ports: BTreeSet<u16>,
    /// Addresses that are dialled directly.
    pub exclude_networks: BTreeSet<IpNet>,
}

/// Why there are no rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Nothing in `[capture]`.
    #[error("the configuration captures nothing: set `outbound` or `inbound` below `[capture]`")]
    Nothing,
    /// The name cannot stand in the name of a table.
    #[error(
        "`{0}` cannot name a table: the proxy's `name` may have 1 to {max} letters, digits, `-`, `_` and `.`",
        max = limits::TABLE_NAME_MAX
    )]
    Name(String),
    /// A redirect without the exemption catches the proxy's own connections.
    #[error("nobody is exempt: the user that the proxy runs as has to be named")]
    NoUser,
    /// Every program of root would go around the proxy.
    #[error("root cannot be exempt: every program of root would go around the proxy")]
    Root,
    /// A listener without a fixed port.
    #[error("`{0}` has no fixed port to redirect to")]
    NoPort(&'static str),
}

/// Name of the table of the proxy `name`.
pub fn table(name: &str) -> Result<String, RulesError> {
    let is_name = (1..=limits::TABLE_NAME_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if is_name {
        Ok(format!("inet ravelin_{name}"))
    } else {
        Err(RulesError::Name(name.to_owned()))
    }
}

/// Removes the table of the proxy `name` and nothing else, whether it is there or not.
pub fn undo(name: &str) -> Result<String, RulesError> {
    let table = table(name)?;
    // WHY: deleting what is not there is an error; adding what is there is none.
    Ok(format!("table {table}\ndelete table {table}\n"))
}

impl Rules {
    /// The rules for what `config` captures.
    pub fn new(config: &ProxyConfig, choices: Choices) -> Result<Self, RulesError> {
        table(&config.name)?;
        let capture = &config.capture;
        let outbound = config
            .outbound
            .filter(|_| capture.outbound)
            .map(|address| address.port());
        let inbound = capture.inbound.map(|port| {
            let ports = capture.workload_ports.iter().map(|workload| workload.port);
            (port, ports.collect())
        });
        if outbound.is_none() && inbound.is_none() {
            return Err(RulesError::Nothing);
        }
        if outbound == Some(0) {
            return Err(RulesError::NoPort("outbound"));
        }
        if inbound.as_ref().is_some_and(|(port, _)| *port == 0) {
            return Err(RulesError::NoPort("capture.inbound"));
        }
        if outbound.is_some() && choices.users.is_empty() {
            return Err(RulesError::NoUser);
        }
        if choices.users.contains(&0) {
            return Err(RulesError::Root);
        }
        Ok(Self {
            proxy: config.name.clone(),
            users: choices.users,
            outbound,
            inbound,
            exclude_ports: choices.exclude_ports,
            exclude_networks: choices.exclude_networks,
        })
    }

    /// The whole ruleset: the table as it was is replaced.
    pub fn apply(&self) -> Result<String, RulesError> {
        let mut text = format!(
            "# `ravelin proxy capture` for the proxy `{}`. UDP is not redirected.\n{}table {} {{\n",
            self.proxy,
            undo(&self.proxy)?,
            table(&self.proxy)?
        );
        if let Some(port) = self.outbound {
            text.push_str(&self.outbound_chain(port));
        }
        if let Some((port, workload_ports)) = &self.inbound {
            // WHY: what comes over loopback is this machine's own; it has left by the chain above.
            let _ = write!(
                text,
                "\tchain inbound {{\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t\tiifname \"lo\" return\n\t\tfib daddr type local tcp dport {} redirect to :{port}\n\t}}\n",
                set(workload_ports)
            );
        }
        text.push_str("}\n");
        Ok(text)
    }

    fn outbound_chain(&self, port: u16) -> String {
        // WHY: the number stands for `dstnat`, a name that nft does not take at this hook.
        let mut text = String::from(
            "\tchain outbound {\n\t\ttype nat hook output priority -100; policy accept;\n\t\tmeta l4proto != tcp return\n",
        );
        let _ = writeln!(text, "\t\tmeta skuid {} return", set(&self.users));
        // Addresses of this machine: loopback, and the application behind its own proxy.
        text.push_str("\t\tfib daddr type local return\n");
        if !self.exclude_ports.is_empty() {
            let _ = writeln!(text, "\t\ttcp dport {} return", set(&self.exclude_ports));
        }
        let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = self
            .exclude_networks
            .iter()
            .partition(|network| matches!(network, IpNet::V4(_)));
        for (family, networks) in [("ip", v4), ("ip6", v6)] {
            let networks = IpNet::aggregate(&networks);
            if !networks.is_empty() {
                let _ = writeln!(text, "\t\t{family} daddr {} return", set(&networks));
            }
        }
        let _ = write!(text, "\t\tmeta l4proto tcp redirect to :{port}\n\t}}\n");
        text
    }
}

/// An anonymous set. Its members are numbers and networks: nothing in them can end it.
fn set<'a, T: Display + 'a>(members: impl IntoIterator<Item = &'a T>) -> String {
    let members: Vec<String> = members.into_iter().map(ToString::to_string).collect();
    format!("{{ {} }}", members.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(lines: &str) -> ProxyConfig {
        let config: ProxyConfig = toml::from_str(&format!(
            "name = 'orders'\nagent_socket = '/run/ravelin/agent.sock'\n{lines}"
        ))
        .unwrap();
        config.check().unwrap();
        config
    }

    fn choices(users: &[u32], ports: &[u16], networks: &[&str]) -> Choices {
        Choices {
            users: users.iter().copied().collect(),
            exclude_ports: ports.iter().copied().collect(),
            exclude_networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    const BOTH: &str = "[capture]\noutbound = true\ninbound = 15006\n[[capture.workload_ports]]\nport = 8080\n[[capture.workload_ports]]\nport = 5432\nprotocol = 'tcp'\n";

    const OUTBOUND: &str =
        "# `ravelin proxy capture` for the proxy `orders`. UDP is not redirected.
table inet ravelin_orders
delete table inet ravelin_orders
table inet ravelin_orders {
	chain outbound {
		type nat hook output priority -100; policy accept;
		meta l4proto != tcp return
		meta skuid { 990 } return
		fib daddr type local return
		meta l4proto tcp redirect to :15001
	}
}
";

    const INBOUND: &str = "# `ravelin proxy capture` for the proxy `orders`. UDP is not redirected.
table inet ravelin_orders
delete table inet ravelin_orders
table inet ravelin_orders {
	chain inbound {
		type nat hook prerouting priority dstnat; policy accept;
		iifname \"lo\" return
		fib daddr type local tcp dport { 8080 } redirect to :15006
	}
}
";

    const ALL: &str = "# `ravelin proxy capture` for the proxy `orders`. UDP is not redirected.
table inet ravelin_orders
delete table inet ravelin_orders
table inet ravelin_orders {
	chain outbound {
		type nat hook output priority -100; policy accept;
		meta l4proto != tcp return
		meta skuid { 990, 991 } return
		fib daddr type local return
		tcp dport { 53, 8081 } return
		ip daddr { 10.8.0.0/15, 192.0.2.7/32 } return
		ip6 daddr { fd00::/8 } return
		meta l4proto tcp redirect to :15001
	}
	chain inbound {
		type nat hook prerouting priority dstnat; policy accept;
		iifname \"lo\" return
		fib daddr type local tcp dport { 5432, 8080 } redirect to :15006
	}
}
";

    #[test]
    fn the_rules_follow_from_the_configuration_and_the_choices() {
        let outbound = "[capture]\noutbound = true\n";
        let inbound = "[capture]\ninbound = 15006\n[[capture.workload_ports]]\nport = 8080\n";
        let rows = [
            (
                "outbound alone",
                outbound,
                choices(&[990], &[], &[]),
                OUTBOUND,
            ),
            (
                "inbound alone needs no user",
                inbound,
                choices(&[], &[], &[]),
                INBOUND,
            ),
            (
                "both, with everything that is left out",
                BOTH,
                choices(
                    &[991, 990],
                    &[8081, 53],
                    &[
                        "10.9.0.0/16",
                        "10.8.0.0/16",
                        "10.9.7.0/24",
                        "fd00::/8",
                        "192.0.2.7/32",
                    ],
                ),
                ALL,
            ),
        ];
        for (name, lines, choices, want) in rows {
            let rules = Rules::new(&config(lines), choices).unwrap();
            assert_eq!(rules.apply().unwrap(), want, "{name}");
        }
        assert_eq!(
            undo("orders").unwrap(),
            "table inet ravelin_orders\ndelete table inet ravelin_orders\n"
        );
    }

    #[test]
    fn threat_55_rules_that_catch_the_proxy_or_let_everybody_around_are_refused() {
        let rows = [
            (
                "outbound = '127.0.0.1:15001'",
                choices(&[990], &[], &[]),
                RulesError::Nothing,
            ),
            (BOTH, choices(&[], &[], &[]), RulesError::NoUser),
            (BOTH, choices(&[0], &[], &[]), RulesError::Root),
            (BOTH, choices(&[990, 0], &[], &[]), RulesError::Root),
            (
                "outbound = '127.0.0.1:0'\n[capture]\noutbound = true",
                choices(&[990], &[], &[]),
                RulesError::NoPort("outbound"),
            ),
        ];
        for (lines, choices, want) in rows {
            assert_eq!(Rules::new(&config(lines), choices), Err(want), "{lines}");
        }
    }

    #[test]
    fn a_name_cannot_say_more_than_the_name_of_a_table() {
        for name in [
            "",
            "a b",
            "a;flush ruleset",
            "a\n",
            "a}",
            "a\"",
            "a/b",
            "ä",
            &"a".repeat(200),
        ] {
            assert_eq!(
                table(name),
                Err(RulesError::Name(name.to_owned())),
                "{name}"
            );
            assert!(undo(name).is_err(), "{name}");
        }
        for name in ["orders", "orders-1", "a.b_c", "1"] {
            assert_eq!(table(name), Ok(format!("inet ravelin_{name}")));
        }
    }
}
