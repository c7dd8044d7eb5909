//! The CA's configuration: a TOML file, then `RAVELIN_CA_*` from the environment. Unknown keys are errors.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_runtime::config::ConfigError;
use ravelin_runtime::telemetry::TelemetryConfig;
use serde::{Deserialize, Deserializer};

use crate::limits;

/// Everything an operator may set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaConfig {
    /// The domain that this CA is the authority of.
    pub trust_domain: TrustDomain,
    /// Database, keys and sockets; made with mode 0700.
    pub data_dir: PathBuf,
    /// Where agents connect.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where administrators connect; `DATA/admin.sock` unless set.
    #[serde(default)]
    pub admin_socket: Option<PathBuf>,
    /// `/metrics`, `/healthz` and `/readyz`; not served unless set.
    #[serde(default)]
    pub metrics_listen: Option<SocketAddr>,
    /// `iss` of JWT-SVIDs; `spiffe://TRUST_DOMAIN` unless set.
    #[serde(default)]
    pub jwt_issuer: Option<String>,
    /// How long credentials live.
    #[serde(default)]
    pub ttl: TtlConfig,
    /// Where the key-encryption key is.
    #[serde(default)]
    pub keys: KeysConfig,
    /// What is logged, and how.
    #[serde(default)]
    pub log: TelemetryConfig,
}

/// Lives of credentials.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TtlConfig {
    /// Of a workload's X509-SVID whose entry names none.
    #[serde(deserialize_with = "duration")]
    pub x509_svid: Duration,
    /// Of a JWT-SVID whose entry names none.
    #[serde(deserialize_with = "duration")]
    pub jwt_svid: Duration,
    /// Of an agent's X509-SVID.
    #[serde(deserialize_with = "duration")]
    pub agent_svid: Duration,
    /// Of an authority.
    #[serde(deserialize_with = "duration")]
    pub authority: Duration,
}

impl Default for TtlConfig {
    fn default() -> Self {
        Self {
            x509_svid: Duration::from_hours(1),
            jwt_svid: Duration::from_mins(5),
            agent_svid: Duration::from_hours(1),
            authority: Duration::from_hours(168),
        }
    }
}

/// Key storage.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysConfig {
    /// 32 bytes (raw or hex) that encrypt the authorities' keys; `DATA/kek` unless set.
    pub kek_file: Option<PathBuf>,
}

/// A configuration that is read but makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// A life outside of what may be set.
    #[error("`ttl.{name}` is {}; it must be between {} and {}", show(*.found), show(*.min), show(*.max))]
    Life {
        /// Which.
        name: &'static str,
        /// What was set.
        found: Duration,
        /// The least.
        min: Duration,
        /// The most.
        max: Duration,
    },
    /// Leaves would outlive the authority.
    #[error("`ttl.{name}` is {}, longer than half of `ttl.authority` ({})", show(*.found), show(*.authority))]
    Outlives {
        /// Which.
        name: &'static str,
        /// What was set.
        found: Duration,
        /// The authority's life.
        authority: Duration,
    },
    /// The metrics would be open to the network.
    #[error("`metrics_listen` is {0}; metrics are served on a loopback address alone")]
    MetricsNotLoopback(SocketAddr),
    /// An issuer that no verifier could compare.
    #[error("`jwt_issuer` has 1 to 2048 printable characters")]
    Issuer,
}

impl CaConfig {
    /// Defaults for everything that is optional.
    pub fn new(trust_domain: TrustDomain, data_dir: PathBuf) -> Self {
        Self {
            trust_domain,
            data_dir,
            listen: default_listen(),
            admin_socket: None,
            metrics_listen: None,
            jwt_issuer: None,
            ttl: TtlConfig::default(),
            keys: KeysConfig::default(),
            log: TelemetryConfig::default(),
        }
    }

