//! The proxy's configuration file: TOML, `RAVELIN_PROXY_*` in the environment over it.
//!
//! An unknown key is an error. Checks that need no machine are made here; a port in use shows at start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_runtime::telemetry::TelemetryConfig;
use serde::Deserialize;

use crate::access_log::{AccessLogConfig, AccessLogConfigError};
use crate::capture::config::{CaptureConfig, CaptureError};
use crate::limits;
use crate::route::Addressed;
use crate::trace::{TracingConfig, TracingConfigError};

/// What one proxy listens on and whom it serves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    /// Name under which the agent and its status know this proxy.
    pub name: String,
    /// Unix socket of the agent.
    pub agent_socket: PathBuf,
    /// Identity to take where this process has several; empty means the first.
    #[serde(default)]
    pub spiffe_id: Option<SpiffeId>,
    /// Threads of the data path; one per core unless given.
    #[serde(default)]
    pub workers: Option<usize>,
    /// HTTP forward proxy for the application.
    #[serde(default = "default_outbound")]
    pub outbound: Option<SocketAddr>,
    /// Listeners that peers call.
    #[serde(default)]
    pub inbound: Vec<InboundListener>,
    /// HTTP listeners for the application, each for one service, whatever `Host` says.
    #[serde(default)]
    pub http_outbound: Vec<OutboundListener>,
    /// Plain TCP listeners for the application, each for one service.
    #[serde(default)]
    pub tcp_outbound: Vec<OutboundListener>,
    /// Connections that are redirected to this proxy.
    #[serde(default)]
    pub capture: CaptureConfig,
    /// Health, metrics and live state; loopback.
    #[serde(default)]
    pub admin: Option<SocketAddr>,
    /// Unix socket where a proxy that starts with the same configuration takes the listeners over from this one.
    #[serde(default)]
    pub takeover: Option<PathBuf>,
    /// How long calls in flight may take after a drain began.
    #[serde(default = "default_drain", deserialize_with = "duration")]
    pub drain: Duration,
    /// Resident memory beyond which new work is refused, in MiB; without it four fifths of the control group's bound, if any.
    #[serde(default)]
    pub memory_max_mib: Option<u64>,
    /// Share of allowed calls that is recorded; refusals always are.
    #[serde(default = "default_sample")]
    pub decision_sample_allowed: f64,
    /// Proxies in front of this one, the direct peer among them, whose `X-Forwarded-For` is believed (rule 36).
    #[serde(default)]
    pub num_trusted_proxies: usize,
    /// Keys of issuers that are fetched.
    #[serde(default)]
    pub jwks: JwksConfig,
    /// One line per call.
    #[serde(default)]
    pub access_log: AccessLogConfig,
    /// Spans of calls.
    #[serde(default)]
    pub tracing: TracingConfig,
    /// Log output.
    #[serde(default)]
    pub log: TelemetryConfig,
}

/// How keys of remote issuers are fetched (`jwksUri: https://..`, or an issuer's discovery document).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JwksConfig {
    /// Keys that are in use are fetched again after this time.
    #[serde(deserialize_with = "duration")]
    pub refresh: Duration,
    /// While fetches fail the last good keys are used up to this age; then tokens are refused.
    #[serde(deserialize_with = "duration")]
    pub max_age: Duration,
    /// A token with an unknown key id leads to a fetch, at most once in this time for one address.
    #[serde(deserialize_with = "duration")]
    pub refetch_pause: Duration,
    /// Fetch from loopback, private, link-local and other addresses that are not public.
    pub allow_private_addresses: bool,
    /// Hosts whose addresses need not be public, as they are written in the policies.
    pub allow_private_hosts: Vec<String>,
    /// PEM file of the authorities that issuers' servers are known by, instead of the machine's own.
    pub ca_file: Option<PathBuf>,
}

impl Default for JwksConfig {
    fn default() -> Self {
        Self {
            refresh: Duration::from_mins(20),
            max_age: Duration::from_hours(24),
            refetch_pause: Duration::from_secs(30),
            allow_private_addresses: false,
            allow_private_hosts: Vec::new(),
            ca_file: None,
        }
    }
}

/// A listener for peers: mutual TLS alone, unless a PeerAuthentication says otherwise for the workload port.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboundListener {
    /// Where peers connect to.
    pub listen: SocketAddr,
    /// Where the application listens; its port is the workload port that policies name.
    pub forward: SocketAddr,
    /// What is spoken inside the TLS connection.
    #[serde(default)]
    pub protocol: Protocol,
    /// Made of a redirected connection: `forward` is the address that the peer dialled.
    #[serde(skip)]
    pub is_captured: bool,
}

/// A listener for the application that leads to one service of the mesh.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboundListener {
    /// Where the application connects to; loopback.
    pub listen: SocketAddr,
    /// `HOST:PORT` of a ServiceEntry.
    pub service: String,
}

impl OutboundListener {
    /// The service that its connections mean.
    pub fn addressed(&self) -> Addressed {
        Addressed::Service(self.service.to_ascii_lowercase().into())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let port = self.service.rsplit_once(':');
        let port = port.and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            return Err(ConfigError::Service(self.service.clone()));
        }
        Ok(())
    }
}

