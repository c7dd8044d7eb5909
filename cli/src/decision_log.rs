//! Reads a recorded decision log, line by line, from a file or stdin: bounded, with the number of each bad line.

use crate::exit::Failure;
use crate::limits;
use indicatif::{ProgressBar, ProgressStyle};
use ravelin_policies::{LogLine, parse_log_line};
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal as _, Read as _};
use std::path::Path;

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogRead {
    /// Lines that are no record. Each was named on stderr.
    pub(crate) bad_lines: u64,
    /// Lines of all sorts.
    pub(crate) lines: u64,
}

impl LogRead {
    /// Bad input: the result says nothing about the lines that could not be read.
    pub(crate) fn check(self) -> Result<(), Failure> {
        if self.bad_lines == 0 {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{} of {} lines are no records of the decision log",
            self.bad_lines, self.lines
        ))
        .with_help("export it with `ravelin audit query --log decision --limit 0 -o jsonl`"))
    }
}

/// Hands each record of the log to `visit`; `-` is stdin.
pub(crate) fn read(path: &Path, visit: &mut dyn FnMut(LogLine)) -> Result<LogRead, Failure> {
    if path == Path::new("-") {
        return read_lines(std::io::stdin().lock(), None, path, visit);
    }
    let file = File::open(path).map_err(|error| Failure::file("read", path, error))?;
    let bytes = file.metadata().ok().map(|metadata| metadata.len());
    read_lines(BufReader::new(file), bytes, path, visit)
}

fn read_lines(
    mut input: impl BufRead,
    bytes: Option<u64>,
    path: &Path,
    visit: &mut dyn FnMut(LogLine),
) -> Result<LogRead, Failure> {
    let bar = progress(bytes);
    let mut read = LogRead::default();
    let mut line = Vec::new();
    let line_max =
        u64::try_from(ravelin_policies::limits::RECORD_BYTES_MAX + 2).unwrap_or(u64::MAX);
    loop {
        line.clear();
        let count = input
            .by_ref()
            .take(line_max)
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::file("read", path, error))?;
        if count == 0 {
            break;
        }
        read.lines += 1;
        if read.lines > limits::LOG_LINES_MAX {
            return Err(Failure::usage(format!(
                "the log has more than {} lines",
                limits::LOG_LINES_MAX
            ))
            .with_help("export a shorter time with `--since` and `--until`"));
        }
        bar.inc(u64::try_from(count).unwrap_or(u64::MAX));
        if let Err(message) = visit_line(&line, visit) {
            read.bad_lines += 1;
            bar.suspend(|| {
                anstream::eprintln!("{}:{}: {message}", path.display(), read.lines);
            });
        }
        let is_cut = line.last() != Some(&b'\n') && u64::try_from(count) == Ok(line_max);
        if read.bad_lines >= limits::LOG_BAD_LINES_MAX || is_cut {
            bar.finish_and_clear();
            return Err(
                Failure::usage(format!("stopped at line {}", read.lines)).with_help(
                    "a record a line is expected, as `ravelin audit query --log decision -o jsonl` prints it",
                ),
            );
        }
    }
    bar.finish_and_clear();
    Ok(read)
}

fn visit_line(line: &[u8], visit: &mut dyn FnMut(LogLine)) -> Result<(), String> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let found =
        parse_log_line(text).map_err(|error| crate::output::escape_text(&error.to_string()))?;
    visit(found);
    Ok(())
}

/// On a terminal alone; the output of a pipeline stays as it is.
fn progress(bytes: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:30} {bytes}/{total_bytes} [{elapsed}, {eta} left]",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} [{elapsed}]"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &[u8]) -> (Result<LogRead, Failure>, usize) {
        let mut seen = 0;
        let read = read_lines(text, None, Path::new("-"), &mut |_| seen += 1);
        (read, seen)
    }

    #[test]
    fn good_lines_are_read_past_bad_ones_and_bad_ones_are_counted() {
        let (read, seen) = run(b"{\"log\":\"audit\"}\nnonsense\n\n\xff\n{\"log\":\"audit\"}");
        let read = read.unwrap();
        assert_eq!((read.lines, read.bad_lines, seen), (5, 2, 3));
        assert!(read.check().is_err());
    }

    #[test]
    fn a_line_without_end_and_a_file_of_another_kind_are_given_up() {
        let long = vec![b'a'; ravelin_policies::limits::RECORD_BYTES_MAX * 3];
        assert!(run(&long).0.is_err());
        assert!(run("x\n".repeat(1_000).as_bytes()).0.is_err());
    }
}
