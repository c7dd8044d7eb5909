//! Reads `MeshConfig`.

use std::time::Duration;

use ravelin_proto::spiffe_id::TrustDomain;

use super::header::is_label;
use super::provider::read_providers;
use super::words::{HOST_MATCHING, UNLISTED};
use super::{Header, Reader};
use crate::diagnostic::excerpt;
use crate::document::Node;
use crate::fields::Fields;
use crate::limits;
use crate::object::{Location, Metadata};
use crate::path::PathNormalization;
use crate::schema::{IdentityDefaults, MeshConfig};
use crate::shape;

const DEFAULT_PARENT: &str = "/node/local";

/// The defaults, as of a folder without MeshConfig.
pub(crate) fn default_config(trust_domain: TrustDomain) -> MeshConfig {
    let metadata = Metadata {
        name: "mesh".into(),
        namespace: "default".into(),
        labels: std::collections::BTreeMap::new(),
        annotations: std::collections::BTreeMap::new(),
    };
    let location = Location {
        path: "".into(),
        line: 0,
    };
    defaults(metadata, location, trust_domain)
}

fn defaults(metadata: Metadata, location: Location, trust_domain: TrustDomain) -> MeshConfig {
    MeshConfig {
        metadata,
        location,
        trust_domain,
        trust_domain_aliases: Vec::new(),
        root_namespace: "istio-system".into(),
        defaults: IdentityDefaults {
            parent_id: DEFAULT_PARENT.into(),
            x509_svid_ttl_secs: 3600,
            jwt_svid_ttl_secs: 300,
        },
        path_normalization: PathNormalization::default(),
        clock_skew: Duration::from_mins(1),
        is_expiry_required: true,
        has_typed_claims: false,
        is_host_exact: false,
        are_unlisted_calls_allowed: false,
        extension_providers: Vec::new(),
    }
}

/// Reads the one MeshConfig of a set.
pub(crate) fn read_config(
    header: &Header,
    spec: &Node,
    reader: &mut Reader<'_, '_>,
) -> Option<MeshConfig> {
    let mut known = shape::MESH_CONFIG.names();
    known.push("federation");
    let fields = Fields::of(spec, "MeshConfig", &known, reader.problems)?;
    fields.refuse(&["federation"], reader.problems);
    let name = fields.required_text("trustDomain", reader.problems)?;
    let at = fields.node("trustDomain").map_or(spec.at, |node| node.at);
    let trust_domain = trust_domain(name, at, reader)?;
    let mut config = defaults(
        header.metadata.clone(),
        reader.location(header.at),
        trust_domain,
    );
    for (name, at) in fields.texts("trustDomainAliases", reader.problems) {
        config
            .trust_domain_aliases
            .extend(self::trust_domain(name, at, reader));
    }
    if let Some(root) = fields.text("rootNamespace", reader.problems) {
        if is_label(root) {
            root.clone_into(&mut config.root_namespace);
        } else {
            let at = fields.key_at("rootNamespace");
            reader.problems.error(
                at,
                "bad-name",
                format!("`{}` is not a namespace", excerpt(root)),
            );
        }
    }
    if let Some(node) = fields.node("defaults") {
        read_defaults(node, &mut config, reader);
    }
    if let Some(node) = fields.node("jwt") {
        read_jwt(node, &mut config, reader);
    }
    if let Some(found) = fields.word(
        "pathNormalization",
        &PathNormalization::NAMES,
        reader.problems,
    ) {
        config.path_normalization = found;
    }
    if let Some(found) = fields.word("hostMatching", &HOST_MATCHING, reader.problems) {
        config.is_host_exact = found;
    }
    if let Some(found) = fields.word("unlistedCalls", &UNLISTED, reader.problems) {
        config.are_unlisted_calls_allowed = found;
    }
    if let Some(node) = fields.node("extensionProviders") {
        config.extension_providers = read_providers(node, reader);
    }
    Some(config)
}

fn trust_domain(
    name: &str,
    at: crate::diagnostic::Span,
    reader: &mut Reader<'_, '_>,
) -> Option<TrustDomain> {
    match TrustDomain::parse(name) {
        Ok(found) => Some(found),
        Err(error) => {
            reader.problems.error(
                at,
                "bad-trust-domain",
                format!("`{}` is not a trust domain: {error}", excerpt(name)),
            );
            None
        }
    }
}

fn read_defaults(node: &Node, config: &mut MeshConfig, reader: &mut Reader<'_, '_>) {
    let known = shape::IDENTITY_DEFAULTS.names();
    let Some(fields) = Fields::of(node, "`defaults`", &known, reader.problems) else {
        return;
    };
    if let Some(parent) = fields.text("parentId", reader.problems) {
        parent.clone_into(&mut config.defaults.parent_id);
    }
    if let Some(secs) = ttl(&fields, "x509SvidTtl", reader) {
        config.defaults.x509_svid_ttl_secs = secs;
    }
    if let Some(secs) = ttl(&fields, "jwtSvidTtl", reader) {
        config.defaults.jwt_svid_ttl_secs = secs;
    }
}

fn read_jwt(node: &Node, config: &mut MeshConfig, reader: &mut Reader<'_, '_>) {
    let known = shape::JWT.names();
    let Some(fields) = Fields::of(node, "`jwt`", &known, reader.problems) else {
        return;
    };
    if let Some(skew) = fields.duration("clockSkew", limits::CLOCK_SKEW_MAX, reader.problems) {
        config.clock_skew = skew;
    }
    if let Some(is_required) = fields.boolean("requireExpiry", reader.problems) {
        config.is_expiry_required = is_required;
    }
    if let Some(is_typed) = fields.boolean("typedClaims", reader.problems) {
        config.has_typed_claims = is_typed;
    }
}

/// The life of an SVID in seconds.
pub(super) fn ttl(fields: &Fields<'_>, name: &str, reader: &mut Reader<'_, '_>) -> Option<u32> {
    let duration = fields.duration(name, limits::TTL_MAX, reader.problems)?;
    if duration < limits::TTL_MIN {
        reader.problems.error(
            fields.key_at(name),
            "bad-duration",
            format!("`{name}` is shorter than {} s", limits::TTL_MIN.as_secs()),
        );
        return None;
    }
    u32::try_from(duration.as_secs()).ok()
}
