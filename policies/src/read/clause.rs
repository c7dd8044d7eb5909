//! One list of values to a clause: patterns of its field, checked as they are read (rules 17 to 19, 21, 22, 60).

use ravelin_proto::spiffe_id::SpiffeId;

use super::annotations::Extensions;
use super::condition::field_of_key;
use super::reference::{is_like_reference, parse_reference};
use super::{Reader, pattern};
use crate::diagnostic::{Problems, Span, excerpt};
use crate::document::{Member, Node, Value};
use crate::fields::{Fields, integer, list, text};
use crate::limits;
use crate::matcher::{Pattern, StringMatch};
use crate::object::Location;
use crate::path::normalize;
use crate::schema::{Clause, Effect, Field};

/// Reads the clauses of one policy.
pub(super) struct ClauseReader<'p, 'r, 'f> {
    reader: &'p mut Reader<'r, 'f>,
    effect: Option<Effect>,
    extensions: Extensions,
    /// Keys of `when` with positive values, as they stand in the file.
    keys: Vec<String>,
}

impl<'p, 'r, 'f> ClauseReader<'p, 'r, 'f> {
    pub(super) fn new(
        effect: Option<Effect>,
        extensions: Extensions,
        reader: &'p mut Reader<'r, 'f>,
    ) -> Self {
        Self {
            reader,
            effect,
            extensions,
            keys: Vec::new(),
        }
    }

