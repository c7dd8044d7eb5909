//! A long list of values as a set: finds the patterns that can match a value without trying them one by one.

use super::dimension::Dimension;
use super::key::{Key, KeyMap};
use super::trie::{index, narrow};
use crate::schema::Clause;

/// Lists up to this length are tried one by one, which is faster.
const SHORT_MAX: usize = 8;

/// Patterns of one clause by key.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) dimension: Dimension,
    map: KeyMap,
    /// Ranges of `patterns`.
    runs: Box<[(u32, u32)]>,
    patterns: Box<[u32]>,
}

impl Lookup {
    /// `None` for a short list, and for one whose patterns have no keys.
    pub(crate) fn new(clause: &Clause) -> Option<Self> {
        if clause.patterns.len() <= SHORT_MAX || clause.is_all_of {
            return None;
        }
        let (dimension, keys) = Dimension::of(&clause.field)
            .into_iter()
            .filter_map(|dimension| {
                let keys = keys(&dimension, clause)?;
                Some((dimension, keys))
            })
            .max_by_key(|(_, keys)| keys.chunk_by(|left, right| left.0 == right.0).count())?;
        let mut runs = Vec::new();
        let mut patterns = Vec::with_capacity(keys.len());
        let mut numbered: Vec<(&Key, u32)> = Vec::new();
        for run in keys.chunk_by(|left, right| left.0 == right.0) {
            let Some((key, _)) = run.first() else {
                continue;
            };
            numbered.push((key, narrow(runs.len())));
            runs.push((narrow(patterns.len()), narrow(run.len())));
            patterns.extend(run.iter().map(|(_, number)| *number));
        }
        Some(Self {
            dimension,
            map: KeyMap::new(&numbered),
            runs: runs.into(),
            patterns: patterns.into(),
        })
    }

    /// True when one of the patterns that this value finds, by its number, matches.
    pub(crate) fn any(&self, value: &[u8], matches: impl Fn(usize) -> bool) -> bool {
        let mut is_found = false;
        self.map.each(value, |run| {
            if is_found {
                return;
            }
            let patterns = self.runs.get(index(run)).and_then(|(from, count)| {
                self.patterns
                    .get(index(*from)..index(*from) + index(*count))
            });
            is_found = patterns
                .unwrap_or_default()
                .iter()
                .any(|number| matches(index(*number)));
        });
        is_found
    }

    pub(crate) fn bytes(&self) -> usize {
        self.map.bytes() + self.runs.len() * 8 + self.patterns.len() * 4
    }
}

/// Key and number of each pattern, by key.
fn keys(dimension: &Dimension, clause: &Clause) -> Option<Vec<(Key, u32)>> {
    let mut keys: Vec<(Key, u32)> = (0..)
        .zip(&clause.patterns)
        .map(|(number, pattern)| Some((dimension.key(pattern)?, number)))
        .collect::<Option<_>>()?;
    keys.sort_unstable();
    Some(keys)
}
