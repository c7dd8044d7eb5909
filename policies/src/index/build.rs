//! Builds the index: rules to entries, entries to groups, groups to trees.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::filter::{Filter, is_said};
use super::forest::Link;
use super::grow::{Grower, Item, ItemKeys};
use super::lookup::Lookup;
use super::trie::{index, narrow};
use super::{Entry, Group, Index, Indexed, IndexedRule, List, PerList, Range};
use crate::attached::Attached;
use crate::limits;
use crate::matcher::Pattern;
use crate::schema::{Clause, Effect, Rule};

/// Entries of a group up to this number are tried in turn, which is faster than a tree.
const IN_TURN_MAX: usize = 16;

/// The bound that a set of rules is beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverBudget {
    pub(crate) what: &'static str,
    pub(crate) max: usize,
}

/// What the index may still take.
#[derive(Debug)]
pub(crate) struct Budget {
    entries: usize,
    patterns: usize,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self {
            entries: limits::INDEX_ENTRIES_MAX,
            patterns: limits::INDEX_PATTERNS_MAX,
            bytes: limits::INDEX_BYTES_MAX,
        }
    }

    fn take_entry(&mut self, conditions: usize) -> Result<(), OverBudget> {
        take(&mut self.entries, 1, "entries", limits::INDEX_ENTRIES_MAX)?;
        self.take_bytes(size_of::<Entry>() + conditions * size_of::<u32>())
    }

    fn take_patterns(&mut self, clause: &Clause) -> Result<(), OverBudget> {
        let count = clause.patterns.len();
        take(
            &mut self.patterns,
            count,
            "patterns",
            limits::INDEX_PATTERNS_MAX,
        )?;
        let text: usize = clause.values.iter().map(String::len).sum();
        // The pattern, its key, and where the tree names it.
        self.take_bytes(count * (size_of::<Pattern>() + 64) + 2 * text)
    }

    fn take_bytes(&mut self, bytes: usize) -> Result<(), OverBudget> {
        take(&mut self.bytes, bytes, "bytes", limits::INDEX_BYTES_MAX)
    }
}

fn take(left: &mut usize, count: usize, what: &'static str, max: usize) -> Result<(), OverBudget> {
    *left = left.checked_sub(count).ok_or(OverBudget { what, max })?;
    Ok(())
}

/// What a group is found again by: its list, its policy where that has a window, its conditions.
type GroupKey = (List, Option<u32>, Box<[u32]>);

struct PendingGroup {
    list: List,
    windowed: Option<u32>,
    conditions: Box<[u32]>,
    entries: Vec<u32>,
    tcp: Vec<u32>,
}

struct Builder<'b> {
    budget: &'b mut Budget,
    grower: Grower,
    rules: Vec<IndexedRule>,
    conditions: Vec<Indexed>,
    condition_keys: Vec<ItemKeys>,
    condition_numbers: HashMap<u64, u32, FixedState>,
    numbers: Vec<u32>,
    entries: Vec<Entry>,
    alternatives: Vec<Box<[Range]>>,
    alternative_keys: Vec<ItemKeys>,
    groups: Vec<PendingGroup>,
    group_numbers: HashMap<GroupKey, u32, FixedState>,
}

/// Conditions of a part of a rule, by what they look at.
#[derive(Debug, Clone, Default)]
struct Part {
    connection: Vec<u32>,
    request: Vec<u32>,
}

impl Part {
    fn and(parts: [&Self; 3]) -> Self {
        let join = |of: fn(&Self) -> &Vec<u32>| {
            let mut all = parts.map(|part| of(part).as_slice()).concat();
            all.sort_unstable();
            all.dedup();
            all
        };
        Self {
            connection: join(|part| &part.connection),
            request: join(|part| &part.request),
        }
    }
}

/// A rule under way.
#[derive(Clone, Copy)]
struct Target {
    list: List,
    windowed: Option<u32>,
    rule: u32,
    is_on_tcp: bool,
}

impl Index {
    /// Indexes policies, given by namespace and name. `is_on_tcp`: whether rules of a policy hold for connections
    /// without HTTP at all (rule 57).
    pub(crate) fn build(
        policies: Vec<Arc<Attached>>,
        is_on_tcp: impl Fn(&Attached) -> bool,
        budget: &mut Budget,
    ) -> Result<Self, OverBudget> {
        let mut builder = Builder::new(budget);
        for (place, policy) in (0..).zip(&policies) {
            let windowed = (!policy.window.is_always()).then_some(place);
            let is_policy_on_tcp = is_on_tcp(policy);
            for ((rule, by), number) in policy.rules.iter().zip(&policy.refs).zip(0..) {
                let target = Target {
                    list: List::of(policy),
                    windowed,
                    rule: narrow(builder.rules.len()),
                    is_on_tcp: is_policy_on_tcp && !is_for_http_alone(rule, policy.effect),
                };
                builder.rules.push(IndexedRule {
                    by: Arc::clone(by),
                    policy: place,
                    place: number,
                });
                builder.add(rule, target)?;
            }
        }
        let index = builder.finish(policies);
        Ok(index)
    }

