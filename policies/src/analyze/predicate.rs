//! Rules as sets of requests: a clause is a set of atoms, a rule what its clauses leave (rules 20 to 22, 45, 54 to 57).

use ravelin_proto::time::Timestamp;

use super::AnalyzeError;
use super::bits::Bits;
use super::diagram::{ALWAYS, Diagram, Function, NEVER};
use super::machine::{Machine, Text};
use super::side::Side;
use super::space::{Aspect, Atom, Space};
use super::vocabulary::{ListField, Look, TextField, look, machines, nets, ports};
use crate::matcher::Pattern;
use crate::object::Location;
use crate::schema::{Clause, Effect, Rule, Window};

/// Builds functions over a space.
pub(crate) struct Builder<'a> {
    pub(crate) space: &'a Space,
    pub(crate) diagram: &'a mut Diagram,
}

/// What a rule is judged on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judged {
    pub(crate) effect: Effect,
    /// A bare connection, not a request.
    pub(crate) is_connection: bool,
    /// Where an accepted token was.
    pub(crate) has_token: Function,
}

impl Builder<'_> {
    pub(crate) fn atoms(&mut self, aspect: &Aspect, atoms: &Bits) -> Function {
        self.diagram.with(self.space.number(aspect), atoms)
    }

    pub(crate) fn chosen(&mut self, aspect: &Aspect, holds: impl Fn(&Atom) -> bool) -> Function {
        let atoms = self.space.chosen(aspect, holds);
        self.atoms(aspect, &atoms)
    }

    pub(crate) fn window(&mut self, window: &Window) -> Function {
        if window.is_always() {
            return ALWAYS;
        }
        self.chosen(&Aspect::Time, |atom| {
            matches!(atom, Atom::Period(period) if window.contains(period.moment(Timestamp::default())))
        })
    }

    /// The requests (or connections) that a rule matches.
    pub(crate) fn rule(
        &mut self,
        rule: &Rule,
        judged: Judged,
        side: &Side<'_>,
    ) -> Result<Function, AnalyzeError> {
        let is_skipped = judged.is_connection
            && judged.effect == Effect::Allow
            && rule.clauses().any(|clause| clause.field.is_http_only());
        if is_skipped {
            return Ok(NEVER);
        }
        let when = self.clauses(&rule.when, rule, judged, side)?;
        let to = self.alternatives(&rule.to, rule, judged, side)?;
        let from = self.alternatives(&rule.from, rule, judged, side)?;
        self.diagram.all(&[from, to, when])
    }

    fn alternatives(
        &mut self,
        alternatives: &[Vec<Clause>],
        rule: &Rule,
        judged: Judged,
        side: &Side<'_>,
    ) -> Result<Function, AnalyzeError> {
        if alternatives.is_empty() {
            return Ok(ALWAYS);
        }
        let all: Vec<Function> = alternatives
            .iter()
            .map(|clauses| self.clauses(clauses, rule, judged, side))
            .collect::<Result<_, _>>()?;
        self.diagram.any(&all)
    }

    fn clauses(
        &mut self,
        clauses: &[Clause],
        rule: &Rule,
        judged: Judged,
        side: &Side<'_>,
    ) -> Result<Function, AnalyzeError> {
        let all: Vec<Function> = clauses
            .iter()
            .map(|clause| self.clause(clause, &rule.location, judged, side))
            .collect::<Result<_, _>>()?;
        self.diagram.all(&all)
    }

    fn clause(
        &mut self,
        clause: &Clause,
        at: &Location,
        judged: Judged,
        side: &Side<'_>,
    ) -> Result<Function, AnalyzeError> {
        if judged.is_connection && clause.field.is_http_only() {
            return Ok(ALWAYS);
        }
        let is_host_exact = side.set.config.is_host_exact;
        let found = match look(clause, at)? {
            Look::List(field @ ListField::Header(_)) => {
                let fitting = self.classes(&field, clause, is_host_exact, at)?;
                return self.header(&field, &fitting, clause.is_negative, judged.effect);
            }
            Look::Text(field) => self.text(field, clause, is_host_exact, at)?,
            Look::List(field) => self.list(&field, clause, is_host_exact, at)?,
            Look::Source => self.addresses(&Aspect::Source, clause),
            Look::Remote => self.addresses(&Aspect::Remote, clause),
            Look::Destination => self.addresses(&Aspect::Destination, clause),
            Look::Port => {
                let wanted: Vec<u16> = ports(clause).collect();
                self.chosen(
                    &Aspect::Port,
                    |atom| matches!(atom, Atom::Port(port) if wanted.contains(port)),
                )
            }
            Look::RequestPrincipal => self.request_principal(clause)?,
            Look::Issuer => self.issuer(clause),
            Look::Nothing => NEVER,
        };
        let is_of_token = clause.field.is_http_only()
            && !matches!(
                look(clause, at)?,
                Look::Text(TextField::Method | TextField::Path | TextField::Host)
            );
        let found = if is_of_token {
            self.diagram.and(judged.has_token, found)?
        } else {
            found
        };
        if clause.is_negative {
            self.diagram.not(found)
        } else {
            Ok(found)
        }
    }

    fn text(
        &mut self,
        field: TextField,
        clause: &Clause,
        is_host_exact: bool,
        at: &Location,
    ) -> Result<Function, AnalyzeError> {
        let aspect = Aspect::Text(field);
        let size = self.space.size(&aspect);
        let mut sets = machines(clause, is_host_exact, at)?
            .into_iter()
            .map(|(machine, _)| self.space.matching(field, &machine));
        let atoms = if clause.is_all_of {
            sets.fold(Bits::full(size), |so_far, set| so_far.and(&set))
        } else {
            let none = Bits::empty(size);
            sets.by_ref().fold(none, |so_far, set| so_far.or(&set))
        };
        Ok(self.atoms(&aspect, &atoms))
    }

    fn addresses(&mut self, aspect: &Aspect, clause: &Clause) -> Function {
        let wanted: Vec<ipnet::IpNet> = nets(clause).collect();
        self.chosen(aspect, |atom| {
            matches!(atom, Atom::Address(address) if wanted.iter().any(|net| net.contains(address)))
        })
    }

    /// Classes of a list's values that any pattern matches.
    fn classes(
        &self,
        field: &ListField,
        clause: &Clause,
        is_host_exact: bool,
        at: &Location,
    ) -> Result<Bits, AnalyzeError> {
        let sets = self.classes_each(field, clause, is_host_exact, at)?;
        let size = self.list_size(field);
        Ok(sets
            .iter()
            .fold(Bits::empty(size), |so_far, set| so_far.or(set)))
    }

    fn list_size(&self, field: &ListField) -> usize {
        let list = self.space.lists.get(field);
        list.map_or(0, |list| list.witnesses.len())
    }

    fn classes_each(
        &self,
        field: &ListField,
        clause: &Clause,
        is_host_exact: bool,
        at: &Location,
    ) -> Result<Vec<Bits>, AnalyzeError> {
        let found = machines(clause, is_host_exact, at)?;
        Ok(found
            .iter()
            .filter_map(|(machine, _)| {
                let list = self.space.lists.get(field)?;
                let number = list.patterns.number(machine)?;
                Some(list.named.get(number)?.atoms.clone())
            })
            .collect())
    }

    /// The list has a value of one of these classes.
    pub(crate) fn has_any(
        &mut self,
        field: &ListField,
        classes: &Bits,
    ) -> Result<Function, AnalyzeError> {
        let each: Vec<Function> = classes
            .iter()
            .map(|class| {
                let aspect = Aspect::Has(field.clone(), class);
                self.chosen(&aspect, |atom| *atom == Atom::Has(true))
            })
            .collect();
        self.diagram.any(&each)
    }

    // A claim or the audiences: any element, or with all-of for each pattern some element (rules 22, 48).
    fn list(
        &mut self,
        field: &ListField,
        clause: &Clause,
        is_host_exact: bool,
        at: &Location,
    ) -> Result<Function, AnalyzeError> {
        if !clause.is_all_of {
            let classes = self.classes(field, clause, is_host_exact, at)?;
            return self.has_any(field, &classes);
        }
        let each: Vec<Function> = self
            .classes_each(field, clause, is_host_exact, at)?
            .iter()
            .map(|classes| self.has_any(field, classes))
            .collect::<Result<_, _>>()?;
        self.diagram.all(&each)
    }

    // Rule 45: an ALLOW needs every value of a repeated header, every other effect any. Rule 28: a missing one passes
    // a negative list.
    fn header(
        &mut self,
        field: &ListField,
        matching: &Bits,
        is_negative: bool,
        effect: Effect,
    ) -> Result<Function, AnalyzeError> {
        let all = Bits::full(self.list_size(field));
        let fitting = if is_negative {
            all.minus(matching)
        } else {
            matching.clone()
        };
        let has_fitting = self.has_any(field, &fitting)?;
        let has_other = self.has_any(field, &all.minus(&fitting))?;
        let is_there = self.diagram.or(has_fitting, has_other)?;
        let found = match effect {
            Effect::Allow => self.diagram.minus(is_there, has_other)?,
            Effect::Deny | Effect::Audit | Effect::Custom => has_fitting,
        };
        if is_negative {
            let absent = self.diagram.not(is_there)?;
            self.diagram.or(found, absent)
        } else {
            Ok(found)
        }
    }

    // A token without `sub` has an empty subject (rule 35).
    fn request_principal(&mut self, clause: &Clause) -> Result<Function, AnalyzeError> {
        let aspect = Aspect::Text(TextField::Subject);
        let mut each = Vec::new();
        for pattern in &clause.patterns {
            let Pattern::RequestPrincipal { issuer, subject } = pattern else {
                continue;
            };
            let of_issuer = self.sorts(|found| issuer.matches(found.as_bytes()));
            let machine = Machine::Whole(Text::of(subject));
            let mut subjects = self.space.matching(TextField::Subject, &machine);
            if subject.matches(b"") {
                let absent = self.space.chosen(&aspect, |atom| *atom == Atom::Text(None));
                subjects = subjects.or(&absent);
            }
            let of_subject = self.atoms(&aspect, &subjects);
            each.push(self.diagram.and(of_issuer, of_subject)?);
        }
        self.diagram.any(&each)
    }

    fn issuer(&mut self, clause: &Clause) -> Function {
        let matches = |pattern: &Pattern, issuer: &str| pattern.matches_text(issuer.as_bytes());
        self.sorts(|issuer| {
            let mut patterns = clause.patterns.iter();
            if clause.is_all_of {
                patterns.all(|pattern| matches(pattern, issuer))
            } else {
                patterns.any(|pattern| matches(pattern, issuer))
            }
        })
    }

    fn sorts(&mut self, is_wanted: impl Fn(&str) -> bool) -> Function {
        let atoms = self.space.of_sorts(|sort| is_wanted(&sort.issuer));
        self.atoms(&Aspect::Token, &atoms)
    }
}
