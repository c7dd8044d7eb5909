//! Which requests two sets of policies decide differently: all of them, as disjoint regions, each with an example that
//! both engines confirm.

use std::collections::BTreeSet;

use ravelin_proto::spiffe_id::SpiffeId;
use serde::Serialize;

use super::AnalyzeError;
use super::decide::{ALLOW, DENY, Decided, Table, decide, universe};
use super::describe::{Condition, conditions};
use super::diagram::{Function, Region};
use super::question::{AnalyzeOptions, Question};
use super::sample::{Sample, Verdict, judge, sample};
use super::side::Side;
use super::spelling;
use super::vocabulary::Vocabulary;
use crate::limits;
use crate::set::MeshSet;

/// What changes between two sets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DifferenceReport {
    /// Workloads that were compared.
    pub workloads: usize,
    /// By workload.
    pub differences: Vec<Difference>,
    /// Changes that are not about a set of requests in normal form.
    pub notes: Vec<Note>,
    /// Workloads that could not be compared.
    pub unanswered: Vec<Unanswered>,
}

impl DifferenceReport {
    /// No request of any workload is decided differently, and every workload was compared.
    pub fn is_empty(&self) -> bool {
        self.differences.is_empty() && self.notes.is_empty() && self.unanswered.is_empty()
    }
}

/// What becomes of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// `allow`, `deny`, `ask NAME` (an external authorizer), or `absent` (no such workload).
    pub decision: String,
    /// What decides; only when deciders are compared.
    pub by: Option<String>,
}

/// A region of requests to one workload whose decision changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// SPIFFE ID of the destination.
    pub workload: String,
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// In the old set.
    pub before: Answer,
    /// In the new set.
    pub after: Answer,
    /// Which requests: all of these hold. Empty: every request.
    pub requests: Vec<Condition>,
    /// One of them, confirmed by both engines.
    pub example: Sample,
}

/// A change that touches more than requests in normal form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Note {
    /// SPIFFE ID of the destination.
    pub workload: String,
    /// What changes.
    pub text: String,
    /// A request on which it shows, confirmed by both engines.
    pub example: Option<Sample>,
}

/// A workload without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unanswered {
    /// SPIFFE ID.
    pub workload: String,
    /// Why.
    pub reason: String,
}

/// Compares what `old` and `new` decide for every workload of either.
///
/// A change of the deciding rule alone is a difference only with `compares_deciders`.
pub fn difference(
    old: &MeshSet,
    new: &MeshSet,
    compares_deciders: bool,
    options: &AnalyzeOptions,
) -> DifferenceReport {
    let workloads: BTreeSet<&SpiffeId> = old
        .identities
        .iter()
        .chain(&new.identities)
        .map(|identity| &identity.spiffe_id)
        .collect();
    let mut report = DifferenceReport {
        workloads: workloads.len(),
        differences: Vec::new(),
        notes: Vec::new(),
        unanswered: Vec::new(),
    };
    for id in workloads {
        let comparison = Comparison {
            id,
            sides: [old, new],
            compares_deciders,
            options,
        };
        match comparison.run() {
            Ok((differences, notes)) => {
                report.differences.extend(differences);
                report.notes.extend(notes);
            }
            Err(error) => report.unanswered.push(Unanswered {
                workload: id.to_string(),
                reason: error.to_string(),
            }),
        }
    }
    report
}

struct Comparison<'a> {
    id: &'a SpiffeId,
    sides: [&'a MeshSet; 2],
    compares_deciders: bool,
    options: &'a AnalyzeOptions,
}

/// The set's view of the workload, if it has such a workload.
fn side<'a>(set: &'a MeshSet, id: &SpiffeId) -> Result<Option<Side<'a>>, AnalyzeError> {
    let is_known = set
        .identities
        .iter()
        .any(|identity| identity.spiffe_id == *id);
    if !is_known || !id.is_member_of(&set.config.trust_domain) {
        return Ok(None);
    }
    Side::new(set, &set.workload(id)).map(Some)
}

