//! From recorded calls to the policies that allow them and nothing else.
//!
//! One policy a workload; the fewest rules, each a set of callers with all that they did alike; within a rule the fewest
//! operations (see `cover` for how few). A caller is a principal, or nobody; where its recorded calls all carried a token,
//! the rule asks for one. Hosts, addresses and headers are not part of a suggestion.

mod cover;
mod generalize;
mod rules;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use ravelin_proto::spiffe_id::SpiffeId;
use serde::Serialize;

use super::record::{CallFacts, RecordedCall};
use crate::limits;
use crate::object::Labels;
use crate::path::normalize;
use crate::schema::WorkloadIdentity;
use crate::set::MeshSet;
pub use generalize::Generalize;

/// What goes into a suggestion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SuggestOptions {
    /// Also what was denied.
    pub includes_denied: bool,
    /// Make templates of paths.
    pub generalize: Option<Generalize>,
}

/// A suggestion under way: calls go in one by one.
#[derive(Debug)]
pub struct Suggest<'s> {
    set: &'s MeshSet,
    options: SuggestOptions,
    workloads: BTreeMap<SpiffeId, Calls>,
    distinct: usize,
    report: Suggestion,
    left_out: BTreeMap<&'static str, LeftOut>,
}

/// More than [`limits::SUGGEST_CALLS_MAX`] different calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log has more than {} different calls", limits::SUGGEST_CALLS_MAX)]
pub struct TooManyCalls;

/// The calls of one workload.
#[derive(Debug, Default)]
struct Calls {
    wanted: BTreeMap<(Caller, Operation), u64>,
    denied: BTreeSet<(Caller, Operation)>,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Caller {
    /// `None`: in plain text.
    peer: Option<SpiffeId>,
    token: Token,
}

/// The token that came along.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    None,
    /// Of an issuer that the folder does not tell.
    Any,
    Issuer(String),
}

/// What is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Operation {
    port: u16,
    /// Method and path or template; `None` for a bare connection.
    http: Option<(String, String)>,
}

/// What is suggested.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Suggestion {
    /// Recorded calls that the policies allow.
    pub calls: u64,
    /// One a workload; several where one would be too large.
    pub policies: Vec<SuggestedPolicy>,
    /// Calls that no suggested rule allows though they were recorded, by reason.
    pub left_out: Vec<LeftOut>,
    /// Templates, with what they stand for.
    pub templates: Vec<SuggestedTemplate>,
    /// Recorded calls that are allowed by a template alone: somebody else's, or denied ones.
    pub additional: Vec<AdditionalCall>,
}

/// Calls that could not be taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Why.
    pub reason: &'static str,
    /// How many calls.
    pub calls: u64,
    /// One of them.
    pub example: String,
}

/// A template that stands for recorded paths, and for every other segment in its `{*}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SuggestedTemplate {
    /// Who is called.
    pub workload: String,
    /// The template.
    pub template: String,
    /// How many different recorded paths it stands for.
    pub paths: usize,
    /// One of them.
    pub example: String,
}

/// A recorded call that a suggestion allows beyond what it was made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AdditionalCall {
    /// It was recorded as denied.
    pub was_denied: bool,
    /// Who is called.
    pub workload: String,
    /// Who would be allowed; empty for plain text.
    pub from: String,
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// The template that allows it.
    pub template: String,
}

/// An ALLOW policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SuggestedPolicy {
    /// Namespace, the workload's.
    pub namespace: String,
    /// Name; no policy of the folder has it.
    pub name: String,
    /// Whom it is for.
    pub workload: String,
    /// Labels that this workload alone has; empty where it is alone in its namespace.
    pub selector: Labels,
    /// Its rules.
    pub rules: Vec<SuggestedRule>,
}

/// A rule of a suggested policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SuggestedRule {
    /// How many recorded calls match it.
    pub calls: u64,
    /// Who.
    pub from: Vec<SuggestedSource>,
    /// What.
    pub to: Vec<SuggestedOperation>,
}

/// Callers of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SuggestedSource {
    /// `TRUST_DOMAIN/PATH`; empty: callers in plain text.
    pub principals: Vec<String>,
    /// With an accepted token like this; empty: with or without.
    pub request_principals: Vec<String>,
}

