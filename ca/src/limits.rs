//! Every bound of the CA, with the reason for it.

use std::time::Duration;

/// Jobs that wait for the writer; a further caller waits for a place.
pub const WRITE_QUEUE_MAX: usize = 1024;
/// Jobs of one group commit.
pub const WRITE_BATCH_MAX: usize = 256;
/// Connections that only read.
pub const READ_CONNECTIONS_MAX: u32 = 4;
/// How long a statement waits for a lock of the database.
pub const STORE_BUSY: Duration = Duration::from_secs(5);
/// Rows of the change log that are kept for agents that reconnect; an older one gets a snapshot.
pub const CHANGES_KEPT: u64 = 100_000;
/// Most events of one append.
pub const AUDIT_EVENTS_MAX: usize = 1024;
/// Longest canonical JSON of one audit event.
pub const AUDIT_EVENT_BYTES_MAX: usize = 1024 * 1024;
/// How often a wait looks whether a lost agent stopped counting.
pub const LIVENESS_CHECK: Duration = Duration::from_millis(500);
/// An agent whose stream ended counts as live for this long.
pub const AGENT_LOST: Duration = Duration::from_secs(60);
/// How long a new `Sync` stream may take to say `hello`.
pub const SYNC_HELLO: Duration = Duration::from_secs(10);
/// Entries of one `Sync` message: about 1 MiB of what gRPC takes.
pub const SYNC_ENTRIES_MAX: usize = 2000;
/// Rows of the change log that are kept in memory for open streams.
pub const CHANGES_RECENT_MAX: usize = 4096;
/// Proxies of one acknowledgement.
pub const ACK_PROXIES_MAX: usize = 1024;
/// Authorities of one acknowledgement.
pub const ACK_AUTHORITIES_MAX: usize = 256;
/// Longest text of an acknowledgement.
pub const ACK_TEXT_BYTES_MAX: usize = 4096;
/// Files of one mesh folder.
pub const MESH_FILES_MAX: usize = 4096;
/// Bytes of one mesh folder, paths included: with entries beside it, still one `Sync` message.
pub const MESH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A request with a whole mesh folder, and room to say that it is too large.
pub const MESH_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long `apply --wait` waits for acknowledgements.
pub const APPLY_WAIT: Duration = Duration::from_secs(60);
/// Decisions of one segment.
pub const SEGMENT_DECISIONS_MAX: usize = 10_000;
/// Longest canonical JSON of one decision.
pub const DECISION_BYTES_MAX: usize = 32 * 1024;
/// Longest segment id.
pub const SEGMENT_ID_BYTES_MAX: usize = 128;
/// Longest text of a query's filter.
pub const QUERY_TEXT_BYTES_MAX: usize = 2048;
/// Most records that a query with a limit returns.
pub const QUERY_LIMIT_MAX: u32 = 10_000;
/// Records that a query reads at once.
pub const QUERY_PAGE: u32 = 500;
/// Most entries of one batch or page.
pub const ENTRY_BATCH_MAX: usize = 500;
/// Most entries of one listing, whatever page was asked for: within what gRPC takes at once.
pub const ENTRY_LIST_MAX: usize = 5_000;
/// A request with one decision segment.
pub const SEGMENT_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
