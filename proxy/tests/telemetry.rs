//! What the proxies tell of calls, compared with what was sent: metrics, access log, spans; and that nothing hostile grows them.

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

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use harness::app::App;
use harness::client::{call, get, raw, request};
use harness::{Mesh, RunningProxy, id};
use ravelin_runtime::clock::{Clock as _, SystemClock, TestClock};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Answers by path in bytes, also what a well-behaved application never would: `/items/die` not at all, `/items/slow` without
/// an end; anything else with the `traceparent` that it got.
async fn odd_app() -> App {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&counter)));
        }
    });
    App {
        address,
        calls,
        task: None,
    }
}

async fn answer(mut stream: TcpStream, calls: Arc<AtomicU64>) {
    let mut read = Vec::new();
    loop {
        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
            continue;
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        read.drain(..end + 4);
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        while read.len() < length {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
        read.drain(..length);
        calls.fetch_add(1, Ordering::Relaxed);
        let path = head.split(' ').nth(1).unwrap();
        let traceparent = head
            .lines()
            .find_map(|line| line.strip_prefix("traceparent: "))
            .unwrap_or_default();
        let text: Vec<u8> = match path.split('?').next().unwrap() {
            "/items/die" => return,
            "/items/slow" => {
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n".to_vec()
            }
            _ => format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{traceparent}",
                traceparent.len()
            )
            .into_bytes(),
        };
        if stream.write_all(&text).await.is_err() {
            return;
        }
    }
}

/// The sum of all samples of `name` that have all of `labels`.
fn total(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    metrics
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum()
}

async fn metrics(proxy: &RunningProxy) -> String {
    call(proxy.admin.unwrap(), get("localhost", "/metrics"))
        .await
        .body
}

/// Reads the metrics until `is_there`.
async fn metrics_with(proxy: &RunningProxy, is_there: impl Fn(&str) -> bool) -> String {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let text = metrics(proxy).await;
        if is_there(&text) {
            return text;
        }
        assert!(tokio::time::Instant::now() < deadline, "not there: {text}");
    }
}

