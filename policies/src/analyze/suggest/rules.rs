//! The rules of one workload's suggestion.

use std::collections::{BTreeMap, BTreeSet};

use ravelin_proto::spiffe_id::SpiffeId;

use super::cover::cover;
use super::generalize::{Generalize, generalize};
use super::{
    AdditionalCall, Caller, Calls, Operation, SuggestedOperation, SuggestedRule, SuggestedSource,
    SuggestedTemplate, Token,
};
use crate::limits;
use crate::template::PathTemplate;

type Wanted = BTreeMap<(Caller, Operation), u64>;

/// Rules that allow the wanted calls; what templates allow besides goes into `additional`.
pub(super) fn rules(
    calls: &Calls,
    how: Option<Generalize>,
    additional: &mut Vec<AdditionalCall>,
    workload: &SpiffeId,
) -> (Vec<SuggestedRule>, Vec<SuggestedTemplate>) {
    let mut wanted = calls.wanted.clone();
    let mut shown = Vec::new();
    if let Some(how) = how {
        let paths: BTreeSet<&str> = calls.wanted.keys().filter_map(path_of).collect();
        let templates = generalize(paths.into_iter(), how);
        shown = describe(&templates, workload);
        wanted = with_templates(&calls.wanted, &templates);
        note_additional(&wanted, calls, workload, additional);
    }
    drop_implied(&mut wanted);
    let ports: BTreeSet<u16> = wanted.keys().map(|(_, operation)| operation.port).collect();
    let (http, tcp): (Wanted, Wanted) = wanted
        .into_iter()
        .partition(|((_, operation), _)| operation.http.is_some());
    // A rule that names anything of HTTP is skipped on bare connections: they get rules of their own (rule 54).
    let mut rules = rules_of(&http, ports.len() > 1);
    rules.extend(rules_of(&tcp, true));
    (rules, shown)
}

fn path_of((_, operation): &(Caller, Operation)) -> Option<&str> {
    operation.http.as_ref().map(|(_, path)| path.as_str())
}

fn describe(templates: &BTreeMap<&str, String>, workload: &SpiffeId) -> Vec<SuggestedTemplate> {
    let mut shown: BTreeMap<&str, SuggestedTemplate> = BTreeMap::new();
    for (path, template) in templates {
        let entry = shown.entry(template).or_insert_with(|| SuggestedTemplate {
            workload: workload.to_string(),
            template: template.clone(),
            paths: 0,
            example: (*path).to_owned(),
        });
        entry.paths += 1;
    }
    shown.into_values().collect()
}

fn with_templates(wanted: &Wanted, templates: &BTreeMap<&str, String>) -> Wanted {
    let mut merged = Wanted::new();
    for ((caller, operation), count) in wanted {
        let mut operation = operation.clone();
        if let Some((_, path)) = &mut operation.http
            && let Some(template) = templates.get(path.as_str())
        {
            path.clone_from(template);
        }
        *merged.entry((caller.clone(), operation)).or_insert(0) += count;
    }
    merged
}

/// Recorded calls, of anybody and denied ones too, that only a template lets pass.
fn note_additional(
    wanted: &Wanted,
    calls: &Calls,
    workload: &SpiffeId,
    additional: &mut Vec<AdditionalCall>,
) {
    let recorded: BTreeSet<&Operation> = calls
        .wanted
        .keys()
        .chain(&calls.denied)
        .map(|(_, operation)| operation)
        .collect();
    for (caller, operation) in wanted.keys() {
        let Some((method, template)) = &operation.http else {
            continue;
        };
        let Ok(parsed) = PathTemplate::parse(template) else {
            continue;
        };
        for other in recorded.iter().filter(|other| other.port == operation.port) {
            let Some((other_method, path)) = &other.http else {
                continue;
            };
            let key = (caller.clone(), (*other).clone());
            let is_new = template.contains("{*}")
                && other_method == method
                && parsed.matches(path)
                && !calls.wanted.contains_key(&key);
            if is_new && additional.len() < limits::SUGGEST_ADDITIONAL_MAX {
                additional.push(AdditionalCall {
                    was_denied: calls.denied.contains(&key),
                    workload: workload.to_string(),
                    from: caller
                        .peer
                        .as_ref()
                        .map(ToString::to_string)
                        .unwrap_or_default(),
                    method: method.clone(),
                    path: path.clone(),
                    template: template.clone(),
                });
            }
        }
    }
}

/// A call with a token is allowed where the same is allowed without one. Counts move there.
fn drop_implied(wanted: &mut Wanted) {
    let weaker = |caller: &Caller, token: Token| Caller {
        peer: caller.peer.clone(),
        token,
    };
    let keys: Vec<(Caller, Operation)> = wanted.keys().cloned().collect();
    for (caller, operation) in keys {
        let tokens = match &caller.token {
            Token::None => continue,
            Token::Any => vec![Token::None],
            Token::Issuer(_) => vec![Token::None, Token::Any],
        };
        let implied_by = tokens
            .into_iter()
            .map(|token| (weaker(&caller, token), operation.clone()))
            .find(|key| wanted.contains_key(key));
        if let Some(key) = implied_by {
            let count = wanted.remove(&(caller, operation)).unwrap_or(0);
            *wanted.entry(key).or_insert(0) += count;
        }
    }
}

