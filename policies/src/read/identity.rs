//! Reads `WorkloadIdentity`.

use std::net::SocketAddr;

use ravelin_proto::selector::Selector;
use ravelin_proto::spiffe_id::TrustDomain;

use super::config::ttl;
use super::words::LAUNCH_PROTOCOLS;
use super::{Header, Reader};
use crate::diagnostic::excerpt;
use crate::document::Node;
use crate::fields::{Fields, port};
use crate::schema::{Launch, WorkloadIdentity};
use crate::shape;

/// Reads one identity. All that a registration entry must meet is checked here.
pub(crate) fn read_identity(
    header: &Header,
    spec: &Node,
    reader: &mut Reader<'_, '_>,
) -> Option<WorkloadIdentity> {
    let known = shape::WORKLOAD_IDENTITY.names();
    let fields = Fields::of(spec, "WorkloadIdentity", &known, reader.problems)?;
    let metadata = &header.metadata;
    let default_path = format!("/ns/{}/sa/{}", metadata.namespace, metadata.name);
    let id_at = fields
        .node("spiffeId")
        .map_or(header.name_at, |node| node.at);
    let id = fields
        .text("spiffeId", reader.problems)
        .unwrap_or(&default_path);
    let spiffe_id = reader.spiffe_id(id, id_at);
    let parent_at = fields
        .node("parentId")
        .map_or(header.name_at, |node| node.at);
    let parent = fields.text("parentId", reader.problems);
    let parent_id = reader.spiffe_id(
        parent.unwrap_or(&reader.context.config.defaults.parent_id),
        parent_at,
    );
    let has_selectors = fields.required("selectors", reader.problems).is_some();
    let selectors = read_selectors(&fields, reader);
    let defaults = &reader.context.config.defaults;
    let identity = WorkloadIdentity {
        metadata: metadata.clone(),
        location: reader.location(header.at),
        spiffe_id: spiffe_id?,
        parent_id: parent_id?,
        selectors,
        x509_svid_ttl_secs: ttl(&fields, "x509SvidTtl", reader)
            .unwrap_or(defaults.x509_svid_ttl_secs),
        jwt_svid_ttl_secs: ttl(&fields, "jwtSvidTtl", reader).unwrap_or(defaults.jwt_svid_ttl_secs),
        dns_names: fields
            .texts("dnsNames", reader.problems)
            .into_iter()
            .map(|(name, _)| name.to_owned())
            .collect(),
        federates_with: read_domains(&fields, reader),
        hint: fields
            .text("hint", reader.problems)
            .unwrap_or_default()
            .to_owned(),
        is_admin: fields.boolean("isAdmin", reader.problems).unwrap_or(false),
        launch: fields
            .node("launch")
            .and_then(|node| read_launch(node, reader)),
    };
    check(&identity, &fields, has_selectors, reader);
    Some(identity)
}

fn read_selectors(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for (written, at) in fields.texts("selectors", reader.problems) {
        match Selector::parse(written) {
            Ok(selector) => selectors.push(selector),
            Err(error) => {
                let help = Some("such as `unix:uid:1000` or `launch:name:orders`".to_owned());
                reader.problems.error_with_help(
                    at,
                    "bad-selector",
                    format!("`{}` is not a selector: {error}", excerpt(written)),
                    help,
                );
            }
        }
    }
    selectors.sort();
    selectors.dedup();
    selectors
}

fn read_domains(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Vec<TrustDomain> {
    let mut domains = Vec::new();
    for (name, at) in fields.texts("federatesWith", reader.problems) {
        match TrustDomain::parse(name) {
            Ok(domain) => domains.push(domain),
            Err(error) => reader.problems.error(
                at,
                "bad-trust-domain",
                format!("`{}` is not a trust domain: {error}", excerpt(name)),
            ),
        }
    }
    domains
}

fn check(
    identity: &WorkloadIdentity,
    fields: &Fields<'_>,
    has_selectors: bool,
    reader: &mut Reader<'_, '_>,
) {
    if !identity.spiffe_id.is_member_of(reader.trust_domain()) {
        let message = format!(
            "`{}` is not in the mesh's trust domain `{}`",
            identity.spiffe_id,
            reader.trust_domain()
        );
        reader
            .problems
            .error(fields.key_at("spiffeId"), "bad-spiffe-id", message);
    } else if let Err(error) = identity.to_entry().check() {
        // No selector was reported where they stand.
        let is_reported = identity.selectors.is_empty()
            && (has_selectors || fields.member("selectors").is_none());
        if !is_reported {
            reader
                .problems
                .error(fields.at, "bad-identity", error.to_string());
        }
    }
}

fn read_launch(node: &Node, reader: &mut Reader<'_, '_>) -> Option<Launch> {
    let known = shape::LAUNCH.names();
    let fields = Fields::of(node, "`launch`", &known, reader.problems)?;
    let number = fields.required("port", reader.problems);
    let number = number.and_then(|node| port(node, "port", reader.problems));
    let command = fields.texts("command", reader.problems);
    let inbound = address(&fields, "inbound", reader);
    let outbound = address(&fields, "outbound", reader);
    let protocol = fields
        .word("protocol", &LAUNCH_PROTOCOLS, reader.problems)
        .unwrap_or_default();
    Some(Launch {
        command: command
            .into_iter()
            .map(|(word, _)| word.to_owned())
            .collect(),
        port: number?,
        inbound,
        outbound,
        protocol,
    })
}

fn address(fields: &Fields<'_>, name: &str, reader: &mut Reader<'_, '_>) -> Option<SocketAddr> {
    let written = fields.text(name, reader.problems)?;
    let parsed = written.parse().ok();
    if parsed.is_none() {
        let at = fields.node(name).map_or(fields.at, |node| node.at);
        let help = Some("write it as `127.0.0.1:9101`".to_owned());
        reader.problems.error_with_help(
            at,
            "bad-address",
            format!("`{}` is not an address with a port", excerpt(written)),
            help,
        );
    }
    parsed
}
