//! Rows of the corpus with some of their texts changed: for another text of the same row, or for a word.

use serde_json::Value;

use super::Mutator;

impl Mutator {
    /// One of the rows, as JSON, after one to six changes of its policies and calls.
    pub fn make_row(&mut self, rows: &[Value], words: &[&str]) -> Vec<u8> {
        let mut row = self.pick(rows).clone();
        let other = self.pick(rows).clone();
        if self.below(3) == 0
            && let (Some(into), Some(from)) =
                (row["policies"].as_array_mut(), other["policies"].as_array())
        {
            into.extend(from.iter().cloned());
        }
        let mut texts: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        collect(&row["policies"], &mut texts);
        collect(&row["calls"], &mut texts);
        for _ in 0..=self.below(6) {
            let part = ["policies", "policies", "calls"][self.below(3)];
            self.change_value(&mut row[part], &texts);
        }
        row.to_string().into_bytes()
    }

    /// Goes down to some place, and changes it there.
    fn change_value(&mut self, value: &mut Value, texts: &[String]) {
        match value {
            Value::String(text) => {
                let other = self.pick(texts);
                match self.below(4) {
                    0 => text.push_str(other),
                    1 => text.push('*'),
                    _ => text.clone_from(other),
                }
            }
            Value::Array(items) if !items.is_empty() => {
                let at = self.below(items.len());
                match self.below(8) {
                    0 => {
                        items.remove(at);
                    }
                    1 => {
                        let copy = items[at].clone();
                        items.push(copy);
                    }
                    _ => self.change_value(&mut items[at], texts),
                }
            }
            Value::Object(members) if !members.is_empty() => {
                let keys: Vec<String> = members.keys().cloned().collect();
                let key = self.pick(&keys).clone();
                if self.below(12) == 0 {
                    members.remove(&key);
                } else if let Some(inner) = members.get_mut(&key) {
                    self.change_value(inner, texts);
                }
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => {}
        }
    }
}

fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Object(members) => members.values().for_each(|member| collect(member, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
