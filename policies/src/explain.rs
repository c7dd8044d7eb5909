//! Why a call was decided as it was; for a denial also which rule came closest, and what it lacked.
//!
//! Explaining looks at a bounded number of rules and takes what it needs of the call; words are made on reading.

mod fact;

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::attached::Attached;
use crate::call::Call;
use crate::clause::{clause_matches, is_skipped};
use crate::compile::WorkloadPolicies;
use crate::decision::{ALLOWED, Decision, NO_ALLOW_MATCHED, NO_POLICY, POLICY_DENIED, PolicyRef};
use crate::evaluate::decide_by;
use crate::index::List;
use crate::index::layers::{ConnectionPolicies, Match};
use crate::object::Location;
use crate::schema::{Clause, Effect, Rule};
use fact::{Fact, Place};

/// Policies of the workload that the text names.
const ATTACHED_SHOWN_MAX: usize = 20;

/// A decision with its reasons. `Display` is the text for a person.
#[derive(Clone)]
pub struct Explanation {
    /// The same as `authorize_http` gives.
    pub decision: Decision,
    by: Option<Explained>,
    nearest: Option<Explained>,
    others: Vec<(&'static str, Explained)>,
    allow_count: usize,
    attached: Arc<[Arc<Attached>]>,
}

/// The ALLOW rule that came closest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NearestMiss {
    /// Its policy.
    pub policy: PolicyRef,
    /// Its number, from 1.
    pub rule: u32,
    /// Where it stands.
    pub location: Location,
    /// What it lacked, one line a clause.
    pub missing: Vec<String>,
}

/// A rule, and what of it held or did not.
#[derive(Clone)]
struct Explained {
    policy: Arc<Attached>,
    place: usize,
    facts: Vec<Fact>,
    /// An ALLOW rule with an HTTP field, on TCP (rule 54).
    is_skipped: bool,
}

impl Explained {
    /// What holds in a rule that matched: of `from` and `to` the first that does.
    fn held(found: Match<'_>, call: Call<'_>, policies: &WorkloadPolicies) -> Option<Self> {
        let place = usize::try_from(found.rule.place).ok()?;
        let rule = found.policy.rules.get(place)?;
        let effect = found.policy.effect;
        let holds = |clause: &Clause| clause_matches(clause, effect, call, policies.options);
        let first = |alternatives: &[Vec<Clause>]| {
            alternatives
                .iter()
                .position(|clauses| clauses.iter().all(holds))
        };
        let mut facts = Vec::new();
        facts_of(rule, first(&rule.from), first(&rule.to), |place, clause| {
            facts.push(Fact::new(place, clause, call));
        });
        Some(Self {
            policy: Arc::clone(found.policy),
            place,
            facts,
            is_skipped: false,
        })
    }

    /// What a rule lacks: of `from` and `to` in the alternative that lacks least.
    fn missed(
        policy: &Arc<Attached>,
        place: usize,
        call: Call<'_>,
        policies: &WorkloadPolicies,
    ) -> Option<Self> {
        let rule = policy.rules.get(place)?;
        let fails =
            |clause: &&Clause| !clause_matches(clause, Effect::Allow, call, policies.options);
        let least = |alternatives: &[Vec<Clause>]| {
            let failing = |clauses: &Vec<Clause>| clauses.iter().filter(fails).count();
            let counts = alternatives.iter().map(failing).enumerate();
            counts.min_by_key(|(_, count)| *count).map(|(at, _)| at)
        };
        let is_skipped = is_skipped(rule, Effect::Allow, call);
        let mut facts = Vec::new();
        if !is_skipped {
            facts_of(rule, least(&rule.from), least(&rule.to), |place, clause| {
                if fails(&clause) {
                    facts.push(Fact::new(place, clause, call));
                }
            });
        }
        Some(Self {
            policy: Arc::clone(policy),
            place,
            facts,
            is_skipped,
        })
    }

    fn lines(&self) -> Vec<String> {
        if self.is_skipped {
            return vec![
                "the rule names something that only HTTP has, and this is a bare connection".into(),
            ];
        }
        let rule = self.policy.rules.get(self.place);
        let facts = self.facts.iter();
        facts
            .filter_map(|fact| Some(fact.describe(rule?)))
            .collect()
    }

    fn matched(&self) -> Vec<String> {
        let lines = self.lines();
        if lines.is_empty() {
            return vec!["the rule has no condition".into()];
        }
        lines
    }

    fn to_nearest(&self) -> Option<NearestMiss> {
        let by = self.policy.refs.get(self.place)?;
        Some(NearestMiss {
            policy: by.policy.clone(),
            rule: by.rule,
            location: by.location.clone(),
            missing: self.lines(),
        })
    }
}

/// Visits the clauses of these alternatives, and of `when`.
fn facts_of(
    rule: &Rule,
    from: Option<usize>,
    to: Option<usize>,
    mut visit: impl FnMut(Place, &Clause),
) {
    if let Some((at, clauses)) = from.and_then(|at| Some((at, rule.from.get(at)?))) {
        for (place, clause) in clauses.iter().enumerate() {
            visit(Place::From(at, place), clause);
        }
    }
    if let Some((at, clauses)) = to.and_then(|at| Some((at, rule.to.get(at)?))) {
        for (place, clause) in clauses.iter().enumerate() {
            visit(Place::To(at, place), clause);
        }
    }
    for (place, clause) in rule.when.iter().enumerate() {
        visit(Place::When(place), clause);
    }
}

