//! Whether one clause holds for a call: inside it patterns are ORed, a negative list must match nothing (rule 21).
//!
//! Nothing here allocates. Where a header has several values, an ALLOW needs all of them and a DENY any (rule 45).

use std::net::IpAddr;

use ravelin_proto::spiffe_id::SpiffeId;
use serde_json::{Map, Value};

use crate::call::{Call, HttpCall};
use crate::compile::Options;
use crate::index::dimension::principal_text;
use crate::index::lookup::Lookup;
use crate::matcher::{Pattern, Reference};
use crate::schema::{Clause, Effect, Field, Rule};

/// A clause as it is judged.
#[derive(Clone, Copy)]
pub(crate) struct Condition<'c> {
    pub(crate) clause: &'c Clause,
    /// For a long list: finds the patterns that can match a value.
    pub(crate) lookup: Option<&'c Lookup>,
}

/// Is the rule skipped? An ALLOW rule with an HTTP field, on TCP (rule 54).
pub(crate) fn is_skipped(rule: &Rule, effect: Effect, call: Call<'_>) -> bool {
    matches!(call, Call::Tcp(..))
        && effect == Effect::Allow
        && rule.clauses().any(|clause| clause.field.is_http_only())
}

/// Does one clause hold?
pub(crate) fn clause_matches(
    clause: &Clause,
    effect: Effect,
    call: Call<'_>,
    options: Options,
) -> bool {
    let condition = Condition {
        clause,
        lookup: None,
    };
    condition.holds(effect, call, options)
}

impl Condition<'_> {
    /// Does it hold for the call?
    pub(crate) fn holds(self, effect: Effect, call: Call<'_>, options: Options) -> bool {
        match call {
            // Every other effect drops on TCP what exists for HTTP alone, and so gets wider (rules 56, 57).
            Call::Tcp(..) if self.clause.field.is_http_only() => effect != Effect::Allow,
            Call::Http(http) => match self.request_fact(effect, http, options) {
                Some(holds) => holds,
                None => self.connection_fact(call) != self.clause.is_negative,
            },
            Call::Tcp(..) => self.connection_fact(call) != self.clause.is_negative,
        }
    }

    /// Whether any pattern matches, of all or of those that the value finds.
    fn any(self, value: &[u8], matches: impl Fn(&Pattern) -> bool) -> bool {
        match self.lookup {
            Some(lookup) => lookup.any(value, |number| {
                self.clause.patterns.get(number).is_some_and(&matches)
            }),
            None => self.clause.patterns.iter().any(matches),
        }
    }

    /// The same for fields whose patterns look at more than one value.
    fn any_of(
        self,
        call: Call<'_>,
        is_host_exact: bool,
        matches: impl Fn(&Pattern) -> bool,
    ) -> bool {
        let Some(lookup) = self.lookup else {
            return self.clause.patterns.iter().any(matches);
        };
        let mut is_found = false;
        lookup
            .dimension
            .each_value(call, is_host_exact, &mut |value| {
                is_found = is_found || self.any(value, &matches);
            });
        is_found
    }

    fn any_text(self, value: &[u8]) -> bool {
        self.any(value, |pattern| pattern.matches_text(value))
    }

    /// Whether any pattern matches what the connection tells.
    fn connection_fact(self, call: Call<'_>) -> bool {
        let connection = call.connection();
        let id = connection.principal.as_ref();
        let text = |value: Option<&str>| value.is_some_and(|value| self.any_text(value.as_bytes()));
        let address =
            |address: IpAddr| self.any_of(call, false, |pattern| pattern.matches_address(address));
        match &self.clause.field {
            Field::Principal => text(id.and_then(principal_text)),
            Field::TrustDomain => text(id.map(SpiffeId::trust_domain_str)),
            Field::Namespace => id.is_some_and(|id| {
                self.any_of(call, false, |pattern| pattern.matches_namespace(id.path()))
            }),
            Field::ServiceAccount => id.is_some_and(|id| {
                self.any_of(call, false, |pattern| {
                    pattern.matches_service_account(id.path())
                })
            }),
            Field::SourceAddress => address(connection.source_ip),
            Field::RemoteAddress => address(connection.remote_ip),
            Field::DestinationAddress => address(connection.destination_ip),
            Field::DestinationPort => {
                let port = connection.destination_port;
                self.any(&port.to_be_bytes(), |pattern| pattern.matches_port(port))
            }
            Field::ServerName => text(connection.sni.as_deref()),
            Field::RequestPrincipal
            | Field::Host
            | Field::Method
            | Field::Path
            | Field::Header(_)
            | Field::Audience
            | Field::Presenter
            | Field::Claim(_) => false,
        }
    }

    /// Whether the clause holds for what the request tells; `None` when it is about the connection.
    fn request_fact(self, effect: Effect, call: &HttpCall<'_>, options: Options) -> Option<bool> {
        let identity = call.identity;
        let text = |value: Option<&str>| value.is_some_and(|value| self.any_text(value.as_bytes()));
        let is_found = match &self.clause.field {
            Field::Header(name) => return Some(self.header_holds(effect, call, name)),
            Field::Host => self.any_of(Call::Http(call), options.is_host_exact, |pattern| {
                pattern.matches_host(call.host, options.is_host_exact)
            }),
            Field::Method => text(Some(call.method)),
            Field::Path => {
                let path = call.path.path().as_bytes();
                self.any_of(Call::Http(call), false, |pattern| {
                    pattern.matches_text(path)
                })
            }
            Field::RequestPrincipal => match (&identity.principal, &identity.issuer) {
                (Some(_), Some(issuer)) => {
                    let subject = identity.subject.as_deref().unwrap_or_default();
                    self.any_of(Call::Http(call), false, |pattern| {
                        pattern.matches_request_principal(issuer, subject)
                    })
                }
                _ => false,
            },
            Field::Audience => identity
                .audiences
                .iter()
                .any(|audience| self.any_text(audience.as_bytes())),
            Field::Presenter => text(identity.presenter.as_deref()),
            Field::Claim(steps) => identity
                .claims
                .as_deref()
                .and_then(|claims| find_claim(claims, steps))
                .is_some_and(|claim| self.claim_holds(claim, call, options)),
            Field::Principal
            | Field::Namespace
            | Field::ServiceAccount
            | Field::TrustDomain
            | Field::SourceAddress
            | Field::RemoteAddress
            | Field::DestinationAddress
            | Field::DestinationPort
            | Field::ServerName => return None,
        };
        Some(is_found != self.clause.is_negative)
    }

    // Rule 45 and threat A7: values are tested one by one, never joined. A missing header fails a positive list
    // and passes a negative one (rule 28).
    fn header_holds(self, effect: Effect, call: &HttpCall<'_>, name: &str) -> bool {
        let (mut count, mut matching) = (0_usize, 0_usize);
        each_header(call, name, &mut |value| {
            count += 1;
            // `*` is presence: an empty value counts (rule 26).
            let is_match = self.any(value, |pattern| {
                pattern.is_presence() || pattern.matches_text(value)
            });
            matching += usize::from(is_match);
        });
        let fitting = if self.clause.is_negative {
            count - matching
        } else {
            matching
        };
        if count == 0 {
            return self.clause.is_negative;
        }
        match effect {
            Effect::Allow => fitting == count,
            Effect::Deny | Effect::Audit | Effect::Custom => fitting > 0,
        }
    }

    // A string, or a list with such a string (rule 48); with typed claims also `true` and `42` (rule 50).
    fn claim_holds(self, claim: &Value, call: &HttpCall<'_>, options: Options) -> bool {
        let items = match claim {
            Value::Array(items) => items.as_slice(),
            Value::String(_)
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Null
            | Value::Object(_) => std::slice::from_ref(claim),
        };
        if self.clause.is_all_of {
            return self.clause.patterns.iter().all(|pattern| {
                items.iter().any(|item| {
                    with_claim_text(item, options, |text| text_matches(pattern, text, call))
                })
            });
        }
        items.iter().any(|item| {
            with_claim_text(item, options, |text| {
                self.any(text, |pattern| text_matches(pattern, text, call))
            })
        })
    }
}

