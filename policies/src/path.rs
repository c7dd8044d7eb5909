//! The path of a request, normalized once: what is judged is what is forwarded (rules 40, 87 to 90).
//!
//! A single pass: double encodings, overlong UTF-8, `;` parameters and letter case stay as they are (rule 89).

use std::borrow::Cow;

use serde::Serialize;

use crate::limits;

/// How far a path is normalized (rule 87).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub enum PathNormalization {
    /// As it came, without the fragment.
    None,
    /// RFC 3986 dot segments, unreserved characters decoded, `\` becomes `/`.
    Base,
    /// `Base`, then repeated slashes become one.
    MergeSlashes,
    /// `%2F` and `%5C` decoded first, then `MergeSlashes`. Our default (threat A2).
    #[default]
    DecodeAndMergeSlashes,
}

impl PathNormalization {
    pub(crate) const NAMES: [(&'static str, Self); 5] = [
        ("NONE", Self::None),
        ("BASE", Self::Base),
        ("DEFAULT", Self::Base),
        ("MERGE_SLASHES", Self::MergeSlashes),
        ("DECODE_AND_MERGE_SLASHES", Self::DecodeAndMergeSlashes),
    ];
}

/// A path that went through [`normalize`]: every matcher and the upstream see this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalizedPath {
    target: String,
    path_bytes: usize,
}

impl NormalizedPath {
    /// The path without query.
    pub fn path(&self) -> &str {
        self.target.get(..self.path_bytes).unwrap_or_default()
    }

    /// The query without `?`, as it came.
    pub fn query(&self) -> Option<&str> {
        self.target.get(self.path_bytes + 1..)
    }

    /// Path and query: what is forwarded.
    pub fn as_target(&self) -> &str {
        &self.target
    }

    /// Without the query parameters of these names: a token that was read there goes no further (rule 79).
    pub fn without_params(&self, names: &[String]) -> Self {
        let Some(query) = self.query() else {
            return self.clone();
        };
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| {
                let name = decoded(pair.split_once('=').map_or(*pair, |(name, _)| name));
                !names.iter().any(|removed| removed.as_bytes() == &*name)
            })
            .collect();
        let kept = kept.join("&");
        Self::new(self.path(), (!kept.is_empty()).then_some(kept.as_str()))
    }

    fn new(path: &str, query: Option<&str>) -> Self {
        let mut target = path.to_owned();
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        Self {
            target,
            path_bytes: path.len(),
        }
    }
}

/// A name or value of a query, percent-decoded; what is not an escape stays as it is.
pub(crate) fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escaped = after
            .first_chunk::<2>()
            .filter(|digits| *byte == b'%' && digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*byte));
        rest = match escaped {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    Cow::Owned(bytes)
}

/// Why a path is not judged at all: the answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathRefusal {
    /// Neither a path that begins with `/` nor `*`.
    #[error("the request's target is not a path")]
    NotPath,
    /// Past [`limits::TARGET_BYTES_MAX`].
    #[error("the request's target is too long")]
    TooLong,
    /// A space, a control character, NUL (also as `%00`) or a byte beyond ASCII (rule 89).
    #[error("the path has a character that a path cannot have")]
    Character,
    /// `%` without two hexadecimal digits: one pass over `%%32e` would make a new escape.
    #[error("the path has a broken percent-encoding")]
    Escape,
    /// A policy names paths, and this one reads differently to different servers (rule 90).
    #[error("the path is ambiguous, and a policy of this workload judges by path")]
    Ambiguous,
}

impl PathRefusal {
    /// Stable code for logs, metrics and documentation.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotPath => "path_not_path",
            Self::TooLong => "path_too_long",
            Self::Character => "path_character",
            Self::Escape => "path_escape",
            Self::Ambiguous => "path_ambiguous",
        }
    }
}

/// Normalizes a request's target in origin form (or `*`).
pub fn normalize(target: &str, option: PathNormalization) -> Result<NormalizedPath, PathRefusal> {
    if target.len() > limits::TARGET_BYTES_MAX {
        return Err(PathRefusal::TooLong);
    }
    // The fragment never reaches a matcher nor the upstream (threat A3).
    let target = target.split('#').next().unwrap_or_default();
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(PathRefusal::Character);
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    if path == "*" && query.is_none() {
        return Ok(NormalizedPath::new("*", None));
    }
    if !path.starts_with('/') {
        return Err(PathRefusal::NotPath);
    }
    check_escapes(path)?;
    Ok(NormalizedPath::new(&apply(path, option), query))
}

/// True when servers that decode or merge slashes would read another path than the one that is forwarded (rule 90).
pub(crate) fn is_ambiguous(target: &str, option: PathNormalization) -> bool {
    let end = target.find(['?', '#']).unwrap_or(target.len());
    if target.get(..end).is_some_and(is_plain) {
        return false;
    }
    let form = |option| normalize(target, option);
    let decoded = form(PathNormalization::DecodeAndMergeSlashes);
    form(PathNormalization::Base) != decoded || form(option) != decoded
}

