//! Grows the trees: at each node the dimension that leaves the fewest items to check.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::dimension::Dimension;
use super::forest::{Forest, Link};
use super::key::{Key, KeyMap};
use super::trie::{index, narrow};
use crate::limits;
use crate::schema::Clause;

/// Items up to this number are checked one by one.
const LEAF_MAX: usize = 8;
/// Dimensions that are tried at a node, those of most items first.
const TRIED_MAX: usize = 6;
/// Deepest tree.
const DEPTH_MAX: usize = 8;

/// What an item can be found by: a dimension and its set of keys, each by number.
pub(super) type ItemKeys = Vec<(u32, u32)>;

/// Something to be found.
pub(super) struct Item {
    /// What the tree calls it.
    pub(super) number: u32,
    /// Its smallest rule.
    pub(super) min: u32,
    pub(super) keys: ItemKeys,
}

/// Numbers of all dimensions, keys and sets of keys, and the trees so far.
pub(super) struct Grower {
    dimensions: Vec<Dimension>,
    dimension_numbers: HashMap<Dimension, u32, FixedState>,
    keys: Vec<Key>,
    key_numbers: HashMap<Key, u32, FixedState>,
    sets: Vec<Box<[u32]>>,
    forest: Forest,
    references_left: usize,
    /// Keys that may still be looked at; without a bound a hostile set could keep the compiler busy.
    work_left: usize,
}

/// How the items of a node fall apart in one dimension.
struct Division {
    dimension: u32,
    /// (key, place of the item), sorted.
    pairs: Vec<(u32, u32)>,
    /// How many items have to be checked after it, about.
    score: usize,
}

impl Grower {
    pub(super) fn new() -> Self {
        Self {
            dimensions: Vec::new(),
            dimension_numbers: HashMap::default(),
            keys: Vec::new(),
            key_numbers: HashMap::default(),
            sets: Vec::new(),
            forest: Forest::default(),
            references_left: limits::INDEX_REFERENCES_MAX,
            work_left: limits::INDEX_WORK_MAX,
        }
    }

    pub(super) fn finish(mut self) -> Forest {
        self.forest.set_dimensions(self.dimensions);
        self.forest
    }

    /// What a clause can be found by.
    pub(super) fn keys_of(&mut self, clause: &Clause) -> ItemKeys {
        if clause.is_negative {
            return ItemKeys::new();
        }
        Dimension::of(&clause.field)
            .into_iter()
            .filter_map(|dimension| {
                let keys = dimension.keys(clause)?;
                let mut numbers: Vec<u32> = keys.into_iter().map(|key| self.number(key)).collect();
                numbers.sort_unstable();
                let dimension = self.dimension(dimension);
                self.sets.push(numbers.into());
                Some((dimension, narrow(self.sets.len() - 1)))
            })
            .collect()
    }

    fn dimension(&mut self, dimension: Dimension) -> u32 {
        if let Some(number) = self.dimension_numbers.get(&dimension) {
            return *number;
        }
        let number = narrow(self.dimensions.len());
        self.dimensions.push(dimension.clone());
        self.dimension_numbers.insert(dimension, number);
        number
    }

    fn number(&mut self, key: Key) -> u32 {
        if let Some(number) = self.key_numbers.get(&key) {
            return *number;
        }
        let number = narrow(self.keys.len());
        self.keys.push(key.clone());
        self.key_numbers.insert(key, number);
        number
    }

