//! Which rules, alternatives, clauses and values of the policies were exercised, by the folder's tests or by a recorded log.
//!
//! A rule is exercised when it matched some call; an alternative and a clause when it was seen true and seen false; one value
//! of several when it matched. What a record does not tell counts as neither.

use std::collections::{BTreeMap, HashSet};

use ravelin_proto::spiffe_id::SpiffeId;
use serde::Serialize;

use super::partial::PartialCall;
use super::record::{CallFacts, RecordedCall};
use crate::attached::Attached;
use crate::compile::WorkloadPolicies;
use crate::decision::PolicyRef;
use crate::limits;
use crate::object::Location;
use crate::schema::{AuthorizationPolicy, Clause, Effect, Rule};
use crate::set::MeshSet;
use crate::test_run::case_call;

/// Coverage under way.
#[derive(Debug)]
pub struct CoverageRun<'s> {
    set: &'s MeshSet,
    workloads: BTreeMap<SpiffeId, Option<WorkloadPolicies>>,
    rules: Vec<RuleCoverage>,
    /// Place of a policy's first rule.
    places: BTreeMap<(String, String), usize>,
    seen: HashSet<CallFacts>,
    calls: u64,
}

/// What was exercised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Calls that were looked at; equal ones of a log count once.
    pub calls: u64,
    /// Every rule of every policy that can hold for a sidecar.
    pub rules: Vec<RuleCoverage>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleCoverage {
    /// Its policy.
    pub policy: PolicyRef,
    /// The policy's action.
    pub effect: &'static str,
    /// Its number, from 1.
    pub rule: u32,
    /// Where it stands.
    pub location: Location,
    /// Calls that it matched.
    pub matched: u64,
    /// Calls that it decided.
    pub decided: u64,
    /// Its alternatives, clauses and values.
    pub parts: Vec<PartCoverage>,
}

/// A part of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartCoverage {
    /// Which sort.
    pub kind: PartKind,
    /// `from[2]`, `to[1].paths`, `to[1].paths "/a"`: numbers from 1.
    pub name: String,
    /// Where it stands.
    pub line: u32,
    /// Calls on which it was true.
    pub held: u64,
    /// Calls on which it was false.
    pub failed: u64,
}

/// Sorts of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    /// One of several entries of `from` or `to`.
    Alternative,
    /// A list of a field.
    Clause,
    /// One of several values of a list.
    Value,
}

impl PartCoverage {
    /// What was not seen of it; empty when all was.
    pub fn lacks(&self) -> &'static str {
        match (self.kind, self.held, self.failed) {
            (PartKind::Value, 0, _) => "never matched",
            (PartKind::Value, _, _) => "",
            (_, 0, 0) => "never judged",
            (_, 0, _) => "never true",
            (_, _, 0) => "never false",
            (_, _, _) => "",
        }
    }

    fn goals(&self) -> (u64, u64) {
        match self.kind {
            PartKind::Value => (u64::from(self.held > 0), 1),
            PartKind::Alternative | PartKind::Clause => {
                (u64::from(self.held > 0) + u64::from(self.failed > 0), 2)
            }
        }
    }
}

impl RuleCoverage {
    /// It matched, and so was enforced or could have been.
    pub fn is_exercised(&self) -> bool {
        self.matched > 0 || self.decided > 0
    }
}

impl Coverage {
    /// Rules that matched no call.
    pub fn untested(&self) -> impl Iterator<Item = &RuleCoverage> {
        self.rules.iter().filter(|rule| !rule.is_exercised())
    }

    /// Met goals and all goals: one a rule and a value, two an alternative and a clause.
    pub fn goals(&self) -> (u64, u64) {
        let of_rules = self
            .rules
            .iter()
            .map(|rule| (u64::from(rule.is_exercised()), 1));
        let of_parts = self
            .rules
            .iter()
            .flat_map(|rule| rule.parts.iter().map(PartCoverage::goals));
        of_rules
            .chain(of_parts)
            .fold((0, 0), |sum, goals| (sum.0 + goals.0, sum.1 + goals.1))
    }

