//! The answer of the engine: yes or no, with its reason.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::object::Location;

/// A policy by its name. Cloning copies pointers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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

/// One decision. Making and cloning it allocates nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// May the call pass?
    pub is_allowed: bool,
    /// [`ALLOWED`], [`POLICY_DENIED`], [`NO_ALLOW_MATCHED`] or [`NO_POLICY`].
    pub code: &'static str,
    /// The policy that decided.
    pub policy: Option<PolicyRef>,
    /// Its rule that matched, from 1.
    pub rule: Option<u32>,
    /// Revision of the set that was compiled.
    pub revision: u64,
    /// Where the rule stands.
    pub location: Option<Location>,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_allowed { "allow" } else { "deny" })?;
        match (&self.policy, self.rule) {
            (Some(policy), Some(rule)) => write!(f, " by {policy} rule {rule}")?,
            (Some(policy), None) => write!(f, " by {policy}")?,
            (None, _) => write!(f, " ({})", self.code)?,
        }
        match &self.location {
            Some(location) => write!(f, " at {location}"),
            None => Ok(()),
        }
    }
}
