//! Every request there is, as a product of dimensions: each with finitely many atoms, classes of values that no policy
//! of the question tells apart, and each atom with a real value.
//!
//! A list (repeated header, list claim, audiences) is one dimension a class of values: does the list have one of these?
//! So lists of any length are exact.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use ravelin_proto::time::Timestamp;

use super::AnalyzeError;
use super::bits::Bits;
use super::classes::{self, Period};
use super::language::Language;
use super::sort::TokenSort;
use super::strings;
use super::vocabulary::{ListField, Patterns, TextField, Vocabulary};
use crate::limits;
use crate::path::PathNormalization;

/// What a dimension is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Aspect {
    Text(TextField),
    Protocol,
    Port,
    Source,
    Remote,
    Destination,
    Time,
    Token,
    /// A list has a value of this class.
    Has(ListField, usize),
}

/// One value of each atom.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Atom {
    Text(Option<String>),
    Http,
    Connection,
    Port(u16),
    Address(IpAddr),
    Period(Period),
    /// Number of the sort; `None`: no token.
    Token(Option<usize>),
    Has(bool),
}

/// A set of atoms with a name: what a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) label: String,
    pub(crate) atoms: Bits,
}

/// One dimension.
#[derive(Debug, Clone)]
pub(crate) struct Dimension {
    pub(crate) aspect: Aspect,
    pub(crate) atoms: Vec<Atom>,
    pub(crate) named: Vec<Named>,
}

/// The classes of a list's values.
#[derive(Debug, Clone)]
pub(crate) struct ListClasses {
    pub(crate) patterns: Patterns,
    /// A value of each class.
    pub(crate) witnesses: Vec<String>,
    pub(crate) named: Vec<Named>,
}

/// What is asked about besides the policies.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) has_http: bool,
    pub(crate) has_connections: bool,
    pub(crate) normalization: PathNormalization,
    /// Preferred where they fit.
    pub(crate) port: u16,
    pub(crate) host: String,
    pub(crate) now: Timestamp,
    pub(crate) identities: Vec<String>,
}

/// All dimensions.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) dimensions: Vec<Dimension>,
    pub(crate) lists: BTreeMap<ListField, ListClasses>,
    pub(crate) sorts: Vec<TokenSort>,
    pub(crate) now: Timestamp,
    texts: BTreeMap<TextField, (usize, Patterns)>,
    numbers: BTreeMap<Aspect, usize>,
}

