//! From HTTP/2 to HTTP/1.1: what is harmless in a frame and frames a message in text (RFC 9113 sections 8.2 and 10.3).

use super::canary;
use crate::ground::{Ground, PATIENCE};
use crate::wire::*;

/// One request of a peer: the pseudo header fields that differ, further fields, DATA, and what the application may see.
struct Row {
    name: &'static str,
    pseudo: &'static [(&'static str, &'static [u8])],
    fields: &'static [(&'static [u8], &'static [u8])],
    data: Option<&'static [u8]>,
    trailers: &'static [(&'static [u8], &'static [u8])],
    want: &'static [&'static str],
}

const ROW: Row = Row {
    name: "",
    pseudo: &[],
    fields: &[],
    data: None,
    trailers: &[],
    want: &[],
};

const READ: &[&str] = &["GET /t|"];
const POST: (&str, &[u8]) = (":method", b"POST");

const fn pseudo(
    name: &'static str,
    pseudo: &'static [(&'static str, &'static [u8])],
    want: &'static [&'static str],
) -> Row {
    Row {
        name,
        pseudo,
        want,
        ..ROW
    }
}

const fn fields(
    name: &'static str,
    fields: &'static [(&'static [u8], &'static [u8])],
    want: &'static [&'static str],
) -> Row {
    Row {
        name,
        fields,
        want,
        ..ROW
    }
}

const fn body(
    name: &'static str,
    fields: &'static [(&'static [u8], &'static [u8])],
    data: &'static [u8],
    want: &'static [&'static str],
) -> Row {
    Row {
        name,
        pseudo: &[POST],
        fields,
        data: Some(data),
        want,
        ..ROW
    }
}

const fn trailers(
    name: &'static str,
    trailers: &'static [(&'static [u8], &'static [u8])],
    want: &'static [&'static str],
) -> Row {
    Row {
        name,
        pseudo: &[POST],
        data: Some(b"body"),
        trailers,
        want,
        ..ROW
    }
}

