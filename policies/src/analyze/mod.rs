//! Questions about policies that are asked before anything ships, as pure functions on loaded sets.

mod partial;
mod path_shape;
mod record;
mod replay;

pub use record::{
    CallFacts, HttpFacts, LineError, LogLine, RecordedCall, RecordedOutcome, parse_log_line,
};
pub use replay::{Replay, ReplayExample, ReplayGroup, ReplayReport};
