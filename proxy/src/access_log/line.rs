//! One line of the access log. Pure: facts in, bytes out.
//!
//! INVARIANT (threat 38): every value that another party chose is escaped and bounded, so that a line is one JSON object, valid
//! UTF-8 without control characters, whatever hosts, paths, methods and headers were sent.

use std::net::SocketAddr;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Version};
use ravelin_proto::time::Timestamp;

use crate::decision_log::{CallRecord, ConnectionFacts};
use crate::limits;
use crate::metrics::cells::CallFigures;
use crate::metrics::flags::ResponseFlag;
use crate::metrics::labels::GrpcStatus;
use crate::trace::span::Side;

/// What the head of a call was as it came, and what became of the call.
#[derive(Debug)]
pub struct Seen {
    /// Which side of the call this is.
    pub side: Side,
    /// HTTP version of the caller.
    pub version: Version,
    /// Method as it came.
    pub method: Method,
    /// Target as it came.
    pub target: Option<PathAndQuery>,
    /// `user-agent`.
    pub user_agent: Option<HeaderValue>,
    /// `x-forwarded-for` as it came; nobody vouches for it.
    pub forwarded_for: Option<HeaderValue>,
    /// Code of the proxy's own answer; empty when the upstream answered.
    pub refusal: &'static str,
    /// Why the call was cut off.
    pub cut: Option<String>,
    /// From the head of the request to that of the upstream's response.
    pub head_after: Option<Duration>,
    /// Who answered.
    pub upstream: Option<SocketAddr>,
    /// Its identity, where it has one.
    pub peer: Option<std::rc::Rc<crate::identity::Peer>>,
    /// `host:port` of the service that was meant.
    pub service: Option<std::sync::Arc<crate::route::Route>>,
    /// gRPC, and how it ended.
    pub grpc: GrpcStatus,
    /// Trace id, where the call belongs to one.
    pub trace: Option<u128>,
}

/// A call that is over.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its record.
    pub record: &'a CallRecord,
    /// What was seen of it.
    pub seen: &'a Seen,
    /// Its numbers.
    pub figures: &'a CallFigures,
    /// Why it ended otherwise.
    pub flag: ResponseFlag,
}

impl Entry<'_> {
    /// True for what sampling may leave out.
    pub fn is_ordinary(&self) -> bool {
        self.record.status < 400 && self.record.status != 0 && self.flag == ResponseFlag::None
    }
}

/// A TCP connection that is over.
#[derive(Clone, Copy, Debug)]
pub struct TcpEntry<'a> {
    /// Which side.
    pub side: Side,
    /// Facts of the connection.
    pub connection: &'a ConnectionFacts,
    /// When it was opened.
    pub time: Timestamp,
    /// How long it lived.
    pub duration: Duration,
    /// Bytes from the caller.
    pub received: u64,
    /// Bytes to the caller.
    pub sent: u64,
    /// Why it ended otherwise.
    pub flag: ResponseFlag,
    /// Code of the decision or refusal.
    pub code: &'a str,
    /// Who took it.
    pub upstream: Option<SocketAddr>,
    /// `host:port` of the service that was meant; empty inbound.
    pub service: &'a str,
    /// SPIFFE ID of the other end; empty without one.
    pub peer: &'a str,
}

/// Formats lines; remembers the text of the present second.
#[derive(Debug)]
pub struct LineFormat {
    has_query: bool,
    second: i64,
    second_text: String,
}

impl LineFormat {
    /// `has_query`: write the query of paths.
    pub fn new(has_query: bool) -> Self {
        Self {
            has_query,
            second: i64::MIN,
            second_text: String::new(),
        }
    }

    /// Appends the line of a call.
    pub fn call(&mut self, out: &mut Vec<u8>, entry: &Entry<'_>) {
        let (record, seen) = (entry.record, entry.seen);
        let facts = &record.connection;
        self.start(out, record.time);
        text(out, "method", Some(seen.method.as_str().as_bytes()));
        let target = seen.target.as_ref().map(|target| {
            let shown = if self.has_query {
                target.as_str()
            } else {
                target.path()
            };
            shown.as_bytes()
        });
        text(out, "path", target);
        raw(out, "protocol", version(seen.version));
        number(out, "response_code", record.status.into());
        raw(out, "response_flags", entry.flag.as_str());
        let details = match (seen.refusal, record.verdict.code) {
            ("", "" | "allowed") => "via_upstream",
            ("", code) => code,
            (refusal, _) => refusal,
        };
        text(out, "response_code_details", Some(details.as_bytes()));
        text(
            out,
            "connection_termination_details",
            seen.cut.as_deref().map(str::as_bytes),
        );
        body(
            out,
            entry.figures.request_bytes,
            entry.figures.response_bytes,
            entry.figures.latency,
        );
        optional(out, "upstream_service_time", seen.head_after.map(millis));
        text(out, "x_forwarded_for", header(seen.forwarded_for.as_ref()));
        text(out, "user_agent", header(seen.user_agent.as_ref()));
        text(out, "request_id", Some(record.call_id.as_bytes()));
        text(out, "authority", header(record.host.as_ref()));
        let service = seen
            .service
            .as_ref()
            .map_or("", |route| route.service.as_str());
        ends(out, seen.side, facts, seen.upstream, service);
        let peer = seen
            .peer
            .as_ref()
            .map_or(facts.peer.as_str(), |peer| peer.id().as_str());
        text(out, "peer", some(peer));
        match seen.grpc {
            GrpcStatus::Code(code) => number(out, "grpc_status", code.into()),
            GrpcStatus::NotGrpc | GrpcStatus::Unknown => {}
        }
        if let Some(trace) = seen.trace {
            raw(out, "trace_id", &format!("{trace:032x}"));
        }
        finish(out);
    }