    /// Memory of the trees, about.
    pub(crate) fn bytes(&self) -> usize {
        let lookups = self
            .conditions
            .iter()
            .filter_map(|indexed| indexed.lookup.as_ref());
        self.forest.bytes()
            + lookups.map(Lookup::bytes).sum::<usize>()
            + size_of_val(&*self.rules)
            + size_of_val(&*self.conditions)
            + size_of_val(&*self.numbers)
            + size_of_val(&*self.entries)
            + size_of_val(&*self.groups)
    }
}

/// An ALLOW rule with an HTTP field does not hold on TCP at all (rule 54).
fn is_for_http_alone(rule: &Rule, effect: Effect) -> bool {
    effect == Effect::Allow && rule.clauses().any(|clause| clause.field.is_http_only())
}

impl<'b> Builder<'b> {
    fn new(budget: &'b mut Budget) -> Self {
        Self {
            budget,
            grower: Grower::new(),
            rules: Vec::new(),
            conditions: Vec::new(),
            condition_keys: Vec::new(),
            condition_numbers: HashMap::default(),
            numbers: Vec::new(),
            entries: Vec::new(),
            alternatives: Vec::new(),
            alternative_keys: Vec::new(),
            groups: Vec::new(),
            group_numbers: HashMap::default(),
        }
    }

    fn add(&mut self, rule: &Rule, target: Target) -> Result<(), OverBudget> {
        let when = self.part(&rule.when)?;
        let from = self.parts(&rule.from)?;
        let to = self.parts(&rule.to)?;
        if from.len() * to.len() <= limits::RULE_COMBINATIONS_MAX {
            for (from, to) in from
                .iter()
                .flat_map(|from| to.iter().map(move |to| (from, to)))
            {
                self.entry(&Part::and([from, to, &when]), None, target)?;
            }
            return Ok(());
        }
        // Too many: `to` entries that ask the same of the connection stay together.
        for (connection, requests) in by_connection(&to) {
            let alternatives = self.alternatives(&requests)?;
            let to = Part {
                connection,
                request: Vec::new(),
            };
            for from in &from {
                self.entry(&Part::and([from, &to, &when]), alternatives, target)?;
            }
        }
        Ok(())
    }

    /// The alternatives of `from` or `to`; none at all is one that always holds.
    fn parts(&mut self, alternatives: &[Vec<Clause>]) -> Result<Vec<Part>, OverBudget> {
        if alternatives.is_empty() {
            return Ok(vec![Part::default()]);
        }
        alternatives
            .iter()
            .map(|clauses| self.part(clauses))
            .collect()
    }

    fn part(&mut self, clauses: &[Clause]) -> Result<Part, OverBudget> {
        let mut part = Part::default();
        for clause in clauses {
            let number = self.condition(clause)?;
            if clause.field.is_http_only() {
                part.request.push(number);
            } else {
                part.connection.push(number);
            }
        }
        Ok(part)
    }

    /// The number of a condition; equal ones have one number.
    fn condition(&mut self, clause: &Clause) -> Result<u32, OverBudget> {
        let hash = FixedState::default().hash_one((
            &clause.field,
            clause.is_negative,
            clause.is_all_of,
            &clause.patterns,
        ));
        if let Some(number) = self.condition_numbers.get(&hash)
            && let Some(known) = self.conditions.get(index(*number))
            && is_same_condition(&known.clause, clause)
        {
            return Ok(*number);
        }
        self.budget.take_patterns(clause)?;
        let number = narrow(self.conditions.len());
        self.condition_keys.push(self.grower.keys_of(clause));
        self.conditions.push(Indexed {
            lookup: Lookup::new(clause),
            // What a person reads stays with the rule.
            clause: Clause {
                field: clause.field.clone(),
                name: String::new(),
                is_negative: clause.is_negative,
                is_all_of: clause.is_all_of,
                patterns: clause.patterns.clone(),
                values: Vec::new(),
                line: clause.line,
            },
        });
        self.condition_numbers.insert(hash, number);
        Ok(number)
    }

    /// `None` when one of them always holds.
    fn alternatives(&mut self, requests: &[&Vec<u32>]) -> Result<Option<u32>, OverBudget> {
        if requests.iter().any(|conditions| conditions.is_empty()) {
            return Ok(None);
        }
        let mut ranges = Vec::new();
        let mut keys = Vec::new();
        for conditions in requests {
            self.budget
                .take_bytes((conditions.len() + 2) * size_of::<u32>())?;
            ranges.push(self.range(conditions));
            keys.push(self.keys(conditions));
        }
        let keys = self.grower.any_of(&keys);
        self.alternatives.push(ranges.into());
        self.alternative_keys.push(keys);
        Ok(Some(narrow(self.alternatives.len() - 1)))
    }

    fn keys(&self, conditions: &[u32]) -> ItemKeys {
        self.grower.all_of(
            conditions
                .iter()
                .filter_map(|number| self.condition_keys.get(index(*number))),
        )
    }

