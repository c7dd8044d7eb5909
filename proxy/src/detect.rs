//! What a client speaks, told by its first bytes. Pure: the caller peeks, waits and keeps the deadline.
//!
//! For a listener whose protocol nobody declared. A silent client speaks none of these: its server speaks first.
//! INVARIANT: an answer other than [`Detected::NeedMore`] does not change when more bytes arrive.
//! RFC 9112 section 3 (request line), RFC 9113 section 3.4 (preface), RFC 8446 section 4.1.2, RFC 6066 section 3 (SNI).

use crate::limits;

/// What an HTTP/2 client sends first.
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// First byte of a TLS record that carries a handshake.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// Longest method of a request line; the longest registered one has 17 letters.
const METHOD_BYTES_MAX: usize = 32;
/// First byte of a ClientHello.
const CLIENT_HELLO: u8 = 1;
/// Number of the extension `server_name`, and of a host name in it.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the first bytes of a connection say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detected {
    /// A request line of HTTP/1.
    Http1,
    /// The preface of HTTP/2, in plain text (prior knowledge).
    Http2,
    /// A TLS handshake.
    Tls {
        /// The server name, lower case. None where the client names none, or not exactly one DNS name.
        sni: Option<String>,
    },
    /// Something else: bytes that are to be carried and never read.
    Opaque,
    /// Not enough to tell.
    NeedMore,
}

/// Tells what begins with `prefix`. Looks at no more than [`limits::DETECTED_BYTES_MAX`] bytes.
pub fn detect(prefix: &[u8]) -> Detected {
    let seen = prefix.get(..limits::DETECTED_BYTES_MAX).unwrap_or(prefix);
    let is_last = seen.len() == limits::DETECTED_BYTES_MAX;
    match seen.first() {
        None => Detected::NeedMore,
        Some(&TLS_HANDSHAKE) => tls(seen, is_last),
        Some(_) if seen.starts_with(HTTP2_PREFACE) => Detected::Http2,
        Some(_) if HTTP2_PREFACE.starts_with(seen) => Detected::NeedMore,
        Some(_) => http1(seen, is_last),
    }
}

/// `METHOD SP TARGET SP HTTP/1.x CR LF`. Text protocols that begin with a word show themselves by the end of the line.
fn http1(seen: &[u8], is_last: bool) -> Detected {
    let (line, is_ended) = match seen.iter().position(|byte| *byte == b'\n') {
        Some(end) => (seen.get(..end).unwrap_or_default(), true),
        None => (seen, false),
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let is_method = !method.is_empty()
        && method.len() <= METHOD_BYTES_MAX
        && method.iter().all(|byte| is_token(*byte));
    if !is_method {
        return Detected::Opaque;
    }
    let (Some(target), version) = (words.next(), words.next()) else {
        return unfinished(is_ended);
    };
    let is_target = target.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    if !is_target || (target.is_empty() && (is_ended || version.is_some())) {
        return Detected::Opaque;
    }
    match version {
        Some(version) if is_ended && is_version(version) => Detected::Http1,
        Some(version) if !is_ended && b"HTTP/1.".starts_with(version) => Detected::NeedMore,
        Some(version) if !is_ended && is_version(version) => Detected::NeedMore,
        // WHY: a target beyond every limit is HTTP as well: the server tells its client so (414).
        None if is_last => Detected::Http1,
        None => unfinished(is_ended),
        Some(_) => Detected::Opaque,
    }
}

fn unfinished(is_ended: bool) -> Detected {
    if is_ended {
        Detected::Opaque
    } else {
        Detected::NeedMore
    }
}

fn is_version(version: &[u8]) -> bool {
    matches!(version, [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit())
}

/// `tchar` of RFC 9110 section 5.6.2: also methods that no server here accepts are methods.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A ClientHello, which may be cut into several records.
fn tls(seen: &[u8], is_last: bool) -> Detected {
    match hello(seen) {
        Ok(message) => match server_name(&message) {
            Ok(sni) => Detected::Tls { sni },
            Err(Malformed) => Detected::Opaque,
        },
        Err(Unread::Malformed) => Detected::Opaque,
        Err(Unread::Short) if is_last => Detected::Tls { sni: None },
        Err(Unread::Short) => Detected::NeedMore,
    }
}

/// Why there is no handshake message (yet).
enum Unread {
    Malformed,
    Short,
}

/// Bytes that are no ClientHello.
struct Malformed;

/// The first handshake message without its type and length.
fn hello(seen: &[u8]) -> Result<Vec<u8>, Unread> {
    let mut records = Reader(seen);
    let mut message = Vec::new();
    loop {
        let fragment = record(&mut records, &message)?;
        message.extend_from_slice(fragment);
        let mut start = Reader(&message);
        let Some(header) = start.take(4) else {
            continue;
        };
        let length = header
            .get(1..)
            .unwrap_or_default()
            .iter()
            .fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        if length > limits::DETECTED_BYTES_MAX {
            return Err(Unread::Short);
        }
        if let Some(body) = start.take(length) {
            return Ok(body.to_vec());
        }
    }
}

/// The payload of the next record. What has come of an unfinished one is looked at as well, so that other protocols
/// with the same first byte are found out early.
fn record<'a>(records: &mut Reader<'a>, message: &[u8]) -> Result<&'a [u8], Unread> {
    const FRAGMENT_BYTES_MAX: u16 = 16 * 1024;
    let kind = records.byte().ok_or(Unread::Short)?;
    let major = records.byte().ok_or(Unread::Short)?;
    if kind != TLS_HANDSHAKE || major != 3 {
        return Err(Unread::Malformed);
    }
    let minor = records.byte().ok_or(Unread::Short)?;
    let length = records.u16().ok_or(Unread::Short)?;
    if minor > 4 || length == 0 || length > FRAGMENT_BYTES_MAX {
        return Err(Unread::Malformed);
    }
    let first = message.first().or_else(|| records.0.first());
    if first.is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(Unread::Malformed);
    }
    records.take(usize::from(length)).ok_or(Unread::Short)
}