    /// All of these must hold: of each dimension the smallest set of keys.
    pub(super) fn all_of<'k>(&self, parts: impl Iterator<Item = &'k ItemKeys>) -> ItemKeys {
        let mut keys = ItemKeys::new();
        for (dimension, set) in parts.flatten() {
            match keys.iter_mut().find(|(known, _)| known == dimension) {
                Some((_, known)) if self.size(*set) < self.size(*known) => *known = *set,
                Some(_) => {}
                None => keys.push((*dimension, *set)),
            }
        }
        keys
    }

    /// One of these must hold: what they have in common, with the keys of all.
    pub(super) fn any_of(&mut self, alternatives: &[ItemKeys]) -> ItemKeys {
        let Some((first, others)) = alternatives.split_first() else {
            return ItemKeys::new();
        };
        let mut keys = ItemKeys::new();
        for (dimension, set) in first {
            let sets: Option<Vec<u32>> = others
                .iter()
                .map(|other| Some(other.iter().find(|(known, _)| known == dimension)?.1))
                .collect();
            let Some(sets) = sets else { continue };
            let mut union: Vec<u32> = std::iter::once(*set)
                .chain(sets)
                .flat_map(|set| self.set(set).iter().copied())
                .collect();
            union.sort_unstable();
            union.dedup();
            self.sets.push(union.into());
            keys.push((*dimension, narrow(self.sets.len() - 1)));
        }
        keys
    }

    fn set(&self, number: u32) -> &[u32] {
        self.sets.get(index(number)).map_or(&[], |set| set)
    }

    fn size(&self, set: u32) -> usize {
        self.set(set).len()
    }

    /// A tree that finds each of the items.
    pub(super) fn grow(&mut self, items: &[Item]) -> Link {
        let places = (0..narrow(items.len())).collect();
        self.node(items, places, &mut Vec::new())
    }

    fn node(&mut self, items: &[Item], places: Vec<u32>, used: &mut Vec<u32>) -> Link {
        let division = if places.len() <= LEAF_MAX || used.len() >= DEPTH_MAX {
            None
        } else {
            self.best_division(items, &places, used)
        };
        match division {
            Some(division) => self.split(items, &places, division, used),
            None => self.leaf(items, &places),
        }
    }

    fn leaf(&mut self, items: &[Item], places: &[u32]) -> Link {
        let mut found: Vec<(u32, u32)> = places
            .iter()
            .filter_map(|place| items.get(index(*place)))
            .map(|item| (item.min, item.number))
            .collect();
        found.sort_unstable();
        match found.as_slice() {
            [] => Link::NOTHING,
            [(_, item)] => Link::item(*item),
            [(min, _), ..] => {
                let items: Vec<u32> = found.iter().map(|(_, item)| *item).collect();
                self.forest.leaf(*min, &items)
            }
        }
    }

    fn split(
        &mut self,
        items: &[Item],
        places: &[u32],
        division: Division,
        used: &mut Vec<u32>,
    ) -> Link {
        self.references_left = self.references_left.saturating_sub(division.pairs.len());
        used.push(division.dimension);
        let rest: Vec<u32> = places
            .iter()
            .copied()
            .filter(|place| self.set_in(items, *place, division.dimension).is_none())
            .collect();
        let rest = self.node(items, rest, used);
        let mut children: Vec<(u32, u32)> = Vec::new();
        let mut first = (u32::MAX, Link::NOTHING);
        let mut before: Option<(Vec<u32>, Link)> = None;
        for run in division.pairs.chunk_by(|left, right| left.0 == right.0) {
            let Some((key, _)) = run.first() else {
                continue;
            };
            let found: Vec<u32> = run.iter().map(|(_, place)| *place).collect();
            // Long lists of one rule lead to the same child again and again.
            let child = match before.take() {
                Some((places, link)) if places == found => link,
                _ => self.node(items, found.clone(), used),
            };
            let min = min(items, &found);
            if min < first.0 {
                first = (min, child);
            }
            children.push((*key, child.0));
            before = Some((found, child));
        }
        used.pop();
        let keyed: Vec<(&Key, u32)> = children
            .iter()
            .filter_map(|(key, child)| Some((self.keys.get(index(*key))?, *child)))
            .collect();
        let children = KeyMap::new(&keyed);
        let min = min(items, places);
        self.forest
            .split(min, division.dimension, children, first.1, rest)
    }

    fn set_in(&self, items: &[Item], place: u32, dimension: u32) -> Option<&[u32]> {
        let item = items.get(index(place))?;
        let (_, set) = item.keys.iter().find(|(known, _)| *known == dimension)?;
        Some(self.set(*set))
    }

    fn best_division(&mut self, items: &[Item], places: &[u32], used: &[u32]) -> Option<Division> {
        let mut counts: HashMap<u32, usize, FixedState> = HashMap::default();
        for item in places.iter().filter_map(|place| items.get(index(*place))) {
            for (dimension, _) in &item.keys {
                *counts.entry(*dimension).or_default() += 1;
            }
        }
        let mut tried: Vec<(usize, u32)> = counts
            .into_iter()
            .filter(|(dimension, _)| !used.contains(dimension))
            .map(|(dimension, count)| (places.len() - count, dimension))
            .collect();
        tried.sort_unstable();
        tried
            .into_iter()
            .take(TRIED_MAX)
            .filter_map(|(rest, dimension)| self.divide(items, places, dimension, rest))
            .min_by_key(|division| division.score)
            // Else asking costs more than it saves.
            .filter(|division| division.score * 4 <= places.len() * 3)
    }

    fn divide(
        &mut self,
        items: &[Item],
        places: &[u32],
        dimension: u32,
        rest: usize,
    ) -> Option<Division> {
        let sets = || {
            places
                .iter()
                .filter_map(|place| Some((*place, self.set_in(items, *place, dimension)?)))
        };
        let total: usize = sets().map(|(_, set)| set.len()).sum();
        if total > self.references_left || total > self.work_left {
            return None;
        }
        let mut pairs: Vec<(u32, u32)> = Vec::with_capacity(total);
        for (place, set) in sets() {
            pairs.extend(set.iter().map(|key| (*key, place)));
        }
        pairs.sort_unstable();
        self.work_left -= total;
        let (mut squares, mut always) = (0_usize, 0_usize);
        for run in pairs.chunk_by(|left, right| left.0 == right.0) {
            let key = run.first().and_then(|(key, _)| self.keys.get(index(*key)));
            if key.is_some_and(|key| *key == Key::any()) {
                always += run.len();
            } else {
                squares += run.len() * run.len();
            }
        }
        Some(Division {
            dimension,
            score: rest + always + squares / (total - always).max(1),
            pairs,
        })
    }
}

/// The smallest rule of some items.
fn min(items: &[Item], places: &[u32]) -> u32 {
    let items = places.iter().filter_map(|place| items.get(index(*place)));
    items.map(|item| item.min).min().unwrap_or(u32::MAX)
}
