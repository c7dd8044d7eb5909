//! Reads `PolicyTest`.

use std::net::{IpAddr, Ipv4Addr};

use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use serde_json::Value as Json;

use super::words::{CASE_PROTOCOLS, EXPECTATIONS, SHADOWS};
use super::{Header, Reader};
use crate::diagnostic::{Span, excerpt, near_miss};
use crate::document::{Node, Value};
use crate::fields::{Fields, boolean, integer, list, text, texts};
use crate::limits;
use crate::schema::{ExpectedCheck, PolicyTest, TestCase};
use crate::shape;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Reads one PolicyTest.
pub(crate) fn read_policy_test(
    header: &Header,
    spec: &Node,
    reader: &mut Reader<'_, '_>,
) -> Option<PolicyTest> {
    let fields = Fields::of(
        spec,
        "PolicyTest",
        &shape::POLICY_TEST.names(),
        reader.problems,
    )?;
    let written = fields.required_text("workload", reader.problems);
    let at = fields.node("workload").map_or(fields.at, |node| node.at);
    let workload = written.and_then(|written| workload(written, at, reader));
    let cases = fields.required("cases", reader.problems);
    let cases = cases
        .map(|node| list(node, "cases", limits::CASES_MAX, reader.problems))
        .unwrap_or_default();
    let cases = cases
        .iter()
        .filter_map(|node| read_case(node, workload.as_ref(), reader))
        .collect();
    Some(PolicyTest {
        metadata: header.metadata.clone(),
        location: reader.location(header.at),
        workload: workload?,
        cases,
    })
}

/// `NAME`, `NAMESPACE/NAME` of a WorkloadIdentity, a path, or a SPIFFE ID.
fn workload(written: &str, at: Span, reader: &mut Reader<'_, '_>) -> Option<SpiffeId> {
    if written.starts_with('/') || written.starts_with("spiffe://") {
        let id = reader.spiffe_id(written, at)?;
        reader.check_known(&id, at);
        return Some(id);
    }
    let (namespace, name) = written
        .split_once('/')
        .unwrap_or((&reader.metadata.namespace, written));
    let found = reader.context.identity_named(namespace, name);
    if found.is_none() {
        let wanted = format!("{namespace}/{name}");
        let identities = reader
            .context
            .identities
            .iter()
            .filter(|_| reader.problems.has_room());
        let names: Vec<String> = identities
            .map(|identity| format!("{}/{}", identity.metadata.namespace, identity.metadata.name))
            .collect();
        let help = near_miss(&wanted, names.iter().map(String::as_str));
        let message = format!(
            "namespace `{}` has no WorkloadIdentity `{}`",
            excerpt(namespace),
            excerpt(name)
        );
        reader
            .problems
            .error_with_help(at, "unknown-identity", message, help);
    }
    found.map(|identity| identity.spiffe_id.clone())
}

fn read_case(
    node: &Node,
    destination: Option<&SpiffeId>,
    reader: &mut Reader<'_, '_>,
) -> Option<TestCase> {
    let fields = Fields::of(node, "a case", &shape::CASE.names(), reader.problems)?;
    let name = fields.required_text("name", reader.problems);
    let from = read_caller(&fields, reader);
    let source_ip = address(&fields, "sourceIp", reader).unwrap_or(LOOPBACK);
    let identity = destination.and_then(|id| reader.context.identity(id));
    let own_port = identity
        .and_then(|identity| identity.launch.as_ref())
        .map_or(80, |launch| launch.port);
    let port = fields
        .node("port")
        .and_then(|node| integer(node, "port", 0, 65_535, reader.problems));
    let own_name = identity.map_or("", |identity| identity.metadata.name.as_str());
    let is_tcp = read_protocol(&fields, reader);
    fields.required("expect", reader.problems);
    let expect = fields.word("expect", &EXPECTATIONS, reader.problems);
    let mut owned = |name: &str, default: &str| {
        fields
            .text(name, reader.problems)
            .unwrap_or(default)
            .to_owned()
    };
    let (method, host, path) = (
        owned("method", "GET"),
        owned("host", own_name),
        owned("path", "/"),
    );
    Some(TestCase {
        name: name?.to_owned(),
        location: reader.location(node.at),
        remote_ip: address(&fields, "remoteIp", reader).unwrap_or(source_ip),
        destination_ip: address(&fields, "destinationIp", reader).unwrap_or(LOOPBACK),
        source_ip,
        port: port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(own_port),
        sni: fields.text("sni", reader.problems).map(str::to_owned),
        is_tcp,
        method,
        host,
        path,
        headers: fields
            .node("headers")
            .map(|node| read_headers(node, reader))
            .unwrap_or_default(),
        claims: fields
            .node("claims")
            .and_then(|node| read_claims(node, reader)),
        at: read_time(&fields, reader)?,
        expect: expect?,
        policy: fields.text("policy", reader.problems).map(str::to_owned),
        rule: fields
            .node("rule")
            .and_then(|node| integer(node, "rule", 1, 512, reader.problems)),
        code: fields.text("code", reader.problems).map(str::to_owned),
        audited: fields
            .node("audited")
            .and_then(|node| boolean(node, "audited", reader.problems)),
        shadow: fields.word("shadow", &SHADOWS, reader.problems),
        custom: read_custom(&fields, reader),
        from: from.ok()?,
    })
}