impl Comparison<'_> {
    fn run(&self) -> Result<(Vec<Difference>, Vec<Note>), AnalyzeError> {
        let [old, new] = self.sides;
        let sides = [side(old, self.id)?, side(new, self.id)?];
        let known: Vec<&Side<'_>> = sides.iter().flatten().collect();
        if known.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        if let [Some(before), Some(after)] = &sides
            && is_same(before, after)
        {
            return Ok((Vec::new(), Vec::new()));
        }
        let names = |vocabulary: &mut Vocabulary| {
            for side in &known {
                side.name_identities(vocabulary);
            }
        };
        let steps_max = limits::ANALYSIS_STEPS_MAX;
        let mut question = Question::new(&known, self.options, steps_max, &names)?;
        let mut table = Table::default();
        let functions = self.functions(&mut question, &sides, &mut table)?;
        let width = self.width(&table);
        let regions = changed(&mut question, functions, width)?;
        let mut differences = Vec::new();
        for region in regions {
            differences.push(self.difference(&question, &table, &sides, width, region)?);
        }
        let mut notes = Vec::new();
        if let [Some(before), Some(after)] = &sides {
            let is_allowed = |leaf: u32| leaf >= ALLOW;
            let mut examples = Vec::new();
            for function in functions {
                let of = |leaf: u32| is_allowed(self.verdict(leaf, &table));
                let regions = question
                    .diagram
                    .regions(function, &of, Question::regions_max())?;
                let of_side = regions.iter().take(limits::ANALYSIS_SPELLINGS_MAX);
                examples.extend(of_side.map(|region| sample(&question.space, &region.sides)));
            }
            notes = spelling::notes(before, after, &question, &examples, self.options);
        }
        Ok((differences, notes))
    }

    fn functions(
        &self,
        question: &mut Question,
        sides: &[Option<Side<'_>>; 2],
        table: &mut Table,
    ) -> Result<[Function; 2], AnalyzeError> {
        let vocabulary = question.vocabulary.clone();
        let mut builder = question.builder();
        let all = universe(&mut builder, &vocabulary)?;
        let mut verdicts = Vec::new();
        for side in sides {
            let Some(side) = side else {
                let nobody = builder.diagram.only(all, Function::Leaf(DENY))?;
                verdicts.push((nobody, Function::Leaf(0)));
                continue;
            };
            let includes = |policy: &_| self.options.includes(policy);
            let [http, connection] = decide(&mut builder, side, all, &includes, table)?;
            let both = |builder: &mut super::predicate::Builder<'_>,
                        of: fn(&Decided<'_>) -> Function| {
                builder.diagram.or_else(of(&http), of(&connection))
            };
            verdicts.push((
                both(&mut builder, |decided| decided.verdict)?,
                both(&mut builder, |decided| decided.decider)?,
            ));
        }
        let deciders = table.decider_width();
        let mut functions = [Function::Leaf(0); 2];
        for (function, (verdict, decider)) in functions.iter_mut().zip(verdicts) {
            *function = if self.compares_deciders {
                builder.diagram.pair(verdict, decider, deciders)?
            } else {
                verdict
            };
        }
        Ok(functions)
    }

    fn width(&self, table: &Table) -> u32 {
        if self.compares_deciders {
            table.width().saturating_mul(table.decider_width())
        } else {
            table.width()
        }
    }

    /// The verdict in a leaf of a side.
    fn verdict(&self, leaf: u32, table: &Table) -> u32 {
        if self.compares_deciders {
            leaf / table.decider_width()
        } else {
            leaf
        }
    }

    fn difference(
        &self,
        question: &Question,
        table: &Table,
        sides: &[Option<Side<'_>>; 2],
        width: u32,
        region: Region,
    ) -> Result<Difference, AnalyzeError> {
        let space = &question.space;
        let example = sample(space, &region.sides);
        let leaves = [region.leaf / width, region.leaf % width];
        let mut answers = Vec::new();
        for (leaf, side) in leaves.into_iter().zip(sides) {
            let verdict = self.verdict(leaf, table);
            if let Some(side) = side {
                let dry_run = self.options.includes_dry_run;
                let judged = judge(&side.engine, &example, &space.sorts, dry_run);
                confirm(self.id, verdict, &judged, table, &example)?;
            }
            let by = self.compares_deciders.then(|| {
                let decider = table.decider(leaf % table.decider_width());
                decider.unwrap_or("nothing").to_owned()
            });
            answers.push(Answer {
                decision: match side {
                    Some(_) => table.verdict_name(verdict),
                    None => "absent".to_owned(),
                },
                by,
            });
        }
        let mut answers = answers.into_iter();
        let unknown = || Answer {
            decision: String::new(),
            by: None,
        };
        let set = match sides {
            [_, Some(_)] => self.sides[1],
            _ => self.sides[0],
        };
        let workload = set.workload(self.id);
        Ok(Difference {
            workload: self.id.to_string(),
            name: format!("{}/{}", workload.namespace, workload.name),
            before: answers.next().unwrap_or_else(unknown),
            after: answers.next().unwrap_or_else(unknown),
            requests: conditions(space, &region.sides),
            example,
        })
    }
}

/// All that either engine knows is the same, so every decision is, also where the analysis could not tell why.
fn is_same(before: &Side<'_>, after: &Side<'_>) -> bool {
    before.engine.workload() == after.engine.workload()
        && before.set.config == after.set.config
        && before.set.peer_authentications == after.set.peer_authentications
        && before.identity == after.identity
        && before.jwt_rules == after.jwt_rules
        && before.attached == after.attached
}

/// The regions where the two functions differ.
fn changed(
    question: &mut Question,
    [before, after]: [Function; 2],
    width: u32,
) -> Result<Vec<Region>, AnalyzeError> {
    if before == after {
        return Ok(Vec::new());
    }
    let both = question.diagram.pair(before, after, width)?;
    let is_changed = |leaf: u32| leaf / width != leaf % width;
    question
        .diagram
        .regions(both, &is_changed, Question::regions_max())
}

/// The engine says the same as the analysis, or this is a defect that is named.
pub(crate) fn confirm(
    id: &SpiffeId,
    verdict: u32,
    judged: &Verdict,
    table: &Table,
    example: &Sample,
) -> Result<(), AnalyzeError> {
    let is_same = match judged {
        Verdict::Deny => verdict == DENY,
        Verdict::Allow => verdict == ALLOW,
        Verdict::Ask(provider) => table
            .provider(verdict)
            .is_some_and(|known| known.name == provider.name),
    };
    if is_same {
        return Ok(());
    }
    let shown = serde_json::to_string(example).unwrap_or_default();
    let decided = table.verdict_name(verdict);
    Err(AnalyzeError::Unconfirmed(format!(
        "`{id}`, {decided} expected, {judged:?} found, for {shown}"
    )))
}
