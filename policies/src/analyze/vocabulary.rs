//! What the policies of a question look at: the patterns of each field, each once, with a text for people.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use super::AnalyzeError;
use super::language::Language;
use super::machine::{Machine, Template, Text};
use crate::matcher::{Pattern, StringMatch};
use crate::object::Location;
use crate::schema::{Clause, Field, Window};

/// A field with one text or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TextField {
    Principal,
    Method,
    Path,
    Host,
    ServerName,
    Subject,
    Presenter,
}

/// A field with any number of texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ListField {
    Audience,
    Claim(Vec<String>),
    Header(String),
}

/// Where a clause looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    Text(TextField),
    List(ListField),
    Source,
    Remote,
    Destination,
    Port,
    /// Issuer and subject together.
    RequestPrincipal,
    /// `iss`: one text, fixed by the sort of token.
    Issuer,
    /// A claim that no accepted token has in a form that matches.
    Nothing,
}

/// Patterns over one text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patterns {
    pub(crate) machines: Vec<Machine>,
    pub(crate) labels: Vec<String>,
    numbers: HashMap<Machine, usize>,
}

impl Patterns {
    pub(crate) fn add(&mut self, machine: Machine, label: &str) {
        if !self.numbers.contains_key(&machine) {
            self.numbers.insert(machine.clone(), self.machines.len());
            self.machines.push(machine);
            self.labels.push(label.to_owned());
        }
    }

    pub(crate) fn number(&self, machine: &Machine) -> Option<usize> {
        self.numbers.get(machine).copied()
    }
}

/// Everything that is looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vocabulary {
    pub(crate) texts: BTreeMap<TextField, Patterns>,
    pub(crate) lists: BTreeMap<ListField, Patterns>,
    pub(crate) source: BTreeSet<IpNet>,
    pub(crate) remote: BTreeSet<IpNet>,
    pub(crate) destination: BTreeSet<IpNet>,
    pub(crate) ports: BTreeSet<u16>,
    pub(crate) windows: Vec<Window>,
    /// A policy looks at `:path`, which has the query.
    pub(crate) has_query: bool,
}

impl Vocabulary {
    pub(crate) fn text(&mut self, field: TextField) -> &mut Patterns {
        self.texts.entry(field).or_default()
    }

    /// Takes a clause's patterns in.
    pub(crate) fn add(
        &mut self,
        clause: &Clause,
        is_host_exact: bool,
        at: &Location,
    ) -> Result<(), AnalyzeError> {
        let look = look(clause, at)?;
        if matches!(&clause.field, Field::Header(name) if name == ":path") {
            self.has_query = true;
        }
        match &look {
            Look::Text(field) => {
                for (machine, label) in machines(clause, is_host_exact, at)? {
                    self.text(*field).add(machine, &label);
                }
            }
            Look::List(field) => {
                let found = machines(clause, is_host_exact, at)?;
                let patterns = self.lists.entry(field.clone()).or_default();
                for (machine, label) in found {
                    patterns.add(machine, &label);
                }
            }
            Look::RequestPrincipal => {
                for pattern in &clause.patterns {
                    if let Pattern::RequestPrincipal { subject, .. } = pattern {
                        let label = label_of(subject);
                        self.text(TextField::Subject)
                            .add(Machine::Whole(Text::of(subject)), &label);
                    }
                }
            }
            Look::Source => self.source.extend(nets(clause)),
            Look::Remote => self.remote.extend(nets(clause)),
            Look::Destination => self.destination.extend(nets(clause)),
            Look::Port => self.ports.extend(ports(clause)),
            Look::Issuer | Look::Nothing => {}
        }
        Ok(())
    }
}

