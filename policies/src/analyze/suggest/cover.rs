//! The fewest rectangles that cover exactly the ones of a table of rows and columns.
//!
//! Finding the fewest is hard in general (biclique cover): small tables are searched through, within a budget of steps;
//! larger ones are covered greedily, which is never wrong, only perhaps not the fewest.

use std::collections::BTreeSet;

use crate::limits;

/// Every row of `rows` with every column of `columns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rectangle {
    pub(super) rows: BTreeSet<usize>,
    pub(super) columns: BTreeSet<usize>,
}

type Cell = (usize, usize);

/// Covers the table whose column `c` has the rows `columns[c]`, none of them empty.
pub(super) fn cover(columns: &[BTreeSet<usize>]) -> Vec<Rectangle> {
    let count: usize = columns.iter().map(BTreeSet::len).sum();
    if columns.len() > limits::COVER_COLUMNS_MAX || count > limits::COVER_CELLS_MAX {
        return columns
            .iter()
            .enumerate()
            .map(|(column, rows)| Rectangle {
                rows: rows.clone(),
                columns: BTreeSet::from([column]),
            })
            .collect();
    }
    let candidates = maximal(columns);
    let cells: BTreeSet<Cell> = columns
        .iter()
        .enumerate()
        .flat_map(|(column, rows)| rows.iter().map(move |row| (*row, column)))
        .collect();
    let each: BTreeSet<usize> = columns
        .iter()
        .filter_map(|rows| candidates.iter().position(|one| one.rows == *rows))
        .collect();
    let mut best = greedy(&candidates, &cells);
    if best.len() > each.len() {
        best = each.into_iter().collect();
    }
    let mut steps = limits::COVER_STEPS_MAX;
    while best.len() > 1 && count <= limits::COVER_CELLS_SEARCHED_MAX {
        let mut chosen = Vec::new();
        if !search(&candidates, &cells, best.len() - 1, &mut chosen, &mut steps) {
            break;
        }
        best = chosen;
    }
    let chosen = best
        .into_iter()
        .filter_map(|index| candidates.get(index).cloned())
        .collect();
    trim(chosen)
}

/// Every rectangle that cannot grow: row sets closed under intersection, each with all of its columns.
fn maximal(columns: &[BTreeSet<usize>]) -> Vec<Rectangle> {
    let mut sets: BTreeSet<BTreeSet<usize>> = columns.iter().cloned().collect();
    let mut fresh: Vec<BTreeSet<usize>> = sets.iter().cloned().collect();
    while let Some(rows) = fresh.pop() {
        if sets.len() >= limits::COVER_CANDIDATES_MAX {
            break;
        }
        for other in columns {
            let both: BTreeSet<usize> = rows.intersection(other).copied().collect();
            if !both.is_empty() && sets.insert(both.clone()) {
                fresh.push(both);
            }
        }
    }
    sets.into_iter()
        .map(|rows| Rectangle {
            columns: columns
                .iter()
                .enumerate()
                .filter(|(_, of)| rows.is_subset(of))
                .map(|(column, _)| column)
                .collect(),
            rows,
        })
        .collect()
}

fn gain(rectangle: &Rectangle, left: &BTreeSet<Cell>) -> usize {
    left.iter()
        .filter(|(row, column)| rectangle.rows.contains(row) && rectangle.columns.contains(column))
        .count()
}

fn without(left: &BTreeSet<Cell>, rectangle: &Rectangle) -> BTreeSet<Cell> {
    left.iter()
        .filter(|(row, column)| {
            !(rectangle.rows.contains(row) && rectangle.columns.contains(column))
        })
        .copied()
        .collect()
}

fn greedy(candidates: &[Rectangle], cells: &BTreeSet<Cell>) -> Vec<usize> {
    let mut left = cells.clone();
    let mut chosen = Vec::new();
    while !left.is_empty() {
        let best = candidates
            .iter()
            .enumerate()
            .max_by_key(|(index, rectangle)| (gain(rectangle, &left), std::cmp::Reverse(*index)));
        let Some((index, rectangle)) = best else {
            break;
        };
        left = without(&left, rectangle);
        chosen.push(index);
    }
    chosen
}

