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
