//! The index over the rules of one workload: finds the first rule that matches without trying them all.
//!
//! An *entry* is one rule with one of its `from` and one of its `to`. Entries whose conditions on the connection are
//! the same form a *group*: trees over groups answer what the connection alone tells, once per connection; a tree
//! over each group's entries answers the rest, per request. What a tree finds is checked in full, so a tree may
//! find too much and never too little.

mod build;
pub(crate) mod dimension;
mod filter;
mod forest;
mod grow;
mod key;
pub(crate) mod layers;
mod left;
pub(crate) mod lookup;
mod near;
#[cfg(test)]
mod tests;
mod trie;

use std::sync::Arc;

use crate::attached::Attached;
use crate::call::Call;
use crate::clause::Condition;
use crate::compile::Options;
use crate::decision::RuleRef;
use crate::schema::{Clause, Effect};

pub(crate) use build::{Budget, OverBudget};
use filter::{Filter, Request};
use forest::{Forest, Link};
pub(crate) use left::Left;
use lookup::Lookup;
use trie::index;

/// What rules are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum List {
    Deny,
    Allow,
    Audit,
    Custom,
    DryRunDeny,
    DryRunAllow,
}

impl List {
    pub(crate) const ALL: [Self; 6] = [
        Self::Deny,
        Self::Allow,
        Self::Audit,
        Self::Custom,
        Self::DryRunDeny,
        Self::DryRunAllow,
    ];

    pub(crate) fn of(attached: &Attached) -> Self {
        match (attached.effect, attached.is_dry_run) {
            (Effect::Deny, false) => Self::Deny,
            (Effect::Deny, true) => Self::DryRunDeny,
            (Effect::Allow, false) => Self::Allow,
            (Effect::Allow, true) => Self::DryRunAllow,
            (Effect::Audit, _) => Self::Audit,
            (Effect::Custom, _) => Self::Custom,
        }
    }

    pub(crate) fn effect(self) -> Effect {
        match self {
            Self::Deny | Self::DryRunDeny => Effect::Deny,
            Self::Allow | Self::DryRunAllow => Effect::Allow,
            Self::Audit => Effect::Audit,
            Self::Custom => Effect::Custom,
        }
    }
}

/// One value a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct PerList<T>([T; 6]);

impl<T> PerList<T> {
    pub(crate) fn new(make: impl FnMut(List) -> T) -> Self {
        Self(List::ALL.map(make))
    }

    pub(crate) fn of(&self, list: List) -> &T {
        let [deny, allow, audit, custom, dry_run_deny, dry_run_allow] = &self.0;
        match list {
            List::Deny => deny,
            List::Allow => allow,
            List::Audit => audit,
            List::Custom => custom,
            List::DryRunDeny => dry_run_deny,
            List::DryRunAllow => dry_run_allow,
        }
    }

    pub(crate) fn of_mut(&mut self, list: List) -> &mut T {
        let [deny, allow, audit, custom, dry_run_deny, dry_run_allow] = &mut self.0;
        match list {
            List::Deny => deny,
            List::Allow => allow,
            List::Audit => audit,
            List::Custom => custom,
            List::DryRunDeny => dry_run_deny,
            List::DryRunAllow => dry_run_allow,
        }
    }
}

/// The index of some policies. Rules are numbered in the order in which they are reported.
#[derive(Debug)]
pub(crate) struct Index {
    /// By namespace and name.
    pub(crate) policies: Vec<Arc<Attached>>,
    /// By number.
    pub(crate) rules: Box<[IndexedRule]>,
    conditions: Box<[Indexed]>,
    /// Ranges of conditions, and of rules on TCP.
    numbers: Box<[u32]>,
    entries: Box<[Entry]>,
    alternatives: Box<[Box<[Range]>]>,
    groups: Box<[Group]>,
    forest: Forest,
    roots: PerList<Link>,
}

