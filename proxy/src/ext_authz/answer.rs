//! What an authorizer may change, and what it never may: a message's framing, and what only a proxy says of a peer.
//!
//! Pure. A change that is not allowed is left out; the rest of the answer holds.

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::head;

/// A clear answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Tokens and the other policies are judged next.
    Allowed(Changes),
    /// Final.
    Denied(Denial),
}

/// What a yes changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Headers of the call.
    pub upstream: Vec<HeaderChange>,
    /// Headers that are taken from the call.
    pub removed: Vec<HeaderName>,
    /// Headers of the answer to the call.
    pub downstream: Vec<HeaderChange>,
    /// Query parameters that are set, name and value.
    pub params_set: Vec<(String, String)>,
    /// Query parameters that are taken away.
    pub params_removed: Vec<String>,
}

/// A no, as the caller gets it.
#[derive(Debug, PartialEq, Eq)]
pub struct Denial {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: Vec<HeaderChange>,
    /// Body.
    pub body: Bytes,
}

/// One header of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderChange {
    name: HeaderName,
    value: HeaderValue,
    how: How,
}

/// What becomes of values that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// They are replaced.
    Set,
    /// They stay, and this one is added.
    Append,
    /// They stay, and this one is left out.
    AddIfAbsent,
    /// They are replaced, if there are any.
    Replace,
}

impl HeaderChange {
    /// For the call; none for a header that an authorizer may not set.
    pub fn upstream(name: &[u8], value: &[u8], how: How) -> Option<Self> {
        let change = Self::new(name, value, how)?;
        is_changeable(&change.name).then_some(change)
    }

    /// For the caller; none for a header that an authorizer may not set.
    pub fn downstream(name: &[u8], value: &[u8], how: How) -> Option<Self> {
        let change = Self::new(name, value, how)?;
        let text = change.name.as_str();
        (!head::is_framing(text) && !text.starts_with("x-ravelin-")).then_some(change)
    }

    // WHY: a name that begins with `:`, as pseudo-headers do, is no header name.
    fn new(name: &[u8], value: &[u8], how: How) -> Option<Self> {
        Some(Self {
            name: HeaderName::from_bytes(name).ok()?,
            value: HeaderValue::from_bytes(value).ok()?,
            how,
        })
    }
}

/// The header of this name, if an authorizer may take it from a call.
pub fn removable(name: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    is_changeable(&name).then_some(name)
}

fn is_changeable(name: &HeaderName) -> bool {
    !head::is_framing(name.as_str()) && !head::is_claim(name.as_str())
}

/// Changes `headers`.
pub fn apply(headers: &mut HeaderMap, changes: &[HeaderChange]) {
    for change in changes {
        let is_there = headers.contains_key(&change.name);
        match change.how {
            How::Append => drop(headers.append(change.name.clone(), change.value.clone())),
            How::AddIfAbsent if is_there => {}
            How::Replace if !is_there => {}
            How::Set | How::AddIfAbsent | How::Replace => {
                // WHY: an application may read another spelling as the same name.
                head::remove_spellings(headers, change.name.as_str());
                headers.insert(change.name.clone(), change.value.clone());
            }
        }
    }
}

impl Changes {
    /// Changes the headers of the call.
    pub fn apply(&self, headers: &mut HeaderMap) {
        apply(headers, &self.upstream);
        for name in &self.removed {
            head::remove_spellings(headers, name.as_str());
        }
    }

    /// The target with its query changed; none if it stays as it is.
    pub fn target(&self, target: &str) -> Option<String> {
        if self.params_set.is_empty() && self.params_removed.is_empty() {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let is_kept = |pair: &&str| {
            let name = decoded(pair.split('=').next().unwrap_or_default());
            let is_named = |known: &str| decoded(known) == name;
            !pair.is_empty()
                && !self.params_removed.iter().any(|known| is_named(known))
                && !self.params_set.iter().any(|(known, _)| is_named(known))
        };
        let mut pairs: Vec<String> = query
            .split('&')
            .filter(is_kept)
            .map(str::to_owned)
            .collect();
        let set = self.params_set.iter().filter(|(name, _)| {
            let name = decoded(name);
            !self
                .params_removed
                .iter()
                .any(|other| decoded(other) == name)
        });
        pairs.extend(set.map(|(name, value)| format!("{}={}", encoded(name), encoded(value))));
        Some(if pairs.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{}", pairs.join("&"))
        })
    }
}

