//! Where tokens stand in a request (rules 72, 73).

use super::{AuthRefusal, RequestView};
use crate::limits;
use crate::path::decoded;
use crate::schema::TokenPlace;

/// Every token that stands at one of the places, with the place's number.
pub(super) fn tokens(
    places: &[TokenPlace],
    request: &RequestView<'_>,
) -> Result<Vec<(usize, String)>, AuthRefusal> {
    let mut found = Found::default();
    for (number, place) in places.iter().enumerate() {
        match place {
            TokenPlace::Header { name, prefix } => {
                request.headers.each_value(name, &mut |value| {
                    // Rule 73: without the exact prefix it is not a token.
                    if let Some(token) = value.strip_prefix(prefix.as_bytes()) {
                        found.add(number, token);
                    }
                });
            }
            TokenPlace::Param(name) => {
                let pairs = request.query.unwrap_or_default().split('&');
                for (key, value) in pairs.filter_map(|pair| pair.split_once('=')) {
                    // WHY: the application decodes names and values; a token that it will find is found here too.
                    if decoded(key) == name.as_bytes() {
                        found.add(number, &decoded(value));
                    }
                }
            }
            TokenPlace::Cookie(name) => request.headers.each_value("cookie", &mut |value| {
                for (key, value) in cookies(value).filter_map(split_pair) {
                    if key == name.as_bytes() {
                        found.add(number, unquoted(value));
                    }
                }
            }),
        }
    }
    if !found.is_text {
        return Err(refusal("token_malformed", "a token is not text"));
    }
    if found.tokens.len() > limits::TOKENS_MAX {
        return Err(refusal("token_too_many", "the request has too many tokens"));
    }
    Ok(found.tokens)
}

struct Found {
    tokens: Vec<(usize, String)>,
    is_text: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            is_text: true,
        }
    }
}

impl Found {
    fn add(&mut self, place: usize, token: &[u8]) {
        if self.tokens.len() > limits::TOKENS_MAX {
            return;
        }
        match std::str::from_utf8(token) {
            Ok(token) => self.tokens.push((place, token.to_owned())),
            Err(_) => self.is_text = false,
        }
    }
}

fn cookies(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    header
        .split(|byte| *byte == b';')
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty())
}

fn split_pair(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = pair.split_at_checked(at)?;
    Some((key.trim_ascii(), value.get(1..)?.trim_ascii()))
}

// SPEC: RFC 6265 4.1.1: a cookie's value may stand in quotes.
fn unquoted(value: &[u8]) -> &[u8] {
    value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""))
        .unwrap_or(value)
}

fn refusal(code: &'static str, message: &str) -> AuthRefusal {
    AuthRefusal {
        status: 401,
        code,
        message: message.into(),
    }
}

/// The `cookie` header without those of these names; `None` when nothing is left.
pub(super) fn cookies_without(request: &RequestView<'_>, names: &[String]) -> Option<String> {
    let mut kept: Vec<String> = Vec::new();
    request.headers.each_value("cookie", &mut |value| {
        for pair in cookies(value) {
            let name = split_pair(pair).map_or(pair, |(name, _)| name);
            if !names.iter().any(|removed| removed.as_bytes() == name) {
                kept.push(String::from_utf8_lossy(pair).into_owned());
            }
        }
    });
    (!kept.is_empty()).then(|| kept.join("; "))
}
