//! Reads `RequestAuthentication` (rules 67, 70 to 79) and `PeerAuthentication` (rules 82 to 84).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::jwt_rule::{is_empty_list, read_jwt_rule};
use super::target::read_target_refs;
use super::words::PEER_MODES;
use super::{Header, Reader};
use crate::diagnostic::excerpt;
use crate::document::{Node, Value};
use crate::fields::{Fields, list};
use crate::limits;
use crate::schema::{PeerAuthentication, PeerMode, RequestAuthentication};
use crate::shape;

/// Reads one RequestAuthentication.
pub(crate) fn read_request_authentication(
    header: &Header,
    spec: &Node,
    reader: &mut Reader<'_, '_>,
) -> Option<RequestAuthentication> {
    let known = shape::REQUEST_AUTHENTICATION.names();
    let fields = Fields::of(spec, "RequestAuthentication", &known, reader.problems)?;
    let has_target_refs = read_target_refs(&fields, reader);
    let selector = reader.selector(&fields);
    let mut rules = Vec::new();
    let node = fields.node("jwtRules").filter(|node| !is_empty_list(node));
    if let Some(node) = node {
        for item in list(node, "jwtRules", limits::JWT_RULES_MAX, reader.problems) {
            rules.extend(read_jwt_rule(item, reader).map(Arc::new));
        }
    } else {
        let message =
            "a RequestAuthentication without `jwtRules` accepts no token and refuses none";
        reader
            .problems
            .warning(fields.at, "no-jwt-rules", message, None);
    }
    Some(RequestAuthentication {
        metadata: header.metadata.clone(),
        location: reader.location(header.at),
        selector,
        has_target_refs,
        rules,
    })
}

/// Reads one PeerAuthentication.
pub(crate) fn read_peer_authentication(
    header: &Header,
    spec: &Node,
    reader: &mut Reader<'_, '_>,
) -> Option<PeerAuthentication> {
    let known = shape::PEER_AUTHENTICATION.names();
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

fn read_mode(node: &Node, reader: &mut Reader<'_, '_>) -> Option<PeerMode> {
    let fields = Fields::of(node, "`mtls`", &shape::MTLS.names(), reader.problems)?;
    fields.word("mode", &PEER_MODES, reader.problems).flatten()
}
