//! Every bound of the proxy, in one place: sizes, counts and deadlines.
//!
//! A bound that is reached leads to a refusal with a stable code, to a closed connection or
//! to a counted loss; never to growth. Times are wall time on the monotonic clock of tokio.

use std::time::Duration;

/// Open connections that one listener of one worker holds; the next one is closed at accept.
pub const CONNECTIONS_PER_LISTENER_MAX: usize = 10_000;
/// Open connections that one authenticated peer may have on one worker; the next one is closed.
pub const CONNECTIONS_PER_PEER_MAX: usize = 2_000;
/// How often a worker looks at the memory of the process.
pub const PRESSURE_EVERY: Duration = Duration::from_millis(100);
/// One part in so many of a control group's memory is left for what runs when new work is refused.
pub const PRESSURE_RESERVE_SHARE: u64 = 5;
/// Pressure ends when memory has fallen by one part in so many below the bound.
pub const PRESSURE_RELIEF_SHARE: u64 = 10;
/// Bytes of request bodies that one worker holds at once for external authorizers; further calls are refused.
pub const CHECKED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Backlog that is asked of the kernel for each listening socket.
pub const LISTEN_BACKLOG: i32 = 1024;
/// Pause after `accept` failed (descriptors exhausted), so that the loop does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// TLS handshakes that one source address may have under way on one worker; the next connection is closed.
pub const HANDSHAKES_PER_SOURCE_MAX: usize = 256;
/// From accept to the end of the TLS handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// A TCP client that sends nothing for so long, where plain text is accepted, waits for the server to speak first.
pub const SILENCE_IS_PLAIN: Duration = Duration::from_secs(3);
/// Buffer for the first bytes of a plain-text connection.
pub const SNIFFED_BYTES: usize = 1024;
/// Proxies in front of this one that a configuration file may trust.
pub const TRUSTED_PROXIES_MAX: usize = 16;
/// From the end of the handshake, or of the last response, to the end of the next request head (HTTP/1.1).
pub const HEAD_DEADLINE: Duration = Duration::from_mins(1);
/// The same for the application's own connections, which keep longer than common clients do.
pub const APPLICATION_HEAD_DEADLINE: Duration = Duration::from_mins(10);
/// One TCP dial to an endpoint or to the application.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(5);
/// From the end of the request's body, as far as it was read for the upstream, to the response head.
pub const RESPONSE_HEAD_DEADLINE: Duration = Duration::from_mins(2);
/// Longest silence of a call whose bodies are under way, in both directions.
pub const BODY_IDLE: Duration = Duration::from_mins(5);
/// Longest silence in both directions of a plain TCP connection or of a tunnel.
pub const TCP_IDLE: Duration = Duration::from_hours(1);

/// Read buffer of an HTTP/1.1 connection, and so the bound of one request or response head.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header fields in one head.
pub const HEADERS_MAX: usize = 128;
/// Decoded header list of one HTTP/2 message.
pub const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Request target as it stands in the head.
pub const TARGET_BYTES_MAX: usize = 16 * 1024;
/// `Host` or `:authority`.
pub const HOST_BYTES_MAX: usize = 255;
/// Request body that is passed to the application.
pub const REQUEST_BODY_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// An `x-request-id` that is longer is replaced.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Streams that a peer may have open on one HTTP/2 connection.
pub const STREAMS_MAX: u32 = 256;
/// Bytes that wait for one HTTP/2 stream whose reader does not read: with [`STREAMS_MAX`], what one connection can hold.
pub const STREAM_SEND_BYTES_MAX: usize = 128 * 1024;
/// Streams reset by a peer before we took them up, after which the connection is closed (rapid reset).
///
/// More than [`STREAMS_MAX`]: an application that goes away with all its calls must not end the connection that carries
/// the calls of others.
pub const RESET_STREAMS_PENDING_MAX: usize = 512;
/// Streams that we reset because of a peer's error, after which the connection is closed.
pub const RESET_STREAMS_LOCAL_MAX: usize = 1024;
/// Frames of a peer that carry no call (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, unknown ones) in a burst; then the
/// connection is cut.
pub const CONTROL_FRAMES_BURST: u32 = 4096;
/// How many of them a second earns.
pub const CONTROL_FRAMES_PER_SECOND: u32 = 100;
/// Streams that a peer may reset in a burst, answered or not; then the connection is cut.
pub const RESETS_BURST: u32 = 1024;
/// How many of them a second earns.
pub const RESETS_PER_SECOND: u32 = 100;
/// Bytes written to a peer that earn it one more of each; a frame that is longer costs more.
pub const BYTES_PER_CONTROL_FRAME: u32 = 64;
/// Flow-control window of one HTTP/2 stream.
pub const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Flow-control window of one HTTP/2 connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// HTTP/2 ping on a connection between proxies, and how long its answer may take.
pub const H2_PING_EVERY: Duration = Duration::from_secs(20);
/// See [`H2_PING_EVERY`].
pub const H2_PING_DEADLINE: Duration = Duration::from_secs(10);