    fn range(&mut self, numbers: &[u32]) -> Range {
        let from = narrow(self.numbers.len());
        self.numbers.extend_from_slice(numbers);
        Range {
            from,
            count: narrow(numbers.len()),
        }
    }

    fn entry(
        &mut self,
        part: &Part,
        alternatives: Option<u32>,
        target: Target,
    ) -> Result<(), OverBudget> {
        self.budget
            .take_entry(part.request.len() + part.connection.len())?;
        let clause = |number: &u32| Some(&self.conditions.get(index(*number))?.clause);
        let filter = Filter::new(part.request.iter().filter_map(clause));
        let (mut request, others): (Vec<u32>, Vec<u32>) = part
            .request
            .iter()
            .partition(|number| clause(number).is_some_and(is_said));
        let said = narrow(request.len());
        request.extend(others);
        let conditions = self.range(&request);
        let group = self.group(&part.connection, target);
        if let Some(group) = self.groups.get_mut(index(group)) {
            group.entries.push(narrow(self.entries.len()));
            if target.is_on_tcp && group.tcp.last() != Some(&target.rule) {
                group.tcp.push(target.rule);
            }
        }
        self.entries.push(Entry {
            rule: target.rule,
            filter,
            said,
            conditions,
            alternatives,
        });
        Ok(())
    }

    fn group(&mut self, conditions: &[u32], target: Target) -> u32 {
        let key: GroupKey = (target.list, target.windowed, conditions.into());
        if let Some(number) = self.group_numbers.get(&key) {
            return *number;
        }
        let number = narrow(self.groups.len());
        self.groups.push(PendingGroup {
            list: target.list,
            windowed: target.windowed,
            conditions: conditions.into(),
            entries: Vec::new(),
            tcp: Vec::new(),
        });
        self.group_numbers.insert(key, number);
        number
    }

    fn finish(mut self, policies: Vec<Arc<Attached>>) -> Index {
        let pending = std::mem::take(&mut self.groups);
        let mut groups = Vec::with_capacity(pending.len());
        let mut items: PerList<Vec<Item>> = PerList::default();
        // Those of one group next to each other.
        let mut entries = Vec::with_capacity(self.entries.len());
        for (group, number) in pending.iter().zip(0..) {
            let from = narrow(entries.len());
            let of_group = group.entries.iter();
            entries.extend(of_group.filter_map(|entry| self.entries.get(index(*entry))));
            let range = Range {
                from,
                count: narrow(group.entries.len()),
            };
            let own: &[Entry] = entries.get(index(from)..).unwrap_or_default();
            let min = own.first().map_or(u32::MAX, |entry| entry.rule);
            let requests = if own.len() <= IN_TURN_MAX {
                Link::NOTHING
            } else {
                let items = own.iter().zip(from..);
                let items: Vec<Item> = items
                    .filter_map(|(entry, number)| self.item(entry, number))
                    .collect();
                self.grower.grow(&items)
            };
            items.of_mut(group.list).push(Item {
                number,
                min,
                keys: self.keys(&group.conditions),
            });
            groups.push(Group {
                list: group.list,
                min,
                conditions: self.range(&group.conditions),
                windowed: group.windowed,
                entries: range,
                requests,
                tcp: self.range(&group.tcp),
            });
        }
        let roots: PerList<Link> = PerList::new(|list| self.grower.grow(items.of(list)));
        Index {
            policies,
            rules: self.rules.into(),
            conditions: self.conditions.into(),
            numbers: self.numbers.into(),
            entries: entries.into(),
            alternatives: self.alternatives.into(),
            groups: groups.into(),
            forest: self.grower.finish(),
            roots,
        }
    }

    fn item(&self, entry: &Entry, number: u32) -> Option<Item> {
        let conditions = self
            .numbers
            .get(index(entry.conditions.from)..)?
            .get(..index(entry.conditions.count))?;
        let alternatives = entry
            .alternatives
            .and_then(|number| self.alternative_keys.get(index(number)));
        let conditions = conditions
            .iter()
            .filter_map(|number| self.condition_keys.get(index(*number)));
        Some(Item {
            number,
            min: entry.rule,
            keys: self.grower.all_of(conditions.chain(alternatives)),
        })
    }
}

fn is_same_condition(known: &Clause, clause: &Clause) -> bool {
    known.field == clause.field
        && known.is_negative == clause.is_negative
        && known.is_all_of == clause.is_all_of
        && known.patterns == clause.patterns
}

/// The `to` entries by what they ask of the connection.
fn by_connection(to: &[Part]) -> Vec<(Vec<u32>, Vec<&Vec<u32>>)> {
    let mut places: HashMap<&[u32], usize, FixedState> = HashMap::default();
    let mut found: Vec<(Vec<u32>, Vec<&Vec<u32>>)> = Vec::new();
    for part in to {
        let place = *places.entry(&part.connection).or_insert_with(|| {
            found.push((part.connection.clone(), Vec::new()));
            found.len() - 1
        });
        if let Some((_, requests)) = found.get_mut(place) {
            requests.push(&part.request);
        }
    }
    found
}
