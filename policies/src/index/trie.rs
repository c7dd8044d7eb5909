//! A radix trie over byte strings: finds all stored prefixes of a text in one walk, linear in the text (threat 61).

/// No value, no child.
const NONE: u32 = u32::MAX;

/// Prefixes (or, by [`Direction::Backward`], suffixes) with a number each.
#[derive(Debug)]
pub(crate) struct Trie {
    direction: Direction,
    nodes: Box<[Node]>,
    /// First byte of the label of each node: what its siblings are told apart by.
    firsts: Box<[u8]>,
    labels: Box<[u8]>,
}

/// From which end texts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    label: u32,
    label_bytes: u32,
    children: u32,
    child_count: u32,
    value: u32,
}

/// Keys of one subtree under construction.
struct Pending {
    node: usize,
    from: usize,
    to: usize,
    depth: usize,
}

impl Trie {
    /// Builds from texts, each at most once, in the order in which they are read.
    pub(crate) fn new(direction: Direction, texts: &[(&[u8], u32)]) -> Self {
        let mut keys: Vec<(Vec<u8>, u32)> = texts
            .iter()
            .map(|(text, value)| (oriented(direction, text), *value))
            .collect();
        keys.sort_unstable();
        let mut building = Building {
            nodes: vec![Node::EMPTY],
            firsts: vec![0],
            labels: Vec::new(),
        };
        let mut pending = vec![Pending {
            node: 0,
            from: 0,
            to: keys.len(),
            depth: 0,
        }];
        while let Some(next) = pending.pop() {
            building.expand(&keys, &next, &mut pending);
        }
        Self {
            direction,
            nodes: building.nodes.into(),
            firsts: building.firsts.into(),
            labels: building.labels.into(),
        }
    }

    /// Visits the number of every stored text that `text` begins (ends) with, shortest first.
    pub(crate) fn each(&self, text: &[u8], mut visit: impl FnMut(u32)) {
        let mut at = 0;
        let mut left = text;
        while let Some(node) = self.nodes.get(at) {
            let Some(rest) = self.strip(left, node) else {
                return;
            };
            left = rest;
            if node.value != NONE {
                visit(node.value);
            }
            let first = match self.direction {
                Direction::Forward => left.first(),
                Direction::Backward => left.last(),
            };
            let Some(child) = first.and_then(|first| self.child(node, *first)) else {
                return;
            };
            at = child;
        }
    }

    fn strip<'t>(&self, text: &'t [u8], node: &Node) -> Option<&'t [u8]> {
        let label = self
            .labels
            .get(index(node.label)..index(node.label) + index(node.label_bytes))?;
        match self.direction {
            Direction::Forward => text.strip_prefix(label),
            Direction::Backward => {
                let (rest, end) = text.split_at_checked(text.len().checked_sub(label.len())?)?;
                end.iter().rev().eq(label).then_some(rest)
            }
        }
    }

    fn child(&self, node: &Node, first: u8) -> Option<usize> {
        let from = index(node.children);
        let firsts = self.firsts.get(from..from + index(node.child_count))?;
        let offset = if firsts.len() <= 8 {
            firsts.iter().position(|byte| *byte == first)?
        } else {
            firsts.binary_search(&first).ok()?
        };
        Some(from + offset)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.nodes.len() * (size_of::<Node>() + 1) + self.labels.len()
    }
}

impl Node {
    const EMPTY: Self = Self {
        label: 0,
        label_bytes: 0,
        children: 0,
        child_count: 0,
        value: NONE,
    };
}

struct Building {
    nodes: Vec<Node>,
    firsts: Vec<u8>,
    labels: Vec<u8>,
}

impl Building {
    fn expand(&mut self, keys: &[(Vec<u8>, u32)], at: &Pending, pending: &mut Vec<Pending>) {
        let keys_here = keys.get(at.from..at.to).unwrap_or_default();
        let (Some((first, value)), Some((last, _))) = (keys_here.first(), keys_here.last()) else {
            return;
        };
        // Sorted: what the first and the last share, all share.
        let shared = first
            .iter()
            .zip(last)
            .skip(at.depth)
            .take_while(|(left, right)| left == right)
            .count()
            + at.depth;
        let label = first.get(at.depth..shared).unwrap_or_default();
        let mut node = Node {
            label: narrow(self.labels.len()),
            label_bytes: narrow(label.len()),
            children: narrow(self.nodes.len()),
            ..Node::EMPTY
        };
        self.labels.extend_from_slice(label);
        let mut from = at.from;
        if first.len() == shared {
            node.value = *value;
            from += 1;
        }
        while let Some(byte) = keys.get(from).and_then(|(key, _)| key.get(shared)) {
            if from >= at.to {
                break;
            }
            let run = keys
                .get(from..at.to)
                .unwrap_or_default()
                .partition_point(|(key, _)| key.get(shared).is_some_and(|found| found <= byte));
            pending.push(Pending {
                node: self.nodes.len(),
                from,
                to: from + run,
                depth: shared,
            });
            self.nodes.push(Node::EMPTY);
            self.firsts.push(*byte);
            node.child_count += 1;
            from += run;
        }
        if let Some(slot) = self.nodes.get_mut(at.node) {
            *slot = node;
        }
    }
}

fn oriented(direction: Direction, text: &[u8]) -> Vec<u8> {
    match direction {
        Direction::Forward => text.to_vec(),
        Direction::Backward => text.iter().rev().copied().collect(),
    }
}

/// Sizes are bounded far below `u32::MAX` by the budget of the index.
pub(super) fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Back again.
pub(super) fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_trie_finds_exactly_the_prefixes_and_suffixes(
            texts in proptest::collection::btree_set("[ab]{0,6}", 0..20),
            text in "[ab]{0,8}",
        ) {
            let texts: Vec<String> = texts.into_iter().collect();
            let pairs: Vec<(&[u8], u32)> =
                texts.iter().zip(0..).map(|(text, number)| (text.as_bytes(), number)).collect();
            for direction in [Direction::Forward, Direction::Backward] {
                let mut found = Vec::new();
                Trie::new(direction, &pairs).each(text.as_bytes(), |number| found.push(number));
                found.sort_unstable();
                let want: Vec<u32> = texts.iter().zip(0..).filter(|(key, _)| match direction {
                    Direction::Forward => text.starts_with(key.as_str()),
                    Direction::Backward => text.ends_with(key.as_str()),
                }).map(|(_, number)| number).collect();
                prop_assert_eq!(found, want);
            }
        }
    }
}
