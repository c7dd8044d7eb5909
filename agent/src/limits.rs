//! Every bound of the agent, by name. Reaching one is a refusal with a code, never a crash.

use std::time::Duration;

/// Most requests and streams that one user may hold on the Workload API (threat 8).
pub const CALLS_PER_UID_MAX: u32 = 1024;
/// Most requests and streams of all users together.
pub const CALLS_MAX: u32 = 16_384;
/// Most audiences in one JWT-SVID request.
pub const AUDIENCES_MAX: usize = 32;
/// Longest audience in bytes.
pub const AUDIENCE_BYTES_MAX: usize = 2048;
/// Most JWT-SVIDs kept; the one that expires first makes room.
pub const JWT_SVIDS_MAX: usize = 1000;
/// A cached JWT-SVID with less than this left is not handed out any more.
pub const JWT_REMAINING_MIN: Duration = Duration::from_secs(5);
/// Most certificate requests in one call.
pub const CSRS_PER_CALL_MAX: usize = 256;
/// Most entries that an agent keeps.
pub const ENTRIES_MAX: usize = 100_000;
/// An identity that no process asked for in this time is not renewed any more.
pub const UNUSED_MAX: Duration = Duration::from_hours(24);
/// How long the first response of a stream may wait for a signature.
pub const FIRST_RESPONSE_WAIT: Duration = Duration::from_secs(10);
/// Deadline of one unary call to the CA.
pub const CA_CALL_WAIT: Duration = Duration::from_secs(10);
/// Deadline of a connection to the CA, handshake included.
pub const CA_CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Deadline of the first answer on a sync stream.
pub const SYNC_FIRST_WAIT: Duration = Duration::from_secs(20);
/// Longest single sleep: a clock that jumped is noticed after this time.
pub const SLEEP_MAX: Duration = Duration::from_secs(5);
/// First and longest pause between attempts to reach the CA.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(200);
/// See [`RECONNECT_FIRST`].
pub const RECONNECT_MAX: Duration = Duration::from_secs(10);
/// First pause after the CA refused to sign for one entry; doubles up to [`REFUSED_MAX`].
pub const REFUSED_FIRST: Duration = Duration::from_secs(1);
/// See [`REFUSED_FIRST`].
pub const REFUSED_MAX: Duration = Duration::from_mins(1);
/// Largest executable that is hashed for `unix:sha256`.
pub const EXECUTABLE_BYTES_MAX: u64 = 1 << 30;
/// Most executables whose hash is remembered.
pub const HASHES_MAX: usize = 1024;
/// Most bytes read from a file below `/proc`.
pub const PROC_BYTES_MAX: u64 = 1 << 20;
/// Most bytes read from `/etc/passwd` and `/etc/group`.
pub const ACCOUNTS_BYTES_MAX: u64 = 4 << 20;
/// Most processes that launchers may register.
pub const LAUNCHES_MAX: usize = 10_000;
/// Longest name of a launched process in bytes.
pub const LAUNCH_NAME_BYTES_MAX: usize = 253;
/// Most proxies attached at once.
pub const PROXIES_MAX: usize = 1024;
/// Longest name of a proxy in characters.
pub const PROXY_NAME_CHARS_MAX: usize = 253;
/// Longest reason of a refusal in an acknowledgement, in characters.
pub const REFUSAL_CHARS_MAX: usize = 1000;
/// Decisions in one segment.
pub const SEGMENT_DECISIONS_MAX: usize = 512;
/// Longest time that a decision waits in memory before its segment is sealed.
pub const SEGMENT_AGE_MAX: Duration = Duration::from_millis(500);
/// Decisions that wait in memory before the queue drops and counts.
pub const DECISIONS_IN_MEMORY_MAX: usize = 16_384;
/// Decisions taken from one message of a proxy.
pub const DECISIONS_PER_BATCH_MAX: usize = 4096;
/// Bytes that a decision may come to as a line of JSON; the CA refuses a segment with a longer one.
pub const DECISION_BYTES_MAX: usize = 28 * 1024;
/// Bytes of sealed segments that wait on disk for the CA.
pub const QUEUE_BYTES_MAX: u64 = 64 << 20;
/// Largest file that the agent reads back from its data folder.
pub const STORED_BYTES_MAX: u64 = 256 << 20;
/// Longest join token in bytes.
pub const JOIN_TOKEN_BYTES_MAX: usize = 1024;
/// Largest PEM file of trust anchors.
pub const TRUST_BUNDLE_BYTES_MAX: u64 = 1 << 20;
/// Most processes in one answer of `ExplainWorkload`.
pub const EXPLAINED_ENTRIES_MAX: usize = 1000;
/// Largest message on the sync stream: a snapshot of every entry and the mesh.
pub const SYNC_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Clocks may differ by this much when a JWT-SVID is validated.
pub const JWT_LEEWAY: Duration = Duration::from_secs(10);
/// Pause between signing at a bounded rate.
pub const REISSUE_TURN: Duration = Duration::from_secs(1);
/// SVIDs go to disk this long after a change, so that a batch is one write.
pub const KEEP_SVIDS_PAUSE: Duration = Duration::from_millis(100);