/// The name in the extension `server_name`.
fn server_name(hello: &[u8]) -> Result<Option<String>, Malformed> {
    let mut reader = Reader(hello);
    let mut skip = |length: usize| reader.take(length).map(drop).ok_or(Malformed);
    skip(2 + 32)?;
    reader.short_vector().ok_or(Malformed)?;
    reader.vector().ok_or(Malformed)?;
    reader.short_vector().ok_or(Malformed)?;
    if reader.0.is_empty() {
        return Ok(None);
    }
    let mut extensions = Reader(reader.vector().ok_or(Malformed)?);
    if !reader.0.is_empty() {
        return Err(Malformed);
    }
    let mut names = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.u16().ok_or(Malformed)?;
        let content = extensions.vector().ok_or(Malformed)?;
        if kind == SERVER_NAME {
            names.push(content);
        }
    }
    match names.as_slice() {
        [] => Ok(None),
        [content] => Ok(host_name(content)),
        [_, _, ..] => Err(Malformed),
    }
}

/// Exactly one host name that is a DNS name; none otherwise.
fn host_name(content: &[u8]) -> Option<String> {
    let mut content = Reader(content);
    let mut list = Reader(content.vector()?);
    let kind = list.byte()?;
    let name = list.vector()?;
    let is_alone = kind == HOST_NAME && list.0.is_empty() && content.0.is_empty();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = std::str::from_utf8(name).ok()?;
    let is_name = name.len() <= limits::HOST_BYTES_MAX && name.split('.').all(is_label);
    (is_alone && is_name).then(|| name.to_ascii_lowercase())
}

