//! Tokens of a request (rules 70 to 78): where they stand, which rule accepts them. Signatures are names of keys.

use ravelin_proto::time::Timestamp;
use serde_json::{Map, Value};

use super::case::{Call, Row, Token};
use super::{World, at, items, text_at, texts};

/// Claims of the accepted token, nothing without one, or the status of the refusal.
pub fn authenticate(
    world: &World<'_>,
    row: &Row,
    call: &Call,
) -> Result<Option<Map<String, Value>>, u16> {
    let has = |wanted: &str| {
        call.headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    };
    if call.method == "OPTIONS" && has("origin") && has("access-control-request-method") {
        return Ok(None);
    }
    let mut accepted: Vec<Map<String, Value>> = Vec::new();
    let mut worst = None;
    for policy in world.attached("RequestAuthentication") {
        for rule in items(policy.pointer("/spec/jwtRules")) {
            let shown = shown(rule, call);
            if shown.len() > 8 {
                return Err(401);
            }
            let judged: Result<Vec<_>, u16> = shown
                .iter()
                .map(|text| check(world, row, rule, text, call))
                .collect();
            match judged {
                Ok(claims) => accepted.extend(claims),
                Err(status) => worst = worst.max(Some(status)),
            }
        }
    }
    match (accepted.pop(), worst) {
        (None, Some(status)) => Err(status),
        (None, None) => Ok(None),
        // Rule 73: tokens that disagree are refused.
        (Some(claims), _) => {
            // What they say of anything but their own time and number.
            let said = |claims: &Map<String, Value>| {
                let mut claims = claims.clone();
                for own in ["exp", "nbf", "iat", "jti"] {
                    claims.remove(own);
                }
                claims
            };
            if accepted.iter().all(|other| said(other) == said(&claims)) {
                Ok(Some(claims))
            } else {
                Err(401)
            }
        }
    }
}

/// Texts at the places of a rule (rules 72, 73).
fn shown(rule: &Value, call: &Call) -> Vec<String> {
    let mut headers: Vec<(String, String)> = items(rule.get("fromHeaders"))
        .iter()
        .map(|entry| {
            let text = |name| text_at(entry, &[name]).unwrap_or_default().to_owned();
            (text("name"), text("prefix"))
        })
        .collect();
    let mut params: Vec<&str> = texts(rule.get("fromParams"));
    let cookies = texts(rule.get("fromCookies"));
    if headers.is_empty() && params.is_empty() && cookies.is_empty() {
        headers.push(("authorization".into(), "Bearer ".into()));
        params.push("access_token");
    }
    let values = |wanted: &str| {
        let wanted = wanted.to_owned();
        call.headers
            .iter()
            .filter(move |(name, _)| name.eq_ignore_ascii_case(&wanted))
            .map(|(_, value)| value.clone())
    };
    let mut found = Vec::new();
    for (name, prefix) in headers {
        found.extend(
            values(&name).filter_map(|value| value.strip_prefix(&prefix).map(str::to_owned)),
        );
    }
    let query = call.path.split_once('?').map_or("", |(_, query)| query);
    for pair in query.split('&') {
        if let Some((name, value)) = pair.split_once('=')
            && params.contains(&name)
        {
            found.push(value.to_owned());
        }
    }
    for pair in values("cookie").flat_map(|all| {
        all.split(';')
            .map(|pair| pair.trim().to_owned())
            .collect::<Vec<_>>()
    }) {
        if let Some((name, value)) = pair.split_once('=')
            && cookies.contains(&name)
        {
            found.push(value.to_owned());
        }
    }
    found
}

/// One token by one rule (rules 71, 74, 77).
fn check(
    world: &World<'_>,
    row: &Row,
    rule: &Value,
    text: &str,
    call: &Call,
) -> Result<Map<String, Value>, u16> {
    let name = text
        .strip_prefix("${token:")
        .and_then(|rest| rest.strip_suffix('}'))
        .ok_or(401_u16)?;
    let token = &row.tokens[name];
    let claims = token.claims.as_object().unwrap().clone();
    // Advisory A17.
    if depth(&token.claims) > 16 {
        return Err(401);
    }
    let issuer = text_at(rule, &["issuer"]);
    if issuer != claims.get("iss").and_then(Value::as_str) || !is_signed(rule, token, &claims) {
        return Err(401);
    }
    let now = Timestamp::parse_rfc3339(&call.now).unwrap();
    let skew = text_at(world.config, &["jwt", "clockSkew"]).unwrap_or("60s");
    let skew: i64 = skew.strip_suffix('s').unwrap().parse().unwrap();
    let needs_expiry = at(world.config, &["jwt", "requireExpiry"]) != Some(&Value::Bool(false));
    let is_alive = match claims.get("exp") {
        Some(expiry) => expiry
            .as_i64()
            .is_some_and(|at| now < Timestamp::from_unix_secs(at + skew)),
        None => !needs_expiry,
    };
    let has_begun = claims.get("nbf").is_none_or(|start| {
        start
            .as_i64()
            .is_some_and(|at| now >= Timestamp::from_unix_secs(at - skew))
    });
    if !is_alive || !has_begun {
        return Err(401);
    }
    let audiences = texts(rule.get("audiences"));
    let named = super::claims::audiences(Some(&claims));
    if !audiences.is_empty()
        && !audiences
            .iter()
            .any(|audience| named.iter().any(|name| name == audience))
    {
        return Err(403);
    }
    Ok(split(rule, claims))
}

/// Rules 71, 77 and advisory A9: a key of this issuer, its own algorithm, and no key is a No.
fn is_signed(rule: &Value, token: &Token, claims: &Map<String, Value>) -> bool {
    let said = |name: &str| {
        token
            .header
            .as_ref()
            .and_then(|header| text_at(header, &[name]))
    };
    let names = text_at(rule, &["jwks"])
        .and_then(|keys| keys.strip_prefix("${jwks:"))
        .and_then(|keys| keys.strip_suffix('}'));
    let is_own_bundle = text_at(rule, &["jwksUri"]) == Some("spiffe://shop.example");
    let names = names.or(is_own_bundle.then_some("b1")).unwrap_or_default();
    let is_member = claims
        .get("sub")
        .and_then(Value::as_str)
        .is_some_and(|subject| subject.starts_with("spiffe://shop.example/"));
    let named = if token.header.is_some() {
        said("kid")
    } else {
        Some(token.key.as_str())
    };
    !token.is_forged
        && names.split(',').any(|name| name == token.key)
        && named.is_none_or(|kid| kid == token.key)
        && said("alg").is_none_or(|algorithm| algorithm == "ES256")
        && (!is_own_bundle || is_member)
}

/// Rule 51, for names beyond the two that are always split.
fn split(rule: &Value, claims: Map<String, Value>) -> Map<String, Value> {
    let mut claims = Value::Object(claims);
    for name in texts(rule.get("spaceDelimitedClaims")) {
        let pointer = format!("/{}", name.replace('.', "/"));
        if let Some(found) = claims.pointer_mut(&pointer)
            && let Some(words) = found.as_str()
        {
            *found = words.split(' ').filter(|word| !word.is_empty()).collect();
        }
    }
    claims.as_object().cloned().unwrap_or_default()
}

fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(members) => members.values().map(depth).max(),
        _ => return 0,
    };
    1 + below.unwrap_or(0)
}