/// Tries of one request that was provably not processed: the first one included.
pub const TRIES_MAX: u32 = 4;
/// Tries of one idempotent request whose connection ended without an answer: the first one included.
pub const LOST_TRIES_MAX: u32 = 3;
/// Calls wait this long for a destination where nobody listens: its restart.
pub const RESTART_WAIT: Duration = Duration::from_secs(2);
/// First and longest pause between two dials meanwhile.
pub const RESTART_PAUSE_MIN: Duration = Duration::from_millis(5);
/// See [`RESTART_PAUSE_MIN`].
pub const RESTART_PAUSE_MAX: Duration = Duration::from_millis(80);
/// Endpoints that are dialled for one request before it is refused.
pub const ENDPOINT_TRIES_MAX: usize = 3;
/// An endpoint that could not be dialled is passed over for this long while others can.
pub const ENDPOINT_PAUSE: Duration = Duration::from_secs(1);
/// Streams that are opened on an HTTP/2 connection whose other end has not announced a limit yet.
pub const STREAMS_UNANNOUNCED: usize = 100;
/// HTTP/2 connections of one worker to one destination: each further one is opened when the others take no more streams.
pub const SHARED_CONNECTIONS_MAX: usize = 64;
/// An HTTP/2 connection whose other end has not announced extended CONNECT after this time has none.
pub const SETTINGS_DEADLINE: Duration = Duration::from_secs(1);
/// How often it is looked for meanwhile.
pub const SETTINGS_PACE: Duration = Duration::from_millis(2);
/// From the head that grants a tunnel to its first byte in both directions' reach.
pub const SWITCH_DEADLINE: Duration = Duration::from_secs(10);
/// Idle HTTP/1.1 connections kept for one destination and worker.
pub const IDLE_CONNECTIONS_MAX: usize = 256;
/// An HTTP/1.1 connection idle for longer is not used again: common servers close theirs after 5 s.
pub const IDLE_CONNECTION_AGE: Duration = Duration::from_millis(1500);

/// A connection moves to a new one this long before its peer's SVID ends, or at a quarter of what was left if that is less.
pub const MOVE_BEFORE_EXPIRY: Duration = Duration::from_secs(10);
/// A connection that is no longer trusted has this long to finish what is in flight.
pub const UNTRUSTED_GRACE: Duration = Duration::from_secs(5);
/// A connection whose peer is on the deny-list has this long.
pub const DENIED_GRACE: Duration = Duration::from_millis(500);
/// How often expiry of live connections is looked at.
pub const JUDGE_EVERY: Duration = Duration::from_secs(1);

/// Decision records between the workers and the control thread.
pub const DECISION_QUEUE_MAX: usize = 16 * 1024;
/// Decision records in one message to the agent.
pub const DECISION_BATCH_MAX: usize = 512;
/// Longest time that a decision record waits for others.
pub const DECISION_BATCH_WAIT: Duration = Duration::from_millis(200);
/// Longest text of one field of a decision record.
pub const DECISION_FIELD_BYTES_MAX: usize = 1024;

/// Routes whose series one connection of the application keeps resolved.
pub const ROUTES_PER_CONNECTION_MAX: usize = 64;

/// Series of calls and TCP connections in the process, about 700 bytes each and worker; further ones count in an overflow series.
pub const SERIES_MAX: usize = 4096;
/// Series of one edge (two workloads and a service): no peer uses up the room of others.
pub const SERIES_PER_EDGE_MAX: usize = 128;
/// Series that one meter keeps resolved.
pub const SERIES_PER_METER_MAX: usize = 64;
/// Meters that one worker keeps for connections to come.
pub const METERS_PER_WORKER_MAX: usize = 1024;
/// A series in which nothing was counted for so long expires.
pub const SERIES_IDLE: Duration = Duration::from_mins(10);
/// From its retirement to its removal: time for who still holds it to come back.
pub const SERIES_RETIRED: Duration = Duration::from_secs(30);
/// How often the control thread looks for idle series.
pub const SERIES_SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Lines of the access log are handed over in pieces of about this size.
pub const ACCESS_LOG_BATCH_BYTES: usize = 16 * 1024;
/// Pieces that wait for the access log's writer: with the size above, 4 MB.
pub const ACCESS_LOG_QUEUE_MAX: usize = 256;
/// Buffers that one worker keeps for lines to come.
pub const ACCESS_LOG_BUFFERS_KEPT: usize = 4;
/// Longest value that another party chose in a line of the access log.
pub const ACCESS_LOG_FIELD_BYTES_MAX: usize = 1024;

/// `tracestate` that is passed on (W3C Trace Context section 3.3.1.1 asks for at least 512).
pub const TRACESTATE_BYTES_MAX: usize = 1024;
/// Spans between the workers and the exporter.
pub const SPAN_QUEUE_MAX: usize = 4096;
/// Spans in one message to the collector.
pub const SPAN_BATCH_MAX: usize = 512;
/// Longest time that a span waits for others.
pub const SPAN_BATCH_WAIT: Duration = Duration::from_secs(1);
/// Answer of the collector.
pub const SPAN_EXPORT_DEADLINE: Duration = Duration::from_secs(5);
/// Tries of one message to the collector.
pub const SPAN_EXPORT_TRIES: u32 = 3;

