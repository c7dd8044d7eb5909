//! Makes a row small while something about it stays true.

use serde_json::Value;

use super::case::{Call, Row};

/// The smallest row with one call that is found by leaving out one part after another.
pub fn shrink(row: &Row, call: &Call, is_still: &dyn Fn(&Row, &Call) -> bool) -> Row {
    let (mut row, mut call) = (row.clone(), call.clone());
    loop {
        let before = (row.policies.clone(), row.config.clone(), call.clone());
        shrink_documents(&mut row, &call, is_still);
        shrink_config(&mut row, &call, is_still);
        shrink_call(&row, &mut call, is_still);
        if before == (row.policies.clone(), row.config.clone(), call.clone()) {
            row.calls = vec![call];
            return row;
        }
    }
}

fn shrink_documents(row: &mut Row, call: &Call, is_still: &dyn Fn(&Row, &Call) -> bool) {
    let mut pointers = Vec::new();
    let all = Value::Array(row.policies.clone());
    walk(&all, String::new(), &mut pointers);
    // From the end: what is left out moves nothing that comes before it.
    for pointer in pointers.into_iter().rev() {
        let mut smaller = Value::Array(row.policies.clone());
        if !remove(&mut smaller, &pointer) {
            continue;
        }
        let Value::Array(policies) = smaller else {
            continue;
        };
        let candidate = Row {
            policies,
            ..row.clone()
        };
        if is_still(&candidate, call) {
            *row = candidate;
        }
    }
}

fn walk(value: &Value, path: String, pointers: &mut Vec<String>) {
    let mut below = |key: String, child: &Value| {
        let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
        pointers.push(path.clone());
        walk(child, path, pointers);
    };
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                below(index.to_string(), item);
            }
        }
        Value::Object(members) => {
            for (key, item) in members {
                below(key.clone(), item);
            }
        }
        _ => {}
    }
}

fn remove(value: &mut Value, pointer: &str) -> bool {
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        return false;
    };
    let last = last.replace("~1", "/").replace("~0", "~");
    match value.pointer_mut(parent) {
        Some(Value::Array(items)) => {
            let index: usize = last.parse().unwrap();
            let is_there = index < items.len();
            if is_there {
                items.remove(index);
            }
            is_there
        }
        Some(Value::Object(members)) => members.remove(&last).is_some(),
        _ => false,
    }
}

fn shrink_config(row: &mut Row, call: &Call, is_still: &dyn Fn(&Row, &Call) -> bool) {
    let keys: Vec<String> = row.config.keys().cloned().collect();
    for key in keys {
        let mut candidate = row.clone();
        candidate.config.remove(&key);
        if is_still(&candidate, call) {
            *row = candidate;
        }
    }
}

fn shrink_call(row: &Row, call: &mut Call, is_still: &dyn Fn(&Row, &Call) -> bool) {
    let plain = serde_json::to_value(Call::default()).unwrap();
    let fields: Vec<String> = plain.as_object().unwrap().keys().cloned().collect();
    let mut attempt = |smaller: Value| {
        let candidate: Call = serde_json::from_value(smaller).unwrap();
        if is_still(row, &candidate) {
            *call = candidate;
        }
        serde_json::to_value(&*call).unwrap()
    };
    let mut now = attempt(plain.clone());
    for field in fields {
        let mut smaller = now.clone();
        smaller[&field] = plain[&field].clone();
        now = attempt(smaller);
    }
    for list in ["headers", "claims"] {
        let mut pointers = Vec::new();
        walk(&now[list], String::new(), &mut pointers);
        for pointer in pointers.into_iter().rev() {
            // A header is a pair; only whole ones go. A token without issuer or subject is another story.
            if (list == "headers" && pointer.matches('/').count() > 1)
                || pointer == "/iss"
                || pointer == "/sub"
            {
                continue;
            }
            let mut smaller = now.clone();
            if remove(&mut smaller[list], &pointer) {
                now = attempt(smaller);
            }
        }
    }
    let mut smaller = now.clone();
    smaller.as_object_mut().unwrap().remove("claims");
    attempt(smaller);
}
