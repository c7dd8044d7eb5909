//! Canonical JSON: one text per value, one line, printable ASCII wherever a terminal could be fooled.
//!
//! Keys sorted by bytes, no spaces, control and direction characters escaped (threat 38). Pure.

use std::fmt::Write as _;

use serde_json::Value;

/// The canonical text of a value.
pub fn to_canonical(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push('{');
            for (position, key) in keys.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_string(out, key);
                out.push(':');
                write_value(out, map.get(key).unwrap_or(&Value::Null));
            }
            out.push('}');
        }
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if must_escape(c) => {
                let mut units = [0_u16; 2];
                for unit in c.encode_utf16(&mut units) {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Control characters, line separators, and characters that change the direction of text.
fn must_escape(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_has_one_canonical_text() {
        for (value, want) in [
            (
                json!({"b": 1, "a": [true, null, "x"]}),
                r#"{"a":[true,null,"x"],"b":1}"#,
            ),
            (
                json!("a\nb\u{1b}[31m\u{7f}"),
                r#""a\u000ab\u001b[31m\u007f""#,
            ),
            (json!("\u{202e}evil\u{2028}"), r#""\u202eevil\u2028""#),
            (json!("quote \" back \\ ü €"), r#""quote \" back \\ ü €""#),
            (json!(-5), "-5"),
            (json!({}), "{}"),
        ] {
            assert_eq!(to_canonical(&value), want);
        }
    }

    proptest::proptest! {
        #[test]
        fn threat_38_canonical_text_is_one_line_and_parses_back(text in "\\PC*|[\\x00-\\x20\\x7f-\\u{9f}\"\\\\\\u{2028}]*") {
            let value = json!({ "field": text });
            let line = to_canonical(&value);
            proptest::prop_assert!(!line.chars().any(char::is_control));
            proptest::prop_assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
        }
    }
}