    /// Met goals of a hundred, rounded down; 100 where there is nothing to meet.
    pub fn percent(&self) -> u64 {
        let (met, all) = self.goals();
        (met * 100).checked_div(all).unwrap_or(100)
    }
}

impl<'s> CoverageRun<'s> {
    /// Nothing exercised yet.
    pub fn new(set: &'s MeshSet) -> Self {
        let mut rules = Vec::new();
        let mut places = BTreeMap::new();
        for policy in &set.authorization_policies {
            if policy.has_target_refs {
                continue;
            }
            let metadata = &policy.metadata;
            places.insert(
                (metadata.namespace.clone(), metadata.name.clone()),
                rules.len(),
            );
            rules.extend(
                (1..)
                    .zip(policy.rules.iter())
                    .map(|(number, rule)| empty(policy, number, rule)),
            );
        }
        Self {
            set,
            workloads: BTreeMap::new(),
            rules,
            places,
            seen: HashSet::new(),
            calls: 0,
        }
    }

    /// Judges every case of the folder's tests.
    pub fn add_tests(&mut self) {
        for test in &self.set.tests {
            for case in &test.cases {
                self.with(&test.workload, |run, policies| {
                    if let Some(call) = case_call(policies, case) {
                        run.judge(policies, &call);
                    }
                });
            }
        }
    }

    /// Judges a recorded call.
    pub fn add_call(&mut self, call: &RecordedCall) {
        if self.seen.contains(&call.facts) {
            return;
        }
        if self.seen.len() < limits::REPLAY_KNOWN_MAX {
            self.seen.insert(call.facts.clone());
        }
        self.with(&call.facts.workload, |run, policies| {
            if let Ok(call) = PartialCall::of_record(policies, &call.facts, call.at) {
                run.judge(policies, &call);
            }
        });
    }

    /// What was exercised.
    pub fn finish(self) -> Coverage {
        Coverage {
            calls: self.calls,
            rules: self.rules,
        }
    }

    /// Runs `judge` with the policies of a workload.
    fn with(&mut self, id: &SpiffeId, judge: impl FnOnce(&mut Self, &WorkloadPolicies)) {
        let policies = match self.workloads.remove(id) {
            Some(policies) => policies,
            None => WorkloadPolicies::compile(self.set, &self.set.workload(id), 0).ok(),
        };
        if let Some(policies) = &policies {
            judge(self, policies);
        }
        self.workloads.insert(id.clone(), policies);
    }

    fn judge(&mut self, policies: &WorkloadPolicies, call: &PartialCall) {
        self.calls += 1;
        let decision = call.decide(policies, false);
        for attached in policies
            .attached
            .iter()
            .filter(|attached| attached.window.contains(call.now()))
        {
            let key = (
                attached.policy.namespace.to_string(),
                attached.policy.name.to_string(),
            );
            let Some(place) = self.places.get(&key) else {
                continue;
            };
            let found = self.rules.get_mut(*place..).unwrap_or_default();
            for (rule, (found, by)) in attached
                .rules
                .iter()
                .zip(found.iter_mut().zip(&attached.refs))
            {
                let is_by = decision
                    .by
                    .as_ref()
                    .is_some_and(|decided| decided.rule == by.rule && decided.policy == by.policy);
                found.decided += u64::from(is_by);
                judge_rule(policies, attached, call, rule, found);
            }
        }
    }
}

fn judge_rule(
    policies: &WorkloadPolicies,
    attached: &Attached,
    call: &PartialCall,
    rule: &Rule,
    found: &mut RuleCoverage,
) {
    let effect = attached.effect;
    if call.skips(rule, effect) {
        return;
    }
    let holds = call.rule(rule, effect, policies.options);
    found.matched += u64::from(holds == Some(true));
    let mut parts = found.parts.iter_mut();
    each_part(rule, &mut |part| {
        let Some(found) = parts.next() else { return };
        let holds = match part {
            Part::Alternative(clauses) => call.clauses(clauses, effect, policies.options),
            Part::Clause(clause) => call.clause(clause, effect, policies.options),
            Part::Value(clause, at) => value_holds(policies, effect, call, clause, at),
        };
        found.held += u64::from(holds == Some(true));
        found.failed += u64::from(holds == Some(false));
    });
}