    /// Reads the file and the environment.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        ravelin_runtime::config::load(Some(path), "RAVELIN_CA")
    }

    /// Every rule between settings.
    pub fn check(&self) -> Result<(), SettingError> {
        let ttl = &self.ttl;
        life(
            "authority",
            ttl.authority,
            limits::AUTHORITY_LIFE_MIN,
            limits::AUTHORITY_LIFE_MAX,
        )?;
        let leaves = [
            ("x509_svid", ttl.x509_svid),
            ("agent_svid", ttl.agent_svid),
            ("jwt_svid", ttl.jwt_svid),
        ];
        for (name, found) in leaves {
            life(name, found, limits::SVID_LIFE_MIN, limits::SVID_LIFE_MAX)?;
            if found > ttl.authority / 2 {
                return Err(SettingError::Outlives {
                    name,
                    found,
                    authority: ttl.authority,
                });
            }
        }
        if let Some(listen) = self.metrics_listen
            && !listen.ip().is_loopback()
        {
            return Err(SettingError::MetricsNotLoopback(listen));
        }
        let is_issuer = |text: &String| {
            (1..=2048).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic())
        };
        if self
            .jwt_issuer
            .as_ref()
            .is_some_and(|issuer| !is_issuer(issuer))
        {
            return Err(SettingError::Issuer);
        }
        Ok(())
    }

    /// The administrators' socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.admin_socket
            .clone()
            .unwrap_or_else(|| self.data_dir.join("admin.sock"))
    }

    /// `iss` of JWT-SVIDs.
    pub fn jwt_issuer(&self) -> String {
        self.jwt_issuer
            .clone()
            .unwrap_or_else(|| self.trust_domain.id().to_string())
    }
}

fn life(
    name: &'static str,
    found: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), SettingError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(SettingError::Life {
        name,
        found,
        min,
        max,
    })
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8081))
}

fn show(duration: Duration) -> String {
    let secs = duration.as_secs();
    for (unit, size) in [("d", 86_400), ("h", 3600), ("m", 60)] {
        if secs >= size && secs.is_multiple_of(size) {
            return format!("{}{unit}", secs / size);
        }
    }
    format!("{secs}s")
}

/// Reads `90s`, `2m`, `1h` or `7d`; `None` when the text is not one of these.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let size = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
    Some(Duration::from_secs(u64::from(number) * size))
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "`{text}` is not a duration: write 90s, 2m, 1h or 7d"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> CaConfig {
        CaConfig::new(
            TrustDomain::parse("shop.example").unwrap(),
            "/tmp/ca".into(),
        )
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let secs = Duration::from_secs;
        let rows = [
            ("90s", Some(secs(90))),
            ("2m", Some(secs(120))),
            ("1h", Some(secs(3600))),
            ("7d", Some(secs(7 * 86_400))),
            ("", None),
            ("s", None),
            ("1", None),
            ("-1s", None),
            ("1.5h", None),
            ("1w", None),
            ("99999999999s", None),
            ("1é", None),
        ];
        for (text, want) in rows {
            assert_eq!(parse_duration(text), want, "{text}");
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused_by_name() {
        assert_eq!(config().check(), Ok(()));
        let mut outlives = config();
        outlives.ttl.authority = Duration::from_hours(1);
        assert!(matches!(
            outlives.check(),
            Err(SettingError::Outlives {
                name: "x509_svid",
                ..
            })
        ));
        let mut short = config();
        short.ttl.jwt_svid = Duration::ZERO;
        assert!(matches!(
            short.check(),
            Err(SettingError::Life {
                name: "jwt_svid",
                ..
            })
        ));
        let mut open = config();
        open.metrics_listen = Some(SocketAddr::from(([0, 0, 0, 0], 9091)));
        assert!(matches!(
            open.check(),
            Err(SettingError::MetricsNotLoopback(_))
        ));
        let mut issuer = config();
        issuer.jwt_issuer = Some(String::new());
        assert_eq!(issuer.check(), Err(SettingError::Issuer));
    }

    #[test]
    fn the_whole_file_parses_and_an_unknown_key_does_not() {
        let text = "trust_domain = \"a.test\"\ndata_dir = \"/x\"\n[ttl]\nx509_svid = \"2m\"\n";
        let config: CaConfig = toml::from_str(text).unwrap();
        assert_eq!(config.ttl.x509_svid, Duration::from_mins(2));
        assert_eq!(config.ttl.jwt_svid, Duration::from_mins(5));
        assert_eq!(config.admin_socket(), Path::new("/x/admin.sock"));
        assert_eq!(config.jwt_issuer(), "spiffe://a.test");
        assert!(toml::from_str::<CaConfig>(&format!("{text}svid = \"1m\"\n")).is_err());
    }
}
