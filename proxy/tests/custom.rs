//! CUSTOM policies against real authorizers, by HTTP and by gRPC: who is asked what, what an answer may change, and what
//! happens without one.

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

use bytes::Bytes;
use harness::authorizer::{GrpcAuthorizer, HttpAuthorizer, Plan, header, no, yes};
use harness::client::{Answer, Client, call, get, request};
use harness::{Mesh, POLICIES, id};
use http::StatusCode;
use ravelin_proto::pb::envoy::config::core::v3::QueryParameter;
use ravelin_proto::pb::envoy::service::auth::v3 as auth;
use ravelin_proto::pb::envoy::r#type::v3::HttpStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Status;

/// POLICIES, and one that sends paths below `/items` to `provider`.
fn custom(provider: &str) -> String {
    format!(
        r#"{POLICIES}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: ask
  namespace: shop
spec:
  selector:
    matchLabels:
      app: inventory
  action: CUSTOM
  provider:
    name: {provider}
  rules:
    - to:
        - operation:
            paths: ["/never"]
    - to:
        - operation:
            paths: ["/items/*", "/forbidden"]
            ports: ["HTTP_PORT"]
"#
    )
}

fn http_provider(name: &str, port: u16, more: &str) -> String {
    format!(
        "    - name: {name}\n      envoyExtAuthzHttp:\n        service: 127.0.0.1\n        port: {port}\n{more}"
    )
}

fn grpc_provider(name: &str, port: u16, more: &str) -> String {
    format!(
        "    - name: {name}\n      envoyExtAuthzGrpc:\n        service: 127.0.0.1\n        port: {port}\n{more}"
    )
}

async fn mesh(providers: &[String], policies: &str) -> Mesh {
    let mut mesh = Mesh::start().await;
    mesh.config = format!("  extensionProviders:\n{}", providers.concat());
    let port = mesh.app.address.port().to_string();
    mesh.publish(2, &policies.replace("HTTP_PORT", &port)).await;
    mesh
}

const HTTP_FIELDS: &str = r#"        timeout: 10s
        pathPrefix: /check
        includeRequestHeadersInCheck: ["x-ask", "x-many"]
        includeAdditionalHeadersInCheck:
          x-from: ravelin
        headersToUpstreamOnAllow: ["x-user", "x-forwarded-client-cert", "content-length", "host"]
        headersToDownstreamOnAllow: ["x-shown"]
        headersToDownstreamOnDeny: ["x-why", "set-cookie"]
"#;

fn values<'a>(headers: &'a http::HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

