//! Outages inside one process: the CA is away, the agent starts from its disk, and all finds together again.

use ravelin_runtime::workload_client::WorkloadClient;
use ravelin_tests::node::{Node, NodeOptions, TRUST_DOMAIN};
use ravelin_tests::pair::Pair;
use ravelin_tests::wait::{SOON, until_true};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_starts_while_the_ca_is_away_serves_what_it_kept() {
    let mut node = Node::start(NodeOptions::default()).await;
    node.create_own_entry("/ns/shop/sa/orders").await;
    let id = format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders");
    node.stop_agent().await;
    node.ca_mut().stop().await;
    node.start_agent().await;
    until_true("the SVID is served from disk", SOON, || node.serves(&id)).await;
    assert!(
        !node.is_synced().await,
        "there is nobody to synchronise with"
    );
    node.ca_mut().restart().await;
    until_true("the agent finds the CA again", SOON, || node.is_synced()).await;
    let client = WorkloadClient::connect(node.socket()).await.unwrap();
    assert!(
        client
            .jwt_svid(&["payments".to_owned()], None)
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_while_the_ca_is_away_and_while_the_agent_is() {
    let mut node = Node::start(NodeOptions::default()).await;
    let pair = Pair::start(&node).await;
    node.ca_mut().stop().await;
    assert_eq!(pair.call(&pair.lookup()).await.status, 200);
    node.stop_agent().await;
    assert_eq!(pair.call(&pair.lookup()).await.status, 200);
    node.start_agent().await;
    assert_eq!(pair.call(&pair.lookup()).await.status, 200);
    node.ca_mut().restart().await;
    until_true("the agent finds the CA again", SOON, || node.is_synced()).await;
    // The proxies are back on the agent's stream when a change reaches both.
    node.admin().publish(pair.folder.messages()).await;
    assert_eq!(pair.call(&pair.lookup()).await.status, 403);
}
