//! By what rules are told apart: the keys that a clause has there, and the values that a call has.

use std::net::IpAddr;

use ravelin_proto::spiffe_id::SpiffeId;
use serde_json::Value;

use super::key::Key;
use crate::call::{Call, HttpCall};
use crate::clause::{each_header, find_claim, number_text};
use crate::matcher::{self, Pattern, StringMatch};
use crate::schema::{Clause, Field};
use crate::template::PathTemplate;

/// Segments of a path that templates are told apart by.
const SEGMENTS_MAX: u16 = 8;
/// Hosts and accounts up to this length are put together without allocating.
const BUFFER_BYTES: usize = 1024;

/// One thing that a call has values of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Dimension {
    Principal,
    TrustDomain,
    Namespace,
    ServiceAccount,
    SourceAddress,
    RemoteAddress,
    DestinationAddress,
    DestinationPort,
    ServerName,
    Host,
    Method,
    Path,
    /// From 1.
    Segment(u16),
    Header(String),
    Issuer,
    Subject,
    Audience,
    Presenter,
    Claim(Vec<String>),
}

impl Dimension {
    /// The dimensions that a field's clauses have keys in.
    pub(crate) fn of(field: &Field) -> Vec<Self> {
        match field {
            Field::Principal => vec![Self::Principal],
            Field::TrustDomain => vec![Self::TrustDomain],
            Field::Namespace => vec![Self::Namespace],
            Field::ServiceAccount => vec![Self::ServiceAccount],
            Field::SourceAddress => vec![Self::SourceAddress],
            Field::RemoteAddress => vec![Self::RemoteAddress],
            Field::DestinationAddress => vec![Self::DestinationAddress],
            Field::DestinationPort => vec![Self::DestinationPort],
            Field::ServerName => vec![Self::ServerName],
            Field::Host => vec![Self::Host],
            Field::Method => vec![Self::Method],
            Field::Path => std::iter::once(Self::Path)
                .chain((1..=SEGMENTS_MAX).map(Self::Segment))
                .collect(),
            Field::Header(name) => vec![Self::Header(name.clone())],
            Field::RequestPrincipal => vec![Self::Subject, Self::Issuer],
            Field::Audience => vec![Self::Audience],
            Field::Presenter => vec![Self::Presenter],
            Field::Claim(steps) => vec![Self::Claim(steps.clone())],
        }
    }

    /// Keys such that whatever makes the clause hold has a value with one of them; `None`: there are none.
    pub(crate) fn keys(&self, clause: &Clause) -> Option<Vec<Key>> {
        if clause.is_negative {
            return None;
        }
        if let Self::Segment(_) = self
            && !clause
                .patterns
                .iter()
                .any(|pattern| matches!(pattern, Pattern::Template(_)))
        {
            return None;
        }
        if clause.is_all_of {
            // Every pattern has to match: one key is enough.
            let keys = clause
                .patterns
                .iter()
                .filter_map(|pattern| self.key(pattern));
            return keys.min().map(|key| vec![key]);
        }
        let mut keys: Vec<Key> = clause
            .patterns
            .iter()
            .map(|pattern| self.key(pattern))
            .collect::<Option<_>>()?;
        keys.sort_unstable();
        keys.dedup();
        Some(keys)
    }

    /// What a value needs for the pattern to match it.
    pub(crate) fn key(&self, pattern: &Pattern) -> Option<Key> {
        match (self, pattern) {
            (Self::Segment(number), Pattern::Template(template)) => template
                .literal_segment(usize::from(*number))
                .map(|text| Key::exact(text.as_bytes())),
            (Self::Segment(number), Pattern::Text(text)) => segment_of(text, usize::from(*number)),
            (_, Pattern::Text(text)) => Some(text_key(text)),
            (Self::Path, Pattern::Template(template)) => Some(template_key(template)),
            (_, Pattern::Address(net)) => Some(address_key(net)),
            (_, Pattern::Port(port)) => Some(Key::exact(&port.to_be_bytes())),
            (_, Pattern::ServiceAccount { namespace, account }) => {
                Some(Key::exact(format!("{namespace}/{account}").as_bytes()))
            }
            (Self::Issuer, Pattern::RequestPrincipal { issuer, .. }) => Some(text_key(issuer)),
            (Self::Subject, Pattern::RequestPrincipal { subject, .. }) => Some(text_key(subject)),
            (_, Pattern::Template(_) | Pattern::RequestPrincipal { .. }) => Some(Key::any()),
            (_, Pattern::Reference(_)) => None,
        }
    }

