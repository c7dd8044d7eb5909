//! Which texts are values at all: SPIFFE IDs, normalized paths, hosts, methods, header values. A class of values that
//! has none of these is no class.

use crate::path::PathNormalization;

/// The values that a text can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Language {
    /// A SPIFFE ID without its scheme, whose path names at most one namespace (`/ns/NS/`).
    Principal,
    /// A whole SPIFFE ID, not that of a trust domain itself.
    SpiffeUri,
    /// A path that this normalization leaves as it is, with a query where a policy looks at it. `*` is not one.
    Path {
        normalization: PathNormalization,
        has_query: bool,
    },
    /// In lower case, a name or an IPv4 address, with an optional port.
    Host,
    Method,
    ServerName,
    /// Visible characters, blanks inside; may be empty.
    Header,
    /// Anything but nothing.
    Text,
}

/// Four small numbers; what they mean is the business of each language.
type State = [u8; 4];

const SCHEME: [char; 9] = ['s', 'p', 'i', 'f', 'f', 'e', ':', '/', '/'];
const HIGHEST_PORT: [char; 5] = ['6', '5', '5', '3', '5'];

// The last segment of a path: nothing yet, `.`, `..`, anything else.
const EMPTY: u8 = 0;
const DOT: u8 = 1;
const DOT_DOT: u8 = 2;
const NAMED: u8 = 3;

// Parts of a SPIFFE ID, a target, a host.
const BEFORE: u8 = 0;
const FIRST: u8 = 1;
const SECOND: u8 = 2;

impl Language {
    /// Before the first character, in every language.
    pub(crate) const START: u32 = 0;

    pub(crate) fn step(self, at: u32, c: char) -> Option<u32> {
        let state = at.to_be_bytes();
        let is_in = |holds: bool| holds.then_some([FIRST, 0, 0, 0]);
        let next = match self {
            Self::Principal => principal_step(state, c),
            Self::SpiffeUri => uri_step(state, c),
            Self::Path {
                normalization,
                has_query,
            } => path_step(state, c, normalization, has_query),
            Self::Host => host_step(state, c),
            Self::Method => is_in(c.is_ascii_uppercase() || c == '-'),
            Self::ServerName => is_in(c.is_ascii_alphanumeric() || "-._".contains(c)),
            Self::Header => header_step(state, c),
            Self::Text => Some([FIRST, 0, 0, 0]),
        };
        next.map(u32::from_be_bytes)
    }

    pub(crate) fn accepts(self, at: u32) -> bool {
        let [part, last, escape, _] = at.to_be_bytes();
        match self {
            Self::Principal | Self::SpiffeUri => part == SECOND && last == NAMED,
            Self::Path { normalization, .. } => {
                part == SECOND || (part == FIRST && path_may_end(last, escape, normalization))
            }
            Self::Host => part == FIRST || (part == SECOND && last > 0),
            Self::Method | Self::ServerName | Self::Text => part == FIRST,
            Self::Header => part != SECOND,
        }
    }

    /// Characters that its states tell apart, with an example of each escape.
    pub(crate) fn letters(self) -> Vec<char> {
        let text = match self {
            Self::Principal => "/.ns",
            Self::SpiffeUri => "spife:/.",
            Self::Path {
                has_query: false, ..
            } => "/.%20\\|",
            Self::Path {
                has_query: true, ..
            } => "/.%20\\|?",
            Self::Host => ".:80",
            Self::Method | Self::ServerName | Self::Text => "",
            Self::Header => " ",
        };
        text.chars().collect()
    }

    /// Ordinary characters; the first that no pattern names stands for all that none names.
    pub(crate) fn ordinary(self) -> &'static str {
        match self {
            Self::Method => "XYZQWJKVUBCDEFGHILMNOPRSTA-",
            Self::Principal | Self::SpiffeUri | Self::Host => {
                "xyzqwjkvubcdfghilmopratesn0123456789-_"
            }
            Self::Path { .. } | Self::ServerName | Self::Header | Self::Text => {
                "xyzqwjkvubcdfghilmopratesnXYZQWJKVUBCDFGHILMOPRATESN0123456789-_"
            }
        }
    }
}

fn is_domain_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c)
}

/// The segment after `c`, in the path of a SPIFFE ID.
fn id_segment(last: u8, c: char) -> Option<u8> {
    match (last, c) {
        (NAMED, '/') => Some(EMPTY),
        (_, '/') => None,
        (EMPTY, '.') => Some(DOT),
        (DOT, '.') => Some(DOT_DOT),
        _ => (c.is_ascii_alphanumeric() || "-._".contains(c)).then_some(NAMED),
    }
}

// State: part (nothing, trust domain, path), last segment, how much of `/ns/` stands at the end, namespaces so far.
fn principal_step([part, last, seen, count]: State, c: char) -> Option<State> {
    match (part, c) {
        (FIRST, '/') => Some([SECOND, EMPTY, 1, 0]),
        (BEFORE | FIRST, _) => is_domain_char(c).then_some([FIRST, 0, 0, 0]),
        _ => {
            let last = id_segment(last, c)?;
            let (seen, count) = match (seen, c) {
                (3, '/') => (0, count + 1),
                (_, '/') => (1, count),
                (1, 'n') => (2, count),
                (2, 's') => (3, count),
                _ => (0, count),
            };
            (count <= 1).then_some([SECOND, last, seen, count])
        }
    }
}

