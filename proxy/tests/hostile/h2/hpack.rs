//! The HPACK sections of the list: header blocks that cannot be decoded end the connection.

use super::{Case, Send, Step, Want, case};
use crate::wire::*;

/// A request whose block begins or ends with these bytes.
fn around(before: &[u8], after: &[u8]) -> Vec<Step> {
    let block = [before, &request("GET", "/h"), after].concat();
    vec![Send(frame(HEADERS, WHOLE, 1, &block))]
}

fn value(bytes: &[u8]) -> Vec<Step> {
    let mut field = vec![0x00, 6];
    field.extend_from_slice(b"x-test");
    field.extend_from_slice(bytes);
    around(&[], &field)
}

pub fn cases() -> Vec<Case> {
    let broken = Want::Connection;
    vec![
        case(
            "hpack/2.3.3/1",
            "an index beyond both tables",
            around(&[], &[0xbf, 0x80]),
            broken(&[COMPRESSION]),
        ),
        case(
            "hpack/2.3.3/2",
            "a name beyond both tables",
            around(&[], &[0x7f, 0x80, 0x01, b'a']),
            broken(&[COMPRESSION]),
        ),
        case(
            "hpack/4.2/1",
            "a table size update at the end of a block",
            around(&[], &[0x21]),
            broken(&[COMPRESSION]),
        ),
        case(
            "hpack/5.2/1",
            "padding of more than 7 bits",
            value(&[0x86, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0xff]),
            broken(&[COMPRESSION]),
        ),
        case(
            "hpack/5.2/2",
            "padding of zeros",
            value(&[0x83, 0x49, 0x50, 0x90]),
            broken(&[COMPRESSION]),
        ),
        case(
            "hpack/5.2/3",
            "the end-of-string symbol",
            value(&[0x88, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0xff, 0xff, 0xff]),
            broken(&[COMPRESSION]),
        ),
        case(
            "hpack/6.1/1",
            "index 0",
            around(&[], &[0x80]),
            broken(&[COMPRESSION]),
        ),
        case(
            "hpack/6.3/1",
            "a table size update beyond the limit",
            around(&[0x3f, 0xe2, 0x1f], &[]),
            broken(&[COMPRESSION]),
        ),
    ]
}
