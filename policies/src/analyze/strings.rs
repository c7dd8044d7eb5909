//! Classes of texts: two texts are in one class when no pattern tells them apart. Each class with its shortest text.
//!
//! All patterns run side by side as one machine; its reachable states, grouped by what matches there, are the classes.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::AnalyzeError;
use super::bits::Bits;
use super::language::Language;
use super::machine::{Machine, Progress};
use crate::limits;

/// One class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextClass {
    /// Numbers of the patterns that match its texts.
    pub(crate) matching: Bits,
    /// One of its texts.
    pub(crate) witness: String,
}

/// What all patterns together remember.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    language: u32,
    sure: Bits,
    /// Pattern and its state, ascending; patterns that are decided are left out.
    open: Box<[(usize, u32)]>,
}

/// The classes of a language's texts, the shortest first.
pub(crate) fn classes(
    language: Language,
    patterns: &[Machine],
    preferred: &[String],
) -> Result<Vec<TextClass>, AnalyzeError> {
    let alphabet = alphabet(language, patterns);
    let start = start(patterns);
    let mut texts: HashMap<State, String> = HashMap::from([(start.clone(), String::new())]);
    let mut waiting = VecDeque::from([start]);
    let mut found: Vec<TextClass> = Vec::new();
    let mut numbers: BTreeMap<Bits, usize> = BTreeMap::new();
    let mut work = 0_usize;
    while let Some(state) = waiting.pop_front() {
        let text = texts.get(&state).cloned().unwrap_or_default();
        if language.accepts(state.language) {
            let matching = matching(&state, patterns);
            numbers.entry(matching.clone()).or_insert_with(|| {
                found.push(TextClass {
                    matching,
                    witness: text.clone(),
                });
                found.len() - 1
            });
        }
        for c in &alphabet {
            work += 1 + state.open.len() / 8;
            if work > limits::ANALYSIS_TEXT_WORK_MAX || texts.len() > limits::ANALYSIS_STATES_MAX {
                return Err(AnalyzeError::OverBudget("classes of texts"));
            }
            let Some(next) = step(language, patterns, &state, *c) else {
                continue;
            };
            if !texts.contains_key(&next) {
                let mut longer = text.clone();
                longer.push(*c);
                texts.insert(next.clone(), longer);
                waiting.push_back(next);
            }
        }
    }
    prefer(language, patterns, preferred, &numbers, &mut found);
    Ok(found)
}

/// Ordinary texts take the place of made-up ones; the first of `preferred` wins.
fn prefer(
    language: Language,
    patterns: &[Machine],
    preferred: &[String],
    numbers: &BTreeMap<Bits, usize>,
    found: &mut [TextClass],
) {
    for text in preferred.iter().rev() {
        if !Machine::Language(language).matches(text) {
            continue;
        }
        let of_text = Bits::of(
            patterns.len(),
            (0..)
                .zip(patterns)
                .filter_map(|(number, pattern)| pattern.matches(text).then_some(number)),
        );
        if let Some(class) = numbers.get(&of_text).and_then(|at| found.get_mut(*at)) {
            class.witness.clone_from(text);
        }
    }
}

fn alphabet(language: Language, patterns: &[Machine]) -> Vec<char> {
    let mut named: Vec<char> = patterns
        .iter()
        .flat_map(Machine::letters)
        .chain(language.letters())
        .collect();
    named.sort_unstable();
    named.dedup();
    let other = language.ordinary().chars().find(|c| !named.contains(c));
    // Ordinary characters first: the shortest texts are then the ones that read best.
    named.sort_by_key(|c| (!c.is_ascii_alphanumeric() && *c != '/', *c));
    other.into_iter().chain(named).collect()
}

fn start(patterns: &[Machine]) -> State {
    gather(
        Language::START,
        Bits::empty(patterns.len()),
        (0..)
            .zip(patterns)
            .map(|(number, pattern)| (number, pattern.start())),
    )
}

fn gather(
    language: u32,
    mut sure: Bits,
    progress: impl Iterator<Item = (usize, Progress)>,
) -> State {
    let mut open = Vec::new();
    for (number, progress) in progress {
        match progress {
            Progress::Dead => {}
            Progress::Sure => sure.insert(number),
            Progress::At(at) => open.push((number, at)),
        }
    }
    State {
        language,
        sure,
        open: open.into(),
    }
}

fn step(language: Language, patterns: &[Machine], state: &State, c: char) -> Option<State> {
    let next = language.step(state.language, c)?;
    let progress = state.open.iter().filter_map(|(number, at)| {
        let pattern = patterns.get(*number)?;
        Some((*number, pattern.step(*at, c)))
    });
    Some(gather(next, state.sure.clone(), progress))
}

fn matching(state: &State, patterns: &[Machine]) -> Bits {
    let mut matching = state.sure.clone();
    for (number, at) in &state.open {
        if patterns
            .get(*number)
            .is_some_and(|pattern| pattern.accepts(*at))
        {
            matching.insert(*number);
        }
    }
    matching
}
