//! Reads `RequestAuthentication` (rules 70 to 79) and `PeerAuthentication` (rules 82 to 84).

use std::collections::BTreeMap;
use std::sync::Arc;

use ravelin_proto::jwks::JwkSet;
use ravelin_proto::spiffe_id::TrustDomain;

use super::{Header, Reader};
use crate::diagnostic::{Span, excerpt};
use crate::document::{Node, Value};
use crate::fields::{Fields, list};
use crate::limits;
use crate::schema::{
    JwtRule, KeyOrigin, PeerAuthentication, PeerMode, RequestAuthentication, TokenPlace,
};

/// Reads one RequestAuthentication.
pub(crate) fn read_request_authentication(
    header: &Header,
    spec: &Node,
    reader: &mut Reader<'_, '_>,
) -> Option<RequestAuthentication> {
    let known = ["selector", "targetRef", "targetRefs", "jwtRules"];
    let fields = Fields::of(spec, "RequestAuthentication", &known, reader.problems)?;
    fields.refuse(&["targetRef", "targetRefs"], reader.problems);
    let selector = reader.selector(&fields);
    let mut rules = Vec::new();
    if let Some(node) = fields.required("jwtRules", reader.problems) {
        for item in list(node, "jwtRules", limits::JWT_RULES_MAX, reader.problems) {
            rules.extend(read_jwt_rule(item, reader).map(Arc::new));
        }
    }
    Some(RequestAuthentication {
        metadata: header.metadata.clone(),
        location: reader.location(header.at),
        selector,
        rules,
    })
}

fn read_jwt_rule(node: &Node, reader: &mut Reader<'_, '_>) -> Option<JwtRule> {
    let known = [
        "issuer",
        "audiences",
        "jwksUri",
        "jwks",
        "jwksFile",
        "fromHeaders",
        "fromParams",
        "fromCookies",
        "outputPayloadToHeader",
        "outputClaimToHeaders",
        "forwardOriginalToken",
        "timeout",
        "spaceDelimitedClaims",
    ];
    let fields = Fields::of(node, "a JWT rule", &known, reader.problems)?;
    fields.refuse(&["timeout"], reader.problems);
    let issuer = fields.required_text("issuer", reader.problems);
    let keys = read_keys(&fields, reader);
    let audiences = fields.texts("audiences", reader.problems);
    let places = read_places(&fields, reader);
    let claim_headers = read_claim_headers(&fields, reader);
    let payload_header = fields.text("outputPayloadToHeader", reader.problems);
    let payload_header = payload_header
        .and_then(|name| header_name(name, fields.key_at("outputPayloadToHeader"), reader));
    let space_delimited = fields.texts("spaceDelimitedClaims", reader.problems);
    if space_delimited.len() > limits::SPACE_DELIMITED_CLAIMS_MAX {
        let message = format!(
            "`spaceDelimitedClaims` has more than {} entries",
            limits::SPACE_DELIMITED_CLAIMS_MAX
        );
        reader
            .problems
            .error(fields.key_at("spaceDelimitedClaims"), "too-many", message);
    }
    Some(JwtRule {
        location: reader.location(node.at),
        issuer: issuer?.to_owned(),
        audiences: audiences
            .into_iter()
            .map(|(audience, _)| audience.to_owned())
            .collect(),
        keys: keys?,
        places,
        forwards_token: fields
            .boolean("forwardOriginalToken", reader.problems)
            .unwrap_or(false),
        payload_header,
        claim_headers,
        space_delimited: space_delimited
            .into_iter()
            .map(|(name, _)| steps(name))
            .collect(),
    })
}

/// `a.b` as steps into nested claims.
fn steps(dotted: &str) -> Vec<String> {
    dotted.split('.').map(str::to_owned).collect()
}

