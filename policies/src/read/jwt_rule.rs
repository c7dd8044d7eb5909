//! Reads one entry of `jwtRules`: issuer, keys, places of tokens, and what is made of accepted ones (rules 72 to 79).

use std::time::Duration;

use super::Reader;
use super::key_origin::read_keys;
use crate::diagnostic::{Span, excerpt};
use crate::document::{Node, Value};
use crate::fields::{Fields, list};
use crate::limits;
use crate::schema::{JwtRule, KeyOrigin, TokenPlace};
use crate::shape;

pub(super) fn read_jwt_rule(node: &Node, reader: &mut Reader<'_, '_>) -> Option<JwtRule> {
    let fields = Fields::of(
        node,
        "a JWT rule",
        &shape::JWT_RULE.names(),
        reader.problems,
    )?;
    let issuer = read_issuer(&fields, reader);
    let timeout = read_timeout(&fields, reader);
    let keys = read_keys(&fields, issuer, timeout, reader);
    let audiences = read_audiences(&fields, reader);
    let places = read_places(&fields, reader);
    let claim_headers = read_claim_headers(&fields, reader);
    let payload_header = fields.text("outputPayloadToHeader", reader.problems);
    let payload_header = payload_header
        .and_then(|name| header_name(name, fields.key_at("outputPayloadToHeader"), reader));
    let space_delimited = texts(&fields, "spaceDelimitedClaims", reader);
    if space_delimited.len() > limits::SPACE_DELIMITED_CLAIMS_MAX {
        let message = format!(
            "`spaceDelimitedClaims` has more than {} entries",
            limits::SPACE_DELIMITED_CLAIMS_MAX
        );
        reader
            .problems
            .error(fields.key_at("spaceDelimitedClaims"), "too-many", message);
    }
    let keys = keys?;
    warn_of_any_issuer(&fields, issuer, &keys, reader);
    Some(JwtRule {
        location: reader.location(node.at),
        issuer: issuer.map(str::to_owned),
        audiences,
        keys,
        places,
        forwards_token: fields
            .boolean("forwardOriginalToken", reader.problems)
            .unwrap_or(false),
        payload_header,
        claim_headers,
        space_delimited: space_delimited.iter().map(|name| steps(name)).collect(),
    })
}

/// A list that is written and empty means to Istio what a missing one means: the two are the same on its wire.
pub(super) fn is_empty_list(node: &Node) -> bool {
    matches!(&node.value, Value::List(items) if items.is_empty())
}

fn texts(fields: &Fields<'_>, name: &str, reader: &mut Reader<'_, '_>) -> Vec<String> {
    if fields.node(name).is_some_and(is_empty_list) {
        return Vec::new();
    }
    let texts = fields.texts(name, reader.problems);
    texts.into_iter().map(|(text, _)| text.to_owned()).collect()
}

// Rule 76: `issuer` or `jwksUri`.
fn read_issuer<'n>(fields: &Fields<'n>, reader: &mut Reader<'_, '_>) -> Option<&'n str> {
    if fields.member("issuer").is_some() || fields.member("jwksUri").is_none() {
        return fields.required_text("issuer", reader.problems);
    }
    None
}

fn warn_of_any_issuer(
    fields: &Fields<'_>,
    issuer: Option<&str>,
    keys: &KeyOrigin,
    reader: &mut Reader<'_, '_>,
) {
    if issuer.is_none() && !matches!(keys, KeyOrigin::TrustDomain(_)) {
        let help = Some("name the `issuer`, or its tokens can claim to be of any".to_owned());
        let message = "without `issuer` whoever signs with these keys may name any issuer";
        reader
            .problems
            .warning(fields.at, "any-issuer", message, help);
    }
}

