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
pub const AGENT_LOST: Duration = Duration::from_mins(1);
/// How often a response under way asks anew whether its caller may have it; changes of the registry and the deny-list ask
/// at once.
pub const STREAM_CHECK: Duration = Duration::from_secs(1);
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
pub const APPLY_WAIT: Duration = Duration::from_mins(1);
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

// Issuance and authorities.

/// Shortest life of an SVID that can be configured or asked for.
pub const SVID_LIFE_MIN: Duration = Duration::from_secs(5);
/// Longest life of an SVID, whatever an entry or an administrator asks for; longer wishes are clamped.
pub const SVID_LIFE_MAX: Duration = Duration::from_hours(720);
/// Shortest life of an authority that can be configured.
pub const AUTHORITY_LIFE_MIN: Duration = Duration::from_secs(10);
/// Longest life of an authority that can be configured.
pub const AUTHORITY_LIFE_MAX: Duration = Duration::from_hours(87600);
/// Certificates begin so long before they are made: clocks of peers lag.
pub const NOT_BEFORE_BACKDATE: Duration = Duration::from_mins(1);
/// Authorities of one kind in the bundle, the active one included; preparing another is refused.
pub const AUTHORITIES_KEPT_MAX: usize = 16;
/// An authority stays in the bundle for so long after it has expired, for clocks that lag.
pub const EXPIRED_AUTHORITY_KEPT: Duration = Duration::from_mins(10);
/// A clock that shows this much less than the newest recorded issuance stops issuance.
pub const CLOCK_BACK_MAX: Duration = Duration::from_mins(1);
/// Bytes of a certificate signing request.
pub const CSR_BYTES_MAX: usize = 16 * 1024;
/// Requests in one batch.
pub const ISSUE_BATCH_MAX: usize = 500;
/// Bits of an RSA key, at least.
pub const RSA_BITS_MIN: u32 = 2048;
/// Bits of an RSA key, at most.
pub const RSA_BITS_MAX: u32 = 4096;
/// Audiences of one JWT-SVID.
pub const AUDIENCES_MAX: usize = 32;
/// Bytes of one audience.
pub const AUDIENCE_BYTES_MAX: usize = 1024;
/// Outcomes of signatures that wait to be logged; signing waits when there are more.
pub const OUTCOMES_WAITING_MAX: usize = 4096;
/// Outcomes in one append to the audit log.
pub const OUTCOMES_BATCH_MAX: usize = 512;

// Attestation.

/// Life of a join token that names none.
pub const JOIN_TOKEN_LIFE: Duration = Duration::from_mins(10);
/// Longest life of a join token.
pub const JOIN_TOKEN_LIFE_MAX: Duration = Duration::from_hours(720);
/// Bytes of a token that an administrator chooses: 22 characters of base64 carry 128 bits.
pub const JOIN_TOKEN_BYTES_MIN: usize = 22;
/// Bytes of a token, at most.
pub const JOIN_TOKEN_BYTES_MAX: usize = 256;
/// Failed attestations that one address may make at once; one more each second.
pub const ATTEST_FAILURES_MAX: u32 = 10;
/// Addresses whose failures are remembered.
pub const ATTEST_ADDRESSES_MAX: usize = 4096;
/// An agent has so long to send its attestation.
pub const ATTEST_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of the version that an agent reports.
pub const VERSION_BYTES_MAX: usize = 64;
/// Bytes of the reason that an administrator gives.
pub const REASON_BYTES_MAX: usize = 1024;
/// Agents on one page of a list.
pub const PAGE_MAX: usize = 1000;

// Rotation.

/// A step of a rotation that waits longer gives up; another `rotate` goes on where it stopped.
pub const ROTATION_STEP_MAX: Duration = Duration::from_hours(1);
/// How often rotations and the schedule look again when nothing tells them to.
pub const ROTATION_LOOK: Duration = Duration::from_secs(1);
/// How often the CA looks whether its own SVID is due.
pub const SCHEDULE_LOOK: Duration = Duration::from_secs(1);
/// SVIDs per second and agent while everything is reissued.
pub const REISSUE_PER_SEC_MAX: u32 = 200;
/// Life of the CA's own SVID; renewed at half.
pub const SERVER_SVID_LIFE: Duration = Duration::from_hours(1);
/// Seconds between polls that the bundle suggests to foreign trust domains.
pub const BUNDLE_REFRESH_HINT_SECS: u32 = 300;
/// Serials that one deny-list entry for an agent names; more are cut off by the agent's ban alone.
pub const DENIED_SERIALS_MAX: u32 = 10_000;
/// What was issued stays on record for so long after it has ended.
pub const ISSUED_KEPT: Duration = Duration::from_hours(24);
/// Commands that wait for the rotation driver; further callers wait.
pub const COMMANDS_WAITING_MAX: usize = 16;
/// How often ended deny-list entries and old records are dropped.
pub const HOUSEKEEPING: Duration = Duration::from_secs(30);
/// Parts of the CA have so long to end after a drain; longer than the listeners' own drain.
pub const CLOSE_DEADLINE: Duration = Duration::from_secs(15);
