//! The chunked coding (RFC 9112 section 7.1): sizes, extensions, ends and trailers. What is read leniently is written
//! anew, so that only one reading goes on.

use super::{NONE, Row};

const BODY: &[&str] = &["POST /t|body", "GET /end|"];

macro_rules! chunks {
    ($name:literal, $chunks:literal, $want:expr) => {
        (
            $name,
            concat!(
                "POST /t HTTP/1.1\r\n@@\r\ntransfer-encoding: chunked\r\n\r\n",
                $chunks
            )
            .as_bytes(),
            $want,
        )
    };
}

pub const ROWS: &[Row] = &[
    chunks!("one chunk", "4\r\nbody\r\n0\r\n\r\n", BODY),
    chunks!("four chunks", "1\r\nb\r\n1\r\no\r\n1\r\nd\r\n1\r\ny\r\n0\r\n\r\n", BODY),
    chunks!("no chunk", "0\r\n\r\n", &["POST /t|", "GET /end|"]),
    chunks!("digits in capitals", "A\r\n0123456789\r\n0\r\n\r\n", &["POST /t|0123456789", "GET /end|"]),
    chunks!("leading zeros", "0000004\r\nbody\r\n0\r\n\r\n", BODY),
    chunks!("many leading zeros", "00000000000000000000000004\r\nbody\r\n0\r\n\r\n", BODY),
    chunks!("many zeros at the end", "4\r\nbody\r\n00000000000000000000\r\n\r\n", BODY),
    chunks!("a prefix", "0x4\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("an underscore", "0_4\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("plus", "+4\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("minus", "-4\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("a space before", " 4\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("a space after", "4 \r\nbody\r\n0\r\n\r\n", BODY),
    chunks!("a tab after", "4\t\r\nbody\r\n0\r\n\r\n", BODY),
    chunks!("a space between digits", "0 4\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("a comma", "4,4\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("no digit", "\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("a letter beyond", "g\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("a NUL", "4\0\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("quotes", "\"4\"\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("more than 64 bits", "10000000000000004\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("far more than 64 bits", "fffffffffffffffffffff\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("cut: all 64 bits", "ffffffffffffffff\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("cut: 63 bits", "7fffffffffffffff\r\nGET /evil HTTP/1.1\r\n@@\r\n\r\n", NONE),
    chunks!("a bare LF after the size", "4\nbody\r\n0\r\n\r\n", NONE),
    chunks!("a bare CR after the size", "4\rbody\r\n0\r\n\r\n", NONE),
    chunks!("a bare LF after the data", "4\r\nbody\n0\r\n\r\n", NONE),
    chunks!("a bare CR after the data", "4\r\nbody\r0\r\n\r\n", NONE),
    chunks!("nothing after the data", "4\r\nbody0\r\n\r\n", NONE),
    chunks!("more data than told", "3\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("less data than told", "5\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("two bytes after the data", "4\r\nbodyXX0\r\n\r\n", NONE),
    chunks!("an extension", "4;a=b\r\nbody\r\n0;c\r\n\r\n", BODY),
    chunks!("an extension after a space", "4 ; a=b\r\nbody\r\n0\r\n\r\n", BODY),
    chunks!("an extension without name", "4;\r\nbody\r\n0\r\n\r\n", BODY),
    chunks!("an extension in quotes", "4;a=\"b;c\"\r\nbody\r\n0\r\n\r\n", BODY),
    chunks!("a bare LF in an extension", "4;a\nb\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("a request in an extension", "4;\nGET /evil HTTP/1.1\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("a bare CR in an extension", "4;a\rb\r\nbody\r\n0\r\n\r\n", NONE),
    chunks!("a bare LF after the last size", "4\r\nbody\r\n0\n\r\n", NONE),
    // The bare LF begins a trailer, and what follows is its text up to the next empty line: lost, and never a request.
    // Whether the request before it passes depends on whether the end of the connection is seen first.
    chunks!("cut or whole: a bare LF at the end", "4\r\nbody\r\n0\r\n\nGET /evil HTTP/1.1\r\n@@\r\n\r\n", &["POST /t|body"]),
    chunks!("cut: no end", "4\r\nbody\r\n0\r\n", NONE),
    chunks!("cut: half an end", "4\r\nbody\r\n0\r\n\r", NONE),
    chunks!("cut: no last chunk", "4\r\nbody\r\n", NONE),
    chunks!("a trailer", "4\r\nbody\r\n0\r\nx-a: b\r\n\r\n", BODY),
    chunks!("a trailer that tells a length", "4\r\nbody\r\n0\r\ncontent-length: 100\r\n\r\n", BODY),
    chunks!("a trailer that tells a coding", "4\r\nbody\r\n0\r\ntransfer-encoding: chunked\r\n\r\n", BODY),
    chunks!("a trailer that tells a host", "4\r\nbody\r\n0\r\nhost: evil.shop\r\n\r\n", BODY),
    chunks!("a trailer that speaks for a proxy", "4\r\nbody\r\n0\r\nx-forwarded-client-cert: forged\r\n\r\n", BODY),
    chunks!("a trailer with a space before the colon", "4\r\nbody\r\n0\r\nx-a : b\r\n\r\n", NONE),
    chunks!("a folded trailer", "4\r\nbody\r\n0\r\nx-a: b\r\n c\r\n\r\n", NONE),
    chunks!("a trailer with a NUL", "4\r\nbody\r\n0\r\nx-a: \0\r\n\r\n", NONE),
    chunks!("a trailer with a bare CR", "4\r\nbody\r\n0\r\nx-a: b\rc\r\n\r\n", NONE),
    (
        "announced trailers that frame",
        b"POST /t HTTP/1.1\r\n@@\r\ntransfer-encoding: chunked\r\ntrailer: host, content-length, x-forwarded-client-cert\r\n\r\n4\r\nbody\r\n0\r\nhost: evil.shop\r\ncontent-length: 9\r\nx-forwarded-client-cert: forged\r\n\r\n",
        BODY,
    ),
];
