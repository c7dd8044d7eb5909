//! A request to leave HTTP: what is asked for, in one form for HTTP/1.1 and HTTP/2, and what answers it.
//!
//! Pure. Behind [`take`] an upgrade is a GET with one `upgrade` field, which is what policy judges and what each hop
//! writes in its own form. RFC 9110 section 7.8, RFC 6455, RFC 8441 (extended CONNECT).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Version};
use hyper::ext::Protocol;

use crate::head::HeadRefusal;

const KEY: HeaderName = header::SEC_WEBSOCKET_KEY;
const ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;
const WEBSOCKET: &str = "websocket";
/// What a server appends to the key (RFC 6455 section 1.3).
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Takes the wish for another protocol out of a head as it came in, and gives an extended CONNECT the form of a GET.
///
/// `Upgrade: h2c` is no wish: it is passed over, as RFC 9110 section 7.8 allows, and the call stays in HTTP. Anything
/// else that is not exactly one protocol, which policy can see, is refused.
pub fn take(head: &mut Parts) -> Result<Option<HeaderValue>, HeadRefusal> {
    let protocol = head.extensions.remove::<Protocol>();
    if let Some(protocol) = protocol {
        if head.method != Method::CONNECT || head.headers.contains_key(header::UPGRADE) {
            return Err(HeadRefusal::Upgrade);
        }
        head.method = Method::GET;
        head.headers.remove(header::CONTENT_LENGTH);
        return token(protocol.as_ref()).map(Some);
    }
    if head.version >= Version::HTTP_2 {
        return Ok(None);
    }
    let mut fields = head.headers.get_all(header::UPGRADE).iter();
    let Some(first) = fields.next() else {
        return Ok(None);
    };
    if fields.next().is_some() {
        return Err(HeadRefusal::Upgrade);
    }
    if first.as_bytes().trim_ascii().eq_ignore_ascii_case(b"h2c") {
        return Ok(None);
    }
    let token = token(first.as_bytes())?;
    let has_body = head.headers.contains_key(header::TRANSFER_ENCODING)
        || head
            .headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
    let is_fit = head.version == Version::HTTP_11
        && head.method == Method::GET
        && !has_body
        && is_named_by_connection(&head.headers);
    if !is_fit {
        return Err(HeadRefusal::Upgrade);
    }
    head.headers.remove(header::CONTENT_LENGTH);
    Ok(Some(token))
}

/// One protocol name, lower case. None of those by which a hop would change its own version of HTTP.
fn token(bytes: &[u8]) -> Result<HeaderValue, HeadRefusal> {
    let is_token_byte =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(byte);
    let bytes = bytes.trim_ascii();
    let lower = bytes.to_ascii_lowercase();
    let is_version_of_http = [b"h2".as_slice(), b"h2c", b"h3"].contains(&lower.as_slice())
        || lower.starts_with(b"http/")
        || lower.starts_with(b"tls/");
    if lower.is_empty() || is_version_of_http || !lower.iter().all(is_token_byte) {
        return Err(HeadRefusal::Upgrade);
    }
    HeaderValue::from_bytes(&lower).map_err(|_| HeadRefusal::Upgrade)
}

fn is_named_by_connection(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// The protocol that a checked head asks for.
///
/// INVARIANT: the checks of a head leave an `upgrade` field there only where [`take`] found one.
pub fn asked(head: &Parts) -> Option<&HeaderValue> {
    head.headers.get(header::UPGRADE)
}

/// Gives a head that is sent over HTTP/1.1 its `Connection`, and a key where the caller's HTTP/2 needed none.
pub fn to_http1(headers: &mut HeaderMap, fresh_key: impl FnOnce() -> [u8; 16]) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let is_websocket = headers
        .get(header::UPGRADE)
        .is_some_and(|token| token == WEBSOCKET);
    if is_websocket
        && !headers.contains_key(KEY)
        && let Ok(key) = HeaderValue::from_str(&STANDARD.encode(fresh_key()))
    {
        headers.insert(KEY, key);
    }
}

/// Takes the protocol out of a head that is sent as an extended CONNECT.
pub fn to_connect(headers: &mut HeaderMap) -> Option<Protocol> {
    let token = headers.remove(header::UPGRADE)?;
    token.to_str().ok().map(Protocol::from)
}

/// True where the answer of an HTTP/1.1 server changes to the protocol that was asked for, and to no other.
pub fn is_granted(asked: &HeaderValue, answer: &HeaderMap) -> bool {
    let mut fields = answer.get_all(header::UPGRADE).iter();
    match (fields.next(), fields.next()) {
        (Some(granted), None) => granted.as_bytes().eq_ignore_ascii_case(asked.as_bytes()),
        (Some(_) | None, _) => false,
    }
}

/// Completes the answer's `Sec-WebSocket-Accept`: a caller over HTTP/1.1 that sent a key gets one, also from a server
/// that speaks HTTP/2 and gives none; a caller without a key gets none.
pub fn complete_accept(asked: &HeaderValue, key: Option<&HeaderValue>, answer: &mut HeaderMap) {
    if asked != WEBSOCKET {
        return;
    }
    match key {
        None => {
            answer.remove(ACCEPT);
        }
        Some(key) if !answer.contains_key(ACCEPT) => {
            let text = [key.as_bytes(), ACCEPT_SUFFIX.as_bytes()].concat();
            let digest = ravelin_runtime::crypto::digest_sha1_for_websocket(&text);
            if let Ok(accept) = HeaderValue::from_str(&STANDARD.encode(digest)) {
                answer.insert(ACCEPT, accept);
            }
        }
        Some(_) => {}
    }
}