/// What is spoken on the port of a workload. Peers may speak either version of HTTP, whatever the application does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP, judged request by request; HTTP/1.1 to the application.
    #[default]
    Http,
    /// The same; HTTP/2 with prior knowledge to the application.
    Http2,
    /// As `http2`: the name that a port of a gRPC server has in Istio's files.
    Grpc,
    /// Bytes, judged connection by connection.
    Tcp,
}

impl Protocol {
    /// Judged request by request.
    pub fn is_http(self) -> bool {
        self != Self::Tcp
    }

    /// The application takes HTTP/2 alone.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or does not have the right shape.
    #[error(transparent)]
    Load(#[from] ravelin_runtime::config::ConfigError),
    /// The name is empty or too long.
    #[error("`name` must have 1 to 128 characters")]
    Name,
    /// Nothing to do.
    #[error(
        "nothing to listen on: set `outbound`, `[[inbound]]`, `[[http_outbound]]` or `[[tcp_outbound]]`"
    )]
    NoListener,
    /// Two listeners on one address.
    #[error("`{0}` is given to two listeners")]
    ListenTwice(SocketAddr),
    /// A listener would call itself.
    #[error("inbound listener `{0}` forwards to one of the proxy's own listeners")]
    ForwardLoop(SocketAddr),
    /// A plain-text listener that other machines can reach.
    #[error(
        "`{0}` of `{1}` is not a loopback address: it accepts plain text and may serve this machine alone"
    )]
    NotLoopback(SocketAddr, &'static str),
    /// A service without its port.
    #[error("`{0}` is not a service: write `HOST:PORT`")]
    Service(String),
    /// `[capture]`.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Too many workers, or none.
    #[error("`workers` must lie between 1 and {max}", max = limits::WORKERS_MAX)]
    Workers,
    /// A drain without end.
    #[error("`drain` must be at most 1h")]
    Drain,
    /// More proxies than can stand in front of one.
    #[error("`num_trusted_proxies` must be at most {max}", max = limits::TRUSTED_PROXIES_MAX)]
    TrustedProxies,
    /// Times that do not fit together.
    #[error(
        "`jwks`: `refresh` and `refetch_pause` must be at least 100ms, `max_age` at least `refresh` and at most 720h"
    )]
    Jwks,
    /// See there.
    #[error(transparent)]
    AccessLog(#[from] AccessLogConfigError),
    /// See there.
    #[error(transparent)]
    Tracing(#[from] TracingConfigError),
    /// Not a share.
    #[error("`decision_sample_allowed` must lie between 0.0 and 1.0")]
    Sample,
}

impl JwksConfig {
    fn check(&self) -> Result<(), ConfigError> {
        let is_fine = self.refresh >= limits::JWKS_PAUSE_MIN
            && self.refetch_pause >= limits::JWKS_PAUSE_MIN
            && (self.refresh..=limits::JWKS_AGE_MAX).contains(&self.max_age);
        is_fine.then_some(()).ok_or(ConfigError::Jwks)
    }
}

impl ProxyConfig {
    /// Reads `path`, lays the environment over it and checks the result.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = ravelin_runtime::config::load(Some(path), "RAVELIN_PROXY")?;
        config.check()?;
        Ok(config)
    }

    /// Refuses what cannot work or would open a hole.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.name.is_empty() || self.name.len() > 128 {
            return Err(ConfigError::Name);
        }
        let has_inbound = !self.inbound.is_empty() || self.capture.inbound.is_some();
        if self.outbound.is_none() && !has_inbound && self.for_services().count() == 0 {
            return Err(ConfigError::NoListener);
        }
        if self
            .workers
            .is_some_and(|workers| workers == 0 || workers > limits::WORKERS_MAX)
        {
            return Err(ConfigError::Workers);
        }
        if self.drain > limits::DRAIN_MAX {
            return Err(ConfigError::Drain);
        }
        if self.num_trusted_proxies > limits::TRUSTED_PROXIES_MAX {
            return Err(ConfigError::TrustedProxies);
        }
        if !(0.0..=1.0).contains(&self.decision_sample_allowed) {
            return Err(ConfigError::Sample);
        }
        self.jwks.check()?;
        self.access_log.check()?;
        self.tracing.check()?;
        self.check_plain_text()?;
        self.check_listeners()?;
        Ok(self.capture.check(self.outbound, self.listen_addresses())?)
    }

    /// Number of data threads.
    pub fn worker_count(&self) -> usize {
        self.workers.unwrap_or_else(|| {
            std::thread::available_parallelism()
                .map_or(1, std::num::NonZero::get)
                .min(limits::WORKERS_MAX)
        })
    }

    fn check_plain_text(&self) -> Result<(), ConfigError> {
        let plain = self
            .outbound
            .iter()
            .map(|address| (*address, "outbound"))
            .chain(
                self.http_outbound
                    .iter()
                    .map(|http| (http.listen, "http_outbound")),
            )
            .chain(
                self.tcp_outbound
                    .iter()
                    .map(|tcp| (tcp.listen, "tcp_outbound")),
            )
            .chain(self.admin.iter().map(|address| (*address, "admin")));
        for (address, key) in plain {
            if !address.ip().is_loopback() {
                return Err(ConfigError::NotLoopback(address, key));
            }
        }
        self.for_services().try_for_each(OutboundListener::check)
    }

    /// Listeners that lead to one service each.
    fn for_services(&self) -> impl Iterator<Item = &OutboundListener> {
        self.http_outbound.iter().chain(&self.tcp_outbound)
    }

    fn check_listeners(&self) -> Result<(), ConfigError> {
        let mut seen = std::collections::BTreeSet::new();
        for address in self.listen_addresses() {
            if address.port() != 0 && !seen.insert(address) {
                return Err(ConfigError::ListenTwice(address));
            }
        }
        for inbound in &self.inbound {
            if seen.contains(&inbound.forward) {
                return Err(ConfigError::ForwardLoop(inbound.listen));
            }
        }
        Ok(())
    }

    fn listen_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.outbound
            .iter()
            .copied()
            .chain(self.inbound.iter().map(|inbound| inbound.listen))
            .chain(self.for_services().map(|listener| listener.listen))
            .chain(self.admin.iter().copied())
    }
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "the form that serde's default asks for"
)]
fn default_outbound() -> Option<SocketAddr> {
    Some(SocketAddr::from(([127, 0, 0, 1], 15001)))
}

