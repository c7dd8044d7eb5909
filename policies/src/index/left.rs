//! What a connection leaves of the rules: a short list of entries with method and path at hand, and groups for the rest.

use super::filter::{Filter, Head, Request};
use super::forest::Link;
use super::near::GROUPS_MAX;
use super::trie::index;
use super::{Entry, Index, List, Question};
use crate::limits;
use crate::matcher::{Pattern, StringMatch};
use crate::schema::{Clause, Effect, Field};

/// Paths of one entry that are looked at one by one.
const PATHS_MAX: usize = 4;

/// What a connection leaves of a list for its requests.
#[derive(Debug, Clone, Default)]
pub(crate) enum Left {
    /// Too much to be kept: all is looked at.
    #[default]
    All,
    Known {
        /// Entries of small groups, those of the first rules first.
        entries: Box<[LeftEntry]>,
        /// The other groups, those of the first rules first.
        groups: Box<[u32]>,
        /// Some of all groups, for who asks which rule comes closest.
        near: Box<[u32]>,
    },
}

/// An entry, or one path of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeftEntry {
    filter: Filter,
    /// Where filter and this say all about the path.
    head: Option<Head>,
    pub(super) rule: u32,
    /// What has to be looked at as well, if anything has.
    entry: Option<u32>,
}

impl LeftEntry {
    fn may_hold(&self, request: Request<'_>) -> bool {
        self.filter.passes(request)
            && self
                .head
                .as_ref()
                .is_none_or(|head| self.filter.is_after(head, request))
    }
}

impl Index {
    /// What the connection leaves of a list, without what was removed.
    pub(crate) fn left_on(&self, list: List, question: &Question<'_>) -> Left {
        let mut found: Vec<(u32, u32)> = Vec::new();
        let mut end = u32::MAX;
        self.each_group(list, question, &mut end, |number, group, end| {
            found.push((group.min, number));
            if found.len() > limits::CONNECTION_GROUPS_MAX {
                // Nothing comes before the first rule: the search ends.
                *end = 0;
            }
        });
        // WHY: a group may be found more than once, so the count alone does not say whether the search was cut short.
        if end == 0 {
            return Left::All;
        }
        let near = found.iter().take(GROUPS_MAX).map(|(_, group)| *group);
        let near = near.collect();
        found.sort_unstable();
        found.dedup();
        let mut entries: Vec<LeftEntry> = Vec::new();
        let mut groups = Vec::new();
        for (_, number) in found {
            let Some(group) = self.group(number) else {
                continue;
            };
            let known = entries.len();
            if group.requests == Link::NOTHING && group.windowed.is_none() {
                for (entry, number) in self
                    .entries_in(group.entries)
                    .iter()
                    .zip(group.entries.from..)
                {
                    if !question.is_removed(entry.rule) {
                        self.take(entry, number, &mut entries);
                    }
                }
            }
            if entries.len() == known || entries.len() > limits::CONNECTION_ENTRIES_MAX {
                entries.truncate(known);
                groups.push(number);
            }
        }
        entries.sort_by_key(|left| left.rule);
        Left::Known {
            entries: entries.into(),
            groups: groups.into(),
            near,
        }
    }

    /// One for each path where that says more.
    fn take(&self, entry: &Entry, number: u32, entries: &mut Vec<LeftEntry>) {
        let conditions = self.numbers_in(entry.conditions).iter();
        let clauses = conditions.filter_map(|number| self.conditions.get(index(*number)));
        let mut paths = clauses
            .map(|indexed| &indexed.clause)
            .filter(|clause| clause.field == Field::Path);
        let is_said =
            |paths| entry.said + paths == entry.conditions.count && entry.alternatives.is_none();
        let rest = |paths| (!is_said(paths)).then_some(number);
        let (only, other) = (paths.next(), paths.next());
        let starts = only.filter(|_| other.is_none()).and_then(starts_of);
        let filters: Option<Vec<(Filter, Head)>> = starts.and_then(|starts| {
            let starts = starts.into_iter();
            starts
                .map(|(start, is_whole)| entry.filter.with_start(start.as_bytes(), is_whole))
                .collect()
        });
        let left = |filter, head, rest| LeftEntry {
            filter,
            head,
            rule: entry.rule,
            entry: rest,
        };
        match filters {
            Some(filters) => entries.extend(
                filters
                    .into_iter()
                    .map(|(filter, head)| left(filter, Some(head), rest(1))),
            ),
            None => entries.push(left(entry.filter, None, rest(0))),
        }
    }

    pub(super) fn left_holds(
        &self,
        left: &LeftEntry,
        effect: Effect,
        question: &Question<'_>,
    ) -> bool {
        left.may_hold(question.request)
            && left.entry.is_none_or(|entry| {
                let entry = self.entries.get(index(entry));
                entry.is_some_and(|entry| self.rest_holds(entry, effect, question))
            })
    }
}

/// With what a path begins that the clause lets pass, and whether that is the whole path: all that the clause says.
fn starts_of(clause: &Clause) -> Option<Vec<(&str, bool)>> {
    let is_plain = !clause.is_negative && !clause.is_all_of && clause.patterns.len() <= PATHS_MAX;
    let starts: Option<Vec<_>> = clause.patterns.iter().map(start_of).collect();
    starts.filter(|_| is_plain)
}

fn start_of(pattern: &Pattern) -> Option<(&str, bool)> {
    match pattern {
        Pattern::Text(StringMatch::Exact(text)) => Some((text, true)),
        Pattern::Text(StringMatch::Prefix(text)) => Some((text, false)),
        Pattern::Text(StringMatch::Suffix(_) | StringMatch::Present)
        | Pattern::Template(_)
        | Pattern::Address(_)
        | Pattern::Port(_)
        | Pattern::ServiceAccount { .. }
        | Pattern::RequestPrincipal { .. }
        | Pattern::Reference(_) => None,
    }
}
