//! Questions about policies, answered for every request at once and exactly: who can reach what ([`who_can`]), which
//! requests two sets decide differently ([`difference()`]), which rules change nothing ([`redundancy()`]).
//!
//! The values of each field are split into the finitely many classes that no policy tells apart (`space.rs`), rules
//! become sets of products of classes (`diagram.rs`). What is too large or cannot be told in sets is refused by name.

mod bits;
mod classes;
mod coverage;
mod decide;
mod describe;
mod diagram;
mod difference;
mod language;
mod machine;
pub(crate) mod partial;
mod path_shape;
mod predicate;
mod question;
mod reach;
mod record;
mod redundancy;
mod replay;
mod sample;
mod side;
mod sort;
mod space;
mod spelling;
mod strings;
mod suggest;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use coverage::{Coverage, CoverageRun, PartCoverage, PartKind, RuleCoverage};
pub use describe::Condition;
pub use difference::{Answer, Difference, DifferenceReport, Note, Unanswered, difference};
pub use question::AnalyzeOptions;
pub use reach::{Access, Reach, ReachGroup, ReachQuery, reachable, who_can};
pub use record::{
    CallFacts, HttpFacts, LineError, LogLine, RecordedCall, RecordedOutcome, parse_log_line,
};
pub use redundancy::{IdleRule, Idleness, NotCompared, RedundancyReport, redundancy};
pub use replay::{Replay, ReplayExample, ReplayGroup, ReplayReport};
pub use sample::Sample;
pub use suggest::{
    AdditionalCall, Generalize, LeftOut, Suggest, SuggestOptions, SuggestedOperation,
    SuggestedPolicy, SuggestedRule, SuggestedSource, SuggestedTemplate, Suggestion, TooManyCalls,
};

use crate::compile::CompileError;
use crate::object::Location;

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnalyzeError {
    /// The answer would take too much work; nothing is guessed.
    #[error("the policies are too many for an exact answer: over the limit of {0}")]
    OverBudget(&'static str),
    /// Something that sets of values cannot tell.
    #[error("{location}: {what} cannot be analysed")]
    NotModelled {
        /// What it is.
        what: String,
        /// The rule.
        location: Location,
    },
    /// A set cannot be compiled for the workload.
    #[error(transparent)]
    NotCompiled(CompileError),
    /// The engine decides an example otherwise than the analysis: a defect of this program.
    #[error("internal error: the analysis and the engine disagree: {0}")]
    Unconfirmed(String),
}
