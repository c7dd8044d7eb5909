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
