//! Typed access to the fields of a mapping. What is missing, unknown, empty or of another type is reported.

use std::time::Duration;

use crate::diagnostic::{Problems, Span, excerpt, near_miss};
use crate::document::{Member, Node, Value};
use crate::limits;
use crate::object::Labels;

/// A mapping whose field names were checked against the known ones.
pub(crate) struct Fields<'n> {
    /// How messages call it.
    what: &'n str,
    pub(crate) at: Span,
    members: &'n [Member],
}

impl<'n> Fields<'n> {
    /// Reports anything but a mapping, unknown fields (with a near miss), and fields without a value.
    pub(crate) fn of(
        node: &'n Node,
        what: &'n str,
        known: &[&str],
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        Self::of_export(node, what, known, &[], problems)
    }

    /// The same, for an object that a cluster may have added the `ignored` fields to.
    pub(crate) fn of_export(
        node: &'n Node,
        what: &'n str,
        known: &[&str],
        ignored: &[&str],
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let Value::Map(members) = &node.value else {
            problems.error(
                node.at,
                "wrong-type",
                format!("{what} is a mapping with fields, not {}", describe(node)),
            );
            return None;
        };
        for member in members {
            if ignored.contains(&member.key.as_str()) {
                continue;
            }
            if !known.contains(&member.key.as_str()) {
                let help = near_miss(&member.key, known.iter().copied())
                    .or_else(|| Some(format!("the fields of {what} are {}", known.join(", "))));
                problems.error_with_help(
                    member.at,
                    "unknown-field",
                    format!("unknown field `{}` of {what}", excerpt(&member.key)),
                    help,
                );
            } else if member.value.is_null() {
                let help = Some("give it a value, or remove the line".to_owned());
                problems.error_with_help(
                    member.at,
                    "no-value",
                    format!("`{}` has no value", member.key),
                    help,
                );
            }
        }
        Some(Self {
            what,
            at: node.at,
            members,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn member(&self, name: &str) -> Option<&'n Member> {
        self.members
            .iter()
            .find(|member| member.key == name && !member.value.is_null())
    }

    pub(crate) fn node(&self, name: &str) -> Option<&'n Node> {
        self.member(name).map(|member| &member.value)
    }

    /// Where the field's name stands, else the whole.
    pub(crate) fn key_at(&self, name: &str) -> Span {
        self.member(name).map_or(self.at, |member| member.at)
    }

    /// Reports when it is missing.
    pub(crate) fn required(&self, name: &str, problems: &mut Problems<'_>) -> Option<&'n Node> {
        let has_key = self.members.iter().any(|member| member.key == name);
        if !has_key {
            problems.error(
                Span {
                    width: 1,
                    ..self.at
                },
                "missing-field",
                format!("{} has no `{name}`", self.what),
            );
        }
        self.node(name)
    }

    pub(crate) fn text(&self, name: &str, problems: &mut Problems<'_>) -> Option<&'n str> {
        self.node(name).and_then(|node| text(node, name, problems))
    }

    pub(crate) fn required_text(&self, name: &str, problems: &mut Problems<'_>) -> Option<&'n str> {
        self.required(name, problems)
            .and_then(|node| text(node, name, problems))
    }

    pub(crate) fn boolean(&self, name: &str, problems: &mut Problems<'_>) -> Option<bool> {
        self.node(name)
            .and_then(|node| boolean(node, name, problems))
    }

    pub(crate) fn duration(
        &self,
        name: &str,
        max: Duration,
        problems: &mut Problems<'_>,
    ) -> Option<Duration> {
        let node = self.node(name)?;
        let written = text(node, name, problems)?;
        let parsed = parse_duration(written).filter(|duration| *duration <= max);
        if parsed.is_none() {
            let message = format!(
                "`{}` is not a duration up to {} s",
                excerpt(written),
                max.as_secs()
            );
            problems.error_with_help(
                node.at,
                "bad-duration",
                message,
                Some("write it as `90s`, `5m`, `1h` or `7d`".into()),
            );
        }
        parsed
    }

    pub(crate) fn texts(&self, name: &str, problems: &mut Problems<'_>) -> Vec<(&'n str, Span)> {
        self.node(name)
            .map(|node| texts(node, name, problems))
            .unwrap_or_default()
    }

    pub(crate) fn labels(&self, name: &str, problems: &mut Problems<'_>) -> Labels {
        self.node(name)
            .map(|node| labels(node, name, problems))
            .unwrap_or_default()
    }

    /// `UPPER_CASE` words, each with its meaning.
    pub(crate) fn word<T: Copy>(
        &self,
        name: &str,
        words: &[(&str, T)],
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        let node = self.node(name)?;
        let written = text(node, name, problems)?;
        let found = words
            .iter()
            .find(|(word, _)| *word == written)
            .map(|(_, meaning)| *meaning);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let help = near_miss(written, known.iter().copied())
                .or_else(|| Some(format!("it is one of {}", known.join(", "))));
            problems.error_with_help(
                node.at,
                "bad-value",
                format!("`{}` is not a value of `{name}`", excerpt(written)),
                help,
            );
        }
        found
    }

    /// Refuses fields that are known and not acted on.
    pub(crate) fn refuse(&self, names: &[&str], problems: &mut Problems<'_>) {
        for name in names {
            if let Some(member) = self.member(name) {
                problems.not_supported(member.at, &format!("`{name}` of {}", self.what));
            }
        }
    }
}

/// What a node is, for a message.
pub(crate) fn describe(node: &Node) -> &'static str {
    match &node.value {
        Value::Scalar { .. } if node.is_null() => "nothing",
        Value::Scalar { .. } => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}

/// The items of a list that is not empty (rule 14).
pub(crate) fn list<'n>(
    node: &'n Node,
    name: &str,
    max: usize,
    problems: &mut Problems<'_>,
) -> &'n [Node] {
    match &node.value {
        Value::List(items) if items.is_empty() => {
            let help = Some("remove the field, or put something in".to_owned());
            problems.error_with_help(
                node.at,
                "empty-list",
                format!("`{name}` is an empty list"),
                help,
            );
            &[]
        }
        Value::List(items) if items.len() > max => {
            problems.error(
                node.at,
                "too-many",
                format!("`{name}` has more than {max} entries"),
            );
            &[]
        }
        Value::List(items) => items,
        Value::Scalar { .. } | Value::Map(_) => {
            problems.error(
                node.at,
                "wrong-type",
                format!("`{name}` is a list, not {}", describe(node)),
            );
            &[]
        }
    }
}

/// A list of texts, each with its place.
pub(crate) fn texts<'n>(
    node: &'n Node,
    name: &str,
    problems: &mut Problems<'_>,
) -> Vec<(&'n str, Span)> {
    list(node, name, limits::VALUES_MAX, problems)
        .iter()
        .filter_map(|item| Some((text(item, name, problems)?, item.at)))
        .collect()
}

