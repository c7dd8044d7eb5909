//! Who may connect to an inbound listener: mutual TLS or plain text, as PeerAuthentication says; what follows from it for
//! policies; and policies that are dry runs, audits, or hold for a while.

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

use harness::client::{Client, Http2, call, get, raw, request};
use harness::{Mesh, POLICIES};
use http::StatusCode;
use ravelin_runtime::clock::SystemClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn peers(mode: &str) -> String {
    format!(
        r#"
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: inventory
  namespace: shop
spec:
  selector:
    matchLabels:
      app: inventory
  mtls:
    mode: {mode}
"#
    )
}

/// A policy of `inventory` with these annotations, action and rules.
fn policy(name: &str, annotations: &str, action: &str, rules: &str) -> String {
    format!(
        r#"
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: {name}
  namespace: shop
  annotations: {{{annotations}}}
spec:
  selector:
    matchLabels:
      app: inventory
  action: {action}
  rules:
{rules}
"#
    )
}

/// Anybody may look at `/open`, and open TCP connections.
fn open() -> String {
    let rules = r#"    - to: [{operation: {paths: ["/open", "/slow"]}}]
    - to: [{operation: {ports: ["TCP_PORT"]}}]"#;
    policy("open", "", "ALLOW", rules)
}

const GET_OPEN: &[u8] = b"GET /open HTTP/1.1\r\nhost: inventory.shop\r\nx-forwarded-client-cert: URI=spiffe://example.org/ns/shop/sa/orders\r\nx-forwarded-for: 9.9.9.9\r\nconnection: close\r\n\r\n";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_82_each_mode_takes_what_it_names_and_closes_the_rest() {
    let mesh = Mesh::start().await;
    let [web, tcp] = [mesh.inventory.inbound[0], mesh.inventory.inbound[1]];
    let rows = [
        ("STRICT", false, true),
        ("PERMISSIVE", true, true),
        ("DISABLE", true, false),
    ];
    for ((mode, takes_plain, takes_tls), revision) in rows.into_iter().zip(2..) {
        let policies = [POLICIES.to_owned(), open(), peers(mode)].concat();
        mesh.publish(revision, &policies).await;
        let answer = text(&raw(web, GET_OPEN).await);
        assert_eq!(
            answer.starts_with("HTTP/1.1 200"),
            takes_plain,
            "{mode}: {answer}"
        );
        assert_eq!(answer.is_empty(), !takes_plain, "{mode}: {answer}");
        assert!(
            !answer.contains("x-forwarded"),
            "no identity header: {answer}"
        );
        if takes_plain {
            let answer = Http2::connect(web)
                .await
                .send(get("inventory.shop", "http://inventory.shop/open"))
                .await;
            assert_eq!(answer.status, StatusCode::OK, "{mode}, HTTP/2");
            let record = mesh.agent.decided(|record| record.path == "/open").await;
            assert_eq!(
                (record.peer.as_str(), record.is_allowed),
                ("", true),
                "{mode}"
            );
        } else {
            mesh.agent
                .decided(|record| record.code == "plaintext_refused")
                .await;
        }
        let answer = call(mesh.outbound(), get("inventory.shop", "/items")).await;
        assert_eq!(
            answer.status == StatusCode::OK,
            takes_tls,
            "{mode}: {}",
            answer.body
        );
        if !takes_tls {
            mesh.agent
                .decided(|record| record.code == "tls_refused")
                .await;
        }
        let mut stream = TcpStream::connect(tcp).await.unwrap();
        let mut echoed = Vec::new();
        let _ = stream.write_all(b"plain bytes").await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut echoed).await;
        assert_eq!(
            echoed == b"plain bytes",
            takes_plain,
            "{mode}: {}",
            text(&echoed)
        );
    }
    let metrics = call(mesh.inventory.admin.unwrap(), get("localhost", "/metrics"))
        .await
        .body;
    for policy in ["none", "mutual_tls"] {
        let label = format!("connection_security_policy=\"{policy}\"");
        assert!(
            metrics
                .lines()
                .any(|line| line.starts_with("istio_requests") && line.contains(&label)),
            "{metrics}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_85_a_peer_in_plain_text_is_nobody() {
    let mesh = Mesh::start().await;
    let nobody = policy(
        "nobody",
        "",
        "DENY",
        "    - from: [{source: {notPrincipals: [\"*\"]}}]\n      to: [{operation: {paths: [\"/slow\"]}}]",
    );
    mesh.publish(
        2,
        &[POLICIES.to_owned(), open(), nobody, peers("PERMISSIVE")].concat(),
    )
    .await;
    let web = mesh.inventory.inbound[0];
    for (path, code) in [("/items", "no_allow_matched"), ("/slow", "policy_denied")] {
        let answer = Client::connect(web)
            .await
            .send(get("inventory.shop", path))
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::FORBIDDEN, code),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_59_a_change_of_mode_ends_what_is_no_longer_accepted() {
    let mesh = Mesh::start().await;
    let policies = |mode: &str| [POLICIES.to_owned(), open(), peers(mode)].concat();
    mesh.publish(2, &policies("PERMISSIVE")).await;
    let mut slow = TcpStream::connect(mesh.inventory.inbound[0]).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: inventory.shop\r\n\r\n")
        .await
        .unwrap();
    let mut got = Vec::new();
    while !text(&got).contains("first") {
        assert_ne!(slow.read_buf(&mut got).await.unwrap(), 0);
    }
    let mut echo = TcpStream::connect(mesh.inventory.inbound[1]).await.unwrap();
    let mut four = [0; 4];
    echo.write_all(b"ping").await.unwrap();
    echo.read_exact(&mut four).await.unwrap();
    let mut by_tls = TcpStream::connect(mesh.orders.tcp_outbound[0])
        .await
        .unwrap();
    by_tls.write_all(b"ping").await.unwrap();
    by_tls.read_exact(&mut four).await.unwrap();

    mesh.publish(3, &policies("STRICT")).await;
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest).await;
    assert_eq!(
        echo.read(&mut four).await.unwrap_or(0),
        0,
        "plain bytes end"
    );
    by_tls.write_all(b"pong").await.unwrap();
    by_tls.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"pong", "mutual TLS goes on");

    mesh.publish(4, &policies("DISABLE")).await;
    assert_eq!(
        by_tls.read(&mut four).await.unwrap_or(0),
        0,
        "mutual TLS ends"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_60_no_first_bytes_make_strict_answer_in_plain_text() {
    let mesh = Mesh::start().await;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    let mut samples: Vec<Vec<u8>> = (0..=255_u8).map(|first| vec![first; 40]).collect();
    for round in 0..600_usize {
        let mut bytes: Vec<u8> = (0..round % 97 + 1).map(|_| random()).collect();
        if round % 3 == 0 {
            bytes.splice(0..0, [0x16, 0x03, random() % 5]);
        }
        samples.push(bytes);
    }
    for head in [
        "GET / HTTP/1.1\r\nhost: inventory.shop\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\r\n\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    ] {
        samples.push(head.as_bytes().to_vec());
        samples.push([&[0x16][..], head.as_bytes()].concat());
    }
    for address in &mesh.inventory.inbound {
        for chunk in samples.chunks(64) {
            let answers = chunk.iter().map(|bytes| async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut answer = Vec::new();
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut answer).await;
                (bytes, answer)
            });
            for (bytes, answer) in futures_util::future::join_all(answers).await {
                let is_alert = answer.starts_with(&[0x15, 0x03]);
                assert!(
                    answer.is_empty() || is_alert,
                    "{bytes:x?}: {}",
                    text(&answer)
                );
            }
        }
    }
    assert_eq!(mesh.app.calls.load(std::sync::atomic::Ordering::Relaxed), 0);
    mesh.agent
        .decided(|record| record.code == "plaintext_refused")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_36_the_client_behind_trusted_proxies_is_judged_and_recorded() {
    let mesh = Mesh::start_with("num_trusted_proxies = 1").await;
    let rule = "    - from: [{source: {remoteIpBlocks: [\"9.9.9.0/24\"]}}]\n      to: [{operation: {paths: [\"/open\"]}}]";
    let from = policy("from", "", "ALLOW", rule);
    mesh.publish(
        2,
        &[POLICIES.to_owned(), from, peers("PERMISSIVE")].concat(),
    )
    .await;
    let rows: [(&[(&str, &str)], u16); 5] = [
        (&[("x-forwarded-for", "9.9.9.9")], 200),
        (&[("x-forwarded-for", "1.1.1.1, 9.9.9.8")], 200),
        (&[("x-forwarded-for", "9.9.9.9, 1.1.1.1")], 403),
        (
            &[
                ("x-forwarded-for", "9.9.9.9"),
                ("x-forwarded-for", "1.1.1.1"),
            ],
            403,
        ),
        (&[], 403),
    ];
    for (headers, status) in rows {
        let asked = request("GET", "inventory.shop", "/open", "", headers);
        let answer = call(mesh.inventory.inbound[0], asked).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?}");
        assert!(!answer.body.contains("x-forwarded-for"));
    }
    let record = mesh
        .agent
        .decided(|record| record.is_allowed && record.path == "/open")
        .await;
    assert_eq!(record.remote_address, "9.9.9.9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_7_and_64_audited_calls_are_always_recorded_and_dry_runs_are_counted() {
    let mesh = Mesh::start_with("decision_sample_allowed = 0.0").await;
    let audit = policy(
        "look",
        "",
        "AUDIT",
        "    - to: [{operation: {paths: [\"/items/audited\"]}}]",
    );
    let dry = policy(
        "soon",
        "istio.io/dry-run: \"true\"",
        "DENY",
        "    - to: [{operation: {paths: [\"/items/*\"]}}]",
    );
    mesh.publish(2, &[POLICIES.to_owned(), audit, dry].concat())
        .await;
    for path in ["/items", "/items/other", "/items/audited"] {
        let answer = call(mesh.outbound(), get("inventory.shop", path)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
    let record = mesh
        .agent
        .decided(|record| record.path == "/items/audited")
        .await;
    assert!(record.is_audited && record.is_allowed);
    let dry_run = record.dry_run.unwrap();
    assert_eq!(
        (
            dry_run.is_allowed,
            dry_run.code.as_str(),
            dry_run.policy.as_str(),
            dry_run.rule
        ),
        (false, "policy_denied", "shop/soon", 1)
    );
    assert_eq!(
        mesh.agent.decisions().len(),
        1,
        "the others are not in the sample"
    );
    let metrics = call(mesh.inventory.admin.unwrap(), get("localhost", "/metrics"))
        .await
        .body;
    for line in [
        "ravelin_proxy_dry_run_total{result=\"denied\"} 2",
        "ravelin_proxy_dry_run_total{result=\"allowed\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_59_calls_and_connections_end_with_the_policy_that_allowed_them() {
    let mesh = Mesh::start().await;
    let end = SystemClock::shared().now().unix_secs() + 4;
    let end = ravelin_proto::time::Timestamp::from_unix_secs(end).rfc3339();
    let rules = "    - to: [{operation: {paths: [\"/slow\"]}}]\n    - to: [{operation: {ports: [\"TCP_PORT\"]}}]";
    let while_open = policy(
        "glass",
        &format!("ravelin.dev/not-after: \"{end}\""),
        "ALLOW",
        rules,
    );
    let policies = [harness::DENY_ALL.to_owned(), while_open].concat();
    mesh.publish(2, &policies).await;
    let mut slow = TcpStream::connect(mesh.outbound()).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: inventory.shop\r\n\r\n")
        .await
        .unwrap();
    let mut got = Vec::new();
    while !text(&got).contains("first") {
        assert_ne!(slow.read_buf(&mut got).await.unwrap(), 0, "{}", text(&got));
    }
    let mut echo = TcpStream::connect(mesh.orders.tcp_outbound[0])
        .await
        .unwrap();
    let mut four = [0; 4];
    echo.write_all(b"ping").await.unwrap();
    echo.read_exact(&mut four).await.unwrap();
    let _ = slow.read_to_end(&mut got).await;
    assert_eq!(echo.read(&mut four).await.unwrap_or(0), 0);
    for protocol in ["http", "tcp"] {
        let record = mesh
            .agent
            .decided(|record| record.protocol == protocol && record.reason.starts_with("cut: "))
            .await;
        assert!(
            record.is_audited,
            "a policy with a window decided: {record:?}"
        );
    }
    let answer = call(mesh.outbound(), get("inventory.shop", "/slow")).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::FORBIDDEN, "no_allow_matched")
    );
}
