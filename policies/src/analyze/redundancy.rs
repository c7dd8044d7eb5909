//! Rules that change nothing, with proof: what a rule matches is empty, or the rest of the policies decides the same
//! about all of it, for every workload that has it.

use std::collections::BTreeMap;

use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;

use super::AnalyzeError;
use super::decide::{RuleSet, rule_sets, universe};
use super::diagram::{Diagram, Function, NEVER};
use super::question::{AnalyzeOptions, Question};
use super::side::Side;
use crate::limits;
use crate::object::Location;
use crate::schema::{AuthorizationPolicy, Effect};
use crate::set::MeshSet;

/// A rule without effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleRule {
    /// `NAMESPACE/NAME` of its policy.
    pub policy: String,
    /// From 1.
    pub rule: u32,
    /// Where it stands.
    pub location: Location,
    /// Why.
    pub reason: Idleness,
}

/// Why a rule changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idleness {
    /// No request can match it.
    NeverMatches,
    /// These rules of the same effect match all that it matches and that no DENY rule takes away.
    Covered(Vec<String>),
    /// An ALLOW rule of which these DENY rules take everything.
    Denied(Vec<String>),
}

/// What the set's rules contribute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedundancyReport {
    /// In the order of the policies. All of them may be removed at once.
    pub idle: Vec<IdleRule>,
    /// Workloads whose rules were not compared; none of their rules is reported.
    pub unanswered: Vec<NotCompared>,
}

/// A workload whose rules were not compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotCompared {
    /// SPIFFE ID.
    pub workload: SpiffeId,
    /// Why.
    pub error: AnalyzeError,
}

/// A rule, by the place of its policy in the set and its number.
type Key = (usize, u32);

/// Finds the rules that change nothing for any workload of the set.
pub fn redundancy(set: &MeshSet) -> RedundancyReport {
    let options = AnalyzeOptions {
        now: Timestamp::default(),
        includes_dry_run: false,
        // What a rule does to bare connections counts as well: not every workload says what it speaks.
        includes_connections: true,
    };
    let mut report = RedundancyReport::default();
    let mut verdicts: BTreeMap<Key, Option<Idleness>> = BTreeMap::new();
    let mut seen: Vec<Vec<usize>> = Vec::new();
    let mut steps_left = limits::ANALYSIS_LINT_STEPS_MAX;
    for identity in &set.identities {
        let id = &identity.spiffe_id;
        let workload = set.workload(id);
        let Ok(side) = Side::new(set, &workload) else {
            continue;
        };
        let attached: Vec<usize> = side
            .attached
            .iter()
            .filter(|policy| options.includes(policy))
            .filter_map(|policy| place(set, policy))
            .collect();
        // The same policies and the same tokens mean the same rules.
        if attached.is_empty() || (side.jwt_rules.is_empty() && seen.contains(&attached)) {
            continue;
        }
        if side.jwt_rules.is_empty() {
            seen.push(attached.clone());
        }
        match judge(&side, &options, &mut steps_left) {
            Ok(found) => merge(set, &mut verdicts, found),
            Err(error) => {
                // What failed has used an unknown part.
                steps_left /= 2;
                report.unanswered.push(NotCompared {
                    workload: id.clone(),
                    error,
                });
                for number in attached {
                    let rules = set.authorization_policies.get(number);
                    for (rule, _) in rules.into_iter().flat_map(super::side::rules) {
                        verdicts.insert((number, rule), None);
                    }
                }
            }
        }
    }
    report.idle = verdicts
        .into_iter()
        .filter_map(|((policy, rule), reason)| idle(set, policy, rule, reason?))
        .collect();
    report
}

fn place(set: &MeshSet, policy: &AuthorizationPolicy) -> Option<usize> {
    set.authorization_policies
        .iter()
        .position(|known| std::ptr::eq(known, policy))
}

fn idle(set: &MeshSet, policy: usize, number: u32, reason: Idleness) -> Option<IdleRule> {
    let policy = set.authorization_policies.get(policy)?;
    let (_, rule) = super::side::rules(policy).find(|(found, _)| *found == number)?;
    Some(IdleRule {
        policy: format!("{}/{}", policy.metadata.namespace, policy.metadata.name),
        rule: number,
        location: rule.location.clone(),
        reason,
    })
}

