//! The generic sections of the list: what every endpoint must accept.

use super::{Answered, Case, Send, Want, case};
use crate::wire::*;

/// `:method: GET`, `:scheme: https` and `/` from the static table, the authority as a literal.
fn indexed() -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x84, 0x01, 14];
    block.extend_from_slice(b"inventory.shop");
    block
}

fn with(extra: &[u8]) -> Vec<Super> {
    let mut block = indexed();
    block.extend_from_slice(extra);
    vec![Send(frame(HEADERS, WHOLE, 1, &block))]
}

type Super = super::Step;

/// `custom-key` and `custom-value` in the code of RFC 7541 appendix B (its example C.4.3).
const KEY: [u8; 9] = [0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f];
const VALUE: [u8; 10] = [0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf];

fn plain(first: &[u8], name: &[u8], value: &[u8]) -> Vec<Super> {
    let mut extra = first.to_vec();
    for text in [name, value] {
        if !text.is_empty() {
            extra.push(text.len() as u8);
            extra.extend_from_slice(text);
        }
    }
    with(&extra)
}

fn coded(first: &[u8], name: &[u8]) -> Vec<Super> {
    with(&[first, name, &VALUE].concat())
}

pub fn cases() -> Vec<Case> {
    let data = |flags: u8, payload: &[u8]| frame(DATA, flags, 1, payload);
    let head = request("GET", "/g");
    let padded = [&[3][..], &head, &[0; 3]].concat();
    let depending = [&[0, 0, 0, 0, 200][..], &head].concat();
    let (first, second) = head.split_at(20);
    let (second, third) = second.split_at(10);
    let trailers = block(&[("x-checksum", "1")]);
    vec![
        Case {
            is_opened: false,
            ..case(
                "generic/1/1",
                "a client's preface",
                vec![Send([PREFACE, &settings(&[])].concat())],
                Want::SettingsAck,
            )
        },
        case(
            "generic/2/1",
            "PRIORITY on an idle stream",
            vec![Send(priority(1, 0, 255)), Send(get(1, "/g"))],
            Want::Answer(1),
        ),
        case(
            "generic/2/2",
            "WINDOW_UPDATE on a half-closed stream",
            vec![Send(get(1, "/g")), Send(window_update(1, 100))],
            Want::Answer(1),
        ),
        case(
            "generic/2/3",
            "PRIORITY on a half-closed stream",
            vec![Send(get(1, "/g")), Send(priority(1, 0, 255))],
            Want::Answer(1),
        ),
        case(
            "generic/2/4",
            "RST_STREAM on a half-closed stream",
            vec![Send(get(1, "/g")), Send(reset(1, CANCEL))],
            Want::Ignored,
        ),
        case(
            "generic/2/5",
            "PRIORITY on a closed stream",
            vec![Send(get(1, "/g")), Answered(1), Send(priority(1, 0, 255))],
            Want::Ignored,
        ),
        case(
            "generic/3.1/1",
            "a DATA frame",
            vec![Send(post(1, "/g")), Send(data(END_STREAM, b"test"))],
            Want::Echo(1, "POST /g|test"),
        ),
        case(
            "generic/3.1/2",
            "many DATA frames",
            vec![
                Send(post(1, "/g")),
                Send(data(0, b"te")),
                Send(data(0, b"")),
                Send(data(END_STREAM, b"st")),
            ],
            Want::Echo(1, "POST /g|test"),
        ),
        case(
            "generic/3.1/3",
            "a padded DATA frame",
            vec![
                Send(post(1, "/g")),
                Send(data(END_STREAM | PADDED, b"\x06test\0\0\0\0\0\0")),
            ],
            Want::Echo(1, "POST /g|test"),
        ),
        case(
            "generic/3.2/1",
            "a HEADERS frame",
            vec![Send(get(1, "/g"))],
            Want::Echo(1, "GET /g|"),
        ),
        case(
            "generic/3.2/2",
            "a padded HEADERS frame",
            vec![Send(frame(HEADERS, WHOLE | PADDED, 1, &padded))],
            Want::Echo(1, "GET /g|"),
        ),
        case(
            "generic/3.2/3",
            "a HEADERS frame with a priority",
            vec![Send(frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &depending))],
            Want::Echo(1, "GET /g|"),
        ),
        case(
            "generic/3.3/1",
            "PRIORITY with weight 1",
            vec![Send(priority(1, 0, 0)), Send(get(1, "/g"))],
            Want::Answer(1),
        ),
        case(
            "generic/3.3/2",
            "PRIORITY with weight 256",
            vec![Send(priority(1, 0, 255)), Send(get(1, "/g"))],
            Want::Answer(1),
        ),
        case(
            "generic/3.3/3",
            "PRIORITY with a dependency",
            vec![Send(priority(3, 1, 9)), Send(get(1, "/g"))],
            Want::Answer(1),
        ),
        case(
            "generic/3.3/4",
            "PRIORITY with an exclusive dependency",
            vec![Send(priority(3, 0x8000_0001, 9)), Send(get(1, "/g"))],
            Want::Answer(1),
        ),
        case(
            "generic/3.3/5",
            "PRIORITY on an idle stream, then a lower stream",
            vec![Send(priority(7, 0, 9)), Send(get(5, "/g"))],
            Want::Answer(5),
        ),
        case(
            "generic/3.4/1",
            "an RST_STREAM frame",
            vec![Send(post(1, "/g")), Send(reset(1, CANCEL))],
            Want::Ignored,
        ),
        case(
            "generic/3.5/1",
            "a SETTINGS frame",
            vec![Send(settings(&[(3, 100)]))],
            Want::SettingsAck,
        ),
        case(
            "generic/3.7/1",
            "a PING frame",
            vec![Send(frame(PING, 0, 0, b"ravelin!"))],
            Want::Pong(*b"ravelin!"),
        ),
        case(
            "generic/3.8/1",
            "a GOAWAY frame",
            vec![Send(goaway(0, NO_ERROR))],
            Want::Closed,
        ),
        case(
            "generic/3.9/1",
            "WINDOW_UPDATE of the connection",
            vec![Send(window_update(0, 100)), Send(get(1, "/g"))],
            Want::Answer(1),
        ),
        case(
            "generic/3.9/2",
            "WINDOW_UPDATE of a stream",
            vec![
                Send(post(1, "/g")),
                Send(window_update(1, 100)),
                Send(data(END_STREAM, b"")),
            ],
            Want::Answer(1),
        ),
        case(
            "generic/3.10/1",
            "a CONTINUATION frame",
            vec![
                Send(frame(HEADERS, END_STREAM, 1, first)),
                Send(frame(
                    CONTINUATION,
                    END_HEADERS,
                    1,
                    &[second, third].concat(),
                )),
            ],
            Want::Echo(1, "GET /g|"),
        ),
        case(
            "generic/3.10/2",
            "many CONTINUATION frames",
            vec![
                Send(frame(HEADERS, END_STREAM, 1, first)),
                Send(frame(CONTINUATION, 0, 1, second)),
                Send(frame(CONTINUATION, END_HEADERS, 1, third)),
            ],
            Want::Echo(1, "GET /g|"),
        ),
        case(
            "generic/4/1",
            "a GET",
            vec![Send(get(1, "/g"))],
            Want::Echo(1, "GET /g|"),
        ),
        case(
            "generic/4/2",
            "a HEAD",
            vec![Send(frame(HEADERS, WHOLE, 1, &request("HEAD", "/g")))],
            Want::Answer(1),
        ),
        case(
            "generic/4/3",
            "a POST",
            vec![Send(post(1, "/g")), Send(data(END_STREAM, b"body"))],
            Want::Echo(1, "POST /g|body"),
        ),
        case(
            "generic/4/4",
            "a POST with trailers",
            vec![
                Send(post(1, "/g")),
                Send(data(0, b"body")),
                Send(frame(HEADERS, WHOLE, 1, &trailers)),
            ],
            Want::Echo(1, "POST /g|body"),
        ),
        case(
            "generic/5/1",
            "an indexed field",
            with(&[0x90]),
            Want::Answer(1),
        ),
        case(
            "generic/5/2",
            "incremental indexing, indexed name",
            plain(&[0x7a], b"", b"agent"),
            Want::Answer(1),
        ),
        case(
            "generic/5/3",
            "incremental indexing, indexed name, Huffman",
            coded(&[0x7a], &[]),
            Want::Answer(1),
        ),
        case(
            "generic/5/4",
            "incremental indexing, new name",
            plain(&[0x40], b"custom-key", b"custom-value"),
            Want::Answer(1),
        ),
        case(
            "generic/5/5",
            "incremental indexing, new name, Huffman",
            coded(&[0x40], &KEY),
            Want::Answer(1),
        ),
        case(
            "generic/5/6",
            "without indexing, indexed name",
            plain(&[0x0f, 0x2b], b"", b"agent"),
            Want::Answer(1),
        ),
        case(
            "generic/5/7",
            "without indexing, indexed name, Huffman",
            coded(&[0x0f, 0x2b], &[]),
            Want::Answer(1),
        ),
        case(
            "generic/5/8",
            "without indexing, new name",
            plain(&[0x00], b"custom-key", b"custom-value"),
            Want::Answer(1),
        ),
        case(
            "generic/5/9",
            "without indexing, new name, Huffman",
            coded(&[0x00], &KEY),
            Want::Answer(1),
        ),
        case(
            "generic/5/10",
            "never indexed, indexed name",
            plain(&[0x1f, 0x2b], b"", b"agent"),
            Want::Answer(1),
        ),
        case(
            "generic/5/11",
            "never indexed, indexed name, Huffman",
            coded(&[0x1f, 0x2b], &[]),
            Want::Answer(1),
        ),
        case(
            "generic/5/12",
            "never indexed, new name",
            plain(&[0x10], b"custom-key", b"custom-value"),
            Want::Answer(1),
        ),
        case(
            "generic/5/13",
            "never indexed, new name, Huffman",
            coded(&[0x10], &KEY),
            Want::Answer(1),
        ),
        case(
            "generic/5/14",
            "a table size update",
            vec![Send(frame(
                HEADERS,
                WHOLE,
                1,
                &[&[0x20][..], &indexed()].concat(),
            ))],
            Want::Answer(1),
        ),
        case(
            "generic/5/15",
            "two table size updates",
            vec![Send(frame(
                HEADERS,
                WHOLE,
                1,
                &[&[0x20, 0x3f, 0x61][..], &indexed()].concat(),
            ))],
            Want::Answer(1),
        ),
    ]
}