impl Space {
    pub(crate) fn new(
        vocabulary: Vocabulary,
        sorts: Vec<TokenSort>,
        scope: &Scope,
    ) -> Result<Self, AnalyzeError> {
        let mut space = Self {
            dimensions: Vec::new(),
            lists: BTreeMap::new(),
            sorts,
            now: scope.now,
            texts: BTreeMap::new(),
            numbers: BTreeMap::new(),
        };
        space.add_text(TextField::Principal, &vocabulary, scope)?;
        space.add_protocol(scope);
        space.add_ports(&vocabulary.ports, scope.port);
        for field in [TextField::Method, TextField::Path, TextField::Host] {
            space.add_text(field, &vocabulary, scope)?;
        }
        space.add_addresses(Aspect::Source, &vocabulary.source, "192.0.2.1");
        space.add_addresses(Aspect::Remote, &vocabulary.remote, "198.51.100.1");
        space.add_addresses(Aspect::Destination, &vocabulary.destination, "127.0.0.1");
        space.add_text(TextField::ServerName, &vocabulary, scope)?;
        space.add_time(&vocabulary);
        space.add_tokens();
        space.add_text(TextField::Subject, &vocabulary, scope)?;
        space.add_text(TextField::Presenter, &vocabulary, scope)?;
        for (field, patterns) in vocabulary.lists {
            space.add_list(field, patterns)?;
        }
        Ok(space)
    }

    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.dimensions
            .iter()
            .map(|dimension| dimension.atoms.len())
            .collect()
    }

    /// Where a dimension is.
    pub(crate) fn number(&self, aspect: &Aspect) -> usize {
        self.numbers.get(aspect).copied().unwrap_or(usize::MAX)
    }

    pub(crate) fn dimension(&self, aspect: &Aspect) -> Option<&Dimension> {
        self.dimensions.get(self.number(aspect))
    }

    /// The atoms of a text field that a pattern matches.
    pub(crate) fn matching(&self, field: TextField, machine: &super::machine::Machine) -> Bits {
        let found = self.texts.get(&field).and_then(|(dimension, patterns)| {
            let number = patterns.number(machine)?;
            self.dimensions.get(*dimension)?.named.get(number)
        });
        found.map_or_else(
            || Bits::empty(self.size(&Aspect::Text(field))),
            |named| named.atoms.clone(),
        )
    }

    /// The atom that a text, or none, falls into.
    #[cfg(test)]
    pub(crate) fn class_of(&self, field: TextField, text: Option<&str>) -> Option<&Atom> {
        let (number, patterns) = self.texts.get(&field)?;
        let dimension = self.dimensions.get(*number)?;
        let Some(text) = text else {
            return dimension.atoms.first();
        };
        let is_one = |atom: usize| {
            let mut pairs = dimension.named.iter().zip(&patterns.machines);
            pairs.all(|(named, machine)| named.atoms.contains(atom) == machine.matches(text))
        };
        let first = usize::from(field.may_be_absent());
        let found = (first..dimension.atoms.len()).find(|atom| is_one(*atom))?;
        dimension.atoms.get(found)
    }

    /// Is the pattern one of the vocabulary's?
    pub(crate) fn knows(&self, field: TextField, machine: &super::machine::Machine) -> bool {
        let patterns = self.texts.get(&field).map(|(_, patterns)| patterns);
        patterns.is_some_and(|patterns| patterns.number(machine).is_some())
    }

    /// The atoms of tokens of some sorts.
    pub(crate) fn of_sorts(&self, is_wanted: impl Fn(&TokenSort) -> bool) -> Bits {
        self.chosen(&Aspect::Token, |atom| {
            matches!(atom, Atom::Token(Some(number)) if self.sorts.get(*number).is_some_and(&is_wanted))
        })
    }

    pub(crate) fn size(&self, aspect: &Aspect) -> usize {
        self.dimension(aspect)
            .map_or(0, |dimension| dimension.atoms.len())
    }

    /// The atoms for which a test holds.
    pub(crate) fn chosen(&self, aspect: &Aspect, holds: impl Fn(&Atom) -> bool) -> Bits {
        let Some(dimension) = self.dimension(aspect) else {
            return Bits::empty(0);
        };
        let numbers = (0..).zip(&dimension.atoms);
        Bits::of(
            dimension.atoms.len(),
            numbers.filter_map(|(number, atom)| holds(atom).then_some(number)),
        )
    }

    fn push(&mut self, aspect: Aspect, atoms: Vec<Atom>, named: Vec<Named>) {
        self.numbers.insert(aspect.clone(), self.dimensions.len());
        self.dimensions.push(Dimension {
            aspect,
            atoms,
            named,
        });
    }

    fn add_text(
        &mut self,
        field: TextField,
        vocabulary: &Vocabulary,
        scope: &Scope,
    ) -> Result<(), AnalyzeError> {
        let patterns = vocabulary.texts.get(&field).cloned().unwrap_or_default();
        let language = field.language(scope.normalization, vocabulary.has_query);
        let preferred: Vec<String> = match field {
            TextField::Principal => scope.identities.clone(),
            TextField::Method => ["GET", "POST"].map(str::to_owned).to_vec(),
            TextField::Host | TextField::ServerName => vec![scope.host.clone()],
            TextField::Path | TextField::Subject | TextField::Presenter => Vec::new(),
        };
        let mut classes = strings::classes(language, &patterns.machines, &preferred)?;
        if field == TextField::Method {
            // The proxy refuses these two, whatever a policy says.
            classes.retain(|class| !matches!(class.witness.as_str(), "CONNECT" | "TRACE"));
        }
        let absent = field.may_be_absent().then_some(Atom::Text(None));
        let offset = usize::from(absent.is_some());
        let size = classes.len() + offset;
        let mut named = name(&patterns, size, |number| {
            (offset..)
                .zip(&classes)
                .filter_map(|(atom, class)| class.matching.contains(number).then_some(atom))
                .collect()
        });
        if absent.is_some() {
            let (none, some) = if field == TextField::Principal {
                ("plain text", "any identity")
            } else {
                ("none", "any")
            };
            let none_atom = Bits::single(size, 0);
            for (label, atoms) in [
                (none, none_atom.clone()),
                (some, Bits::full(size).minus(&none_atom)),
            ] {
                named.push(Named {
                    label: label.to_owned(),
                    atoms,
                });
            }
        }
        let texts = classes
            .into_iter()
            .map(|class| Atom::Text(Some(class.witness)));
        let atoms = absent.into_iter().chain(texts).collect();
        self.texts.insert(field, (self.dimensions.len(), patterns));
        self.push(Aspect::Text(field), atoms, named);
        Ok(())
    }

    fn add_protocol(&mut self, scope: &Scope) {
        let http = scope.has_http.then_some(Atom::Http);
        let connection = scope.has_connections.then_some(Atom::Connection);
        let atoms = http.into_iter().chain(connection).collect();
        self.push(Aspect::Protocol, atoms, Vec::new());
    }

    fn add_ports(&mut self, named: &BTreeSet<u16>, preferred: u16) {
        let ports = classes::ports(named, preferred);
        let labels = (0..).zip(named).map(|(atom, port)| Named {
            label: port.to_string(),
            atoms: Bits::single(ports.len(), atom),
        });
        let named = labels.collect();
        self.push(
            Aspect::Port,
            ports.into_iter().map(Atom::Port).collect(),
            named,
        );
    }

    fn add_addresses(&mut self, aspect: Aspect, blocks: &BTreeSet<IpNet>, preferred: &str) {
        let blocks: Vec<IpNet> = blocks.iter().copied().collect();
        let preferred = preferred.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let classes = classes::addresses(&blocks, &[preferred]);
        let named = (0..).zip(&blocks).map(|(number, block)| Named {
            label: block_label(block),
            atoms: Bits::of(
                classes.len(),
                (0..)
                    .zip(&classes)
                    .filter_map(|(atom, class)| class.matching.contains(number).then_some(atom)),
            ),
        });
        let named = named.collect();
        let atoms = classes
            .into_iter()
            .map(|class| Atom::Address(class.witness))
            .collect();
        self.push(aspect, atoms, named);
    }

    fn add_time(&mut self, vocabulary: &Vocabulary) {
        let atoms = classes::periods(&vocabulary.windows)
            .into_iter()
            .map(Atom::Period)
            .collect();
        self.push(Aspect::Time, atoms, Vec::new());
    }

    fn add_tokens(&mut self) {
        let sorts = (0..self.sorts.len()).map(|number| Atom::Token(Some(number)));
        let atoms: Vec<Atom> = std::iter::once(Atom::Token(None)).chain(sorts).collect();
        let named = (1..).zip(&self.sorts).map(|(atom, sort)| Named {
            label: sort.label(&self.sorts),
            atoms: Bits::single(atoms.len(), atom),
        });
        let named = named.collect();
        self.push(Aspect::Token, atoms, named);
    }

    fn add_list(&mut self, field: ListField, patterns: Patterns) -> Result<(), AnalyzeError> {
        let is_header = matches!(field, ListField::Header(_));
        let language = if is_header {
            Language::Header
        } else {
            Language::Text
        };
        let mut classes = strings::classes(language, &patterns.machines, &[])?;
        if !is_header {
            // A value that no pattern matches changes nothing in a list of which any element may match.
            classes.retain(|class| !class.matching.is_empty());
        }
        if classes.len() > limits::ANALYSIS_LIST_CLASSES_MAX {
            return Err(AnalyzeError::OverBudget("classes of a list's values"));
        }
        let named = name(&patterns, classes.len(), |number| {
            (0..)
                .zip(&classes)
                .filter_map(|(class, found)| found.matching.contains(number).then_some(class))
                .collect()
        });
        let list = ListClasses {
            patterns,
            witnesses: classes.into_iter().map(|class| class.witness).collect(),
            named,
        };
        for class in 0..list.witnesses.len() {
            self.push(
                Aspect::Has(field.clone(), class),
                vec![Atom::Has(false), Atom::Has(true)],
                Vec::new(),
            );
        }
        self.lists.insert(field, list);
        Ok(())
    }
}

fn name(patterns: &Patterns, size: usize, atoms: impl Fn(usize) -> Vec<usize>) -> Vec<Named> {
    (0..)
        .zip(&patterns.labels)
        .map(|(number, label)| Named {
            label: label.clone(),
            atoms: Bits::of(size, atoms(number)),
        })
        .collect()
}

fn block_label(block: &IpNet) -> String {
    if block.prefix_len() == block.max_prefix_len() {
        block.addr().to_string()
    } else {
        block.to_string()
    }
}
