//! What an entry asks of method and path, in a few bytes beside it: most entries that cannot hold are passed over
//! without looking at their conditions.

use super::trie::index;
use crate::call::Call;
use crate::matcher::{Pattern, StringMatch};
use crate::schema::{Clause, Field};

/// Bytes of a path that are compared.
const TAIL_BYTES: usize = 16;

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
        let end = start.get(start.len().saturating_sub(TAIL_BYTES)..);
        self.tail = [0; TAIL_BYTES];
        for (to, from) in self.tail.iter_mut().zip(end.unwrap_or_default()) {
            *to = *from;
        }
        self.start_bytes = start_bytes;
        self.is_whole = is_whole;
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
