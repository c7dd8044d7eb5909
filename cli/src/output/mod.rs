//! What a command prints: rows with named columns, as a table, JSON, JSON lines or CSV.

pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod table;

use crate::exit::{Exit, Failure, Outcome};
use clap::ValueEnum;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::clock::{Clock as _, SystemClock};
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for a person.
    Table,
    /// One JSON array.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values with a header (RFC 4180).
    Csv,
}

/// One printed thing: values by column key.
pub(crate) type Row = Map<String, Value>;

/// Rows and the columns of their table; JSON prints every value that a row has.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    columns: Vec<&'static str>,
    rows: Vec<Row>,
}

impl Rows {
    /// No rows yet, with these columns in the table.
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; anything but a JSON object is dropped.
    pub(crate) fn push(&mut self, row: Value) {
        if let Value::Object(row) = row {
            self.rows.push(row);
        }
    }

    /// Prints all rows.
    pub(crate) fn print(&self, format: Format) -> Outcome {
        let text = match format {
            Format::Table => table::table(&self.columns, &self.rows),
            Format::Json => json::array(&self.rows),
            Format::Jsonl => json::lines(&self.rows),
            Format::Csv => table::csv(&self.columns, &self.rows),
        };
        put(&text)?;
        Ok(Exit::Yes)
    }
}

/// One thing with named values: a two-column table, else as `Rows` prints it.
pub(crate) fn print_one(row: Value, format: Format) -> Outcome {
    let Value::Object(row) = row else {
        return Ok(Exit::Yes);
    };
    let text = match format {
        Format::Table => table::facts(&row),
        Format::Json | Format::Jsonl => json::lines(std::slice::from_ref(&row)),
        Format::Csv => {
            let keys: Vec<&str> = row.keys().map(String::as_str).collect();
            table::csv(&keys, std::slice::from_ref(&row))
        }
    };
    put(&text)?;
    Ok(Exit::Yes)
}

/// Writes to stdout. A reader that has gone away (`| head`) ends the command without a word.
pub(crate) fn put(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::silent()),
        Err(error) => Err(Failure::usage(format!("cannot write to stdout: {error}"))),
    }
}

/// A value as a cell shows it: strings bare and escaped, lists joined.
pub(crate) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => escape_text(text),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| cell(Some(item)))
            .collect::<Vec<_>>()
            .join(", "),
        Some(other @ Value::Object(_)) => escape_text(&other.to_string()),
    }
}

/// Text of another party without control characters, so that it cannot move the cursor or forge a line.
pub(crate) fn escape_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        let reorders = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || reorders {
            let _ = write!(escaped, "{}", character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// The time on this machine.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// A Unix time in seconds as RFC 3339, or null where it is unset.
pub(crate) fn time_of_secs(secs: i64) -> Value {
    if secs == 0 {
        Value::Null
    } else {
        Value::String(Timestamp::from_unix_secs(secs).rfc3339())
    }
}

/// A Unix time in milliseconds as RFC 3339, or null where it is unset.
pub(crate) fn time_of_millis(millis: i64) -> Value {
    if millis == 0 {
        Value::Null
    } else {
        Value::String(Timestamp::from_unix_millis(millis).rfc3339())
    }
}

/// A span for a person: its two largest units.
pub(crate) fn span(duration: std::time::Duration) -> String {
    let secs = duration.as_secs();
    let (days, hours, minutes) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60);
    if days > 0 {
        format!("{days}d {hours}h")
    } else if hours > 0 {
        format!("{hours}h {minutes}m")
    } else if minutes > 0 {
        format!("{minutes}m {}s", secs % 60)
    } else {
        format!("{secs}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn a_cell_shows_its_value_without_control_characters() {
        let table = [
            (json!(null), ""),
            (json!("a"), "a"),
            (json!("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb"),
            (json!("\u{202e}evil"), "\\u{202e}evil"),
            (json!(true), "yes"),
            (json!(7), "7"),
            (json!(["a", "b"]), "a, b"),
        ];
        for (value, want) in table {
            assert_eq!(cell(Some(&value)), want, "{value}");
        }
    }

    #[test]
    fn a_span_shows_its_two_largest_units() {
        let table = [
            (0, "0s"),
            (59, "59s"),
            (61, "1m 1s"),
            (3_700, "1h 1m"),
            (90_000, "1d 1h"),
        ];
        for (secs, want) in table {
            assert_eq!(span(Duration::from_secs(secs)), want);
        }
    }
}
