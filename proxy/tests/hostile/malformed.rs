//! Connections that are malformed, cut at any byte, or whose call panics (threat 63): they end alone, and leave nothing behind.

use std::convert::Infallible;
use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use ravelin_proxy::body::ProxyBody;
use ravelin_proxy::connections::{Carried, Connections, Direction, NewConnection};
use ravelin_proxy::serve::{Version, serve};
use ravelin_runtime::clock::SystemClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ground::{Ground, PATIENCE};
use crate::smuggling::{canary, converse};
use crate::wire::*;

/// Connections in one run; a million of them with `RAVELIN_MALFORMED=1000000`.
const CONNECTIONS: u32 = 10_000;
/// How much memory may have grown at the end: what the allocator keeps, not what a connection leaves.
const GROWTH: u64 = 12 * 1024 * 1024;

/// A conversation of three requests: a body with a length, one in chunks, none.
const TALK: &[u8] = b"POST /a HTTP/1.1\r\nhost: inventory.shop\r\ncontent-length: 4\r\n\r\nbody\
POST /b HTTP/1.1\r\nhost: inventory.shop\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n\
GET /c HTTP/1.1\r\nhost: inventory.shop\r\nconnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_63_a_caller_that_is_cut_at_any_byte_leaves_whole_requests_alone() {
    let mut ground = Ground::start().await;
    let tls = ground.tls("orders", &[b"http/1.1"]);
    let whole = ["POST /a|body", "POST /b|body", "GET /c|"];
    for is_inbound in [true, false] {
        for length in 0..=TALK.len() {
            ground.recorder.clear();
            let bytes = &TALK[..length];
            let is_cut = length < TALK.len();
            let answered = if is_inbound {
                converse(ground.dial(&tls).await, bytes, is_cut).await
            } else {
                converse(ground.dial_application().await, bytes, is_cut).await
            };
            let answered = answered.expect("an end");
            let seen = ground.recorder.lines();
            assert!(
                whole.starts_with(&seen.iter().map(String::as_str).collect::<Vec<_>>()),
                "{length}: {seen:?}"
            );
            assert!(
                seen.starts_with(&answered),
                "{length}: {answered:?} of {seen:?}"
            );
            assert!(is_cut || seen == whole, "{seen:?}");
        }
        assert_eq!(canary(&ground).await, None);
    }
    assert_eq!(ground.recorder.faults(), [""; 0]);
    ground.assert_alive();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_63_an_application_that_is_cut_at_any_byte_never_makes_a_whole_answer() {
    let mut ground = Ground::start().await;
    let answers: [&[u8]; 2] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nx-a: b\r\n\r\nseen: ok\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nseen\r\n5\r\n: ok\n\r\n0\r\n\r\n",
    ];
    for (number, answer) in answers.iter().enumerate() {
        for length in 0..=answer.len() {
            let path = format!("/cut/{number}/{length}");
            ground.recorder.answer(&path, &answer[..length], true);
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: inventory.shop\r\nconnection: close\r\n\r\n");
            let mut stream = ground.dial_application().await;
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = Vec::new();
            let read = timeout(PATIENCE, stream.read_to_end(&mut text))
                .await
                .expect("an end");
            let text = String::from_utf8_lossy(&text);
            let is_whole = read.is_ok()
                && text.starts_with("HTTP/1.1 200")
                && (text.ends_with("\r\n\r\nseen: ok\n") || text.ends_with("0\r\n\r\n"));
            // The last CR LF of the chunks ends nothing that was not told before.
            let may_be = length == answer.len();
            assert_eq!(is_whole, may_be, "{number} {length}: {text:?}");
        }
        assert_eq!(canary(&ground).await, None);
    }
    ground.assert_alive();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_an_early_answer_arrives_while_the_body_is_still_on_its_way() {
    let mut ground = Ground::start().await;
    let tls = ground.tls("orders", &[b"http/1.1"]);
    let head =
        b"POST /early HTTP/1.1\r\nhost: inventory.shop\r\ncontent-length: 1000000\r\n\r\npart";
    for is_inbound in [true, false] {
        let mut stream: Box<dyn Carrier> = if is_inbound {
            Box::new(ground.dial(&tls).await)
        } else {
            Box::new(ground.dial_application().await)
        };
        stream.write_all(head).await.unwrap();
        stream.flush().await.unwrap();
        let mut text = Vec::new();
        let answered = timeout(PATIENCE, async {
            while !text.ends_with(b"early") {
                assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0);
            }
        });
        answered.await.expect("an answer");
        drop(stream);
        assert_eq!(canary(&ground).await, None);
    }
    ground.assert_alive();
}

/// A first ClientHello, cut short: what a handshake that never ends looks like.
const HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4];