pub(crate) fn nets(clause: &Clause) -> impl Iterator<Item = IpNet> + '_ {
    clause.patterns.iter().filter_map(|pattern| match pattern {
        Pattern::Address(net) => Some(*net),
        Pattern::Text(_)
        | Pattern::Template(_)
        | Pattern::Port(_)
        | Pattern::ServiceAccount { .. }
        | Pattern::RequestPrincipal { .. }
        | Pattern::Reference(_) => None,
    })
}

pub(crate) fn ports(clause: &Clause) -> impl Iterator<Item = u16> + '_ {
    clause.patterns.iter().filter_map(|pattern| match pattern {
        Pattern::Port(port) => Some(*port),
        Pattern::Text(_)
        | Pattern::Template(_)
        | Pattern::Address(_)
        | Pattern::ServiceAccount { .. }
        | Pattern::RequestPrincipal { .. }
        | Pattern::Reference(_) => None,
    })
}

/// Where a clause looks. What depends on two fields at once in a way that sets cannot tell is refused.
pub(crate) fn look(clause: &Clause, at: &Location) -> Result<Look, AnalyzeError> {
    Ok(match &clause.field {
        Field::Principal | Field::Namespace | Field::ServiceAccount | Field::TrustDomain => {
            Look::Text(TextField::Principal)
        }
        Field::RequestPrincipal => Look::RequestPrincipal,
        Field::SourceAddress => Look::Source,
        Field::RemoteAddress => Look::Remote,
        Field::DestinationAddress => Look::Destination,
        Field::DestinationPort => Look::Port,
        Field::ServerName => Look::Text(TextField::ServerName),
        Field::Host => Look::Text(TextField::Host),
        Field::Method => Look::Text(TextField::Method),
        Field::Path => Look::Text(TextField::Path),
        Field::Audience => Look::List(ListField::Audience),
        Field::Presenter => Look::Text(TextField::Presenter),
        Field::Header(name) => match name.as_str() {
            ":method" => Look::Text(TextField::Method),
            ":path" => Look::Text(TextField::Path),
            ":authority" | "host" => Look::Text(TextField::Host),
            _ => Look::List(ListField::Header(name.clone())),
        },
        Field::Claim(steps) => claim(clause, steps, at)?,
    })
}

// The registered claims are other fields under another name (rules 35, 52).
fn claim(clause: &Clause, steps: &[String], at: &Location) -> Result<Look, AnalyzeError> {
    let (first, is_deep) = match steps {
        [] => return Ok(Look::Nothing),
        [first] => (first.as_str(), false),
        [first, ..] => (first.as_str(), true),
    };
    Ok(match (first, is_deep) {
        ("iss", false) => Look::Issuer,
        ("iss" | "aud", true) => Look::Nothing,
        ("aud", false) => Look::List(ListField::Audience),
        ("sub", false) => Look::Text(TextField::Subject),
        ("azp", false) => Look::Text(TextField::Presenter),
        ("sub" | "azp", true) | ("exp" | "nbf" | "iat", _) => {
            return Err(AnalyzeError::NotModelled {
                what: format!("the condition on `{}`", clause.name),
                location: at.clone(),
            });
        }
        _ => Look::List(ListField::Claim(steps.to_vec())),
    })
}

/// The machines of a clause that looks at texts, in the order of its patterns.
pub(crate) fn machines(
    clause: &Clause,
    is_host_exact: bool,
    at: &Location,
) -> Result<Vec<(Machine, String)>, AnalyzeError> {
    let is_aliased = clause.values.len() != clause.patterns.len();
    let mut found = Vec::new();
    for (index, pattern) in clause.patterns.iter().enumerate() {
        let value = clause.values.get(index).map_or("", String::as_str);
        let machine = match pattern {
            Pattern::Text(text) => text_machine(clause, text, is_host_exact, at)?,
            Pattern::Template(_) => Machine::Template(Template::of(value)),
            Pattern::ServiceAccount { namespace, account } => {
                Machine::Account(namespace.chars().collect(), account.chars().collect())
            }
            Pattern::Reference(_) => {
                return Err(AnalyzeError::NotModelled {
                    what: format!("the reference in the condition on `{}`", clause.name),
                    location: at.clone(),
                });
            }
            Pattern::Address(_) | Pattern::Port(_) | Pattern::RequestPrincipal { .. } => continue,
        };
        let written = value.strip_prefix("spiffe://").unwrap_or(value);
        let label = match pattern {
            Pattern::Text(text) if is_aliased => label_of(text),
            Pattern::Text(_)
            | Pattern::Template(_)
            | Pattern::Address(_)
            | Pattern::Port(_)
            | Pattern::ServiceAccount { .. }
            | Pattern::RequestPrincipal { .. }
            | Pattern::Reference(_) => written.to_owned(),
        };
        found.push((machine, qualified(&clause.field, &label)));
    }
    Ok(found)
}