/// A query parameter without what would end it. Escapes stay as they are.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~!$'()*+,;:@/?%".contains(&byte);
        if is_plain {
            encoded.push(char::from(byte));
        } else {
            // WHY: writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// A query parameter's name as servers read it.
fn decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let hex = tail
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = hex.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', _) => decoded.push(b' '),
            (other, _) => decoded.push(*other),
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_6_an_authorizer_never_sets_what_frames_a_message_or_names_a_peer() {
        for name in [
            "Host",
            ":path",
            ":authority",
            "content-length",
            "Transfer-Encoding",
            "transfer_encoding",
            "connection",
            "upgrade",
            "te",
            "x-forwarded-client-cert",
            "X_Forwarded_Client_Cert",
            "x-forwarded-for",
            "x-spiffe-id",
            "x-ravelin-code",
            "x-http-method-override",
            "",
            "a b",
        ] {
            let name = name.as_bytes();
            assert_eq!(
                HeaderChange::upstream(name, b"x", How::Set),
                None,
                "{name:?}"
            );
            assert_eq!(removable(std::str::from_utf8(name).unwrap()), None);
        }
        assert_eq!(HeaderChange::upstream(b"x-user", b"a\r\nb", How::Set), None);
        assert!(HeaderChange::upstream(b"Authorization", b"x", How::Set).is_some());
        for name in ["content-length", "x-ravelin-code", "connection", ":status"] {
            assert_eq!(
                HeaderChange::downstream(name.as_bytes(), b"x", How::Set),
                None
            );
        }
        assert!(HeaderChange::downstream(b"set-cookie", b"x", How::Append).is_some());
    }

    #[test]
    fn a_change_sets_appends_adds_or_replaces_and_leaves_no_other_spelling() {
        let rows = [
            (How::Set, "x-user", "x-user: new"),
            (How::Set, "x-other", "x-user: old, x-other: new"),
            (How::Append, "x-user", "x-user: old, x-user: new"),
            (How::AddIfAbsent, "x-user", "x-user: old"),
            (How::AddIfAbsent, "x-other", "x-user: old, x-other: new"),
            (How::Replace, "x-user", "x-user: new"),
            (How::Replace, "x-other", "x-user: old"),
        ];
        for (how, name, want) in rows {
            let mut headers = HeaderMap::new();
            headers.insert("x-user", "old".parse().unwrap());
            apply(
                &mut headers,
                &[HeaderChange::upstream(name.as_bytes(), b"new", how).unwrap()],
            );
            let got: Vec<String> = headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            assert_eq!(got.join(", "), want, "{how:?} {name}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x_user", "forged".parse().unwrap());
        apply(
            &mut headers,
            &[HeaderChange::upstream(b"x-user", b"new", How::Set).unwrap()],
        );
        assert_eq!(headers.get("x_user"), None);
    }

    #[test]
    fn what_is_set_and_removed_is_removed() {
        let mut headers = HeaderMap::new();
        let changes = Changes {
            upstream: HeaderChange::upstream(b"x-user", b"new", How::Set)
                .into_iter()
                .collect(),
            removed: removable("X-User").into_iter().collect(),
            ..Changes::default()
        };
        changes.apply(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn query_parameters_are_set_and_removed_in_every_spelling() {
        let changes = |set: &[(&str, &str)], removed: &[&str]| Changes {
            params_set: set
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            params_removed: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..Changes::default()
        };
        let rows = [
            ("/a?b=1", changes(&[], &[]), None),
            ("/a?b=1&c=2", changes(&[], &["b"]), Some("/a?c=2")),
            ("/a?%62=1&b&b=3", changes(&[], &["b"]), Some("/a")),
            ("/a", changes(&[("b", "1")], &[]), Some("/a?b=1")),
            (
                "/a?b=2&c=3",
                changes(&[("b", "1")], &[]),
                Some("/a?c=3&b=1"),
            ),
            (
                "/a",
                changes(&[("b", "1&admin=1#x y")], &[]),
                Some("/a?b=1%26admin%3D1%23x%20y"),
            ),
            ("/a?b=1", changes(&[("b", "2")], &["b"]), Some("/a")),
        ];
        for (target, changes, want) in rows {
            assert_eq!(changes.target(target).as_deref(), want, "{target}");
        }
    }
}
