//! The policies that hold for one workload, as they are judged by and as decisions name them.

use std::sync::Arc;

use ravelin_proto::time::Timestamp;

use crate::compile::holds_for;
use crate::decision::{PolicyRef, RuleRef};
use crate::index::{List, PerList};
use crate::matcher::{Pattern, Reference};
use crate::object::Workload;
use crate::schema::{
    AuthorizationPolicy, Effect, ExtensionProvider, Field, JwtRule, Rule, Rules, Window,
};
use crate::set::MeshSet;

/// A policy that holds for the workload.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    pub(crate) policy: PolicyRef,
    pub(crate) effect: Effect,
    pub(crate) provider: Option<String>,
    pub(crate) is_dry_run: bool,
    pub(crate) window: Window,
    pub(crate) rules: Rules,
    /// One a rule, in their order.
    pub(crate) refs: Vec<Arc<RuleRef>>,
    pub(crate) judges_paths: bool,
}

impl Attached {
    fn new(object: &AuthorizationPolicy) -> Self {
        let policy = PolicyRef {
            namespace: object.metadata.namespace.as_str().into(),
            name: object.metadata.name.as_str().into(),
        };
        let refs = object
            .rules
            .iter()
            .zip(1..)
            .map(|(rule, number)| {
                Arc::new(RuleRef {
                    policy: policy.clone(),
                    rule: number,
                    location: rule.location.clone(),
                })
            })
            .collect();
        Self {
            policy,
            effect: object.effect,
            provider: object.provider.clone(),
            is_dry_run: object.is_dry_run,
            window: object.window,
            rules: object.rules.clone(),
            refs,
            judges_paths: judges_paths(object),
        }
    }

    /// Made of an object like this one.
    fn is_of(&self, object: &AuthorizationPolicy) -> bool {
        *self.policy.namespace == *object.metadata.namespace
            && *self.policy.name == *object.metadata.name
            && self.effect == object.effect
            && self.provider == object.provider
            && self.is_dry_run == object.is_dry_run
            && self.window == object.window
            && self.rules == object.rules
    }
}

/// Which lists have a policy, always or for a while.
#[derive(Debug, Clone, Default)]
pub(crate) struct Presence {
    always: PerList<usize>,
    windows: Vec<(List, Window)>,
}

impl Presence {
    pub(crate) fn new<'a>(attached: impl Iterator<Item = &'a Arc<Attached>>) -> Self {
        let mut presence = Self::default();
        for policy in attached {
            let list = List::of(policy);
            if policy.window.is_always() {
                *presence.always.of_mut(list) += 1;
            } else {
                presence.windows.push((list, policy.window));
            }
        }
        presence
    }

    /// Does the list count at this moment? An ALLOW counts also outside of its window: that it ends, or has not begun,
    /// must not open what it narrows.
    pub(crate) fn has(&self, list: List, now: Timestamp) -> bool {
        let stays = matches!(list, List::Allow | List::DryRunAllow);
        let mut windows = self.windows.iter();
        *self.always.of(list) > 0
            || windows.any(|(of, window)| *of == list && (stays || window.contains(now)))
    }

    /// How many policies of the list hold at this moment.
    pub(crate) fn count(&self, list: List, now: Timestamp) -> usize {
        let windows = self.windows.iter();
        let for_a_while = windows.filter(|(of, window)| *of == list && window.contains(now));
        self.always.of(list) + for_a_while.count()
    }

    /// Moments when a policy begins or ceases to hold.
    pub(crate) fn bounds(&self) -> impl Iterator<Item = Timestamp> {
        let windows = self.windows.iter();
        windows
            .flat_map(|(_, window)| [window.not_before, window.not_after])
            .flatten()
    }

    /// Does some policy hold for a while only?
    pub(crate) fn has_windows(&self) -> bool {
        !self.windows.is_empty()
    }

    /// Is there a dry-run policy, at whatever moment?
    pub(crate) fn has_dry_run(&self) -> bool {
        let is_dry_run = |list| matches!(list, List::DryRunDeny | List::DryRunAllow);
        self.always.of(List::DryRunDeny) + self.always.of(List::DryRunAllow) > 0
            || self.windows.iter().any(|(list, _)| is_dry_run(*list))
    }
}

