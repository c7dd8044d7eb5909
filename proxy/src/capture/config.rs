//! `[capture]` of the configuration file: which redirected connections the proxy takes.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::Deserialize;

use crate::config::Protocol;

/// Transparent capture: connections that `ravelin proxy capture --apply` redirects to this proxy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureConfig {
    /// Take what the application dials, redirected to `outbound` and to the same port of `::1`.
    pub outbound: bool,
    /// Port, at every address, to which what peers dial at `workload_ports` is redirected.
    pub inbound: Option<u16>,
    /// The application's own ports that peers reach through this proxy alone.
    pub workload_ports: Vec<WorkloadPort>,
    /// Services, `HOST:PORT`, that may be at loopback and link-local addresses.
    pub allow: Vec<String>,
}

/// One port of the application.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadPort {
    /// Its number; policies name it.
    pub port: u16,
    /// What is spoken inside the TLS connection.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Why `[capture]` is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The kernel redirects to this address.
    #[error("`capture.outbound` needs `outbound` at `127.0.0.1`, to which the kernel redirects")]
    Outbound,
    /// One without the other.
    #[error(
        "`capture.inbound` and `[[capture.workload_ports]]` belong together: the port that listens, and those that it stands for"
    )]
    Inbound,
    /// A port that cannot be.
    #[error("`[[capture.workload_ports]]`: the port {0} is 0, stands twice, or is the proxy's own")]
    Port(u16),
    /// Not a service.
    #[error("`capture.allow`: `{0}` is not a service: write `HOST:PORT` in lower case")]
    Allow(String),
}

impl CaptureConfig {
    /// Refuses what cannot work; `own` are the proxy's other listeners.
    pub(crate) fn check(
        &self,
        outbound: Option<SocketAddr>,
        own: impl Iterator<Item = SocketAddr>,
    ) -> Result<(), CaptureError> {
        let is_redirected_to = |address: SocketAddr| address.ip() == std::net::Ipv4Addr::LOCALHOST;
        if self.outbound && !outbound.is_some_and(is_redirected_to) {
            return Err(CaptureError::Outbound);
        }
        if self.inbound.is_some() == self.workload_ports.is_empty() {
            return Err(CaptureError::Inbound);
        }
        let mut taken: BTreeSet<u16> = own.map(|address| address.port()).collect();
        taken.remove(&0);
        for port in self.inbound.iter().filter(|port| **port != 0) {
            if !taken.insert(*port) {
                return Err(CaptureError::Port(*port));
            }
        }
        for workload in &self.workload_ports {
            if workload.port == 0 || !taken.insert(workload.port) {
                return Err(CaptureError::Port(workload.port));
            }
        }
        self.allow.iter().try_for_each(|service| {
            let port = service
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            let is_lower = service.bytes().all(|byte| !byte.is_ascii_uppercase());
            match port {
                Some(Ok(port)) if port != 0 && is_lower => Ok(()),
                Some(_) | None => Err(CaptureError::Allow(service.clone())),
            }
        })
    }

    /// The declared protocol of a port of the application.
    pub fn workload_port(&self, port: u16) -> Option<WorkloadPort> {
        let mut ports = self.workload_ports.iter();
        ports.find(|workload| workload.port == port).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_that_cannot_work_is_refused() {
        let inbound = "inbound = 15006\n";
        let web = "[[workload_ports]]\nport = 8080\n";
        let rows = [
            ("nothing", String::new(), Ok(())),
            ("both", format!("outbound = true\n{inbound}{web}"), Ok(())),
            ("no ports", inbound.to_owned(), Err(CaptureError::Inbound)),
            ("no listener", web.to_owned(), Err(CaptureError::Inbound)),
            (
                "twice",
                format!("{inbound}{web}{web}"),
                Err(CaptureError::Port(8080)),
            ),
            (
                "a workload port that is the proxy's",
                format!("{inbound}[[workload_ports]]\nport = 15001\n"),
                Err(CaptureError::Port(15001)),
            ),
            (
                "a listener that is there already",
                format!("inbound = 15001\n{web}"),
                Err(CaptureError::Port(15001)),
            ),
            (
                "its own",
                format!("{inbound}[[workload_ports]]\nport = 15006\n"),
                Err(CaptureError::Port(15006)),
            ),
            (
                "port 0",
                format!("{inbound}[[workload_ports]]\nport = 0\n"),
                Err(CaptureError::Port(0)),
            ),
            (
                "allow",
                "allow = ['metadata']".to_owned(),
                Err(CaptureError::Allow("metadata".to_owned())),
            ),
            (
                "allow a service",
                "allow = ['metadata.shop:80']".to_owned(),
                Ok(()),
            ),
        ];
        let outbound: SocketAddr = "127.0.0.1:15001".parse().unwrap();
        for (name, text, want) in rows {
            let config: CaptureConfig = toml::from_str(&text).unwrap();
            assert_eq!(
                config.check(Some(outbound), std::iter::once(outbound)),
                want,
                "{name}"
            );
        }
        let config: CaptureConfig = toml::from_str("outbound = true").unwrap();
        for outbound in [None, Some("[::1]:15001".parse().unwrap())] {
            let refused = config.check(outbound, std::iter::empty());
            assert_eq!(refused, Err(CaptureError::Outbound));
        }
    }
}
