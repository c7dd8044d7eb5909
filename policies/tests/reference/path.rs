//! Paths: normalization by passes over the text, and which ones are too ambiguous to judge (rules 87 to 90).

use serde_json::Value;

use super::{World, items, judge, text_at};

/// The path, and the query with its `?`; or the code of the refusal.
pub fn normalize(world: &World<'_>, target: &str) -> Result<(String, String), &'static str> {
    let (path, query) = cut(target);
    check(path)?;
    let strictest = "DECODE_AND_MERGE_SLASHES";
    let option = text_at(world.config, &["pathNormalization"]).unwrap_or(strictest);
    let judged = form(path, option);
    // Ours: where nothing is normalized, what a server might make of the path counts as well.
    let is_plain = ["BASE", strictest]
        .iter()
        .all(|other| form(path, other) == judged);
    if is_judged_by_path(world) && !is_plain {
        return Err("path_ambiguous");
    }
    Ok((judged, query.to_owned()))
}

/// Without the fragment (advisory A3), in path and query.
fn cut(target: &str) -> (&str, &str) {
    let target = target.split('#').next().unwrap_or_default();
    target.split_at(target.find('?').unwrap_or(target.len()))
}

fn check(path: &str) -> Result<(), &'static str> {
    if path == "*" {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err("path_not_path");
    }
    if path.contains("%00")
        || path
            .chars()
            .any(|c| !c.is_ascii() || c.is_ascii_control() || c == ' ')
    {
        return Err("path_character");
    }
    let is_escape =
        |rest: &str| rest.len() >= 2 && rest.chars().take(2).all(|digit| digit.is_ascii_hexdigit());
    if path.split('%').skip(1).any(|rest| !is_escape(rest)) {
        return Err("path_escape");
    }
    Ok(())
}

/// Rule 87, step by step.
pub fn form(path: &str, option: &str) -> String {
    let mut path = path.to_owned();
    if option == "NONE" || path == "*" {
        return path;
    }
    if option == "DECODE_AND_MERGE_SLASHES" {
        for (code, plain) in [("%2F", "/"), ("%2f", "/"), ("%5C", "\\"), ("%5c", "\\")] {
            path = path.replace(code, plain);
        }
    }
    path = without_dots(&decode_unreserved(&path).replace('\\', "/"));
    if option == "MERGE_SLASHES" || option == "DECODE_AND_MERGE_SLASHES" {
        while path.contains("//") {
            path = path.replace("//", "/");
        }
    }
    path
}

/// One pass (rule 89): `%2541` stays.
fn decode_unreserved(path: &str) -> String {
    let mut pieces = path.split('%');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at(2);
        let byte = char::from(u8::from_str_radix(code, 16).unwrap());
        if byte.is_ascii_alphanumeric() || "-._~".contains(byte) {
            out.push(byte);
        } else {
            out.push('%');
            out.push_str(code);
        }
        out.push_str(rest);
    }
    out
}

/// RFC 3986 section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut input = path.to_owned();
    let mut output = String::new();
    while !input.is_empty() {
        if input.starts_with("/./") {
            input.replace_range(..3, "/");
        } else if input == "/." {
            input = "/".into();
        } else if input.starts_with("/../") || input == "/.." {
            input.replace_range(..input.len().min(4), "/");
            output.truncate(output.rfind('/').unwrap_or(0));
        } else {
            let end = input
                .get(1..)
                .and_then(|rest| rest.find('/'))
                .map_or(input.len(), |at| at + 1);
            output.push_str(&input[..end]);
            input.replace_range(..end, "");
        }
    }
    output
}

/// Rule 90: some enforced policy refuses by path, or allows all paths but some.
fn is_judged_by_path(world: &World<'_>) -> bool {
    let enforced = judge::policies(world)
        .into_iter()
        .filter(|policy| !judge::is_dry_run(policy) && judge::action(policy) != "AUDIT");
    enforced.into_iter().any(|policy| {
        let counts_positive = judge::action(policy) != "ALLOW";
        items(policy.pointer("/spec/rules"))
            .iter()
            .any(|rule| names_segment(policy, rule) || names_path(rule, counts_positive))
    })
}

/// Ours: a claim is compared with a segment of the path.
fn names_segment(policy: &Value, rule: &Value) -> bool {
    let refers = super::annotation(policy, "ravelin.dev/references") == Some("true");
    let texts = items(rule.get("when"))
        .iter()
        .filter(|condition| {
            text_at(condition, &["key"]).is_some_and(|key| key.starts_with("request.auth.claims"))
        })
        .flat_map(|condition| ["values", "notValues"].map(|name| items(condition.get(name))));
    refers
        && texts
            .flatten()
            .filter_map(Value::as_str)
            .any(|text| text.starts_with("${request.path["))
}

fn names_path(rule: &Value, counts_positive: bool) -> bool {
    let operations = items(rule.get("to"))
        .iter()
        .filter_map(|to| to.get("operation"));
    let conditions = items(rule.get("when")).iter().filter(|condition| {
        text_at(condition, &["key"])
            .is_some_and(|key| key.eq_ignore_ascii_case("request.headers[:path]"))
    });
    operations
        .map(|operation| (operation.get("paths"), operation.get("notPaths")))
        .chain(conditions.map(|condition| (condition.get("values"), condition.get("notValues"))))
        .any(|(positive, negative)| negative.is_some() || (counts_positive && positive.is_some()))
}
