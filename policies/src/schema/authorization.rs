//! `AuthorizationPolicy` (security.istio.io): rules of clauses, patterns compiled on load.

use ravelin_proto::time::Timestamp;

use super::Rules;
use crate::matcher::Pattern;
use crate::object::{Labels, Location, Metadata};

/// A policy for the workloads that it selects.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorizationPolicy {
    /// Name and namespace.
    pub metadata: Metadata,
    /// Where it stands.
    pub location: Location,
    /// Whom it holds for; `None`: everyone in its namespace (rule 65).
    pub selector: Option<Labels>,
    /// It names gateways or services by `targetRefs`: on a sidecar it holds for nobody (rule 67).
    pub has_target_refs: bool,
    /// What a match means.
    pub effect: Effect,
    /// The external authorizer of a CUSTOM policy, by its name in `extensionProviders` (rule 60).
    pub provider: Option<String>,
    /// It is judged beside the others and never enforced (rule 64).
    pub is_dry_run: bool,
    /// When its rules match. An ALLOW counts as attached outside of it as well.
    pub window: Window,
    /// Any of them matches (rule 8); empty: never (rule 11).
    pub rules: Rules,
}

/// `spec.action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// A match allows, unless a DENY matches too.
    Allow,
    /// A match denies.
    Deny,
    /// A match marks the call for the decision log and decides nothing (rule 7).
    Audit,
    /// A match asks an external authorizer before everything else (rule 6).
    Custom,
}

impl Effect {
    /// As it stands in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom => "CUSTOM",
        }
    }
}

/// The annotations `ravelin.dev/not-before` and `ravelin.dev/not-after`: when a policy holds. Ours; with either of
/// them a match is always audited, since such a policy breaks a rule for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// From this moment on.
    pub not_before: Option<Timestamp>,
    /// Before this moment.
    pub not_after: Option<Timestamp>,
}

impl Window {
    /// True without either bound.
    pub fn is_always(&self) -> bool {
        self.not_before.is_none() && self.not_after.is_none()
    }

    /// Does the policy exist at this moment?
    pub fn contains(&self, now: Timestamp) -> bool {
        self.not_before.is_none_or(|from| from <= now) && self.not_after.is_none_or(|to| now < to)
    }
}

/// (any of `from`) and (any of `to`) and (all of `when`); a missing part is true (rule 20).
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct Rule {
    /// Where it stands.
    pub location: Location,
    pub(crate) from: Vec<Vec<Clause>>,
    pub(crate) to: Vec<Vec<Clause>>,
    pub(crate) when: Vec<Clause>,
}

impl Rule {
    /// Every clause of the rule.
    pub(crate) fn clauses(&self) -> impl Iterator<Item = &Clause> {
        self.from.iter().chain(&self.to).flatten().chain(&self.when)
    }
}

/// One list of one field: any pattern matches, or with `is_negative` none does (rule 21).
#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct Clause {
    pub(crate) field: Field,
    /// As it stands in the file: `notPaths`, `request.headers[x-a]`.
    pub(crate) name: String,
    pub(crate) is_negative: bool,
    /// Every pattern has to match some element of a list claim (ours, by annotation; rule 22).
    pub(crate) is_all_of: bool,
    pub(crate) patterns: Vec<Pattern>,
    /// As it stands in the file.
    pub(crate) values: Vec<String>,
    pub(crate) line: u32,
}

/// What a clause looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Field {
    Principal,
    RequestPrincipal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    SourceAddress,
    RemoteAddress,
    DestinationAddress,
    DestinationPort,
    ServerName,
    Host,
    Method,
    Path,
    /// Lower-case name, or a pseudo-header such as `:method`.
    Header(String),
    Audience,
    Presenter,
    /// Steps into the claims (rule 49).
    Claim(Vec<String>),
}

impl Field {
    /// Exists for HTTP alone (rules 46, 54).
    pub(crate) fn is_http_only(&self) -> bool {
        match self {
            Self::RequestPrincipal
            | Self::Host
            | Self::Method
            | Self::Path
            | Self::Header(_)
            | Self::Audience
            | Self::Presenter
            | Self::Claim(_) => true,
            Self::Principal
            | Self::Namespace
            | Self::ServiceAccount
            | Self::TrustDomain
            | Self::SourceAddress
            | Self::RemoteAddress
            | Self::DestinationAddress
            | Self::DestinationPort
            | Self::ServerName => false,
        }
    }
}
