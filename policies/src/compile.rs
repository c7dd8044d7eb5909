//! What one workload's proxy asks on every call, compiled from the set once per revision.

use std::sync::Arc;

use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::time::Timestamp;

use crate::attached::{
    Attached, Presence, attach, has_http_authorizer, has_one_provider, jwt_rules_of, provider,
};
use crate::authenticate::RequestAuthentications;
use crate::call::{Call, Connection, HttpCall};
use crate::decision::{CustomCheck, Decision};
use crate::evaluate;
use crate::explain::{self, Explanation};
use crate::index::layers::{ConnectionPolicies, Layers};
use crate::object::{Labels, Metadata, Workload};
use crate::path::{NormalizedPath, PathNormalization, PathRefusal, is_ambiguous, normalize};
use crate::schema::{ExtensionProvider, PeerAuthentication, PeerMode};
use crate::set::MeshSet;

/// Why a set cannot be compiled for a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Policies of this mesh do not hold for another trust domain's workloads.
    #[error("`{id}` is not in the mesh's trust domain `{trust_domain}`")]
    ForeignWorkload {
        /// The workload.
        id: SpiffeId,
        /// The mesh's own.
        trust_domain: TrustDomain,
    },
    /// The workload's rules are beyond a bound of the index: [`limits`](crate::limits).
    #[error("the rules of `{workload}` have more than {max} {what}")]
    TooLarge {
        /// The workload.
        workload: SpiffeId,
        /// `entries`, `patterns` or `bytes`.
        what: &'static str,
        /// The bound.
        max: usize,
    },
}

/// All that is enforced for one workload. Immutable; swapped whole (rule 68).
#[derive(Debug, Clone)]
pub struct WorkloadPolicies {
    pub(crate) workload: Workload,
    pub(crate) revision: u64,
    /// By namespace and name.
    pub(crate) attached: Arc<[Arc<Attached>]>,
    pub(crate) layers: Layers,
    pub(crate) presence: Presence,
    /// The same without what is not asked on TCP, so that it opens nothing there either (rule 57).
    pub(crate) presence_on_tcp: Presence,
    pub(crate) options: Options,
    pub(crate) providers: Vec<Arc<ExtensionProvider>>,
    authentication: RequestAuthentications,
    path_normalization: PathNormalization,
    judges_paths: bool,
    has_one_provider: bool,
    peer_modes: PeerModes,
}

/// Settings that evaluation depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) are_unlisted_calls_allowed: bool,
    pub(crate) has_typed_claims: bool,
    pub(crate) is_host_exact: bool,
}

impl WorkloadPolicies {
    /// Takes what concerns `workload`: its own namespace's objects and the root namespace's (rules 65, 66).
    pub fn compile(
        set: &MeshSet,
        workload: &Workload,
        revision: u64,
    ) -> Result<Self, CompileError> {
        Self::compile_from(None, set, workload, revision)
    }

    /// As [`Self::compile`] for a later set; what did not change is shared with these policies, so that a small change
    /// costs little.
    pub fn recompile(
        &self,
        set: &MeshSet,
        workload: &Workload,
        revision: u64,
    ) -> Result<Self, CompileError> {
        Self::compile_from(Some(self), set, workload, revision)
    }

    fn compile_from(
        before: Option<&Self>,
        set: &MeshSet,
        workload: &Workload,
        revision: u64,
    ) -> Result<Self, CompileError> {
        if !workload.spiffe_id.is_member_of(&set.config.trust_domain) {
            return Err(CompileError::ForeignWorkload {
                id: workload.spiffe_id.clone(),
                trust_domain: set.config.trust_domain.clone(),
            });
        }
        let root = set.config.root_namespace.as_str();
        let attached = attach(before.map_or(&[], |before| &before.attached), set, workload);
        let providers = &set.config.extension_providers;
        let is_on_tcp = |policy: &Attached| !has_http_authorizer(policy, providers);
        // Whether a CUSTOM policy holds on TCP depends on its provider.
        let layers = match before.filter(|before| before.providers == *providers) {
            Some(before) => before.layers.rebuild(&attached, is_on_tcp),
            None => Layers::build(&attached, is_on_tcp),
        };
        let layers = layers.map_err(|over| CompileError::TooLarge {
            workload: workload.spiffe_id.clone(),
            what: over.what,
            max: over.max,
        })?;
        Ok(Self {
            workload: workload.clone(),
            revision,
            layers,
            presence: Presence::new(attached.iter()),
            presence_on_tcp: Presence::new(attached.iter().filter(|policy| is_on_tcp(policy))),
            judges_paths: attached.iter().any(|policy| policy.judges_paths),
            has_one_provider: has_one_provider(&attached),
            attached: attached.into(),
            options: Options {
                are_unlisted_calls_allowed: set.config.are_unlisted_calls_allowed,
                has_typed_claims: set.config.has_typed_claims,
                is_host_exact: set.config.is_host_exact,
            },
            providers: providers.clone(),
            authentication: RequestAuthentications::new(
                jwt_rules_of(set, workload),
                set.config.clock_skew,
                set.config.is_expiry_required,
            ),
            path_normalization: set.config.path_normalization,
            peer_modes: PeerModes::resolve(&set.peer_authentications, workload, root),
        })
    }

