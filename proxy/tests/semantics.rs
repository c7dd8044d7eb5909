//! What HTTP has special rules for, through two proxies, for callers and applications of either version.

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

use bytes::Bytes;
use futures_util::StreamExt;
use harness::Mesh;
use harness::any_app::{AnyApp, Body, with_trailers};
use harness::tunnel_app::TunnelApp;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// One connection of the application that calls.
enum Caller {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Caller {
    async fn open(address: SocketAddr, is_http2: bool) -> Self {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
                .await
                .unwrap();
            tokio::spawn(connection);
            Self::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            Self::One(sender)
        }
    }

    async fn send(&mut self, method: Method, path: &str, body: Body) -> Response<Incoming> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        let headers = request.headers_mut();
        headers.insert("te", "trailers".parse().unwrap());
        headers.insert("trailer", "x-check".parse().unwrap());
        let answer = match self {
            Self::One(sender) => {
                headers.insert("host", "inventory.shop".parse().unwrap());
                headers.insert("connection", "te".parse().unwrap());
                *request.uri_mut() = path.parse().unwrap();
                sender.ready().await.unwrap();
                timeout(PATIENCE, sender.send_request(request)).await
            }
            Self::Two(sender) => {
                *request.uri_mut() = format!("http://inventory.shop{path}").parse().unwrap();
                timeout(PATIENCE, sender.send_request(request)).await
            }
        };
        answer.expect("an answer in time").unwrap()
    }
}

fn empty() -> Body {
    Empty::new().boxed()
}