/// Operations of a rule. An empty list does not restrict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SuggestedOperation {
    /// Ports; empty where the workload was called on one alone.
    pub ports: Vec<u16>,
    /// Methods; empty for a bare connection.
    pub methods: Vec<String>,
    /// Paths and templates; empty for a bare connection.
    pub paths: Vec<String>,
}

impl<'s> Suggest<'s> {
    /// A suggestion for the identities of `set`.
    pub fn new(set: &'s MeshSet, options: SuggestOptions) -> Self {
        Self {
            set,
            options,
            workloads: BTreeMap::new(),
            distinct: 0,
            report: Suggestion::default(),
            left_out: BTreeMap::new(),
        }
    }

    /// Takes a recorded call in.
    pub fn add(&mut self, call: &RecordedCall) -> Result<(), TooManyCalls> {
        let is_wanted = call.outcome.is_allowed || self.options.includes_denied;
        let (caller, operation) = match self.read(&call.facts) {
            Ok(read) => read,
            Err(reason) if is_wanted => {
                self.leave_out(reason, 1, &describe(&call.facts));
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        let calls = self
            .workloads
            .entry(call.facts.workload.clone())
            .or_default();
        let key = (caller, operation);
        if is_wanted {
            let count = calls.wanted.entry(key).or_insert(0);
            self.distinct += usize::from(*count == 0);
            *count += 1;
        } else {
            self.distinct += usize::from(calls.denied.insert(key));
        }
        if self.distinct > limits::SUGGEST_CALLS_MAX {
            return Err(TooManyCalls);
        }
        Ok(())
    }

    /// Who did what, or why a rule cannot say it.
    fn read(&self, facts: &CallFacts) -> Result<(Caller, Operation), &'static str> {
        let identity = |id: &SpiffeId| {
            self.set
                .identities
                .iter()
                .find(|identity| identity.spiffe_id == *id)
        };
        if identity(&facts.workload).is_none() {
            return Err("the workload is not an identity of the folder");
        }
        if let Some(peer) = &facts.peer {
            let is_own = peer.is_member_of(&self.set.config.trust_domain);
            if peer.is_root() || (is_own && identity(peer).is_none()) {
                return Err("the caller is not an identity of the folder");
            }
        }
        let Some(http) = &facts.http else {
            let caller = Caller {
                peer: facts.peer.clone(),
                token: Token::None,
            };
            let operation = Operation {
                port: facts.port,
                http: None,
            };
            return Ok((caller, operation));
        };
        let (Some(method), Some(path), Some(principal)) =
            (&http.method, &http.path, &http.request_principal)
        else {
            return Err("the record does not hold the whole method, path or request principal");
        };
        if method.contains('*') || method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err("no rule can name this method alone");
        }
        let option = self.set.config.path_normalization;
        let is_plain =
            !path.contains('*') && normalize(path, option).is_ok_and(|found| found.path() == path);
        if !is_plain {
            return Err("no rule can name this path alone");
        }
        let caller = Caller {
            peer: facts.peer.clone(),
            token: self.token(principal),
        };
        let operation = Operation {
            port: facts.port,
            http: Some((method.clone(), path.clone())),
        };
        Ok((caller, operation))
    }

