//! Functions of all dimensions as decision diagrams: reduced, ordered, shared, so that equal functions are one node.
//!
//! A leaf is a number: 0 and 1 for sets of requests, other numbers for decisions. Every operation is exact; one that
//! would take more than the budget is refused.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::AnalyzeError;
use super::bits::Bits;

/// A function: a leaf, or a node of a [`Diagram`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Function {
    /// The same everywhere.
    Leaf(u32),
    /// Depends on a dimension.
    Node(usize),
}

/// No request.
pub(crate) const NEVER: Function = Function::Leaf(0);
/// Every request.
pub(crate) const ALWAYS: Function = Function::Leaf(1);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Node {
    dimension: usize,
    /// A partition of the dimension's atoms; no two edges lead to the same function.
    edges: Vec<(Bits, Function)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    /// The right side where the left is not 0, else 0.
    Where,
    Or,
    Minus,
    /// The left side where it is not 0, else the right.
    Else,
    /// Left times this, plus right.
    Pair(u32),
}

/// A product of atom sets, one a dimension that matters, and the leaf there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    /// Dimension and its atoms, ascending by dimension. A dimension that is not named does not matter.
    pub(crate) sides: Vec<(usize, Bits)>,
    pub(crate) leaf: u32,
}

/// All functions over the same dimensions.
#[derive(Debug)]
pub(crate) struct Diagram {
    /// Atoms of each dimension.
    sizes: Vec<usize>,
    nodes: Vec<Rc<Node>>,
    known: HashMap<Rc<Node>, usize>,
    done: HashMap<(Operation, Function, Function), Function>,
    steps_left: usize,
}

impl Diagram {
    pub(crate) fn new(sizes: Vec<usize>, steps_max: usize) -> Self {
        Self {
            sizes,
            nodes: Vec::new(),
            known: HashMap::new(),
            done: HashMap::new(),
            steps_left: steps_max,
        }
    }

    /// What of the budget is left.
    pub(crate) fn steps_left(&self) -> usize {
        self.steps_left
    }

    pub(crate) fn size(&self, dimension: usize) -> usize {
        self.sizes.get(dimension).copied().unwrap_or(0)
    }

    /// The requests with one of these atoms.
    pub(crate) fn with(&mut self, dimension: usize, atoms: &Bits) -> Function {
        let rest = Bits::full(self.size(dimension)).minus(atoms);
        self.branch(dimension, [(atoms.clone(), ALWAYS), (rest, NEVER)])
    }

    /// A function that is chosen by a dimension; the sets are a partition of its atoms.
    pub(crate) fn branch(
        &mut self,
        dimension: usize,
        edges: impl IntoIterator<Item = (Bits, Function)>,
    ) -> Function {
        let mut merged: BTreeMap<Function, Bits> = BTreeMap::new();
        for (atoms, function) in edges {
            if atoms.is_empty() {
                continue;
            }
            match merged.get_mut(&function) {
                Some(known) => *known = known.or(&atoms),
                None => {
                    merged.insert(function, atoms);
                }
            }
        }
        if merged.len() <= 1 {
            return merged.into_keys().next().unwrap_or(NEVER);
        }
        let node = Rc::new(Node {
            dimension,
            edges: merged
                .into_iter()
                .map(|(function, atoms)| (atoms, function))
                .collect(),
        });
        let next = self.nodes.len();
        let number = *self.known.entry(Rc::clone(&node)).or_insert(next);
        if number == next {
            self.nodes.push(node);
        }
        Function::Node(number)
    }

    pub(crate) fn and(&mut self, a: Function, b: Function) -> Result<Function, AnalyzeError> {
        self.apply(Operation::Where, a, b)
    }

    /// `then` where the condition holds, else 0.
    pub(crate) fn only(
        &mut self,
        condition: Function,
        then: Function,
    ) -> Result<Function, AnalyzeError> {
        self.apply(Operation::Where, condition, then)
    }

    pub(crate) fn or(&mut self, a: Function, b: Function) -> Result<Function, AnalyzeError> {
        self.apply(Operation::Or, a, b)
    }

    pub(crate) fn minus(&mut self, a: Function, b: Function) -> Result<Function, AnalyzeError> {
        self.apply(Operation::Minus, a, b)
    }

    pub(crate) fn not(&mut self, a: Function) -> Result<Function, AnalyzeError> {
        self.minus(ALWAYS, a)
    }

    /// The first where it is not 0, else the second.
    pub(crate) fn or_else(&mut self, a: Function, b: Function) -> Result<Function, AnalyzeError> {
        self.apply(Operation::Else, a, b)
    }

    /// Both at once: `a * width + b`.
    pub(crate) fn pair(
        &mut self,
        a: Function,
        b: Function,
        width: u32,
    ) -> Result<Function, AnalyzeError> {
        self.apply(Operation::Pair(width), a, b)
    }