async fn misbehave(ground: &Ground, number: u32, tls: [&std::sync::Arc<rustls::ClientConfig>; 2]) {
    let plain = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(ground.inbound).await.unwrap();
        let _ = stream.write_all(bytes).await;
    };
    match number % 16 {
        0 => {
            let mut stream = ground.dial(tls[0]).await;
            let _ = stream
                .write_all(b"GET /t HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n")
                .await;
        }
        1 => {
            let mut stream = ground.dial(tls[1]).await;
            let _ = stream
                .write_all(&[PREFACE, &get(1, "/hang"), &frame(PING, 0, 0, b"x")].concat())
                .await;
        }
        2 => drop(ground.dial(tls[1]).await),
        3..6 => plain(HELLO).await,
        6..9 => plain(b"GET / HTTP/1.1\r\n\r\n").await,
        9..12 => plain(&number.to_be_bytes()).await,
        12 => {
            let mut stream = ground.dial_application().await;
            let _ = stream.write_all(b"GET /\0 HTTP/1.1\r\n\r\n").await;
        }
        13 => {
            let mut stream = ground.dial_application().await;
            let _ = stream
                .write_all(&[PREFACE, &frame(CONTINUATION, 0, 7, b"x")].concat())
                .await;
        }
        _ => plain(&[0x16, 3, 1, 0xff, 0xff, 0, 0, 0, 0]).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_63_malformed_connections_leave_memory_flat() {
    let count =
        std::env::var("RAVELIN_MALFORMED").map_or(CONNECTIONS, |count| count.parse().unwrap());
    let mut ground = Ground::start().await;
    let http1 = ground.tls("rogue", &[b"http/1.1"]);
    let http2 = ground.tls("rogue", &[b"h2"]);
    let mut warm = 0;
    for number in 0..count {
        if number == 2000 {
            warm = ground.inventory.resident();
        }
        misbehave(&ground, number, [&http1, &http2]).await;
        if number % 1000 == 0 {
            assert_eq!(canary(&ground).await, None);
        }
    }
    assert_eq!(canary(&ground).await, None);
    let grown = ground.inventory.resident().saturating_sub(warm);
    println!(
        "{count} connections: {} kB before, {} kB more after",
        warm / 1024,
        grown / 1024
    );
    assert!(grown < GROWTH, "{grown} bytes more");
    ground.assert_alive();
}

#[tokio::test]
async fn threat_63_a_panic_in_a_call_ends_its_connection_alone() {
    let local = tokio::task::LocalSet::new();
    let connections = Rc::new(Connections::default());
    let serve_one = |connections: &Rc<Connections>| {
        let (client, server) = tokio::io::duplex(4096);
        let registered = connections.register(NewConnection {
            direction: Direction::Outbound,
            protocol: "plain",
            address: ([127, 0, 0, 1], 1).into(),
            opened: SystemClock::shared().now(),
            peer: None,
            accepted_for: None,
            identity_generation: 0,
            mesh_revision: 0,
            own_expires_at: None,
            carried: Carried::Unjudged,
        });
        let service = service_fn(|request: Request<Incoming>| async move {
            assert_eq!(request.uri().path(), "/fine", "as the test wants it");
            Ok::<_, Infallible>(Response::new(ProxyBody::text("fine".into())))
        });
        tokio::task::spawn_local(async move {
            serve(
                server,
                Version::Http1 {
                    head_deadline: PATIENCE,
                },
                service,
                &registered,
            )
            .await
        });
        client
    };
    let talk = async {
        let mut ends = Vec::new();
        for path in ["/fine", "/panic", "/fine"] {
            let mut client = serve_one(&connections);
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            ends.push(text.ends_with("fine"));
        }
        connections.emptied().await;
        ends
    };
    let ends = timeout(PATIENCE, local.run_until(talk)).await.unwrap();
    assert_eq!(ends, [true, false, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_62_heads_beyond_the_limits_are_refused_by_status() {
    let mut ground = Ground::start().await;
    let http1 = ground.tls("orders", &[b"http/1.1"]);
    let http2 = ground.tls("orders", &[b"h2"]);
    let fields = |count: usize, size: usize| format!("x-a: {}\r\n", "b".repeat(size)).repeat(count);
    let rows = [
        ("many fields", "/t".to_owned(), fields(120, 10), "200"),
        ("too many fields", "/t".to_owned(), fields(129, 10), "431"),
        ("a long head", "/t".to_owned(), fields(1, 50_000), "200"),
        (
            "a head that is too long",
            "/t".to_owned(),
            fields(4, 50_000),
            "431",
        ),
        (
            "a long target",
            format!("/{}", "a".repeat(16_000)),
            String::new(),
            "200",
        ),
        (
            "a target that is too long",
            format!("/{}", "a".repeat(17_000)),
            String::new(),
            "414",
        ),
    ];
    for (name, target, fields, want) in &rows {
        let head = format!(
            "GET {target} HTTP/1.1\r\nhost: inventory.shop\r\nconnection: close\r\n{fields}\r\n"
        );
        for is_inbound in [true, false] {
            let mut stream: Box<dyn Carrier> = if is_inbound {
                Box::new(ground.dial(&http1).await)
            } else {
                Box::new(ground.dial_application().await)
            };
            let mut text = Vec::new();
            let talked = timeout(PATIENCE, async {
                // A side that refuses early may close before all is written.
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.flush().await;
                let _ = stream.read_to_end(&mut text).await;
            });
            talked.await.expect("an end");
            let status = String::from_utf8_lossy(&text)
                .get(9..12)
                .unwrap_or_default()
                .to_owned();
            assert_eq!(status, *want, "{name}, inbound {is_inbound}");
        }
    }
    let block = [
        request("GET", "/t"),
        field("x-a", "b".repeat(16_000)).repeat(5),
    ]
    .concat();
    let (first, rest) = block.split_at(16_000);
    let mut wire = Wire::open(ground.dial(&http2).await).await;
    wire.send(&frame(HEADERS, END_STREAM, 1, first)).await;
    for (at, part) in rest.chunks(16_000).enumerate() {
        let flags = if (at + 1) * 16_000 >= rest.len() {
            END_HEADERS
        } else {
            0
        };
        wire.send(&frame(CONTINUATION, flags, 1, part)).await;
    }
    let ended = |frame: &Frame| {
        frame.kind == GOAWAY
            || (frame.stream == 1 && frame.flags & END_STREAM != 0)
            || frame.kind == RST_STREAM
    };
    wire.until(PATIENCE, ended).await.expect("an end");
    assert_ne!(wire.status(1), Some(200));
    assert_eq!(canary(&ground).await, None);
    ground.assert_alive();
}