    /// Visits each value that the call has here.
    pub(crate) fn each_value(
        &self,
        call: Call<'_>,
        is_host_exact: bool,
        visit: &mut dyn FnMut(&[u8]),
    ) {
        let connection = call.connection();
        let id = connection.principal.as_ref();
        let text = |value: Option<&str>, visit: &mut dyn FnMut(&[u8])| {
            if let Some(value) = value {
                visit(value.as_bytes());
            }
        };
        match self {
            Self::Principal => text(id.and_then(principal_text), visit),
            Self::TrustDomain => text(id.map(SpiffeId::trust_domain_str), visit),
            Self::Namespace => {
                for (namespace, _) in id.into_iter().flat_map(|id| matcher::namespaces(id.path())) {
                    visit(namespace.as_bytes());
                }
            }
            Self::ServiceAccount => {
                if let Some(id) = id {
                    each_account(id.path(), visit);
                }
            }
            Self::SourceAddress => visit(address_bytes(connection.source_ip, &mut [0; 17])),
            Self::RemoteAddress => visit(address_bytes(connection.remote_ip, &mut [0; 17])),
            Self::DestinationAddress => {
                visit(address_bytes(connection.destination_ip, &mut [0; 17]));
            }
            Self::DestinationPort => visit(&connection.destination_port.to_be_bytes()),
            Self::ServerName => text(connection.sni.as_deref(), visit),
            Self::Host
            | Self::Method
            | Self::Path
            | Self::Segment(_)
            | Self::Header(_)
            | Self::Issuer
            | Self::Subject
            | Self::Audience
            | Self::Presenter
            | Self::Claim(_) => {
                if let Call::Http(call) = call {
                    self.each_request_value(call, is_host_exact, visit);
                }
            }
        }
    }

    fn each_request_value(
        &self,
        call: &HttpCall<'_>,
        is_host_exact: bool,
        visit: &mut dyn FnMut(&[u8]),
    ) {
        let identity = call.identity;
        let text = |value: Option<&str>, visit: &mut dyn FnMut(&[u8])| {
            if let Some(value) = value {
                visit(value.as_bytes());
            }
        };
        match self {
            Self::Host => {
                for form in matcher::host_forms(call.host, is_host_exact)
                    .into_iter()
                    .flatten()
                {
                    in_lower_case(form, visit);
                }
            }
            Self::Method => visit(call.method.as_bytes()),
            Self::Path => visit(call.path.path().as_bytes()),
            Self::Segment(number) => {
                text(call.path.path().split('/').nth(usize::from(*number)), visit);
            }
            Self::Header(name) => each_header(call, name, visit),
            Self::Issuer => text(identity.issuer.as_deref(), visit),
            Self::Subject => text(Some(identity.subject.as_deref().unwrap_or_default()), visit),
            Self::Audience => {
                for audience in &identity.audiences {
                    visit(audience.as_bytes());
                }
            }
            Self::Presenter => text(identity.presenter.as_deref(), visit),
            Self::Claim(steps) => {
                let claims = identity.claims.as_deref();
                if let Some(claim) = claims.and_then(|claims| find_claim(claims, steps)) {
                    each_claim_text(claim, visit);
                }
            }
            Self::Principal
            | Self::TrustDomain
            | Self::Namespace
            | Self::ServiceAccount
            | Self::SourceAddress
            | Self::RemoteAddress
            | Self::DestinationAddress
            | Self::DestinationPort
            | Self::ServerName => {}
        }
    }
}

/// A principal as policies write it (rule 30).
pub(crate) fn principal_text(id: &SpiffeId) -> Option<&str> {
    id.as_str().strip_prefix("spiffe://")
}