    /// Any of them, halves first, so that no intermediate result is larger than needed.
    pub(crate) fn any(&mut self, all: &[Function]) -> Result<Function, AnalyzeError> {
        match all {
            [] => Ok(NEVER),
            [one] => Ok(*one),
            _ => {
                let (left, right) = all.split_at(all.len() / 2);
                let (left, right) = (self.any(left)?, self.any(right)?);
                self.or(left, right)
            }
        }
    }

    pub(crate) fn all(&mut self, all: &[Function]) -> Result<Function, AnalyzeError> {
        all.iter()
            .rev()
            .try_fold(ALWAYS, |so_far, next| self.and(*next, so_far))
    }

    fn apply(
        &mut self,
        operation: Operation,
        a: Function,
        b: Function,
    ) -> Result<Function, AnalyzeError> {
        if let Some(known) = shortcut(operation, a, b) {
            return Ok(known);
        }
        if let Some(known) = self.done.get(&(operation, a, b)) {
            return Ok(*known);
        }
        let dimension = self.dimension(a).min(self.dimension(b));
        let mut edges = Vec::new();
        let (left, right) = (self.edges_at(a, dimension), self.edges_at(b, dimension));
        for (of_a, next_a) in &left {
            for (of_b, next_b) in &right {
                self.steps_left = self
                    .steps_left
                    .checked_sub(1)
                    .ok_or(AnalyzeError::OverBudget("steps of the set algebra"))?;
                let atoms = match (of_a, of_b) {
                    (Some(of_a), Some(of_b)) => of_a.and(of_b),
                    (Some(atoms), None) | (None, Some(atoms)) => atoms.clone(),
                    (None, None) => Bits::full(self.size(dimension)),
                };
                if !atoms.is_empty() {
                    let next = self.apply(operation, *next_a, *next_b)?;
                    edges.push((atoms, next));
                }
            }
        }
        let found = self.branch(dimension, edges);
        self.done.insert((operation, a, b), found);
        Ok(found)
    }

    fn node(&self, function: Function) -> Option<&Rc<Node>> {
        match function {
            Function::Leaf(_) => None,
            Function::Node(number) => self.nodes.get(number),
        }
    }

    fn dimension(&self, function: Function) -> usize {
        self.node(function)
            .map_or(usize::MAX, |node| node.dimension)
    }

    /// `None` stands for every atom.
    fn edges_at(&self, function: Function, dimension: usize) -> Vec<(Option<Bits>, Function)> {
        match self.node(function) {
            Some(node) if node.dimension == dimension => node
                .edges
                .iter()
                .map(|(atoms, next)| (Some(atoms.clone()), *next))
                .collect(),
            _ => vec![(None, function)],
        }
    }

    /// How a function splits at a dimension that comes first in its order.
    pub(crate) fn split(&self, function: Function, dimension: usize) -> Vec<(Bits, Function)> {
        self.edges_at(function, dimension)
            .into_iter()
            .map(|(atoms, next)| {
                let all = || Bits::full(self.size(dimension));
                (atoms.unwrap_or_else(all), next)
            })
            .collect()
    }

    /// The disjoint regions where the leaf is `wanted`.
    pub(crate) fn regions(
        &self,
        function: Function,
        is_wanted: &dyn Fn(u32) -> bool,
        regions_max: usize,
    ) -> Result<Vec<Region>, AnalyzeError> {
        let mut found = Vec::new();
        let mut open = vec![(function, Vec::new())];
        while let Some((function, sides)) = open.pop() {
            match (function, self.node(function)) {
                (Function::Leaf(leaf), _) => {
                    if is_wanted(leaf) {
                        found.push(Region { sides, leaf });
                    }
                }
                (Function::Node(_), Some(node)) => {
                    for (atoms, next) in node.edges.iter().rev() {
                        if matches!(next, Function::Leaf(leaf) if !is_wanted(*leaf)) {
                            continue;
                        }
                        let mut sides: Vec<(usize, Bits)> = sides.clone();
                        sides.push((node.dimension, atoms.clone()));
                        open.push((*next, sides));
                    }
                }
                (Function::Node(_), None) => {}
            }
            if found.len() + open.len() > regions_max {
                return Err(AnalyzeError::OverBudget("regions of an answer"));
            }
        }
        Ok(found)
    }

    /// The leaf for one atom a dimension.
    #[cfg(test)]
    pub(crate) fn leaf(&self, function: Function, atoms: &[usize]) -> u32 {
        match function {
            Function::Leaf(leaf) => leaf,
            Function::Node(number) => {
                let node = &self.nodes[number];
                let atom = atoms[node.dimension];
                let edge = node.edges.iter().find(|(set, _)| set.contains(atom));
                self.leaf(edge.unwrap().1, atoms)
            }
        }
    }
}