/// Takes bytes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        bytes.try_into().ok().map(u16::from_be_bytes)
    }

    /// Bytes with a length of one byte before them.
    fn short_vector(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        self.take(usize::from(length))
    }

    /// Bytes with a length of two bytes before them.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A handshake message in records of at most `cut` bytes.
    fn records(message: &[u8], cut: usize) -> Vec<u8> {
        message
            .chunks(cut)
            .flat_map(|part| {
                let length = u16::try_from(part.len()).unwrap().to_be_bytes();
                [&[TLS_HANDSHAKE, 3, 1], &length[..], part].concat()
            })
            .collect()
    }

    fn vector(content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&length[..], content].concat()
    }

    fn name_extension(names: &[&[u8]]) -> Vec<u8> {
        let entries: Vec<u8> = names
            .iter()
            .flat_map(|name| [&[HOST_NAME][..], &vector(name)].concat())
            .collect();
        [&[0, 0][..], &vector(&vector(&entries))].concat()
    }

    /// A ClientHello with these extensions.
    fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        let body = [
            &[3, 3][..],
            &[7; 32],
            &[0],
            &vector(&[0x13, 0x01]),
            &[1, 0],
            &vector(&extensions.concat()),
        ]
        .concat();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[CLIENT_HELLO], &length[1..], &body].concat()
    }

    fn named(name: &str) -> Vec<u8> {
        let groups = vec![0, 10, 0, 2, 0, 0];
        records(
            &hello(&[groups, name_extension(&[name.as_bytes()])]),
            1 << 14,
        )
    }

    fn sni(name: &str) -> Detected {
        Detected::Tls {
            sni: Some(name.to_owned()),
        }
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "one table")]
    fn the_first_bytes_tell_what_is_spoken() {
        use Detected::{Http1, Http2, NeedMore, Opaque};
        let no_name = || Detected::Tls { sni: None };
        let long = [b"GET /".as_slice(), &[b'a'; limits::DETECTED_BYTES_MAX]].concat();
        let cut_in_many = records(&hello(&[name_extension(&[b"db.example"])]), 3);
        let two_names = records(
            &hello(&[name_extension(&[b"a.example", b"b.example"])]),
            999,
        );
        let two_extensions = [
            name_extension(&[b"a.example"]),
            name_extension(&[b"b.example"]),
        ];
        let huge = records(
            &[&[CLIENT_HELLO, 0xff, 0, 0][..], &[0; 1 << 14]].concat(),
            1 << 14,
        );
        let rows: Vec<(&str, Vec<u8>, Detected)> = vec![
            ("nothing", vec![], NeedMore),
            ("a call", b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec(), Http1),
            ("a version of old", b"GET / HTTP/1.0\n".to_vec(), Http1),
            (
                "absolute form",
                b"POST http://a/b HTTP/1.1\r\n".to_vec(),
                Http1,
            ),
            ("a tunnel", b"CONNECT a:1 HTTP/1.1\r\n".to_vec(), Http1),
            (
                "a method in small letters",
                b"get / HTTP/1.1\r\n".to_vec(),
                Http1,
            ),
            ("half a line", b"GET / HTTP/1.".to_vec(), NeedMore),
            (
                "a line without its end",
                b"GET / HTTP/1.1".to_vec(),
                NeedMore,
            ),
            ("a method", b"DELETE".to_vec(), NeedMore),
            ("a target without end", long, Http1),
            ("no version", b"GET /\r\n".to_vec(), Opaque),
            ("another version", b"GET / HTTP/3.0\r\n".to_vec(), Opaque),
            ("four words", b"GET / x HTTP/1.1\r\n".to_vec(), Opaque),
            (
                "an empty line first",
                b"\r\nGET / HTTP/1.1\r\n".to_vec(),
                Opaque,
            ),
            ("a method beyond all", vec![b'A'; 33], Opaque),
            ("redis, inline", b"SET key value\r\n".to_vec(), Opaque),
            ("redis", b"*1\r\n$4\r\nPING\r\n".to_vec(), Opaque),
            ("postgres", b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec(), Opaque),
            ("mail", b"EHLO me\r\n".to_vec(), Opaque),
            ("ssh", b"SSH-2.0-OpenSSH_9\r\n".to_vec(), Opaque),
            ("http/2", HTTP2_PREFACE.to_vec(), Http2),
            (
                "http/2 and frames",
                [HTTP2_PREFACE, b"\0\0\0\x04"].concat(),
                Http2,
            ),
            ("half a preface", HTTP2_PREFACE[..20].to_vec(), NeedMore),
            (
                "a broken preface",
                b"PRI * HTTP/2.0\r\n\r\nXX".to_vec(),
                Opaque,
            ),
            ("tls", named("db.example"), sni("db.example")),
            ("tls, big letters", named("DB.Example"), sni("db.example")),
            ("tls in many records", cut_in_many, sni("db.example")),
            ("tls without a name", records(&hello(&[]), 999), no_name()),
            ("tls and an address", named("10.0.0.1"), sni("10.0.0.1")),
            ("tls and no DNS name", named("a b"), no_name()),
            ("tls and an empty label", named("a..b"), no_name()),
            ("tls and two names", two_names, no_name()),
            (
                "tls, named twice",
                records(&hello(&two_extensions), 999),
                Opaque,
            ),
            ("tls, too long to read", huge, no_name()),
            ("one byte of tls", vec![TLS_HANDSHAKE], NeedMore),
            ("tls of no version", vec![TLS_HANDSHAKE, 9], Opaque),
            (
                "tls, another message",
                vec![TLS_HANDSHAKE, 3, 1, 0, 4, 2],
                Opaque,
            ),
        ];
        for (name, bytes, want) in rows {
            assert_eq!(detect(&bytes), want, "{name}");
        }
    }

    #[test]
    fn a_hello_of_a_real_client_names_its_server() {
        ravelin_runtime::crypto::install();
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = "orders.shop.example".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        assert_eq!(detect(&bytes), sni("orders.shop.example"));
        assert_eq!(detect(&bytes[..bytes.len() - 1]), Detected::NeedMore);
    }

    /// Bytes that look like the beginning of something.
    fn beginnings() -> impl Strategy<Value = Vec<u8>> {
        let seed = prop_oneof![
            Just(HTTP2_PREFACE.to_vec()),
            Just(b"GET /items HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
            Just(named("db.example")),
            Just(records(&hello(&[name_extension(&[b"db.example"])]), 7)),
            proptest::collection::vec(any::<u8>(), 0..64),
        ];
        let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
        (seed, changes).prop_map(|(mut bytes, changes)| {
            for (at, value) in changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = value;
                }
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn an_answer_never_changes_when_more_bytes_arrive(
            bytes in beginnings(),
            more in proptest::collection::vec(any::<u8>(), 0..32),
        ) {
            let bytes = [bytes, more].concat();
            let mut answer = Detected::NeedMore;
            for end in 0..=bytes.len() {
                let next = detect(&bytes[..end]);
                prop_assert!(answer == Detected::NeedMore || answer == next, "{answer:?} became {next:?}");
                answer = next;
            }
        }
    }
}