async fn text(response: Response<Incoming>) -> String {
    let body = timeout(PATIENCE, response.into_body().collect());
    let bytes = body.await.expect("an end in time").unwrap().to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Every pairing of versions: of the caller, and of the application.
async fn each_pairing(check: impl AsyncFn(&str, &AnyApp, &Mesh, Caller)) {
    for (protocol, is_http2_app) in [("http", false), ("http2", true)] {
        let app = AnyApp::start().await;
        let mesh = Mesh::start_for(app.address, protocol, "").await;
        for is_http2 in [false, true] {
            let name = format!("caller {is_http2}, application {is_http2_app}");
            let caller = Caller::open(mesh.outbound(), is_http2).await;
            check(&name, &app, &mesh, caller).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_a_body_trailers_and_early_answers_pass_in_every_pairing() {
    each_pairing(async |name, _, _, mut caller| {
        let head = caller.send(Method::HEAD, "/items/sized", empty()).await;
        assert_eq!(head.status(), 200, "{name}");
        assert_eq!(head.headers()["content-length"], "10", "{name}");
        assert_eq!(text(head).await, "", "{name}");
        let refused = caller.send(Method::HEAD, "/admin", empty()).await;
        assert_eq!(refused.status(), 403, "{name}");
        assert_eq!(text(refused).await, "", "{name}");
        let sized = caller.send(Method::GET, "/items/sized", empty()).await;
        assert_eq!(text(sized).await, "0123456789", "{name}");
        for (path, status) in [
            ("/items/204", StatusCode::NO_CONTENT),
            ("/items/304", StatusCode::NOT_MODIFIED),
        ] {
            let answer = caller.send(Method::GET, path, empty()).await;
            assert_eq!(answer.status(), status, "{name}");
            assert_eq!(text(answer).await, "", "{name}");
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-check", "sum".parse().unwrap());
        trailers.insert("x-forwarded-client-cert", "forged".parse().unwrap());
        let body = with_trailers("abc".into(), trailers);
        let answer = caller.send(Method::POST, "/items/1", body).await;
        let body = timeout(PATIENCE, answer.into_body().collect())
            .await
            .unwrap()
            .unwrap();
        let seen = body
            .trailers()
            .and_then(|trailers| trailers.get("x-seen"))
            .cloned();
        assert_eq!(seen.expect(name), "sum", "{name}");
        assert_eq!(body.to_bytes(), "abc", "{name}");
    })
    .await;
    each_pairing(async |name, _, _, mut caller| {
        // A body that never ends: the answer does not wait for it.
        let first = futures_util::stream::once(async { Ok(Frame::data(Bytes::from("first"))) });
        let endless = StreamBody::new(first.chain(futures_util::stream::pending()));
        let answer = caller
            .send(Method::POST, "/items/early", BodyExt::boxed(endless))
            .await;
        assert_eq!(answer.status(), 409, "{name}");
        assert_eq!(text(answer).await, "too late", "{name}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_passed_on_before_the_next_one_is_there() {
    each_pairing(async |name, app, _, mut caller| {
        let answer = caller.send(Method::GET, "/items/events", empty()).await;
        assert_eq!(
            answer.headers()["content-type"],
            "text/event-stream",
            "{name}"
        );
        let mut body = answer.into_body();
        let mut read = String::new();
        while read != "data: 1\n\n" {
            let frame = timeout(PATIENCE, body.frame())
                .await
                .expect("the first event");
            let data = frame.unwrap().unwrap().into_data().unwrap();
            read.push_str(std::str::from_utf8(&data).unwrap());
        }
        app.more.notify_one();
        let rest = timeout(PATIENCE, body.collect()).await.unwrap().unwrap();
        assert_eq!(rest.to_bytes(), "data: 2\n\n", "{name}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_asked_for_only_where_the_call_goes_on() {
    let app = AnyApp::start().await;
    let mesh = Mesh::start_for(app.address, "http", "").await;
    for (host, want) in [
        ("inventory.shop", "HTTP/1.1 100 Continue\r\n"),
        ("nowhere.shop", "HTTP/1.1 404 Not Found\r\n"),
    ] {
        let mut stream = TcpStream::connect(mesh.outbound()).await.unwrap();
        let head = format!(
            "POST /items/1 HTTP/1.1\r\nhost: {host}\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut first = vec![0; want.len()];
        timeout(PATIENCE, stream.read_exact(&mut first))
            .await
            .expect("a line in time")
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&first), want, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extended_connect_of_an_application_is_an_upgrade_at_the_other_one() {
    let app = TunnelApp::start().await;
    let mesh = Mesh::start_for(app.address, "http", "").await;
    let Caller::Two(mut sender) = Caller::open(mesh.outbound(), true).await else {
        unreachable!();
    };
    let mut wish = async |path: &str| {
        let mut request = Request::new(empty());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = format!("http://inventory.shop{path}").parse().unwrap();
        request
            .extensions_mut()
            .insert(Protocol::from_static("websocket"));
        timeout(PATIENCE, sender.send_request(request))
            .await
            .unwrap()
            .unwrap()
    };
    let granted = wish("/items/echo").await;
    assert_eq!(granted.status(), 200);
    assert!(!granted.headers().contains_key("sec-websocket-accept"));
    let mut stream = TokioIo::new(hyper::upgrade::on(granted).await.unwrap());
    let mut welcome = [0; 8];
    timeout(PATIENCE, stream.read_exact(&mut welcome))
        .await
        .unwrap()
        .unwrap();
    stream.write_all(b"abc").await.unwrap();
    let mut back = [0; 3];
    timeout(PATIENCE, stream.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((&welcome, &back), (b"welcome ", b"abc"));
    let head = app.heads()[0].to_ascii_lowercase();
    assert!(head.starts_with("get /items/echo http/1.1\r\n"), "{head}");
    assert!(head.contains("sec-websocket-key: "), "{head}");
    for (path, status) in [
        ("/secret", 403),
        ("/items/plain", 502),
        ("/items/refuse", 426),
    ] {
        assert_eq!(wish(path).await.status(), status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_application_cannot_take_is_refused_by_name() {
    let app = AnyApp::start().await;
    let mesh = Mesh::start_for(app.address, "http2", "").await;
    let wish = "GET /items/1 HTTP/1.1\r\nhost: inventory.shop\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let answer = harness::client::raw(mesh.outbound(), wish.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
    assert!(
        answer.contains("x-ravelin-code: upgrade_not_supported\r\n"),
        "{answer}"
    );
    // gRPC to an application of HTTP/1.1: a status that a gRPC client understands.
    let mesh = Mesh::start_for(app.address, "http", "").await;
    let call = harness::client::request(
        "POST",
        "inventory.shop",
        "/items/1",
        "",
        &[("content-type", "application/grpc")],
    );
    let answer = harness::client::call(mesh.outbound(), call).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, ""));
    assert_eq!(answer.code(), "upstream_not_http2");
    assert_eq!(answer.headers["grpc-status"], "14");
}
