//! Tokens of issuers outside the mesh, whose keys the proxy fetches: found, rotated, and out of reach.

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

use std::time::Duration;

use harness::Mesh;
use harness::client::{Answer, call, get, request};
use harness::issuer::Issuer;
use tokio::time::timeout;

const WAIT: Duration = Duration::from_secs(20);

fn policies(rule: &str) -> String {
    format!(
        r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: inventory}}}}
  jwtRules:
    - {rule}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: people, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: inventory}}}}
  rules:
    - from: [{{source: {{requestPrincipals: ["*"]}}}}]
"#
    )
}

async fn ask(mesh: &Mesh, token: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str())];
    call(
        mesh.outbound(),
        request("GET", "inventory.shop", "/items", "", &headers),
    )
    .await
}

/// Asks until the answer has this status; the codes of the refusals on the way.
async fn ask_until(mesh: &Mesh, token: &str, status: u16) -> Vec<String> {
    let asking = async {
        let mut codes = Vec::new();
        loop {
            let answer = ask(mesh, token).await;
            if answer.status == status {
                return codes;
            }
            codes.push(answer.code().to_owned());
        }
    };
    timeout(WAIT, asking).await.unwrap()
}

async fn admin(mesh: &Mesh, path: &str) -> String {
    call(mesh.inventory.admin.unwrap(), get("x", path))
        .await
        .body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_76_a_rotated_key_of_an_issuer_is_fetched_when_a_token_names_it() {
    let issuer = Issuer::start().await;
    for (revision, rule) in [
        (2, format!("issuer: {}", issuer.url())),
        (
            3,
            format!("{{issuer: '{0}', jwksUri: '{0}/keys'}}", issuer.url()),
        ),
    ] {
        issuer.rotate("k1");
        let mesh = Mesh::start_with(
            r#"jwks = { allow_private_hosts = ["127.0.0.1"], refetch_pause = "100ms" }"#,
        )
        .await;
        mesh.publish(revision, &policies(&rule)).await;
        let old = issuer.token("alice");
        let codes = ask_until(&mesh, &old, 200).await;
        assert!(
            codes.iter().all(|code| code == "token_keys_missing"),
            "a call waits for no key: {codes:?}"
        );
        assert_eq!(ask(&mesh, &old).await.status, 200);

        issuer.rotate("k2");
        assert_eq!(ask(&mesh, &old).await.status, 200, "nobody knows yet");
        let codes = ask_until(&mesh, &issuer.token("alice"), 200).await;
        assert!(
            codes.iter().all(|code| code == "token_key_missing"),
            "{codes:?}"
        );
        let codes = ask_until(&mesh, &old, 401).await;
        assert_eq!(codes, [""; 0], "what was remembered went with its key");
        let shown = admin(&mesh, "/jwks").await;
        assert!(shown.contains(r#""state":"fresh""#), "{shown}");
        assert!(shown.contains(r#""key_ids":["k2"]"#), "{shown}");
        let metrics = admin(&mesh, "/metrics").await;
        assert!(
            metrics.contains(r#"ravelin_proxy_jwks_fetches_total{result="ok"}"#),
            "{metrics}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_an_issuer_on_a_private_address_is_not_asked_and_its_tokens_are_refused() {
    let issuer = Issuer::start().await;
    let mesh = Mesh::start().await;
    let rule = format!("issuer: {}", issuer.url());
    mesh.publish(2, &policies(&rule)).await;
    let refused = async { while !admin(&mesh, "/jwks").await.contains("address_refused") {} };
    timeout(WAIT, refused).await.unwrap();
    let answer = ask(&mesh, &issuer.token("alice")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (401, "token_keys_missing")
    );
}