/// Text that is not empty. What YAML reads as a number, a boolean or null must be quoted to be text.
pub(crate) fn text<'n>(node: &'n Node, name: &str, problems: &mut Problems<'_>) -> Option<&'n str> {
    let Value::Scalar { text, is_plain } = &node.value else {
        problems.error(
            node.at,
            "wrong-type",
            format!("`{name}` is text, not {}", describe(node)),
        );
        return None;
    };
    if *is_plain && is_other_type(text) {
        let help = Some(format!(
            "for a text write it in quotes: \"{}\"",
            excerpt(text)
        ));
        problems.error_with_help(
            node.at,
            "wrong-type",
            format!("`{name}` is text, and `{}` is not", excerpt(text)),
            help,
        );
        return None;
    }
    if text.is_empty() {
        problems.error(node.at, "empty-text", format!("`{name}` is empty"));
        return None;
    }
    Some(text)
}

fn is_other_type(text: &str) -> bool {
    let is_word = matches!(
        text,
        "" | "~"
            | "null"
            | "Null"
            | "NULL"
            | "true"
            | "True"
            | "TRUE"
            | "false"
            | "False"
            | "FALSE"
    );
    let starts_like_a_number =
        text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+'));
    let is_hex = text
        .strip_prefix("0x")
        .is_some_and(|digits| u64::from_str_radix(digits, 16).is_ok());
    let is_octal = text
        .strip_prefix("0o")
        .is_some_and(|digits| u64::from_str_radix(digits, 8).is_ok());
    let is_special = matches!(
        text.trim_start_matches(['-', '+']),
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
    );
    is_word
        || is_hex
        || is_octal
        || is_special
        || (starts_like_a_number && text.parse::<f64>().is_ok())
}

