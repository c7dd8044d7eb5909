//! Rows as JSON.

use super::Row;
use serde_json::Value;

/// One array, an element a row.
pub(super) fn array(rows: &[Row]) -> String {
    let values: Vec<Value> = rows.iter().cloned().map(Value::Object).collect();
    let text = serde_json::to_string_pretty(&values).unwrap_or_else(|_| "[]".to_owned());
    format!("{text}\n")
}

/// One object a line.
pub(super) fn lines(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        text.push_str(&Value::Object(row.clone()).to_string());
        text.push('\n');
    }
    text
}
