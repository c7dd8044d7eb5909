//! Every bound of the shared run-time code, with what happens when it is reached.

use std::time::Duration;

/// A TLS handshake that takes longer is dropped.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Handshakes in flight on one listener; further connections wait in the accept queue.
pub const HANDSHAKES_MAX: usize = 512;
/// Connections at once on one gRPC listener; further connections wait in the accept queue.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Connections at once of one user on a Unix socket; a further one is closed, so that the others find room.
pub const CONNECTIONS_PER_USER_MAX: usize = 4096;
/// Connections at once of one address (of IPv6: of one site) on TLS without a client certificate; a further one is
/// closed, so that those with an SVID find room.
pub const ANONYMOUS_PER_ADDRESS_MAX: usize = 512;
/// A connection on TLS without a client certificate is closed after so long: it is there to attest, or to read a bundle.
pub const ANONYMOUS_AGE_MAX: Duration = Duration::from_mins(1);
/// HTTP/2 streams at once on one connection; the peer has to wait for its others to end.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 512;
/// Bytes of one request's header list; h2 answers 431.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// Bytes of one gRPC message that a server accepts unless a service says otherwise.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A connection that is quiet for so long is asked for a sign of life.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// A connection that gives no sign of life for so long is closed.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Dialling a server, with TCP and TLS handshake, fails after so long.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// What a caller allows a unary call unless it has a reason.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// After drain began, calls in flight have so long to end before they are cut.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// After a failing `accept` (no file descriptors left, mostly) the listener rests for so long.
pub const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Bytes of a header block (with its continuation frames) that is inspected on a Unix socket; a longer one passes
/// through unseen and h2 judges it.
pub const INSPECTED_HEADER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of HPACK's dynamic table: what h2 announces when nothing else is configured.
pub const HPACK_TABLE_BYTES_MAX: usize = 4096;
/// Bytes read at once from a Unix socket.
pub const UDS_READ_BYTES: usize = 16 * 1024;
/// Bytes of a Unix socket's path: `sun_path` less its closing NUL.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Certificates in one presented chain.
pub const CHAIN_CERTIFICATES_MAX: usize = 8;
/// Bytes of one certificate.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// Chains whose path a verifier remembers; a further one makes it forget all others.
pub const VERIFIED_CHAINS_MAX: usize = 4096;
/// Authorities in one trust domain's bundle.
pub const BUNDLE_AUTHORITIES_MAX: usize = 64;

/// Bytes of a configuration file.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of the line that a configuration error shows.
pub const CONFIG_LINE_BYTES_MAX: usize = 160;

/// Connections at once on an admin listener.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// A request to the admin listener has to be read and answered within this.
pub const ADMIN_DEADLINE: Duration = Duration::from_secs(10);
