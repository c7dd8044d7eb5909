//! Section 6 of the list: each frame type's own rules.

use super::{Answered, Case, Flowed, Send, Step, Want, case};
use crate::wire::*;

const LARGEST: u32 = 0x7fff_ffff;

/// Answers that wait for a window of no bytes.
fn narrow(window: u32, then: Vec<Step>) -> Vec<Step> {
    let mut steps = vec![Send(settings(&[(4, window)])), Send(get(1, "/f"))];
    steps.extend(then);
    steps
}

pub fn cases() -> Vec<Case> {
    let block = request("GET", "/f");
    let (head, tail) = block.split_at(20);
    let with_pad = [&[255][..], &block].concat();
    let continuation = |flags, stream, payload: &[u8]| frame(CONTINUATION, flags, stream, payload);
    let more = field("x-a", "1");
    vec![
        case(
            "http2/6.1/1",
            "DATA on stream 0",
            vec![Send(frame(DATA, END_STREAM, 0, b"test"))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.1/2",
            "DATA on a stream that is not open",
            vec![
                Send(get(1, "/f")),
                Answered(1),
                Send(frame(DATA, END_STREAM, 1, b"test")),
            ],
            Want::Stream(1, &[STREAM_CLOSED]),
        ),
        case(
            "http2/6.1/3",
            "DATA with more padding than payload",
            vec![
                Send(post(1, "/f")),
                Send(frame(DATA, END_STREAM | PADDED, 1, b"\x06test")),
            ],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.2/1",
            "HEADERS without end, then PRIORITY",
            vec![
                Send(frame(HEADERS, END_STREAM, 1, &block)),
                Send(priority(1, 0, 255)),
            ],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.2/2",
            "HEADERS without end, then HEADERS of another stream",
            vec![
                Send(frame(HEADERS, END_STREAM, 1, &block)),
                Send(get(3, "/f")),
            ],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.2/3",
            "HEADERS on stream 0",
            vec![Send(get(0, "/f"))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.2/4",
            "HEADERS with more padding than payload",
            vec![Send(frame(HEADERS, WHOLE | PADDED, 1, &with_pad))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.3/1",
            "PRIORITY on stream 0",
            vec![Send(priority(0, 0, 255))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.3/2",
            "PRIORITY of another length",
            vec![Send(frame(PRIORITY, 0, 1, &[0x80, 0, 0, 1]))],
            Want::Stream(1, &[FRAME_SIZE]),
        ),
        case(
            "http2/6.4/1",
            "RST_STREAM on stream 0",
            vec![Send(reset(0, CANCEL))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.4/2",
            "RST_STREAM on an idle stream",
            vec![Send(reset(1, CANCEL))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.4/3",
            "RST_STREAM of another length",
            vec![
                Send(post(1, "/f")),
                Send(frame(RST_STREAM, 0, 1, &[0, 0, 0])),
            ],
            Want::Connection(&[FRAME_SIZE]),
        ),
        case(
            "http2/6.5/1",
            "an acknowledgement with content",
            vec![Send(frame(SETTINGS, ACK, 0, &[0]))],
            Want::Connection(&[FRAME_SIZE]),
        ),
        case(
            "http2/6.5/2",
            "SETTINGS on a stream",
            vec![Send(frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100]))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.5/3",
            "SETTINGS of another length",
            vec![Send(frame(SETTINGS, 0, 0, &[0, 3, 0]))],
            Want::Connection(&[FRAME_SIZE]),
        ),
        case(
            "http2/6.5.2/1",
            "ENABLE_PUSH of 2",
            vec![Send(settings(&[(2, 2)]))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.5.2/2",
            "INITIAL_WINDOW_SIZE beyond the largest",
            vec![Send(settings(&[(4, 0x8000_0000)]))],
            Want::Connection(&[FLOW_CONTROL]),
        ),
        case(
            "http2/6.5.2/3",
            "MAX_FRAME_SIZE below the smallest",
            vec![Send(settings(&[(5, 16383)]))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.5.2/4",
            "MAX_FRAME_SIZE beyond the largest",
            vec![Send(settings(&[(5, 16_777_216)]))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.5.2/5",
            "an unknown setting",
            vec![Send(settings(&[(0xff, 1)]))],
            Want::Ignored,
        ),
        case(
            "http2/6.5.3/1",
            "one setting twice: the last holds",
            vec![Send(settings(&[(4, 100), (4, 1)])), Send(get(1, "/f"))],
            Want::Data(&[1]),
        ),
        case(
            "http2/6.5.3/2",
            "SETTINGS are acknowledged",
            vec![Send(settings(&[]))],
            Want::SettingsAck,
        ),
        case(
            "http2/6.7/1",
            "a PING is answered",
            vec![Send(frame(PING, 0, 0, b"12345678"))],
            Want::Pong(*b"12345678"),
        ),
        case(
            "http2/6.7/2",
            "an answer to a PING is not answered",
            vec![
                Send(frame(PING, ACK, 0, b"answered")),
                Send(frame(PING, 0, 0, b"question")),
            ],
            Want::Pong(*b"question"),
        ),
        case(
            "http2/6.7/3",
            "PING on a stream",
            vec![Send(frame(PING, 0, 1, b"12345678"))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.7/4",
            "PING of another length",
            vec![Send(frame(PING, 0, 0, b"123456"))],
            Want::Connection(&[FRAME_SIZE]),
        ),
        case(
            "http2/6.8/1",
            "GOAWAY on a stream",
            vec![Send(goaway(1, NO_ERROR))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.9/1",
            "WINDOW_UPDATE of 0 for the connection",
            vec![Send(window_update(0, 0))],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.9/2",
            "WINDOW_UPDATE of 0 for a stream",
            vec![Send(post(1, "/f")), Send(window_update(1, 0))],
            Want::Stream(1, &[PROTOCOL]),
        ),
        case(
            "http2/6.9/3",
            "WINDOW_UPDATE of another length",
            vec![Send(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]))],
            Want::Connection(&[FRAME_SIZE]),
        ),
        case(
            "http2/6.9.1/1",
            "a window of 1 lets 1 byte through",
            narrow(1, vec![]),
            Want::Data(&[1]),
        ),
        case(
            "http2/6.9.1/2",
            "the connection's window beyond the largest",
            vec![
                Send(window_update(0, LARGEST)),
                Send(window_update(0, LARGEST)),
            ],
            Want::Connection(&[FLOW_CONTROL]),
        ),
        case(
            "http2/6.9.1/3",
            "a stream's window beyond the largest",
            vec![
                Send(post(1, "/f")),
                Send(window_update(1, LARGEST)),
                Send(window_update(1, LARGEST)),
            ],
            Want::Stream(1, &[FLOW_CONTROL]),
        ),
        case(
            "http2/6.9.2/1",
            "a window that opens after HEADERS",
            narrow(0, vec![Send(settings(&[(4, 1)]))]),
            Want::Data(&[1]),
        ),
        case(
            "http2/6.9.2/2",
            "a window that becomes negative",
            narrow(
                3,
                vec![
                    Flowed(3),
                    Send(settings(&[(4, 2)])),
                    Send(window_update(1, 2)),
                ],
            ),
            Want::Data(&[1]),
        ),
        case(
            "http2/6.9.2/3",
            "a setting beyond the largest window",
            vec![Send(settings(&[(4, 0x8000_0000)]))],
            Want::Connection(&[FLOW_CONTROL]),
        ),
        case(
            "http2/6.10/1",
            "CONTINUATION after CONTINUATION",
            vec![
                Send(frame(HEADERS, END_STREAM, 1, head)),
                Send(continuation(0, 1, tail)),
                Send(continuation(END_HEADERS, 1, &more)),
            ],
            Want::Answer(1),
        ),
        case(
            "http2/6.10/2",
            "DATA after CONTINUATION without end",
            vec![
                Send(frame(HEADERS, 0, 1, head)),
                Send(continuation(0, 1, tail)),
                Send(frame(DATA, END_STREAM, 1, b"test")),
            ],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.10/3",
            "CONTINUATION on stream 0",
            vec![
                Send(frame(HEADERS, END_STREAM, 1, head)),
                Send(continuation(END_HEADERS, 0, tail)),
            ],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.10/4",
            "CONTINUATION after whole HEADERS",
            vec![
                Send(post(1, "/f")),
                Send(continuation(END_HEADERS, 1, &more)),
            ],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.10/5",
            "CONTINUATION after the last CONTINUATION",
            vec![
                Send(frame(HEADERS, 0, 1, head)),
                Send(continuation(END_HEADERS, 1, tail)),
                Send(continuation(END_HEADERS, 1, &more)),
            ],
            Want::Connection(&[PROTOCOL]),
        ),
        case(
            "http2/6.10/6",
            "CONTINUATION after DATA",
            vec![
                Send(post(1, "/f")),
                Send(frame(DATA, 0, 1, b"test")),
                Send(continuation(END_HEADERS, 1, &more)),
            ],
            Want::Connection(&[PROTOCOL]),
        ),
    ]
}
