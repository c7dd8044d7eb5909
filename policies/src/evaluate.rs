//! Judging: DENY first, then ALLOW, then the default; dry-run policies beside them (rules 1 to 8, 64).
//!
//! Nothing here allocates. Which rule matches first is found by the index; whether one holds says `clause.rs`.

use std::sync::Arc;

use crate::call::Call;
use crate::compile::WorkloadPolicies;
use crate::decision::{
    ALLOWED, BAD_PROVIDER, CustomCheck, Decision, NO_ALLOW_MATCHED, NO_POLICY, POLICY_DENIED,
    Shadow,
};
use crate::index::List;
use crate::index::layers::{ConnectionPolicies, Match};

/// The decision on a call. `on` is of these policies and of the call's connection.
pub(crate) fn decide(
    policies: &WorkloadPolicies,
    call: Call<'_>,
    on: Option<&ConnectionPolicies>,
) -> Decision {
    decide_by(policies, call, on).0
}

/// The decision with the rule that made it.
pub(crate) fn decide_by<'p>(
    policies: &'p WorkloadPolicies,
    call: Call<'p>,
    on: Option<&'p ConnectionPolicies>,
) -> (Decision, Option<Match<'p>>) {
    let asked = policies.layers.asked(call, policies.options, on);
    let first = |list| asked.first(list);
    let presence = match call {
        Call::Http(_) => &policies.presence,
        Call::Tcp(..) => &policies.presence_on_tcp,
    };
    let has = |list| presence.has(list, call.now());
    let deny = first(List::Deny);
    let allow = deny.is_none().then(|| first(List::Allow)).flatten();
    let enforced = Answer::new(policies, deny, allow, &has);
    let is_audited = (policies.presence.has_windows() && enforced.is_for_a_while())
        || first(List::Audit).is_some();
    let shadow = policies.presence.has_dry_run().then(|| {
        let deny = Match::first_of(deny, first(List::DryRunDeny));
        let allow = deny
            .is_none()
            .then(|| Match::first_of(allow, first(List::DryRunAllow)))
            .flatten();
        let with_dry_run = |list| {
            has(list)
                || match list {
                    List::Deny => has(List::DryRunDeny),
                    List::Allow => has(List::DryRunAllow),
                    List::Audit | List::Custom | List::DryRunDeny | List::DryRunAllow => false,
                }
        };
        let shadow = Answer::new(policies, deny, allow, &with_dry_run);
        Shadow {
            is_allowed: shadow.is_allowed,
            code: shadow.code,
            by: shadow.by.map(|found| Arc::clone(&found.rule.by)),
        }
    });
    let decision = Decision {
        is_allowed: enforced.is_allowed,
        code: enforced.code,
        by: enforced.by.map(|found| Arc::clone(&found.rule.by)),
        revision: policies.revision,
        is_audited,
        shadow,
    };
    (decision, enforced.by)
}

struct Answer<'p> {
    is_allowed: bool,
    code: &'static str,
    by: Option<Match<'p>>,
}

impl<'p> Answer<'p> {
    /// DENY, then ALLOW, then the default.
    fn new(
        policies: &WorkloadPolicies,
        deny: Option<Match<'p>>,
        allow: Option<Match<'p>>,
        has: &dyn Fn(List) -> bool,
    ) -> Self {
        let (is_allowed, code) = if deny.is_some() {
            (false, POLICY_DENIED)
        } else if allow.is_some() {
            (true, ALLOWED)
        } else if has(List::Allow) {
            (false, NO_ALLOW_MATCHED)
        } else if has(List::Deny) || has(List::Custom) {
            // An AUDIT alone changes nothing, so it does not open a workload that nobody listed (rule 7).
            (true, ALLOWED)
        } else {
            (policies.options.are_unlisted_calls_allowed, NO_POLICY)
        };
        Self {
            is_allowed,
            code,
            by: deny.or(allow),
        }
    }

    /// A policy with a window decided.
    fn is_for_a_while(&self) -> bool {
        self.by
            .is_some_and(|found| !found.policy.window.is_always())
    }
}

/// Whether an external authorizer has to be asked (rules 6, 57, 61, 63).
pub(crate) fn custom(
    policies: &WorkloadPolicies,
    call: Call<'_>,
    on: Option<&ConnectionPolicies>,
) -> CustomCheck {
    let options = policies.options;
    let asked = policies.layers.asked(call, options, on);
    let Some(found) = asked.first(List::Custom) else {
        return CustomCheck::NotNeeded;
    };
    let by = Arc::clone(&found.rule.by);
    match policies.sole_provider(found.policy) {
        Some(provider) => CustomCheck::Ask {
            provider: Arc::clone(provider),
            by,
        },
        None => CustomCheck::Refuse {
            code: BAD_PROVIDER,
            by,
        },
    }
}