/// The key that a caller sent.
pub fn key(head: &Parts) -> Option<HeaderValue> {
    head.headers.get(KEY).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    type Row<'a> = (
        &'a str,
        Version,
        &'a str,
        &'a [(&'a str, &'a str)],
        Result<Option<&'a str>, HeadRefusal>,
    );

    fn head(version: Version, method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder()
            .method(method)
            .uri("/chat")
            .version(version);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "one table")]
    fn threat_54_an_upgrade_is_a_get_for_exactly_one_protocol_and_without_a_body() {
        let up = ("connection", "Upgrade");
        let ws = ("upgrade", "websocket");
        let (v11, refused) = (Version::HTTP_11, Err(HeadRefusal::Upgrade));
        let rows: [Row<'_>; 18] = [
            ("none", v11, "GET", &[], Ok(None)),
            ("websocket", v11, "GET", &[up, ws], Ok(Some("websocket"))),
            (
                "capitals",
                v11,
                "GET",
                &[
                    ("connection", "keep-alive, UPGRADE"),
                    ("upgrade", "WebSocket"),
                ],
                Ok(Some("websocket")),
            ),
            (
                "another",
                v11,
                "GET",
                &[up, ("upgrade", "foo/2")],
                Ok(Some("foo/2")),
            ),
            (
                "an empty body",
                v11,
                "GET",
                &[up, ws, ("content-length", "0")],
                Ok(Some("websocket")),
            ),
            (
                "h2c is passed over",
                v11,
                "GET",
                &[up, ("upgrade", "h2c")],
                Ok(None),
            ),
            (
                "h2c and another",
                v11,
                "GET",
                &[up, ("upgrade", "h2c, websocket")],
                refused,
            ),
            (
                "two",
                v11,
                "GET",
                &[up, ("upgrade", "websocket, foo")],
                refused,
            ),
            (
                "two fields",
                v11,
                "GET",
                &[up, ws, ("upgrade", "foo")],
                refused,
            ),
            ("tls", v11, "GET", &[up, ("upgrade", "TLS/1.0")], refused),
            (
                "a version of http",
                v11,
                "GET",
                &[up, ("upgrade", "HTTP/2.0")],
                refused,
            ),
            ("nothing named", v11, "GET", &[up, ("upgrade", "")], refused),
            ("not by connection", v11, "GET", &[ws], refused),
            (
                "a body",
                v11,
                "GET",
                &[up, ws, ("content-length", "3")],
                refused,
            ),
            (
                "chunks",
                v11,
                "GET",
                &[up, ws, ("transfer-encoding", "chunked")],
                refused,
            ),
            ("a post", v11, "POST", &[up, ws], refused),
            (
                "an old version",
                Version::HTTP_10,
                "GET",
                &[up, ws],
                refused,
            ),
            (
                "a field means nothing in http/2",
                Version::HTTP_2,
                "GET",
                &[ws],
                Ok(None),
            ),
        ];
        for (name, version, method, headers, want) in rows {
            let taken = take(&mut head(version, method, headers));
            let taken = taken.map(|token| token.map(|token| token.to_str().unwrap().to_owned()));
            assert_eq!(taken, want.map(|token| token.map(str::to_owned)), "{name}");
        }
    }

    #[test]
    fn an_extended_connect_is_judged_as_a_get() {
        let mut parts = head(Version::HTTP_2, "CONNECT", &[("content-length", "0")]);
        parts.extensions.insert(Protocol::from_static("WebSocket"));
        assert_eq!(take(&mut parts).unwrap().unwrap(), "websocket");
        assert_eq!(parts.method, Method::GET);
        assert!(parts.headers.is_empty());
        let mut parts = head(Version::HTTP_2, "CONNECT", &[]);
        parts.extensions.insert(Protocol::from_static("h2c"));
        assert_eq!(take(&mut parts), Err(HeadRefusal::Upgrade));
        assert_eq!(
            take(&mut head(Version::HTTP_2, "CONNECT", &[])),
            Ok(None),
            "a plain one stays what it is"
        );
    }

    #[test]
    fn an_accept_is_given_to_those_who_sent_a_key() {
        let (ws, key) = (
            HeaderValue::from_static("websocket"),
            HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="),
        );
        let mut answer = HeaderMap::new();
        complete_accept(&ws, Some(&key), &mut answer);
        // The example of RFC 6455 section 1.3.
        assert_eq!(answer[ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let own = HeaderValue::from_static("of the server");
        answer.insert(ACCEPT, own.clone());
        complete_accept(&ws, Some(&key), &mut answer);
        assert_eq!(answer[ACCEPT], own, "a server's own word stays");
        complete_accept(&ws, None, &mut answer);
        assert!(answer.is_empty());
    }

    #[test]
    fn only_the_protocol_that_was_asked_for_is_granted() {
        let asked = HeaderValue::from_static("websocket");
        let rows: [(&[&str], bool); 4] = [
            (&["WebSocket"], true),
            (&["h2c"], false),
            (&[], false),
            (&["websocket", "other"], false),
        ];
        for (fields, want) in rows {
            let mut answer = HeaderMap::new();
            for field in fields {
                answer.append(header::UPGRADE, HeaderValue::from_static(field));
            }
            assert_eq!(is_granted(&asked, &answer), want, "{fields:?}");
        }
    }
}