    /// Appends the line of a TCP connection.
    pub fn tcp(&mut self, out: &mut Vec<u8>, entry: &TcpEntry<'_>) {
        self.start(out, entry.time);
        raw(out, "protocol", "TCP");
        number(out, "response_code", 0);
        raw(out, "response_flags", entry.flag.as_str());
        text(out, "response_code_details", Some(entry.code.as_bytes()));
        body(out, entry.received, entry.sent, entry.duration);
        ends(
            out,
            entry.side,
            entry.connection,
            entry.upstream,
            entry.service,
        );
        text(out, "peer", some(entry.peer));
        finish(out);
    }

    fn start(&mut self, out: &mut Vec<u8>, time: Timestamp) {
        let second = time.unix_secs();
        if second != self.second {
            self.second = second;
            self.second_text = Timestamp::from_unix_secs(second).rfc3339();
        }
        out.extend_from_slice(b"{\"start_time\":\"");
        // WHY: the text of a whole second ends in `Z`; milliseconds go before it.
        let text = self.second_text.strip_suffix('Z').unwrap_or_default();
        out.extend_from_slice(text.as_bytes());
        out.push(b'.');
        let rest = u64::try_from(time.unix_millis().rem_euclid(1_000)).unwrap_or(0);
        for unit in [100, 10, 1] {
            out.push(digit(rest / unit % 10));
        }
        out.extend_from_slice(b"Z\"");
    }
}

fn ends(
    out: &mut Vec<u8>,
    side: Side,
    facts: &ConnectionFacts,
    upstream: Option<SocketAddr>,
    service: &str,
) {
    address(out, "upstream_host", upstream);
    let cluster = match (side, service) {
        (Side::Inbound, _) => format!("inbound|{}||", facts.port),
        (Side::Outbound, "") => String::new(),
        (Side::Outbound, service) => match service.rsplit_once(':') {
            Some((host, port)) => format!("outbound|{port}||{host}"),
            None => service.to_owned(),
        },
    };
    text(out, "upstream_cluster", some(&cluster));
    address(out, "downstream_local_address", facts.local);
    address(out, "downstream_remote_address", facts.source);
    text(out, "requested_server_name", some(&facts.sni));
    text(out, "route_name", some(service));
}

fn body(out: &mut Vec<u8>, received: u64, sent: u64, duration: Duration) {
    number(out, "bytes_received", received);
    number(out, "bytes_sent", sent);
    number(out, "duration", millis(duration));
}

fn finish(out: &mut Vec<u8>) {
    out.extend_from_slice(b"}\n");
}

fn some(text: &str) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text.as_bytes())
}

fn header(value: Option<&HeaderValue>) -> Option<&[u8]> {
    value.map(HeaderValue::as_bytes)
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A word of our own: nothing to escape.
fn raw(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    out.push(b'"');
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    decimal(out, value);
}

fn optional(out: &mut Vec<u8>, name: &str, value: Option<u64>) {
    key(out, name);
    match value {
        Some(value) => decimal(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

fn address(out: &mut Vec<u8>, name: &str, address: Option<SocketAddr>) {
    use std::io::Write as _;
    key(out, name);
    // WHY: writing to a Vec cannot fail.
    let _ = match address {
        Some(address) => write!(out, "\"{address}\""),
        None => out.write_all(b"null"),
    };
}

fn decimal(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20];
    let mut rest = value;
    let mut first = digits.len();
    for (index, place) in digits.iter_mut().enumerate().rev() {
        *place = digit(rest % 10);
        first = index;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}

fn digit(value: u64) -> u8 {
    b'0'.saturating_add(u8::try_from(value).unwrap_or(0))
}

/// A value of another party: escaped, in valid UTF-8, at most [`limits::ACCESS_LOG_FIELD_BYTES_MAX`] bytes of it.
fn text(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    key(out, name);
    let Some(value) = value else {
        out.extend_from_slice(b"null");
        return;
    };
    let is_cut = value.len() > limits::ACCESS_LOG_FIELD_BYTES_MAX;
    let value = value
        .get(..limits::ACCESS_LOG_FIELD_BYTES_MAX)
        .unwrap_or(value);
    out.push(b'"');
    let is_plain = |byte: &u8| (0x20..0x7f).contains(byte) && *byte != b'"' && *byte != b'\\';
    if value.iter().all(is_plain) {
        out.extend_from_slice(value);
    } else {
        String::from_utf8_lossy(value)
            .chars()
            .for_each(|letter| escaped(out, letter));
    }
    if is_cut {
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, letter: char) {
    let reorders = matches!(letter, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match letter {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        letter if letter.is_control() || reorders => {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(letter)).as_bytes());
        }
        letter => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests;