/// Rectangles of callers and operations: one rule each.
fn rules_of(wanted: &Wanted, names_ports: bool) -> Vec<SuggestedRule> {
    let callers: BTreeSet<&Caller> = wanted.keys().map(|(caller, _)| caller).collect();
    let callers: Vec<&Caller> = callers.into_iter().collect();
    let number: BTreeMap<&Caller, usize> = callers
        .iter()
        .enumerate()
        .map(|(number, caller)| (*caller, number))
        .collect();
    let mut by_operation: BTreeMap<&Operation, BTreeSet<usize>> = BTreeMap::new();
    for (caller, operation) in wanted.keys() {
        let rows = by_operation.entry(operation).or_default();
        rows.extend(number.get(caller));
    }
    let mut rules = Vec::new();
    for (rows, operations) in rectangles(by_operation) {
        let chosen: Vec<&Caller> = rows
            .iter()
            .filter_map(|row| callers.get(*row).copied())
            .collect();
        let count = chosen
            .iter()
            .flat_map(|caller| {
                operations
                    .iter()
                    .map(move |operation| (*caller, *operation))
            })
            .filter_map(|(caller, operation)| wanted.get(&(caller.clone(), operation.clone())))
            .sum();
        let from = sources(&chosen);
        for to in to(&operations, names_ports).chunks(limits::ALTERNATIVES_MAX) {
            for from in from.chunks(limits::ALTERNATIVES_MAX) {
                rules.push(SuggestedRule {
                    calls: count,
                    from: from.to_vec(),
                    to: to.to_vec(),
                });
            }
        }
    }
    rules
}

/// The cover of a table from column names to their rows: rows with column names.
fn rectangles<K: Copy + Ord>(
    table: BTreeMap<K, BTreeSet<usize>>,
) -> Vec<(BTreeSet<usize>, Vec<K>)> {
    let mut classes: BTreeMap<BTreeSet<usize>, Vec<K>> = BTreeMap::new();
    for (column, rows) in table {
        classes.entry(rows).or_default().push(column);
    }
    let (columns, names): (Vec<BTreeSet<usize>>, Vec<Vec<K>>) = classes.into_iter().unzip();
    cover(&columns)
        .into_iter()
        .map(|rectangle| {
            let mut all: Vec<K> = rectangle
                .columns
                .iter()
                .filter_map(|column| names.get(*column))
                .flatten()
                .copied()
                .collect();
            all.sort_unstable();
            (rectangle.rows, all)
        })
        .collect()
}

/// One source a kind of token, and one for callers in plain text.
fn sources(callers: &[&Caller]) -> Vec<SuggestedSource> {
    let mut by_token: BTreeMap<(bool, &Token), Vec<String>> = BTreeMap::new();
    for caller in callers {
        let names = by_token
            .entry((caller.peer.is_none(), &caller.token))
            .or_default();
        let principal = caller
            .peer
            .as_ref()
            .and_then(|peer| peer.as_str().strip_prefix("spiffe://"));
        names.extend(principal.map(str::to_owned));
    }
    let mut sources = Vec::new();
    for ((is_plain_text, token), principals) in by_token {
        let request_principals = match token {
            Token::None => Vec::new(),
            Token::Any => vec!["*".to_owned()],
            Token::Issuer(issuer) => vec![format!("{issuer}/*")],
        };
        let source = |principals: &[String]| SuggestedSource {
            principals: principals.to_vec(),
            request_principals: request_principals.clone(),
        };
        if is_plain_text {
            sources.push(source(&[]));
        }
        sources.extend(principals.chunks(limits::VALUES_MAX).map(source));
    }
    sources
}

/// The fewest operations for what one set of callers does.
fn to(operations: &[&Operation], names_ports: bool) -> Vec<SuggestedOperation> {
    let mut bare = BTreeSet::new();
    let mut by_port: BTreeMap<u16, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for operation in operations {
        match &operation.http {
            None => {
                bare.insert(operation.port);
            }
            Some((method, path)) => {
                let paths = by_port.entry(operation.port).or_default();
                paths.entry(path).or_default().insert(method);
            }
        }
    }
    let mut merged: BTreeMap<(Vec<&str>, Vec<&str>), Vec<u16>> = BTreeMap::new();
    for (port, paths) in by_port {
        for shape in method_rectangles(paths) {
            merged.entry(shape).or_default().push(port);
        }
    }
    let mut to: Vec<SuggestedOperation> = merged
        .into_iter()
        .flat_map(|((methods, paths), ports)| {
            let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let chunks: Vec<SuggestedOperation> = paths
                .chunks(limits::VALUES_MAX)
                .map(|paths| SuggestedOperation {
                    ports: if names_ports {
                        ports.clone()
                    } else {
                        Vec::new()
                    },
                    methods: owned(&methods),
                    paths: owned(paths),
                })
                .collect();
            chunks
        })
        .collect();
    let bare: Vec<u16> = bare.into_iter().collect();
    to.extend(
        bare.chunks(limits::VALUES_MAX)
            .map(|ports| SuggestedOperation {
                ports: ports.to_vec(),
                methods: Vec::new(),
                paths: Vec::new(),
            }),
    );
    to
}

fn method_rectangles<'o>(
    paths: BTreeMap<&'o str, BTreeSet<&'o str>>,
) -> Vec<(Vec<&'o str>, Vec<&'o str>)> {
    let methods: BTreeSet<&str> = paths.values().flatten().copied().collect();
    let methods: Vec<&str> = methods.into_iter().collect();
    let numbered = paths
        .into_iter()
        .map(|(path, of)| {
            let rows = methods
                .iter()
                .enumerate()
                .filter(|(_, method)| of.contains(*method))
                .map(|(row, _)| row);
            (path, rows.collect())
        })
        .collect();
    rectangles(numbered)
        .into_iter()
        .map(|(rows, paths)| {
            let named = rows
                .iter()
                .filter_map(|row| methods.get(*row).copied())
                .collect();
            (named, paths)
        })
        .collect()
}
