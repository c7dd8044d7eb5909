//! Calls through two proxies: what is allowed, what is refused and why, and what the application sees.

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

use harness::client::{call, get, raw, request};
use harness::{Mesh, POLICIES, id};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowed_call_reaches_the_application_with_the_callers_identity() {
    let mesh = Mesh::start().await;
    let answer = call(mesh.outbound(), get("inventory.shop", "/items?x=1")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(
        answer.body.starts_with("GET /items?x=1\n"),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("host: inventory.shop\n"));
    let stamp = format!("x-forwarded-client-cert: By={};Hash=", id("inventory"));
    assert!(answer.body.contains(&stamp), "{}", answer.body);
    assert!(answer.body.contains(&format!("URI={}", id("orders"))));
    let decision = mesh
        .agent
        .decided(|decision| decision.path == "/items")
        .await;
    assert!(decision.is_allowed);
    assert_eq!(
        (
            decision.code.as_str(),
            decision.status,
            decision.outcome.as_str()
        ),
        ("allowed", 200, "completed")
    );
    assert_eq!(
        (decision.peer, decision.workload),
        (id("orders"), id("inventory"))
    );
    assert_eq!(
        (
            decision.policy.as_str(),
            decision.rule,
            decision.mesh_revision
        ),
        ("shop/inventory-allow", 1, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_a_status_a_code_and_a_decision_record() {
    let mesh = Mesh::start().await;
    let token = |audience: &str, life| mesh.jwt.token(&id("orders"), audience, life, "t1");
    let bearer = |token: String| format!("Bearer {token}");
    let rows = [
        (
            "policy",
            get("inventory.shop", "/secret"),
            403,
            "no_allow_matched",
        ),
        ("host", get("nowhere.shop", "/items"), 404, "no_route"),
        (
            "identity",
            get("impostor.shop", "/items"),
            502,
            "peer_untrusted",
        ),
        (
            "no token",
            request("POST", "inventory.shop", "/pay", "x", &[]),
            403,
            "no_allow_matched",
        ),
        (
            "expired",
            request(
                "POST",
                "inventory.shop",
                "/pay",
                "x",
                &[("authorization", &bearer(token("inventory", -600)))],
            ),
            401,
            "token_expired",
        ),
        (
            "audience",
            request(
                "POST",
                "inventory.shop",
                "/pay",
                "x",
                &[("authorization", &bearer(token("payments", 60)))],
            ),
            403,
            "token_audience",
        ),
    ];
    for (name, request, status, code) in rows {
        let answer = call(mesh.outbound(), request).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{name}: {}",
            answer.body
        );
        if status == 403 {
            assert!(
                answer.body.starts_with("RBAC: access denied"),
                "{name}: {}",
                answer.body
            );
        }
        let decision = mesh.agent.decided(|decision| decision.code == code).await;
        assert!(!decision.is_allowed, "{name}");
    }
    let answer = call(
        mesh.outbound(),
        request(
            "POST",
            "inventory.shop",
            "/pay",
            "amount=1",
            &[("authorization", &bearer(token("inventory", 60)))],
        ),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains("body: amount=1"));
    assert!(
        !answer.body.contains("authorization:"),
        "the token goes no further"
    );
    let decision = mesh
        .agent
        .decided(|decision| decision.path == "/pay" && decision.is_allowed)
        .await;
    assert_eq!(
        decision.request_principal,
        format!("spiffe://example.org/{}", id("orders"))
    );
    assert_eq!(decision.jti, "t1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_51_a_path_trick_never_reaches_the_application() {
    let mesh = Mesh::start().await;
    for trick in [
        "/items/..%2fadmin",
        "/items/%2e%2e/admin",
        "/items/../admin",
        "/items/..\\admin",
        "/items/%00",
    ] {
        let bytes =
            format!("GET {trick} HTTP/1.1\r\nhost: inventory.shop\r\nconnection: close\r\n\r\n");
        let answer =
            String::from_utf8_lossy(&raw(mesh.outbound(), bytes.as_bytes()).await).into_owned();
        let is_refused = answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 403");
        assert!(is_refused, "{trick}: {answer}");
    }
    assert_eq!(mesh.app.calls.load(std::sync::atomic::Ordering::Relaxed), 0);
    // What is judged is what arrives: `//..%2f` has one meaning here, inside what is allowed.
    let answer = call(
        mesh.outbound(),
        get("inventory.shop", "/items//..%2fadmin?a=%2f"),
    )
    .await;
    assert!(
        answer.body.starts_with("GET /items/admin?a=%2f\n"),
        "{}",
        answer.body
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_50_forged_identity_headers_are_removed_in_every_spelling() {
    let mesh = Mesh::start().await;
    let forged = [
        ("X-Forwarded-Client-Cert", "URI=spiffe://example.org/forged"),
        ("x_forwarded_client_cert", "URI=spiffe://example.org/forged"),
        ("X-Spiffe-Id", "spiffe://example.org/forged"),
        ("x_spiffe_id", "spiffe://example.org/forged"),
        ("Forwarded", "for=forged"),
        ("X-Forwarded-For", "forged"),
        ("X-Original-URL", "/forged"),
        ("X-Ravelin-Code", "forged"),
        ("Connection", "x-secret"),
        ("X-Secret", "forged"),
        ("Keep-Alive", "timeout=forged"),
        ("Proxy-Authorization", "forged"),
    ];
    let answer = call(
        mesh.outbound(),
        request("GET", "inventory.shop", "/items", "", &forged),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(!answer.body.contains("forged"), "{}", answer.body);
    assert_eq!(answer.body.matches("x-forwarded-client-cert").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_50_a_header_made_of_claims_is_judged_and_forwarded_as_the_token_tells_it() {
    let mesh = Mesh::start().await;
    let policies = POLICIES
        .replace(
            r#"audiences: ["inventory"]"#,
            r#"audiences: ["inventory"]
      outputClaimToHeaders: [{header: x-user-id, claim: sub}]"#,
        )
        .replace(
            r#"            paths: ["/pay"]
"#,
            r#"            paths: ["/pay"]
    - when:
        - key: request.headers[x-user-id]
          values: ["forged", "spiffe://example.org/ns/shop/sa/orders"]
      to:
        - operation:
            paths: ["/mine"]
"#,
        );
    mesh.publish(2, &policies).await;
    let token = mesh.jwt.token(&id("orders"), "inventory", 60, "j");
    let bearer = format!("Bearer {token}");
    let without_token = [("x-user-id", "forged"), ("x_user_id", "forged")];
    let with_token = [
        ("authorization", bearer.as_str()),
        ("x-user-id", "forged"),
        ("X_User-Id", "forged"),
    ];
    for (headers, want) in [
        (without_token.as_slice(), 403),
        (with_token.as_slice(), 200),
    ] {
        let answer = call(
            mesh.outbound(),
            request("GET", "inventory.shop", "/mine", "", headers),
        )
        .await;
        assert_eq!(answer.status, want, "{}", answer.body);
        assert!(!answer.body.contains("forged"), "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_52_53_54_ambiguous_heads_are_refused() {
    let mesh = Mesh::start().await;
    let rows = [
        (
            "two hosts",
            "GET /items HTTP/1.1\r\nhost: inventory.shop\r\nhost: payments.shop\r\n",
            400,
        ),
        ("no host", "GET /items HTTP/1.1\r\n", 400),
        (
            "userinfo",
            "GET /items HTTP/1.1\r\nhost: a@inventory.shop\r\n",
            400,
        ),
        (
            "absolute form against host",
            "GET http://payments.shop/items HTTP/1.1\r\nhost: inventory.shop\r\n",
            400,
        ),
        (
            "connect with content",
            "CONNECT inventory.shop:80 HTTP/1.1\r\nhost: inventory.shop:80\r\ncontent-length: 1\r\n",
            400,
        ),
        (
            "trace",
            "TRACE /items HTTP/1.1\r\nhost: inventory.shop\r\n",
            405,
        ),
        (
            "a method in lower case",
            "get /items HTTP/1.1\r\nhost: inventory.shop\r\n",
            400,
        ),
        (
            "override",
            "GET /items HTTP/1.1\r\nhost: inventory.shop\r\nx-http-method-override: DELETE\r\n",
            400,
        ),
        (
            "two lengths",
            "POST /items HTTP/1.1\r\nhost: inventory.shop\r\ncontent-length: 1\r\ncontent-length: 2\r\n",
            400,
        ),
        (
            "coding",
            "POST /items HTTP/1.1\r\nhost: inventory.shop\r\ntransfer-encoding: gzip, chunked\r\n",
            400,
        ),
        (
            "named",
            "GET /items HTTP/1.1\r\nhost: inventory.shop\r\nconnection: host\r\n",
            400,
        ),
        (
            "an upgrade to one of two",
            "GET /items HTTP/1.1\r\nhost: inventory.shop\r\nconnection: upgrade\r\nupgrade: websocket, other\r\n",
            501,
        ),
        (
            "expectation",
            "GET /items HTTP/1.1\r\nhost: inventory.shop\r\nexpect: magic\r\n",
            417,
        ),
    ];
    for (name, head, status) in rows {
        let bytes = format!("{head}connection: close\r\n\r\n");
        let answer =
            String::from_utf8_lossy(&raw(mesh.outbound(), bytes.as_bytes()).await).into_owned();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{name}: {answer}"
        );
    }
    assert_eq!(mesh.app.calls.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_60_plain_text_to_an_inbound_listener_is_closed_and_recorded() {
    let mesh = Mesh::start().await;
    for listener in &mesh.inventory.inbound {
        let answer = raw(
            *listener,
            b"GET /items HTTP/1.1\r\nhost: inventory.shop\r\n\r\n",
        )
        .await;
        assert_eq!(answer, b"", "nothing is answered in plain text");
    }
    let decision = mesh
        .agent
        .decided(|decision| decision.code == "plaintext_refused")
        .await;
    assert_eq!(
        (decision.protocol.as_str(), decision.is_allowed),
        ("tls", false)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_another_authority_is_refused_and_recorded() {
    let mesh = Mesh::start().await;
    let other = harness::authority::Authority::new(harness::TRUST_DOMAIN);
    let mut snapshot = mesh.snapshot("orders", 1, harness::POLICIES, &mesh.authority);
    snapshot.svid = Some(other.svid("/ns/shop/sa/orders"));
    snapshot.bundle_sequence = 2;
    mesh.agent.set("orders", snapshot);
    mesh.agent
        .acked("orders", |ack| ack.bundle_sequence == 2)
        .await;
    let answer = call(mesh.outbound(), get("inventory.shop", "/items")).await;
    assert!(answer.status.is_server_error(), "{}", answer.status);
    mesh.agent
        .decided(|decision| decision.code == "peer_untrusted" && decision.protocol == "tls")
        .await;
    assert_eq!(mesh.app.calls.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_tcp_is_carried_through_mutual_tls_and_judged_by_policy() {
    let mesh = Mesh::start().await;
    let mut stream = TcpStream::connect(mesh.orders.tcp_outbound[0])
        .await
        .unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"hello");
    drop(stream);
    let decision = mesh
        .agent
        .decided(|decision| decision.protocol == "tcp")
        .await;
    assert!(decision.is_allowed);
    assert_eq!(decision.peer, id("orders"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_without_configuration_refuses_calls_and_is_not_ready() {
    ravelin_runtime::crypto::install();
    let folder = tempfile::tempdir().unwrap();
    let proxy = harness::RunningProxy::start(&format!(
        "name = 'lonely'\nagent_socket = '{}/none.sock'\nworkers = 1\noutbound = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\n\
         [[inbound]]\nlisten = '127.0.0.1:0'\nforward = '127.0.0.1:9'\n",
        folder.path().display()
    ));
    let answer = call(proxy.outbound.unwrap(), get("inventory.shop", "/items")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "not_ready"));
    assert_eq!(raw(proxy.inbound[0], b"\x16\x03\x01").await, b"");
    assert_eq!(
        call(proxy.admin.unwrap(), get("x", "/readyz")).await.status,
        503
    );
    assert_eq!(
        call(proxy.admin.unwrap(), get("x", "/healthz"))
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listener_shows_metrics_configuration_and_connections_without_secrets() {
    let mesh = Mesh::start().await;
    call(mesh.outbound(), get("inventory.shop", "/items")).await;
    mesh.agent
        .decided(|decision| decision.path == "/items")
        .await;
    let admin = mesh.inventory.admin.unwrap();
    let metrics = call(admin, get("x", "/metrics")).await.body;
    assert!(
        metrics.contains("istio_requests_total{reporter=\"destination\""),
        "{metrics}"
    );
    let config = call(admin, get("x", "/config")).await.body;
    assert!(
        config.contains(&id("inventory")) && !config.contains("key"),
        "{config}"
    );
    let connections = call(admin, get("x", "/connections")).await.body;
    assert!(connections.contains(&id("orders")), "{connections}");
    assert_eq!(call(admin, get("x", "/readyz")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_may_speak_http_2_without_tls_to_its_proxy() {
    let mesh = Mesh::start().await;
    let mut client = harness::client::Http2::connect(mesh.outbound()).await;
    let mut request = request(
        "GET",
        "inventory.shop",
        "/items",
        "",
        &[("cookie", "a=1"), ("cookie", "b=2")],
    );
    request.headers_mut().remove("host");
    *request.uri_mut() = "http://inventory.shop/items".parse().unwrap();
    let answer = client.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(
        answer.body.contains("cookie: a=1; b=2\n"),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("host: inventory.shop\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_63_malformed_connections_disturb_nobody() {
    let mesh = Mesh::start().await;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let listeners = [
        mesh.outbound(),
        mesh.inventory.inbound[0],
        mesh.inventory.inbound[1],
    ];
    for round in 0..150_usize {
        let mut bytes: Vec<u8> = (0..round)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed.to_le_bytes()[0]
            })
            .collect();
        let start: &[u8] = [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
        ][round % 3];
        bytes.splice(0..0, start.iter().copied());
        let mut stream = TcpStream::connect(listeners[round % 2]).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    }
    assert_eq!(
        call(mesh.outbound(), get("inventory.shop", "/items"))
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_an_answer_that_changes_the_protocol_is_not_passed_on() {
    let mesh = Mesh::start().await;
    for _ in 0..2 {
        let answer = call(mesh.outbound(), get("inventory.shop", "/items/switch")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (502, "upstream_switched_protocols"),
            "{}",
            answer.body
        );
    }
    let decision = mesh
        .agent
        .decided(|decision| decision.path == "/items/switch" && decision.status == 502)
        .await;
    assert_eq!(decision.outcome, "failed");
    let answer = call(mesh.outbound(), get("inventory.shop", "/items")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_54_an_http2_connection_offers_few_streams() {
    let mesh = Mesh::start().await;
    let mut stream = TcpStream::connect(mesh.outbound()).await.unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "the first frame is SETTINGS");
    let mut settings = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
    stream.read_exact(&mut settings).await.unwrap();
    // RFC 9113 section 6.5.2: 3 is SETTINGS_MAX_CONCURRENT_STREAMS.
    let streams = settings
        .chunks(6)
        .find(|setting| setting[..2] == [0, 3])
        .map(|setting| u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]));
    assert_eq!(streams, Some(256));
}
