//! `curl` over either version of HTTP, to applications that speak either one.

use std::process::Command;

use ravelin_proxy::config::Protocol;
use ravelin_tests::node::{Node, NodeOptions};
use ravelin_tests::pair::serve_http;
use ravelin_tests::programs::{need, run};
use ravelin_tests::services::{Service, Services};
use tokio::task::JoinSet;

/// Status, version and body of what curl gets.
async fn curl(services: &Services, host: &str, path: &str, arguments: &[&str]) -> String {
    let url = format!("http://{}{path}", services.orders.outbound);
    let mut command = Command::new("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--noproxy",
            "*",
        ])
        .args(["--header", &format!("host: {host}")])
        .args(["--write-out", " %{http_version} %{http_code}"])
        .args(arguments)
        .arg(url);
    let output = tokio::task::spawn_blocking(move || run(&mut command));
    let output = output.await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{host}{path}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_over_http1_and_http2_reaches_applications_of_both_and_is_refused_by_policy() {
    if !need("curl") {
        return;
    }
    let mut apps = JoinSet::new();
    let node = Node::start(NodeOptions::default()).await;
    let one = Service::new("one", serve_http(&mut apps).await, Protocol::Http);
    let two = Service::new("two", serve_http(&mut apps).await, Protocol::Http2);
    let services = Services::start(&node, &[one, two]).await;
    let versions = [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")];
    for service in [one, two] {
        for (flag, version) in versions {
            let refused = curl(&services, &service.authority(), "/items", &[flag]).await;
            let want = format!("RBAC: access denied\n {version} 403");
            assert_eq!(refused, want, "{} {version}", service.name);
        }
    }
    services.allow(&node, &["/items", "/items/*"]).await;
    let body = "x".repeat(100_000);
    for service in [one, two] {
        for (flag, version) in versions {
            let name = format!("{} {version}", service.name);
            let host = service.authority();
            let posted = [
                flag,
                "--data-binary",
                &body,
                "--header",
                "expect: 100-continue",
            ];
            let answer = curl(&services, &host, "/items/1?a=b", &posted).await;
            assert!(
                answer.ends_with(&format!(" {version} 200")),
                "{name}: {answer}"
            );
            assert!(answer.contains("\"method\":\"POST\""), "{name}: {answer}");
            assert!(answer.contains("\"body_bytes\":100000"), "{name}: {answer}");
            assert!(answer.contains("/items/1?a=b"), "{name}: {answer}");
            let refused = curl(&services, &host, "/admin", &[flag]).await;
            assert!(
                refused.ends_with(&format!(" {version} 403")),
                "{name}: {refused}"
            );
            let head = curl(&services, &host, "/items", &[flag, "--head"]).await;
            assert!(head.ends_with(&format!(" {version} 200")), "{name}: {head}");
        }
    }
}