const ROWS: &[Row] = &[
    fields("a field", &[(b"x-a", b"b")], READ),
    fields("CR LF in a value", &[(b"x-a", b"b\r\nevil: 1")], &[]),
    fields(
        "a request in a value",
        &[(
            b"x-a",
            b"b\r\n\r\nGET /evil HTTP/1.1\r\nhost: inventory.shop\r\n\r\n",
        )],
        &[],
    ),
    fields("LF in a value", &[(b"x-a", b"b\ncontent-length: 5")], &[]),
    fields("CR in a value", &[(b"x-a", b"b\rc")], &[]),
    fields("NUL in a value", &[(b"x-a", b"b\0c")], &[]),
    fields("a delete in a value", &[(b"x-a", b"b\x7fc")], &[]),
    fields("a colon in a name", &[(b"x-a: b\r\nc", b"d")], &[]),
    fields("a colon first in a name", &[(b":x-a", b"b")], &[]),
    fields("a colon last in a name", &[(b"x-a:", b"b")], &[]),
    fields("a space in a name", &[(b"x a", b"b")], &[]),
    fields("CR LF in a name", &[(b"x-a\r\ny-a", b"b")], &[]),
    fields("NUL in a name", &[(b"x\0a", b"b")], &[]),
    fields("an empty name", &[(b"", b"b")], &[]),
    fields("a name in upper case", &[(b"X-A", b"b")], &[]),
    fields("bytes beyond ASCII in a name", &[(b"x-\xff", b"b")], &[]),
    fields("a length in upper case", &[(b"Content-Length", b"4")], &[]),
    fields("a coding", &[(b"transfer-encoding", b"chunked")], &[]),
    fields(
        "a coding in upper case",
        &[(b"Transfer-Encoding", b"chunked")],
        &[],
    ),
    fields(
        "a coding with underscore",
        &[(b"transfer_encoding", b"chunked")],
        &[],
    ),
    fields(
        "a length with underscore",
        &[(b"content_length", b"4")],
        &[],
    ),
    fields("connection", &[(b"connection", b"close")], &[]),
    fields("keep-alive", &[(b"keep-alive", b"1")], &[]),
    fields("proxy-connection", &[(b"proxy-connection", b"close")], &[]),
    fields("upgrade", &[(b"upgrade", b"h2c")], &[]),
    fields("TE: trailers", &[(b"te", b"trailers")], READ),
    fields("TE of another coding", &[(b"te", b"chunked")], &[]),
    fields(
        "a host beside the authority, the same",
        &[(b"host", b"inventory.shop")],
        READ,
    ),
    fields(
        "a host beside the authority, another",
        &[(b"host", b"evil.shop")],
        &[],
    ),
    fields(
        "two hosts",
        &[(b"host", b"inventory.shop"), (b"host", b"inventory.shop")],
        &[],
    ),
    fields(
        "an override of the method",
        &[(b"x-http-method-override", b"DELETE")],
        &[],
    ),
    fields(
        "an expectation that nobody knows",
        &[(b"expect", b"200-ok")],
        &[],
    ),
    pseudo("a request", &[], READ),
    pseudo("an unknown scheme", &[(":scheme", b"ftp")], &[]),
    pseudo("CR LF in the scheme", &[(":scheme", b"http\r\nx: y")], &[]),
    pseudo(
        "a URL as scheme",
        &[(":scheme", b"http://evil.shop/?")],
        &[],
    ),
    pseudo("a space in the path", &[(":path", b"/t HTTP/1.1")], &[]),
    pseudo(
        "a request in the path",
        &[(
            ":path",
            b"/t HTTP/1.1\r\nhost: inventory.shop\r\n\r\nGET /evil",
        )],
        &[],
    ),
    pseudo("NUL in the path", &[(":path", b"/t\0")], &[]),
    pseudo("a tab in the path", &[(":path", b"/t\tx")], &[]),
    pseudo("a path without slash", &[(":path", b"t")], &[]),
    pseudo("a URL as path", &[(":path", b"http://evil.shop/t")], &[]),
    pseudo("an asterisk as path", &[(":path", b"*")], &[]),
    pseudo(
        "a second path",
        &[(":path", b"/t"), (":path", b"/evil")],
        &[],
    ),
    pseudo(
        "a method with CR LF",
        &[(
            ":method",
            b"GET /evil HTTP/1.1\r\nhost: inventory.shop\r\n\r\nGET",
        )],
        &[],
    ),
    pseudo("a method with a space", &[(":method", b"GET /evil")], &[]),
    pseudo("a method in lower case", &[(":method", b"get")], &[]),
    pseudo("an empty method", &[(":method", b"")], &[]),
    pseudo(
        "a second method",
        &[(":method", b"GET"), (":method", b"POST")],
        &[],
    ),
    pseudo("CONNECT", &[(":method", b"CONNECT")], &[]),
    pseudo("TRACE", &[(":method", b"TRACE")], &[]),
    pseudo(
        "an authority with a user",
        &[(":authority", b"a@inventory.shop")],
        &[],
    ),
    pseudo(
        "an authority with CR LF",
        &[(":authority", b"inventory.shop\r\nx: y")],
        &[],
    ),
    pseudo(
        "an authority with a space",
        &[(":authority", b"inventory.shop evil")],
        &[],
    ),
    pseudo(
        "an authority with a path",
        &[(":authority", b"inventory.shop/evil")],
        &[],
    ),
    pseudo("an empty authority", &[(":authority", b"")], &[]),
    pseudo(
        "a second authority",
        &[
            (":authority", b"inventory.shop"),
            (":authority", b"evil.shop"),
        ],
        &[],
    ),
    pseudo(
        "a protocol without CONNECT",
        &[(":protocol", b"websocket")],
        &[],
    ),
    pseudo("a status", &[(":status", b"200")], &[]),
    body("a body", &[], b"body", &["POST /t|body"]),
    body(
        "a body that reads like a request",
        &[],
        b"0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n",
        &["POST /t|0\\r\\n\\r\\nGET /evil HTTP/1.1\\r\\n\\r\\n"],
    ),
    body(
        "a body with its length",
        &[(b"content-length", b"4")],
        b"body",
        &["POST /t|body"],
    ),
    body(
        "a length that is too small",
        &[(b"content-length", b"3")],
        b"body",
        &[],
    ),
    body(
        "a length that is too large",
        &[(b"content-length", b"5")],
        b"body",
        &[],
    ),
    body(
        "a length of nothing",
        &[(b"content-length", b"0")],
        b"body",
        &[],
    ),
    body(
        "a length with a sign",
        &[(b"content-length", b"+4")],
        b"body",
        &[],
    ),
    body(
        "a list of lengths",
        &[(b"content-length", b"4, 4")],
        b"body",
        &[],
    ),
    body("an empty length", &[(b"content-length", b"")], b"body", &[]),
    body(
        "two lengths",
        &[(b"content-length", b"4"), (b"content-length", b"5")],
        b"body",
        &[],
    ),
    body(
        "a length beyond 64 bits",
        &[(b"content-length", b"18446744073709551620")],
        b"body",
        &[],
    ),
    fields("a length without body", &[(b"content-length", b"4")], &[]),
    trailers("trailers", &[(b"x-a", b"b")], &["POST /t|body"]),
    trailers(
        "trailers that frame",
        &[(b"content-length", b"9"), (b"host", b"evil.shop")],
        &["POST /t|body"],
    ),
    trailers(
        "trailers that speak for a proxy",
        &[(b"x-forwarded-client-cert", b"forged")],
        &["POST /t|body"],
    ),
    trailers("trailers with CR LF", &[(b"x-a", b"b\r\nevil: 1")], &[]),
    trailers(
        "trailers with a coding",
        &[(b"transfer-encoding", b"chunked")],
        &[],
    ),
];

