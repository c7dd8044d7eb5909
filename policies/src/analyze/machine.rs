//! Each kind of pattern as a deterministic machine over the characters of a value, so that whole classes of values
//! can be told apart. They mean the same as `matcher.rs` and `template.rs`; the tests hold the two together.

use crate::matcher::StringMatch;

/// Where a machine is after some characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Progress {
    /// Nothing that follows makes it match.
    Dead,
    /// Whatever follows, it matches.
    Sure,
    /// It depends on what follows.
    At(u32),
}

/// A pattern over one text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Machine {
    /// Any value, also the empty one (presence of a header).
    Any,
    Whole(Text),
    /// The text before the first of this character.
    Before(char, Text),
    /// A host, in any case, with or without port and final dot (rule 38).
    Host(Text),
    /// `TD/..`: `/ns/NS/` with something behind it (rule 29).
    Namespace(Text),
    /// `TD/../ns/NS/[key/value/..]sa/NAME` (rule 31).
    Account(Vec<char>, Vec<char>),
    /// A path template, before a `?`.
    Template(Template),
    /// A text that is a language of its own.
    Language(super::language::Language),
}

/// Exact, prefix, suffix or present.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Text {
    Exact(Vec<char>),
    Prefix(Vec<char>),
    /// With the longest border of each of its beginnings.
    Suffix(Vec<char>, Vec<usize>),
    Present,
}

/// Literal characters, `{*}`, and perhaps `{**}` with what follows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Template {
    parts: Vec<Part>,
    rest: Option<Text>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Literal(char),
    Segment,
}

impl Text {
    pub(crate) fn of(pattern: &StringMatch) -> Self {
        let chars = |text: &str| text.chars().collect::<Vec<char>>();
        match pattern {
            StringMatch::Exact(text) => Self::Exact(chars(text)),
            StringMatch::Prefix(text) => Self::Prefix(chars(text)),
            StringMatch::Suffix(text) => Self::suffix(chars(text)),
            StringMatch::Present => Self::Present,
        }
    }

    fn suffix(text: Vec<char>) -> Self {
        let mut borders = vec![0_usize; text.len()];
        let mut length = 0_usize;
        for (at, c) in text.iter().enumerate().skip(1) {
            length = extend(&text, &borders, length, *c);
            if let Some(border) = borders.get_mut(at) {
                *border = length;
            }
        }
        Self::Suffix(text, borders)
    }

    fn start(&self) -> Progress {
        match self {
            Self::Prefix(text) | Self::Suffix(text, _) if text.is_empty() => Progress::Sure,
            Self::Exact(_) | Self::Prefix(_) | Self::Suffix(..) | Self::Present => Progress::At(0),
        }
    }

    fn step(&self, at: u32, c: char) -> Progress {
        let offset = usize::try_from(at).unwrap_or(usize::MAX);
        match self {
            Self::Exact(text) | Self::Prefix(text) => {
                if text.get(offset) != Some(&c) {
                    return Progress::Dead;
                }
                let is_prefix = matches!(self, Self::Prefix(_));
                if is_prefix && offset + 1 == text.len() {
                    Progress::Sure
                } else {
                    Progress::At(at + 1)
                }
            }
            Self::Suffix(text, borders) => Progress::At(number(extend(text, borders, offset, c))),
            Self::Present => Progress::Sure,
        }
    }

    fn accepts(&self, at: u32) -> bool {
        match self {
            Self::Exact(text) | Self::Suffix(text, _) => at == number(text.len()),
            Self::Prefix(_) | Self::Present => false,
        }
    }

    fn ends(&self, at: Progress) -> bool {
        match at {
            Progress::Dead => false,
            Progress::Sure => true,
            Progress::At(at) => self.accepts(at),
        }
    }

    fn letters(&self) -> &[char] {
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::Suffix(text, _) => text,
            Self::Present => &[],
        }
    }
}

