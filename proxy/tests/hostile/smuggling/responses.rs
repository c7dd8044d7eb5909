//! Answers of an application that could be read in two ways: whatever it says, the next caller gets its own answer.

use super::{bytes_of, canary, converse};
use crate::ground::Ground;

const EVIL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nseen: evil\n\n";

/// What the application answers; `closes` marks the answers after which it closes.
const ROWS: &[(&str, &str, bool)] = &[
    (
        "two answers",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        false,
    ),
    (
        "more than the length",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nok",
        false,
    ),
    (
        "no content with content",
        "HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nok",
        false,
    ),
    (
        "not modified with content",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\nok",
        false,
    ),
    (
        "reset content",
        "HTTP/1.1 205 Reset\r\ncontent-length: 0\r\n\r\nok",
        false,
    ),
    (
        "a switch that nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        false,
    ),
    (
        "many interim answers",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        false,
    ),
    (
        "a length and chunks",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        false,
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-length: 2\r\n\r\nok",
        false,
    ),
    (
        "a list of lengths",
        "HTTP/1.1 200 OK\r\ncontent-length: 0, 2\r\n\r\nok",
        false,
    ),
    (
        "a length with a sign",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
        false,
    ),
    (
        "chunked twice",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        true,
    ),
    (
        "another coding",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok",
        true,
    ),
    (
        "a broken chunk",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokX\r\n0\r\n\r\n",
        false,
    ),
    (
        "chunks without end",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        true,
    ),
    ("bare LF", "HTTP/1.1 200 OK\ncontent-length: 2\n\nok", false),
    (
        "a fold",
        "HTTP/1.1 200 OK\r\nx-a: b\r\n c\r\ncontent-length: 2\r\n\r\nok",
        false,
    ),
    (
        "a NUL",
        "HTTP/1.1 200 OK\r\nx-a: \0\r\ncontent-length: 2\r\n\r\nok",
        false,
    ),
    (
        "a space before the colon",
        "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok",
        false,
    ),
    ("no HTTP at all", "hello\r\n\r\n", true),
    (
        "a status of two digits",
        "HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok",
        false,
    ),
    ("nothing", "", true),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_no_answer_of_the_application_reaches_another_caller() {
    let mut ground = Ground::start().await;
    let mut wrong = Vec::new();
    for (number, (name, answer, closes)) in ROWS.iter().enumerate() {
        let path = format!("/r/{number}");
        let end = if *closes { "" } else { EVIL };
        let bytes = format!("{answer}{end}");
        ground.recorder.answer(&path, bytes.as_bytes(), *closes);
        let request = format!("GET {path} HTTP/1.1\r\n@@\r\nconnection: close\r\n\r\n");
        let request: &'static str = request.leak();
        let row = ("cut", request.as_bytes(), super::NONE);
        let answered = converse(ground.dial_application().await, &bytes_of(&row), false).await;
        if answered.is_none() {
            wrong.push(format!("{name}: stays open"));
        }
        for _ in 0..3 {
            if let Some(what) = canary(&ground).await {
                wrong.push(format!("{name}: then {what}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    ground.assert_alive();
}
