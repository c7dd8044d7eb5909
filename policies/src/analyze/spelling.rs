//! Changes that no set of requests in normal form shows: how targets are read that servers may read differently, and
//! which forms of claims count.

use super::difference::Note;
use super::question::{AnalyzeOptions, Question};
use super::sample::{Sample, Verdict, judge};
use super::side::Side;
use super::vocabulary::ListField;

/// The changes between two sides; `examples` are requests that one of them allows.
pub(crate) fn notes(
    before: &Side<'_>,
    after: &Side<'_>,
    question: &Question,
    examples: &[Sample],
    options: &AnalyzeOptions,
) -> Vec<Note> {
    let mut texts = Vec::new();
    let is_read_alike = before.normalization() == after.normalization()
        && before.engine.judges_paths() == after.engine.judges_paths();
    let requests = || examples.iter().filter(|example| !example.is_connection);
    let has_claims = question
        .space
        .lists
        .keys()
        .any(|field| matches!(field, ListField::Claim(_)));
    if !is_read_alike && requests().next().is_some() {
        let respelled = requests().flat_map(respellings);
        let example = respelled.into_iter().find(|example| {
            decides(before, example, question, options)
                != decides(after, example, question, options)
        });
        texts.push((spelling_text(before, after), example));
    }
    if before.set.config.has_typed_claims != after.set.config.has_typed_claims && has_claims {
        let verb = if after.set.config.has_typed_claims {
            "count from now on"
        } else {
            "no longer count"
        };
        texts.push((
            format!("claims that are booleans or numbers {verb} (`jwt.typedClaims`)"),
            None,
        ));
    }
    if !before.jwt_rules.is_empty() && !after.jwt_rules.is_empty() {
        texts.extend(token_notes(before, after, has_claims));
    }
    texts
        .into_iter()
        .map(|(text, example)| Note {
            workload: before.engine.workload().spiffe_id.to_string(),
            text,
            example,
        })
        .collect()
}

fn token_notes(
    before: &Side<'_>,
    after: &Side<'_>,
    has_claims: bool,
) -> Vec<(String, Option<Sample>)> {
    let (old, new) = (&before.set.config, &after.set.config);
    let mut texts = Vec::new();
    if old.is_expiry_required != new.is_expiry_required {
        let verb = if new.is_expiry_required {
            "are refused from now on"
        } else {
            "are accepted from now on"
        };
        texts.push((format!("tokens without `exp` {verb}"), None));
    }
    if old.clock_skew != new.clock_skew {
        texts.push((
            format!(
                "tokens count for {} s around their validity instead of {} s (`jwt.clockSkew`)",
                new.clock_skew.as_secs(),
                old.clock_skew.as_secs()
            ),
            None,
        ));
    }
    let split = |side: &Side<'_>| {
        let mut all: Vec<_> = side
            .jwt_rules
            .iter()
            .map(|rule| (rule.issuer.clone(), rule.space_delimited.clone()))
            .collect();
        all.sort();
        all.dedup();
        all
    };
    if has_claims && split(before) != split(after) {
        texts.push((
            "other claims are split on spaces from now on (`spaceDelimitedClaims`)".to_owned(),
            None,
        ));
    }
    texts
}

fn decides(
    side: &Side<'_>,
    example: &Sample,
    question: &Question,
    options: &AnalyzeOptions,
) -> bool {
    judge(
        &side.engine,
        example,
        &question.space.sorts,
        options.includes_dry_run,
    ) != Verdict::Deny
}

fn spelling_text(before: &Side<'_>, after: &Side<'_>) -> String {
    let is_changed = before.normalization() != after.normalization();
    let shown = |side: &Side<'_>| {
        let way = format!("normalized as {:?}", side.normalization());
        match (side.engine.judges_paths(), is_changed) {
            (true, true) => format!("{way}, or refused where servers read them differently"),
            (true, false) => "refused (400)".to_owned(),
            (false, _) => way,
        }
    };
    let which = if is_changed {
        "targets that are not in normal form"
    } else {
        "targets that servers may read differently"
    };
    format!("{which} are {}; until now {}", shown(after), shown(before))
}

/// The same target as a careless or cunning client might write it.
fn respellings(example: &Sample) -> Vec<Sample> {
    let target = &example.target;
    let rest = target.strip_prefix('/').unwrap_or(target);
    let inner = rest.replacen('/', "%2f", 1);
    let escaped = rest
        .chars()
        .next()
        .filter(char::is_ascii_alphanumeric)
        .map(|first| {
            format!(
                "/%{:02x}{}",
                u32::from(first),
                rest.get(1..).unwrap_or_default()
            )
        });
    let mut targets = vec![
        format!("/{target}"),
        format!("/./{rest}"),
        format!("/x/..{target}"),
    ];
    if inner != rest {
        targets.push(format!("/{inner}"));
    }
    targets.push(format!("/%2f{rest}"));
    targets.extend(escaped);
    targets
        .into_iter()
        .map(|target| Sample {
            target,
            ..example.clone()
        })
        .collect()
}
