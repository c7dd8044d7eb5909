//! The decision with gaps: CUSTOM, DENY, ALLOW, default, each as far as it is determined.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::PartialCall;
use crate::attached::{Attached, has_http_authorizer};
use crate::compile::WorkloadPolicies;
use crate::decision::{ALLOWED, BAD_PROVIDER, NO_ALLOW_MATCHED, NO_POLICY, POLICY_DENIED, RuleRef};
use crate::limits;
use crate::schema::{Effect, Rule};

/// A decision, as far as it is determined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartialDecision {
    /// `None`: undetermined.
    pub(crate) is_allowed: Option<bool>,
    /// As of a decision; empty when undetermined.
    pub(crate) code: &'static str,
    /// The first rule that certainly decides.
    pub(crate) by: Option<Arc<RuleRef>>,
    /// When undetermined: what would have to be known.
    pub(crate) missing: Vec<String>,
}

impl PartialDecision {
    pub(crate) fn certain(is_allowed: bool, code: &'static str, by: Option<&Arc<RuleRef>>) -> Self {
        Self {
            is_allowed: Some(is_allowed),
            code,
            by: by.map(Arc::clone),
            missing: Vec::new(),
        }
    }

    fn undetermined(missing: BTreeSet<String>) -> Self {
        Self {
            is_allowed: None,
            code: "",
            by: None,
            missing: missing
                .into_iter()
                .take(limits::MISSING_ATTRIBUTES_MAX)
                .collect(),
        }
    }
}

impl PartialCall {
    /// The decision of these policies. With `with_dry_run` dry-run policies are taken as enforced.
    pub(crate) fn decide(
        &self,
        policies: &WorkloadPolicies,
        with_dry_run: bool,
    ) -> PartialDecision {
        let asked = Asked {
            call: self,
            policies,
            with_dry_run,
        };
        let (custom, custom_missing) = asked.custom();
        if let Some((by, true)) = custom {
            return PartialDecision::certain(false, BAD_PROVIDER, Some(by));
        }
        let decision = asked.layers();
        if decision.is_allowed != Some(true) {
            return decision;
        }
        let mut missing = custom_missing;
        missing.extend(self.doubts.iter().map(|doubt| (*doubt).to_owned()));
        if missing.is_empty() {
            decision
        } else {
            PartialDecision::undetermined(missing)
        }
    }
}

/// One question to the policies of a workload.
struct Asked<'a> {
    call: &'a PartialCall,
    policies: &'a WorkloadPolicies,
    with_dry_run: bool,
}

impl<'a> Asked<'a> {
    fn of(&self, effect: Effect) -> impl Iterator<Item = &'a Attached> + use<'a> {
        let (now, with_dry_run) = (self.call.now, self.with_dry_run);
        let attached = self.policies.attached.iter().map(Arc::as_ref);
        attached.filter(move |attached| {
            attached.effect == effect
                && (with_dry_run || !attached.is_dry_run)
                && attached.window.contains(now)
        })
    }

    /// Does the effect count here? As [`crate::attached::Presence::has`] and rule 57 have it.
    fn has(&self, effect: Effect) -> bool {
        if effect == Effect::Allow {
            let mut attached = self.policies.attached.iter();
            return attached.any(|attached| {
                attached.effect == effect && (self.with_dry_run || !attached.is_dry_run)
            });
        }
        let is_tcp = self.call.http.is_none();
        self.of(effect)
            .any(|attached| !is_tcp || !has_http_authorizer(attached, &self.policies.providers))
    }

    /// The first rule that certainly matches, and what is missing to know about the others.
    fn search(&self, effect: Effect) -> (Option<&'a Arc<RuleRef>>, BTreeSet<String>) {
        let mut missing = BTreeSet::new();
        for attached in self.of(effect) {
            for (rule, by) in attached.rules.iter().zip(&attached.refs) {
                match self.call.rule(rule, effect, self.policies.options) {
                    Some(true) => return (Some(by), missing),
                    Some(false) => {}
                    None => self.note_missing(rule, effect, &mut missing),
                }
            }
        }
        (None, missing)
    }

    fn note_missing(&self, rule: &Rule, effect: Effect, missing: &mut BTreeSet<String>) {
        for clause in rule.clauses() {
            if self
                .call
                .clause(clause, effect, self.policies.options)
                .is_none()
            {
                let name = self.call.missing(clause);
                missing.insert(name.map_or_else(
                    || "request.auth.principal, as issuer and subject".into(),
                    Cow::into_owned,
                ));
            }
        }
    }

    /// DENY, ALLOW, default.
    fn layers(&self) -> PartialDecision {
        let (denied, mut missing) = self.search(Effect::Deny);
        if let Some(by) = denied {
            return PartialDecision::certain(false, POLICY_DENIED, Some(by));
        }
        let allow = if self.has(Effect::Allow) {
            let (allowed, unsure) = self.search(Effect::Allow);
            if allowed.is_none() && unsure.is_empty() {
                return PartialDecision::certain(false, NO_ALLOW_MATCHED, None);
            }
            if allowed.is_none() {
                missing.extend(unsure);
            }
            PartialDecision::certain(true, ALLOWED, allowed)
        } else if self.has(Effect::Deny) || self.has(Effect::Custom) {
            PartialDecision::certain(true, ALLOWED, None)
        } else {
            let is_allowed = self.policies.options.are_unlisted_calls_allowed;
            PartialDecision::certain(is_allowed, NO_POLICY, None)
        };
        if missing.is_empty() {
            allow
        } else {
            PartialDecision::undetermined(missing)
        }
    }

    /// The CUSTOM rule that certainly matches, with whether it certainly refuses; and what a Yes still hangs on.
    fn custom(&self) -> (Option<(&'a Arc<RuleRef>, bool)>, BTreeSet<String>) {
        let mut missing = BTreeSet::new();
        let mut first = None;
        let is_tcp = self.call.http.is_none();
        for attached in self.of(Effect::Custom) {
            if is_tcp && has_http_authorizer(attached, &self.policies.providers) {
                continue;
            }
            let has_nobody = self.policies.sole_provider(attached).is_none();
            let name = attached.provider.as_deref().unwrap_or_default();
            for (rule, by) in attached.rules.iter().zip(&attached.refs) {
                match self.call.rule(rule, Effect::Custom, self.policies.options) {
                    Some(false) => {}
                    Some(true) if has_nobody => {
                        first = first.or(Some((by, true)));
                    }
                    Some(true) | None => {
                        missing.insert(format!("the answer of the external authorizer `{name}`"));
                    }
                }
            }
        }
        (first, missing)
    }
}