    fn token(&self, principal: &str) -> Token {
        if principal.is_empty() {
            return Token::None;
        }
        let is_of = |issuer: &&str| {
            principal
                .strip_prefix(issuer)
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|subject| !subject.is_empty())
        };
        let rules = self
            .set
            .request_authentications
            .iter()
            .flat_map(|object| &object.rules);
        let mut issuers: BTreeSet<&str> = rules.filter_map(|rule| rule.issuer.as_deref()).collect();
        issuers.retain(is_of);
        match (issuers.pop_first(), issuers.pop_first()) {
            (Some(one), None) if !one.contains('*') => Token::Issuer(one.to_owned()),
            _ => Token::Any,
        }
    }

    fn leave_out(&mut self, reason: &'static str, calls: u64, example: &str) {
        let entry = self.left_out.entry(reason).or_insert_with(|| LeftOut {
            reason,
            calls: 0,
            example: example.to_owned(),
        });
        entry.calls += calls;
    }

    /// The suggestion.
    pub fn finish(mut self) -> Suggestion {
        for (id, mut calls) in std::mem::take(&mut self.workloads) {
            let identity = self
                .set
                .identities
                .iter()
                .find(|identity| identity.spiffe_id == id);
            let Some(identity) = identity else { continue };
            self.drop_mixed_ports(&id, &mut calls);
            if calls.wanted.is_empty() {
                continue;
            }
            let count: u64 = calls.wanted.values().sum();
            let Some(selector) = self.selector(identity) else {
                self.leave_out(
                    "the workload has no label that tells it from others of its namespace",
                    count,
                    id.as_str(),
                );
                continue;
            };
            self.report.calls += count;
            let (rules, templates) = rules::rules(
                &calls,
                self.options.generalize,
                &mut self.report.additional,
                &id,
            );
            self.report.templates.extend(templates);
            let policies = self.policies(identity, &selector, rules);
            self.report.policies.extend(policies);
        }
        self.report.additional.sort_by(|a, b| b.cmp(a));
        self.report.left_out = self.left_out.into_values().collect();
        self.report
    }

    /// A rule for a bare connection would allow every request on its port.
    fn drop_mixed_ports(&mut self, id: &SpiffeId, calls: &mut Calls) {
        let ports: BTreeSet<u16> = calls
            .wanted
            .keys()
            .filter(|(_, operation)| operation.http.is_some())
            .map(|(_, operation)| operation.port)
            .collect();
        let mut dropped = 0;
        calls.wanted.retain(|(_, operation), count| {
            let is_mixed = operation.http.is_none() && ports.contains(&operation.port);
            dropped += if is_mixed { *count } else { 0 };
            !is_mixed
        });
        if dropped > 0 {
            self.leave_out(
                "the same port carries requests: a rule for the bare connection would allow them all",
                dropped,
                id.as_str(),
            );
        }
    }

    /// The fewest labels that this workload alone has: none, one, or all.
    fn selector(&self, identity: &WorkloadIdentity) -> Option<Labels> {
        let metadata = &identity.metadata;
        let is_root = metadata.namespace == self.set.config.root_namespace;
        let is_alone = |labels: &Labels| {
            self.set.identities.iter().all(|other| {
                other.spiffe_id == identity.spiffe_id
                    || (!is_root && other.metadata.namespace != metadata.namespace)
                    || !labels
                        .iter()
                        .all(|(key, value)| other.metadata.labels.get(key) == Some(value))
            })
        };
        let one = |(key, value): (&String, &String)| Labels::from([(key.clone(), value.clone())]);
        let usual = metadata.labels.iter().filter(|(key, _)| *key == "app");
        let singles = usual.chain(&metadata.labels).map(one);
        // A workload that is alone today may not be so tomorrow: a label goes before none.
        singles
            .chain([metadata.labels.clone()])
            .filter(|labels| !labels.is_empty())
            .chain((!is_root).then(Labels::new))
            .find(|labels| {
                is_alone(labels)
                    && labels
                        .values()
                        .all(|value| !value.is_empty() && !value.contains('*'))
            })
    }

    fn policies(
        &self,
        identity: &WorkloadIdentity,
        selector: &Labels,
        rules: Vec<SuggestedRule>,
    ) -> Vec<SuggestedPolicy> {
        let metadata = &identity.metadata;
        let is_taken = |name: &str| {
            self.set.authorization_policies.iter().any(|policy| {
                policy.metadata.namespace == metadata.namespace && policy.metadata.name == name
            })
        };
        let mut names = (1_u32..)
            .map(|number| match number {
                1 => format!("{}-recorded", metadata.name),
                _ => format!("{}-recorded-{number}", metadata.name),
            })
            .filter(|name| !is_taken(name));
        rules
            .chunks(limits::RULES_MAX)
            .filter_map(|rules| {
                Some(SuggestedPolicy {
                    namespace: metadata.namespace.clone(),
                    name: names.next()?,
                    workload: identity.spiffe_id.to_string(),
                    selector: selector.clone(),
                    rules: rules.to_vec(),
                })
            })
            .collect()
    }
}

fn describe(facts: &CallFacts) -> String {
    let peer = facts
        .peer
        .as_ref()
        .map_or("(no identity)", SpiffeId::as_str);
    let http = facts.http.as_ref();
    let part = |of: Option<&String>| of.cloned().unwrap_or_default();
    format!(
        "{peer} -> {} {} {}",
        facts.workload,
        part(http.and_then(|http| http.method.as_ref())),
        part(http.and_then(|http| http.path.as_ref()))
    )
    .trim_end()
    .to_owned()
}