// Rule 76: exactly one origin. What cannot be fetched here is refused by name.
fn read_keys(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Option<KeyOrigin> {
    let given: Vec<&str> = ["jwks", "jwksFile", "jwksUri"]
        .into_iter()
        .filter(|name| fields.member(name).is_some())
        .collect();
    match given.as_slice() {
        [] => {
            let at = fields.key_at("issuer");
            let help =
                Some("give `jwks`, `jwksFile` or `jwksUri: spiffe://TRUST_DOMAIN`".to_owned());
            reader.problems.error_with_help(
                at,
                "not-supported",
                "finding the issuer's keys by OIDC discovery is not supported yet",
                help,
            );
            None
        }
        ["jwks"] => {
            let written = fields.text("jwks", reader.problems)?;
            let at = fields.node("jwks").map_or(fields.at, |node| node.at);
            key_set(written, "jwks", at, reader)
        }
        ["jwksFile"] => {
            let path = fields.text("jwksFile", reader.problems)?;
            let at = fields.node("jwksFile").map_or(fields.at, |node| node.at);
            let Some(content) = reader.context.files.get(path).copied() else {
                let help = Some(
                    "the path is relative to the mesh folder, with `/`, and ends in `.json`"
                        .to_owned(),
                );
                reader.problems.error_with_help(
                    at,
                    "no-such-file",
                    format!("the mesh folder has no file `{}`", excerpt(path)),
                    help,
                );
                return None;
            };
            key_set(content, path, at, reader)
        }
        ["jwksUri"] => {
            let written = fields.text("jwksUri", reader.problems)?;
            let at = fields.node("jwksUri").map_or(fields.at, |node| node.at);
            key_uri(written, at, reader)
        }
        [_, second, ..] => {
            let message = format!("keys come from one place: `{second}` stands beside others");
            reader
                .problems
                .error(fields.key_at(second), "bad-combination", message);
            None
        }
        [_] => None,
    }
}

fn key_set(text: &str, name: &str, at: Span, reader: &mut Reader<'_, '_>) -> Option<KeyOrigin> {
    match JwkSet::parse(text) {
        Ok(set) if set.keys.is_empty() => {
            reader.problems.error(
                at,
                "bad-key-set",
                format!("the key set of `{}` has no usable key", excerpt(name)),
            );
            None
        }
        Ok(set) => Some(KeyOrigin::Inline(Arc::new(set))),
        Err(error) => {
            reader.problems.error(
                at,
                "bad-key-set",
                format!("the key set of `{}` is refused: {error}", excerpt(name)),
            );
            None
        }
    }
}

fn key_uri(written: &str, at: Span, reader: &mut Reader<'_, '_>) -> Option<KeyOrigin> {
    if written.starts_with("http://") || written.starts_with("https://") {
        reader
            .problems
            .not_supported(at, "fetching `jwksUri` over HTTP");
        return None;
    }
    if let Some(Ok(domain)) = written.strip_prefix("spiffe://").map(TrustDomain::parse) {
        return Some(KeyOrigin::TrustDomain(domain));
    }
    let help =
        Some("write `spiffe://TRUST_DOMAIN` for the JWT bundle of a trust domain".to_owned());
    let message = format!("`{}` is not a place of keys", excerpt(written));
    reader
        .problems
        .error_with_help(at, "bad-value", message, help);
    None
}

// Rule 72: any explicit place replaces the default ones.
fn read_places(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Vec<TokenPlace> {
    let mut places = Vec::new();
    if let Some(node) = fields.node("fromHeaders") {
        for item in list(node, "fromHeaders", limits::VALUES_MAX, reader.problems) {
            let Some(entry) = Fields::of(
                item,
                "an entry of `fromHeaders`",
                &["name", "prefix"],
                reader.problems,
            ) else {
                continue;
            };
            let prefix = entry
                .text("prefix", reader.problems)
                .unwrap_or_default()
                .to_owned();
            let name = entry.required_text("name", reader.problems);
            let name = name.and_then(|name| header_name(name, entry.key_at("name"), reader));
            places.extend(name.map(|name| TokenPlace::Header { name, prefix }));
        }
    }
    for (name, _) in fields.texts("fromParams", reader.problems) {
        places.push(TokenPlace::Param(name.to_owned()));
    }
    for (name, _) in fields.texts("fromCookies", reader.problems) {
        places.push(TokenPlace::Cookie(name.to_owned()));
    }
    if ["fromHeaders", "fromParams", "fromCookies"]
        .iter()
        .all(|name| fields.member(name).is_none())
    {
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
    let Some(node) = fields.node("outputClaimToHeaders") else {
        return headers;
    };
    for item in list(
        node,
        "outputClaimToHeaders",
        limits::VALUES_MAX,
        reader.problems,
    ) {
        let Some(entry) = Fields::of(
            item,
            "an entry of `outputClaimToHeaders`",
            &["header", "claim"],
            reader.problems,
        ) else {
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

const MODES: [(&str, Option<PeerMode>); 4] = [
    ("UNSET", None),
    ("STRICT", Some(PeerMode::Strict)),
    ("PERMISSIVE", Some(PeerMode::Permissive)),
    ("DISABLE", Some(PeerMode::Disable)),
];

/// Reads one PeerAuthentication.
pub(crate) fn read_peer_authentication(
    header: &Header,
    spec: &Node,
    reader: &mut Reader<'_, '_>,
) -> Option<PeerAuthentication> {
    let known = ["selector", "mtls", "portLevelMtls"];
    let fields = Fields::of(spec, "PeerAuthentication", &known, reader.problems)?;
    let selector = reader.selector(&fields);
    let mode = fields.node("mtls").and_then(|node| read_mode(node, reader));
    let mut port_modes = BTreeMap::new();
    if let Some(node) = fields.node("portLevelMtls") {
        if selector.is_none() {
            reader.problems.error(
                fields.key_at("portLevelMtls"),
                "bad-combination",
                "`portLevelMtls` needs a `selector`",
            );
        }
        read_port_modes(node, &mut port_modes, reader);
    }
    Some(PeerAuthentication {
        metadata: header.metadata.clone(),
        location: reader.location(header.at),
        selector,
        mode,
        port_modes,
    })
}

fn read_port_modes(
    node: &Node,
    port_modes: &mut BTreeMap<u16, Option<PeerMode>>,
    reader: &mut Reader<'_, '_>,
) {
    let members = match &node.value {
        Value::Map(members) if !members.is_empty() => members,
        Value::Map(_) | Value::List(_) | Value::Scalar { .. } => {
            reader.problems.error(
                node.at,
                "wrong-type",
                "`portLevelMtls` is a mapping of ports to modes with at least one entry",
            );
            return;
        }
    };
    for member in members {
        match member.key.parse::<u16>() {
            Ok(port) if port > 0 => {
                port_modes.insert(port, read_mode(&member.value, reader));
            }
            _ => reader.problems.error(
                member.at,
                "bad-number",
                format!("`{}` is not a port from 1 to 65535", excerpt(&member.key)),
            ),
        }
    }
}

// What the proxy cannot do is refused by name; it never falls back to plain text by accident.
fn read_mode(node: &Node, reader: &mut Reader<'_, '_>) -> Option<PeerMode> {
    let fields = Fields::of(node, "`mtls`", &["mode"], reader.problems)?;
    let mode = fields.word("mode", &MODES, reader.problems).flatten()?;
    if mode.accepts_plain_text() {
        let word = MODES
            .iter()
            .find(|(_, known)| *known == Some(mode))
            .map_or("", |(word, _)| word);
        let at = fields.node("mode").map_or(node.at, |node| node.at);
        reader
            .problems
            .not_supported(at, &format!("the mode {word}"));
    }
    Some(mode)
}
