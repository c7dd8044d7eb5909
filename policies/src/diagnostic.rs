//! What is wrong with a file: where, which rule, what would be right; all of a folder at once.

use std::fmt;
use std::fmt::Write as _;

use serde::Serialize;

use crate::limits;
use crate::source::SourceFile;

/// One finding in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// False for a warning.
    pub is_error: bool,
    /// Stable code, such as `unknown-field`.
    pub code: &'static str,
    /// The file's path below the mesh folder; empty when it concerns the set.
    pub path: String,
    /// 1-based; 0 when it concerns the whole file.
    pub line: u32,
    /// 1-based, in characters; 0 when it concerns the whole file.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// The line itself and a caret below; empty without a position.
    pub snippet: String,
}

impl Diagnostic {
    pub(crate) fn error(
        code: &'static str,
        path: &str,
        line: u32,
        column: u32,
        message: String,
    ) -> Self {
        Self {
            is_error: true,
            code,
            path: excerpt(path),
            line,
            column,
            message,
            help: None,
            snippet: String::new(),
        }
    }

    /// For a person: `path:line:column: error[code]: message`, the line, a caret, the help.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if !self.path.is_empty() {
            text.push_str(&self.path);
            if self.line > 0 {
                let _ = write!(text, ":{}:{}", self.line, self.column);
            }
            text.push_str(": ");
        }
        let level = if self.is_error { "error" } else { "warning" };
        let _ = write!(text, "{level}[{}]: {}", self.code, self.message);
        if !self.snippet.is_empty() {
            text.push('\n');
            text.push_str(&self.snippet);
        }
        if let Some(help) = &self.help {
            let _ = write!(text, "\n  help: {help}");
        }
        text
    }
}

/// Every finding of a load that failed; at least one is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    pub(crate) fn unless_empty(found: Vec<Diagnostic>) -> Result<(), Self> {
        if found.is_empty() {
            Ok(())
        } else {
            Err(Self(found))
        }
    }

    /// In the order of the files.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// All of them, rendered, with an empty line between.
    pub fn render(&self) -> String {
        let all: Vec<String> = self.0.iter().map(Diagnostic::render).collect();
        all.join("\n\n")
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

impl std::error::Error for Diagnostics {}

/// A place in a file: 1-based line and column, and how many characters a caret underlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) width: u32,
}

/// Gathers the findings of one file; bounded.
pub(crate) struct Problems<'a> {
    file: &'a SourceFile,
    pub(crate) found: Vec<Diagnostic>,
    pub(crate) is_full: bool,
    errors: usize,
}

impl<'a> Problems<'a> {
    pub(crate) fn new(file: &'a SourceFile) -> Self {
        Self {
            file,
            found: Vec::new(),
            is_full: false,
            errors: 0,
        }
    }

    pub(crate) fn error(&mut self, at: Span, code: &'static str, message: impl Into<String>) {
        self.push(at, code, message.into(), None, true);
    }

    pub(crate) fn error_with_help(
        &mut self,
        at: Span,
        code: &'static str,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.push(at, code, message.into(), help, true);
    }

    pub(crate) fn warning(
        &mut self,
        at: Span,
        code: &'static str,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.push(at, code, message.into(), help, false);
    }

    /// What the engine knows of but does not do: refused by name, never ignored.
    pub(crate) fn not_supported(&mut self, at: Span, what: &str) {
        self.error(at, "not-supported", format!("{what} is not supported yet"));
    }