fn log_lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn log_to(path: &Path) -> String {
    format!("access_log = {{ to = '{}' }}", path.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_access_logs_of_both_ends_tell_what_was_sent() {
    let logs = tempfile::tempdir().unwrap();
    let [inventory_log, orders_log] = ["inventory", "orders"].map(|name| logs.path().join(name));
    let mut mesh = Mesh::start_before(
        odd_app().await,
        "http",
        &log_to(&inventory_log),
        &log_to(&orders_log),
    )
    .await;
    let outbound = mesh.outbound();
    for _ in 0..3 {
        let sent = request(
            "POST",
            "inventory.shop",
            "/items?token=canary",
            "12345",
            &[("authorization", "Basic canary")],
        );
        assert_eq!(call(outbound, sent).await.status, 200);
    }
    assert_eq!(
        call(outbound, get("inventory.shop", "/secret"))
            .await
            .status,
        403
    );
    assert_eq!(
        call(outbound, get("nowhere.shop", "/items")).await.status,
        404
    );
    assert_eq!(
        call(outbound, get("impostor.shop", "/items")).await.status,
        502
    );
    let dead = request("POST", "inventory.shop", "/items/die", "x", &[]);
    assert_eq!(call(outbound, dead).await.status, 502);
    let mut slow = TcpStream::connect(outbound).await.unwrap();
    slow.write_all(b"GET /items/slow HTTP/1.1\r\nhost: inventory.shop\r\n\r\n")
        .await
        .unwrap();
    let mut first = Vec::new();
    while !first.windows(5).any(|five| five == b"first") {
        assert!(slow.read_buf(&mut first).await.unwrap() > 0);
    }
    drop(slow);
    let mut bytes = TcpStream::connect(mesh.orders.tcp_outbound[0])
        .await
        .unwrap();
    bytes.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    bytes.read_exact(&mut back).await.unwrap();
    // Bytes are counted while the connection lives.
    let live = metrics_with(&mesh.inventory, |text| {
        total(text, "istio_tcp_sent_bytes_total", &[]) > 4.0
    })
    .await;
    assert_eq!(total(&live, "istio_tcp_connections_closed_total", &[]), 0.0);
    drop(bytes);

    let edge = [
        r#"source_workload="orders""#,
        r#"source_workload_namespace="shop""#,
        r#"source_principal="spiffe://example.org/ns/shop/sa/orders""#,
        r#"source_app="orders""#,
        r#"destination_workload="inventory""#,
        r#"destination_principal="spiffe://example.org/ns/shop/sa/inventory""#,
        r#"connection_security_policy="mutual_tls""#,
    ];
    for (proxy, reporter) in [
        (&mesh.inventory, r#"reporter="destination""#),
        (&mesh.orders, r#"reporter="source""#),
    ] {
        let is_over = |text: &str| {
            total(text, "istio_tcp_connections_closed_total", &[reporter]) == 1.0
                && total(text, "istio_requests_total", &[r#"response_flags="DC""#]) == 1.0
        };
        let text = metrics_with(proxy, is_over).await;
        let of = |name: &str, more: &[&str]| {
            let labels: Vec<&str> = edge
                .iter()
                .chain(&[reporter])
                .chain(more)
                .copied()
                .collect();
            total(&text, name, &labels)
        };
        let service = [
            r#"destination_service="inventory.shop""#,
            r#"destination_service_name="inventory""#,
            r#"destination_service_namespace="shop""#,
        ];
        let ok = [
            r#"request_protocol="http""#,
            r#"response_code="200""#,
            r#"response_flags="-""#,
        ];
        assert_eq!(
            of("istio_requests_total", &[&service[..], &ok].concat()),
            3.0,
            "{text}"
        );
        assert_eq!(of("istio_request_bytes_sum", &ok), 15.0);
        assert_eq!(of("istio_request_duration_milliseconds_count", &ok), 3.0);
        assert_eq!(
            of(
                "istio_request_duration_milliseconds_bucket",
                &[&ok[..], &[r#"le="+Inf""#]].concat()
            ),
            3.0
        );
        assert_eq!(
            of(
                "istio_requests_total",
                &[r#"response_code="403""#, r#"response_flags="-""#]
            ),
            1.0
        );
        assert_eq!(
            of(
                "istio_requests_total",
                &[r#"response_flags="DC""#, r#"response_code="200""#]
            ),
            1.0
        );
        assert_eq!(total(&text, "istio_request_messages_total", &[]), 0.0);
        for (name, want) in [("opened_total", 1.0), ("closed_total", 1.0)] {
            assert_eq!(
                of(
                    &format!("istio_tcp_connections_{name}"),
                    &[r#"request_protocol="tcp""#]
                ),
                want,
                "{reporter} {name}"
            );
        }
        for name in ["sent", "received"] {
            assert_eq!(
                of(&format!("istio_tcp_{name}_bytes_total"), &[]),
                5.0,
                "{reporter} {name}"
            );
        }
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    }
    let source = metrics(&mesh.orders).await;
    assert_eq!(
        total(
            &source,
            "istio_requests_total",
            &[
                r#"response_flags="NR""#,
                r#"response_code="404""#,
                r#"destination_service="unknown""#
            ]
        ),
        1.0
    );
    assert_eq!(
        total(
            &source,
            "istio_requests_total",
            &[
                r#"response_flags="UF""#,
                r#"response_code="502""#,
                r#"destination_service_name="impostor""#
            ]
        ),
        1.0
    );
    let destination = metrics(&mesh.inventory).await;
    assert_eq!(
        total(
            &destination,
            "istio_requests_total",
            &[r#"response_flags="UC""#, r#"response_code="502""#]
        ),
        1.0
    );

    mesh.orders.stop();
    mesh.inventory.stop();
    let rows = [
        (&inventory_log, 3, "/items", 200, "-", "via_upstream"),
        (&inventory_log, 1, "/secret", 403, "-", "no_allow_matched"),
        (
            &inventory_log,
            1,
            "/items/die",
            502,
            "UC",
            "upstream_failed",
        ),
        (&inventory_log, 1, "/items/slow", 200, "DC", "via_upstream"),
        (&orders_log, 3, "/items", 200, "-", "via_upstream"),
        (&orders_log, 1, "/items", 404, "NR", "no_route"),
        (&orders_log, 1, "/items", 502, "UF", "peer_untrusted"),
        (&orders_log, 1, "/items/slow", 200, "DC", "via_upstream"),
    ];
    for (log, count, path, code, flags, details) in rows {
        let found = log_lines(log)
            .into_iter()
            .filter(|line| line["path"] == path && line["response_code"] == code)
            .inspect(|line| {
                assert_eq!(
                    (
                        line["response_flags"].as_str(),
                        line["response_code_details"].as_str()
                    ),
                    (Some(flags), Some(details)),
                    "{line}"
                );
            })
            .count();
        assert_eq!(found, count, "{path} {code} in {}", log.display());
    }
    let line = log_lines(&inventory_log)
        .into_iter()
        .find(|line| line["path"] == "/items")
        .unwrap();
    assert_eq!(
        (&line["method"], &line["authority"], &line["bytes_received"]),
        (&"POST".into(), &"inventory.shop".into(), &5.into())
    );
    assert_eq!(line["peer"], id("orders"));
    assert_eq!(line["upstream_host"], mesh.app.address.to_string());
    let tcp = log_lines(&orders_log)
        .into_iter()
        .find(|line| line["protocol"] == "TCP")
        .unwrap();
    assert_eq!(
        (&tcp["bytes_sent"], &tcp["route_name"], &tcp["peer"]),
        (
            &5.into(),
            &"inventory-tcp.shop:7000".into(),
            &id("inventory").into()
        )
    );
    for log in [&inventory_log, &orders_log] {
        let text = std::fs::read_to_string(log).unwrap();
        assert!(
            !text.contains("canary"),
            "threat 41: neither queries nor credentials: {text}"
        );
    }
}

/// Answers each gRPC call over HTTP/2 with two messages and status 7 in trailers.
async fn grpc_app() -> App {
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    type Never = std::convert::Infallible;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = |request: http::Request<hyper::body::Incoming>| async {
        request.into_body().collect().await.unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "7".parse().unwrap());
        let frames = [
            Frame::data(Bytes::from_static(b"\0\0\0\0\x01a\0\0")),
            Frame::data(Bytes::from_static(b"\0\0\x01b")),
            Frame::trailers(trailers),
        ];
        let body = futures_util::stream::iter(frames.map(Ok::<_, Never>));
        let response = http::Response::builder().header("content-type", "application/grpc");
        Ok::<_, Never>(response.body(StreamBody::new(body)).unwrap())
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(answer);
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    App {
        address,
        calls: Arc::default(),
        task: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_call_is_counted_with_its_messages_and_its_status() {
    let mesh = Mesh::start_before(grpc_app().await, "http2", "", "").await;
    let body = "\0\0\0\0\x02ab\0\0\0\0\0\0\0\0\0\x01c";
    let grpc = |path: &str| {
        let headers = [
            ("content-type", "application/grpc+proto"),
            ("te", "trailers"),
        ];
        request("POST", "inventory.shop", path, body, &headers)
    };
    let mut client = harness::client::Http2::connect(mesh.outbound()).await;
    assert_eq!(client.send(grpc("/items/Get")).await.status, 200);
    let denied = client.send(grpc("/secret/Get")).await;
    assert_eq!(denied.headers["grpc-status"], "7");
    for (proxy, reporter) in [
        (&mesh.inventory, r#"reporter="destination""#),
        (&mesh.orders, r#"reporter="source""#),
    ] {
        let labels = [
            reporter,
            r#"request_protocol="grpc""#,
            r#"response_code="200""#,
            r#"response_flags="-""#,
            r#"grpc_response_status="7""#,
        ];
        let is_over = |text: &str| total(text, "istio_requests_total", &labels) == 2.0;
        let text = metrics_with(proxy, is_over).await;
        assert_eq!(total(&text, "istio_requests_total", &[]), 2.0, "{text}");
        // What is refused is not read to its end, and answered without a message.
        assert_eq!(total(&text, "istio_response_messages_total", &labels), 2.0);
        assert!(
            total(&text, "istio_request_messages_total", &labels) >= 3.0,
            "{text}"
        );
    }
    let decision = mesh
        .agent
        .decided(|decision| decision.path == "/items/Get")
        .await;
    assert_eq!(decision.outcome, "completed", "trailers end a call");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_38_hostile_hosts_paths_and_methods_make_no_series_and_no_broken_line() {
    let logs = tempfile::tempdir().unwrap();
    let [inventory_log, orders_log] = ["inventory", "orders"].map(|name| logs.path().join(name));
    let mut mesh = Mesh::start_before(
        App::http().await,
        "http",
        &log_to(&inventory_log),
        &log_to(&orders_log),
    )
    .await;
    let outbound = mesh.outbound();
    let hostile = |number: usize| {
        [
            format!(
                "GET /evil{number} HTTP/1.1\r\nhost: evil{number}.shop\r\nconnection: close\r\n\r\n"
            ),
            format!(
                "GET /items/evil{number}\"\\ HTTP/1.1\r\nhost: inventory.shop\r\nconnection: close\r\n\r\n"
            ),
            format!(
                "EVIL{} /items HTTP/1.1\r\nhost: inventory.shop\r\nconnection: close\r\n\r\n",
                "A".repeat(number)
            ),
            format!(
                "GET /items HTTP/1.1\r\nhost: inventory.shop\r\nuser-agent: \"}}{{\\\u{1}evil{number}\r\nconnection: close\r\n\r\n"
            ),
            format!(
                "GET /items HTTP/1.1\r\nhost: inventory.shop\r\nuser-agent: \u{202e}\u{9b}evil{number}\u{ff}\r\nx-request-id: evil {number}\r\nconnection: close\r\n\r\n"
            ),
        ]
    };
    let mut series = Vec::new();
    for number in 0..40 {
        for bytes in hostile(number) {
            let _ = raw(outbound, bytes.as_bytes()).await;
        }
        if number % 39 == 0 {
            let texts = [metrics(&mesh.orders).await, metrics(&mesh.inventory).await];
            assert!(
                texts
                    .iter()
                    .all(|text| !text.to_lowercase().contains("evil"))
            );
            series.push(texts.map(|text| {
                text.lines()
                    .filter(|line| line.starts_with("istio_requests_total"))
                    .count()
            }));
        }
    }
    assert!(series[1].iter().all(|count| *count <= 6), "{series:?}");
    mesh.orders.stop();
    mesh.inventory.stop();
    assert!(log_lines(&orders_log).len() >= 120 && log_lines(&inventory_log).len() >= 40);
    let text = std::fs::read_to_string(&orders_log).unwrap();
    assert!(
        !text
            .chars()
            .any(|letter| letter.is_control() && letter != '\n')
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_that_were_idle_for_ten_minutes_are_no_longer_told() {
    let folder = tempfile::tempdir().unwrap();
    ravelin_runtime::crypto::install();
    let clock = TestClock::new(SystemClock.now());
    let proxy = RunningProxy::start_at(
        &format!(
            "name = 'lonely'\nagent_socket = '{}/none.sock'\nworkers = 2\noutbound = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\n",
            folder.path().display()
        ),
        clock.shared(),
    );
    assert_eq!(
        call(proxy.outbound.unwrap(), get("a.shop", "/"))
            .await
            .status,
        503
    );
    let count = |text: &str| total(text, "istio_requests_total", &[r#"response_flags="NC""#]);
    metrics_with(&proxy, |text| count(text) == 1.0).await;
    clock.advance(Duration::from_secs(9 * 60));
    assert_eq!(count(&metrics(&proxy).await), 1.0);
    // One that counts again lives on.
    assert_eq!(
        call(proxy.outbound.unwrap(), get("a.shop", "/"))
            .await
            .status,
        503
    );
    metrics_with(&proxy, |text| count(text) == 2.0).await;
    for minutes in [9, 2, 1] {
        clock.advance(Duration::from_secs(minutes * 60));
        let text = metrics(&proxy).await;
        assert_eq!(count(&text), if minutes == 1 { 0.0 } else { 2.0 }, "{text}");
    }
    assert_eq!(
        call(proxy.outbound.unwrap(), get("a.shop", "/"))
            .await
            .status,
        503
    );
    metrics_with(&proxy, |text| count(text) == 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_66_the_admin_listener_tells_state_and_no_secrets() {
    let mesh = Mesh::start().await;
    let mut client = harness::client::Client::connect(mesh.outbound()).await;
    assert_eq!(
        client
            .send(get("inventory.shop", "/items"))
            .await
            .unwrap()
            .status,
        200
    );
    let admin = mesh.orders.admin.unwrap();
    let page = |path: &'static str| async move {
        let answer = call(admin, get("localhost", path)).await;
        assert_eq!(answer.status, 200, "{path}");
        let secret = ["PRIVATE", "eyJ", "BEGIN", "principals"];
        assert!(
            !secret.iter().any(|word| answer.body.contains(word)),
            "{path}: {}",
            answer.body
        );
        serde_json::from_str::<Value>(&answer.body).unwrap()
    };
    let status = page("/status").await;
    assert_eq!(status["ready"], true);
    assert_eq!(
        (&status["spiffe_id"], &status["mesh_revision"]),
        (&id("orders").into(), &1.into())
    );
    assert!(status["connections"].as_u64().unwrap() >= 2, "{status}");
    assert_eq!(status["decisions_lost"], 0);
    let routes = page("/routes").await;
    let route = &routes
        .as_array()
        .unwrap()
        .iter()
        .find(|route| route["service"] == "inventory.shop:80")
        .unwrap()
        .clone();
    assert_eq!(route["expected"][0], id("inventory"));
    assert_eq!(route["endpoints"][0], mesh.inventory.inbound[0].to_string());
    let clusters = page("/clusters").await;
    let cluster = &clusters[0];
    assert_eq!(
        (
            &cluster["service"],
            &cluster["connected"],
            &cluster["paused"]
        ),
        (&"inventory.shop:80".into(), &true.into(), &false.into())
    );
    page("/config").await;
    page("/connections").await;
}

#[cfg(feature = "otel")]
mod spans {
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use ravelin_proto::pb::opentelemetry::proto::collector::trace::v1 as collector;
    use ravelin_proto::pb::opentelemetry::proto::common::v1::any_value::Value;
    use ravelin_proto::pb::opentelemetry::proto::trace::v1::Span;
    use ravelin_proto::pb::opentelemetry::proto::trace::v1::span::SpanKind;
    use ravelin_proto::pb::opentelemetry::proto::trace::v1::status::StatusCode;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response, Status};

    use super::*;

    #[derive(Clone, Default)]
    struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

    #[tonic::async_trait]
    impl collector::trace_service_server::TraceService for Collector {
        async fn export(
            &self,
            request: Request<collector::ExportTraceServiceRequest>,
        ) -> Result<Response<collector::ExportTraceServiceResponse>, Status> {
            for resource in request.into_inner().resource_spans {
                let attributes = resource.resource.unwrap().attributes;
                let name = attributes
                    .iter()
                    .find(|pair| pair.key == "service.name")
                    .unwrap();
                let Some(Value::StringValue(name)) = name.value.clone().unwrap().value else {
                    panic!("no name");
                };
                for scope in resource.scope_spans {
                    let named = scope.spans.into_iter().map(|span| (name.clone(), span));
                    self.0.lock().unwrap().extend(named);
                }
            }
            Ok(Response::new(
                collector::ExportTraceServiceResponse::default(),
            ))
        }
    }

    impl Collector {
        async fn start() -> (Self, SocketAddr) {
            let collector = Self::default();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let service =
                collector::trace_service_server::TraceServiceServer::new(collector.clone());
            tokio::spawn(
                tonic::transport::Server::builder()
                    .add_service(service)
                    .serve_with_incoming(TcpListenerStream::new(listener)),
            );
            (collector, address)
        }

        fn spans(&self, of: &str) -> Vec<Span> {
            let spans = self.0.lock().unwrap();
            let own = spans.iter().filter(|(name, _)| name == of);
            own.map(|(_, span)| span.clone()).collect()
        }
    }

    fn text(span: &Span, key: &str) -> String {
        let pair = span.attributes.iter().find(|pair| pair.key == key);
        match pair.and_then(|pair| pair.value.clone()?.value) {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            _ => String::new(),
        }
    }

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_collector_gets_one_span_per_hop_of_each_sampled_call() {
        let (collector, address) = Collector::start().await;
        let tracing = format!("tracing = {{ endpoint = 'http://{address}', sample = 0.0 }}");
        let mut mesh = Mesh::start_before(odd_app().await, "http", &tracing, &tracing).await;
        let outbound = mesh.outbound();
        let with = |path: &str, flags: &str| {
            let parent = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
            request(
                "GET",
                "inventory.shop",
                path,
                "",
                &[("traceparent", &parent), ("tracestate", "vendor=1")],
            )
        };
        let sampled = call(outbound, with("/items/1?secret=1", "01")).await;
        let unsampled = call(outbound, with("/items/2", "00")).await;
        let denied = call(outbound, with("/secret", "01")).await;
        let untraced = call(outbound, get("inventory.shop", "/items/3")).await;
        let malformed = call(
            outbound,
            request(
                "GET",
                "inventory.shop",
                "/items/4",
                "",
                &[("traceparent", "00-x-y-01")],
            ),
        )
        .await;
        assert_eq!(denied.status, 403);
        mesh.orders.stop();
        mesh.inventory.stop();

        let (orders, inventory) = (collector.spans("orders"), collector.spans("inventory"));
        assert_eq!(
            (orders.len(), inventory.len()),
            (2, 2),
            "{orders:#?} {inventory:#?}"
        );
        let find = |spans: &[Span], path: &str| {
            spans
                .iter()
                .find(|span| text(span, "url.path") == path)
                .unwrap()
                .clone()
        };
        let (client, server) = (find(&orders, "/items/1"), find(&inventory, "/items/1"));
        assert_eq!(client.trace_id, server.trace_id);
        assert_eq!(
            client.parent_span_id,
            0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()
        );
        assert_eq!(server.parent_span_id, client.span_id);
        let span_of = |id: &[u8]| {
            id.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        assert_eq!(
            sampled.body,
            format!("00-{TRACE}-{}-01", span_of(&server.span_id)),
            "what the application saw"
        );
        assert_eq!(
            (client.kind(), server.kind()),
            (SpanKind::Client, SpanKind::Server)
        );
        assert_eq!(
            (client.name.as_str(), server.name.as_str()),
            ("GET inventory.shop:80", "GET")
        );
        assert_eq!(
            (
                text(&server, "http.response.status_code"),
                text(&server, "ravelin.peer")
            ),
            ("200".to_owned(), id("orders"))
        );
        assert!(
            server.start_time_unix_nano > 0
                && server.end_time_unix_nano >= server.start_time_unix_nano
        );
        let (client, server) = (find(&orders, "/secret"), find(&inventory, "/secret"));
        assert_eq!(text(&server, "ravelin.code"), "no_allow_matched");
        assert_eq!(client.status.unwrap().code(), StatusCode::Error);
        assert_eq!(
            server.status.unwrap().code(),
            StatusCode::Unset,
            "403 is an answer, not a failure of the server"
        );

        assert!(
            unsampled.body.starts_with(&format!("00-{TRACE}-")) && unsampled.body.ends_with("-00"),
            "{}",
            unsampled.body
        );
        for answer in [&untraced, &malformed] {
            assert!(
                answer.body.starts_with("00-") && answer.body.ends_with("-00"),
                "{}",
                answer.body
            );
            assert!(!answer.body.contains(TRACE));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn spans_that_no_collector_takes_are_counted_and_hold_up_no_call() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let tracing = format!("tracing = {{ endpoint = 'http://{address}', sample = 1.0 }}");
        let mesh = Mesh::start_with(&tracing).await;
        assert_eq!(
            call(mesh.outbound(), get("inventory.shop", "/items"))
                .await
                .status,
            200
        );
        let lost = |text: &str| text.contains("ravelin_proxy_spans_lost_total 1\n");
        metrics_with(&mesh.inventory, lost).await;
    }
}
