//! A recorded decision log against a proposed set: what would be decided otherwise, grouped, with examples.
//!
//! A call of which the record does not tell enough is *undetermined* and says what is missing; it is never guessed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use serde::Serialize;

use super::partial::{PartialCall, PartialDecision};
use super::path_shape::shape_of;
use super::record::{CallFacts, RecordedCall};
use crate::compile::WorkloadPolicies;
use crate::decision::RuleRef;
use crate::limits;
use crate::schema::JwtRule;
use crate::set::MeshSet;

/// A replay under way: calls go in one by one.
#[derive(Debug)]
pub struct Replay<'s> {
    set: &'s MeshSet,
    base: Option<&'s MeshSet>,
    with_dry_run: bool,
    workloads: HashMap<SpiffeId, Option<Compiled>>,
    known: HashMap<CallFacts, Arc<PartialDecision>>,
    changes: BTreeMap<GroupKey, ReplayGroup>,
    undetermined: BTreeMap<GroupKey, ReplayGroup>,
    report: ReplayReport,
}

#[derive(Debug)]
struct Compiled {
    policies: WorkloadPolicies,
    /// Some policy holds for a while only, so that the time of a call matters.
    has_windows: bool,
    /// The set that was in force accepts other tokens.
    has_other_tokens: bool,
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ReplayReport {
    /// Calls that were judged again.
    pub calls: u64,
    /// Decided as they were.
    pub same: u64,
    /// Of these: decided by another rule than recorded.
    pub by_another_rule: u64,
    /// Recorded as denied, would be allowed.
    pub newly_allowed: u64,
    /// Recorded as allowed, would be denied.
    pub newly_denied: u64,
    /// The record does not tell enough.
    pub undetermined: u64,
    /// Refused before any policy was asked, by code; not judged again.
    pub not_judged: BTreeMap<String, u64>,
    /// Calls of workloads of another trust domain; not judged.
    pub foreign: u64,
    /// Calls to which a RequestAuthentication applies: their tokens are taken as accepted or absent, as recorded.
    pub tokens_as_recorded: u64,
    /// Changes, most calls first.
    pub changes: Vec<ReplayGroup>,
    /// What could not be determined, most calls first.
    pub unknown: Vec<ReplayGroup>,
    /// Changed or undetermined calls beyond [`limits::REPLAY_GROUPS_MAX`] groups: counted, not shown.
    pub beyond: u64,
}

/// Calls that change in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayGroup {
    /// Who is called.
    pub workload: String,
    /// `allow` or `deny`, as recorded.
    pub was: &'static str,
    /// Policy and rule, or the code, that decided then.
    pub was_by: String,
    /// `allow`, `deny`, or `undetermined`.
    pub becomes: &'static str,
    /// Policy, rule and place, or the code, that would decide; for `undetermined` the missing attributes.
    pub becomes_by: String,
    /// Method; `tcp` for a bare connection.
    pub method: String,
    /// Path with `{*}` for what looks like an identifier.
    pub path: String,
    /// How many calls.
    pub calls: u64,
    /// Some of the callers; empty text for plain text.
    pub callers: BTreeSet<String>,
    /// Some of the calls.
    pub examples: Vec<ReplayExample>,
}

/// One call of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayExample {
    /// When, in RFC 3339.
    pub time: String,
    /// Who called; empty for plain text.
    pub from: String,
    /// The path as it was judged.
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    workload: String,
    was: bool,
    was_by: String,
    becomes_by: String,
    method: String,
    path: String,
}

impl<'s> Replay<'s> {
    /// A replay against `set`. With `base`, the set that was in force, calls whose tokens might be judged otherwise
    /// are undetermined; with `with_dry_run` dry-run policies are taken as enforced.
    pub fn new(set: &'s MeshSet, base: Option<&'s MeshSet>, with_dry_run: bool) -> Self {
        Self {
            set,
            base,
            with_dry_run,
            workloads: HashMap::new(),
            known: HashMap::new(),
            changes: BTreeMap::new(),
            undetermined: BTreeMap::new(),
            report: ReplayReport::default(),
        }
    }

    /// Counts a call that was refused before any policy was asked.
    pub fn skip(&mut self, code: &str) {
        if let Some(count) = self.report.not_judged.get_mut(code) {
            *count += 1;
        } else if self.report.not_judged.len() < limits::REPLAY_GROUPS_MAX {
            self.report.not_judged.insert(code.to_owned(), 1);
        }
    }

    /// Judges a recorded call again.
    pub fn add(&mut self, call: &RecordedCall) {
        let Some(decision) = self.judge(call) else {
            self.report.foreign += 1;
            return;
        };
        self.report.calls += 1;
        match decision.is_allowed {
            None => {
                self.report.undetermined += 1;
                let missing = decision.missing.join(", ");
                self.group(call, None, missing);
            }
            Some(is_allowed) if is_allowed == call.outcome.is_allowed => {
                self.report.same += 1;
                let is_same = match &decision.by {
                    Some(by) => by.rule == call.outcome.rule && is_named(by, &call.outcome.policy),
                    None => call.outcome.policy.is_empty(),
                };
                self.report.by_another_rule += u64::from(!is_same);
            }
            Some(is_allowed) => {
                if is_allowed {
                    self.report.newly_allowed += 1;
                } else {
                    self.report.newly_denied += 1;
                }
                let by = decision
                    .by
                    .as_ref()
                    .map_or_else(|| decision.code.to_owned(), ToString::to_string);
                self.group(call, Some(is_allowed), by);
            }
        }
    }