    /// The workload that this was compiled for.
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// The revision that this was compiled from.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How connections to this port of the workload are accepted (rules 82 to 84).
    pub fn peer_mode(&self, port: u16) -> PeerMode {
        self.peer_modes.mode(port)
    }

    /// Normalizes a request's target (origin form). Ambiguous paths are refused where a policy denies by path (rule 90).
    pub fn normalize(&self, target: &str) -> Result<NormalizedPath, PathRefusal> {
        let path = normalize(target, self.path_normalization)?;
        if self.judges_paths && is_ambiguous(target, self.path_normalization) {
            return Err(PathRefusal::Ambiguous);
        }
        Ok(path)
    }

    /// Which tokens are accepted.
    pub fn authentication(&self) -> &RequestAuthentications {
        &self.authentication
    }

    /// Judges a request.
    pub fn authorize_http(&self, call: &HttpCall<'_>) -> Decision {
        evaluate::decide(self, Call::Http(call), None)
    }

    /// Judges what a connection alone decides, once; its requests are then judged by [`Self::authorize_http_on`].
    pub fn judge_connection(&self, connection: &Connection) -> ConnectionPolicies {
        // WHY: when a policy holds is looked at per request.
        let call = Call::Tcp(connection, Timestamp::from_unix_secs(0));
        self.layers.judge_connection(connection, call, self.options)
    }

    /// As [`Self::authorize_http`]. What `on` was judged by other policies or for another connection is not used.
    pub fn authorize_http_on(&self, on: &ConnectionPolicies, call: &HttpCall<'_>) -> Decision {
        evaluate::decide(self, Call::Http(call), self.current(on, call))
    }

    /// Judges a connection whose content is not HTTP (rules 54 to 57).
    pub fn authorize_tcp(&self, connection: &Connection, now: Timestamp) -> Decision {
        evaluate::decide(self, Call::Tcp(connection, now), None)
    }

    /// Whether an external authorizer judges a request first, before its tokens are looked at (rule 1).
    pub fn custom_http(&self, call: &HttpCall<'_>) -> CustomCheck {
        evaluate::custom(self, Call::Http(call), None)
    }

    /// As [`Self::custom_http`], on a connection that was judged.
    pub fn custom_http_on(&self, on: &ConnectionPolicies, call: &HttpCall<'_>) -> CustomCheck {
        evaluate::custom(self, Call::Http(call), self.current(on, call))
    }

    /// Whether an external authorizer judges a connection first (rule 57).
    pub fn custom_tcp(&self, connection: &Connection, now: Timestamp) -> CustomCheck {
        evaluate::custom(self, Call::Tcp(connection, now), None)
    }

    /// False when `on` was judged by other policies, and so saves nothing here.
    pub fn is_current(&self, on: &ConnectionPolicies) -> bool {
        self.layers.is_current(on, on.connection())
    }

    fn current<'o>(
        &self,
        on: &'o ConnectionPolicies,
        call: &HttpCall<'_>,
    ) -> Option<&'o ConnectionPolicies> {
        self.layers.is_current(on, call.connection).then_some(on)
    }

    /// When a policy begins or ceases to hold next; what lives then is judged again.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.presence.bounds().filter(|at| *at > now).min()
    }

    /// True when a path that reads differently to different servers is refused here (rule 90).
    pub(crate) fn judges_paths(&self) -> bool {
        self.judges_paths
    }

    /// False when the workload's CUSTOM policies name several providers (rule 61).
    pub(crate) fn has_one_provider(&self) -> bool {
        self.has_one_provider
    }

    /// The authorizer that a CUSTOM policy names.
    pub(crate) fn provider(&self, attached: &Attached) -> Option<&Arc<ExtensionProvider>> {
        provider(attached, &self.providers)
    }

    /// Who is asked about what a CUSTOM policy matches; nobody where that is not clear (rules 61, 63).
    pub(crate) fn sole_provider(&self, attached: &Attached) -> Option<&Arc<ExtensionProvider>> {
        self.provider(attached).filter(|_| self.has_one_provider)
    }

    /// Memory that the index takes, about.
    pub fn index_bytes(&self) -> usize {
        self.layers.bytes()
    }

    /// The decision on a request and why, for a person.
    pub fn explain_http(&self, call: &HttpCall<'_>) -> Explanation {
        explain::explain(self, Call::Http(call), None)
    }

    /// As [`Self::explain_http`], on a connection that was judged.
    pub fn explain_http_on(&self, on: &ConnectionPolicies, call: &HttpCall<'_>) -> Explanation {
        explain::explain(self, Call::Http(call), self.current(on, call))
    }

    /// The decision on a connection and why, for a person.
    pub fn explain_tcp(&self, connection: &Connection, now: Timestamp) -> Explanation {
        explain::explain(self, Call::Tcp(connection, now), None)
    }
}