/// Values of a header, or of the pseudo-headers that a request has here.
pub(crate) fn each_header(call: &HttpCall<'_>, name: &str, visit: &mut dyn FnMut(&[u8])) {
    match name {
        ":method" => visit(call.method.as_bytes()),
        ":path" => visit(call.path.as_target().as_bytes()),
        ":authority" | "host" => visit(call.host.as_bytes()),
        _ => call.headers.each_value(name, visit),
    }
}

/// Walks into the claims (rule 49).
pub(crate) fn find_claim<'c>(
    claims: &'c Map<String, Value>,
    steps: &[String],
) -> Option<&'c Value> {
    let (first, rest) = steps.split_first()?;
    rest.iter().try_fold(claims.get(first)?, |value, step| {
        value.as_object()?.get(step)
    })
}

fn with_claim_text(value: &Value, options: Options, is_match: impl Fn(&[u8]) -> bool) -> bool {
    match value {
        Value::String(text) => is_match(text.as_bytes()),
        Value::Bool(value) if options.has_typed_claims => {
            is_match(if *value { b"true" } else { b"false" })
        }
        Value::Number(number) if options.has_typed_claims => {
            let mut is_found = false;
            number_text(number, &mut |text| is_found = is_match(text));
            is_found
        }
        Value::Bool(_) | Value::Number(_) | Value::Null | Value::Array(_) | Value::Object(_) => {
            false
        }
    }
}

/// A number as it is compared, without allocating.
pub(crate) fn number_text(number: &serde_json::Number, visit: &mut dyn FnMut(&[u8])) {
    use std::io::Write;
    let mut text = [0_u8; 40];
    let mut left = text.as_mut_slice();
    if write!(left, "{number}").is_err() {
        return;
    }
    let unused = left.len();
    if let Some(text) = text.get(..text.len() - unused) {
        visit(text);
    }
}

fn text_matches(pattern: &Pattern, value: &[u8], call: &HttpCall<'_>) -> bool {
    match pattern {
        Pattern::Reference(reference) => refers_to(reference, value, call),
        Pattern::Text(_)
        | Pattern::Template(_)
        | Pattern::Address(_)
        | Pattern::Port(_)
        | Pattern::ServiceAccount { .. }
        | Pattern::RequestPrincipal { .. } => pattern.matches_text(value),
    }
}

/// Is `value` what the request has there? What is missing, empty or repeated equals nothing.
fn refers_to(reference: &Reference, value: &[u8], call: &HttpCall<'_>) -> bool {
    match reference {
        Reference::Header(name) => {
            let (mut count, mut is_equal) = (0_usize, false);
            each_header(call, name, &mut |found| {
                count += 1;
                is_equal = !found.is_empty() && found == value;
            });
            count == 1 && is_equal
        }
        Reference::PathSegment(number) => call
            .path
            .path()
            .split('/')
            .nth(usize::from(*number))
            .is_some_and(|segment| !segment.is_empty() && segment.as_bytes() == value),
    }
}