    pub(super) fn problems(&mut self) -> &mut Problems<'f> {
        self.reader.problems
    }

    pub(super) fn location(&self, at: Span) -> Location {
        self.reader.location(at)
    }

    pub(super) fn finish(self) -> (Extensions, Vec<String>) {
        (self.extensions, self.keys)
    }

    /// One entry of `when`: a clause of its `values`, and one of its `notValues`.
    pub(super) fn condition(&mut self, node: &Node) -> Vec<Clause> {
        let known = crate::shape::CONDITION.names();
        let Some(fields) = Fields::of(node, "a condition", &known, self.reader.problems) else {
            return Vec::new();
        };
        let Some(key) = fields.required_text("key", self.reader.problems) else {
            return Vec::new();
        };
        let at = fields.node("key").map_or(fields.at, |node| node.at);
        let field = match field_of_key(key) {
            Ok(field) => field,
            Err((code, message, help)) => {
                let problems = &mut *self.reader.problems;
                problems.error_with_help(at, code, message, help);
                return Vec::new();
            }
        };
        self.check_custom(&field, key, at);
        if fields.member("values").is_none() && fields.member("notValues").is_none() {
            let message = format!(
                "the condition on `{}` has neither `values` nor `notValues`",
                excerpt(key)
            );
            self.reader.problems.error(at, "missing-field", message);
        }
        let mut clauses = Vec::new();
        if let Some(node) = fields.node("values") {
            let is_all_of = self.is_all_of(&field);
            self.keys.push(key.to_owned());
            let clause = self.read_list(node, "values", &field, false);
            clauses.extend(clause.map(|clause| Clause {
                name: key.to_owned(),
                is_all_of,
                ..clause
            }));
        }
        if let Some(node) = fields.node("notValues") {
            let clause = self.read_list(node, "notValues", &field, true);
            clauses.extend(clause.map(|clause| Clause {
                name: format!("{key} notValues"),
                ..clause
            }));
        }
        clauses
    }

    /// One list of a source or an operation.
    pub(super) fn clause(
        &mut self,
        member: &Member,
        field: &Field,
        is_negative: bool,
    ) -> Option<Clause> {
        self.check_custom(field, &member.key, member.at);
        self.read_list(&member.value, &member.key, field, is_negative)
    }

    /// True when the policy's annotation wants every value of this claim.
    fn is_all_of(&mut self, field: &Field) -> bool {
        let mut is_found = false;
        for entry in &mut self.extensions.all_of {
            if entry.field == *field {
                entry.is_used = true;
                is_found = true;
            }
        }
        is_found
    }

    // Rule 60: CUSTOM is asked before anyone is authenticated by token, and in Istio before the peer is known.
    fn check_custom(&mut self, field: &Field, name: &str, at: Span) {
        let is_identity = match field {
            Field::Principal
            | Field::RequestPrincipal
            | Field::Namespace
            | Field::ServiceAccount
            | Field::TrustDomain
            | Field::Audience
            | Field::Presenter
            | Field::Claim(_) => true,
            Field::SourceAddress
            | Field::RemoteAddress
            | Field::DestinationAddress
            | Field::DestinationPort
            | Field::ServerName
            | Field::Host
            | Field::Method
            | Field::Path
            | Field::Header(_) => false,
        };
        if is_identity && self.effect == Some(Effect::Custom) {
            let message = format!("a CUSTOM policy cannot use `{}`", excerpt(name));
            let help = Some(
                "it is judged before identities are; put this into an ALLOW or DENY policy beside it".to_owned(),
            );
            let problems = &mut *self.reader.problems;
            problems.error_with_help(at, "not-in-custom", message, help);
        }
    }

    fn read_list(
        &mut self,
        node: &Node,
        name: &str,
        field: &Field,
        is_negative: bool,
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
        for item in list(node, name, max, self.reader.problems) {
            match self.read_item(item, name, field) {
                Some((value, patterns)) => {
                    clause.patterns.extend(patterns);
                    clause.values.push(value);
                }
                None => is_whole = false,
            }
        }
        (is_whole && !clause.patterns.is_empty()).then_some(clause)
    }

    fn read_item(
        &mut self,
        item: &Node,
        name: &str,
        field: &Field,
    ) -> Option<(String, Vec<Pattern>)> {
        let value = self.read_value(item, name, field)?;
        if value.len() > limits::VALUE_BYTES_MAX {
            let message = format!(
                "a value of `{name}` is longer than {} bytes",
                limits::VALUE_BYTES_MAX
            );
            self.reader
                .problems
                .error(item.at, "value-too-long", message);
            return None;
        }
        if matches!(field, Field::Claim(_)) && is_like_reference(&value) {
            if self.extensions.has_references {
                return self.read_reference(value, item.at);
            }
            let message = format!("`{}` is compared literally", excerpt(&value));
            let help = Some("with the annotation `ravelin.dev/references: \"true\"` it stands for that value of the request".to_owned());
            let problems = &mut *self.reader.problems;
            problems.warning(item.at, "literal-reference", message, help);
        }
        let metadata = self.reader.metadata;
        match pattern::compile(
            field,
            &value,
            &metadata.namespace,
            self.reader.context.config,
        ) {
            Ok(patterns) => {
                check_pattern(field, &value, &patterns, item.at, self.reader);
                Some((value, patterns))
            }
            Err((message, help)) => {
                let problems = &mut *self.reader.problems;
                problems.error_with_help(item.at, "bad-value", message, help);
                None
            }
        }
    }

    fn read_reference(&mut self, value: String, at: Span) -> Option<(String, Vec<Pattern>)> {
        match parse_reference(&value) {
            Ok(reference) => Some((value, vec![Pattern::Reference(reference)])),
            Err((message, help)) => {
                let problems = &mut *self.reader.problems;
                problems.error_with_help(at, "bad-reference", message, Some(help));
                None
            }
        }
    }

    fn read_value(&mut self, item: &Node, name: &str, field: &Field) -> Option<String> {
        if *field == Field::DestinationPort && !item.is_null() {
            // A port may stand without quotes.
            if let Value::Scalar { text, .. } = &item.value
                && text.bytes().all(|byte| byte.is_ascii_digit())
            {
                return integer(item, name, 0, 65_535, self.reader.problems)
                    .map(|port| port.to_string());
            }
        }
        text(item, name, self.reader.problems).map(str::to_owned)
    }
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
