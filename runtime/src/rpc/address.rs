//! Where a server is: `unix:PATH`, `https://HOST:PORT` or `tcp://IP:PORT`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is no server address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It begins with none of the three schemes.
    #[error("`{0}` is no address: write unix:PATH, https://HOST:PORT or tcp://IP:PORT")]
    Scheme(String),
    /// `unix:` without a path, or with an authority.
    #[error("`{0}` names no socket: write unix:PATH or unix:///PATH")]
    Path(String),
    /// The host is missing or has characters that no host has.
    #[error("`{0}` has no usable host")]
    Host(String),
    /// The port is missing or is not a number from 1 to 65535.
    #[error("`{0}` has no usable port")]
    Port(String),
    /// `tcp://` wants an IP address and a port, and nothing else.
    #[error("`{0}` is not an IP address with a port")]
    Tcp(String),
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// A Unix socket.
    Unix(PathBuf),
    /// TLS over TCP; the host may be a name.
    Https {
        /// A DNS name or an IP address, IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// TCP without TLS unless the caller brings a configuration.
    Tcp(SocketAddr),
}

impl ServerAddress {
    /// Parses the text form.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let shown = || text.chars().take(200).collect::<String>();
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path
                .strip_prefix("//")
                .map_or(Some(path), |path| path.starts_with('/').then_some(path));
            return match path {
                Some(path) if !path.is_empty() && !path.contains('\0') => {
                    Ok(Self::Unix(path.into()))
                }
                _ => Err(AddressError::Path(shown())),
            };
        }
        if let Some(rest) = text.strip_prefix("tcp://") {
            return rest
                .parse()
                .map(Self::Tcp)
                .map_err(|_| AddressError::Tcp(shown()));
        }
        let rest = text
            .strip_prefix("https://")
            .ok_or_else(|| AddressError::Scheme(shown()))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest
            .rsplit_once(':')
            .ok_or_else(|| AddressError::Port(shown()))?;
        let port: u16 = port.parse().map_err(|_| AddressError::Port(shown()))?;
        if port == 0 {
            return Err(AddressError::Port(shown()));
        }
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if rustls_pki_types::ServerName::try_from(host).is_err() {
            return Err(AddressError::Host(shown()));
        }
        Ok(Self::Https {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Https { host, port } if host.contains(':') => {
                write!(f, "https://[{host}]:{port}")
            }
            Self::Https { host, port } => write!(f, "https://{host}:{port}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for ServerAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for ServerAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_04_addresses_parse_and_print_and_everything_else_is_refused_by_name() {
        for (text, want) in [
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
            ("unix:a.sock", "unix:a.sock"),
            ("https://ca.test:8081", "https://ca.test:8081"),
            ("https://127.0.0.1:8081/", "https://127.0.0.1:8081"),
            ("https://[::1]:8081", "https://[::1]:8081"),
            ("tcp://127.0.0.1:80", "tcp://127.0.0.1:80"),
            ("tcp://[::1]:80", "tcp://[::1]:80"),
        ] {
            assert_eq!(
                ServerAddress::parse(text).map(|address| address.to_string()),
                Ok(want.into())
            );
        }
        let text = |text: &str| text.to_owned();
        for (input, want) in [
            ("", AddressError::Scheme(text(""))),
            ("/run/a.sock", AddressError::Scheme(text("/run/a.sock"))),
            ("http://a:1", AddressError::Scheme(text("http://a:1"))),
            ("unix:", AddressError::Path(text("unix:"))),
            (
                "unix://host/a.sock",
                AddressError::Path(text("unix://host/a.sock")),
            ),
            ("https://a", AddressError::Port(text("https://a"))),
            ("https://a:0", AddressError::Port(text("https://a:0"))),
            ("https://a:x", AddressError::Port(text("https://a:x"))),
            ("https://a:1/x", AddressError::Port(text("https://a:1/x"))),
            ("https://:1", AddressError::Host(text("https://:1"))),
            ("https://u@h:1", AddressError::Host(text("https://u@h:1"))),
            (
                "tcp://localhost:1",
                AddressError::Tcp(text("tcp://localhost:1")),
            ),
            (
                "tcp://127.0.0.1:8000/foo",
                AddressError::Tcp(text("tcp://127.0.0.1:8000/foo")),
            ),
        ] {
            assert_eq!(ServerAddress::parse(input), Err(want), "{input}");
        }
    }
}