/// A rule is idle if it is for every workload; the names of all that cover it are kept.
fn merge(
    set: &MeshSet,
    verdicts: &mut BTreeMap<Key, Option<Idleness>>,
    found: Vec<(&AuthorizationPolicy, u32, Option<Idleness>)>,
) {
    for (policy, rule, reason) in found {
        let Some(number) = place(set, policy) else {
            continue;
        };
        match verdicts.get_mut(&(number, rule)) {
            None => {
                verdicts.insert((number, rule), reason);
            }
            Some(known) => *known = known.take().zip(reason).map(|(a, b)| joined(a, b)),
        }
    }
}

fn joined(one: Idleness, other: Idleness) -> Idleness {
    use Idleness::{Covered, Denied, NeverMatches};
    let both = |mut a: Vec<String>, b: Vec<String>| {
        a.extend(b);
        a.sort();
        a.dedup();
        a
    };
    match (one, other) {
        (NeverMatches, known) | (known, NeverMatches) => known,
        (Denied(a), Denied(b)) => Denied(both(a, b)),
        (Covered(a) | Denied(a), Covered(b) | Denied(b)) => Covered(both(a, b)),
    }
}

type Judged<'a> = Vec<(&'a AuthorizationPolicy, u32, Option<Idleness>)>;

/// The rules of one workload, the last first: of two that are the same the later one is idle.
fn judge<'a>(
    side: &Side<'a>,
    options: &AnalyzeOptions,
    steps_left: &mut usize,
) -> Result<Judged<'a>, AnalyzeError> {
    if *steps_left == 0 {
        return Err(AnalyzeError::OverBudget("work for a whole set"));
    }
    let mut question = Question::new(&[side], options, *steps_left, &|_| {})?;
    let vocabulary = question.vocabulary.clone();
    let mut builder = question.builder();
    let all = universe(&mut builder, &vocabulary)?;
    let includes = |policy: &_| options.includes(policy);
    let rules = rule_sets(&mut builder, side, all, &includes)?;
    let diagram = &mut question.diagram;
    let mut is_kept = vec![true; rules.len()];
    let mut found = Vec::new();
    for (index, rule) in rules.iter().enumerate().rev() {
        let others: Vec<&RuleSet<'_>> = rules
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index && is_kept.get(*other) == Some(&true))
            .map(|(_, other)| other)
            .collect();
        let reason = reason(diagram, rule, &others)?;
        if let (Some(_), Some(kept)) = (&reason, is_kept.get_mut(index)) {
            *kept = false;
        }
        found.push((rule.policy, rule.number, reason));
    }
    *steps_left = question.diagram.steps_left();
    Ok(found)
}

fn reason(
    diagram: &mut Diagram,
    rule: &RuleSet<'_>,
    others: &[&RuleSet<'_>],
) -> Result<Option<Idleness>, AnalyzeError> {
    if rule.matching == NEVER {
        return Ok(Some(Idleness::NeverMatches));
    }
    let of = |effect: Effect| {
        others
            .iter()
            .copied()
            .filter(move |other| {
                other.policy.effect == effect && other.policy.provider == rule.policy.provider
            })
            .collect::<Vec<_>>()
    };
    let mut left = rule.matching;
    if rule.policy.effect == Effect::Allow {
        let (rest, by) = without(diagram, left, &of(Effect::Deny))?;
        if rest == NEVER {
            return Ok(Some(Idleness::Denied(by)));
        }
        left = rest;
    }
    let (rest, by) = without(diagram, left, &of(rule.policy.effect))?;
    Ok((rest == NEVER).then_some(Idleness::Covered(by)))
}

/// What the rules leave of a set; when that is nothing, also a list of rules of which none can be spared.
fn without(
    diagram: &mut Diagram,
    set: Function,
    rules: &[&RuleSet<'_>],
) -> Result<(Function, Vec<String>), AnalyzeError> {
    let mut left = set;
    let mut used: Vec<&RuleSet<'_>> = Vec::new();
    for rule in rules {
        let rest = diagram.minus(left, rule.matching)?;
        if rest != left {
            used.push(rule);
            left = rest;
        }
        if left == NEVER {
            break;
        }
    }
    if left != NEVER {
        return Ok((left, Vec::new()));
    }
    let mut index = 0;
    while index < used.len() && used.len() <= limits::ANALYSIS_COVER_RULES_MAX {
        let mut fewer = used.clone();
        fewer.remove(index);
        let mut rest = set;
        for rule in &fewer {
            rest = diagram.minus(rest, rule.matching)?;
        }
        if rest == NEVER {
            used = fewer;
        } else {
            index += 1;
        }
    }
    Ok((NEVER, used.iter().map(|rule| rule.name()).collect()))
}
