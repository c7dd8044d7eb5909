//! The path that policy judges is the path that the application gets, for any target (threat 51); and nothing that a caller
//! says in a proxy's name arrives (threat 50).

use std::collections::HashMap;

use crate::ground::{Ground, PATIENCE};
use crate::smuggling::converse;
use crate::wire::*;

/// Targets in one run; a million of them with `RAVELIN_FUZZ_TARGETS=1000000`.
const TARGETS: u32 = 10_000;
const STREAMS: u32 = 200;

/// What targets are made of.
const PARTS: [&str; 48] = [
    "/",
    "/",
    "/",
    "//",
    "/./",
    "/../",
    "/.",
    "/..",
    ".",
    "..",
    "...",
    "secret",
    "secret",
    "secret",
    "SECRET",
    "s%65cret",
    "%73ecret",
    "secre%74",
    "public",
    "a",
    "%2e",
    "%2E",
    "%2e%2e",
    "%2f",
    "%2F",
    "%5c",
    "%5C",
    "\\",
    ";a=b",
    ";",
    "%3b",
    "%00",
    "%25",
    "%252e",
    "%252f",
    "%25%32%65",
    "%c0%ae",
    "%e0%80%af",
    "%ff",
    "\u{fc}",
    "?",
    "?a=/../secret",
    "#",
    "%23",
    "%3f",
    "%20",
    "&",
    "%",
];

/// A generator without memory of anything but its seed.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }

    fn target(&mut self) -> String {
        let count = 1 + self.next(8);
        let mut target = String::from("/");
        for _ in 0..count {
            target.push_str(PARTS[self.next(PARTS.len())]);
        }
        target
    }
}

