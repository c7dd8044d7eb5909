//! SPIFFE IDs and trust domains (SPIFFE-ID, sections 2 to 4; checklist rows ID-1 to ID-10).
//!
//! A value of these types has passed every rule: lower-case trust domain, no percent-encoding,
//! no empty or dot segment, no port, user, query or fragment, at most 2048 bytes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest SPIFFE ID in bytes, scheme included (SPIFFE-ID 2.3).
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// Longest trust domain name in bytes (SPIFFE-ID 2.1).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

const SCHEME: &str = "spiffe://";

/// Why a text is not a SPIFFE ID or a trust domain: one variant a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// The text is empty.
    #[error("the SPIFFE ID is empty")]
    Empty,
    /// It does not begin with `spiffe://` (ID-1).
    #[error("a SPIFFE ID begins with `spiffe://`")]
    Scheme,
    /// Nothing stands between `spiffe://` and the path (ID-2).
    #[error("the trust domain is missing")]
    TrustDomainMissing,
    /// A character that no trust domain has: user, port, upper case, percent (ID-3, ID-4).
    #[error("a trust domain has only `a-z`, `0-9`, `.`, `-` and `_`, not `{0}`")]
    TrustDomainChar(char),
    /// More than 255 bytes of trust domain (ID-6).
    #[error("the trust domain is longer than {TRUST_DOMAIN_BYTES_MAX} bytes")]
    TrustDomainTooLong,
    /// A character that no path has: percent, query, fragment, space (ID-3, ID-5).
    #[error("a path has only `a-z`, `A-Z`, `0-9`, `.`, `-`, `_` and `/`, not `{0}`")]
    PathChar(char),
    /// `//` in the path (ID-5).
    #[error("the path has an empty segment")]
    PathEmptySegment,
    /// `/./` or `/../` (ID-5).
    #[error("the path has a `.` or `..` segment")]
    PathDotSegment,
    /// A slash at the end (ID-5).
    #[error("the path ends with `/`")]
    PathTrailingSlash,
    /// A path that does not begin with `/`.
    #[error("a path begins with `/`")]
    PathNoLeadingSlash,
    /// More than 2048 bytes (ID-6).
    #[error("the SPIFFE ID is longer than {SPIFFE_ID_BYTES_MAX} bytes")]
    TooLong,
}

/// The name of an administrative root of identity, such as `shop.example`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses a bare name or a `spiffe://name` without a path.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.is_empty() {
            return Err(SpiffeIdError::TrustDomainMissing);
        }
        let name = text.strip_prefix(SCHEME).unwrap_or(text);
        check_trust_domain(name)?;
        Ok(Self(name.into()))
    }

    /// The name, without a scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID of the trust domain itself: `spiffe://name`, for bundles and authorities alone.
    pub fn id(&self) -> SpiffeId {
        SpiffeId {
            text: format!("{SCHEME}{}", self.0).into(),
            path_start: SCHEME.len() + self.0.len(),
        }
    }
}

/// A validated SPIFFE ID, such as `spiffe://shop.example/ns/shop/sa/orders`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    path_start: usize,
}

impl SpiffeId {
    /// Parses the URI form. The root ID (no path) is valid here; a leaf refuses it (ID-10).
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.is_empty() {
            return Err(SpiffeIdError::Empty);
        }
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let name = rest.split('/').next().unwrap_or_default();
        check_trust_domain(name)?;
        let path_start = SCHEME.len() + name.len();
        check_path(text.get(path_start..).unwrap_or_default())?;
        Ok(Self {
            text: text.into(),
            path_start,
        })
    }

    /// Joins a trust domain and a path that begins with `/` (or is empty).
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, SpiffeIdError> {
        check_path(path)?;
        Self::parse(&format!("{SCHEME}{}{path}", trust_domain.as_str()))
    }

    /// The trust domain that this ID belongs to.
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.trust_domain_str().into())
    }

    /// The trust domain's name, borrowed.
    pub fn trust_domain_str(&self) -> &str {
        self.text
            .get(SCHEME.len()..self.path_start)
            .unwrap_or_default()
    }

    /// The path with its leading slash; empty for the trust domain's own ID.
    pub fn path(&self) -> &str {
        self.text.get(self.path_start..).unwrap_or_default()
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True for `spiffe://name` without a path.
    pub fn is_root(&self) -> bool {
        self.path().is_empty()
    }

    /// True when the ID lies in that trust domain.
    pub fn is_member_of(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain_str() == trust_domain.as_str()
    }
}

