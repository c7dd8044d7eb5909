//! Which ALLOW rule a refused call came closest to: a bounded number of rules that the index finds nearby is compared.

use super::forest::Link;
use super::trie::index;
use super::{Entry, Group, Index, IndexedRule, Left, List, Question, Range};
use crate::call::Call;
use crate::schema::Effect;

/// Rules of an index up to this number of entries are all compared.
const SMALL_MAX: usize = 24;
/// Else so many groups, and so many entries of each.
pub(super) const GROUPS_MAX: usize = 4;
const ENTRIES_MAX: usize = 4;
/// Alternatives of one entry that are compared.
const ALTERNATIVES_MAX: usize = 8;
/// What one failing condition on the connection weighs, and one on the request: a wrong caller is farther off.
const CONNECTION_WEIGHT: usize = 3;
const REQUEST_WEIGHT: usize = 2;

impl Index {
    /// The ALLOW rule that lacks least, with how much; of equal ones the first.
    pub(crate) fn nearest(&self, question: &Question<'_>) -> Option<(usize, &IndexedRule)> {
        let mut best = (usize::MAX, u32::MAX);
        if self.entries.len() <= SMALL_MAX {
            for group in self.groups.iter().filter(|group| group.list == List::Allow) {
                let lacks = self.failing(group.conditions, question);
                for entry in self.entries_in(group.entries) {
                    self.weigh(group, lacks, entry, question, &mut best);
                }
            }
        } else {
            self.near_groups(question, &mut |group, lacks| {
                let mut left = ENTRIES_MAX;
                if group.requests == Link::NOTHING {
                    let entries = || self.entries_in(group.entries).iter();
                    let fits = |entry: &&Entry| entry.filter.passes_path(question.request);
                    // Those of this path first.
                    let others = entries().filter(|entry| !fits(entry));
                    for entry in entries().filter(fits).chain(others).take(ENTRIES_MAX) {
                        self.weigh(group, lacks, entry, question, &mut best);
                    }
                    return;
                }
                self.near(group.requests, question, &mut left, &mut |number| {
                    if let Some(entry) = self.entries.get(index(number)) {
                        self.weigh(group, lacks, entry, question, &mut best);
                    }
                });
            });
        }
        let (weight, rule) = best;
        Some((weight, self.rules.get(index(rule))?))
    }

    /// Groups that hold for the connection; when none does, some that are found by a part of it.
    fn near_groups(&self, question: &Question<'_>, visit: &mut dyn FnMut(&Group, usize)) {
        let mut left = GROUPS_MAX;
        if let Some(Left::Known { near, .. }) = question.left.map(|left| left.of(List::Allow)) {
            for group in near.iter().filter_map(|group| self.group(*group)) {
                left -= 1;
                visit(group, 0);
            }
        } else {
            self.each_group(
                List::Allow,
                question,
                &mut u32::MAX.clone(),
                |_, group, best| {
                    if left > 0 {
                        left -= 1;
                        visit(group, 0);
                    }
                    if left == 0 {
                        // Nothing comes before the first rule: the search ends.
                        *best = 0;
                    }
                },
            );
        }
        if left == GROUPS_MAX {
            let root = *self.roots.of(List::Allow);
            self.near(root, question, &mut left, &mut |number| {
                if let Some(group) = self.group(number) {
                    visit(group, self.failing(group.conditions, question));
                }
            });
        }
    }

    fn near(
        &self,
        root: Link,
        question: &Question<'_>,
        left: &mut usize,
        visit: &mut dyn FnMut(u32),
    ) {
        let is_host_exact = question.options.is_host_exact;
        self.forest
            .near(root, question.call, is_host_exact, left, visit);
    }

    /// `lacks`: how many of the group's conditions fail.
    fn weigh(
        &self,
        group: &Group,
        lacks: usize,
        entry: &Entry,
        question: &Question<'_>,
        best: &mut (usize, u32),
    ) {
        let connection = CONNECTION_WEIGHT * lacks;
        // WHY: nothing is lighter than one condition on the request: the call was refused.
        let may_be_best = (connection.max(REQUEST_WEIGHT), entry.rule) < *best;
        if !may_be_best || question.is_removed(entry.rule) || !self.holds_now(group, question) {
            return;
        }
        if matches!(question.call, Call::Tcp(..))
            && !self.numbers_in(group.tcp).contains(&entry.rule)
        {
            *best = (usize::MAX, entry.rule).min(*best);
            return;
        }
        let failing = |conditions| self.failing(conditions, question);
        let alternatives = entry
            .alternatives
            .and_then(|number| self.alternatives.get(index(number)))
            .and_then(|all| {
                let some = all.iter().take(ALTERNATIVES_MAX);
                some.map(|conditions| failing(*conditions)).min()
            });
        let request = failing(entry.conditions) + alternatives.unwrap_or_default();
        *best = (connection + REQUEST_WEIGHT * request, entry.rule).min(*best);
    }

    fn failing(&self, conditions: Range, question: &Question<'_>) -> usize {
        self.numbers_in(conditions)
            .iter()
            .filter(|number| !self.holds(**number, Effect::Allow, question))
            .count()
    }
}
