//! The answer of the engine: yes or no, with its reason.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::object::Location;
use crate::schema::ExtensionProvider;

/// A policy by its name. Cloning copies pointers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PolicyRef {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A rule of some policy allowed it, or nothing forbids it and no ALLOW policy is attached (rules 4, 5).
pub const ALLOWED: &str = "allowed";
/// A DENY policy matched (rule 3).
pub const POLICY_DENIED: &str = "policy_denied";
/// ALLOW policies are attached and none matched (rule 5).
pub const NO_ALLOW_MATCHED: &str = "no_allow_matched";
/// No policy at all is attached; allowed or not by `unlistedCalls` (we deny by default, rule 2).
pub const NO_POLICY: &str = "no_policy";

/// A CUSTOM policy matched and its provider is missing, or the workload has several (rules 61, 63).
pub const BAD_PROVIDER: &str = "bad_provider";

/// One rule of a policy, as a decision names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyRef,
    /// Its rule, from 1.
    pub rule: u32,
    /// Where the rule stands.
    pub location: Location,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rule {} at {}", self.policy, self.rule, self.location)
    }
}

/// One decision. Making and cloning it allocates nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// May the call pass?
    pub is_allowed: bool,
    /// [`ALLOWED`], [`POLICY_DENIED`], [`NO_ALLOW_MATCHED`] or [`NO_POLICY`].
    pub code: &'static str,
    /// The rule that decided: of all that match, the first by namespace, name and place in the policy.
    pub by: Option<Arc<RuleRef>>,
    /// Revision of the set that was compiled.
    pub revision: u64,
    /// An AUDIT policy matched (rule 7), or a policy with a window decided: the call is always logged.
    pub is_audited: bool,
    /// What the dry-run policies would change (rule 64); `None` when the workload has none.
    pub shadow: Option<Shadow>,
}

/// What would be decided if every dry-run policy of the workload were enforced: one answer, not one an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shadow {
    /// As [`Decision::is_allowed`].
    pub is_allowed: bool,
    /// As [`Decision::code`].
    pub code: &'static str,
    /// As [`Decision::by`].
    pub by: Option<Arc<RuleRef>>,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_answer(f, self.is_allowed, self.code, self.by.as_deref())?;
        if self.is_audited {
            f.write_str(", audited")?;
        }
        match &self.shadow {
            Some(shadow) if shadow.is_allowed != self.is_allowed => {
                f.write_str("; with the dry-run policies enforced: ")?;
                write_answer(f, shadow.is_allowed, shadow.code, shadow.by.as_deref())
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn write_answer(
    f: &mut fmt::Formatter<'_>,
    is_allowed: bool,
    code: &str,
    by: Option<&RuleRef>,
) -> fmt::Result {
    f.write_str(if is_allowed { "allow" } else { "deny" })?;
    match by {
        Some(by) => write!(f, " by {by}"),
        None => write!(f, " ({code})"),
    }
}

/// Whether a call has to be judged by an external authorizer before everything else (rules 1, 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustomCheck {
    /// No CUSTOM rule matches.
    NotNeeded,
    /// This one has to allow the call; the other policies are judged as well.
    Ask {
        /// Whom to ask.
        provider: Arc<ExtensionProvider>,
        /// The rule that matched.
        by: Arc<RuleRef>,
    },
    /// There is nobody to ask: the call is refused (rule 61).
    Refuse {
        /// [`BAD_PROVIDER`].
        code: &'static str,
        /// The rule that matched.
        by: Arc<RuleRef>,
    },
}
