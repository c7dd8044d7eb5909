//! Regions in words: which values of which field, by the patterns that people wrote.

use serde::Serialize;

use super::bits::Bits;
use super::space::{Aspect, Atom, Dimension, ListClasses, Named, Space};
use super::vocabulary::{ListField, TextField};

/// What has to hold of one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// `principal`, `method`, `header x-role`, ...
    pub field: String,
    /// Which values: patterns, joined by `,` where any of them will do.
    pub values: String,
}

/// The conditions of a region. A field that does not matter is not named.
pub(crate) fn conditions(space: &Space, sides: &[(usize, Bits)]) -> Vec<Condition> {
    let mut found = Vec::new();
    let mut done: Vec<&ListField> = Vec::new();
    for (number, atoms) in sides {
        let Some(dimension) = space.dimensions.get(*number) else {
            continue;
        };
        if let Aspect::Has(field, _) = &dimension.aspect {
            if !done.contains(&field) {
                done.push(field);
                found.extend(list_condition(space, field, sides));
            }
            continue;
        }
        found.push(Condition {
            field: field_name(&dimension.aspect),
            values: values(space, dimension, atoms),
        });
    }
    found
}

fn field_name(aspect: &Aspect) -> String {
    match aspect {
        Aspect::Text(TextField::Principal) => "principal",
        Aspect::Text(TextField::Method) => "method",
        Aspect::Text(TextField::Path) => "path",
        Aspect::Text(TextField::Host) => "host",
        Aspect::Text(TextField::ServerName) => "server name",
        Aspect::Text(TextField::Subject) => "token's subject",
        Aspect::Text(TextField::Presenter) => "token's presenter",
        Aspect::Protocol => "protocol",
        Aspect::Port => "port",
        Aspect::Source => "source address",
        Aspect::Remote => "remote address",
        Aspect::Destination => "destination address",
        Aspect::Time => "time",
        Aspect::Token => "token",
        Aspect::Has(field, _) => return list_name(field),
    }
    .to_owned()
}

fn list_name(field: &ListField) -> String {
    match field {
        ListField::Audience => "token's audience".to_owned(),
        ListField::Claim(steps) => format!("claim {}", steps.join(".")),
        ListField::Header(name) => format!("header {name}"),
    }
}

fn values(space: &Space, dimension: &Dimension, atoms: &Bits) -> String {
    match dimension.aspect {
        Aspect::Protocol => {
            let of_connection = space.chosen(&Aspect::Protocol, |atom| *atom == Atom::Connection);
            if atoms.is_subset(&of_connection) {
                "a connection that is not HTTP".to_owned()
            } else {
                "HTTP".to_owned()
            }
        }
        Aspect::Time => periods(dimension, atoms),
        Aspect::Token => token(space, dimension, atoms),
        Aspect::Text(_)
        | Aspect::Port
        | Aspect::Source
        | Aspect::Remote
        | Aspect::Destination
        | Aspect::Has(..) => joined(&dimension.named, dimension.atoms.len(), atoms),
    }
}

fn periods(dimension: &Dimension, atoms: &Bits) -> String {
    let chosen = atoms
        .iter()
        .filter_map(|atom| match dimension.atoms.get(atom) {
            Some(Atom::Period(period)) => Some(*period),
            _ => None,
        });
    let shown: Vec<String> = chosen
        .map(|period| match (period.from, period.until) {
            (Some(from), Some(until)) => format!("{} to {}", from.rfc3339(), until.rfc3339()),
            (Some(from), None) => format!("from {}", from.rfc3339()),
            (None, Some(until)) => format!("before {}", until.rfc3339()),
            (None, None) => "always".to_owned(),
        })
        .collect();
    shown.join(", ")
}

// An issuer all of whose sorts are meant is named once.
fn token(space: &Space, dimension: &Dimension, atoms: &Bits) -> String {
    let mut named: Vec<Named> = vec![Named {
        label: "none".to_owned(),
        atoms: Bits::single(dimension.atoms.len(), 0),
    }];
    for sort in &space.sorts {
        let label = format!("of `{}`", sort.issuer);
        if named.iter().all(|known| known.label != label) {
            let atoms = space.of_sorts(|other| other.issuer == sort.issuer);
            named.push(Named { label, atoms });
        }
    }
    named.extend(dimension.named.iter().cloned());
    joined(&named, dimension.atoms.len(), atoms)
}