// Rule 76: 5 s unless given.
fn read_timeout(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Duration {
    let max = limits::KEY_FETCH_TIMEOUT_MAX;
    let timeout = fields.duration("timeout", max, reader.problems);
    if timeout.is_some_and(|timeout| timeout < limits::KEY_FETCH_TIMEOUT_MIN) {
        let at = fields.node("timeout").map_or(fields.at, |node| node.at);
        reader
            .problems
            .error(at, "bad-duration", "`timeout` is at least `1ms`");
    }
    timeout.unwrap_or(limits::KEY_FETCH_TIMEOUT)
}

// Rule 74: no audiences, no check.
fn read_audiences(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Vec<String> {
    if fields.node("audiences").is_some_and(is_empty_list) {
        let message = "an empty `audiences` accepts a token for any audience";
        let help = Some("name the audience that this workload is".to_owned());
        let at = fields.key_at("audiences");
        reader.problems.warning(at, "any-audience", message, help);
    }
    texts(fields, "audiences", reader)
}

/// `a.b` as steps into nested claims.
fn steps(dotted: &str) -> Vec<String> {
    dotted.split('.').map(str::to_owned).collect()
}

// Rule 72: any explicit place replaces the default ones.
fn read_places(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Vec<TokenPlace> {
    let mut places = Vec::new();
    let given = |name: &str| fields.node(name).filter(|node| !is_empty_list(node));
    if let Some(node) = given("fromHeaders") {
        for item in list(node, "fromHeaders", limits::VALUES_MAX, reader.problems) {
            let what = "an entry of `fromHeaders`";
            let Some(entry) = Fields::of(item, what, &shape::TOKEN_HEADER.names(), reader.problems)
            else {
                continue;
            };
            let prefix = entry.text("prefix", reader.problems);
            let prefix = prefix.unwrap_or_default().to_owned();
            let name = entry.required_text("name", reader.problems);
            let name = name.and_then(|name| header_name(name, entry.key_at("name"), reader));
            places.extend(name.map(|name| TokenPlace::Header { name, prefix }));
        }
    }
    let is_default = ["fromHeaders", "fromParams", "fromCookies"]
        .iter()
        .all(|name| given(name).is_none());
    places.extend(
        texts(fields, "fromParams", reader)
            .into_iter()
            .map(TokenPlace::Param),
    );
    places.extend(
        texts(fields, "fromCookies", reader)
            .into_iter()
            .map(TokenPlace::Cookie),
    );
    if is_default {
        places.push(TokenPlace::Header {
            name: "authorization".into(),
            prefix: "Bearer ".into(),
        });
        places.push(TokenPlace::Param("access_token".into()));
    }
    places
}

fn read_claim_headers(
    fields: &Fields<'_>,
    reader: &mut Reader<'_, '_>,
) -> Vec<(String, Vec<String>)> {
    let mut headers: Vec<(String, Vec<String>)> = Vec::new();
    let name = "outputClaimToHeaders";
    let Some(node) = fields.node(name).filter(|node| !is_empty_list(node)) else {
        return headers;
    };
    for item in list(node, name, limits::VALUES_MAX, reader.problems) {
        let what = "an entry of `outputClaimToHeaders`";
        let Some(entry) = Fields::of(item, what, &shape::CLAIM_HEADER.names(), reader.problems)
        else {
            continue;
        };
        let claim = entry.required_text("claim", reader.problems);
        let name = entry.required_text("header", reader.problems);
        let name = name.and_then(|name| header_name(name, entry.key_at("header"), reader));
        let (Some(claim), Some(name)) = (claim, name) else {
            continue;
        };
        if headers.iter().any(|(known, _)| *known == name) {
            reader.problems.error(
                entry.key_at("header"),
                "duplicate-header",
                format!("the header `{name}` is set twice"),
            );
        }
        headers.push((name, steps(claim)));
    }
    headers
}

/// `[-_A-Za-z0-9]+` (rule 79), in lower case. Headers that frame a message are not for tokens.
fn header_name(name: &str, at: Span, reader: &mut Reader<'_, '_>) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let is_token = lower
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let frames = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
    ];
    if is_token && !lower.is_empty() && !frames.contains(&lower.as_str()) {
        return Some(lower);
    }
    reader.problems.error(
        at,
        "bad-header",
        format!("`{}` is not a header that can be used here", excerpt(name)),
    );
    None
}
