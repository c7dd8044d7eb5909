//! How the application's connections reach its proxy: a listener for one service, CONNECT, and listeners to which
//! connections are redirected. The redirect itself is made in `tests/e2e/capture.rs`.

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

use harness::client::{Http2, call, get, raw, request};
use harness::{Mesh, RunningProxy};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_for_one_service_leads_there_whatever_the_host_says() {
    let mesh = Mesh::start().await;
    let listener = mesh.orders.http_outbound[0];
    for host in [
        "inventory.shop",
        "nowhere.example",
        "impostor.shop",
        "127.0.0.1:1",
    ] {
        let answer = call(listener, get(host, "/items")).await;
        assert_eq!(answer.status, StatusCode::OK, "{host}: {}", answer.body);
        assert!(
            answer.body.contains(&format!("host: {host}\n")),
            "{}",
            answer.body
        );
    }
    let answer = call(listener, get("inventory.shop", "/admin")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let answer = Http2::connect(listener)
        .await
        .send(get("nowhere.example", "http://nowhere.example/items"))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "HTTP/2 with prior knowledge");
    let answer = raw(listener, &closing("inventory.shop:80", "")).await;
    let text = String::from_utf8_lossy(&answer);
    assert!(
        text.starts_with("HTTP/1.1 405 "),
        "no tunnel from here: {text}"
    );
}

fn connect(target: &str) -> Vec<u8> {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes()
}

/// Opens a tunnel and reads the answer's head.
async fn tunnel(proxy: SocketAddr, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(&connect(target)).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let text = String::from_utf8(head).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{target}: {text}");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_opens_a_tunnel_that_speaks_what_the_service_declares() {
    let mesh = Mesh::start().await;
    let proxy = mesh.outbound();
    let mut echo = tunnel(proxy, "inventory-tcp.shop:7000").await;
    echo.write_all(b"\x00\xffhello").await.unwrap();
    let mut back = [0; 7];
    echo.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"\x00\xffhello", "bytes are carried as they are");

    for (path, want) in [("/items", "HTTP/1.1 200 "), ("/admin", "HTTP/1.1 403 ")] {
        let mut web = tunnel(proxy, "Inventory.Shop:80").await;
        let call = format!(
            "GET {path} HTTP/1.1\r\nhost: inventory.shop\r\nx-forwarded-client-cert: URI=spiffe://example.org/admin\r\nconnection: close\r\n\r\n"
        );
        web.write_all(call.as_bytes()).await.unwrap();
        let mut answer = String::new();
        web.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(want), "{path}: {answer}");
        assert!(
            !answer.contains("example.org/admin"),
            "parsed and cleaned: {answer}"
        );
    }

    let mut smuggler = tunnel(proxy, "inventory.shop:80").await;
    smuggler
        .write_all(&connect("inventory-tcp.shop:7000"))
        .await
        .unwrap();
    let mut answer = [0; 12];
    smuggler.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 405", "a tunnel opens no tunnel");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_55_connect_leads_to_services_of_the_mesh_alone() {
    let mesh = Mesh::start().await;
    let outbound = mesh.outbound();
    let own = outbound.to_string();
    let rows = [
        (
            "an unknown host",
            "nowhere.example:443",
            "HTTP/1.1 404 ",
            "no_route",
        ),
        (
            "another port",
            "inventory.shop:81",
            "HTTP/1.1 404 ",
            "no_route",
        ),
        (
            "the proxy itself",
            own.as_str(),
            "HTTP/1.1 404 ",
            "no_route",
        ),
        ("loopback", "127.0.0.1:22", "HTTP/1.1 404 ", "no_route"),
        ("loopback", "[::1]:22", "HTTP/1.1 404 ", "no_route"),
        (
            "metadata",
            "169.254.169.254:80",
            "HTTP/1.1 404 ",
            "no_route",
        ),
        (
            "no port",
            "inventory.shop",
            "HTTP/1.1 400 ",
            "target_form_refused",
        ),
        (
            "port 0",
            "inventory.shop:0",
            "HTTP/1.1 400 ",
            "host_malformed",
        ),
    ];
    for (name, target, status, code) in rows {
        let answer = raw(outbound, &closing(target, "")).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with(status), "{name}: {text}");
        assert!(
            text.contains(&format!("x-ravelin-code: {code}\r\n")),
            "{name}: {text}"
        );
    }
    for (name, header, code) in [
        ("content", "content-length: 5\r\n", "length_ambiguous"),
        (
            "another host",
            "host: impostor.shop:80\r\n",
            "host_mismatch",
        ),
    ] {
        let answer = raw(outbound, &closing("inventory.shop:80", header)).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(
            text.contains(&format!("x-ravelin-code: {code}\r\n")),
            "{name}: {text}"
        );
    }
    let record = mesh
        .agent
        .decided(|record| record.host == "nowhere.example:443")
        .await;
    assert_eq!(
        (record.method.as_str(), record.code.as_str()),
        ("CONNECT", "no_route")
    );
}

fn closing(target: &str, headers: &str) -> Vec<u8> {
    format!("CONNECT {target} HTTP/1.1\r\n{headers}connection: close\r\n\r\n").into_bytes()
}

/// The proxy of `orders` with a capture, to which nothing is redirected.
async fn capturing(mesh: &Mesh) -> RunningProxy {
    let proxy = RunningProxy::start(&format!(
        r#"
        name = "orders"
        agent_socket = "{}"
        workers = 2
        outbound = "127.0.0.1:0"
        [capture]
        outbound = true
        inbound = 0
        [[capture.workload_ports]]
        port = 8080
        "#,
        mesh.agent.socket.display()
    ));
    let answered = async {
        while call(proxy.outbound.unwrap(), get("inventory.shop", "/items"))
            .await
            .status
            != StatusCode::OK
        {
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, answered)
        .await
        .expect("the proxy becomes ready");
    proxy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_55_what_is_dialled_and_not_redirected_is_the_forward_proxys_or_refused() {
    let mesh = Mesh::start().await;
    let proxy = capturing(&mesh).await;
    let outbound = proxy.outbound.unwrap();
    let twin = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, outbound.port()));
    let mut dialled = vec![outbound];
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        dialled.push(twin);
    }
    for address in dialled {
        let answer = call(address, get("inventory.shop", "/items")).await;
        assert_eq!(answer.status, StatusCode::OK, "{address}");
        let absolute = request(
            "GET",
            "inventory.shop",
            "http://inventory.shop/items",
            "",
            &[],
        );
        assert_eq!(
            call(address, absolute).await.status,
            StatusCode::OK,
            "{address}"
        );
    }
    let inbound = proxy.captured_inbound.unwrap();
    let itself = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, inbound.port()));
    let mut byte = [0];
    let answer = match TcpStream::connect(itself).await {
        Ok(mut stream) => stream.read(&mut byte).await,
        Err(error) => Err(error),
    };
    let reset = answer.unwrap_err().kind();
    assert_eq!(reset, std::io::ErrorKind::ConnectionReset);
    let record = mesh
        .agent
        .decided(|record| record.code == "destination_itself")
        .await;
    assert_eq!(record.port, u32::from(inbound.port()));
}
