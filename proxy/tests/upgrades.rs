//! Upgrades through two proxies: bytes after a 101, over HTTP/2 between the proxies and over HTTP/1.1, under policy to
//! their end.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod harness;

use std::net::SocketAddr;
use std::time::Duration;

use harness::tunnel_app::TunnelApp;
use harness::{DENY_ALL, Mesh, POLICIES, id};
use ravelin_proto::pb::ravelin::v1 as pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// Sends `bytes` and reads the answer's head.
async fn open(address: SocketAddr, bytes: &[u8]) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut head = Vec::new();
    let reading = async {
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap() == 1 {
            head.push(byte[0]);
        }
    };
    timeout(PATIENCE, reading).await.expect("an answer in time");
    (stream, String::from_utf8(head).unwrap())
}

fn wish(path: &str, protocol: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: inventory.shop\r\nconnection: Upgrade\r\nupgrade: {protocol}\r\n\r\n"
    )
}

async fn read_exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(PATIENCE, stream.read_exact(&mut bytes))
        .await
        .expect("bytes in time")
        .unwrap();
    bytes
}

async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A cut may come as a reset.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("an end in time");
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_carries_every_byte_also_those_that_come_with_the_heads() {
    let app = TunnelApp::start().await;
    let mesh = Mesh::start_for(app.address, "http", "").await;
    // The first bytes come in one write with the head, and the application's with its 101.
    let wish = wish("/items/echo", "Echo") + "hello ";
    let (mut stream, head) = open(mesh.outbound(), wish.as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let lower = head.to_ascii_lowercase();
    assert!(lower.contains("upgrade: echo\r\n"), "{head}");
    assert!(lower.contains("connection: upgrade\r\n"), "{head}");
    assert_eq!(read_exactly(&mut stream, 8).await, b"welcome ");
    assert_eq!(read_exactly(&mut stream, 6).await, b"hello ");
    let big: Vec<u8> = (0..=u8::MAX).cycle().take(1_000_000).collect();
    let (mut read, mut write) = stream.into_split();
    let sent = big.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write
    });
    let mut back = vec![0; big.len()];
    timeout(PATIENCE, read.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    assert!(back == big, "the bytes come back as they were sent");
    // One direction ends, the other one still speaks.
    writing.await.unwrap().shutdown().await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, read.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, b"bye");
    let record = mesh.agent.decided(|record| record.status == 101).await;
    assert_eq!(
        (record.method.as_str(), record.path.as_str()),
        ("GET", "/items/echo")
    );
    assert_eq!(
        (record.code.as_str(), record.outcome.as_str()),
        ("allowed", "completed")
    );
    let heads = app.heads();
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert!(
        heads[0].to_ascii_lowercase().contains("upgrade: echo\r\n"),
        "{heads:?}"
    );
    assert!(heads[0].contains(&format!("URI={}", id("orders"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_an_upgrade_that_is_refused_or_not_taken_closes_the_connection() {
    let app = TunnelApp::start().await;
    let mesh = Mesh::start_for(app.address, "http", "").await;
    // What follows the wish must not be read as a call.
    let smuggled = "GET /items/smuggled HTTP/1.1\r\nhost: inventory.shop\r\n\r\n";
    let rows = [
        ("policy", wish("/secret", "echo"), 403, "no_allow_matched"),
        (
            "two protocols",
            wish("/items/echo", "echo, other"),
            501,
            "upgrade_not_supported",
        ),
        (
            "a version of http",
            wish("/items/echo", "HTTP/2.0"),
            501,
            "upgrade_not_supported",
        ),
        (
            "no upgrade by the application",
            wish("/items/refuse", "echo"),
            426,
            "",
        ),
        (
            "an answer in HTTP",
            wish("/items/plain", "echo"),
            502,
            "upgrade_declined",
        ),
        (
            "another protocol",
            wish("/items/other", "echo"),
            502,
            "upstream_switched_protocols",
        ),
        (
            "no service",
            wish("/", "echo").replace("inventory.shop", "nowhere.shop"),
            404,
            "no_route",
        ),
    ];
    for (name, wish, status, code) in rows {
        let bytes = wish + smuggled;
        let (mut stream, head) = open(mesh.outbound(), bytes.as_bytes()).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}")),
            "{name}: {head}"
        );
        let is_coded = head.contains(&format!("x-ravelin-code: {code}\r\n"));
        assert!(code.is_empty() || is_coded, "{name}: {head}");
        assert!(head.contains("connection: close\r\n"), "{name}: {head}");
        let rest = read_to_end(&mut stream).await;
        assert!(!rest.windows(5).any(|part| part == b"HTTP/"), "{name}");
    }
    let smuggled = |head: &String| head.contains("smuggled");
    assert!(!app.heads().iter().any(smuggled), "{:?}", app.heads());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_59_a_tunnel_is_cut_when_policy_or_the_deny_list_no_longer_allows_it() {
    let app = TunnelApp::start().await;
    let mesh = Mesh::start_for(app.address, "http", "").await;
    let cut = async |mesh: &Mesh, what: &str| {
        let (mut stream, head) =
            open(mesh.outbound(), wish("/items/echo", "echo").as_bytes()).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{what}: {head}");
        read_exactly(&mut stream, 8).await;
        stream.write_all(b"still there").await.unwrap();
        assert_eq!(read_exactly(&mut stream, 11).await, b"still there");
        stream
    };
    let mut stream = cut(&mesh, "policy").await;
    mesh.publish(2, DENY_ALL).await;
    assert_eq!(read_to_end(&mut stream).await, b"", "policy");
    let record = mesh
        .agent
        .decided(|record| record.reason == "cut: no_allow_matched")
        .await;
    assert_eq!((record.status, record.outcome.as_str()), (101, "cancelled"));
    mesh.publish(3, POLICIES).await;
    let mut stream = cut(&mesh, "deny-list").await;
    mesh.agent.change("inventory", |snapshot| {
        snapshot.denylist = Some(pb::Denylist {
            number: 1,
            entries: vec![pb::DenylistEntry {
                subject: Some(pb::denylist_entry::Subject::SpiffeId(id("orders"))),
                ..pb::DenylistEntry::default()
            }],
        });
    });
    assert_eq!(read_to_end(&mut stream).await, b"", "deny-list");
    mesh.agent
        .decided(|record| record.reason == "cut: peer_denied")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_runs_on_in_a_drain_until_its_deadline() {
    let app = TunnelApp::start().await;
    let mut mesh = Mesh::start_for(app.address, "http", "drain = \"1s\"").await;
    let (mut stream, head) = open(mesh.outbound(), wish("/items/echo", "echo").as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    read_exactly(&mut stream, 8).await;
    mesh.inventory.drain.start();
    stream.write_all(b"in the drain").await.unwrap();
    assert_eq!(read_exactly(&mut stream, 12).await, b"in the drain");
    assert_eq!(read_to_end(&mut stream).await, b"");
    mesh.inventory.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_tunnels_than_one_connection_takes_open_a_second_one() {
    let app = TunnelApp::start().await;
    let mesh = Mesh::start_for(app.address, "http", "").await;
    let mut streams = Vec::new();
    for number in 0..300 {
        let (mut stream, head) =
            open(mesh.outbound(), wish("/items/echo", "echo").as_bytes()).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{number}: {head}");
        read_exactly(&mut stream, 8).await;
        streams.push(stream);
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let text = format!("{number:05}");
        stream.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(read_exactly(stream, 5).await, text.as_bytes());
    }
}
