//! Sections 3 to 5 and 7 of the list: preface, frame format and size, header blocks, stream states, extensions.

use super::{Answered, Case, Send, Want, case};
use crate::wire::*;

pub fn cases() -> Vec<Case> {
    let block = request("GET", "/s");
    let done = |then: Vec<u8>| vec![Send(get(1, "/s")), Answered(1), Send(then)];
    let aborted = |then: Vec<u8>| vec![Send(post(1, "/hang")), Send(reset(1, CANCEL)), Send(then)];
    let half = |then: Vec<u8>| vec![Send(get(1, "/hang")), Send(then)];
    let data = |stream, payload: &[u8]| frame(DATA, END_STREAM, stream, payload);
    let continuation = |stream| frame(CONTINUATION, END_HEADERS, stream, &field("x-a", "1"));
    let large = field("x-large", "a".repeat(17 * 1024));
    let mut self_dependent = vec![0, 0, 0, 1, 255];
    self_dependent.extend_from_slice(&block);
    let mut crowd = Vec::new();
    for number in 0..=256 {
        crowd.extend(post(number * 2 + 1, "/hang"));
    }
    vec![
        Case {
            is_opened: false,
            ..case(
                "http2/3.5/1",
                "the preface",
                vec![Send([PREFACE, &settings(&[])].concat())],
                Want::SettingsAck,
            )
        },
        Case {
            is_opened: false,
            ..case(
                "http2/3.5/2",
                "another preface",
                vec![Send(b"INVALID CONNECTION PREFACE\r\n\r\n".to_vec())],
                Want::Closed,
            )
        },
        case(
            "http2/4.1/1",
            "a frame of an unknown type",
            vec![Send(frame(0x16, 0, 0, b"12345678"))],
            Want::Ignored,
        ),
        case(
            "http2/4.1/2",
            "unknown flags",
            vec![Send(frame(PING, 0x16, 0, b"12345678"))],
            Want::Pong(*b"12345678"),
        ),
        case(
            "http2/4.1/3",
            "the reserved bit of the stream number",
            vec![Send(frame(PING, 0, 0x8000_0000, b"12345678"))],
            Want::Pong(*b"12345678"),
        ),
        case(
            "http2/4.2/1",
            "DATA of the largest size",
            vec![Send(post(1, "/s")), Send(data(1, &[b'a'; 16384]))],
            Want::Answer(1),
        ),
        case(
            "http2/4.2/2",
            "DATA beyond the largest size",
            vec![Send(post(1, "/s")), Send(data(1, &[b'a'; 16385]))],
            Want::Stream(1, &[FRAME_SIZE]),
        ),
        case(
            "http2/4.2/3",
            "HEADERS beyond the largest size",
            vec![Send(frame(
                HEADERS,
                WHOLE,
                1,
                &[&block[..], &large].concat(),
            ))],
            Want::Connection(&[FRAME_SIZE]),
        ),
        case(
            "http2/4.3/1",
            "a header block that cannot be decoded",
            vec![Send(frame(
                HEADERS,
                WHOLE,
                1,
                &[0x00, 0x00, 0x00, 0x00, 0x00],
            ))],
            Want::Connection(&[COMPRESSION, PROTOCOL]),
        ),
        case(
            "http2/4.3/2",
            "PRIORITY within a header block",
            vec![
                Send(frame(HEADERS, END_STREAM, 1, &block)),
                Send(priority(1, 0, 255)),
                Send(continuation(1)),
            ],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/4.3/3",
            "HEADERS of another stream within a header block",
            vec![
                Send(frame(HEADERS, END_STREAM, 1, &block)),
                Send(get(3, "/s")),
            ],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/5.1/1",
            "idle: DATA",
            vec![Send(data(1, b"test"))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/5.1/2",
            "idle: RST_STREAM",
            vec![Send(reset(1, CANCEL))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/5.1/3",
            "idle: WINDOW_UPDATE",
            vec![Send(window_update(1, 100))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/5.1/4",
            "idle: CONTINUATION",
            vec![Send(continuation(1))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/5.1/5",
            "half closed: DATA",
            half(data(1, b"test")),
            Want::Stream(1, &[STREAM_CLOSED]),
        ),
        case(
            "http2/5.1/6",
            "half closed: HEADERS",
            half(get(1, "/s")),
            Want::Stream(1, &[STREAM_CLOSED]),
        ),
        case(
            "http2/5.1/7",
            "half closed: CONTINUATION",
            half(continuation(1)),
            Want::Connection(&[STREAM_CLOSED, PROTOCOL]),
        ),
        case(
            "http2/5.1/8",
            "reset: DATA",
            aborted(data(1, b"test")),
            Want::Stream(1, &[STREAM_CLOSED]),
        ),
        case(
            "http2/5.1/9",
            "reset: HEADERS",
            aborted(get(1, "/s")),
            Want::Stream(1, &[STREAM_CLOSED]),
        ),
        case(
            "http2/5.1/10",
            "reset: CONTINUATION",
            aborted(continuation(1)),
            Want::Connection(&[STREAM_CLOSED, PROTOCOL]),
        ),
        case(
            "http2/5.1/11",
            "closed: DATA",
            done(data(1, b"test")),
            Want::Stream(1, &[STREAM_CLOSED]),
        ),
        case(
            "http2/5.1/12",
            "closed: HEADERS",
            done(get(1, "/s")),
            Want::Connection(&[STREAM_CLOSED]),
        ),
        case(
            "http2/5.1/13",
            "closed: CONTINUATION",
            done(continuation(1)),
            Want::Connection(&[STREAM_CLOSED, PROTOCOL]),
        ),
        case(
            "http2/5.1.1/1",
            "an even stream number",
            vec![Send(get(2, "/s"))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/5.1.1/2",
            "a smaller stream number",
            vec![Send(get(5, "/s")), Answered(5), Send(get(3, "/s"))],
            Want::Connection(&[PROTOCOL, STREAM_CLOSED]),
        ),
        case(
            "http2/5.1.2/1",
            "more streams than are allowed",
            vec![Send(crowd)],
            Want::Stream(513, &[PROTOCOL, REFUSED]),
        ),
        case(
            "http2/5.3.1/1",
            "HEADERS that depend on themselves",
            vec![Send(frame(
                HEADERS,
                WHOLE | WITH_PRIORITY,
                1,
                &self_dependent,
            ))],
            Want::Stream(1, &[PROTOCOL]),
        ),
        case(
            "http2/5.3.1/2",
            "PRIORITY that depends on itself",
            vec![Send(priority(1, 1, 255))],
            Want::Stream(1, &[PROTOCOL]),
        ),
        case(
            "http2/5.4.1/1",
            "an invalid PING ends the connection",
            vec![Send(frame(PING, 0, 0, b"short"))],
            Want::Closed,
        ),
        case(
            "http2/5.4.1/2",
            "an invalid PING is answered by GOAWAY",
            vec![Send(frame(PING, 0, 0, b"short"))],
            Want::Connection(&[FRAME_SIZE]),
        ),
        case(
            "http2/5.5/1",
            "an unknown frame",
            vec![Send(frame(0xff, 0, 0, b"x"))],
            Want::Ignored,
        ),
        case(
            "http2/5.5/2",
            "an unknown frame within a header block",
            vec![
                Send(frame(HEADERS, END_STREAM, 1, &block)),
                Send(frame(0xff, 0, 0, b"x")),
                Send(continuation(1)),
            ],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/7/1",
            "GOAWAY with an unknown code",
            vec![Send(goaway(0, 0xff))],
            Want::Closed,
        ),
        case(
            "http2/7/2",
            "RST_STREAM with an unknown code",
            vec![Send(post(1, "/s")), Send(reset(1, 0xff))],
            Want::Ignored,
        ),
    ]
}
