//! Rows as a table for a person and as CSV for a spreadsheet.

use super::{Row, cell};
use comfy_table::{Cell, ContentArrangement, Table, presets};
use std::fmt::Write as _;

/// A table with a header; one line that says so when there is nothing.
pub(super) fn table(columns: &[&'static str], rows: &[Row]) -> String {
    if rows.is_empty() {
        return "nothing to show\n".to_owned();
    }
    let mut table = empty();
    table.set_header(columns.iter().map(|column| Cell::new(title(column))));
    for row in rows {
        table.add_row(
            columns
                .iter()
                .map(|column| Cell::new(cell(row.get(*column)))),
        );
    }
    finished(&table)
}

/// The values of one row, one a line.
pub(super) fn facts(row: &Row) -> String {
    let mut table = empty();
    for (key, value) in row {
        table.add_row([Cell::new(title(key)), Cell::new(cell(Some(value)))]);
    }
    finished(&table)
}

/// Comma-separated values (RFC 4180). A cell that a spreadsheet would run as a formula is quoted with `'`.
pub(super) fn csv(columns: &[&str], rows: &[Row]) -> String {
    let mut text = columns.join(",");
    text.push_str("\r\n");
    for row in rows {
        let cells: Vec<String> = columns
            .iter()
            .map(|column| csv_cell(&cell(row.get(*column))))
            .collect();
        let _ = write!(text, "{}\r\n", cells.join(","));
    }
    text
}

/// An empty table in the style of this command.
pub(crate) fn empty() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// The table as text, without the blanks that a column leaves at the end of a line.
pub(crate) fn finished(table: &Table) -> String {
    let mut text = String::new();
    for line in table.to_string().lines() {
        let line = line.trim_end();
        text.push_str(line.strip_prefix(' ').unwrap_or(line));
        text.push('\n');
    }
    text
}

fn title(column: &str) -> String {
    column.replace('_', " ").to_uppercase()
}

fn csv_cell(text: &str) -> String {
    let guarded = if text.starts_with(['=', '+', '@', '-']) {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if guarded.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn row(value: Value) -> Row {
        let Value::Object(row) = value else {
            panic!("not an object: {value}")
        };
        row
    }

    #[test]
    fn csv_quotes_what_a_spreadsheet_would_misread() {
        let rows = [
            row(json!({"a": "x,y", "b": "=1+1"})),
            row(json!({"a": "say \"hi\""})),
        ];
        assert_eq!(
            csv(&["a", "b"], &rows),
            "a,b\r\n\"x,y\",'=1+1\r\n\"say \"\"hi\"\"\",\r\n"
        );
    }

    #[test]
    fn a_table_has_a_header_and_no_trailing_blanks() {
        let text = table(
            &["spiffe_id", "n"],
            &[row(json!({"spiffe_id": "x", "n": 1}))],
        );
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("SPIFFE ID"), "{text}");
        assert!(lines.iter().all(|line| !line.ends_with(' ')), "{text}");
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(table(&["a"], &[]), "nothing to show\n");
    }
}
