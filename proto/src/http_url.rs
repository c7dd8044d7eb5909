//! Addresses of key sets and discovery documents: absolute `http` and `https` URLs (RFC 3986), taken apart once.
//!
//! Strict on purpose: no user information, no fragment, no other scheme, no character that two readers could take
//! for different things. Read by the policy loader, used by the proxy's fetcher.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Longest address in bytes.
pub const URL_BYTES_MAX: usize = 2048;
/// Longest host name (RFC 1035 2.3.4).
pub const HOST_BYTES_MAX: usize = 253;

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpUrlError {
    /// Past [`URL_BYTES_MAX`].
    #[error("it is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// Neither `http://` nor `https://`.
    #[error("it does not start with `https://` or `http://`")]
    Scheme,
    /// Blanks, controls, quotes, `\` or what is not ASCII: write it percent-encoded.
    #[error("it has a character that an address cannot have")]
    Character,
    /// A name and password before the host.
    #[error("it has user information, and a secret does not belong there")]
    UserInformation,
    /// `#..`.
    #[error("it has a fragment")]
    Fragment,
    /// Neither a host name nor an IP address.
    #[error("its host is neither a name nor an IP address")]
    Host,
    /// Not 1 to 65535.
    #[error("its port is not a number from 1 to 65535")]
    Port,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpHost {
    /// A DNS name in lower case.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

/// An absolute address whose form has been checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpUrl {
    text: String,
    is_tls: bool,
    host: HttpHost,
    port: u16,
    target_at: usize,
}

impl HttpUrl {
    /// Takes an address apart.
    pub fn parse(text: &str) -> Result<Self, HttpUrlError> {
        if text.len() > URL_BYTES_MAX {
            return Err(HttpUrlError::TooLong);
        }
        let (is_tls, rest) = [(true, "https://"), (false, "http://")]
            .into_iter()
            .find_map(|(is_tls, scheme)| Some((is_tls, text.strip_prefix(scheme)?)))
            .ok_or(HttpUrlError::Scheme)?;
        let is_fine = |byte: u8| {
            byte.is_ascii_graphic()
                && !matches!(
                    byte,
                    b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
                )
        };
        if !text.bytes().all(is_fine) {
            return Err(HttpUrlError::Character);
        }
        if text.contains('#') {
            return Err(HttpUrlError::Fragment);
        }
        let authority_bytes = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest
            .split_at_checked(authority_bytes)
            .ok_or(HttpUrlError::Host)?;
        if authority.contains('@') {
            return Err(HttpUrlError::UserInformation);
        }
        let (host, port) = host_and_port(authority)?;
        Ok(Self {
            text: text.to_owned(),
            is_tls,
            host,
            port: port.unwrap_or(if is_tls { 443 } else { 80 }),
            target_at: text.len() - target.len(),
        })
    }

    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True for `https`.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The server.
    pub fn host(&self) -> &HttpHost {
        &self.host
    }

    /// The port, the scheme's own if none is written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the `Host` header says: the authority as it was written.
    pub fn authority(&self) -> &str {
        let start = if self.is_tls { 8 } else { 7 };
        self.text.get(start..self.target_at).unwrap_or_default()
    }

    /// Path and query, at least `/`: what stands in the request line.
    pub fn target(&self) -> String {
        let target = self.text.get(self.target_at..).unwrap_or_default();
        if target.starts_with('/') {
            target.to_owned()
        } else {
            format!("/{target}")
        }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for HttpHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

fn host_and_port(authority: &str) -> Result<(HttpHost, Option<u16>), HttpUrlError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']').ok_or(HttpUrlError::Host)?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| HttpUrlError::Host)?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if rest.is_empty() => None,
            None => return Err(HttpUrlError::Host),
        };
        return Ok((HttpHost::Ip(IpAddr::V6(ip)), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(parse_port(port)?)),
        None => (authority, None),
    };
    if let Ok(ip) = host.parse() {
        return Ok((HttpHost::Ip(IpAddr::V4(ip)), port));
    }
    let host = host.to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // WHY: `127.1` and `0x7f.0.0.1` are addresses for some resolvers: a name does not end in a number (RFC 3696 2).
    let ends_like_a_number = host
        .trim_end_matches('.')
        .rsplit('.')
        .next()
        .is_none_or(|label| label.starts_with(|c: char| c.is_ascii_digit()));
    let labels = host.strip_suffix('.').unwrap_or(&host);
    if host.len() > HOST_BYTES_MAX || ends_like_a_number || !labels.split('.').all(is_label) {
        return Err(HttpUrlError::Host);
    }
    Ok((HttpHost::Name(host), port))
}