fn list_condition(space: &Space, field: &ListField, sides: &[(usize, Bits)]) -> Option<Condition> {
    let list = space.lists.get(field)?;
    let size = list.witnesses.len();
    let (mut with, mut without) = (Bits::empty(size), Bits::empty(size));
    for (number, atoms) in sides {
        let dimension = space.dimensions.get(*number)?;
        if let Aspect::Has(of, class) = &dimension.aspect
            && of == field
        {
            if atoms.contains(1) {
                with.insert(*class);
            } else {
                without.insert(*class);
            }
        }
    }
    Some(Condition {
        field: list_name(field),
        values: list_values(field, list, &with, &without),
    })
}

fn list_values(field: &ListField, list: &ListClasses, with: &Bits, without: &Bits) -> String {
    let size = list.witnesses.len();
    let is_header = matches!(field, ListField::Header(_));
    // Classes of a claim are not all values: those that no pattern matches are left out.
    let shown = |classes: &Bits| match plain_cover(&list.named, classes) {
        Some(found) if !is_header => {
            let labels: Vec<&str> = found.iter().map(|named| named.label.as_str()).collect();
            labels.join(", ")
        }
        _ => joined(&list.named, size, classes),
    };
    let rest = Bits::full(size).minus(without);
    if rest.is_empty() {
        return if is_header {
            "absent".to_owned()
        } else {
            format!("none of {}", shown(without))
        };
    }
    let mut parts: Vec<String> = with
        .iter()
        .map(|class| format!("has {}", shown(&Bits::single(size, class))))
        .collect();
    if !without.is_empty() {
        let is_shorter = is_header && rest.count() < without.count();
        parts.push(if is_shorter {
            format!("nothing but {}", shown(&rest))
        } else {
            format!("lacks {}", shown(without))
        });
    }
    parts.join(" and ")
}

fn joined(named: &[Named], size: usize, atoms: &Bits) -> String {
    terms(named, size, atoms).join(", ")
}

/// A set as a union of named sets, some with exceptions; always exact.
pub(crate) fn terms(named: &[Named], size: usize, atoms: &Bits) -> Vec<String> {
    let all = Bits::full(size);
    if *atoms == all {
        return vec!["any".to_owned()];
    }
    let by_name = cover(named, size, atoms);
    let Some(except) = plain_cover(named, &all.minus(atoms)) else {
        return by_name.0;
    };
    if by_name.1 <= 1 + except.len() {
        return by_name.0;
    }
    vec![excepting("any", &except)]
}

fn excepting(label: &str, except: &[&Named]) -> String {
    let labels: Vec<&str> = except.iter().map(|named| named.label.as_str()).collect();
    format!("{label} (except {})", labels.join(", "))
}

/// Named sets inside of `atoms` that are all of it; `None` when there are none such.
fn plain_cover<'n>(named: &'n [Named], atoms: &Bits) -> Option<Vec<&'n Named>> {
    let mut left = atoms.clone();
    let mut chosen = Vec::new();
    while !left.is_empty() {
        let best = best_inside(named, atoms, &left)?;
        left = left.minus(&best.atoms);
        chosen.push(best);
    }
    Some(chosen)
}

fn best_inside<'n>(named: &'n [Named], atoms: &Bits, left: &Bits) -> Option<&'n Named> {
    named
        .iter()
        .filter(|set| set.atoms.is_subset(atoms) && set.atoms.intersects(left))
        .max_by_key(|set| {
            let gain = set.atoms.and(left).count();
            (gain, std::cmp::Reverse(set.label.len()))
        })
}

/// Terms and how many names they have.
fn cover(named: &[Named], size: usize, atoms: &Bits) -> (Vec<String>, usize) {
    let mut left = atoms.clone();
    let (mut found, mut names) = (Vec::new(), 0);
    while !left.is_empty() {
        if let Some(best) = best_inside(named, atoms, &left) {
            left = left.minus(&best.atoms);
            found.push(best.label.clone());
            names += 1;
            continue;
        }
        let (label, covered, count) = with_exceptions(named, size, atoms, &left);
        left = left.minus(&covered);
        found.push(label);
        names += count;
    }
    (found, names)
}