/// `true` or `false`.
pub(crate) fn boolean(node: &Node, name: &str, problems: &mut Problems<'_>) -> Option<bool> {
    match &node.value {
        Value::Scalar {
            text,
            is_plain: true,
        } if text == "true" => Some(true),
        Value::Scalar {
            text,
            is_plain: true,
        } if text == "false" => Some(false),
        Value::Scalar { .. } | Value::List(_) | Value::Map(_) => {
            problems.error(
                node.at,
                "wrong-type",
                format!("`{name}` is `true` or `false`"),
            );
            None
        }
    }
}

/// A whole number, quoted or not, within `min..=max`.
pub(crate) fn integer(
    node: &Node,
    name: &str,
    min: u32,
    max: u32,
    problems: &mut Problems<'_>,
) -> Option<u32> {
    let number = match &node.value {
        Value::Scalar { text, .. } if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().ok()
        }
        Value::Scalar { .. } | Value::List(_) | Value::Map(_) => None,
    };
    let found = number.filter(|number| (min..=max).contains(number));
    if found.is_none() {
        problems.error(
            node.at,
            "bad-number",
            format!("`{name}` is a whole number from {min} to {max}"),
        );
    }
    found
}

/// A TCP port.
pub(crate) fn port(node: &Node, name: &str, problems: &mut Problems<'_>) -> Option<u16> {
    integer(node, name, 1, 65_535, problems).and_then(|number| u16::try_from(number).ok())
}

/// Text to text; values may look like numbers.
pub(crate) fn labels(node: &Node, name: &str, problems: &mut Problems<'_>) -> Labels {
    let Value::Map(members) = &node.value else {
        problems.error(
            node.at,
            "wrong-type",
            format!(
                "`{name}` is a mapping of names to texts, not {}",
                describe(node)
            ),
        );
        return Labels::new();
    };
    if members.len() > limits::LABELS_MAX {
        problems.error(
            node.at,
            "too-many",
            format!("`{name}` has more than {} entries", limits::LABELS_MAX),
        );
        return Labels::new();
    }
    let mut found = Labels::new();
    for member in members {
        match &member.value.value {
            Value::Scalar { text, is_plain } if !(*is_plain && is_other_type(text)) => {
                found.insert(member.key.clone(), text.clone());
            }
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) => {
                let help = Some("put the value in quotes".to_owned());
                problems.error_with_help(
                    member.value.at,
                    "wrong-type",
                    format!("`{}` of `{name}` is text", excerpt(&member.key)),
                    help,
                );
            }
        }
    }
    found
}

/// `90s`, `5m`, `1h`, `7d`, `250ms`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let secs = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(secs).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, want) in [
            ("90s", Some(90_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("7d", Some(604_800_000)),
            ("250ms", Some(250)),
            ("1", None),
            ("s", None),
            ("", None),
            ("1h30m", None),
            ("-1s", None),
            ("99999999999999999999s", None),
            ("9999999999999999999d", None),
        ] {
            assert_eq!(
                parse_duration(text).map(|duration| duration.as_millis()),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn plain_words_that_yaml_reads_as_another_type_are_no_text() {
        for (text, want) in [
            ("8080", true),
            ("1.5", true),
            ("0x1f", true),
            ("true", true),
            ("null", true),
            ("~", true),
            (".inf", true),
            ("-.inf", true),
            ("1e3", true),
            ("yes", false),
            ("off", false),
            ("1.2.3.4", false),
            ("10.0.0.0/8", false),
            ("/a", false),
            ("v1", false),
            ("inf", false),
            ("nan", false),
        ] {
            assert_eq!(is_other_type(text), want, "{text}");
        }
    }
}