fn text_machine(
    clause: &Clause,
    text: &StringMatch,
    is_host_exact: bool,
    at: &Location,
) -> Result<Machine, AnalyzeError> {
    let plain = || Text::of(text);
    Ok(match &clause.field {
        Field::TrustDomain => Machine::Before('/', plain()),
        Field::Path => Machine::Before('?', plain()),
        Field::Namespace => Machine::Namespace(plain()),
        Field::Host => {
            if label_of(text).contains(['[', ']']) {
                return Err(AnalyzeError::NotModelled {
                    what: format!("the IPv6 address in `{}`", clause.name),
                    location: at.clone(),
                });
            }
            if is_host_exact {
                Machine::Whole(plain())
            } else {
                Machine::Host(plain())
            }
        }
        // `*` is presence: an empty value counts (rule 26).
        Field::Header(_) if *text == StringMatch::Present => Machine::Any,
        Field::Principal
        | Field::RequestPrincipal
        | Field::ServiceAccount
        | Field::SourceAddress
        | Field::RemoteAddress
        | Field::DestinationAddress
        | Field::DestinationPort
        | Field::ServerName
        | Field::Method
        | Field::Header(_)
        | Field::Audience
        | Field::Presenter
        | Field::Claim(_) => Machine::Whole(plain()),
    })
}

fn label_of(text: &StringMatch) -> String {
    match text {
        StringMatch::Exact(text) => text.clone(),
        StringMatch::Prefix(text) => format!("{text}*"),
        StringMatch::Suffix(text) => format!("*{text}"),
        StringMatch::Present => "*".to_owned(),
    }
}

/// Principals are told apart by several fields; the label says by which.
fn qualified(field: &Field, label: &str) -> String {
    match field {
        Field::Namespace => format!("namespace {label}"),
        Field::ServiceAccount => format!("service account {label}"),
        Field::TrustDomain => format!("trust domain {label}"),
        Field::Principal
        | Field::RequestPrincipal
        | Field::SourceAddress
        | Field::RemoteAddress
        | Field::DestinationAddress
        | Field::DestinationPort
        | Field::ServerName
        | Field::Host
        | Field::Method
        | Field::Path
        | Field::Header(_)
        | Field::Audience
        | Field::Presenter
        | Field::Claim(_) => label.to_owned(),
    }
}

impl TextField {
    /// The texts that it may have.
    pub(crate) fn language(
        self,
        normalization: crate::path::PathNormalization,
        has_query: bool,
    ) -> Language {
        match self {
            Self::Principal => Language::Principal,
            Self::Method => Language::Method,
            Self::Path => Language::Path {
                normalization,
                has_query,
            },
            Self::Host => Language::Host,
            Self::ServerName => Language::ServerName,
            Self::Subject | Self::Presenter => Language::Text,
        }
    }

    /// May there be none?
    pub(crate) fn may_be_absent(self) -> bool {
        match self {
            Self::Principal | Self::ServerName | Self::Subject | Self::Presenter => true,
            Self::Method | Self::Path | Self::Host => false,
        }
    }
}