/// What an application makes of a path that decodes it once, reads backslashes as slashes, merges slashes and resolves dots.
fn lenient(path: &str) -> String {
    let bytes = path.as_bytes();
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(hex.unwrap_or(bytes[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    let text = String::from_utf8_lossy(&decoded).replace('\\', "/");
    let mut segments = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

/// One round of targets over one proxy pair; how many were forwarded.
async fn round(seed: u64, count: u32) -> usize {
    let ground = Ground::start().await;
    let tls = ground.tls("orders", &[b"h2"]);
    let mut random = Random(seed);
    let mut wire = Wire::open(ground.dial(&tls).await).await;
    let mut forwarded = HashMap::new();
    for batch in 0..count / STREAMS {
        let mut bytes = Vec::new();
        for at in 0..STREAMS {
            let number = batch * STREAMS + at;
            let target = random.target();
            let block = [
                request("GET", &target),
                field("x-request-id", format!("fuzz-{number}")),
            ]
            .concat();
            bytes.extend(frame(HEADERS, WHOLE, number * 2 + 1, &block));
        }
        bytes.extend(window_update(0, 1 << 20));
        wire.send(&bytes).await;
        let mut open = STREAMS;
        while open > 0 {
            let ended = |frame: &Frame| {
                assert_ne!(frame.kind, GOAWAY, "code {}", frame.code());
                frame.kind == RST_STREAM || (frame.kind <= HEADERS && frame.flags & END_STREAM != 0)
            };
            let found = wire.until(PATIENCE, ended).await;
            assert!(matches!(found, Some(Some(_))), "{open} streams stay open");
            open -= 1;
        }
        wire.frames.clear();
        for seen in ground.recorder.seen() {
            let id = seen.headers.iter().find(|(name, _)| name == "x-request-id");
            let target = seen.line.split(' ').nth(1).unwrap();
            let target = target.rsplit_once('|').unwrap().0.to_owned();
            assert!(forwarded.insert(id.unwrap().1.clone(), target).is_none());
        }
        ground.recorder.clear();
    }
    let last = format!("fuzz-{}", count - 1);
    let _ = ground
        .agent
        .decided(|decision| decision.call_id == last || decision.call_id.starts_with("fuzz-"))
        .await;
    let mut judged = HashMap::new();
    let wanted = forwarded.len();
    // Records come in batches: wait until each forwarded call has its own.
    let waited = tokio::time::timeout(PATIENCE, async {
        while judged.len() < wanted {
            judged = ground
                .agent
                .decisions()
                .into_iter()
                .filter(|decision| decision.is_allowed)
                .map(|decision| (decision.call_id, decision.path))
                .collect();
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("a record of each call");
    for (id, target) in &forwarded {
        let path = target.split('?').next().unwrap();
        assert_eq!(judged.get(id).map(String::as_str), Some(path), "{id}");
        let lenient = lenient(path);
        let is_secret = lenient == "/secret" || lenient.starts_with("/secret/");
        assert!(
            !is_secret,
            "{target} is {lenient} for a lenient application"
        );
    }
    assert_eq!(ground.recorder.faults(), [""; 0]);
    wanted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_51_the_path_that_was_judged_is_forwarded_for_any_target() {
    let count =
        std::env::var("RAVELIN_FUZZ_TARGETS").map_or(TARGETS, |count| count.parse().unwrap());
    let mut forwarded = 0;
    for part in 0..count.div_ceil(TARGETS) {
        forwarded += round(0x9e37_79b9_7f4a_7c15 ^ u64::from(part), TARGETS.min(count)).await;
    }
    println!("{forwarded} of {count} targets were forwarded");
    assert!(forwarded > 0);
}

/// Names by which a caller could speak for a proxy or frame a message, each in several spellings.
const CLAIMS: [&str; 14] = [
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "forwarded",
    "x-real-ip",
    "x-spiffe-id",
    "x-ravelin-peer",
    "x-client-cert",
    "x-ssl-client-cert",
    "ssl-client-verify",
    "x-envoy-peer-metadata",
    "x-original-url",
];

fn spellings(name: &str) -> Vec<String> {
    let title: Vec<String> = name
        .split('-')
        .map(|word| word[..1].to_uppercase() + &word[1..])
        .collect();
    vec![
        name.to_owned(),
        name.to_uppercase(),
        title.join("-"),
        name.replace('-', "_"),
        name.replacen('-', "_", 1),
        title.join("_"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_50_no_spelling_of_a_claim_arrives_in_head_or_trailers() {
    let mut ground = Ground::start().await;
    let http1 = ground.tls("orders", &[b"http/1.1"]);
    let http2 = ground.tls("orders", &[b"h2"]);
    for name in CLAIMS {
        for spelling in spellings(name) {
            let fields = [
                format!("{spelling}: forged\r\n"),
                format!("{spelling}: forged\r\n{spelling}: forged\r\n"),
                format!("connection: {spelling}\r\n{spelling}: forged\r\n"),
                format!("{spelling}:\tforged \r\n"),
            ];
            for fields in fields {
                let bytes = format!(
                    "POST /t HTTP/1.1\r\nhost: inventory.shop\r\nconnection: close\r\n{fields}trailer: {spelling}\r\n\
                     te: trailers\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{spelling}: forged\r\n\r\n"
                );
                converse(ground.dial(&http1).await, bytes.as_bytes(), false)
                    .await
                    .unwrap();
            }
        }
        let mut wire = Wire::open(ground.dial(&http2).await).await;
        for (at, spelling) in spellings(name).into_iter().enumerate() {
            let spelling = spelling.to_lowercase();
            let stream = at as u32 * 2 + 1;
            let head = [
                request("POST", "/t"),
                field(&spelling, "forged"),
                field("te", "trailers"),
            ]
            .concat();
            let trailers = field(&spelling, "forged");
            let bytes = [
                frame(HEADERS, END_HEADERS, stream, &head),
                frame(HEADERS, WHOLE, stream, &trailers),
            ];
            wire.send(&bytes.concat()).await;
            let ended = |frame: &Frame| frame.stream == stream && frame.flags & END_STREAM != 0;
            assert!(matches!(wire.until(PATIENCE, ended).await, Some(Some(_))));
        }
    }
    let seen = ground.recorder.seen();
    let calls = CLAIMS.len() * 6 * 5;
    assert_eq!(seen.len(), calls);
    for seen in seen {
        let forged = seen
            .headers
            .iter()
            .find(|(_, value)| value.contains("forged"));
        assert_eq!(forged, None, "{}", seen.line);
        assert!(!seen.line.contains("forged"), "{}", seen.line);
        let stamps = seen
            .headers
            .iter()
            .filter(|(name, _)| name == "x-forwarded-client-cert");
        assert_eq!(stamps.count(), 1);
    }
    ground.assert_alive();
}
