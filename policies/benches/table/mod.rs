//! The table that the benchmark prints: quantities down, numbers of rules across, the goal beside.

use std::collections::BTreeMap;

/// The goals that the project has set itself, by quantity; a list goes by size.
const GOALS: [(&str, &str); 9] = [
    ("allowed, ns", "60 / 150 / 250 / 500"),
    ("denied, ns", "60 / 150 / 250 / 500"),
    ("allowed, with its connection, ns", ""),
    ("denied, with its connection, ns", ""),
    ("heap allocations, allowed", "0"),
    ("heap allocations, denied", ""),
    ("explaining a deny adds, ns", "1,000"),
    ("compile, ms", "200 at 10,000"),
    ("change one policy, ms", "5"),
];

/// Figures by quantity and size, in the order in which a reader wants them.
pub(crate) struct Table {
    sizes: Vec<usize>,
    figures: BTreeMap<String, BTreeMap<usize, f64>>,
    others: Vec<String>,
}

impl Table {
    pub(crate) fn new(sizes: &[usize]) -> Self {
        Self {
            sizes: sizes.to_vec(),
            figures: BTreeMap::new(),
            others: Vec::new(),
        }
    }

    pub(crate) fn put(&mut self, name: &str, size: usize, figure: f64) {
        if !self.figures.contains_key(name) && !GOALS.iter().any(|(known, _)| *known == name) {
            self.others.push(name.to_owned());
        }
        self.figures
            .entry(name.to_owned())
            .or_default()
            .insert(size, figure);
    }

    /// One quantity divided by another.
    pub(crate) fn ratio(&mut self, name: &str, over: &str, under: &str) {
        for size in self.sizes.clone() {
            let figure = |name: &str| self.figures.get(name)?.get(&size).copied();
            if let (Some(over), Some(under)) = (figure(over), figure(under)) {
                self.put(name, size, over / under);
            }
        }
    }

    pub(crate) fn print(&self) {
        let sizes: Vec<String> = self
            .sizes
            .iter()
            .map(|size| grouped(*size as f64))
            .collect();
        let heads: String = sizes.iter().map(|size| format!(" {size:>13} |")).collect();
        println!("| {:<50} |{heads} {:>20} |", "rules", "goal");
        let line: String = sizes
            .iter()
            .map(|_| format!("{}:|", "-".repeat(14)))
            .collect();
        println!("|{}|{line}{}:|", "-".repeat(52), "-".repeat(21));
        let known = GOALS.iter().map(|(name, goal)| (*name, *goal));
        let others = self.others.iter().map(|name| (name.as_str(), ""));
        for (name, goal) in known.chain(others) {
            let Some(row) = self.figures.get(name) else {
                continue;
            };
            let cell = |size: &usize| {
                row.get(size)
                    .map_or_else(String::new, |figure| shown(name, *figure))
            };
            let cells: String = self
                .sizes
                .iter()
                .map(|size| format!(" {:>13} |", cell(size)))
                .collect();
            println!("| {name:<50} |{cells} {goal:>20} |");
        }
    }
}

fn shown(name: &str, figure: f64) -> String {
    if name.contains(" / ") {
        format!(
            "{}x",
            if figure < 10.0 {
                format!("{figure:.1}")
            } else {
                grouped(figure)
            }
        )
    } else if figure != 0.0
        && figure < 100.0
        && (name.ends_with("ms") || name.contains("allocations"))
    {
        format!("{figure:.2}")
    } else {
        grouped(figure)
    }
}

/// `12,345`
fn grouped(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let count = digits.trim_start_matches('-').len();
    let mut text = String::new();
    for (at, digit) in digits.trim_start_matches('-').chars().enumerate() {
        if at > 0 && (count - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if digits.starts_with('-') {
        text.insert(0, '-');
    }
    text
}