/// A rule of a policy.
#[derive(Debug)]
pub(crate) struct IndexedRule {
    pub(crate) by: Arc<RuleRef>,
    /// Place in [`Index::policies`].
    pub(crate) policy: u32,
    /// From 0.
    pub(crate) place: u32,
}

#[derive(Debug)]
struct Indexed {
    clause: Clause,
    lookup: Option<Lookup>,
}

#[derive(Debug, Clone, Copy)]
struct Range {
    from: u32,
    count: u32,
}

impl Range {
    /// Without the first of them.
    fn from(self, skipped: u32) -> Self {
        Self {
            from: self.from + skipped,
            count: self.count - skipped,
        }
    }
}

/// Conditions on the request; all of them, and one of the alternatives.
#[derive(Debug, Clone, Copy)]
struct Entry {
    rule: u32,
    filter: Filter,
    /// How many of the conditions, at their start, the filter says in full.
    said: u32,
    conditions: Range,
    alternatives: Option<u32>,
}

/// Entries with the same conditions on the connection.
#[derive(Debug)]
struct Group {
    list: List,
    min: u32,
    conditions: Range,
    /// Place of the policy, where it holds for a while only.
    windowed: Option<u32>,
    /// By rule.
    entries: Range,
    /// A tree over them; nothing where they are few and tried in turn.
    requests: Link,
    /// Rules that hold on TCP if the conditions on the connection do, in order (rules 54 to 57).
    tcp: Range,
}

/// What an index is asked.
#[derive(Clone, Copy)]
pub(crate) struct Question<'q> {
    pub(crate) call: Call<'q>,
    pub(crate) options: Options,
    /// Rules of the index that no longer exist.
    pub(crate) removed: Option<&'q Removed>,
    /// What the connection leaves, where that is known.
    pub(crate) left: Option<&'q PerList<Left>>,
    request: Request<'q>,
}

impl<'q> Question<'q> {
    pub(crate) fn new(call: Call<'q>, options: Options) -> Self {
        Self {
            call,
            options,
            removed: None,
            left: None,
            request: Request::new(call),
        }
    }

    fn is_removed(&self, rule: u32) -> bool {
        self.removed.is_some_and(|removed| removed.contains(rule))
    }
}

/// A set of rules by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Removed(Box<[u64]>);

impl Removed {
    pub(crate) fn new(rules: usize, removed: impl Iterator<Item = usize>) -> Self {
        let mut words = vec![0_u64; rules.div_ceil(64)];
        for rule in removed {
            if let Some(word) = words.get_mut(rule / 64) {
                *word |= 1 << (rule % 64);
            }
        }
        Self(words.into())
    }

    pub(crate) fn contains(&self, rule: u32) -> bool {
        let rule = index(rule);
        self.0
            .get(rule / 64)
            .is_some_and(|word| word >> (rule % 64) & 1 == 1)
    }
}

impl Index {
    /// Is there any rule of the list?
    pub(crate) fn has(&self, list: List) -> bool {
        *self.roots.of(list) != Link::NOTHING
    }

    /// The first rule of the list that matches.
    pub(crate) fn first(&self, list: List, question: &Question<'_>) -> Option<&IndexedRule> {
        let mut best = u32::MAX;
        let effect = list.effect();
        match question.left.map(|left| left.of(list)) {
            Some(Left::Known {
                entries, groups, ..
            }) => {
                let mut entries = entries.iter();
                if let Some(entry) = entries.find(|left| self.left_holds(left, effect, question)) {
                    best = entry.rule;
                }
                for group in groups.iter().filter_map(|group| self.group(*group)) {
                    if group.min >= best {
                        break;
                    }
                    self.first_in(group, effect, question, &mut best);
                }
            }
            Some(Left::All) | None => {
                self.each_group(list, question, &mut best, |_, group, best| {
                    self.first_in(group, effect, question, best);
                });
            }
        }
        self.rules.get(index(best))
    }