/// The AuthorizationPolicies that hold for the workload (rules 65 to 67), in the order of the set.
pub(crate) fn policies_of<'s>(
    set: &'s MeshSet,
    workload: &Workload,
) -> impl Iterator<Item = &'s AuthorizationPolicy> {
    let root = set.config.root_namespace.as_str();
    set.authorization_policies.iter().filter(move |policy| {
        !policy.has_target_refs
            && holds_for(workload, &policy.metadata, policy.selector.as_ref(), root)
    })
}

/// The JWT rules of every RequestAuthentication that holds for the workload (rules 65 to 67, 75).
pub(crate) fn jwt_rules_of(set: &MeshSet, workload: &Workload) -> Vec<Arc<JwtRule>> {
    let root = set.config.root_namespace.as_str();
    set.request_authentications
        .iter()
        .filter(|object| {
            !object.has_target_refs
                && holds_for(workload, &object.metadata, object.selector.as_ref(), root)
        })
        .flat_map(|object| object.rules.iter().cloned())
        .collect()
}

/// The policies that hold for the workload, by namespace and name. Those that are the same as before are shared.
pub(crate) fn attach(
    before: &[Arc<Attached>],
    set: &MeshSet,
    workload: &Workload,
) -> Vec<Arc<Attached>> {
    let mut objects: Vec<&AuthorizationPolicy> = policies_of(set, workload).collect();
    objects.sort_by_key(|policy| name_of(policy));
    let mut before = before.iter().peekable();
    objects
        .into_iter()
        .map(|object| {
            let name = name_of(object);
            while before
                .next_if(|known| (&*known.policy.namespace, &*known.policy.name) < name)
                .is_some()
            {}
            match before.next_if(|known| known.is_of(object)) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Attached::new(object)),
            }
        })
        .collect()
}

fn name_of(policy: &AuthorizationPolicy) -> (&str, &str) {
    (&policy.metadata.namespace, &policy.metadata.name)
}

pub(crate) fn provider_named<'p>(
    name: Option<&str>,
    providers: &'p [Arc<ExtensionProvider>],
) -> Option<&'p Arc<ExtensionProvider>> {
    let name = name?;
    providers.iter().find(|provider| provider.name == name)
}

pub(crate) fn provider<'p>(
    attached: &Attached,
    providers: &'p [Arc<ExtensionProvider>],
) -> Option<&'p Arc<ExtensionProvider>> {
    provider_named(attached.provider.as_deref(), providers)
}

/// A CUSTOM policy whose authorizer speaks HTTP says nothing about TCP (rule 57).
pub(crate) fn has_http_authorizer(
    attached: &Attached,
    providers: &[Arc<ExtensionProvider>],
) -> bool {
    attached.effect == Effect::Custom
        && provider(attached, providers).is_some_and(|provider| !provider.judges_connections())
}

pub(crate) fn has_one_provider(attached: &[Arc<Attached>]) -> bool {
    let mut providers = attached
        .iter()
        .filter(|policy| policy.effect == Effect::Custom)
        .map(|policy| &policy.provider);
    let first = providers.next();
    providers.all(|provider| Some(provider) == first)
}

/// A path that narrows, or an ALLOW by `notPaths`: there a path trick would open the gate (rule 90). What is only
/// marked or tried out changes no answer (rules 7, 64).
fn judges_paths(policy: &AuthorizationPolicy) -> bool {
    let is_enforced = policy.effect != Effect::Audit && !policy.is_dry_run;
    let mut clauses = policy.rules.iter().flat_map(Rule::clauses);
    is_enforced
        && clauses.any(|clause| {
            let is_path = clause.field == Field::Path
                || matches!(&clause.field, Field::Header(name) if name == ":path");
            // A segment that shifts is another tenant, also for an ALLOW.
            let names_segment = clause
                .patterns
                .iter()
                .any(|pattern| matches!(pattern, Pattern::Reference(Reference::PathSegment(_))));
            names_segment || (is_path && (clause.is_negative || policy.effect != Effect::Allow))
        })
}