/// Is there a cover of at most `count` candidates? Tries those that take the first cell that is left.
fn search(
    candidates: &[Rectangle],
    left: &BTreeSet<Cell>,
    count: usize,
    chosen: &mut Vec<usize>,
    steps: &mut u32,
) -> bool {
    let Some((row, column)) = left.first() else {
        return true;
    };
    if count == 0 || *steps == 0 {
        return false;
    }
    for (index, rectangle) in candidates.iter().enumerate() {
        if !(rectangle.rows.contains(row) && rectangle.columns.contains(column)) {
            continue;
        }
        *steps = steps.saturating_sub(1);
        chosen.push(index);
        if search(
            candidates,
            &without(left, rectangle),
            count - 1,
            chosen,
            steps,
        ) {
            return true;
        }
        chosen.pop();
    }
    false
}

/// Takes out of each rectangle the columns that others cover anyway.
fn trim(mut chosen: Vec<Rectangle>) -> Vec<Rectangle> {
    for index in 0..chosen.len() {
        let Some(mut rectangle) = chosen.get(index).cloned() else {
            continue;
        };
        let covers = |row: usize, column: usize| {
            chosen.iter().enumerate().any(|(number, other)| {
                number != index && other.rows.contains(&row) && other.columns.contains(&column)
            })
        };
        let (rows, kept) = (rectangle.rows.clone(), rectangle.columns.len());
        rectangle
            .columns
            .retain(|column| !rows.iter().all(|row| covers(*row, *column)));
        if rectangle.columns.is_empty() || rectangle.columns.len() == kept {
            continue;
        }
        if let Some(place) = chosen.get_mut(index) {
            *place = rectangle;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn cells(rectangles: &[Rectangle]) -> BTreeSet<Cell> {
        rectangles
            .iter()
            .flat_map(|one| {
                one.rows
                    .iter()
                    .flat_map(|row| one.columns.iter().map(|column| (*row, *column)))
            })
            .collect()
    }

    /// The fewest rectangles, by trying every set of row sets.
    fn fewest(columns: &[BTreeSet<usize>], rows: usize) -> usize {
        let rectangles: Vec<Rectangle> = (1..1_usize << rows)
            .map(|bits| {
                let rows: BTreeSet<usize> = (0..rows).filter(|row| bits >> row & 1 == 1).collect();
                Rectangle {
                    columns: (0..columns.len())
                        .filter(|column| columns.get(*column).is_some_and(|of| rows.is_subset(of)))
                        .collect(),
                    rows,
                }
            })
            .filter(|one| !one.columns.is_empty())
            .collect();
        let want: BTreeSet<Cell> = columns
            .iter()
            .enumerate()
            .flat_map(|(column, rows)| rows.iter().map(move |row| (*row, column)))
            .collect();
        (0..1_usize << rectangles.len())
            .filter(|bits| {
                let chosen: Vec<Rectangle> = rectangles
                    .iter()
                    .enumerate()
                    .filter(|(index, _)| bits >> index & 1 == 1)
                    .map(|(_, one)| one.clone())
                    .collect();
                cells(&chosen) == want
            })
            .map(|bits: usize| usize::try_from(bits.count_ones()).unwrap_or(usize::MAX))
            .min()
            .unwrap_or(0)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_cover_is_exact_and_on_small_tables_the_fewest(
            columns in prop::collection::vec(prop::collection::btree_set(0..3_usize, 1..=3), 0..5),
        ) {
            let found = cover(&columns);
            let want: BTreeSet<Cell> = columns.iter().enumerate()
                .flat_map(|(column, rows)| rows.iter().map(move |row| (*row, column))).collect();
            prop_assert_eq!(cells(&found), want);
            prop_assert_eq!(found.len(), fewest(&columns, 3));
        }

        #[test]
        fn a_cover_of_a_larger_table_is_exact(
            columns in prop::collection::vec(prop::collection::btree_set(0..8_usize, 1..6), 0..24),
        ) {
            let found = cover(&columns);
            let want: BTreeSet<Cell> = columns.iter().enumerate()
                .flat_map(|(column, rows)| rows.iter().map(move |row| (*row, column))).collect();
            prop_assert_eq!(cells(&found), want);
            prop_assert!(found.len() <= columns.len());
        }
    }
}