    fn each_group(
        &self,
        list: List,
        question: &Question<'_>,
        best: &mut u32,
        mut visit: impl FnMut(u32, &Group, &mut u32),
    ) {
        let Question { call, options, .. } = question;
        let effect = list.effect();
        self.forest.search(
            *self.roots.of(list),
            *call,
            options.is_host_exact,
            best,
            &mut |number, best| {
                if let Some(group) = self.group(number)
                    && group.min < *best
                    && self.all_hold(group.conditions, effect, question)
                {
                    visit(number, group, best);
                }
            },
        );
    }

    fn first_in(&self, group: &Group, effect: Effect, question: &Question<'_>, best: &mut u32) {
        if !self.holds_now(group, question) {
            return;
        }
        match question.call {
            Call::Tcp(..) => {
                let mut rules = self.numbers_in(group.tcp).iter().copied();
                if let Some(rule) = rules.find(|rule| !question.is_removed(*rule)) {
                    *best = rule.min(*best);
                }
            }
            Call::Http(_) if group.requests == Link::NOTHING => {
                let mut entries = self.entries_in(group.entries).iter();
                if let Some(entry) = entries
                    .find(|entry| entry.rule >= *best || self.entry_holds(entry, effect, question))
                {
                    *best = entry.rule.min(*best);
                }
            }
            Call::Http(_) => self.forest.search(
                group.requests,
                question.call,
                question.options.is_host_exact,
                best,
                &mut |number, best| {
                    if let Some(entry) = self.entries.get(index(number))
                        && entry.rule < *best
                        && self.entry_holds(entry, effect, question)
                    {
                        *best = entry.rule;
                    }
                },
            ),
        }
    }

    fn entry_holds(&self, entry: &Entry, effect: Effect, question: &Question<'_>) -> bool {
        entry.filter.passes(question.request) && self.rest_holds(entry, effect, question)
    }

    /// What the filter does not say.
    fn rest_holds(&self, entry: &Entry, effect: Effect, question: &Question<'_>) -> bool {
        !question.is_removed(entry.rule)
            && self.all_hold(entry.conditions.from(entry.said), effect, question)
            && self.alternative_holds(entry, effect, question)
    }

    fn alternative_holds(&self, entry: &Entry, effect: Effect, question: &Question<'_>) -> bool {
        let alternatives = entry
            .alternatives
            .and_then(|number| self.alternatives.get(index(number)));
        alternatives.is_none_or(|alternatives| {
            alternatives
                .iter()
                .any(|conditions| self.all_hold(*conditions, effect, question))
        })
    }

    fn holds_now(&self, group: &Group, question: &Question<'_>) -> bool {
        group
            .windowed
            .and_then(|policy| self.policies.get(index(policy)))
            .is_none_or(|policy| policy.window.contains(question.call.now()))
    }

    fn all_hold(&self, conditions: Range, effect: Effect, question: &Question<'_>) -> bool {
        self.numbers_in(conditions)
            .iter()
            .all(|number| self.holds(*number, effect, question))
    }

    fn holds(&self, condition: u32, effect: Effect, question: &Question<'_>) -> bool {
        self.conditions
            .get(index(condition))
            .is_some_and(|indexed| {
                let condition = Condition {
                    clause: &indexed.clause,
                    lookup: indexed.lookup.as_ref(),
                };
                condition.holds(effect, question.call, question.options)
            })
    }

    fn numbers_in(&self, range: Range) -> &[u32] {
        self.numbers
            .get(index(range.from)..index(range.from) + index(range.count))
            .unwrap_or_default()
    }

    fn entries_in(&self, range: Range) -> &[Entry] {
        self.entries
            .get(index(range.from)..index(range.from) + index(range.count))
            .unwrap_or_default()
    }

    fn group(&self, number: u32) -> Option<&Group> {
        self.groups.get(index(number))
    }
}