    /// False when so much was found that looking for near misses in long lists is no longer worth it.
    pub(crate) fn has_room(&self) -> bool {
        self.found.len() < limits::NEAR_MISSES_MAX
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    fn push(
        &mut self,
        at: Span,
        code: &'static str,
        message: String,
        help: Option<String>,
        is_error: bool,
    ) {
        self.errors += usize::from(is_error);
        // Warnings never crowd out errors.
        let count = if is_error {
            self.errors
        } else {
            self.found.len() + 1
        };
        if count > limits::DIAGNOSTICS_MAX {
            self.is_full = true;
            return;
        }
        let message = tame(&message);
        let mut diagnostic = Diagnostic::error(code, &self.file.path, at.line, at.column, message);
        diagnostic.is_error = is_error;
        diagnostic.help = help.map(|help| tame(&help));
        diagnostic.snippet = snippet(&self.file.content, at);
        self.found.push(diagnostic);
    }
}

pub(crate) fn snippet(content: &str, at: Span) -> String {
    let Some(line) = at.line.checked_sub(1) else {
        return String::new();
    };
    // SPEC: YAML 1.2.2 section 5.4: a lone carriage return ends a line as well.
    let mut lines = content
        .split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'));
    let Some(text) = lines.nth(usize::try_from(line).unwrap_or(usize::MAX)) else {
        return String::new();
    };
    let column = usize::try_from(at.column.saturating_sub(1)).unwrap_or(0);
    // A long line is shown from a little before the place.
    let start = if column > limits::EXCERPT_CHARS_MAX / 2 {
        column - limits::EXCERPT_CHARS_MAX / 4
    } else {
        0
    };
    let shown: String = text
        .chars()
        .skip(start)
        .take(limits::EXCERPT_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let caret_at = column - start;
    let room = shown.chars().count().saturating_sub(caret_at).max(1);
    let width = usize::try_from(at.width).unwrap_or(1).clamp(1, room);
    let number = at.line.to_string();
    let margin = " ".repeat(number.len());
    format!(
        " {margin} |\n {number} | {shown}\n {margin} | {}{}",
        " ".repeat(caret_at),
        "^".repeat(width)
    )
}

/// The first findings, errors before warnings, and one that says so when there were more.
pub(crate) fn bounded(mut all: Vec<Diagnostic>, is_full: bool) -> Vec<Diagnostic> {
    if !is_full && all.len() <= limits::DIAGNOSTICS_MAX {
        return all;
    }
    // A warning never hides an error.
    all.sort_by_key(|diagnostic| !diagnostic.is_error);
    all.truncate(limits::DIAGNOSTICS_MAX);
    let message = format!(
        "only the first {} findings are shown",
        limits::DIAGNOSTICS_MAX
    );
    let mut more = Diagnostic::error("more", "", 0, 0, message);
    more.is_error = all.iter().any(|diagnostic| diagnostic.is_error);
    all.push(more);
    all
}

/// Without control characters, wherever a part of the message came from.
fn tame(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() && c != '\n' {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

/// The user's text, bounded, without control characters: it cannot forge a second line.
pub(crate) fn excerpt(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(limits::EXCERPT_CHARS_MAX)
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect();
    if text.chars().nth(limits::EXCERPT_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// `did you mean` for a name that is close to one of `known`.
pub(crate) fn near_miss<'k>(
    name: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<String> {
    let lower = |text: &str| -> Vec<char> {
        let chars = text.chars().take(limits::NEAR_MISS_CHARS_MAX);
        chars.flat_map(char::to_lowercase).collect()
    };
    let wanted = lower(name);
    let allowed = (wanted.len() / 3).clamp(1, 3);
    let (distance, best) = known
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= allowed)
        .map(|candidate| (edit_distance(&wanted, &lower(candidate)), candidate))
        .min()?;
    (distance <= allowed).then(|| format!("did you mean `{best}`?"))
}

/// Optimal string alignment: insert, remove, replace, swap of neighbours.
fn edit_distance(wanted: &[char], other: &[char]) -> usize {
    let same = |(a, b): &(&char, &char)| a == b;
    let start = wanted.iter().zip(other).take_while(same).count();
    let (wanted, other) = (wanted.split_at(start).1, other.split_at(start).1);
    let end = wanted
        .iter()
        .rev()
        .zip(other.iter().rev())
        .take_while(same)
        .count();
    let (wanted, other) = (
        wanted.split_at(wanted.len() - end).0,
        other.split_at(other.len() - end).0,
    );
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in wanted.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let at =
                |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut cost = (at(&row, j) + usize::from(a != b))
                .min(at(&row, j + 1) + 1)
                .min(at(&next, j) + 1);
            let is_swap =
                i > 0 && j > 0 && wanted.get(i - 1) == Some(b) && other.get(j - 1) == Some(a);
            if is_swap {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_named_and_far_ones_are_not() {
        let known = ["methods", "notMethods", "paths", "hosts", "ports"];
        for (name, want) in [
            ("methdos", Some("methods")),
            ("method", Some("methods")),
            ("Paths", Some("paths")),
            ("notMethod", Some("notMethods")),
            ("mehtods", Some("methods")),
            ("aths", Some("paths")),
            ("pathss", Some("paths")),
            ("zebra", None),
            ("", None),
        ] {
            let want = want.map(|want| format!("did you mean `{want}`?"));
            assert_eq!(near_miss(name, known), want, "{name}");
        }
    }

    #[test]
    fn a_caret_stands_below_the_text_and_control_characters_are_harmless() {
        let file = SourceFile {
            path: "p.yaml".into(),
            content: "a: 1\n  bad\u{1b}: 2\n".into(),
        };
        let mut problems = Problems::new(&file);
        problems.error_with_help(
            Span {
                line: 2,
                column: 3,
                width: 3,
            },
            "unknown-field",
            "unknown field `bad`",
            Some("did you mean `b`?".into()),
        );
        assert_eq!(
            problems.found[0].render(),
            "p.yaml:2:3: error[unknown-field]: unknown field `bad`\n   |\n 2 |   bad : 2\n   |   ^^^\n  help: did you mean `b`?"
        );
        assert_eq!(excerpt("a\nb"), "a\\nb");
        assert!(excerpt(&"x".repeat(500)).chars().count() <= limits::EXCERPT_CHARS_MAX + 1);
    }
}