fn check_trust_domain(name: &str) -> Result<(), SpiffeIdError> {
    if name.is_empty() {
        return Err(SpiffeIdError::TrustDomainMissing);
    }
    if let Some(bad) = name
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_'))
    {
        return Err(SpiffeIdError::TrustDomainChar(bad));
    }
    if name.len() > TRUST_DOMAIN_BYTES_MAX {
        return Err(SpiffeIdError::TrustDomainTooLong);
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), SpiffeIdError> {
    if path.is_empty() {
        return Ok(());
    }
    let segments = path
        .strip_prefix('/')
        .ok_or(SpiffeIdError::PathNoLeadingSlash)?;
    if let Some(bad) = path
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' | '/'))
    {
        return Err(SpiffeIdError::PathChar(bad));
    }
    if path.ends_with('/') {
        return Err(SpiffeIdError::PathTrailingSlash);
    }
    for segment in segments.split('/') {
        match segment {
            "" => return Err(SpiffeIdError::PathEmptySegment),
            "." | ".." => return Err(SpiffeIdError::PathDotSegment),
            _ => {}
        }
    }
    Ok(())
}

macro_rules! text_form {
    ($name:ty) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = SpiffeIdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_form!(TrustDomain);
text_form!(SpiffeId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn id_01_to_10_each_rule_refuses_by_name() {
        use SpiffeIdError as E;
        let long_domain = format!("spiffe://{}/a", "d".repeat(256));
        let long_path = format!("spiffe://td/{}", "p".repeat(2048));
        let rows: &[(&str, &str, E)] = &[
            ("ID-1 empty", "", E::Empty),
            ("ID-1 other scheme", "http://td/a", E::Scheme),
            ("ID-1 upper-case scheme", "SPIFFE://td/a", E::Scheme),
            ("ID-1 no slashes", "spiffe:td/a", E::Scheme),
            ("ID-2 no domain", "spiffe:///a", E::TrustDomainMissing),
            ("ID-2 nothing", "spiffe://", E::TrustDomainMissing),
            ("ID-3 port", "spiffe://td:80/a", E::TrustDomainChar(':')),
            ("ID-3 user", "spiffe://u@td/a", E::TrustDomainChar('@')),
            ("ID-3 query", "spiffe://td/a?q", E::PathChar('?')),
            ("ID-3 fragment", "spiffe://td/a#f", E::PathChar('#')),
            (
                "ID-3 query on the domain",
                "spiffe://td?q",
                E::TrustDomainChar('?'),
            ),
            ("ID-4 upper case", "spiffe://TD/a", E::TrustDomainChar('T')),
            ("ID-4 percent", "spiffe://t%64/a", E::TrustDomainChar('%')),
            ("ID-4 IPv6", "spiffe://[::1]/a", E::TrustDomainChar('[')),
            ("ID-5 percent", "spiffe://td/a%41", E::PathChar('%')),
            (
                "ID-5 empty segment",
                "spiffe://td/a//b",
                E::PathEmptySegment,
            ),
            ("ID-5 dot", "spiffe://td/./b", E::PathDotSegment),
            ("ID-5 dot dot", "spiffe://td/a/..", E::PathDotSegment),
            (
                "ID-5 trailing slash",
                "spiffe://td/a/",
                E::PathTrailingSlash,
            ),
            ("ID-5 root slash", "spiffe://td/", E::PathTrailingSlash),
            ("ID-5 unicode", "spiffe://td/é", E::PathChar('é')),
            ("ID-5 space", "spiffe://td/a b", E::PathChar(' ')),
            ("ID-6 domain", &long_domain, E::TrustDomainTooLong),
            ("ID-6 whole", &long_path, E::TooLong),
        ];
        for (name, text, want) in rows {
            assert_eq!(SpiffeId::parse(text).unwrap_err(), *want, "{name}");
        }
    }

    #[test]
    fn id_04_05_06_10_valid_forms_are_taken_apart() {
        let longest = format!("spiffe://td/{}", "p".repeat(2048 - 12));
        for (text, domain, path) in [
            ("spiffe://td", "td", ""),
            ("spiffe://td/a", "td", "/a"),
            ("spiffe://1.2.3.4/Service", "1.2.3.4", "/Service"),
            ("spiffe://a_b-c.d/x.y-z_/9/...", "a_b-c.d", "/x.y-z_/9/..."),
            (&longest, "td", &longest["spiffe://td".len()..]),
        ] {
            let id = SpiffeId::parse(text).unwrap();
            assert_eq!(id.trust_domain().as_str(), domain);
            assert_eq!(id.path(), path);
            assert_eq!(id.is_root(), path.is_empty());
            assert_eq!(SpiffeId::new(&id.trust_domain(), path).unwrap(), id);
        }
    }

    #[test]
    fn id_07_paths_compare_by_case() {
        let upper = SpiffeId::parse("spiffe://td/A").unwrap();
        assert_ne!(upper, SpiffeId::parse("spiffe://td/a").unwrap());
    }

    #[test]
    fn a_trust_domain_is_a_name_or_its_id() {
        let name = TrustDomain::parse("shop.example").unwrap();
        assert_eq!(name, TrustDomain::parse("spiffe://shop.example").unwrap());
        assert_eq!(name.id().as_str(), "spiffe://shop.example");
        assert!(TrustDomain::parse("spiffe://shop.example/x").is_err());
        assert!(
            !SpiffeId::parse("spiffe://shop.example.org/x")
                .unwrap()
                .is_member_of(&name)
        );
    }

    proptest! {
        #[test]
        fn parse_never_panics_and_keeps_the_text(text in "\\PC{0,80}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert!(!text.contains('%') && !text.contains("//a//"));
            }
        }

        #[test]
        fn every_well_formed_id_is_taken(td in "[a-z0-9._-]{1,30}", segments in prop::collection::vec("[a-zA-Z0-9_-]{1,9}", 0..5)) {
            let path: String = segments.iter().map(|s| format!("/{s}")).collect();
            let id = SpiffeId::parse(&format!("spiffe://{td}{path}")).unwrap();
            prop_assert_eq!(id.path(), path.as_str());
            prop_assert_eq!(id.trust_domain_str(), td.as_str());
        }
    }
}
