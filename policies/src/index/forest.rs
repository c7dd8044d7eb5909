//! Decision trees over items (groups of rules, or entries of a group): each node asks one thing of the call.
//!
//! An item is found through each of its keys; those without keys wait in the node's rest. Whoever searches gets a
//! superset and checks every item in full. Nodes know their smallest rule: what cannot come first is not entered.

use super::dimension::Dimension;
use super::key::KeyMap;
use super::trie::{index, narrow};
use crate::call::Call;

/// A tree, or one item, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link(pub(super) u32);

impl Link {
    pub(crate) const NOTHING: Self = Self(u32::MAX);
    const ITEM: u32 = 1 << 31;

    pub(super) fn item(item: u32) -> Self {
        Self(item | Self::ITEM)
    }

    fn as_item(self) -> Option<u32> {
        (self.0 & Self::ITEM != 0).then_some(self.0 & !Self::ITEM)
    }
}

#[derive(Debug, Clone, Copy)]
enum Node {
    Leaf { min: u32, from: u32, count: u32 },
    Split { min: u32, split: u32 },
}

#[derive(Debug)]
struct Split {
    dimension: u32,
    /// To links.
    children: KeyMap,
    /// The child of the first rule.
    first: Link,
    rest: Link,
}

/// All trees of an index.
#[derive(Debug, Default)]
pub(crate) struct Forest {
    nodes: Vec<Node>,
    splits: Vec<Split>,
    /// Items of the leaves, by their smallest rule.
    leaves: Vec<u32>,
    dimensions: Vec<Dimension>,
}

impl Forest {
    pub(super) fn set_dimensions(&mut self, dimensions: Vec<Dimension>) {
        self.dimensions = dimensions;
    }

    pub(super) fn leaf(&mut self, min: u32, items: &[u32]) -> Link {
        let from = narrow(self.leaves.len());
        self.leaves.extend_from_slice(items);
        self.node(Node::Leaf {
            min,
            from,
            count: narrow(items.len()),
        })
    }

    pub(super) fn split(
        &mut self,
        min: u32,
        dimension: u32,
        children: KeyMap,
        first: Link,
        rest: Link,
    ) -> Link {
        let split = narrow(self.splits.len());
        self.splits.push(Split {
            dimension,
            children,
            first,
            rest,
        });
        self.node(Node::Split { min, split })
    }

    fn node(&mut self, node: Node) -> Link {
        let link = Link(narrow(self.nodes.len()));
        self.nodes.push(node);
        link
    }

    /// Calls `check` with each item that may hold for the call and may come before `best`, which `check` lowers.
    pub(crate) fn search<F: FnMut(u32, &mut u32)>(
        &self,
        root: Link,
        call: Call<'_>,
        is_host_exact: bool,
        best: &mut u32,
        check: &mut F,
    ) {
        let mut link = root;
        loop {
            if link == Link::NOTHING {
                return;
            }
            if let Some(item) = link.as_item() {
                return check(item, best);
            }
            let split = match self.nodes.get(index(link.0)) {
                Some(Node::Split { min, split }) if *min < *best => self.splits.get(index(*split)),
                Some(Node::Leaf { min, from, count }) if *min < *best => {
                    let items = self.leaves.get(index(*from)..index(*from) + index(*count));
                    for item in items.unwrap_or_default() {
                        check(*item, best);
                    }
                    return;
                }
                Some(Node::Split { .. } | Node::Leaf { .. }) | None => return,
            };
            let Some(split) = split else { return };
            if let Some(dimension) = self.dimensions.get(index(split.dimension)) {
                dimension.each_value(call, is_host_exact, &mut |value| {
                    split.children.each(value, |child| {
                        self.search(Link(child), call, is_host_exact, best, check);
                    });
                });
            }
            link = split.rest;
        }
    }

    /// Visits up to `left` items near to what the call is: where nothing fits, the items of the first rule.
    pub(super) fn near(
        &self,
        link: Link,
        call: Call<'_>,
        is_host_exact: bool,
        left: &mut usize,
        visit: &mut dyn FnMut(u32),
    ) {
        if *left == 0 || link == Link::NOTHING {
            return;
        }
        if let Some(item) = link.as_item() {
            *left -= 1;
            return visit(item);
        }
        let split = match self.nodes.get(index(link.0)) {
            Some(Node::Split { split, .. }) => self.splits.get(index(*split)),
            Some(Node::Leaf { from, count, .. }) => {
                let items = self.leaves.get(index(*from)..index(*from) + index(*count));
                for item in items.unwrap_or_default().iter().take(*left) {
                    *left -= 1;
                    visit(*item);
                }
                return;
            }
            None => return,
        };
        let Some(split) = split else { return };
        let before = *left;
        if let Some(dimension) = self.dimensions.get(index(split.dimension)) {
            dimension.each_value(call, is_host_exact, &mut |value| {
                split.children.each(value, |child| {
                    self.near(Link(child), call, is_host_exact, left, visit);
                });
            });
        }
        if *left == before {
            self.near(split.first, call, is_host_exact, left, visit);
        }
        self.near(split.rest, call, is_host_exact, left, visit);
    }

    pub(super) fn bytes(&self) -> usize {
        let splits = self.splits.iter().map(|split| split.children.bytes());
        self.nodes.len() * size_of::<Node>()
            + self.leaves.len() * size_of::<u32>()
            + splits.sum::<usize>()
            + self.dimensions.len() * size_of::<Dimension>()
    }
}