fn default_drain() -> Duration {
    Duration::from_secs(10)
}

fn default_sample() -> f64 {
    1.0
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "`{text}` is not a duration, such as `500ms`, `10s` or `2m`"
        ))
    })
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        name = "orders"
        agent_socket = "/run/ravelin/agent.sock"
        outbound = "127.0.0.1:15001"
        [[inbound]]
        listen = "0.0.0.0:15006"
        forward = "127.0.0.1:8080"
    "#;

    fn checked(text: &str) -> Result<ProxyConfig, String> {
        let config: ProxyConfig =
            toml::from_str(text).map_err(|error| error.message().to_owned())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_short_file_gets_the_defaults() {
        let config = checked(GOOD).unwrap();
        assert_eq!(config.drain, Duration::from_secs(10));
        assert_eq!(config.inbound[0].protocol, Protocol::Http);
        assert!(config.worker_count() >= 1);
        assert!((config.decision_sample_allowed - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn rule_36_few_proxies_can_be_trusted() {
        let with = |count: u32| checked(&format!("num_trusted_proxies = {count}\n{GOOD}"));
        assert_eq!(with(2).unwrap().num_trusted_proxies, 2);
        assert!(with(17).unwrap_err().contains("at most 16"));
    }

    #[test]
    fn what_cannot_work_or_opens_a_hole_is_refused() {
        let top = |line: &str| format!("{line}\n{GOOD}");
        let rows = [
            ("unknown key", top("nmae = 'x'"), "unknown field `nmae`"),
            (
                "outbound to the world",
                GOOD.replace("127.0.0.1:15001", "0.0.0.0:15001"),
                "not a loopback address",
            ),
            (
                "admin to the world",
                top("admin = '0.0.0.0:15000'"),
                "not a loopback address",
            ),
            (
                "one address twice",
                GOOD.replace("0.0.0.0:15006", "127.0.0.1:15001"),
                "given to two listeners",
            ),
            (
                "a loop",
                GOOD.replace("127.0.0.1:8080", "127.0.0.1:15001"),
                "forwards to one of the proxy's own",
            ),
            ("no workers", top("workers = 0"), "between 1 and"),
            (
                "drain without unit",
                top("drain = '10'"),
                "is not a duration",
            ),
            ("drain too long", top("drain = '2h'"), "at most 1h"),
            (
                "sample",
                top("decision_sample_allowed = 2.0"),
                "between 0.0 and 1.0",
            ),
            ("name", GOOD.replace("orders", ""), "1 to 128 characters"),
            (
                "service without port",
                format!("{GOOD}\n[[tcp_outbound]]\nlisten = '127.0.0.1:7000'\nservice = 'a.shop'"),
                "write `HOST:PORT`",
            ),
            ("identity", top("spiffe_id = 'orders'"), ""),
        ];
        refuses(&rows);
    }

    #[test]
    fn knobs_of_fetched_keys_have_limits() {
        let rows = [
            (
                "keys too often",
                format!("{GOOD}\n[jwks]\nrefetch_pause = '1ms'"),
                "at least 100ms",
            ),
            (
                "keys too old",
                format!("{GOOD}\n[jwks]\nmax_age = '1000h'"),
                "at most 720h",
            ),
            (
                "age below refresh",
                format!("{GOOD}\n[jwks]\nmax_age = '1m'"),
                "at least `refresh`",
            ),
            (
                "unknown knob of keys",
                format!("{GOOD}\n[jwks]\nallow_all = true"),
                "unknown field `allow_all`",
            ),
        ];
        refuses(&rows);
    }

    fn refuses(rows: &[(&str, String, &str)]) {
        for (name, text, want) in rows {
            let refused = checked(text).unwrap_err();
            assert!(refused.contains(want), "{name}: {refused}");
        }
    }
}
