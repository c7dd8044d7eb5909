//! What an accepted token says (rules 35, 48 to 53).

use serde_json::{Map, Value};

use super::text::matches;

/// Rule 35: the forms in the order in which the rule lists them, split at the last `/`.
pub fn request_principal_matches(pattern: &str, claims: Option<&Map<String, Value>>) -> bool {
    let Some(claims) = claims else {
        return false;
    };
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let (Some(issuer), Some(subject)) = (text("iss"), text("sub")) else {
        return false;
    };
    if pattern == "*" {
        return !issuer.is_empty() && !subject.is_empty();
    }
    let split = pattern.rsplit_once('/');
    if let Some(rest) = pattern.strip_prefix('*') {
        return match rest.rsplit_once('/') {
            Some((issuer_end, wanted)) => issuer.ends_with(issuer_end) && subject == wanted,
            None => subject.ends_with(rest),
        };
    }
    if pattern.ends_with('*') {
        return match split {
            Some((wanted, start)) => issuer == wanted && matches(start, subject),
            None => matches(pattern, issuer),
        };
    }
    match split {
        Some((wanted_issuer, wanted_subject)) => {
            issuer == wanted_issuer && subject == wanted_subject
        }
        None => issuer == pattern && subject.is_empty(),
    }
}

/// `aud` as a list.
pub fn audiences(claims: Option<&Map<String, Value>>) -> Vec<String> {
    match claims.and_then(|claims| claims.get("aud")) {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

pub fn presenter(claims: Option<&Map<String, Value>>) -> Vec<String> {
    claims
        .and_then(|claims| claims.get("azp"))
        .and_then(Value::as_str)
        .map(str::to_owned)
        .into_iter()
        .collect()
}

/// `request.auth.claims[a][b]` as steps; not well-formed pairs: all of the inner text is one name (rule 49).
pub fn steps(key: &str) -> Vec<String> {
    let inner = key
        .strip_prefix("request.auth.claims[")
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or_default();
    let names: Vec<&str> = inner.split("][").collect();
    if names
        .iter()
        .all(|name| !name.is_empty() && !name.contains(['[', ']']))
    {
        names.into_iter().map(str::to_owned).collect()
    } else {
        vec![inner.to_owned()]
    }
}

/// The texts of a claim; none when it is absent or of another sort (rules 48 to 51).
pub fn values(
    claims: Option<&Map<String, Value>>,
    steps: &[String],
    is_typed: bool,
) -> Vec<String> {
    let Some((first, rest)) = steps.split_first() else {
        return Vec::new();
    };
    let mut found = claims.and_then(|claims| claims.get(first));
    for step in rest {
        found = found
            .and_then(Value::as_object)
            .and_then(|object| object.get(step));
    }
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) if is_typed => Some(value.to_string()),
        _ => None,
    };
    match found {
        Some(Value::String(words))
            if rest.is_empty() && (first == "scope" || first == "permission") =>
        {
            words
                .split(' ')
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()
        }
        Some(Value::Array(many)) => many.iter().filter_map(text).collect(),
        Some(one) => text(one).into_iter().collect(),
        None => Vec::new(),
    }
}
