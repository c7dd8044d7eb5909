//! Section 8 of the list: HTTP messages in HTTP/2, malformed ones above all (RFC 9113 section 8.1.1).

use super::{Case, Send, Step, Want, case};
use crate::wire::*;

const FOUR: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "inventory.shop"),
    (":path", "/m"),
];

/// The four pseudo header fields without `left_out`, then `more`.
fn head(left_out: &str, more: &[(&str, &str)]) -> Vec<Step> {
    let mut fields: Vec<(&str, &str)> = FOUR
        .into_iter()
        .filter(|(name, _)| *name != left_out)
        .collect();
    fields.extend_from_slice(more);
    vec![Send(frame(HEADERS, WHOLE, 1, &block(&fields)))]
}

fn with_length(length: &str, data: &[&[u8]]) -> Vec<Step> {
    let mut fields = FOUR.to_vec();
    fields[0].1 = "POST";
    fields.push(("content-length", length));
    let mut steps = vec![Send(frame(HEADERS, END_HEADERS, 1, &block(&fields)))];
    for (at, bytes) in data.iter().enumerate() {
        let flags = if at + 1 == data.len() { END_STREAM } else { 0 };
        steps.push(Send(frame(DATA, flags, 1, bytes)));
    }
    steps
}

pub fn cases() -> Vec<Case> {
    let trailers = |fields: &[(&str, &str)]| {
        vec![
            Send(post(1, "/m")),
            Send(frame(DATA, 0, 1, b"test")),
            Send(frame(HEADERS, WHOLE, 1, &block(fields))),
        ]
    };
    let mut regular_first = block(&[("x-test", "ok")]);
    regular_first.extend(block(&FOUR));
    let promise = [&[0, 0, 0, 2][..], &block(&FOUR)].concat();
    let second = vec![
        Send(post(1, "/m")),
        Send(frame(HEADERS, END_HEADERS, 1, &block(&[("x-test", "ok")]))),
    ];
    vec![
        case(
            "http2/8.1/1",
            "a second HEADERS frame without end",
            second,
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2/1",
            "a field name in upper case",
            head("", &[("X-Test", "ok")]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.1/1",
            "an unknown pseudo header field",
            head("", &[(":test", "ok")]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.1/2",
            "a pseudo header field of responses",
            head("", &[(":status", "200")]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.1/3",
            "a pseudo header field as trailer",
            trailers(&[(":method", "GET")]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.1/4",
            "a pseudo header field after a regular one",
            vec![Send(frame(HEADERS, WHOLE, 1, &regular_first))],
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.2/1",
            "a field of the connection",
            head("", &[("connection", "keep-alive")]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.2/2",
            "TE other than trailers",
            head("", &[("te", "trailers, deflate")]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.3/1",
            "an empty path",
            head(":path", &[(":path", "")]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.3/2",
            "no method",
            head(":method", &[]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.3/3",
            "no scheme",
            head(":scheme", &[]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.3/4",
            "no path",
            head(":path", &[]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.3/5",
            "two methods",
            head("", &[(":method", "GET")]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.3/6",
            "two schemes",
            head("", &[(":scheme", "https")]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.3/7",
            "two paths",
            head("", &[(":path", "/m")]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.6/1",
            "content-length against one DATA frame",
            with_length("1", &[b"test"]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.1.2.6/2",
            "content-length against many DATA frames",
            with_length("1", &[b"te", b"st"]),
            Want::Malformed(1),
        ),
        case(
            "http2/8.2/1",
            "PUSH_PROMISE of a client",
            vec![Send(frame(PUSH_PROMISE, END_HEADERS, 1, &promise))],
            Want::Connection(&[PROTOCOL]),
        ),
    ]
}
