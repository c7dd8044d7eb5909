//! What a clause wanted and what the call had there: taken while the call lives, put into words when somebody reads.

use std::fmt;

use serde_json::Value;

use crate::call::{Call, HttpCall};
use crate::clause::{each_header, find_claim};
use crate::diagnostic::excerpt;
use crate::limits;
use crate::schema::{Clause, Field, Rule};

/// Values of a list that a text names.
const VALUES_SHOWN_MAX: usize = 4;

/// A clause of a rule, and what the call has there.
#[derive(Debug, Clone)]
pub(super) struct Fact {
    place: Place,
    actual: Actual,
}

/// Where in its rule a clause stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    From(usize, usize),
    To(usize, usize),
    When(usize),
}

#[derive(Debug, Clone)]
enum Actual {
    NoPeer,
    NoRequest,
    NoToken,
    Nothing,
    /// It may be a secret (threat 41).
    Hidden,
    Text(Box<str>),
}

impl Fact {
    pub(super) fn new(place: Place, clause: &Clause, call: Call<'_>) -> Self {
        Self {
            place,
            actual: actual(clause, call),
        }
    }

    /// In words. `rule` is the one that the clause is of.
    pub(super) fn describe(&self, rule: &Rule) -> String {
        let clause = match self.place {
            Place::From(alternative, place) => {
                rule.from.get(alternative).and_then(|all| all.get(place))
            }
            Place::To(alternative, place) => {
                rule.to.get(alternative).and_then(|all| all.get(place))
            }
            Place::When(place) => rule.when.get(place),
        };
        clause.map_or_else(String::new, |clause| {
            without_control(&describe(clause, &self.actual))
        })
    }
}

fn describe(clause: &Clause, actual: &Actual) -> String {
    let values = clause.values.iter().map(String::as_str);
    let wanted: Vec<&str> = values.take(VALUES_SHOWN_MAX).collect();
    let more = if clause.values.len() > VALUES_SHOWN_MAX {
        ", .."
    } else {
        ""
    };
    let verb = match (clause.is_negative, clause.is_all_of) {
        (true, _) => "none of",
        (false, true) => "all of",
        (false, false) => "one of",
    };
    format!(
        "`{}` wants {verb} [{}{more}]; the call has {actual}",
        clause.name,
        wanted.join(", "),
    )
}

fn without_control(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

impl fmt::Display for Actual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPeer => f.write_str("no peer identity (plain text)"),
            Self::NoRequest => f.write_str("no request (a bare connection)"),
            Self::NoToken => f.write_str("no accepted token"),
            Self::Nothing => f.write_str("none"),
            Self::Hidden => f.write_str("a value that is not shown"),
            Self::Text(text) => write!(f, "`{}`", excerpt(text)),
        }
    }
}

/// Enough of a text for an excerpt of it.
fn text(value: Option<&str>) -> Actual {
    let bytes_max = 4 * (limits::EXCERPT_CHARS_MAX + 1);
    match value {
        Some(value) => Actual::Text(
            value
                .get(..value.floor_char_boundary(bytes_max))
                .unwrap_or_default()
                .into(),
        ),
        None => Actual::Nothing,
    }
}

fn actual(clause: &Clause, call: Call<'_>) -> Actual {
    let connection = call.connection();
    match (&clause.field, call) {
        (Field::Principal | Field::Namespace | Field::ServiceAccount | Field::TrustDomain, _) => {
            match &connection.principal {
                Some(id) => text(Some(id.as_str())),
                None => Actual::NoPeer,
            }
        }
        (Field::SourceAddress, _) => text(Some(&connection.source_ip.to_string())),
        (Field::RemoteAddress, _) => text(Some(&connection.remote_ip.to_string())),
        (Field::DestinationAddress, _) => text(Some(&connection.destination_ip.to_string())),
        (Field::DestinationPort, _) => text(Some(&connection.destination_port.to_string())),
        (Field::ServerName, _) => text(connection.sni.as_deref()),
        (_, Call::Tcp(..)) => Actual::NoRequest,
        (field, Call::Http(http)) => actual_of_request(field, http),
    }
}

fn actual_of_request(field: &Field, call: &HttpCall<'_>) -> Actual {
    let identity = call.identity;
    match field {
        Field::Host => text(Some(call.host)),
        Field::Method => text(Some(call.method)),
        Field::Path => text(Some(call.path.path())),
        Field::RequestPrincipal if identity.principal.is_none() => Actual::NoToken,
        Field::RequestPrincipal => text(identity.principal.as_deref()),
        Field::Presenter => text(identity.presenter.as_deref()),
        Field::Audience if identity.audiences.is_empty() => Actual::Nothing,
        Field::Audience => text(Some(&identity.audiences.join(", "))),
        Field::Claim(steps) => {
            let claims = identity.claims.as_deref();
            let claim = claims.and_then(|claims| find_claim(claims, steps));
            text(claim.map(Value::to_string).as_deref())
        }
        Field::Header(name) if is_secret_header(name) => Actual::Hidden,
        // The query may carry a token (rule 72).
        Field::Header(name) if name == ":path" => text(Some(call.path.path())),
        Field::Header(name) => {
            let mut values = Vec::new();
            each_header(call, name, &mut |value| {
                values.push(String::from_utf8_lossy(value).into_owned());
            });
            text((!values.is_empty()).then(|| values.join(", ")).as_deref())
        }
        Field::Principal
        | Field::Namespace
        | Field::ServiceAccount
        | Field::TrustDomain
        | Field::SourceAddress
        | Field::RemoteAddress
        | Field::DestinationAddress
        | Field::DestinationPort
        | Field::ServerName => Actual::Nothing,
    }
}

/// A name by which tokens and passwords travel; the explanation ends up in logs (threat 41).
fn is_secret_header(name: &str) -> bool {
    const PARTS: [&str; 9] = [
        "auth",
        "cookie",
        "credential",
        "jwt",
        "key",
        "password",
        "secret",
        "session",
        "token",
    ];
    PARTS.iter().any(|part| name.contains(part))
}
