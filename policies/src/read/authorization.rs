//! Reads `AuthorizationPolicy` (rules 11 to 23, 64 to 67).

use ravelin_proto::spiffe_id::SpiffeId;

use super::condition::field_of_key;
use super::{Header, Reader, pattern};
use crate::diagnostic::{Span, excerpt};
use crate::document::Node;
use crate::fields::{Fields, integer, list, text};
use crate::limits;
use crate::matcher::{Pattern, StringMatch};
use crate::path::normalize;
use crate::schema::{AuthorizationPolicy, Clause, Effect, Field, Rule, Window};

const SOURCE: [(&str, &str, Field); 7] = [
    ("principals", "notPrincipals", Field::Principal),
    (
        "requestPrincipals",
        "notRequestPrincipals",
        Field::RequestPrincipal,
    ),
    ("namespaces", "notNamespaces", Field::Namespace),
    (
        "serviceAccounts",
        "notServiceAccounts",
        Field::ServiceAccount,
    ),
    ("trustDomains", "notTrustDomains", Field::TrustDomain),
    ("ipBlocks", "notIpBlocks", Field::SourceAddress),
    ("remoteIpBlocks", "notRemoteIpBlocks", Field::RemoteAddress),
];

const OPERATION: [(&str, &str, Field); 4] = [
    ("hosts", "notHosts", Field::Host),
    ("ports", "notPorts", Field::DestinationPort),
    ("methods", "notMethods", Field::Method),
    ("paths", "notPaths", Field::Path),
];

/// `spec.action`; the last two are known and refused.
#[derive(Clone, Copy)]
enum Action {
    Judge(Effect),
    Audit,
    Custom,
}

/// Reads one policy.
pub(crate) fn read_authorization_policy(
    header: &Header,
    spec: &Node,
    reader: &mut Reader<'_, '_>,
) -> Option<AuthorizationPolicy> {
    let known = [
        "selector",
        "targetRef",
        "targetRefs",
        "action",
        "provider",
        "rules",
    ];
    let fields = Fields::of(spec, "AuthorizationPolicy", &known, reader.problems)?;
    fields.refuse(&["targetRef", "targetRefs"], reader.problems);
    let effect = read_effect(&fields, reader);
    refuse_dry_run(header, reader);
    let selector = reader.selector(&fields);
    let rules = read_rules(&fields, reader);
    let effect = effect?;
    if rules.is_empty() && effect == Effect::Deny {
        let help = Some("`rules: [{}]` denies everything".to_owned());
        reader.problems.error_with_help(
            fields.key_at("action"),
            "never-matches",
            "a DENY policy without `rules` never matches",
            help,
        );
    }
    Some(AuthorizationPolicy {
        metadata: header.metadata.clone(),
        location: reader.location(header.at),
        selector,
        has_target_refs: false,
        effect,
        provider: None,
        is_dry_run: false,
        window: Window::default(),
        rules: rules.into(),
    })
}