/// `custom`: the provider's name, or `false`.
fn read_custom(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Option<ExpectedCheck> {
    let node = fields.node("custom")?;
    let is_false = matches!(&node.value, Value::Scalar { text, is_plain: true } if text == "false");
    if is_false {
        return Some(ExpectedCheck::Nobody);
    }
    let name = text(node, "custom", reader.problems)?;
    let providers = &reader.context.config.extension_providers;
    if providers.iter().all(|provider| provider.name != name) {
        let help = near_miss(
            name,
            providers.iter().map(|provider| provider.name.as_str()),
        );
        let message = format!(
            "the MeshConfig has no extension provider `{}`",
            excerpt(name)
        );
        reader
            .problems
            .error_with_help(node.at, "unknown-provider", message, help);
        return None;
    }
    Some(ExpectedCheck::Provider(name.to_owned()))
}

/// `at`; `None` when it is no time.
fn read_time(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Option<Timestamp> {
    let Some(written) = fields.text("at", reader.problems) else {
        return Some(Timestamp::default());
    };
    let found = Timestamp::parse_rfc3339(written);
    if found.is_none() {
        let at = fields.node("at").map_or(fields.at, |node| node.at);
        let help = Some("write it like `2026-01-31T12:00:00Z`".to_owned());
        let message = format!("`{}` is not a time of RFC 3339", excerpt(written));
        reader
            .problems
            .error_with_help(at, "bad-value", message, help);
    }
    found
}

/// What is wrong was reported where it stands.
struct Reported;

/// `from`; absent for plain text.
fn read_caller(
    fields: &Fields<'_>,
    reader: &mut Reader<'_, '_>,
) -> Result<Option<SpiffeId>, Reported> {
    let Some(node) = fields.node("from") else {
        return Ok(None);
    };
    let written = fields.text("from", reader.problems).ok_or(Reported)?;
    workload(written, node.at, reader).map(Some).ok_or(Reported)
}

/// True for `tcp`, which has nothing of a request.
fn read_protocol(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> bool {
    let is_tcp = fields
        .word("protocol", &CASE_PROTOCOLS, reader.problems)
        .unwrap_or(false);
    let of_requests = ["method", "host", "path", "headers", "claims"];
    for name in of_requests
        .into_iter()
        .filter(|name| is_tcp && fields.member(name).is_some())
    {
        let message = format!("`{name}` has no meaning with `protocol: tcp`");
        reader
            .problems
            .error(fields.key_at(name), "bad-combination", message);
    }
    is_tcp
}

fn address(fields: &Fields<'_>, name: &str, reader: &mut Reader<'_, '_>) -> Option<IpAddr> {
    let written = fields.text(name, reader.problems)?;
    let parsed = written.parse().ok();
    if parsed.is_none() {
        let at = fields.node(name).map_or(fields.at, |node| node.at);
        reader.problems.error(
            at,
            "bad-address",
            format!("`{}` is not an IP address", excerpt(written)),
        );
    }
    parsed
}

fn read_headers(node: &Node, reader: &mut Reader<'_, '_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    let Value::Map(members) = &node.value else {
        reader.problems.error(
            node.at,
            "wrong-type",
            "`headers` maps names to a value or a list of values",
        );
        return headers;
    };
    for member in members {
        let name = member.key.to_ascii_lowercase();
        let values: Vec<&str> = match &member.value.value {
            Value::List(_) => texts(&member.value, &member.key, reader.problems)
                .into_iter()
                .map(|(value, _)| value)
                .collect(),
            // An empty value is a header that is there (rule 26).
            Value::Scalar {
                text,
                is_plain: false,
            } if text.is_empty() => vec![""],
            Value::Scalar { .. } | Value::Map(_) => {
                text(&member.value, &member.key, reader.problems)
                    .into_iter()
                    .collect()
            }
        };
        headers.extend(
            values
                .into_iter()
                .map(|value| (name.clone(), value.to_owned())),
        );
    }
    headers
}

fn read_claims(node: &Node, reader: &mut Reader<'_, '_>) -> Option<serde_json::Map<String, Json>> {
    match to_json(node) {
        Json::Object(claims) if claims.get("iss").is_some_and(Json::is_string) => Some(claims),
        Json::Object(_) => {
            reader.problems.error(
                node.at,
                "missing-field",
                "`claims` has no `iss`; an accepted token always has one",
            );
            None
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
            reader
                .problems
                .error(node.at, "wrong-type", "`claims` is a mapping of claims");
            None
        }
    }
}

/// YAML's core types as JSON.
fn to_json(node: &Node) -> Json {
    match &node.value {
        Value::Scalar { .. } if node.is_null() => Json::Null,
        Value::Scalar {
            text,
            is_plain: true,
        } => match text.as_str() {
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            _ => match serde_json::from_str(text) {
                Ok(Json::Number(number)) => Json::Number(number),
                _ => Json::String(text.clone()),
            },
        },
        Value::Scalar { text, .. } => Json::String(text.clone()),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(members) => members
            .iter()
            .map(|member| (member.key.clone(), to_json(&member.value)))
            .collect(),
    }
}
