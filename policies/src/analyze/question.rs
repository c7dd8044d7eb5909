//! A question about one workload: its sides, the space of requests that they tell apart, and the functions over it.

use ravelin_proto::time::Timestamp;

use super::AnalyzeError;
use super::diagram::Diagram;
use super::predicate::Builder;
use super::side::{Side, plain_path};
use super::sort::TokenSort;
use super::space::{Scope, Space};
use super::vocabulary::{TextField, Vocabulary};
use crate::limits;
use crate::path::PathNormalization;
use crate::schema::AuthorizationPolicy;

/// What holds for every question.
#[derive(Debug, Clone, Copy)]
pub struct AnalyzeOptions {
    /// The moment that examples prefer; a question that is about one moment is about this one.
    pub now: Timestamp,
    /// Dry-run policies count as if they were enforced.
    pub includes_dry_run: bool,
    /// Also connections whose content is not HTTP, whatever the workload speaks.
    pub includes_connections: bool,
}

impl AnalyzeOptions {
    /// Is the policy part of the question?
    pub(crate) fn includes(&self, policy: &AuthorizationPolicy) -> bool {
        self.includes_dry_run || !policy.is_dry_run
    }
}

/// A space, ready for functions.
pub(crate) struct Question {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) space: Space,
    pub(crate) diagram: Diagram,
}

impl Question {
    /// Everything that one of the sides tells apart, and what `names` adds.
    pub(crate) fn new(
        sides: &[&Side<'_>],
        options: &AnalyzeOptions,
        steps_max: usize,
        names: &dyn Fn(&mut Vocabulary),
    ) -> Result<Self, AnalyzeError> {
        let mut vocabulary = Vocabulary::default();
        let mut sorts: Vec<TokenSort> = Vec::new();
        let mut scope: Option<Scope> = None;
        for side in sides {
            side.describe(&mut vocabulary, |policy| options.includes(policy))?;
            for sort in side.sorts()? {
                if !sorts.iter().any(|known| known.is_same(&sort)) {
                    sorts.push(sort);
                }
            }
            scope = Some(match scope {
                None => side.scope(),
                Some(known) => joined(known, side.scope()),
            });
        }
        names(&mut vocabulary);
        let Some(mut scope) = scope else {
            return Err(AnalyzeError::OverBudget("no workload"));
        };
        scope.now = options.now;
        scope.has_connections |= options.includes_connections;
        let is_plain = scope.normalization == PathNormalization::DecodeAndMergeSlashes;
        if !is_plain && sides.iter().any(|side| side.engine.judges_paths()) {
            let machine = plain_path(vocabulary.has_query);
            vocabulary
                .text(TextField::Path)
                .add(machine, "a path that all servers read alike");
        }
        let space = Space::new(vocabulary.clone(), sorts, &scope)?;
        let diagram = Diagram::new(space.sizes(), steps_max);
        Ok(Self {
            vocabulary,
            space,
            diagram,
        })
    }

    pub(crate) fn builder(&mut self) -> Builder<'_> {
        Builder {
            space: &self.space,
            diagram: &mut self.diagram,
        }
    }

    pub(crate) fn regions_max() -> usize {
        limits::ANALYSIS_REGIONS_MAX
    }
}

/// Both: what either speaks, and the paths that both leave as they are.
fn joined(one: Scope, other: Scope) -> Scope {
    let identities = other
        .identities
        .iter()
        .filter(|identity| !one.identities.contains(identity));
    let identities = one.identities.iter().chain(identities).cloned().collect();
    let strictness = |normalization: PathNormalization| match normalization {
        PathNormalization::None => 0,
        PathNormalization::Base => 1,
        PathNormalization::MergeSlashes => 2,
        PathNormalization::DecodeAndMergeSlashes => 3,
    };
    let normalization = if strictness(other.normalization) > strictness(one.normalization) {
        other.normalization
    } else {
        one.normalization
    };
    Scope {
        has_http: one.has_http || other.has_http,
        has_connections: one.has_connections || other.has_connections,
        normalization,
        identities,
        ..other
    }
}
