//! Request lines and fields that break RFC 9112 sections 2 to 5: line ends, spaces, control characters, folding.

use super::{NONE, Row};

const READ: &[&str] = &["GET /t|", "GET /end|"];

macro_rules! line {
    ($name:literal, $line:literal, $want:expr) => {
        ($name, concat!($line, "\r\n@@\r\n\r\n").as_bytes(), $want)
    };
}

macro_rules! fields {
    ($name:literal, $fields:literal, $want:expr) => {
        (
            $name,
            concat!("GET /t HTTP/1.1\r\n@@\r\n", $fields, "\r\n\r\n").as_bytes(),
            $want,
        )
    };
}

pub const ROWS: &[Row] = &[
    line!("a request", "GET /t HTTP/1.1", READ),
    line!("two spaces after the method", "GET  /t HTTP/1.1", NONE),
    line!("two spaces before the version", "GET /t  HTTP/1.1", NONE),
    line!("tabs", "GET\t/t\tHTTP/1.1", NONE),
    line!("a leading space", " GET /t HTTP/1.1", NONE),
    line!("a trailing space", "GET /t HTTP/1.1 ", NONE),
    line!("a fourth word", "GET /t HTTP/1.1 x", NONE),
    line!("no version", "GET /t", NONE),
    line!("no target", "GET HTTP/1.1", NONE),
    line!("an empty target", "GET  HTTP/1.1", NONE),
    line!("a version in lower case", "GET /t http/1.1", NONE),
    line!("version 1.2", "GET /t HTTP/1.2", NONE),
    line!("version 2.0", "GET /t HTTP/2.0", NONE),
    line!("version 11", "GET /t HTTP/11", NONE),
    line!("version 1.10", "GET /t HTTP/1.10", NONE),
    line!("version 01.1", "GET /t HTTP/01.1", NONE),
    line!("a NUL in the target", "GET /t\0 HTTP/1.1", NONE),
    line!("a NUL in the method", "GE\0T /t HTTP/1.1", NONE),
    line!("a carriage return in the line", "GET /t\r HTTP/1.1", NONE),
    line!("two carriage returns", "GET /t HTTP/1.1\r", NONE),
    line!("a method with a bracket", "G(T /t HTTP/1.1", NONE),
    line!("a vertical tab", "GET\u{b}/t HTTP/1.1", NONE),
    (
        "empty lines first",
        b"\r\n\r\nGET /t HTTP/1.1\r\n@@\r\n\r\n",
        READ,
    ),
    // Section 2.2 lets a reader take a bare LF for the end of a line; what goes on has CRLF alone, as the recorder demands.
    ("bare LF everywhere", b"GET /t HTTP/1.1\n@@\n\n", READ),
    (
        "bare LF after the line",
        b"GET /t HTTP/1.1\n@@\r\n\r\n",
        READ,
    ),
    (
        "bare LF after a field",
        b"GET /t HTTP/1.1\r\n@@\n\r\n",
        READ,
    ),
    ("bare LF at the end", b"GET /t HTTP/1.1\r\n@@\r\n\n", READ),
    (
        "a field behind a bare LF counts",
        b"POST /t HTTP/1.1\r\n@@\r\nx-a: b\ncontent-length: 4\r\n\r\nbody",
        &["POST /t|body", "GET /end|"],
    ),
    ("CR at the end", b"GET /t HTTP/1.1\r@@\r\r", NONE),
    ("LF, then CR", b"GET /t HTTP/1.1\n\r@@\n\r\n\r", NONE),
    fields!("a field", "x-a: b", READ),
    fields!("an empty field", "x-a:", READ),
    fields!("bytes beyond ASCII in a value", "x-a: \u{e4}", READ),
    fields!("a tab in a value", "x-a: a\tb", READ),
    fields!("a NUL in a value", "x-a: a\0b", NONE),
    fields!("a carriage return in a value", "x-a: a\rb", NONE),
    fields!("a carriage return at the end of a value", "x-a: a\r", NONE),
    fields!("a delete in a value", "x-a: a\u{7f}b", NONE),
    fields!("an escape in a value", "x-a: a\u{1b}b", NONE),
    fields!("a fold by space", "x-a: a\r\n b", NONE),
    fields!("a fold by tab", "x-a: a\r\n\tb", NONE),
    fields!("a fold behind a bare LF", "x-a: a\n b", NONE),
    fields!("an empty fold", "x-a: a\r\n ", NONE),
    fields!("a space in a name", "x a: b", NONE),
    fields!("a space before the colon", "x-a : b", NONE),
    fields!("a tab before the colon", "x-a\t: b", NONE),
    fields!("no name", ": b", NONE),
    fields!("no colon", "x-a", NONE),
    fields!("a NUL in a name", "x\0a: b", NONE),
    fields!("a bracket in a name", "x(a): b", NONE),
    fields!("a quote in a name", "\"x-a\": b", NONE),
    fields!("bytes beyond ASCII in a name", "x-\u{e4}: b", NONE),
    fields!("a slash in a name", "x/a: b", NONE),
    fields!(
        "a request line among the fields",
        "GET /evil HTTP/1.1",
        NONE
    ),
    (
        "a space before the first field",
        b"GET /t HTTP/1.1\r\n x-a: b\r\n@@\r\n\r\n",
        NONE,
    ),
    (
        "a tab before the first field",
        b"GET /t HTTP/1.1\r\n\tx-a: b\r\n@@\r\n\r\n",
        NONE,
    ),
    ("cut after the line", b"GET /t HTTP/1.1\r\n", NONE),
    (
        "cut within a field",
        b"GET /t HTTP/1.1\r\nhost: inven",
        NONE,
    ),
    (
        "cut before the last line end",
        b"GET /t HTTP/1.1\r\n@@\r\n\r",
        NONE,
    ),
    fields!("Connection names the host", "connection: host", NONE),
    fields!(
        "Connection names a length",
        "connection: close, content-length",
        NONE
    ),
    fields!(
        "Connection names the coding",
        "connection: Transfer-Encoding",
        NONE
    ),
    fields!(
        "Connection names a credential",
        "connection: authorization",
        NONE
    ),
    fields!("Connection names no field", "connection: a b", NONE),
    fields!(
        "an expectation that nobody knows",
        "connection: close\r\nexpect: 200-ok",
        NONE
    ),
    (
        "an expectation without body",
        b"GET /t HTTP/1.1\r\n@@\r\nexpect: 100-continue\r\n\r\n",
        READ,
    ),
];