// State: part (scheme and trust domain, path), then the characters of the scheme or the last segment.
fn uri_step([part, last, is_named, _]: State, c: char) -> Option<State> {
    if part == SECOND {
        return Some([SECOND, id_segment(last, c)?, 0, 0]);
    }
    match SCHEME.get(usize::from(last)) {
        Some(wanted) => (*wanted == c).then_some([BEFORE, last + 1, 0, 0]),
        None if c == '/' && is_named == 1 => Some([SECOND, EMPTY, 0, 0]),
        None => is_domain_char(c).then_some([BEFORE, last, 1, 0]),
    }
}

fn normalizes_segments(normalization: PathNormalization) -> bool {
    normalization != PathNormalization::None
}

fn path_may_end(last: u8, escape: u8, normalization: PathNormalization) -> bool {
    escape == 0 && !(normalizes_segments(normalization) && matches!(last, DOT | DOT_DOT))
}

// State: part (nothing, path, query), last segment, an escape that has begun (1, or 2 and its first digit).
fn path_step(
    [part, last, escape, _]: State,
    c: char,
    normalization: PathNormalization,
    has_query: bool,
) -> Option<State> {
    if c == '#' || !c.is_ascii_graphic() {
        return None;
    }
    match (part, c) {
        (BEFORE, _) => return (c == '/').then_some([FIRST, EMPTY, 0, 0]),
        (SECOND, _) => return Some([SECOND, 0, 0, 0]),
        (_, '?') => {
            let ends = has_query && path_may_end(last, escape, normalization);
            return ends.then_some([SECOND, 0, 0, 0]);
        }
        _ => {}
    }
    if escape > 0 {
        let digit = u8::try_from(c.to_digit(16)?).ok()?;
        let Some(high) = escape.checked_sub(2) else {
            return Some([FIRST, last, digit + 2, 0]);
        };
        return is_kept_escape(high * 16 + digit, normalization).then_some([FIRST, NAMED, 0, 0]);
    }
    let is_merged = matches!(
        normalization,
        PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes
    );
    match (last, c) {
        (_, '%') => Some([FIRST, last, 1, 0]),
        (_, '\\') if normalizes_segments(normalization) => None,
        (EMPTY, '/') if is_merged => None,
        (_, '/') => path_may_end(last, 0, normalization).then_some([FIRST, EMPTY, 0, 0]),
        (EMPTY, '.') => Some([FIRST, DOT, 0, 0]),
        (DOT, '.') => Some([FIRST, DOT_DOT, 0, 0]),
        _ => Some([FIRST, NAMED, 0, 0]),
    }
}

/// An escape that normalization leaves alone (rules 87, 89).
fn is_kept_escape(byte: u8, normalization: PathNormalization) -> bool {
    let plain = char::from(byte);
    let is_unreserved = plain.is_ascii_alphanumeric() || "-._~".contains(plain);
    match normalization {
        _ if byte == 0 => false,
        PathNormalization::None => true,
        PathNormalization::Base | PathNormalization::MergeSlashes => !is_unreserved,
        PathNormalization::DecodeAndMergeSlashes => !is_unreserved && !matches!(plain, '/' | '\\'),
    }
}

// State: part (nothing, name, port); the name's last character is a dot (2) or not (1), or digits of the port; whether
// the port's digits are below (0), equal to (1) or above (2) those of the highest port.
fn host_step([part, last, compared, _]: State, c: char) -> Option<State> {
    match (part, c) {
        (FIRST, ':') => Some([SECOND, 0, 1, 0]),
        (BEFORE | FIRST, '.') => (part == FIRST && last != 2).then_some([FIRST, 2, 0, 0]),
        (BEFORE | FIRST, _) => is_domain_char(c).then_some([FIRST, 1, 0, 0]),
        _ => {
            let highest = HIGHEST_PORT.get(usize::from(last))?;
            if !c.is_ascii_digit() || (last == 0 && c == '0') {
                return None;
            }
            let compared = match (compared, c.cmp(highest)) {
                (1, std::cmp::Ordering::Less) => 0,
                (1, std::cmp::Ordering::Greater) => 2,
                _ => compared,
            };
            let is_fifth = usize::from(last) + 1 == HIGHEST_PORT.len();
            (!is_fifth || compared < 2).then_some([SECOND, last + 1, compared, 0])
        }
    }
}

// State: nothing, a visible character, a blank at the end.
fn header_step([part, ..]: State, c: char) -> Option<State> {
    match (part, c) {
        (BEFORE, ' ') => None,
        (_, ' ' | '\t') => Some([SECOND, 0, 0, 0]),
        _ => (!c.is_control()).then_some([FIRST, 0, 0, 0]),
    }
}
