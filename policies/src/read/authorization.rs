//! Reads `AuthorizationPolicy` (rules 11 to 23, 60, 64 to 67).

use super::annotations::{check_all_of_used, read_extensions};
use super::clause::ClauseReader;
use super::header::is_label;
use super::target::read_target_refs;
use super::words::EFFECTS;
use super::{Header, Reader};
use crate::diagnostic::{excerpt, near_miss};
use crate::document::{Node, Value};
use crate::fields::{Fields, list};
use crate::limits;
use crate::schema::{AuthorizationPolicy, Clause, Effect, Field, Rule};
use crate::shape;

type FieldTable = [(&'static str, &'static str, Field)];

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

/// Reads one policy.
pub(crate) fn read_authorization_policy(
    header: &Header,
    spec: &Node,
    reader: &mut Reader<'_, '_>,
) -> Option<AuthorizationPolicy> {
    let known = shape::AUTHORIZATION_POLICY.names();
    let fields = Fields::of(spec, "AuthorizationPolicy", &known, reader.problems)?;
    let effect = match fields.member("action") {
        Some(_) => fields.word("action", &EFFECTS, reader.problems),
        None => Some(Effect::Allow),
    };
    let provider = read_provider(&fields, effect, reader);
    let extensions = read_extensions(header, reader.problems);
    let has_target_refs = read_target_refs(&fields, reader);
    let selector = reader.selector(&fields);
    let mut clauses = ClauseReader::new(effect, extensions, reader);
    let rules = read_rules(&fields, &mut clauses);
    let (extensions, keys) = clauses.finish();
    check_all_of_used(header, &extensions, &keys, reader.problems);
    let effect = effect?;
    check_effect(&fields, effect, &rules, extensions.is_dry_run, reader);
    Some(AuthorizationPolicy {
        metadata: header.metadata.clone(),
        location: reader.location(header.at),
        selector,
        has_target_refs,
        effect,
        provider,
        is_dry_run: extensions.is_dry_run,
        window: extensions.window,
        rules: rules.into(),
    })
}

/// What the action does not go with (rules 13, 64).
fn check_effect(
    fields: &Fields<'_>,
    effect: Effect,
    rules: &[Rule],
    is_dry_run: bool,
    reader: &mut Reader<'_, '_>,
) {
    let has_rules = !rules.is_empty()
        || matches!(fields.node("rules").map(|node| &node.value), Some(Value::List(items)) if !items.is_empty());
    if !has_rules && matches!(effect, Effect::Deny | Effect::Custom) {
        let name = effect.name();
        let help = Some(match effect {
            Effect::Custom => "`rules: [{}]` asks the provider about everything".to_owned(),
            Effect::Allow | Effect::Deny | Effect::Audit => {
                "`rules: [{}]` denies everything".to_owned()
            }
        });
        reader.problems.error_with_help(
            fields.key_at("action"),
            "never-matches",
            format!("a {name} policy without `rules` never matches"),
            help,
        );
    }
    if is_dry_run && !matches!(effect, Effect::Allow | Effect::Deny) {
        let message = format!(
            "`istio.io/dry-run` is for ALLOW and DENY, not for {}",
            effect.name()
        );
        reader
            .problems
            .error(fields.key_at("action"), "bad-combination", message);
    }
}