fn text_key(text: &StringMatch) -> Key {
    match text {
        StringMatch::Exact(text) => Key::exact(text.as_bytes()),
        StringMatch::Prefix(text) => Key::prefix(text.as_bytes()),
        StringMatch::Suffix(text) => Key::suffix(text.as_bytes()),
        StringMatch::Present => Key::any(),
    }
}

/// The longer of the literal texts at its ends.
fn template_key(template: &PathTemplate) -> Key {
    let (start, end) = (template.literal_start(), template.literal_end());
    if end.len() > start.len() {
        Key::suffix(end.as_bytes())
    } else {
        Key::prefix(start.as_bytes())
    }
}

/// The segment that every path has which the text matches.
fn segment_of(text: &StringMatch, number: usize) -> Option<Key> {
    let (text, is_whole) = match text {
        StringMatch::Exact(text) => (text, true),
        StringMatch::Prefix(text) => (text, false),
        StringMatch::Suffix(_) | StringMatch::Present => return None,
    };
    let mut segments = text.split('/').skip(number);
    let segment = segments.next()?;
    // The last segment of a prefix may go on.
    (is_whole || segments.next().is_some()).then(|| Key::exact(segment.as_bytes()))
}

// A block within a byte is found by the whole bytes before; the check of the candidate does the rest.
fn address_key(net: &ipnet::IpNet) -> Key {
    let mut buffer = [0; 17];
    let bytes = address_bytes(net.addr(), &mut buffer);
    if net.prefix_len() == net.max_prefix_len() {
        return Key::exact(bytes);
    }
    Key::prefix(
        bytes
            .get(..1 + usize::from(net.prefix_len() / 8))
            .unwrap_or_default(),
    )
}

/// The family, then the address; an IPv4 address in IPv6 is IPv4.
fn address_bytes(address: IpAddr, buffer: &mut [u8; 17]) -> &[u8] {
    let [family, rest @ ..] = buffer;
    let length = match address.to_canonical() {
        IpAddr::V4(address) => {
            *family = 4;
            for (to, from) in rest.iter_mut().zip(address.octets()) {
                *to = from;
            }
            5
        }
        IpAddr::V6(address) => {
            *family = 6;
            *rest = address.octets();
            17
        }
    };
    buffer.get(..length).unwrap_or_default()
}

/// `NAMESPACE/ACCOUNT` of each account that the path names. A longer one than any policy may name is none.
fn each_account(path: &str, visit: &mut dyn FnMut(&[u8])) {
    for (namespace, rest) in matcher::namespaces(path) {
        for account in matcher::accounts(rest.unwrap_or_default()) {
            let mut buffer = [0; BUFFER_BYTES];
            let mut length = 0;
            let parts = [namespace.as_bytes(), b"/", account.as_bytes()];
            for (to, from) in buffer.iter_mut().zip(parts.into_iter().flatten()) {
                *to = *from;
                length += 1;
            }
            if length == namespace.len() + 1 + account.len() {
                visit(buffer.get(..length).unwrap_or_default());
            }
        }
    }
}

fn in_lower_case(host: &str, visit: &mut dyn FnMut(&[u8])) {
    if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return visit(host.as_bytes());
    }
    let mut buffer = [0; BUFFER_BYTES];
    match buffer.get_mut(..host.len()) {
        Some(lower) => {
            lower.copy_from_slice(host.as_bytes());
            lower.make_ascii_lowercase();
            visit(lower);
        }
        // No host is that long (RFC 1123 2.1); who sends one pays.
        None => visit(host.to_ascii_lowercase().as_bytes()),
    }
}

fn each_claim_text(claim: &Value, visit: &mut dyn FnMut(&[u8])) {
    match claim {
        Value::Array(items) => {
            for item in items {
                if !item.is_array() {
                    each_claim_text(item, visit);
                }
            }
        }
        Value::String(text) => visit(text.as_bytes()),
        Value::Bool(value) => visit(if *value { b"true" } else { b"false" }),
        Value::Number(number) => number_text(number, visit),
        Value::Null | Value::Object(_) => {}
    }
}