fn shortcut(operation: Operation, a: Function, b: Function) -> Option<Function> {
    use Function::Leaf;
    match (operation, a, b) {
        (Operation::Where, NEVER, _) | (Operation::Where | Operation::Minus, _, NEVER) => {
            Some(if operation == Operation::Minus {
                a
            } else {
                NEVER
            })
        }
        (Operation::Where, Leaf(_), _) | (Operation::Or | Operation::Else, NEVER, _) => Some(b),
        (Operation::Or | Operation::Else, _, NEVER) => Some(a),
        (Operation::Or, ALWAYS, _) | (Operation::Or, _, ALWAYS) => Some(ALWAYS),
        (Operation::Where | Operation::Or | Operation::Else, _, _) if a == b => Some(a),
        (Operation::Else, Leaf(_), _) => Some(a),
        (Operation::Minus, NEVER, _) | (Operation::Minus, _, ALWAYS) => Some(NEVER),
        (Operation::Minus, _, _) if a == b => Some(NEVER),
        (Operation::Pair(width), Leaf(a), Leaf(b)) => {
            Some(Leaf(a.saturating_mul(width).saturating_add(b)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 3] = [3, 2, 4];

    fn every() -> Vec<Vec<usize>> {
        let mut all = vec![vec![]];
        for size in SIZES {
            all = all
                .into_iter()
                .flat_map(|atoms: Vec<usize>| {
                    (0..size).map(move |atom| [atoms.clone(), vec![atom]].concat())
                })
                .collect();
        }
        all
    }

    #[test]
    fn every_operation_agrees_with_its_meaning_point_by_point() {
        let mut diagram = Diagram::new(SIZES.to_vec(), 100_000);
        let sets: Vec<Function> = (0..40_usize)
            .map(|seed| {
                let sides: Vec<Function> = SIZES
                    .iter()
                    .enumerate()
                    .map(|(dimension, size)| {
                        let chosen = (0..*size).filter(|atom| {
                            !(seed * 7 + dimension * 3 + atom * 5).is_multiple_of(3)
                        });
                        diagram.with(dimension, &Bits::of(*size, chosen))
                    })
                    .collect();
                let product = diagram.all(&sides).unwrap();
                if seed % 2 == 0 {
                    diagram.not(product).unwrap()
                } else {
                    product
                }
            })
            .collect();
        for pair in sets.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            let and = diagram.and(a, b).unwrap();
            let or = diagram.or(a, b).unwrap();
            let minus = diagram.minus(a, b).unwrap();
            let shown = diagram.only(a, Function::Leaf(7)).unwrap();
            let chain = diagram.or_else(shown, b).unwrap();
            let both = diagram.pair(a, b, 10).unwrap();
            for atoms in every() {
                let (x, y) = (diagram.leaf(a, &atoms), diagram.leaf(b, &atoms));
                assert_eq!(diagram.leaf(and, &atoms), x & y);
                assert_eq!(diagram.leaf(or, &atoms), x | y);
                assert_eq!(diagram.leaf(minus, &atoms), x & (1 - y));
                assert_eq!(diagram.leaf(chain, &atoms), if x == 1 { 7 } else { y });
                assert_eq!(diagram.leaf(both, &atoms), x * 10 + y);
            }
            let regions = diagram.regions(both, &|leaf| leaf != 0, 1_000).unwrap();
            for atoms in every() {
                let holding: Vec<u32> = regions
                    .iter()
                    .filter(|region| {
                        let mut sides = region.sides.iter();
                        sides.all(|(dimension, set)| set.contains(atoms[*dimension]))
                    })
                    .map(|region| region.leaf)
                    .collect();
                let want = diagram.leaf(both, &atoms);
                assert_eq!(holding, if want == 0 { vec![] } else { vec![want] });
            }
        }
    }

    #[test]
    fn equal_sets_are_one_node_and_the_budget_is_a_refusal() {
        let mut diagram = Diagram::new(SIZES.to_vec(), 100);
        let a = diagram.with(0, &Bits::single(3, 0));
        let b = diagram.with(2, &Bits::single(4, 1));
        let either = diagram.or(a, b).unwrap();
        let (not_a, not_b) = (diagram.not(a).unwrap(), diagram.not(b).unwrap());
        let neither = diagram.and(not_a, not_b).unwrap();
        assert_eq!(diagram.not(neither).unwrap(), either);
        let mut small = Diagram::new(SIZES.to_vec(), 1);
        let a = small.with(0, &Bits::single(3, 0));
        let b = small.with(1, &Bits::single(2, 0));
        assert!(matches!(small.or(a, b), Err(AnalyzeError::OverBudget(_))));
    }
}
