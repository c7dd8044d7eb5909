//! Progress of a long act, on stderr: bars on a terminal, plain lines where there is none.

use crate::limits;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;

/// One act in steps.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    current: String,
    note: String,
}

impl Progress {
    /// Shows nothing until the first step.
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]");
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.enable_steady_tick(limits::TICK);
            bar
        });
        Self {
            bar,
            current: String::new(),
            note: String::new(),
        }
    }

    /// The state of the step that is under way; a new name ends the step before.
    pub(crate) fn step(&mut self, name: &str, done: u32, total: u32, note: &str) {
        if self.current != name {
            self.finish_step("done");
            name.clone_into(&mut self.current);
            if self.bar.is_none() {
                anstream::eprintln!("{name} ...");
            }
        }
        if self.bar.is_none() && !note.is_empty() && self.note != note {
            note.clone_into(&mut self.note);
            anstream::eprintln!("  {done}/{total} {note}");
        }
        if let Some(bar) = &self.bar {
            let count = if total == 0 {
                String::new()
            } else {
                format!(" {done}/{total}")
            };
            let note = if note.is_empty() {
                String::new()
            } else {
                format!(" ({note})")
            };
            bar.set_message(format!("{name}{count}{note}"));
            bar.tick();
        }
    }

    /// Ends the display; the last step came out as `how`.
    pub(crate) fn finish(&mut self, how: &str) {
        self.finish_step(how);
        self.current.clear();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn finish_step(&self, how: &str) {
        if self.current.is_empty() {
            return;
        }
        let line = format!("{}: {how}", self.current);
        match &self.bar {
            Some(bar) => bar.println(line),
            None => anstream::eprintln!("{line}"),
        }
    }
}
