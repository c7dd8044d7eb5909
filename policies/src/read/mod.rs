//! Trees to typed objects: one file a kind. Whatever is not understood is reported where it stands.

mod annotations;
mod authentication;
mod authorization;
mod clause;
mod condition;
mod config;
mod foreign;
mod header;
mod identity;
mod jwt_rule;
mod key_origin;
mod pattern;
mod policy_test;
mod provider;
mod reference;
mod service_entry;
mod target;
pub(crate) mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};

pub(crate) use authentication::{read_peer_authentication, read_request_authentication};
pub(crate) use authorization::read_authorization_policy;
pub(crate) use condition::KEYS as CONDITION_KEYS;
pub(crate) use config::{default_config, read_config};
pub(crate) use foreign::IGNORED as IGNORED_KINDS;
pub(crate) use header::{EXPORTED, Header, KINDS, Kind, flatten, read_header};
pub(crate) use identity::read_identity;
pub(crate) use policy_test::read_policy_test;
pub(crate) use provider::check_provider_services;
pub(crate) use service_entry::{read_service, read_workload_entry};

use crate::diagnostic::{Problems, Span, excerpt, near_miss};
use crate::document::Node;
use crate::fields::Fields;
use crate::object::{Labels, Location, Metadata, has_labels};
use crate::schema::{MeshConfig, WorkloadIdentity};

/// What objects are read against.
pub(crate) struct Context<'c> {
    pub(crate) config: &'c MeshConfig,
    pub(crate) identities: &'c [WorkloadIdentity],
    by_id: BTreeMap<&'c str, &'c WorkloadIdentity>,
    by_name: BTreeMap<(&'c str, &'c str), &'c WorkloadIdentity>,
    /// Every file by its path, for `jwksFile`.
    pub(crate) files: &'c BTreeMap<&'c str, &'c str>,
}

impl<'c> Context<'c> {
    pub(crate) fn new(
        config: &'c MeshConfig,
        identities: &'c [WorkloadIdentity],
        files: &'c BTreeMap<&'c str, &'c str>,
    ) -> Self {
        let by_name = identities.iter().map(|identity| {
            let metadata = &identity.metadata;
            (
                (metadata.namespace.as_str(), metadata.name.as_str()),
                identity,
            )
        });
        Self {
            config,
            identities,
            by_id: identities
                .iter()
                .map(|identity| (identity.spiffe_id.as_str(), identity))
                .collect(),
            by_name: by_name.collect(),
            files,
        }
    }

    pub(crate) fn identity(&self, id: &SpiffeId) -> Option<&'c WorkloadIdentity> {
        self.by_id.get(id.as_str()).copied()
    }

    pub(crate) fn identity_named(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<&'c WorkloadIdentity> {
        self.by_name.get(&(namespace, name)).copied()
    }
}

/// One object that is being read.
pub(crate) struct Reader<'r, 'f> {
    pub(crate) problems: &'r mut Problems<'f>,
    pub(crate) context: &'r Context<'r>,
    pub(crate) path: Arc<str>,
    pub(crate) metadata: &'r Metadata,
}

impl Reader<'_, '_> {
    pub(crate) fn location(&self, at: Span) -> Location {
        Location {
            path: Arc::clone(&self.path),
            line: at.line,
        }
    }

    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.context.config.trust_domain
    }

    /// `selector`; one that selects nobody is an error: the policy would silently do nothing.
    pub(crate) fn selector(&mut self, spec: &Fields<'_>) -> Option<Labels> {
        let node = spec.node("selector")?;
        let labels = self.match_labels(node)?;
        let root = &self.context.config.root_namespace;
        let namespace = &self.metadata.namespace;
        let is_hit = self.context.identities.iter().any(|identity| {
            let metadata = &identity.metadata;
            (namespace == root || *namespace == metadata.namespace)
                && has_labels(&metadata.labels, &labels)
        });
        if !is_hit && !labels.is_empty() {
            let wanted: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let message = format!(
                "no WorkloadIdentity of namespace `{namespace}` has the labels {}",
                excerpt(&wanted.join(", "))
            );
            let has_room = self.problems.has_room();
            let known: Vec<String> = self
                .context
                .identities
                .iter()
                .filter(|identity| {
                    has_room && (namespace == root || *namespace == identity.metadata.namespace)
                })
                .flat_map(|identity| &identity.metadata.labels)
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let help = wanted
                .first()
                .and_then(|first| near_miss(first, known.iter().map(String::as_str)));
            if self.context.identities.is_empty() {
                self.problems
                    .warning(node.at, "selects-nothing", message, help);
            } else {
                self.problems
                    .error_with_help(node.at, "selects-nothing", message, help);
            }
        }
        Some(labels)
    }

    /// `matchLabels`, exact, without `*` (rule 65).
    fn match_labels(&mut self, node: &Node) -> Option<Labels> {
        let fields = Fields::of(
            node,
            "`selector`",
            &crate::shape::SELECTOR.names(),
            self.problems,
        )?;
        fields.required("matchLabels", self.problems)?;
        let labels = fields.labels("matchLabels", self.problems);
        let at = fields.key_at("matchLabels");
        if labels.is_empty() {
            let help = Some("to select everything leave `selector` out".to_owned());
            self.problems
                .error_with_help(at, "empty-selector", "`matchLabels` is empty", help);
        }
        if let Some((key, _)) = labels.iter().find(|(_, value)| value.contains('*')) {
            self.problems.error(
                at,
                "bad-selector",
                format!(
                    "the label `{}` has a `*`; labels are compared exactly",
                    excerpt(key)
                ),
            );
        }
        Some(labels)
    }

    /// A SPIFFE ID, or a path of the mesh's own trust domain.
    pub(crate) fn spiffe_id(&mut self, written: &str, at: Span) -> Option<SpiffeId> {
        if written.contains(['{', '}']) {
            self.problems.not_supported(at, "a template in a SPIFFE ID");
            return None;
        }
        let parsed = if written.starts_with('/') {
            SpiffeId::new(self.trust_domain(), written)
        } else {
            SpiffeId::parse(written)
        };
        match parsed {
            Ok(id) => Some(id),
            Err(error) => {
                let help = Some(
                    "write a path such as `/ns/shop/sa/orders`, or a whole ID `spiffe://..`"
                        .to_owned(),
                );
                self.problems.error_with_help(
                    at,
                    "bad-spiffe-id",
                    format!("`{}` is not a SPIFFE ID: {error}", excerpt(written)),
                    help,
                );
                None
            }
        }
    }

    /// A warning when an ID of the mesh's own trust domain belongs to no WorkloadIdentity.
    pub(crate) fn check_known(&mut self, id: &SpiffeId, at: Span) {
        let identities = self.context.identities;
        let is_fine = identities.is_empty()
            || !id.is_member_of(self.trust_domain())
            || self.context.identity(id).is_some();
        if is_fine {
            return;
        }
        let has_room = self.problems.has_room();
        let known = identities
            .iter()
            .filter(|_| has_room)
            .map(|identity| identity.spiffe_id.as_str());
        let help = near_miss(id.as_str(), known);
        let message = format!("no WorkloadIdentity has the SPIFFE ID `{id}`");
        self.problems.warning(at, "unknown-identity", message, help);
    }
}