/// Does this one value match, whether its list is negative or not?
fn value_holds(
    policies: &WorkloadPolicies,
    effect: Effect,
    call: &PartialCall,
    clause: &Clause,
    at: usize,
) -> Option<bool> {
    let alone = Clause {
        patterns: clause.patterns.get(at).cloned().into_iter().collect(),
        values: Vec::new(),
        is_negative: false,
        ..clause.clone()
    };
    call.clause(&alone, effect, policies.options)
}

/// A part of a rule, in the fixed order of its coverage.
enum Part<'r> {
    Alternative(&'r [Clause]),
    Clause(&'r Clause),
    Value(&'r Clause, usize),
}

fn each_part<'r>(rule: &'r Rule, visit: &mut dyn FnMut(Part<'r>)) {
    let of_clause = |clause: &'r Clause, visit: &mut dyn FnMut(Part<'r>)| {
        visit(Part::Clause(clause));
        // One value may stand for several patterns, by aliases of trust domains: then the list is judged as a whole.
        if clause.values.len() > 1 && clause.values.len() == clause.patterns.len() {
            (0..clause.values.len()).for_each(|at| visit(Part::Value(clause, at)));
        }
    };
    for alternatives in [&rule.from, &rule.to] {
        for alternative in alternatives {
            if alternatives.len() > 1 {
                visit(Part::Alternative(alternative));
            }
            for clause in alternative {
                of_clause(clause, visit);
            }
        }
    }
    for clause in &rule.when {
        of_clause(clause, visit);
    }
}

fn empty(policy: &AuthorizationPolicy, number: u32, rule: &Rule) -> RuleCoverage {
    let names = alternative_names(rule);
    let mut names = names.iter();
    let mut current = String::new();
    let mut parts = Vec::new();
    let mut left = 0_usize;
    each_part(rule, &mut |part| {
        let (kind, name, line) = match part {
            Part::Alternative(clauses) => {
                let line = clauses
                    .first()
                    .map_or(rule.location.line, |clause| clause.line);
                let name = names.clone().next().map(|(name, _)| name.clone());
                (PartKind::Alternative, name.unwrap_or_default(), line)
            }
            Part::Clause(clause) => {
                while left == 0 {
                    let Some((name, count)) = names.next() else {
                        break;
                    };
                    current.clone_from(name);
                    left = *count;
                }
                left = left.saturating_sub(1);
                (
                    PartKind::Clause,
                    format!("{current}.{}", clause.name),
                    clause.line,
                )
            }
            Part::Value(clause, at) => {
                let value = clause
                    .values
                    .get(at)
                    .map(String::as_str)
                    .unwrap_or_default();
                (
                    PartKind::Value,
                    format!("{current}.{} \"{value}\"", clause.name),
                    clause.line,
                )
            }
        };
        parts.push(PartCoverage {
            kind,
            name,
            line,
            held: 0,
            failed: 0,
        });
    });
    RuleCoverage {
        policy: PolicyRef {
            namespace: policy.metadata.namespace.as_str().into(),
            name: policy.metadata.name.as_str().into(),
        },
        effect: policy.effect.name(),
        rule: number,
        location: rule.location.clone(),
        matched: 0,
        decided: 0,
        parts,
    }
}

/// The names of the alternatives in order, each with its number of clauses.
fn alternative_names(rule: &Rule) -> Vec<(String, usize)> {
    let of = |name: &str, alternatives: &[Vec<Clause>]| -> Vec<(String, usize)> {
        alternatives
            .iter()
            .zip(1..)
            .map(|(clauses, number): (_, u32)| (format!("{name}[{number}]"), clauses.len()))
            .collect()
    };
    let mut names = of("from", &rule.from);
    names.extend(of("to", &rule.to));
    names.push(("when".to_owned(), rule.when.len()));
    names
}