/// Body of an external authorizer's answer.
pub const CHECK_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Changes of one kind in an external authorizer's answer, such as headers that it sets.
pub const CHECK_CHANGES_MAX: usize = 256;
/// From the head of a call to as much of its body as an external authorizer gets.
pub const CHECKED_BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Verified tokens remembered by one worker, about.
pub const TOKENS_MAX: usize = 4096;
/// Bytes of the tokens that one worker remembers; what is made of them takes a few times as much.
pub const TOKEN_BYTES_REMEMBERED_MAX: u64 = 4 * 1024 * 1024;
/// What a remembered token counts at least.
pub const TOKEN_BYTES_REMEMBERED_MIN: u64 = 1024;

/// Wishes for new keys that wait for the control thread.
pub const MISSING_KEYS_QUEUE_MAX: usize = 64;
/// Shortest time between two fetches that a configuration may ask for.
pub const JWKS_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest use of keys that cannot be fetched again that a configuration may ask for.
pub const JWKS_AGE_MAX: Duration = Duration::from_hours(720);
/// Fetches of keys under way at once.
pub const KEY_FETCHES_MAX: usize = 16;
/// Longest key set or discovery document.
pub const KEY_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longest head of an answer with keys.
pub const KEY_HEAD_BYTES_MAX: usize = 32 * 1024;
/// Header fields of an answer with keys.
pub const KEY_HEADERS_MAX: usize = 64;
/// Keys of one issuer.
pub const KEYS_PER_ISSUER_MAX: usize = 256;
/// Addresses of a name that are tried for one fetch.
pub const KEY_ADDRESSES_MAX: usize = 8;
/// First and longest pause after a failed fetch.
pub const KEY_FETCH_PAUSE_MIN: Duration = Duration::from_secs(1);
/// See [`KEY_FETCH_PAUSE_MIN`].
pub const KEY_FETCH_PAUSE_MAX: Duration = Duration::from_mins(1);
/// Trusted roots are read again after this time.
pub const KEY_ROOTS_AGE: Duration = Duration::from_hours(1);
/// One connect to the agent.
pub const AGENT_CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// First and longest pause between two connects to the agent.
pub const AGENT_PAUSE_MIN: Duration = Duration::from_millis(100);
/// See [`AGENT_PAUSE_MIN`].
pub const AGENT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// One configuration message from the agent.
pub const AGENT_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Messages to the agent that wait for the stream.
pub const AGENT_QUEUE_MAX: usize = 16;
/// All workers take a new configuration into use within this time, or the acknowledgement waits on.
pub const ADOPT_DEADLINE: Duration = Duration::from_secs(5);
/// Answer of one worker to a question of the admin listener.
pub const ADMIN_DEADLINE: Duration = Duration::from_secs(2);
/// Questions of the admin listener that wait for one worker.
pub const ADMIN_QUEUE_MAX: usize = 8;

/// Characters of a proxy's name that names a table of the kernel's packet filter.
pub const TABLE_NAME_MAX: usize = 100;
/// Workers that a configuration file may ask for.
pub const WORKERS_MAX: usize = 256;
/// Longest drain that a configuration file may ask for.
pub const DRAIN_MAX: Duration = Duration::from_hours(1);
/// After a drain's deadline connections are cut; their tasks end within this time.
pub const CUT_DEADLINE: Duration = Duration::from_secs(1);
/// Time between the closing of the listeners and the first GOAWAY of a drain, and between two looks at what is left.
pub const LISTENER_LINGER: Duration = Duration::from_millis(50);

/// An idle HTTP/1.1 connection that is to end waits this long for one more call, whose response says so.
pub const LAST_CALL_WAIT: Duration = Duration::from_secs(2);

/// Sockets that travel in one message of a takeover; the kernel allows 253.
pub const TAKEOVER_SOCKETS_PER_MESSAGE: usize = 64;
/// Messages with sockets that a successor reads.
pub const TAKEOVER_MESSAGES_MAX: usize = 256;
/// Text in one message of a takeover.
pub const TAKEOVER_TEXT_BYTES_MAX: usize = 1024;
/// One message of a takeover that the other side has at hand.
pub const TAKEOVER_STEP_DEADLINE: Duration = Duration::from_secs(5);
/// A successor that has no configuration from the agent after this time gives up.
pub const TAKEOVER_READY_DEADLINE: Duration = Duration::from_secs(30);
/// The predecessor waits for its successor a little longer than that one tries.
pub const TAKEOVER_SERVING_DEADLINE: Duration = Duration::from_secs(35);
/// Listeners of the service manager are served after this time also without a configuration: by refusals.
pub const INHERITED_WAIT: Duration = Duration::from_secs(10);

/// How long the last decision records may take to reach the agent when the process ends.
pub const FLUSH_DEADLINE: Duration = Duration::from_secs(2);
/// After the last record was given to the stream: time for the bytes to leave.
pub const LAST_WRITE: Duration = Duration::from_millis(100);