/// How much of `text` stands at the end, after `length` of it stood there and `c` came (Knuth, Morris, Pratt).
fn extend(text: &[char], borders: &[usize], mut length: usize, c: char) -> usize {
    let border = |length: usize| {
        length
            .checked_sub(1)
            .and_then(|at| borders.get(at).copied())
            .unwrap_or(0)
    };
    if length == text.len() {
        length = border(length);
    }
    loop {
        if text.get(length) == Some(&c) {
            return length + 1;
        }
        if length == 0 {
            return 0;
        }
        length = border(length);
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl Template {
    /// Of a text that was read as a template.
    pub(crate) fn of(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut segments = text.split('/').skip(1);
        while let Some(segment) = segments.next() {
            parts.push(Part::Literal('/'));
            match segment {
                "{*}" => parts.push(Part::Segment),
                "{**}" => {
                    let rest: String = segments.flat_map(|part| ["/", part]).collect();
                    return Self {
                        parts,
                        rest: Some(Text::suffix(rest.chars().collect())),
                    };
                }
                _ => parts.extend(segment.chars().map(Part::Literal)),
            }
        }
        Self { parts, rest: None }
    }

    // States: twice the number of the next part, plus 1 inside of a segment that has begun; behind the parts: the rest.
    fn rest_base(&self) -> u32 {
        2 * number(self.parts.len()) + 2
    }

    fn enter(&self, part: usize) -> Progress {
        match &self.rest {
            Some(rest) if part == self.parts.len() => match rest.start() {
                Progress::At(at) => Progress::At(self.rest_base() + at),
                Progress::Sure => Progress::Sure,
                Progress::Dead => Progress::Dead,
            },
            Some(_) | None => Progress::At(2 * number(part)),
        }
    }

    fn step(&self, at: u32, c: char) -> Progress {
        if let (Some(rest), Some(inner)) = (&self.rest, at.checked_sub(self.rest_base())) {
            return match rest.step(inner, c) {
                Progress::At(next) => Progress::At(self.rest_base() + next),
                decided @ (Progress::Sure | Progress::Dead) => decided,
            };
        }
        let part = usize::try_from(at / 2).unwrap_or(usize::MAX);
        let is_inside = at % 2 == 1;
        match self.parts.get(part) {
            Some(Part::Literal(wanted)) if *wanted == c => self.enter(part + 1),
            Some(Part::Segment) if is_pchar(c) => Progress::At(2 * number(part) + 1),
            // A segment ends with the `/` that comes next.
            Some(Part::Segment) if is_inside && c == '/' => match self.parts.get(part + 1) {
                Some(Part::Literal('/')) => self.enter(part + 2),
                _ => Progress::Dead,
            },
            Some(Part::Literal(_) | Part::Segment) | None => Progress::Dead,
        }
    }

    fn accepts(&self, at: u32) -> bool {
        if let (Some(rest), Some(inner)) = (&self.rest, at.checked_sub(self.rest_base())) {
            return rest.accepts(inner);
        }
        let end = number(self.parts.len());
        self.rest.is_none()
            && (at == 2 * end
                || (end > 0
                    && at == 2 * (end - 1) + 1
                    && self.parts.last() == Some(&Part::Segment)))
    }
}

fn is_pchar(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=*".contains(c)
}

impl Machine {
    pub(crate) fn start(&self) -> Progress {
        match self {
            Self::Any => Progress::Sure,
            Self::Whole(text) | Self::Before(_, text) => text.start(),
            Self::Host(text) => host_progress(text.start(), false),
            Self::Template(template) => template.enter(0),
            Self::Namespace(_) | Self::Account(..) => Progress::At(SCAN_DOMAIN),
            Self::Language(_) => Progress::At(super::language::Language::START),
        }
    }

    pub(crate) fn step(&self, at: u32, c: char) -> Progress {
        match self {
            Self::Any => Progress::Sure,
            Self::Whole(text) => text.step(at, c),
            Self::Before(end, text) => {
                if c == *end {
                    sure_if(text.accepts(at))
                } else {
                    text.step(at, c)
                }
            }
            Self::Host(text) => host_step(text, at, c),
            Self::Namespace(text) => namespace_step(text, at, c),
            Self::Account(namespace, account) => account_step(namespace, account, at, c),
            Self::Template(template) => {
                if c == '?' {
                    sure_if(template.accepts(at))
                } else {
                    template.step(at, c)
                }
            }
            Self::Language(language) => language.step(at, c).map_or(Progress::Dead, Progress::At),
        }
    }

    /// Does a value match that ends here?
    pub(crate) fn accepts(&self, at: u32) -> bool {
        match self {
            Self::Any => true,
            Self::Whole(text) | Self::Before(_, text) => text.accepts(at),
            Self::Host(text) => {
                let (state, is_dotted) = host_state(at);
                is_dotted || text.ends(state)
            }
            Self::Namespace(_) => false,
            Self::Account(namespace, account) => at == account_end(namespace, account),
            Self::Template(template) => template.accepts(at),
            Self::Language(language) => language.accepts(at),
        }
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        let mut at = self.start();
        for c in value.chars() {
            match at {
                Progress::Dead => return false,
                Progress::Sure => return true,
                Progress::At(state) => at = self.step(state, c),
            }
        }
        match at {
            Progress::Dead => false,
            Progress::Sure => true,
            Progress::At(state) => self.accepts(state),
        }
    }

    /// Characters that it tells apart from others.
    pub(crate) fn letters(&self) -> Vec<char> {
        match self {
            Self::Any => Vec::new(),
            Self::Language(language) => language.letters(),
            Self::Whole(text) => text.letters().to_vec(),
            Self::Before(end, text) => [text.letters(), &[*end]].concat(),
            Self::Host(text) => [text.letters(), &['.', ':']].concat(),
            Self::Namespace(text) => [text.letters(), &['/', 'n', 's']].concat(),
            Self::Account(namespace, account) => {
                [namespace.as_slice(), account, &['/', 'n', 's', 'a']].concat()
            }
            Self::Template(template) => {
                let parts = template.parts.iter().filter_map(|part| match part {
                    Part::Literal(c) => Some(*c),
                    Part::Segment => None,
                });
                let rest = template.rest.iter().flat_map(Text::letters).copied();
                parts.chain(rest).chain(['?', '/']).collect()
            }
        }
    }
}

fn sure_if(holds: bool) -> Progress {
    if holds {
        Progress::Sure
    } else {
        Progress::Dead
    }
}

// A host's state: three times the text's own (1 for dead, 2 and more for the rest), and whether the text held before a
// final dot. Once it held for the name before the port it is sure.
fn host_progress(state: Progress, is_dotted: bool) -> Progress {
    let inner = match state {
        Progress::Sure => return Progress::Sure,
        Progress::Dead => 0,
        Progress::At(at) => at + 1,
    };
    if inner == 0 && !is_dotted {
        // Nothing of the name can match any more; a name that is cut shorter is a beginning of it, seen already.
        return Progress::Dead;
    }
    Progress::At(2 * inner + u32::from(is_dotted))
}

fn host_state(at: u32) -> (Progress, bool) {
    let state = match (at / 2).checked_sub(1) {
        Some(inner) => Progress::At(inner),
        None => Progress::Dead,
    };
    (state, at % 2 == 1)
}

fn host_step(text: &Text, at: u32, c: char) -> Progress {
    let (state, is_dotted) = host_state(at);
    let holds = text.ends(state);
    if c == ':' && (holds || is_dotted) {
        return Progress::Sure;
    }
    let next = match state {
        Progress::At(inner) => text.step(inner, c),
        decided @ (Progress::Sure | Progress::Dead) => decided,
    };
    host_progress(next, c == '.' && holds)
}

const SCAN_DOMAIN: u32 = 0;
/// Behind `/`, `/n`, `/ns`; 1 is anywhere else in the path.
const SCAN_NOWHERE: u32 = 1;
const SCAN_SLASH: u32 = 2;
const SCAN_N: u32 = 3;
const SCAN_NS: u32 = 4;
const SCANNED: u32 = 5;

/// Looks for the first `/ns/` of `TD/PATH`; `None` when this character ends it.
fn scan(at: u32, c: char) -> Option<u32> {
    Some(match (at, c) {
        (SCAN_NS, '/') => return None,
        (_, '/') => SCAN_SLASH,
        (SCAN_DOMAIN, _) => SCAN_DOMAIN,
        (SCAN_SLASH, 'n') => SCAN_N,
        (SCAN_N, 's') => SCAN_NS,
        _ => SCAN_NOWHERE,
    })
}

fn namespace_step(text: &Text, at: u32, c: char) -> Progress {
    // SCANNED: the value matches, whatever else it has; above: the state inside of the value.
    let entered = |state: Progress| match state {
        Progress::Dead => Progress::Dead,
        Progress::Sure => Progress::At(SCANNED),
        Progress::At(inner) => Progress::At(SCANNED + 1 + inner),
    };
    match (at.checked_sub(SCANNED), c) {
        (None, _) => scan(at, c).map_or_else(|| entered(text.start()), Progress::At),
        (Some(0), '/') => Progress::Sure,
        (Some(0), _) => Progress::At(SCANNED),
        (Some(inner), '/') => sure_if(text.accepts(inner - 1)),
        (Some(inner), _) => entered(text.step(inner - 1, c)),
    }
}

// States behind the scan: offset in the namespace; then the key (nothing, `s`, `sa`, other); then the value of `sa`
// (offset); then any other value.
fn account_end(namespace: &[char], account: &[char]) -> u32 {
    account_value(namespace) + number(account.len())
}

fn account_key(namespace: &[char]) -> u32 {
    SCANNED + number(namespace.len()) + 1
}

fn account_value(namespace: &[char]) -> u32 {
    account_key(namespace) + 4
}

fn account_step(namespace: &[char], account: &[char], at: u32, c: char) -> Progress {
    let (key, value) = (account_key(namespace), account_value(namespace));
    let end = account_end(namespace, account);
    let other_value = end + 1;
    if at < SCANNED {
        return Progress::At(scan(at, c).unwrap_or(SCANNED));
    }
    let offset_in = |base: u32| usize::try_from(at - base).unwrap_or(usize::MAX);
    if at < key {
        return match (namespace.get(offset_in(SCANNED)), c) {
            (None, '/') => Progress::At(key),
            (Some(wanted), c) if *wanted == c => Progress::At(at + 1),
            _ => Progress::Dead,
        };
    }
    if at < value {
        return Progress::At(match (at - key, c) {
            (2, '/') => value,
            (_, '/') => other_value,
            (0, 's') => key + 1,
            (1, 'a') => key + 2,
            _ => key + 3,
        });
    }
    match (at, c) {
        (at, '/') if at == end => Progress::Sure,
        (_, '/') => Progress::At(key),
        (at, c) if at < end && account.get(offset_in(value)) == Some(&c) => Progress::At(at + 1),
        _ => Progress::At(other_value),
    }
}