fn bytes_of(row: &Row) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "inventory.shop"),
        (":path", "/t"),
    ] {
        if row.pseudo.iter().all(|(known, _)| *known != name) {
            block.extend(field(name, value));
        }
    }
    for (name, value) in row.pseudo {
        block.extend(field(name, value));
    }
    for (name, value) in row.fields {
        block.extend(field(name, value));
    }
    let flags = if row.data.is_some() {
        END_HEADERS
    } else {
        WHOLE
    };
    let mut bytes = frame(HEADERS, flags, 1, &block);
    if let Some(data) = row.data {
        let flags = if row.trailers.is_empty() {
            END_STREAM
        } else {
            0
        };
        bytes.extend(frame(DATA, flags, 1, data));
    }
    if !row.trailers.is_empty() {
        let block: Vec<u8> = row
            .trailers
            .iter()
            .flat_map(|(name, value)| field(name, value))
            .collect();
        bytes.extend(frame(HEADERS, WHOLE, 1, &block));
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_nothing_in_http2_becomes_another_request_in_http1() {
    let mut ground = Ground::start().await;
    let tls = ground.tls("orders", &[b"h2"]);
    let mut wrong = Vec::new();
    for is_inbound in [true, false] {
        for row in ROWS {
            ground.recorder.clear();
            let mut wire = if is_inbound {
                Wire::open(ground.dial(&tls).await).await
            } else {
                Wire::open(ground.dial_application().await).await
            };
            wire.send(&bytes_of(row)).await;
            let is_done = |frame: &Frame| {
                matches!(frame.kind, GOAWAY | RST_STREAM)
                    || (frame.stream == 1 && frame.kind <= HEADERS && frame.flags & END_STREAM != 0)
            };
            let ended = wire.until(PATIENCE, is_done).await;
            let seen = ground.recorder.lines();
            let is_answered = wire.status(1) == Some(200);
            if ended.is_none() || seen != row.want || is_answered == row.want.is_empty() {
                wrong.push(format!(
                    "inbound {is_inbound} {}: want {:?}, seen {seen:?}, status {:?}",
                    row.name,
                    row.want,
                    wire.status(1)
                ));
            }
            if let Some(what) = canary(&ground).await {
                wrong.push(format!("inbound {is_inbound} {}: then {what}", row.name));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(ground.recorder.faults(), [""; 0]);
    ground.assert_alive();
}
