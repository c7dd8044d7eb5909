//! What an entry asks of method and path, in a few bytes beside it: most entries that cannot hold are passed over
//! without looking at their conditions.

use super::trie::index;
use crate::call::Call;
use crate::matcher::{Pattern, StringMatch};
use crate::schema::{Clause, Field};

/// Bytes of a path that are compared.
const TAIL_BYTES: usize = 16;

/// The first bytes of what a path begins with.
pub(super) type Head = [u8; TAIL_BYTES];

/// For methods without a bit of their own.
const OTHER_METHOD: u8 = 1 << 7;

/// Passes whatever the conditions of an entry let pass, and little else.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter {
    /// The last bytes of what the path begins with.
    tail: [u8; TAIL_BYTES],
    start_bytes: u32,
    is_whole: bool,
    methods: u8,
}

/// The method and the path of a request.
#[derive(Clone, Copy)]
pub(super) struct Request<'r> {
    path: &'r [u8],
    method: u8,
}

impl<'r> Request<'r> {
    pub(super) fn new(call: Call<'r>) -> Self {
        match call {
            Call::Http(call) => Self {
                path: call.path.path().as_bytes(),
                method: bit_of(call.method).unwrap_or(OTHER_METHOD),
            },
            Call::Tcp(..) => Self {
                path: b"",
                method: OTHER_METHOD,
            },
        }
    }
}

impl Filter {
    /// Of all the conditions of an entry.
    pub(super) fn new<'c>(clauses: impl Iterator<Item = &'c Clause>) -> Self {
        let mut filter = Self {
            tail: [0; TAIL_BYTES],
            start_bytes: 0,
            is_whole: false,
            methods: u8::MAX,
        };
        for clause in clauses.filter(|clause| !clause.is_negative) {
            match clause.field {
                Field::Method => filter.methods &= methods_of(clause).unwrap_or(u8::MAX),
                Field::Path => filter.narrow(clause),
                Field::Principal
                | Field::Namespace
                | Field::ServiceAccount
                | Field::TrustDomain
                | Field::SourceAddress
                | Field::RemoteAddress
                | Field::DestinationAddress
                | Field::DestinationPort
                | Field::ServerName
                | Field::RequestPrincipal
                | Field::Host
                | Field::Header(_)
                | Field::Audience
                | Field::Presenter
                | Field::Claim(_) => {}
            }
        }
        filter
    }

    fn narrow(&mut self, clause: &Clause) {
        let mut starts = clause.patterns.iter().map(start_of);
        let Some((first, mut is_whole)) = starts.next() else {
            return;
        };
        let mut start = first.into_bytes();
        for (other, _) in starts {
            let pairs = start.iter().zip(other.as_bytes());
            start.truncate(pairs.take_while(|(left, right)| left == right).count());
            is_whole = false;
        }
        let Ok(start_bytes) = u32::try_from(start.len()) else {
            return;
        };
        if start_bytes < self.start_bytes {
            return;
        }
        self.tail = tail_of(&start);
        self.start_bytes = start_bytes;
        self.is_whole = is_whole;
    }

    /// The same for paths that begin with (or are) `start` alone, and its first bytes; `None` for a start that the two do
    /// not say in full.
    pub(super) fn with_start(self, start: &[u8], is_whole: bool) -> Option<(Self, Head)> {
        let head = match start.first_chunk() {
            _ if start.len() > 2 * TAIL_BYTES => return None,
            Some(head) => *head,
            None => [0; TAIL_BYTES],
        };
        let filter = Self {
            tail: tail_of(start),
            start_bytes: u32::try_from(start.len()).ok()?,
            is_whole,
            ..self
        };
        Some((filter, head))
    }

    /// Whether a path that passes begins with these bytes as well: it then begins with (or is) the start.
    pub(super) fn is_after(&self, head: &Head, request: Request<'_>) -> bool {
        index(self.start_bytes) <= TAIL_BYTES || request.path.first_chunk() == Some(head)
    }

    /// False: the entry does not hold.
    pub(super) fn passes(&self, request: Request<'_>) -> bool {
        self.methods & request.method != 0 && self.passes_path(request)
    }

    /// The same of the path alone.
    pub(super) fn passes_path(&self, request: Request<'_>) -> bool {
        let length = index(self.start_bytes);
        if self.is_whole && request.path.len() != length {
            return false;
        }
        let end = request.path.get(length.saturating_sub(TAIL_BYTES)..length);
        end.is_some_and(|end| match <&[u8; TAIL_BYTES]>::try_from(end) {
            Ok(end) => *end == self.tail,
            Err(_) => self.tail.starts_with(end),
        })
    }
}

/// The last bytes, with zeros behind them where there are fewer.
fn tail_of(start: &[u8]) -> [u8; TAIL_BYTES] {
    let end = start.get(start.len().saturating_sub(TAIL_BYTES)..);
    let mut tail = [0; TAIL_BYTES];
    for (to, from) in tail.iter_mut().zip(end.unwrap_or_default()) {
        *to = *from;
    }
    tail
}

/// True when a filter says all that this condition does.
pub(super) fn is_said(clause: &Clause) -> bool {
    clause.field == Field::Method && !clause.is_negative && methods_of(clause).is_some()
}

fn bit_of(method: &str) -> Option<u8> {
    Some(match method {
        "GET" => 1,
        "HEAD" => 1 << 1,
        "POST" => 1 << 2,
        "PUT" => 1 << 3,
        "DELETE" => 1 << 4,
        "PATCH" => 1 << 5,
        "OPTIONS" => 1 << 6,
        _ => return None,
    })
}

/// `None` when one of them has no bit of its own.
fn methods_of(clause: &Clause) -> Option<u8> {
    if clause.is_all_of {
        return None;
    }
    clause.patterns.iter().try_fold(0, |methods, pattern| {
        let Pattern::Text(StringMatch::Exact(method)) = pattern else {
            return None;
        };
        Some(methods | bit_of(method)?)
    })
}

/// What every path begins with that the pattern matches, and whether that is the whole path.
fn start_of(pattern: &Pattern) -> (String, bool) {
    match pattern {
        Pattern::Text(StringMatch::Exact(text)) => (text.clone(), true),
        Pattern::Text(StringMatch::Prefix(text)) => (text.clone(), false),
        Pattern::Template(template) => (template.literal_start(), false),
        Pattern::Text(StringMatch::Suffix(_) | StringMatch::Present)
        | Pattern::Address(_)
        | Pattern::Port(_)
        | Pattern::ServiceAccount { .. }
        | Pattern::RequestPrincipal { .. }
        | Pattern::Reference(_) => (String::new(), false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_filter_with_the_first_bytes_says_all_about_a_path(
            start in "[ab]{0,45}",
            end in "[ab]{0,2}",
            cut in 0_usize..3,
            flip in proptest::option::of(0_usize..45),
            is_whole: bool,
        ) {
            let mut path = format!("{start}{end}").into_bytes();
            path.truncate(path.len().saturating_sub(cut));
            if let Some(byte) = flip.and_then(|at| path.get_mut(at)) {
                *byte ^= 3;
            }
            let request = Request { path: &path, method: 1 };
            let any = Filter::new(std::iter::empty());
            let Some((filter, head)) = any.with_start(start.as_bytes(), is_whole) else {
                prop_assert!(start.len() > 2 * TAIL_BYTES);
                return Ok(());
            };
            let want = if is_whole {
                path == start.as_bytes()
            } else {
                path.starts_with(start.as_bytes())
            };
            let found = filter.passes(request) && filter.is_after(&head, request);
            prop_assert_eq!(found, want);
        }
    }
}
