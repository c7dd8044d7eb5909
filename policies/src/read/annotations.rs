//! Annotations that mean something: `istio.io/dry-run` (rule 64) and our opt-in extensions of AuthorizationPolicy.

use ravelin_proto::time::Timestamp;

use super::condition::field_of_key;
use super::header::{Header, Kind};
use crate::diagnostic::{Problems, excerpt, near_miss};
use crate::schema::{Field, Window};

const DRY_RUN: &str = "istio.io/dry-run";
const ALL_OF: &str = "ravelin.dev/all-of";
const REFERENCES: &str = "ravelin.dev/references";
const NOT_BEFORE: &str = "ravelin.dev/not-before";
const NOT_AFTER: &str = "ravelin.dev/not-after";

/// Those that are ours. Any other name of our domain is an error: a misspelt one would silently do nothing.
const OURS: [&str; 4] = [ALL_OF, REFERENCES, NOT_BEFORE, NOT_AFTER];

/// What the annotations of an AuthorizationPolicy ask for.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) is_dry_run: bool,
    pub(super) window: Window,
    /// Claims whose conditions want every value; the text of the key, and if a condition has it.
    pub(super) all_of: Vec<AllOf>,
    /// `${request..}` in values of claims stands for what the request has there.
    pub(super) has_references: bool,
}

/// One key of `ravelin.dev/all-of`.
#[derive(Debug)]
pub(super) struct AllOf {
    pub(super) key: String,
    pub(super) field: Field,
    pub(super) is_used: bool,
}

/// Reports names of our own domain that mean nothing on this kind.
pub(super) fn check_annotation_names(header: &Header, problems: &mut Problems<'_>) {
    for (name, (at, _)) in &header.annotations_at {
        if !name.starts_with("ravelin.dev/") {
            continue;
        }
        if header.kind != Kind::AuthorizationPolicy {
            let message = format!(
                "the annotation `{}` means nothing on {}",
                excerpt(name),
                header.kind.name()
            );
            problems.error(*at, "unknown-annotation", message);
        } else if !OURS.contains(&name.as_str()) {
            let help = near_miss(name, OURS)
                .or_else(|| Some(format!("the annotations are {}", OURS.join(", "))));
            problems.error_with_help(
                *at,
                "unknown-annotation",
                format!("unknown annotation `{}`", excerpt(name)),
                help,
            );
        }
    }
}

/// Reads the annotations of an AuthorizationPolicy.
pub(super) fn read_extensions(header: &Header, problems: &mut Problems<'_>) -> Extensions {
    let value = |name: &str| header.metadata.annotations.get(name).map(String::as_str);
    let mut extensions = Extensions::default();
    // Rule 64: Istio enforces what it cannot parse; a policy that someone wanted to try out is refused instead.
    if let Some(written) = value(DRY_RUN) {
        extensions.is_dry_run = read_bool(header, DRY_RUN, written, problems);
    }
    if let Some(written) = value(REFERENCES) {
        extensions.has_references = read_bool(header, REFERENCES, written, problems);
    }
    if let Some(written) = value(ALL_OF) {
        extensions.all_of = read_all_of(header, written, problems);
    }
    extensions.window = Window {
        not_before: read_time(header, NOT_BEFORE, value(NOT_BEFORE), problems),
        not_after: read_time(header, NOT_AFTER, value(NOT_AFTER), problems),
    };
    if let (Some(from), Some(to)) = (extensions.window.not_before, extensions.window.not_after)
        && to <= from
    {
        let message =
            format!("the policy never holds: `{NOT_AFTER}` is not later than `{NOT_BEFORE}`");
        problems.error(header.annotation_at(NOT_AFTER), "never-matches", message);
    }
    extensions
}

/// Reports keys of `ravelin.dev/all-of` that no condition has: the policy would be wider than its author thinks.
pub(super) fn check_all_of_used(
    header: &Header,
    extensions: &Extensions,
    keys: &[String],
    problems: &mut Problems<'_>,
) {
    for unused in extensions.all_of.iter().filter(|entry| !entry.is_used) {
        let message = format!(
            "no condition with `values` has the key `{}` that `{ALL_OF}` names",
            excerpt(&unused.key)
        );
        let help = near_miss(&unused.key, keys.iter().map(String::as_str));
        problems.error_with_help(header.annotation_at(ALL_OF), "unknown-key", message, help);
    }
}

/// As Go's `strconv.ParseBool`.
fn read_bool(header: &Header, name: &str, written: &str, problems: &mut Problems<'_>) -> bool {
    match written {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => true,
        "0" | "f" | "F" | "false" | "False" | "FALSE" => false,
        other => {
            let message = format!(
                "`{}` of the annotation `{name}` is neither true nor false",
                excerpt(other)
            );
            problems.error(header.annotation_at(name), "bad-value", message);
            false
        }
    }
}

fn read_time(
    header: &Header,
    name: &str,
    written: Option<&str>,
    problems: &mut Problems<'_>,
) -> Option<Timestamp> {
    let written = written?;
    let found = Timestamp::parse_rfc3339(written);
    if found.is_none() {
        let help = Some("write it as \"2026-11-21T18:00:00Z\"".to_owned());
        let message = format!(
            "`{}` of the annotation `{name}` is not a time of RFC 3339",
            excerpt(written)
        );
        problems.error_with_help(header.annotation_at(name), "bad-time", message, help);
    }
    found
}

fn read_all_of(header: &Header, written: &str, problems: &mut Problems<'_>) -> Vec<AllOf> {
    let mut found = Vec::new();
    for key in split_keys(written) {
        if let Ok(field @ Field::Claim(_)) = field_of_key(key) {
            found.push(AllOf {
                key: key.to_owned(),
                field,
                is_used: false,
            });
        } else {
            let help =
                "name keys such as `request.auth.claims[groups]`, with `,` between".to_owned();
            let message = format!(
                "`{ALL_OF}` holds for claims, and `{}` is none",
                excerpt(key)
            );
            let at = header.annotation_at(ALL_OF);
            problems.error_with_help(at, "bad-value", message, Some(help));
        }
    }
    found
}

/// At commas outside of brackets.
fn split_keys(written: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let is_comma = |c: char| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    written.split(is_comma).map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_split_at_commas_outside_of_brackets() {
        assert_eq!(
            split_keys("request.auth.claims[a], request.auth.claims[b,c],x"),
            ["request.auth.claims[a]", "request.auth.claims[b,c]", "x"]
        );
    }
}
