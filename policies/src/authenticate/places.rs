//! Where tokens stand in a request (rules 72, 73).

use super::{AuthRefusal, RequestView};
use crate::limits;
use crate::schema::{JwtRule, TokenPlace};

/// Every token that stands at one of the rule's places, with its place.
pub(super) fn tokens<'r>(
    rule: &'r JwtRule,
    request: &RequestView<'_>,
) -> Result<Vec<(&'r TokenPlace, String)>, AuthRefusal> {
    let mut found: Vec<(&TokenPlace, String)> = Vec::new();
    let mut is_text = true;
    for place in &rule.places {
        match place {
            TokenPlace::Header { name, prefix } => {
                request.headers.each_value(name, &mut |value| match (
                    std::str::from_utf8(value),
                    value.starts_with(prefix.as_bytes()),
                ) {
                    (Ok(text), _) => {
                        if let Some(token) = text.strip_prefix(prefix.as_str()) {
                            found.push((place, token.to_owned()));
                        }
                    }
                    (Err(_), true) => is_text = false,
                    (Err(_), false) => {}
                });
            }
            TokenPlace::Param(name) => {
                let pairs = request
                    .query
                    .unwrap_or_default()
                    .split('&')
                    .filter_map(|pair| pair.split_once('='));
                found.extend(
                    pairs
                        .filter(|(key, _)| key == name)
                        .map(|(_, value)| (place, value.to_owned())),
                );
            }
            TokenPlace::Cookie(name) => request.headers.each_value("cookie", &mut |value| {
                let text = String::from_utf8_lossy(value);
                let pairs = text
                    .split(';')
                    .filter_map(|pair| pair.trim().split_once('='));
                found.extend(
                    pairs
                        .filter(|(key, _)| key == name)
                        .map(|(_, value)| (place, value.to_owned())),
                );
            }),
        }
    }
    if !is_text {
        return Err(refusal("token_malformed", "a token is not text"));
    }
    if found.len() > limits::TOKENS_MAX {
        return Err(refusal("token_too_many", "the request has too many tokens"));
    }
    Ok(found)
}

fn refusal(code: &'static str, message: &str) -> AuthRefusal {
    AuthRefusal {
        status: 401,
        code,
        message: message.into(),
    }
}

/// The `cookie` header without those of these names; `None` when nothing is left.
pub(super) fn cookies_without(request: &RequestView<'_>, names: &[&str]) -> Option<String> {
    let mut kept: Vec<String> = Vec::new();
    request.headers.each_value("cookie", &mut |value| {
        let text = String::from_utf8_lossy(value);
        for pair in text
            .split(';')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            if !names.contains(&name) {
                kept.push(pair.to_owned());
            }
        }
    });
    (!kept.is_empty()).then(|| kept.join("; "))
}
