//! What is judged: a connection, and for HTTP a request on it. Values are borrowed; nothing is copied.

use std::net::IpAddr;
use std::sync::Arc;

use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use serde_json::{Map, Value};

use crate::path::NormalizedPath;

/// The facts of a connection that do not change while it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The peer's verified identity; `None` for plain text.
    pub principal: Option<SpiffeId>,
    /// The direct peer's address (rule 36).
    pub source_ip: IpAddr,
    /// The client's address as far as forwarding headers are trusted, else `source_ip`.
    pub remote_ip: IpAddr,
    /// The local address.
    pub destination_ip: IpAddr,
    /// The workload's own port, not the proxy's listener (rule 37).
    pub destination_port: u16,
    /// Server name of the TLS handshake.
    pub sni: Option<String>,
}

/// The headers of a request. A name may have several values (rule 45).
pub trait HeaderView {
    /// Calls `visit` with each value of the header of this lower-case name, in order, unjoined.
    fn each_value(&self, name: &str, visit: &mut dyn FnMut(&[u8]));
}

impl HeaderView for Vec<(String, String)> {
    fn each_value(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        for (key, value) in self {
            if key.eq_ignore_ascii_case(name) {
                visit(value.as_bytes());
            }
        }
    }
}

/// What RequestAuthentication established about a request; the default is: nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RequestIdentity {
    /// `iss/sub`; `None` without an accepted token (rule 53).
    pub principal: Option<String>,
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`, as a list.
    pub audiences: Vec<String>,
    /// `azp`.
    pub presenter: Option<String>,
    /// All claims, with space-delimited ones split (rule 51).
    pub claims: Option<Arc<Map<String, Value>>>,
    /// `jti`.
    pub jti: Option<String>,
    /// Headers to drop before forwarding, lower case: first these, then [`Self::set_headers`].
    pub remove_headers: Vec<String>,
    /// Headers to set before forwarding, replacing any of that name; names in lower case (rule 79).
    pub set_headers: Vec<(String, String)>,
    /// Query parameters to drop before forwarding: [`NormalizedPath::without_params`].
    pub remove_params: Vec<String>,
}

impl RequestIdentity {
    /// What policies see of these claims, as if a token with them had been accepted. For explanations and tests.
    pub fn of_claims(claims: Map<String, Value>) -> Self {
        crate::authenticate::identity_of_claims(claims, &[])
    }
}

/// One HTTP request.
#[derive(Clone, Copy)]
pub struct HttpCall<'a> {
    /// What it came on.
    pub connection: &'a Connection,
    /// The method as it came; compared by case (rule 39).
    pub method: &'a str,
    /// `:authority` or `Host`, with its port if it has one, in any case (rule 38).
    pub host: &'a str,
    /// The one path that is judged and forwarded.
    pub path: &'a NormalizedPath,
    /// Headers.
    pub headers: &'a dyn HeaderView,
    /// What its tokens say.
    pub identity: &'a RequestIdentity,
    /// When: policies may hold for a while only.
    pub now: Timestamp,
}

/// What is judged by one rule: HTTP, or a bare connection (rules 54 to 57).
#[derive(Clone, Copy)]
pub(crate) enum Call<'a> {
    Http(&'a HttpCall<'a>),
    Tcp(&'a Connection, Timestamp),
}

impl<'a> Call<'a> {
    pub(crate) fn connection(self) -> &'a Connection {
        match self {
            Self::Http(call) => call.connection,
            Self::Tcp(connection, _) => connection,
        }
    }

    pub(crate) fn now(self) -> Timestamp {
        match self {
            Self::Http(call) => call.now,
            Self::Tcp(_, now) => now,
        }
    }
}
