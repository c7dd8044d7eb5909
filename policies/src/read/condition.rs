//! Keys of `when` (rules 46 to 49).

use crate::diagnostic::{excerpt, near_miss};
use crate::limits;
use crate::schema::Field;

pub(crate) const KEYS: [(&str, Field); 12] = [
    ("request.auth.principal", Field::RequestPrincipal),
    ("request.auth.audiences", Field::Audience),
    ("request.auth.presenter", Field::Presenter),
    ("source.ip", Field::SourceAddress),
    ("remote.ip", Field::RemoteAddress),
    ("source.namespace", Field::Namespace),
    ("source.serviceAccount", Field::ServiceAccount),
    ("source.principal", Field::Principal),
    ("source.trustDomain", Field::TrustDomain),
    ("destination.ip", Field::DestinationAddress),
    ("destination.port", Field::DestinationPort),
    ("connection.sni", Field::ServerName),
];

const REMOVED: [(&str, &str); 6] = [
    (
        "destination.namespace",
        "put the policy into that namespace",
    ),
    ("destination.labels", "use `selector.matchLabels`"),
    ("destination.name", "use `selector.matchLabels`"),
    ("destination.user", "use `selector.matchLabels`"),
    ("source.user", "use `source.principal`"),
    ("source.name", "use `source.principal`"),
];

/// Why a key is refused: code, message, help.
pub(super) type KeyRefusal = (&'static str, String, Option<String>);

/// What a key looks at. An unknown key fails the load: a skipped rule would be a hole (rule 18).
pub(super) fn field_of_key(key: &str) -> Result<Field, KeyRefusal> {
    if let Some((_, field)) = KEYS.iter().find(|(known, _)| *known == key) {
        return Ok(field.clone());
    }
    if let Some(rest) = key.strip_prefix("request.headers") {
        return header(key, rest);
    }
    if let Some(rest) = key.strip_prefix("request.auth.claims") {
        return claim(key, rest);
    }
    let start = key.split('[').next().unwrap_or(key);
    if let Some((_, help)) = REMOVED.iter().find(|(removed, _)| *removed == start) {
        return Err((
            "unknown-key",
            format!("the key `{}` no longer exists", excerpt(key)),
            Some((*help).to_owned()),
        ));
    }
    if key.starts_with("experimental.envoy.filters.") {
        return Err((
            "not-supported",
            format!(
                "the key `{}` is not supported: it asks a filter of Envoy",
                excerpt(key)
            ),
            None,
        ));
    }
    let known = KEYS
        .iter()
        .map(|(known, _)| *known)
        .chain(["request.headers[..]", "request.auth.claims[..]"]);
    let help = near_miss(key, known.clone()).or_else(|| {
        Some(format!(
            "the keys are {}",
            known.collect::<Vec<_>>().join(", ")
        ))
    });
    Err((
        "unknown-key",
        format!("unknown key `{}`", excerpt(key)),
        help,
    ))
}

/// The text between the first `[` and the last `]` (rule 47).
fn inner<'k>(key: &str, rest: &'k str) -> Result<&'k str, KeyRefusal> {
    let text = rest
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .filter(|text| !text.is_empty());
    match text {
        Some(text) if !text.contains(['"', '\'']) => Ok(text),
        Some(_) => Err((
            "bad-key",
            format!("`{}` has quotes inside of its brackets", excerpt(key)),
            Some("write the name as it is".into()),
        )),
        None => Err((
            "bad-key",
            format!("`{}` does not look like `key[name]`", excerpt(key)),
            None,
        )),
    }
}

fn header(key: &str, rest: &str) -> Result<Field, KeyRefusal> {
    let name = inner(key, rest)?.to_ascii_lowercase();
    let plain = name.strip_prefix(':').unwrap_or(&name);
    let is_pseudo_known =
        !name.starts_with(':') || matches!(name.as_str(), ":method" | ":path" | ":authority");
    let is_token = !plain.is_empty()
        && plain
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    if is_token && is_pseudo_known {
        Ok(Field::Header(name))
    } else {
        Err((
            "bad-key",
            format!("`{}` does not name a header", excerpt(key)),
            None,
        ))
    }
}

fn claim(key: &str, rest: &str) -> Result<Field, KeyRefusal> {
    let text = inner(key, rest)?;
    let steps: Vec<&str> = text.split("][").collect();
    // Not in pairs of brackets: the whole is one claim's name (rule 49).
    let is_paired = steps
        .iter()
        .all(|step| !step.is_empty() && !step.contains(['[', ']']));
    let steps = if is_paired { steps } else { vec![text] };
    if steps.len() > limits::CLAIM_STEPS_MAX {
        return Err((
            "bad-key",
            format!(
                "`{}` goes deeper than {} steps",
                excerpt(key),
                limits::CLAIM_STEPS_MAX
            ),
            None,
        ));
    }
    Ok(Field::Claim(steps.into_iter().map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_46_to_49_keys_are_known_or_refused_with_a_hint() {
        let claim =
            |steps: &[&str]| Field::Claim(steps.iter().map(|step| (*step).to_owned()).collect());
        for (key, want) in [
            ("source.ip", Field::SourceAddress),
            ("request.headers[X-Role]", Field::Header("x-role".into())),
            ("request.headers[:method]", Field::Header(":method".into())),
            ("request.auth.claims[a]", claim(&["a"])),
            ("request.auth.claims[a][b][c]", claim(&["a", "b", "c"])),
            (
                "request.auth.claims[foo.com/name]",
                claim(&["foo.com/name"]),
            ),
            ("request.auth.claims[a[b]", claim(&["a[b"])),
        ] {
            assert_eq!(field_of_key(key), Ok(want), "{key}");
        }
        for (key, code, help) in [
            ("source.ipp", "unknown-key", "did you mean `source.ip`?"),
            (
                "destination.labels[app]",
                "unknown-key",
                "use `selector.matchLabels`",
            ),
            ("request.headers", "bad-key", ""),
            ("request.headers[]", "bad-key", ""),
            ("request.headers[a b]", "bad-key", ""),
            ("request.headers[:scheme]", "bad-key", ""),
            (
                "request.auth.claims['a']",
                "bad-key",
                "write the name as it is",
            ),
            ("request.auth.claims[a", "bad-key", ""),
            ("experimental.envoy.filters.x[k]", "not-supported", ""),
        ] {
            let (found, _, hint) = field_of_key(key).unwrap_err();
            assert_eq!(
                (found, hint.unwrap_or_default().as_str()),
                (code, help),
                "{key}"
            );
        }
    }
}
