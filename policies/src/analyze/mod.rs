//! Questions about policies that are asked before anything ships, as pure functions on loaded sets.

mod coverage;
pub(crate) mod partial;
mod path_shape;
mod record;
mod replay;
mod suggest;

pub use coverage::{Coverage, CoverageRun, PartCoverage, PartKind, RuleCoverage};
pub use record::{
    CallFacts, HttpFacts, LineError, LogLine, RecordedCall, RecordedOutcome, parse_log_line,
};
pub use replay::{Replay, ReplayExample, ReplayGroup, ReplayReport};
pub use suggest::{
    AdditionalCall, Generalize, LeftOut, Suggest, SuggestOptions, SuggestedOperation,
    SuggestedPolicy, SuggestedRule, SuggestedSource, SuggestedTemplate, Suggestion, TooManyCalls,
};