// Rule 60. A name that the mesh does not define would refuse every matching call (rule 61): said here already.
fn read_provider(
    fields: &Fields<'_>,
    effect: Option<Effect>,
    reader: &mut Reader<'_, '_>,
) -> Option<String> {
    let is_custom = effect == Some(Effect::Custom);
    let Some(node) = fields.node("provider") else {
        if is_custom {
            let help = Some(
                "`provider: {name: ..}` names one of `extensionProviders` of the MeshConfig"
                    .to_owned(),
            );
            reader.problems.error_with_help(
                fields.key_at("action"),
                "missing-field",
                "a CUSTOM policy has no `provider`",
                help,
            );
        }
        return None;
    };
    if effect.is_some() && !is_custom {
        reader.problems.error(
            fields.key_at("provider"),
            "bad-combination",
            "`provider` stands with `action: CUSTOM` alone",
        );
    }
    let provider = Fields::of(
        node,
        "`provider`",
        &shape::PROVIDER_NAME.names(),
        reader.problems,
    )?;
    let name = provider.required_text("name", reader.problems)?;
    let at = provider.node("name").map_or(node.at, |node| node.at);
    if !is_label(name) {
        let message = format!("`{}` is not the name of a provider", excerpt(name));
        let help =
            Some("1 to 63 of `a-z`, `0-9` and `-`, with a letter or digit at both ends".to_owned());
        reader
            .problems
            .error_with_help(at, "bad-name", message, help);
        return None;
    }
    let config = reader.context.config;
    let known = || {
        config
            .extension_providers
            .iter()
            .map(|known| known.name.as_str())
    };
    if !known().any(|known| known == name) {
        let message = format!("the MeshConfig has no extension provider `{name}`");
        let help = near_miss(name, known())
            .or_else(|| Some("define it under `extensionProviders` of the MeshConfig".to_owned()));
        if config.is_given() {
            reader
                .problems
                .error_with_help(at, "unknown-provider", message, help);
        } else {
            reader
                .problems
                .warning(at, "unknown-provider", message, help);
        }
    }
    Some(name.to_owned())
}

fn read_rules(fields: &Fields<'_>, reader: &mut ClauseReader<'_, '_, '_>) -> Vec<Rule> {
    let Some(node) = fields.node("rules") else {
        return Vec::new();
    };
    // `rules: []` is an ALLOW that never matches (rule 11).
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        return Vec::new();
    }
    list(node, "rules", limits::RULES_MAX, reader.problems())
        .iter()
        .filter_map(|rule| read_rule(rule, reader))
        .collect()
}

fn read_rule(node: &Node, reader: &mut ClauseReader<'_, '_, '_>) -> Option<Rule> {
    let fields = Fields::of(node, "a rule", &shape::RULE.names(), reader.problems())?;
    let from = read_alternatives(&fields, "from", "source", &SOURCE, reader);
    let to = read_alternatives(&fields, "to", "operation", &OPERATION, reader);
    let conditions = fields
        .node("when")
        .map(|node| list(node, "when", limits::CONDITIONS_MAX, reader.problems()));
    let when = conditions
        .unwrap_or_default()
        .iter()
        .flat_map(|node| reader.condition(node))
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
    table: &FieldTable,
    reader: &mut ClauseReader<'_, '_, '_>,
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
    for item in list(node, name, limits::ALTERNATIVES_MAX, reader.problems()) {
        let Some(entry) = Fields::of(item, &what, &[inner], reader.problems()) else {
            continue;
        };
        let Some(body) = entry.required(inner, reader.problems()) else {
            continue;
        };
        let what = format!("`{inner}`");
        let Some(parts) = Fields::of(body, &what, &known, reader.problems()) else {
            continue;
        };
        let clauses = read_clauses(&parts, table, reader);
        if parts.is_empty() {
            reader.problems().error(
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
    table: &FieldTable,
    reader: &mut ClauseReader<'_, '_, '_>,
) -> Vec<Clause> {
    let mut clauses = Vec::new();
    for (positive, negative, field) in table {
        for (name, is_negative) in [(*positive, false), (*negative, true)] {
            if let Some(member) = parts.member(name) {
                clauses.extend(reader.clause(member, field, is_negative));
            }
        }
    }
    clauses
}

// Rule 31.
fn check_accounts_alone(parts: &Fields<'_>, reader: &mut ClauseReader<'_, '_, '_>) {
    let accounts = ["serviceAccounts", "notServiceAccounts"];
    let others = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
    let is_there = |name: &&&str| parts.member(name).is_some();
    if let (Some(accounts), Some(other)) =
        (accounts.iter().find(is_there), others.iter().find(is_there))
    {
        let message = format!("`{accounts}` cannot stand beside `{other}` in one source");
        reader
            .problems()
            .error(parts.key_at(accounts), "bad-combination", message);
    }
}
