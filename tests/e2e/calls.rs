//! Calls through a pair of proxies: allowed, denied, judged again when policy or deny-list change.

use std::time::Instant;

use http::Method;
use ravelin_proto::pb::ravelin::v1::AuditQuery;
use ravelin_tests::admin::Applied;
use ravelin_tests::http_call::{Call, HttpConnection, call_once};
use ravelin_tests::load::until_status;
use ravelin_tests::node::{Node, NodeOptions, TRUST_DOMAIN};
use ravelin_tests::pair::Pair;
use ravelin_tests::wait::{SOON, until, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_judged_by_method_path_and_peer_and_each_refusal_has_its_code() {
    let node = Node::start(NodeOptions::default()).await;
    let pair = Pair::start(&node).await;
    let rows = [
        ("allowed", pair.lookup(), 200, ""),
        (
            "another method",
            pair.lookup().with_method(Method::DELETE),
            403,
            "no_allow_matched",
        ),
        (
            "another path",
            Call::get("inventory.shop", "/admin"),
            403,
            "no_allow_matched",
        ),
        (
            "threat 51: a path trick",
            Call::get("inventory.shop", "/inventory/..%2fadmin"),
            403,
            "no_allow_matched",
        ),
        (
            "threat 51: a path trick in the clear",
            Call::get("inventory.shop", "/inventory/../admin"),
            403,
            "no_allow_matched",
        ),
        (
            "an unknown host",
            Call::get("nowhere.shop", "/"),
            404,
            "no_route",
        ),
    ];
    for (name, call, status, code) in rows {
        let answer = pair.call(&call).await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{name}: {}",
            answer.body
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_51_the_application_gets_the_very_path_that_was_judged() {
    let node = Node::start(NodeOptions::default()).await;
    let pair = Pair::start(&node).await;
    let rows = [
        ("/inventory/apples?a=%2e%2e", "/inventory/apples?a=%2e%2e"),
        ("/inventory/%61pples", "/inventory/apples"),
        ("/inventory/./apples", "/inventory/apples"),
        ("/inventory//apples", "/inventory/apples"),
        ("/inventory//../admin", "/inventory/admin"),
        ("/admin/..%2finventory/apples", "/inventory/apples"),
    ];
    for (sent, judged) in rows {
        let answer = pair.call(&Call::get("inventory.shop", sent)).await;
        assert_eq!(answer.status, 200, "{sent}: {}", answer.body);
        let seen: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(seen["target"], judged, "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_50_identity_headers_of_the_application_do_not_survive() {
    let node = Node::start(NodeOptions::default()).await;
    let pair = Pair::start(&node).await;
    let forged = "By=spiffe://shop.example/ns/shop/sa/inventory;URI=spiffe://shop.example/admin";
    let call = pair
        .lookup()
        .with_header("X-Forwarded-Client-Cert", forged)
        .with_header("x-forwarded-client-cert", forged);
    let answer = pair.call(&call).await;
    assert_eq!(answer.status, 200);
    let seen: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let values: Vec<&str> = seen["headers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|header| header[0] == "x-forwarded-client-cert")
        .map(|header| header[1].as_str().unwrap())
        .collect();
    assert_eq!(values.len(), 1, "{values:?}");
    assert!(!values[0].contains("/admin"), "{values:?}");
    let caller = format!("URI=spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders");
    assert!(values[0].contains(&caller), "{values:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_60_an_inbound_listener_never_answers_plain_text() {
    let node = Node::start(NodeOptions::default()).await;
    let pair = Pair::start(&node).await;
    for first in [
        "GET / HTTP/1.1\r\nhost: inventory.shop\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\0\0\0\0",
    ] {
        let mut stream = TcpStream::connect(pair.inventory.inbound[0]).await.unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good a refusal as a close.
        let reading = stream.read_to_end(&mut answer);
        let _ = within("the connection ends", SOON, reading).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("HTTP/"), "{first:?} was answered: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_59_a_changed_policy_holds_on_a_live_connection_within_moments() {
    let node = Node::start(NodeOptions::default()).await;
    let pair = Pair::start(&node).await;
    let connection = HttpConnection::open(pair.orders.outbound).await.unwrap();
    let connection = Mutex::new(connection);
    let call = pair.lookup();
    let again = async || connection.lock().await.call(&call).await.unwrap();
    assert_eq!(again().await.status, 200);
    let denying =
        pair.allowing()
            .with_allow("inventory", "orders", "[\"POST\"]", "[\"/inventory/*\"]");
    let started = Instant::now();
    let Applied::Published(_) = node.admin().apply(denying.messages(), false).await else {
        panic!("the change was refused");
    };
    let answer = until("the same connection is refused", SOON, || async {
        Some(again().await).filter(|answer| answer.status == 403)
    })
    .await;
    println!("enforced after {:?}", started.elapsed());
    assert_eq!(answer.code(), "no_allow_matched");

    node.admin().publish(pair.allowing().messages()).await;
    // `publish` waits for the acknowledgement of every proxy: what follows needs no patience.
    assert_eq!(again().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_57_a_folder_with_an_error_is_refused_whole_and_the_last_good_one_stays() {
    let node = Node::start(NodeOptions::default()).await;
    let pair = Pair::start(&node).await;
    let before = node
        .admin()
        .mesh()
        .get_status(ravelin_proto::pb::ravelin::v1::MeshStatusRequest {})
        .await;
    let before = before.unwrap().into_inner().revision;
    let broken = [
        ("malformed YAML", "kind: [\n"),
        (
            "an unknown field",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {acton: DENY}\n",
        ),
        (
            "an unknown kind",
            "apiVersion: security.istio.io/v1\nkind: AuthorisationPolicy\nmetadata: {name: x}\n",
        ),
    ];
    for (name, text) in broken {
        let folder = pair.folder.with("policies/shop/broken.yaml", text);
        let Applied::Refused(found) = node.admin().apply(folder.messages(), true).await else {
            panic!("{name} was published");
        };
        let first = &found[0];
        assert_eq!(first.path, "policies/shop/broken.yaml", "{name}");
        assert!(
            first.line > 0 && first.text.contains('^'),
            "{name}: {first:?}"
        );
    }
    let after = node
        .admin()
        .mesh()
        .get_status(ravelin_proto::pb::ravelin::v1::MeshStatusRequest {})
        .await;
    assert_eq!(after.unwrap().into_inner().revision, before);
    assert_eq!(pair.call(&pair.lookup()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_59_revoking_an_identity_cuts_its_open_connection_and_refuses_new_ones() {
    let node = Node::start(NodeOptions::default()).await;
    let pair = Pair::start(&node).await;
    let mut stream = TcpStream::connect(pair.orders.tcp_outbound[0])
        .await
        .unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut echoed = [0_u8; 4];
    let reading = stream.read_exact(&mut echoed);
    within("an echo through two proxies", SOON, reading)
        .await
        .unwrap();
    assert_eq!(&echoed, b"ping");

    let id = format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders");
    let started = Instant::now();
    node.admin().revoke(&id).await;
    let mut rest = Vec::new();
    // A reset is as good an end as a close; only an open connection is not.
    let _ = within(
        "the open connection is cut",
        SOON,
        stream.read_to_end(&mut rest),
    )
    .await;
    println!("cut after {:?}", started.elapsed());
    let call = pair.lookup();
    until("new calls are refused", SOON, || async {
        let answer = call_once(pair.orders.outbound, &call).await;
        answer
            .is_ok_and(|answer| answer.status >= 400)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_leaves_a_decision_record_that_names_the_deciding_rule() {
    let node = Node::start(NodeOptions::default()).await;
    let pair = Pair::start(&node).await;
    let refused = Call::get("inventory.shop", "/secret/door").with_header("x-request-id", "call-1");
    until_status(pair.orders.outbound, &refused, 403, SOON).await;
    let query = |decision: &str| AuditQuery {
        log: "decision".to_owned(),
        decision: decision.to_owned(),
        ..AuditQuery::default()
    };
    let orders = format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders");
    for (decision, path) in [("allow", "/inventory/apples"), ("deny", "/secret/door")] {
        let record = until("the decision reaches the CA", SOON, || async {
            let records = node.admin().query(query(decision)).await;
            records
                .into_iter()
                .map(|record| serde_json::from_str::<serde_json::Value>(&record.json).unwrap())
                .find(|record| record["path"] == path)
        })
        .await;
        assert_eq!(record["peer"], orders, "{record}");
        if decision == "allow" {
            assert_eq!(record["policy"], "shop/inventory-allow", "{record}");
            assert_eq!(record["rule"], 1, "{record}");
        }
    }
}