fn read_effect(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Option<Effect> {
    let words = [
        ("ALLOW", Action::Judge(Effect::Allow)),
        ("DENY", Action::Judge(Effect::Deny)),
        ("AUDIT", Action::Audit),
        ("CUSTOM", Action::Custom),
    ];
    if fields.member("action").is_none() {
        fields.refuse(&["provider"], reader.problems);
        return Some(Effect::Allow);
    }
    let at = fields.node("action").map_or(fields.at, |node| node.at);
    match fields.word("action", &words, reader.problems)? {
        Action::Judge(effect) => {
            fields.refuse(&["provider"], reader.problems);
            return Some(effect);
        }
        Action::Audit => reader.problems.not_supported(at, "the action AUDIT"),
        Action::Custom => reader.problems.not_supported(at, "the action CUSTOM"),
    }
    None
}

// Rule 64: a dry-run policy that was enforced, or one that was not, would both surprise: refused by name.
fn refuse_dry_run(header: &Header, reader: &mut Reader<'_, '_>) {
    const ANNOTATION: &str = "istio.io/dry-run";
    match header
        .metadata
        .annotations
        .get(ANNOTATION)
        .map(String::as_str)
    {
        None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => {}
        Some("1" | "t" | "T" | "true" | "True" | "TRUE") => reader
            .problems
            .not_supported(header.name_at, &format!("the annotation `{ANNOTATION}`")),
        Some(other) => {
            let message = format!(
                "`{}` of the annotation `{ANNOTATION}` is neither true nor false",
                excerpt(other)
            );
            reader.problems.error(header.name_at, "bad-value", message);
        }
    }
}

fn read_rules(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> Vec<Rule> {
    let Some(node) = fields.node("rules") else {
        return Vec::new();
    };
    // `rules: []` is an ALLOW that never matches (rule 11).
    if matches!(&node.value, crate::document::Value::List(items) if items.is_empty()) {
        return Vec::new();
    }
    list(node, "rules", limits::RULES_MAX, reader.problems)
        .iter()
        .filter_map(|rule| read_rule(rule, reader))
        .collect()
}

fn read_rule(node: &Node, reader: &mut Reader<'_, '_>) -> Option<Rule> {
    let fields = Fields::of(node, "a rule", &["from", "to", "when"], reader.problems)?;
    let from = read_alternatives(&fields, "from", "source", &SOURCE, reader);
    let to = read_alternatives(&fields, "to", "operation", &OPERATION, reader);
    let conditions = fields
        .node("when")
        .map(|node| list(node, "when", limits::CONDITIONS_MAX, reader.problems));
    let when = conditions
        .unwrap_or_default()
        .iter()
        .flat_map(|node| read_condition(node, reader))
        .collect();
    Some(Rule {
        location: reader.location(node.at),
        from,
        to,
        when,
    })
}

/// `from: [{source: {..}}, ..]` or `to: [{operation: {..}}, ..]`; empty parts are errors (rules 14, 15).
fn read_alternatives(
    fields: &Fields<'_>,
    name: &str,
    inner: &str,
    table: &[(&str, &str, Field)],
    reader: &mut Reader<'_, '_>,
) -> Vec<Vec<Clause>> {
    let Some(node) = fields.node(name) else {
        return Vec::new();
    };
    let what = format!("an entry of `{name}`");
    let known: Vec<&str> = table
        .iter()
        .flat_map(|(positive, negative, _)| [*positive, *negative])
        .collect();
    let mut alternatives = Vec::new();
    for item in list(node, name, limits::ALTERNATIVES_MAX, reader.problems) {
        let Some(entry) = Fields::of(item, &what, &[inner], reader.problems) else {
            continue;
        };
        let Some(body) = entry.required(inner, reader.problems) else {
            continue;
        };
        let what = format!("`{inner}`");
        let Some(parts) = Fields::of(body, &what, &known, reader.problems) else {
            continue;
        };
        let clauses = read_clauses(&parts, table, reader);
        if parts.is_empty() {
            reader.problems.error(
                body.at,
                "empty-part",
                format!("`{inner}` has no field; it would match everything"),
            );
        }
        check_accounts_alone(&parts, reader);
        alternatives.push(clauses);
    }
    alternatives
}

fn read_clauses(
    parts: &Fields<'_>,
    table: &[(&str, &str, Field)],
    reader: &mut Reader<'_, '_>,
) -> Vec<Clause> {
    let mut clauses = Vec::new();
    for (positive, negative, field) in table {
        for (name, is_negative) in [(*positive, false), (*negative, true)] {
            if let Some(node) = parts.node(name) {
                clauses.extend(read_clause(node, name, field, is_negative, reader));
            }
        }
    }
    clauses
}

// Rule 31.
fn check_accounts_alone(parts: &Fields<'_>, reader: &mut Reader<'_, '_>) {
    let accounts = ["serviceAccounts", "notServiceAccounts"];
    let others = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
    let is_there = |name: &&&str| parts.member(name).is_some();
    if let (Some(accounts), Some(other)) =
        (accounts.iter().find(is_there), others.iter().find(is_there))
    {
        let message = format!("`{accounts}` cannot stand beside `{other}` in one source");
        reader
            .problems
            .error(parts.key_at(accounts), "bad-combination", message);
    }
}

fn read_condition(node: &Node, reader: &mut Reader<'_, '_>) -> Vec<Clause> {
    let Some(fields) = Fields::of(
        node,
        "a condition",
        &["key", "values", "notValues"],
        reader.problems,
    ) else {
        return Vec::new();
    };
    let Some(key) = fields.required_text("key", reader.problems) else {
        return Vec::new();
    };
    let at = fields.node("key").map_or(fields.at, |node| node.at);
    let field = match field_of_key(key) {
        Ok(field) => field,
        Err((code, message, help)) => {
            reader.problems.error_with_help(at, code, message, help);
            return Vec::new();
        }
    };
    if fields.member("values").is_none() && fields.member("notValues").is_none() {
        reader.problems.error(
            at,
            "missing-field",
            format!(
                "the condition on `{}` has neither `values` nor `notValues`",
                excerpt(key)
            ),
        );
    }
    let mut clauses = Vec::new();
    for (name, is_negative) in [("values", false), ("notValues", true)] {
        if let Some(node) = fields.node(name) {
            let shown = if is_negative {
                format!("{key} notValues")
            } else {
                key.to_owned()
            };
            clauses.extend(
                read_clause(node, name, &field, is_negative, reader).map(|clause| Clause {
                    name: shown,
                    ..clause
                }),
            );
        }
    }
    clauses
}

fn read_clause(
    node: &Node,
    name: &str,
    field: &Field,
    is_negative: bool,
    reader: &mut Reader<'_, '_>,
) -> Option<Clause> {
    let max = if *field == Field::ServiceAccount {
        limits::SERVICE_ACCOUNTS_MAX
    } else {
        limits::VALUES_MAX
    };
    let mut clause = Clause {
        field: field.clone(),
        name: name.to_owned(),
        is_negative,
        is_all_of: false,
        patterns: Vec::new(),
        values: Vec::new(),
        line: node.at.line,
    };
    let mut is_whole = true;
    for item in list(node, name, max, reader.problems) {
        let Some(value) = read_value(item, name, field, reader) else {
            is_whole = false;
            continue;
        };
        if value.len() > limits::VALUE_BYTES_MAX {
            reader.problems.error(
                item.at,
                "value-too-long",
                format!(
                    "a value of `{name}` is longer than {} bytes",
                    limits::VALUE_BYTES_MAX
                ),
            );
            is_whole = false;
            continue;
        }
        match pattern::compile(
            field,
            &value,
            &reader.metadata.namespace,
            reader.context.config,
        ) {
            Ok(patterns) => {
                check_pattern(field, &value, &patterns, item.at, reader);
                clause.patterns.extend(patterns);
            }
            Err((message, help)) => {
                reader
                    .problems
                    .error_with_help(item.at, "bad-value", message, help);
                is_whole = false;
            }
        }
        clause.values.push(value);
    }
    (is_whole && !clause.patterns.is_empty()).then_some(clause)
}

fn read_value(
    item: &Node,
    name: &str,
    field: &Field,
    reader: &mut Reader<'_, '_>,
) -> Option<String> {
    if *field == Field::DestinationPort && !item.is_null() {
        // A port may stand without quotes.
        if let crate::document::Value::Scalar { text, .. } = &item.value
            && text.bytes().all(|byte| byte.is_ascii_digit())
        {
            return integer(item, name, 0, 65_535, reader.problems).map(|port| port.to_string());
        }
    }
    text(item, name, reader.problems).map(str::to_owned)
}

/// Warnings about patterns that are valid and probably not what was meant.
fn check_pattern(
    field: &Field,
    value: &str,
    patterns: &[Pattern],
    at: Span,
    reader: &mut Reader<'_, '_>,
) {
    let Some(Pattern::Text(matched)) = patterns.first() else {
        return;
    };
    if matched.has_literal_star() {
        let help = Some(
            "a `*` is special alone, at the start or at the end; for one path segment write `{*}`"
                .to_owned(),
        );
        reader.problems.warning(
            at,
            "literal-star",
            format!(
                "the `*` inside of `{}` is compared literally",
                excerpt(value)
            ),
            help,
        );
    }
    if *field == Field::Path
        && let StringMatch::Exact(path) | StringMatch::Prefix(path) = matched
    {
        let is_reachable = normalize(path, reader.context.config.path_normalization)
            .is_ok_and(|found| found.path() == path);
        if !is_reachable {
            let help = Some("paths are compared after normalization, without query".to_owned());
            reader.problems.warning(
                at,
                "path-never-matches",
                format!("no normalized path looks like `{}`", excerpt(value)),
                help,
            );
        }
    }
    if *field == Field::Principal
        && let StringMatch::Exact(principal) = matched
    {
        match SpiffeId::parse(&format!("spiffe://{principal}")) {
            Ok(id) if !id.is_root() => reader.check_known(&id, at),
            _ => {
                let help = Some("write `TRUST_DOMAIN/ns/NAMESPACE/sa/NAME`".to_owned());
                let message = format!("no workload has the principal `{}`", excerpt(value));
                reader.problems.warning(at, "bad-principal", message, help);
            }
        }
    }
}