fn check_escapes(path: &str) -> Result<(), PathRefusal> {
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            continue;
        }
        match tail {
            [high, low, after @ ..] => match hex_pair(*high, *low) {
                Some(0) => return Err(PathRefusal::Character),
                Some(_) => rest = after,
                None => return Err(PathRefusal::Escape),
            },
            _ => return Err(PathRefusal::Escape),
        }
    }
    Ok(())
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some(digit(high)? * 16 + digit(low)?)
}

/// Nothing that any option would change: most paths are so, and need one look alone.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    !bytes.iter().any(|byte| matches!(byte, b'%' | b'\\'))
        && !bytes.windows(2).any(|pair| matches!(pair, b"//" | b"/."))
}

fn apply(path: &str, option: PathNormalization) -> String {
    if is_plain(path) {
        return path.to_owned();
    }
    match option {
        PathNormalization::None => path.to_owned(),
        PathNormalization::Base => base(path, false),
        PathNormalization::MergeSlashes => merge_slashes(&base(path, false)),
        PathNormalization::DecodeAndMergeSlashes => merge_slashes(&base(path, true)),
    }
}

fn base(path: &str, decodes_slashes: bool) -> String {
    remove_dot_segments(&decode(path, decodes_slashes))
}

fn decode(path: &str, decodes_slashes: bool) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let escape = rest.get(..3).filter(|_| first == '%');
        let byte = escape.and_then(|text| u8::from_str_radix(text.get(1..)?, 16).ok());
        let (Some(byte), Some(text)) = (byte, escape) else {
            decoded.push(if first == '\\' { '/' } else { first });
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        };
        let plain = char::from(byte);
        if plain.is_ascii_alphanumeric() || matches!(plain, '-' | '.' | '_' | '~') {
            decoded.push(plain);
        } else if decodes_slashes && matches!(plain, '/' | '\\') {
            decoded.push('/');
        } else {
            decoded.push_str(text);
        }
        rest = rest.get(3..).unwrap_or_default();
    }
    decoded
}

// SPEC: RFC 3986 5.2.4, for a path that begins with `/`.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_as_folder = false;
    for segment in path.get(1..).unwrap_or_default().split('/') {
        ends_as_folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut clean = String::with_capacity(path.len());
    for segment in &kept {
        clean.push('/');
        clean.push_str(segment);
    }
    if ends_as_folder || clean.is_empty() {
        clean.push('/');
    }
    clean
}

fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPTIONS: [PathNormalization; 4] = [
        PathNormalization::None,
        PathNormalization::Base,
        PathNormalization::MergeSlashes,
        PathNormalization::DecodeAndMergeSlashes,
    ];

    fn forms(target: &str) -> [String; 4] {
        OPTIONS.map(|option| normalize(target, option).unwrap().path().to_owned())
    }

    #[test]
    fn rule_88_the_golden_table_holds_for_all_four_options() {
        let rows: [(&str, [&str; 4]); 13] = [
            (
                "/app/../admin",
                ["/app/../admin", "/admin", "/admin", "/admin"],
            ),
            ("/app//", ["/app//", "/app//", "/app/", "/app/"]),
            ("/app/%2f", ["/app/%2f", "/app/%2f", "/app/%2f", "/app/"]),
            (
                "/xyz%30..//abc",
                [
                    "/xyz%30..//abc",
                    "/xyz0..//abc",
                    "/xyz0../abc",
                    "/xyz0../abc",
                ],
            ),
            (
                "/app/%2E./admin",
                ["/app/%2E./admin", "/admin", "/admin", "/admin"],
            ),
            (
                "/app\\admin",
                ["/app\\admin", "/app/admin", "/app/admin", "/app/admin"],
            ),
            (
                "/app/\\/\\/\\admin",
                [
                    "/app/\\/\\/\\admin",
                    "/app//////admin",
                    "/app/admin",
                    "/app/admin",
                ],
            ),
            (
                "/%2Fapp%5cadmin%5Cabc",
                [
                    "/%2Fapp%5cadmin%5Cabc",
                    "/%2Fapp%5cadmin%5Cabc",
                    "/%2Fapp%5cadmin%5Cabc",
                    "/app/admin/abc",
                ],
            ),
            (
                "/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\\abc",
                [
                    "/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\\abc",
                    "/%5Capp%2f%5c%2F..%2fadmin%5c/abc",
                    "/%5Capp%2f%5c%2F..%2fadmin%5c/abc",
                    "/app/admin/abc",
                ],
            ),
            (
                "/app//../admin",
                ["/app//../admin", "/app/admin", "/app/admin", "/app/admin"],
            ),
            (
                "/app//../../admin",
                ["/app//../../admin", "/admin", "/admin", "/admin"],
            ),
            ("/app#foo", ["/app"; 4]),
            ("/app?q=/../x#foo", ["/app"; 4]),
        ];
        for (target, want) in rows {
            assert_eq!(forms(target), want, "{target}");
        }
    }

    #[test]
    fn rule_87_dot_segments_at_the_end_leave_a_folder() {
        for (target, want) in [
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/..", "/"),
            ("/", "/"),
            ("/a/b/..", "/a/"),
            ("/.", "/"),
        ] {
            assert_eq!(
                normalize(target, PathNormalization::Base).unwrap().path(),
                want,
                "{target}"
            );
        }
    }

    #[test]
    fn rule_89_only_unreserved_characters_are_decoded_and_only_once() {
        for kept in [
            "/%252e%252e/a",
            "/%c0%ae",
            "/0x2e",
            "/...",
            "/..;/a",
            "/a;a=b",
            "/ADMIN",
            "/%25",
        ] {
            assert_eq!(forms(kept), [kept; 4]);
        }
        assert_eq!(forms("/%c0%2fadmin")[3], "/%c0/admin");
        for byte in 1..=255_u8 {
            let escape = format!("%{byte:02X}");
            let plain = char::from(byte);
            let is_unreserved =
                plain.is_ascii_alphanumeric() || matches!(plain, '-' | '_' | '~' | '.');
            let want = |decodes: bool| match plain {
                '/' | '\\' if decodes => "/x/y".to_owned(),
                _ if is_unreserved => format!("/x{plain}y"),
                _ => format!("/x{escape}y"),
            };
            let target = format!("/x{escape}y");
            assert_eq!(
                forms(&target),
                [target.clone(), want(false), want(false), want(true)],
                "{escape}"
            );
        }
    }

    #[test]
    fn rule_89_what_cannot_be_a_path_is_refused_in_every_option() {
        let long = format!("/{}", "a".repeat(limits::TARGET_BYTES_MAX));
        for (target, want) in [
            ("/a%00b", PathRefusal::Character),
            ("/a b", PathRefusal::Character),
            ("/a\tb", PathRefusal::Character),
            ("/é", PathRefusal::Character),
            ("/%", PathRefusal::Escape),
            ("/%4", PathRefusal::Escape),
            ("/%zz", PathRefusal::Escape),
            ("/%%32e%%32e/admin", PathRefusal::Escape),
            ("/%+1", PathRefusal::Escape),
            ("", PathRefusal::NotPath),
            ("admin", PathRefusal::NotPath),
            ("http://a/b", PathRefusal::NotPath),
            ("*?x", PathRefusal::NotPath),
            (&long, PathRefusal::TooLong),
        ] {
            for option in OPTIONS {
                assert_eq!(normalize(target, option), Err(want), "{target}");
            }
        }
        assert_eq!(normalize("*", PathNormalization::Base).unwrap().path(), "*");
    }

    #[test]
    fn rule_40_the_query_is_kept_apart_and_forwarded_as_it_came() {
        let path = normalize(
            "/a/../allow?p=v&access_token=t&q#f",
            PathNormalization::Base,
        )
        .unwrap();
        assert_eq!(
            (path.path(), path.query(), path.as_target()),
            (
                "/allow",
                Some("p=v&access_token=t&q"),
                "/allow?p=v&access_token=t&q"
            )
        );
        assert_eq!(
            path.without_params(&["access_token".into()]).as_target(),
            "/allow?p=v&q"
        );
        assert_eq!(
            path.without_params(&["access_token".into(), "p".into(), "q".into()])
                .as_target(),
            "/allow"
        );
    }

    #[test]
    fn rule_90_a_path_that_others_read_differently_is_ambiguous() {
        use PathNormalization::{DecodeAndMergeSlashes, None};
        for (target, want, without_normalization) in [
            ("/a/b", false, false),
            ("/a//b", true, true),
            ("/a%2fb", true, true),
            ("/a/%2e%2e/b", false, true),
            ("/a/../b", false, true),
            ("/%61", false, true),
            ("/a%5cb", true, true),
            ("/a?x=//%2f", false, false),
        ] {
            assert_eq!(
                is_ambiguous(target, DecodeAndMergeSlashes),
                want,
                "{target}"
            );
            assert_eq!(
                is_ambiguous(target, None),
                without_normalization,
                "{target} as it came"
            );
        }
    }

    proptest! {
        #[test]
        fn normalizing_is_idempotent_and_leaves_no_trick(tail in "([a.%25fFcCeE/\\\\;0]|%2[eEfF]|%5[cC]|/\\.\\.|//){0,24}") {
            for option in OPTIONS {
                if let Ok(once) = normalize(&format!("/{tail}"), option) {
                    prop_assert_eq!(&normalize(once.as_target(), option).unwrap(), &once);
                    if option != PathNormalization::None {
                        prop_assert!(!once.path().split('/').any(|segment| matches!(segment, "." | "..")));
                        prop_assert!(!once.path().contains('\\'));
                    }
                    if option == PathNormalization::DecodeAndMergeSlashes {
                        let lower = once.path().to_ascii_lowercase();
                        prop_assert!(!lower.contains("//") && !lower.contains("%2f") && !lower.contains("%5c") && !lower.contains("%2e"));
                    }
                }
            }
        }

        #[test]
        fn normalizing_never_panics(target in "\\PC{0,64}") {
            for option in OPTIONS {
                let _ = normalize(&target, option);
            }
        }
    }
}