/// A named set with exceptions that takes the most of what is left; else one atom by all that matches it.
fn with_exceptions(
    named: &[Named],
    size: usize,
    atoms: &Bits,
    left: &Bits,
) -> (String, Bits, usize) {
    let any = Named {
        label: "any".to_owned(),
        atoms: Bits::full(size),
    };
    let mut best: Option<(String, Bits, usize)> = None;
    for set in named
        .iter()
        .chain([&any])
        .filter(|set| set.atoms.intersects(left))
    {
        let Some((except, kept)) = exceptions(named, set, atoms, left) else {
            continue;
        };
        let gain = kept.and(left).count();
        let count = 1 + except.len();
        let is_better = best.as_ref().is_none_or(|(_, known, known_count)| {
            let known_gain = known.and(left).count();
            gain * known_count > known_gain * count
        });
        if gain > 0 && is_better {
            best = Some((excepting(&set.label, &except), kept, count));
        }
    }
    best.unwrap_or_else(|| one_atom(named, size, left.first().unwrap_or(0)))
}

/// Names that take away from `set` what is not in `atoms`, and what they leave.
fn exceptions<'n>(
    named: &'n [Named],
    set: &Named,
    atoms: &Bits,
    wanted: &Bits,
) -> Option<(Vec<&'n Named>, Bits)> {
    let mut excess = set.atoms.minus(atoms);
    let mut kept = set.atoms.clone();
    let mut chosen: Vec<&Named> = Vec::new();
    while !excess.is_empty() {
        let best = named
            .iter()
            .filter(|other| other.atoms.intersects(&excess))
            .min_by_key(|other| {
                let lost = other.atoms.and(&kept).and(wanted).count();
                let gained = other.atoms.and(&excess).count();
                (lost, std::cmp::Reverse(gained), other.label.len())
            })?;
        excess = excess.minus(&best.atoms);
        kept = kept.minus(&best.atoms);
        chosen.push(best);
    }
    Some((chosen, kept))
}

/// One atom: the fewest names that have it in common, and what they have beside it.
fn one_atom(named: &[Named], size: usize, atom: usize) -> (String, Bits, usize) {
    let mut left = Bits::full(size);
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    while left.count() > 1 {
        let best = named
            .iter()
            .map(|set| {
                let is_in = set.atoms.contains(atom);
                let rest = if is_in {
                    left.and(&set.atoms)
                } else {
                    left.minus(&set.atoms)
                };
                (rest, is_in, set.label.as_str())
            })
            .min_by_key(|(rest, is_in, label)| (rest.count(), !is_in, label.len()));
        let Some((rest, is_in, label)) = best.filter(|(rest, ..)| *rest != left) else {
            break;
        };
        left = rest;
        if is_in {
            inside.push(label);
        } else {
            outside.push(label);
        }
    }
    let count = inside.len() + outside.len();
    let label = match (inside.as_slice(), outside.as_slice()) {
        ([], outside) => format!("any (except {})", outside.join(", ")),
        (inside, []) => inside.join(" and "),
        (inside, outside) => format!("{} (except {})", inside.join(" and "), outside.join(", ")),
    };
    (label, Bits::single(size, atom), count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_told_by_the_fewest_names_with_exceptions_where_needed() {
        let named = |label: &str, atoms: &[usize]| Named {
            label: label.to_owned(),
            atoms: Bits::of(6, atoms.iter().copied()),
        };
        let all = [
            named("/a", &[0]),
            named("/a/*", &[1, 2]),
            named("*/admin", &[2, 3]),
            named("/b", &[4]),
        ];
        for (atoms, want) in [
            (vec![0, 1, 2, 3, 4, 5], "any"),
            (vec![0], "/a"),
            (vec![0, 1, 2], "/a/*, /a"),
            (vec![0, 1], "/a, /a/* (except */admin)"),
            (vec![0, 1, 2, 3, 5], "any (except /b)"),
            (vec![5], "any (except /a/*, /a, /b, */admin)"),
            (vec![2], "/a/* and */admin"),
        ] {
            let atoms = Bits::of(6, atoms);
            assert_eq!(joined(&all, 6, &atoms), want);
        }
    }
}