    /// What was found.
    pub fn finish(self) -> ReplayReport {
        let sorted = |groups: BTreeMap<GroupKey, ReplayGroup>| {
            let mut groups: Vec<ReplayGroup> = groups.into_values().collect();
            groups.sort_by_key(|group| std::cmp::Reverse(group.calls));
            groups
        };
        ReplayReport {
            changes: sorted(self.changes),
            unknown: sorted(self.undetermined),
            ..self.report
        }
    }

    /// `None` for a workload of another trust domain.
    fn judge(&mut self, call: &RecordedCall) -> Option<Arc<PartialDecision>> {
        let facts = &call.facts;
        if !self.workloads.contains_key(&facts.workload) {
            let compiled = compile(self.set, self.base, &facts.workload);
            self.workloads.insert(facts.workload.clone(), compiled);
        }
        let compiled = self.workloads.get(&facts.workload)?.as_ref()?;
        if facts.http.is_some() && !compiled.policies.authentication().is_empty() {
            self.report.tokens_as_recorded += u64::from(!compiled.has_other_tokens);
        }
        if let Some(decision) = self.known.get(facts) {
            return Some(Arc::clone(decision));
        }
        let decision = Arc::new(judge(compiled, facts, call.at, self.with_dry_run));
        if !compiled.has_windows && self.known.len() < limits::REPLAY_KNOWN_MAX {
            self.known.insert(facts.clone(), Arc::clone(&decision));
        }
        Some(decision)
    }

    fn group(&mut self, call: &RecordedCall, becomes: Option<bool>, becomes_by: String) {
        let (facts, outcome) = (&call.facts, &call.outcome);
        let http = facts.http.as_ref();
        let method = http.map_or("tcp", |http| http.method.as_deref().unwrap_or("?"));
        let path = http.map_or("", |http| http.path.as_deref().unwrap_or("?"));
        let was_by = match (outcome.policy.as_str(), outcome.rule) {
            ("", _) => outcome.code.clone(),
            (policy, rule) => format!("{policy} rule {rule}"),
        };
        let key = GroupKey {
            workload: facts.workload.to_string(),
            was: outcome.is_allowed,
            was_by: was_by.clone(),
            becomes_by: becomes_by.clone(),
            method: method.to_owned(),
            path: shape_of(path),
        };
        let groups = match becomes {
            Some(_) => &mut self.changes,
            None => &mut self.undetermined,
        };
        if groups.len() >= limits::REPLAY_GROUPS_MAX && !groups.contains_key(&key) {
            self.report.beyond += 1;
            return;
        }
        let word = |is_allowed| if is_allowed { "allow" } else { "deny" };
        let group = groups.entry(key.clone()).or_insert_with(|| ReplayGroup {
            workload: key.workload,
            was: word(outcome.is_allowed),
            was_by,
            becomes: becomes.map_or("undetermined", word),
            becomes_by,
            method: key.method,
            path: key.path,
            calls: 0,
            callers: BTreeSet::new(),
            examples: Vec::new(),
        });
        group.calls += 1;
        let from = facts
            .peer
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        if group.callers.len() < limits::REPLAY_CALLERS_MAX {
            group.callers.insert(from.clone());
        }
        let example = ReplayExample {
            time: call.at.rfc3339(),
            from,
            path: path.to_owned(),
        };
        let is_new = group
            .examples
            .iter()
            .all(|known| known.from != example.from || known.path != example.path);
        if is_new && group.examples.len() < limits::REPLAY_EXAMPLES_MAX {
            group.examples.push(example);
        }
    }
}

fn is_named(by: &RuleRef, policy: &str) -> bool {
    policy.split_once('/').is_some_and(|(namespace, name)| {
        *by.policy.namespace == *namespace && *by.policy.name == *name
    })
}

fn compile(set: &MeshSet, base: Option<&MeshSet>, id: &SpiffeId) -> Option<Compiled> {
    let policies = WorkloadPolicies::compile(set, &set.workload(id), 0).ok()?;
    let accepts_other_tokens = |base: &MeshSet| {
        let (is, was) = (&set.config, &base.config);
        let before = WorkloadPolicies::compile(base, &base.workload(id), 0);
        is.clock_skew != was.clock_skew
            || is.is_expiry_required != was.is_expiry_required
            || before.map_or(true, |before| !accept_the_same_tokens(&before, &policies))
    };
    let has_other_tokens = base.is_some_and(accepts_other_tokens);
    let has_windows = policies
        .attached
        .iter()
        .any(|attached| !attached.window.is_always());
    Some(Compiled {
        policies,
        has_windows,
        has_other_tokens,
    })
}

fn accept_the_same_tokens(one: &WorkloadPolicies, other: &WorkloadPolicies) -> bool {
    let (one, other) = (one.authentication(), other.authentication());
    let rules = |of: &crate::authenticate::RequestAuthentications| -> Vec<JwtRule> {
        let mut rules: Vec<JwtRule> = of.rules().cloned().collect();
        for rule in &mut rules {
            // Where a rule stands changes nothing.
            rule.location.line = 0;
            rule.location.path = "".into();
        }
        rules
    };
    rules(one) == rules(other)
}

fn judge(
    compiled: &Compiled,
    facts: &CallFacts,
    at: Timestamp,
    with_dry_run: bool,
) -> PartialDecision {
    match PartialCall::of_record(&compiled.policies, facts, at) {
        Ok(call) if compiled.has_other_tokens => call
            .without_tokens()
            .decide(&compiled.policies, with_dry_run),
        Ok(call) => call.decide(&compiled.policies, with_dry_run),
        Err(code) => PartialDecision::certain(false, code, None),
    }
}