/// Root namespace: everyone, or those with the labels; else the own namespace alone (rules 65, 66).
pub(crate) fn holds_for(
    workload: &Workload,
    metadata: &Metadata,
    selector: Option<&Labels>,
    root: &str,
) -> bool {
    (metadata.namespace == root || metadata.namespace == workload.namespace)
        && selector.is_none_or(|labels| workload.has_labels(labels))
}

/// The mode of every port, resolved (rule 83).
#[derive(Debug, Clone)]
pub(crate) struct PeerModes {
    default: PeerMode,
    by_port: std::collections::BTreeMap<u16, PeerMode>,
}

impl PeerModes {
    fn mode(&self, port: u16) -> PeerMode {
        self.by_port.get(&port).copied().unwrap_or(self.default)
    }

    /// Some port accepts a peer without identity.
    pub(crate) fn has_plain_text(&self) -> bool {
        self.default.accepts_plain_text()
            || self.by_port.values().any(|mode| mode.accepts_plain_text())
    }

    // Workload over namespace over mesh; one winner a scope, the first by name. A selector in the root
    // namespace is ignored here, unlike for AuthorizationPolicy (rule 83).
    pub(crate) fn resolve(objects: &[PeerAuthentication], workload: &Workload, root: &str) -> Self {
        let scope = |namespace: &str, has_selector: bool| {
            objects.iter().find(|object| {
                object.metadata.namespace == namespace
                    && object.selector.is_some() == has_selector
                    && object
                        .selector
                        .as_ref()
                        .is_none_or(|labels| workload.has_labels(labels))
            })
        };
        let mesh = scope(root, false);
        let is_root = workload.namespace == root;
        let namespace = if is_root {
            None
        } else {
            scope(&workload.namespace, false)
        };
        let own = if is_root {
            None
        } else {
            scope(&workload.namespace, true)
        };
        let default = [own, namespace, mesh]
            .into_iter()
            .flatten()
            .find_map(|object| object.mode)
            .unwrap_or(PeerMode::Strict);
        let by_port = own
            .iter()
            .flat_map(|object| &object.port_modes)
            .filter_map(|(port, mode)| Some((*port, (*mode)?)))
            .collect();
        Self { default, by_port }
    }
}

impl PeerMode {
    /// True when a peer without identity is accepted.
    pub fn accepts_plain_text(self) -> bool {
        self != Self::Strict
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::object::Location;

    fn peer(namespace: &str, selector: Option<&str>, mode: Option<PeerMode>) -> PeerAuthentication {
        PeerAuthentication {
            metadata: Metadata {
                name: "p".into(),
                namespace: namespace.into(),
                labels: Labels::new(),
                annotations: Labels::new(),
            },
            location: Location {
                path: "p.yaml".into(),
                line: 1,
            },
            selector: selector.map(|app| Labels::from([("app".to_owned(), app.to_owned())])),
            mode,
            port_modes: BTreeMap::new(),
        }
    }

    #[test]
    fn rule_83_and_84_workload_over_namespace_over_mesh_and_unset_inherits() {
        use PeerMode::{Disable, Permissive, Strict};
        let workload = Workload {
            spiffe_id: SpiffeId::parse("spiffe://td/ns/shop/sa/a").unwrap(),
            namespace: "shop".into(),
            name: "a".into(),
            labels: Labels::from([("app".to_owned(), "a".to_owned())]),
        };
        let mesh = || peer("root", None, Some(Permissive));
        let namespace = |mode| peer("shop", None, mode);
        let own = |mode| peer("shop", Some("a"), mode);
        for (name, objects, want) in [
            ("nothing", vec![], Strict),
            ("mesh", vec![mesh()], Permissive),
            ("namespace", vec![mesh(), namespace(Some(Strict))], Strict),
            ("unset namespace", vec![mesh(), namespace(None)], Permissive),
            (
                "workload",
                vec![mesh(), namespace(Some(Strict)), own(Some(Disable))],
                Disable,
            ),
            (
                "unset workload",
                vec![mesh(), namespace(Some(Strict)), own(None)],
                Strict,
            ),
            (
                "other workload",
                vec![mesh(), peer("shop", Some("b"), Some(Disable))],
                Permissive,
            ),
            (
                "other namespace",
                vec![mesh(), peer("front", None, Some(Disable))],
                Permissive,
            ),
            (
                "selector in the root namespace",
                vec![peer("root", Some("a"), Some(Disable))],
                Strict,
            ),
            (
                "first by name",
                vec![namespace(Some(Permissive)), namespace(Some(Disable))],
                Permissive,
            ),
        ] {
            assert_eq!(
                PeerModes::resolve(&objects, &workload, "root").mode(80),
                want,
                "{name}"
            );
        }
        let mut ports = own(Some(Permissive));
        ports.port_modes = BTreeMap::from([(80, Some(Strict)), (81, None)]);
        let modes = PeerModes::resolve(&[ports], &workload, "root");
        assert_eq!(
            [80, 81, 82].map(|port| modes.mode(port)),
            [Strict, Permissive, Permissive]
        );
    }

    #[test]
    fn compiled_policies_cross_threads() {
        fn is_shared<T: Send + Sync>() {}
        is_shared::<WorkloadPolicies>();
        is_shared::<MeshSet>();
    }
}
