//! Selectors: attested `type:value` facts about a process or a node.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest selector type in bytes.
pub const SELECTOR_TYPE_BYTES_MAX: usize = 64;
/// Longest selector value in bytes: a Linux path and some room.
pub const SELECTOR_VALUE_BYTES_MAX: usize = 8192;

/// Why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// No colon parts type and value.
    #[error("a selector is `type:value`; the `:` is missing")]
    NoColon,
    /// Nothing before the first colon.
    #[error("the selector's type is empty")]
    TypeEmpty,
    /// Only lower-case letters, digits, `_` and `-` make a type.
    #[error("a selector's type has only `a-z`, `0-9`, `_` and `-`, not `{0}`")]
    TypeChar(char),
    /// Nothing behind the first colon.
    #[error("the selector's value is empty")]
    ValueEmpty,
    /// A control character could forge a second line in a log or a listing (threat 7).
    #[error("the selector's value has a control character")]
    ValueControl,
    /// Past a limit.
    #[error("the selector is too long")]
    TooLong,
}

/// One attested fact, such as `unix:uid:1000`: type `unix`, value `uid:1000`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    kind: String,
    value: String,
}

impl Selector {
    /// Parses `type:value`; the value may have further colons.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let (kind, value) = text.split_once(':').ok_or(SelectorError::NoColon)?;
        Self::new(kind, value)
    }

    /// Joins a type and a value.
    pub fn new(kind: &str, value: &str) -> Result<Self, SelectorError> {
        if kind.is_empty() {
            return Err(SelectorError::TypeEmpty);
        }
        if let Some(bad) = kind
            .chars()
            .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '_' | '-'))
        {
            return Err(SelectorError::TypeChar(bad));
        }
        if value.is_empty() {
            return Err(SelectorError::ValueEmpty);
        }
        if kind.len() > SELECTOR_TYPE_BYTES_MAX || value.len() > SELECTOR_VALUE_BYTES_MAX {
            return Err(SelectorError::TooLong);
        }
        if value.chars().any(char::is_control) {
            return Err(SelectorError::ValueControl);
        }
        Ok(Self {
            kind: kind.to_owned(),
            value: value.to_owned(),
        })
    }

    /// The attestor that vouches for it, such as `unix`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The fact, such as `uid:1000`.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// True when every needed selector was attested. An empty `needed` never matches: an entry
/// without selectors must not match every process (threat 9).
pub fn is_subset(needed: &[Selector], attested: &BTreeSet<Selector>) -> bool {
    !needed.is_empty() && needed.iter().all(|selector| attested.contains(selector))
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn selectors_parse_or_say_which_rule_they_break() {
        let rows = [
            ("unix:uid:0", Ok(("unix", "uid:0"))),
            ("unix:path:/a:b", Ok(("unix", "path:/a:b"))),
            ("unix", Err(SelectorError::NoColon)),
            (":x", Err(SelectorError::TypeEmpty)),
            ("Unix:x", Err(SelectorError::TypeChar('U'))),
            ("unix:", Err(SelectorError::ValueEmpty)),
            ("unix:path:/a\nunix:uid:0", Err(SelectorError::ValueControl)),
        ];
        for (text, want) in rows {
            let got = Selector::parse(text);
            let got = got.as_ref().map(|s| (s.kind(), s.value()));
            assert_eq!(got, want.as_ref().map(|w| *w), "{text:?}");
        }
        let long = format!("unix:{}", "x".repeat(SELECTOR_VALUE_BYTES_MAX + 1));
        assert_eq!(Selector::parse(&long), Err(SelectorError::TooLong));
    }

    #[test]
    fn threat_09_an_entry_without_selectors_matches_nobody() {
        let attested: BTreeSet<_> = [Selector::parse("unix:uid:0").unwrap()].into();
        assert!(!is_subset(&[], &attested));
        assert!(!is_subset(&[], &BTreeSet::new()));
        assert!(is_subset(
            &[Selector::parse("unix:uid:0").unwrap()],
            &attested
        ));
        assert!(!is_subset(
            &[Selector::parse("unix:uid:1").unwrap()],
            &attested
        ));
    }

    proptest! {
        #[test]
        fn threat_07_display_and_parse_are_inverse(text in "\\PC{0,60}") {
            if let Ok(selector) = Selector::parse(&text) {
                prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
            }
        }
    }
}