fn brief(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_6_an_http_authorizer_is_asked_first_and_its_no_is_final() {
    let authorizer = HttpAuthorizer::start().await;
    let port = authorizer.address.port();
    let mesh = mesh(&[http_provider("web", port, HTTP_FIELDS)], &custom("web")).await;

    let asked = request(
        "POST",
        "inventory.shop",
        "/items/%61?q=1",
        "a body",
        &[
            ("x-ask", "yes"),
            ("x-many", "one"),
            ("x-many", "two"),
            ("x-other", "hidden"),
            ("authorization", "Basic b3JkZXJz"),
            ("x-user", "forged"),
        ],
    );
    authorizer.plan(Plan::Answer(
        200,
        vec![
            ("x-user", "alice"),
            ("x-forwarded-client-cert", "URI=spiffe://forged"),
            ("x-shown", "to the caller"),
            ("x-hidden", "from everybody"),
        ],
        "ignored",
    ));
    let answer = call(mesh.outbound(), asked).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert!(
        answer.body.starts_with("POST /items/a?q=1\n"),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("\nx-user: alice\n"), "{}", answer.body);
    assert!(answer.body.contains("\nbody: a body\n"), "{}", answer.body);
    assert!(!answer.body.contains("forged"), "{}", answer.body);
    assert!(answer.body.contains(&format!("URI={}", id("orders"))));
    assert_eq!(values(&answer.headers, "x-shown"), ["to the caller"]);
    assert_eq!(values(&answer.headers, "x-hidden"), Vec::<&str>::new());
    let seen = authorizer.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].method(), "POST");
    assert_eq!(seen[0].uri(), "/check/items/a?q=1");
    assert_eq!(seen[0].body(), &Bytes::new());
    let headers = seen[0].headers();
    for (name, want) in [
        ("host", vec!["inventory.shop"]),
        ("content-length", vec!["0"]),
        ("x-ask", vec!["yes"]),
        ("x-many", vec!["one", "two"]),
        ("x-from", vec!["ravelin"]),
        ("authorization", vec!["Basic b3JkZXJz"]),
        ("x-other", vec![]),
    ] {
        assert_eq!(values(headers, name), want, "{name}");
    }

    let answer = call(mesh.outbound(), get("inventory.shop", "/items")).await;
    assert_eq!(answer.status, StatusCode::OK, "no rule of CUSTOM matches");
    assert!(authorizer.seen().is_empty());
    let answer = call(mesh.outbound(), get("inventory.shop", "/forbidden")).await;
    assert_eq!(
        brief(&answer),
        (403, "no_allow_matched"),
        "a yes bypasses nothing"
    );

    authorizer.plan(Plan::Answer(
        302,
        vec![
            ("location", "https://login.example/"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-why", "log in"),
            ("x-ravelin-code", "allowed"),
            ("x-inside", "hidden"),
        ],
        "who are you?",
    ));
    let answer = call(mesh.outbound(), get("inventory.shop", "/items/1")).await;
    assert_eq!(brief(&answer), (302, "custom_denied"));
    assert_eq!(answer.body, "who are you?");
    for (name, want) in [
        ("location", vec!["https://login.example/"]),
        ("set-cookie", vec!["a=1", "b=2"]),
        ("x-why", vec!["log in"]),
        ("x-inside", vec![]),
    ] {
        assert_eq!(values(&answer.headers, name), want, "{name}");
    }
    let record = mesh
        .agent
        .decided(|record| record.code == "custom_denied")
        .await;
    assert_eq!(
        (
            record.policy.as_str(),
            record.rule,
            record.status,
            record.is_allowed
        ),
        ("shop/ask", 2, 302, false),
        "rule 10"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_62_a_grpc_authorizer_sees_the_whole_call_and_changes_it() {
    let authorizer = GrpcAuthorizer::start().await;
    let body = "        includeRequestBodyInCheck: {maxRequestBytes: 100, packAsBytes: true}\n";
    let provider = grpc_provider("rpc", authorizer.address.port(), body);
    let mesh = mesh(&[provider], &custom("rpc")).await;
    authorizer.plan(|_| {
        Some(Ok(yes(auth::OkHttpResponse {
            headers: vec![
                header("x-user", "alice", None),
                header("x-many", "three", Some(true)),
                header("x-forwarded-client-cert", "URI=spiffe://forged", None),
                header(":path", "/admin", None),
                header("host", "forged.shop", None),
            ],
            headers_to_remove: vec!["x-secret".into(), "host".into()],
            response_headers_to_add: vec![header("x-shown", "yes", None)],
            query_parameters_to_set: vec![QueryParameter {
                key: "user".into(),
                value: "a&b".into(),
            }],
            query_parameters_to_remove: vec!["debug".into()],
        })))
    });
    let asked = request(
        "PUT",
        "inventory.shop",
        "/items/1?debug=1&q=2",
        "the body",
        &[
            ("x-many", "one"),
            ("x-many", "two"),
            ("x-secret", "s"),
            ("x-user", "forged"),
        ],
    );
    let answer = call(mesh.outbound(), asked).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let got = &answer.body;
    assert!(got.starts_with("PUT /items/1?q=2&user=a%26b\n"), "{got}");
    for line in [
        "x-user: alice",
        "x-many: one",
        "x-many: two",
        "x-many: three",
        "host: inventory.shop",
        "body: the body",
    ] {
        assert!(got.contains(&format!("\n{line}\n")), "{line}: {got}");
    }
    assert!(
        !got.contains("forged") && !got.contains("x-secret"),
        "{got}"
    );
    assert_eq!(values(&answer.headers, "x-shown"), ["yes"]);

    let seen = authorizer.seen().remove(0).attributes.unwrap();
    assert_eq!(seen.source.as_ref().unwrap().principal, id("orders"));
    assert_eq!(
        seen.destination.as_ref().unwrap().principal,
        id("inventory")
    );
    let http = seen.request.unwrap().http.unwrap();
    assert_eq!(
        (
            http.method.as_str(),
            http.path.as_str(),
            http.host.as_str(),
            http.scheme.as_str()
        ),
        ("PUT", "/items/1?debug=1&q=2", "inventory.shop", "https")
    );
    assert_eq!(
        (http.raw_body.as_slice(), http.size),
        (b"the body".as_slice(), 8)
    );
    assert_eq!(http.headers["x-many"], "one,two", "advisory A6");
    assert_eq!(http.headers[":path"], "/items/1?debug=1&q=2");
    let each: Vec<_> = http.header_map.unwrap().headers;
    let each: Vec<_> = each
        .iter()
        .filter(|header| header.key == "x-many")
        .collect();
    assert_eq!(each.len(), 2, "advisory A6");

    authorizer.plan(|_| {
        Some(Ok(no(auth::DeniedHttpResponse {
            status: Some(HttpStatus { code: 429 }),
            headers: vec![header("retry-after", "9", None)],
            body: "slowly".into(),
        })))
    });
    let answer = call(mesh.outbound(), get("inventory.shop", "/items/1")).await;
    assert_eq!(brief(&answer), (429, "custom_denied"));
    assert_eq!(
        (answer.body.as_str(), values(&answer.headers, "retry-after")),
        ("slowly", vec!["9"])
    );
    authorizer.plan(|_| {
        let denied = no(auth::DeniedHttpResponse::default());
        Some(Ok(auth::CheckResponse {
            http_response: None,
            ..denied
        }))
    });
    let answer = call(mesh.outbound(), get("inventory.shop", "/items/1")).await;
    assert_eq!(brief(&answer), (403, "custom_denied"));
}

/// Provider, what happens, the plan that makes it happen, and the status and code that come of it.
type FailureRow<'a> = (&'a str, &'a str, &'a dyn Fn(), u16, &'a str);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_62_without_an_answer_a_call_is_refused_unless_the_provider_fails_open() {
    let (web, rpc) = (HttpAuthorizer::start().await, GrpcAuthorizer::start().await);
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = closed.local_addr().unwrap().port();
    drop(closed);
    let short = "        timeout: 300ms\n        statusOnError: \"503\"\n".replace('"', "");
    let open = format!("{short}        failOpen: true\n");
    let (web_port, rpc_port) = (web.address.port(), rpc.address.port());
    let providers = [
        http_provider("gone", nobody, ""),
        grpc_provider("gone-rpc", nobody, &short),
        http_provider("web", web_port, &short),
        grpc_provider("rpc", rpc_port, &short),
        http_provider("web-open", web_port, &open),
        grpc_provider("rpc-open", rpc_port, &open),
        grpc_provider("gone-open", nobody, &open),
    ];
    let mesh = mesh(&providers, &custom("gone")).await;
    let silent = || {
        web.plan(Plan::Hang);
        rpc.plan(|_| None);
    };
    let broken = || {
        web.plan(Plan::Garbage);
        rpc.plan(|_| Some(Err(Status::internal("broken"))));
    };
    let failing = || {
        web.plan(Plan::Answer(500, Vec::new(), "internal text"));
        rpc.plan(|_| Some(Ok(auth::CheckResponse::default())));
    };
    let contradictory = || {
        rpc.plan(|_| {
            let mut both = no(auth::DeniedHttpResponse::default());
            both.status = Some(ravelin_proto::pb::google::rpc::Status::default());
            Some(Ok(both))
        });
    };
    let long: &'static str = "no ".repeat(200_000).leak();
    let wordy = || web.plan(Plan::Answer(403, Vec::new(), long));
    let rows: [FailureRow<'_>; 14] = [
        ("gone", "nobody listens", &silent, 403, "custom_unreachable"),
        (
            "gone-rpc",
            "nobody listens",
            &silent,
            503,
            "custom_unreachable",
        ),
        ("web", "silence", &silent, 503, "custom_timeout"),
        ("rpc", "silence", &silent, 503, "custom_timeout"),
        ("web", "500", &failing, 503, "custom_bad_answer"),
        (
            "rpc",
            "an empty message",
            &failing,
            503,
            "custom_bad_answer",
        ),
        (
            "rpc",
            "yes and no",
            &contradictory,
            503,
            "custom_bad_answer",
        ),
        ("rpc", "an error", &broken, 503, "custom_bad_answer"),
        ("web", "garbage", &broken, 503, "custom_unreachable"),
        ("web-open", "silence", &silent, 200, ""),
        ("web-open", "a long no", &wordy, 403, "custom_denied"),
        ("rpc-open", "silence", &silent, 200, ""),
        ("rpc-open", "an empty message", &failing, 200, ""),
        ("gone-open", "nobody listens", &silent, 200, ""),
    ];
    let port = mesh.app.address.port().to_string();
    for ((provider, name, plan, status, code), revision) in rows.into_iter().zip(3..) {
        plan();
        mesh.publish(revision, &custom(provider).replace("HTTP_PORT", &port))
            .await;
        let path = format!("/items/{revision}");
        let answer = call(mesh.outbound(), get("inventory.shop", &path)).await;
        assert_eq!(brief(&answer), (status, code), "{provider}, {name}");
        assert!(!answer.body.contains("internal"), "{provider}, {name}");
        let record = mesh
            .agent
            .decided(|record| record.path == path && record.port != 0)
            .await;
        if status == 200 {
            assert!(record.reason.contains("fails open"), "{}", record.reason);
        } else {
            let by = (record.policy.as_str(), record.rule, record.code.as_str());
            assert_eq!(by, ("shop/ask", 2, code), "{provider}, {name}");
        }
    }
    let refused = call(mesh.outbound(), get("inventory.shop", "/forbidden")).await;
    assert_eq!(
        brief(&refused),
        (403, "no_allow_matched"),
        "failing open bypasses nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_62_an_authorizer_gets_as_much_of_the_body_as_is_configured_and_the_application_all() {
    let authorizer = HttpAuthorizer::start().await;
    let port = authorizer.address.port();
    let limit = |partial: bool| {
        format!(
            "        includeRequestBodyInCheck: {{maxRequestBytes: 8, allowPartialMessage: {partial}}}\n"
        )
    };
    let providers = [
        http_provider("whole", port, &limit(false)),
        http_provider("partial", port, &limit(true)),
    ];
    let mesh = mesh(&providers, &custom("whole")).await;
    let port = mesh.app.address.port().to_string();
    let long = "0123456789".repeat(20_000);
    let rows = [
        ("whole", "12345678", 200, Some(("12345678", "false"))),
        ("whole", "", 200, Some(("", "false"))),
        ("whole", "123456789", 413, None),
        ("partial", "123456789", 200, Some(("12345678", "true"))),
        ("partial", long.as_str(), 200, Some(("01234567", "true"))),
    ];
    for ((provider, body, status, want), revision) in rows.into_iter().zip(3..) {
        mesh.publish(revision, &custom(provider).replace("HTTP_PORT", &port))
            .await;
        let sent = request("POST", "inventory.shop", "/items/1", body, &[]);
        let answer = call(mesh.outbound(), sent).await;
        assert_eq!(answer.status.as_u16(), status, "{provider} {}", body.len());
        let seen = authorizer.seen();
        let got = seen.first().map(|seen| {
            let partial = seen.headers()["x-envoy-auth-partial-body"]
                .to_str()
                .unwrap();
            (std::str::from_utf8(seen.body()).unwrap(), partial)
        });
        assert_eq!(got, want, "{provider} {}", body.len());
        if status == 200 {
            assert!(answer.body.ends_with(&format!("\nbody: {body}\n")));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_57_a_connection_is_asked_about_before_a_byte_flows_and_by_grpc_alone() {
    let (web, rpc) = (HttpAuthorizer::start().await, GrpcAuthorizer::start().await);
    let providers = [
        http_provider("web", web.address.port(), ""),
        grpc_provider("rpc", rpc.address.port(), ""),
    ];
    let policies = |provider: &str| custom(provider).replace("\"HTTP_PORT\"", "\"TCP_PORT\"");
    let mesh = mesh(&providers, &policies("rpc")).await;
    async fn echoed(mesh: &Mesh) -> Vec<u8> {
        let mut stream = TcpStream::connect(mesh.orders.tcp_outbound[0])
            .await
            .unwrap();
        stream.write_all(b"ping").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }
    assert_eq!(echoed(&mesh).await, b"ping");
    let seen = rpc.seen().remove(0).attributes.unwrap();
    assert_eq!(seen.source.unwrap().principal, id("orders"));
    assert_eq!(seen.request, None);
    rpc.plan(|_| Some(Ok(no(auth::DeniedHttpResponse::default()))));
    assert_eq!(
        echoed(&mesh).await,
        b"",
        "rule 9: a refused connection is closed"
    );
    let record = mesh
        .agent
        .decided(|record| record.code == "custom_denied")
        .await;
    assert_eq!(
        (record.protocol.as_str(), record.policy.as_str()),
        ("tcp", "shop/ask")
    );
    mesh.publish(3, &policies("web")).await;
    assert_eq!(
        echoed(&mesh).await,
        b"ping",
        "an HTTP provider is no authorizer of TCP"
    );
    assert!(web.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_61_two_providers_or_a_service_that_nobody_knows_refuse_what_matches() {
    let authorizer = HttpAuthorizer::start().await;
    let port = authorizer.address.port();
    let own = "    - name: own\n      envoyExtAuthzHttp: {service: inventory.shop, port: 80, failOpen: true}\n";
    let providers = [
        http_provider("one", port, ""),
        http_provider("two", port, ""),
        own.to_owned(),
    ];
    let both = format!(
        "{}\n---\n{}",
        custom("one"),
        custom("two")
            .replace(POLICIES, "")
            .replace("name: ask", "name: ask-too")
    );
    let mesh = mesh(&providers, &both).await;
    let port = mesh.app.address.port().to_string();
    for (provider, revision) in [(None, 3), (Some("own"), 4)] {
        let policies = provider.map_or_else(|| both.clone(), custom);
        mesh.publish(revision, &policies.replace("HTTP_PORT", &port))
            .await;
        let answer = call(mesh.outbound(), get("inventory.shop", "/items/1")).await;
        assert_eq!(brief(&answer), (403, "bad_provider"), "{provider:?}");
        let answer = call(mesh.outbound(), get("inventory.shop", "/items")).await;
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "what does not match is not refused"
        );
    }
    assert!(authorizer.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_59_an_authorizer_is_asked_once_a_call_and_a_new_policy_still_cuts_it() {
    let authorizer = HttpAuthorizer::start().await;
    let provider = http_provider("web", authorizer.address.port(), "");
    let policies = custom("web").replace("\"/forbidden\"", "\"/slow\"");
    let mesh = mesh(&[provider], &policies).await;
    let port = mesh.app.address.port().to_string();
    let policies = policies.replace("HTTP_PORT", &port);
    let mut stream = TcpStream::connect(mesh.outbound()).await.unwrap();
    let head = b"GET /slow HTTP/1.1\r\nhost: inventory.shop\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains("first") {
        assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0);
    }
    assert_eq!(authorizer.seen().len(), 1);
    authorizer.plan(Plan::Answer(403, Vec::new(), ""));
    mesh.publish(3, &format!("{policies}\n")).await;
    let mut client = Client::connect(mesh.outbound()).await;
    let answer = client
        .send(get("inventory.shop", "/items/1"))
        .await
        .unwrap();
    assert_eq!(
        brief(&answer),
        (403, "custom_denied"),
        "a new call is asked about anew"
    );
    assert_eq!(authorizer.seen().len(), 1, "the call in flight is not");
    mesh.publish(4, harness::DENY_ALL).await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    mesh.agent
        .decided(|record| record.path == "/slow" && record.reason.starts_with("cut: "))
        .await;
}