/// Decides and explains. `on` is of these policies and of the call's connection.
pub(crate) fn explain(
    policies: &WorkloadPolicies,
    call: Call<'_>,
    on: Option<&ConnectionPolicies>,
) -> Explanation {
    let (decision, by) = decide_by(policies, call, on);
    let asked = policies.layers.asked(call, policies.options, on);
    let held = |list| {
        asked
            .first(list)
            .and_then(|found| Explained::held(found, call, policies))
    };
    let by = by.and_then(|found| Explained::held(found, call, policies));
    let nearest = (decision.code == NO_ALLOW_MATCHED)
        .then(|| asked.nearest())
        .flatten()
        .and_then(|(policy, place)| Explained::missed(policy, place, call, policies));
    let others = [
        (List::Custom, "CUSTOM"),
        (List::Audit, "AUDIT"),
        (List::DryRunDeny, "DENY, dry-run"),
        (List::DryRunAllow, "ALLOW, dry-run"),
    ];
    Explanation {
        by,
        nearest,
        others: others
            .into_iter()
            .filter(|(list, _)| policies.presence.has(*list, call.now()))
            .filter_map(|(list, name)| Some((name, held(list)?)))
            .collect(),
        allow_count: policies.presence.count(List::Allow, call.now()),
        attached: Arc::clone(&policies.attached),
        decision,
    }
}

impl Explanation {
    /// One line.
    pub fn reason(&self) -> String {
        let by = || match &self.decision.by {
            Some(by) => format!("rule {} of `{}` at {}", by.rule, by.policy, by.location),
            None => String::from("no rule"),
        };
        match self.decision.code {
            POLICY_DENIED => format!("a DENY policy matches: {}", by()),
            ALLOWED if self.decision.by.is_some() => format!("an ALLOW policy matches: {}", by()),
            ALLOWED => "no DENY policy matches and no ALLOW policy is attached".into(),
            NO_POLICY if self.decision.is_allowed => {
                "no policy holds for the workload and `unlistedCalls` is `allow`".into()
            }
            NO_POLICY => "no policy holds for the workload and `unlistedCalls` is `deny`".into(),
            _ => self.reason_of_miss(),
        }
    }

    fn reason_of_miss(&self) -> String {
        let text = match self.allow_count {
            0 => "no attached ALLOW policy holds at this moment".to_owned(),
            1 => "no rule of 1 attached ALLOW policy matches".to_owned(),
            count => format!("no rule of {count} attached ALLOW policies matches"),
        };
        let Some(nearest) = self.nearest() else {
            return text;
        };
        let what = nearest.missing.first();
        let colon = if what.is_some() { ": " } else { "" };
        format!(
            "{text}; closest is rule {} of `{}`{colon}{}",
            nearest.rule,
            nearest.policy,
            what.map_or("", String::as_str)
        )
    }

    /// What held in the rule that decided, one line a clause.
    pub fn matched(&self) -> Vec<String> {
        self.by.as_ref().map(Explained::matched).unwrap_or_default()
    }

    /// When no ALLOW matched: the rule that lacked least.
    pub fn nearest(&self) -> Option<NearestMiss> {
        self.nearest.as_ref()?.to_nearest()
    }

    /// Policies that hold for the workload, `NAMESPACE/NAME (EFFECT)`.
    pub fn attached(&self) -> impl ExactSizeIterator<Item = String> {
        self.attached.iter().map(|attached| attached_line(attached))
    }

    /// CUSTOM, AUDIT and dry-run rules that match as well, with what held.
    fn others(&self) -> impl Iterator<Item = Other> {
        self.others.iter().filter_map(|(effect, explained)| {
            let by = explained.policy.refs.get(explained.place)?;
            Some(Other {
                effect,
                policy: by.policy.clone(),
                rule: by.rule,
                location: by.location.clone(),
                matched: explained.matched(),
            })
        })
    }
}

#[derive(Serialize)]
struct Other {
    effect: &'static str,
    policy: PolicyRef,
    rule: u32,
    location: Location,
    matched: Vec<String>,
}

fn attached_line(attached: &Attached) -> String {
    let mut marks = attached.effect.name().to_owned();
    if attached.is_dry_run {
        marks.push_str(", dry-run");
    }
    if !attached.window.is_always() {
        marks.push_str(", for a while");
    }
    format!("{} ({marks})", attached.policy)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.decision)?;
        writeln!(f, "  {}", self.reason())?;
        for line in self.matched() {
            writeln!(f, "  matched: {line}")?;
        }
        if let Some(nearest) = self.nearest() {
            writeln!(
                f,
                "  closest: {} rule {} at {}",
                nearest.policy, nearest.rule, nearest.location
            )?;
            for line in &nearest.missing {
                writeln!(f, "    lacks: {line}")?;
            }
        }
        for other in self.others() {
            writeln!(
                f,
                "  also: {} rule {} at {} ({})",
                other.policy, other.rule, other.location, other.effect
            )?;
            for line in &other.matched {
                writeln!(f, "    matched: {line}")?;
            }
        }
        let shown: Vec<String> = self.attached().take(ATTACHED_SHOWN_MAX).collect();
        if shown.is_empty() {
            return write!(f, "  no policy holds for this workload");
        }
        write!(f, "  policies of this workload: {}", shown.join(", "))?;
        match self.attached.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Debug for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Explanation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'e> {
            decision: &'e Decision,
            reason: String,
            matched: Vec<String>,
            nearest: Option<NearestMiss>,
            others: Vec<Other>,
            attached: Vec<String>,
        }
        let shown = Shown {
            decision: &self.decision,
            reason: self.reason(),
            matched: self.matched(),
            nearest: self.nearest(),
            others: self.others().collect(),
            attached: self.attached().collect(),
        };
        shown.serialize(serializer)
    }
}
