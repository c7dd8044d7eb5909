//! Every bound of the command, in one place.

use std::time::Duration;

/// How long one administrative call may take.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// How long a call may take that waits for agents to acknowledge.
pub(crate) const ACKNOWLEDGE_DEADLINE: Duration = Duration::from_mins(2);
/// How long `up` waits for one part to become ready.
pub(crate) const PART_READY_DEADLINE: Duration = Duration::from_secs(30);
/// How long `up` waits for a part to end after it was told to.
pub(crate) const PART_END_DEADLINE: Duration = Duration::from_secs(8);
/// Pause between two looks at a part that is not ready yet.
pub(crate) const READY_POLL: Duration = Duration::from_millis(50);
/// First pause before a part that ended is started again; it doubles with each try.
pub(crate) const RESTART_PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause before a part is started again.
pub(crate) const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
/// A part that ran for so long starts again with the first pause.
pub(crate) const RESTART_FORGIVEN_AFTER: Duration = Duration::from_secs(30);
/// Pause before a decision log that broke off is followed again.
pub(crate) const FOLLOW_PAUSE: Duration = Duration::from_secs(1);
/// How long a join token of `up` may be used.
pub(crate) const JOIN_TOKEN_LIFE_SECS: i32 = 600;
/// An agent with less time left than this gets a fresh join token from `up`.
pub(crate) const AGENT_SVID_LEFT_MIN: Duration = Duration::from_mins(2);
/// How long one HTTP call of the tour or the demo service may take.
pub(crate) const HTTP_CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Largest HTTP body that the tour or the demo service reads.
pub(crate) const HTTP_BODY_BYTES_MAX: usize = 64 * 1024;
/// How long the tour waits for the record of a call in the decision log.
pub(crate) const DECISION_DEADLINE: Duration = Duration::from_secs(10);
/// How long the tour waits for its short-lived token to expire.
pub(crate) const TOKEN_EXPIRY_DEADLINE: Duration = Duration::from_secs(20);
/// Largest mesh file that is read.
pub(crate) const MESH_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most files in a mesh folder.
pub(crate) const MESH_FILES_MAX: usize = 10_000;
/// Deepest folder in a mesh folder.
pub(crate) const MESH_DEPTH_MAX: usize = 16;
/// Rows in one page of a list call.
pub(crate) const PAGE_ROWS: i32 = 500;
/// Lines of a part's log that are shown when it ends early.
pub(crate) const LOG_TAIL_LINES: usize = 12;
/// Bytes of a part's log that are read for its tail.
pub(crate) const LOG_TAIL_BYTES: u64 = 16 * 1024;
/// Pause between two frames of a progress display.
pub(crate) const TICK: Duration = Duration::from_millis(120);
/// Largest answer of the CA or the agent.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest file given on the command line (token, export line, certificate).
pub(crate) const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest life of a part's queue to the launcher task.
pub(crate) const LAUNCH_QUEUE: usize = 256;
/// Most lines of a recorded decision log.
pub(crate) const LOG_LINES_MAX: u64 = 50_000_000;
/// Lines that are no records, after which a log is given up.
pub(crate) const LOG_BAD_LINES_MAX: u64 = 20;
