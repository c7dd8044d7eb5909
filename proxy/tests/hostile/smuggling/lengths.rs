//! `Content-Length` and `Transfer-Encoding` in every disguise (RFC 9112 sections 6.1 to 6.3).

use super::{NONE, Row};

const BODY: &[&str] = &["POST /t|body", "GET /end|"];
/// Read by its chunks alone, as section 6.3 allows; the connection ends with it.
const CHUNKS_THEN_CLOSE: &[&str] = &["POST /t|"];

macro_rules! length {
    ($name:literal, $fields:literal, $want:expr) => {
        (
            $name,
            concat!("POST /t HTTP/1.1\r\n@@\r\n", $fields, "\r\n\r\nbody").as_bytes(),
            $want,
        )
    };
}

macro_rules! coding {
    ($name:literal, $fields:literal, $want:expr) => {
        (
            $name,
            concat!(
                "POST /t HTTP/1.1\r\n@@\r\n",
                $fields,
                "\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
            )
            .as_bytes(),
            $want,
        )
    };
}

pub const ROWS: &[Row] = &[
    length!("a length", "content-length: 4", BODY),
    length!("a length without space", "content-length:4", BODY),
    length!("a length in spaces", "content-length: \t4 \t", BODY),
    length!("a length twice, the same", "content-length: 4\r\ncontent-length: 4", BODY),
    length!("two lengths", "content-length: 4\r\ncontent-length: 5", NONE),
    length!("two lengths, the first smaller", "content-length: 0\r\ncontent-length: 4", NONE),
    length!("a list of one length", "content-length: 4, 4", NONE),
    length!("a list of two lengths", "content-length: 4, 5", NONE),
    length!("a list with a gap", "content-length: ,4", NONE),
    length!("plus", "content-length: +4", NONE),
    length!("minus", "content-length: -4", NONE),
    length!("minus nothing", "content-length: -0", NONE),
    length!("hexadecimal", "content-length: 0x4", NONE),
    length!("hexadecimal without prefix", "content-length: a", NONE),
    length!("a letter after it", "content-length: 4a", NONE),
    length!("an underscore in it", "content-length: 0_4", NONE),
    length!("a space in it", "content-length: 0 4", NONE),
    length!("a fraction", "content-length: 4.0", NONE),
    length!("an exponent", "content-length: 4e0", NONE),
    length!("in quotes", "content-length: \"4\"", NONE),
    length!("a parameter", "content-length: 4;a=b", NONE),
    length!("empty", "content-length:", NONE),
    length!("digits of another script", "content-length: \u{664}", NONE),
    length!("more than 64 bits", "content-length: 99999999999999999999", NONE),
    length!("all 64 bits", "content-length: 18446744073709551615", NONE),
    length!("one more than 64 bits: 4 in the rest", "content-length: 18446744073709551620", NONE),
    length!("space before the colon", "content-length : 4", NONE),
    length!("tab before the colon", "content-length\t: 4", NONE),
    length!("a name with underscore", "content_length: 4", NONE),
    length!("a name with underscore beside it", "content-length: 4\r\ncontent_length: 0", NONE),
    length!("a vertical tab", "content-length: \u{b}4", NONE),
    length!("a NUL after it", "content-length: 4\0", NONE),
    length!("folded", "content-length:\r\n 4", NONE),
    length!("folded after it", "content-length: 4\r\n 0", NONE),
    length!("a name with a control character", "content-length\u{1}: 4", NONE),
    coding!("chunked", "transfer-encoding: chunked", BODY),
    coding!("chunked in capitals", "Transfer-Encoding: CHUNKED", BODY),
    coding!("chunked in spaces", "transfer-encoding: \t chunked \t", BODY),
    coding!("chunked twice", "transfer-encoding: chunked, chunked", NONE),
    coding!("chunked on two lines", "transfer-encoding: chunked\r\ntransfer-encoding: chunked", NONE),
    coding!("identity, then chunked", "transfer-encoding: identity\r\ntransfer-encoding: chunked", NONE),
    coding!("chunked, then identity", "transfer-encoding: chunked\r\ntransfer-encoding: identity", NONE),
    coding!("chunked, then nothing", "transfer-encoding: chunked\r\ntransfer-encoding:", NONE),
    coding!("identity", "transfer-encoding: identity", NONE),
    coding!("compressed", "transfer-encoding: gzip, chunked", NONE),
    coding!("chunked not last", "transfer-encoding: chunked, gzip", NONE),
    coding!("a gap before", "transfer-encoding: , chunked", NONE),
    coding!("a gap after", "transfer-encoding: chunked,", NONE),
    coding!("coding in quotes", "transfer-encoding: \"chunked\"", NONE),
    coding!("coding with a parameter", "transfer-encoding: chunked;q=1", NONE),
    coding!("almost chunked", "transfer-encoding: xchunked", NONE),
    coding!("chunked and more", "transfer-encoding: chunkedx", NONE),
    coding!("two words", "transfer-encoding: chunked chunked", NONE),
    coding!("coding after a vertical tab", "transfer-encoding: \u{b}chunked", NONE),
    coding!("coding before a form feed", "transfer-encoding: chunked\u{c}", NONE),
    coding!("coding after a byte-order mark", "transfer-encoding: \u{feff}chunked", NONE),
    coding!("coding with a NUL", "transfer-encoding: chunked\0", NONE),
    coding!("coding: space before the colon", "transfer-encoding : chunked", NONE),
    coding!("coding: space before the name", " transfer-encoding: chunked", NONE),
    coding!("coding: tab before the name", "\ttransfer-encoding: chunked", NONE),
    coding!("coding: a name with underscore", "transfer_encoding: chunked", NONE),
    coding!("coding: a folded name", "x-a: b\r\n transfer-encoding: chunked", NONE),
    coding!("coding: a folded value", "transfer-encoding:\r\n chunked", NONE),
    coding!("coding: a carriage return in another field", "x-a: b\rtransfer-encoding: chunked", NONE),
    coding!("empty coding", "transfer-encoding:", NONE),
    ("length, then chunks", b"POST /t HTTP/1.1\r\n@@\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nG", CHUNKS_THEN_CLOSE),
    ("chunks, then length", b"POST /t HTTP/1.1\r\n@@\r\ntransfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n0\r\n\r\nG", CHUNKS_THEN_CLOSE),
    ("length, then no chunks", b"POST /t HTTP/1.1\r\n@@\r\ncontent-length: 4\r\ntransfer-encoding: x\r\n\r\nbody", NONE),
    ("a request after its end", b"POST /t HTTP/1.1\r\n@@\r\ncontent-length: 4\r\n\r\nbodyGET /next HTTP/1.1\r\n@@\r\n\r\n", &["POST /t|body", "GET /next|", "GET /end|"]),
    ("a request within its length", b"POST /t HTTP/1.1\r\n@@\r\ncontent-length: 24\r\n\r\nGET /evil HTTP/1.1\r\n\r\n..", &["POST /t|GET /evil HTTP/1.1\\r\\n\\r\\n..", "GET /end|"]),
    ("chunks in HTTP/1.0", b"POST /t HTTP/1.0\r\n@@\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", NONE),
    ("a length in HTTP/1.0", b"POST /t HTTP/1.0\r\n@@\r\ncontent-length: 4\r\n\r\nbody", &["POST /t|body"]),
    ("a GET with a length", b"GET /t HTTP/1.1\r\n@@\r\ncontent-length: 4\r\n\r\nbody", &["GET /t|body", "GET /end|"]),
    ("a GET in chunks", b"GET /t HTTP/1.1\r\n@@\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", &["GET /t|body", "GET /end|"]),
    ("cut within its length", b"POST /t HTTP/1.1\r\n@@\r\ncontent-length: 400\r\n\r\nGET /evil HTTP/1.1\r\n@@\r\n\r\n", NONE),
    ("cut: a length that is never reached", b"POST /t HTTP/1.1\r\n@@\r\ncontent-length: 4294967295\r\n\r\nGET /evil HTTP/1.1\r\n@@\r\n\r\n", NONE),
];