fn parse_port(text: &str) -> Result<u16, HttpUrlError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HttpUrlError::Port);
    }
    text.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or(HttpUrlError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_taken_apart() {
        for (text, host, port, authority, target) in [
            (
                "https://idp.example",
                "idp.example",
                443,
                "idp.example",
                "/",
            ),
            (
                "http://IDP.example/keys?v=1",
                "idp.example",
                80,
                "IDP.example",
                "/keys?v=1",
            ),
            (
                "https://idp.example:8443/a/b",
                "idp.example",
                8443,
                "idp.example:8443",
                "/a/b",
            ),
            (
                "https://idp.example?x",
                "idp.example",
                443,
                "idp.example",
                "/?x",
            ),
            (
                "http://[2001:db8::1]:81/k",
                "2001:db8::1",
                81,
                "[2001:db8::1]:81",
                "/k",
            ),
            ("http://192.0.2.1/k", "192.0.2.1", 80, "192.0.2.1", "/k"),
        ] {
            let url = HttpUrl::parse(text).unwrap();
            assert_eq!(url.is_tls(), text.starts_with("https"));
            assert_eq!(
                (
                    url.host().to_string().as_str(),
                    url.port(),
                    url.authority(),
                    url.target().as_str()
                ),
                (host, port, authority, target)
            );
        }
    }

    #[test]
    fn threat_46_what_two_readers_could_take_for_different_things_is_no_address() {
        use HttpUrlError as E;
        let long = format!("https://a/{}", "x".repeat(URL_BYTES_MAX));
        for (text, want) in [
            ("file:///etc/passwd", E::Scheme),
            ("HTTPS://idp.example", E::Scheme),
            ("gopher://idp.example", E::Scheme),
            ("//idp.example", E::Scheme),
            ("https://user:secret@idp.example/", E::UserInformation),
            ("https://idp.example@169.254.169.254/", E::UserInformation),
            ("https://idp.example/#x", E::Fragment),
            ("https://idp.example\\@evil/", E::Character),
            ("https://idp.example/a b", E::Character),
            ("https://idp.example/\r\nx: y", E::Character),
            ("https://ідп.example/", E::Character),
            ("https://", E::Host),
            ("https:///keys", E::Host),
            ("https://a..b/", E::Host),
            ("https://127.1/", E::Host),
            ("https://2130706433/", E::Host),
            ("https://0x7f000001/", E::Host),
            ("https://idp.example.0x7f/", E::Host),
            ("https://[::1/", E::Host),
            ("https://[::1]x/", E::Host),
            ("https://[fe80::1%25eth0]/", E::Host),
            ("https://idp%2eexample/", E::Host),
            ("https://idp.example:0/", E::Port),
            ("https://idp.example:99999/", E::Port),
            ("https://idp.example:+1/", E::Port),
            ("https://idp.example:/", E::Port),
            (&long, E::TooLong),
        ] {
            assert_eq!(HttpUrl::parse(text), Err(want), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(text in "https?://[ -~]{0,60}") {
            if let Ok(url) = HttpUrl::parse(&text) {
                prop_assert!(url.target().starts_with('/'));
                prop_assert!(!url.authority().is_empty());
            }
        }
    }
}
