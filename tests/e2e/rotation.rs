//! Rotation of the authorities under load: nothing fails, and afterwards nothing hangs on the old one.

use std::time::Duration;

use ravelin_proto::bundle::x509_authority_id;
use ravelin_proto::pb::ravelin::v1::AuthorityKind;
use ravelin_tests::admin::agent_status;
use ravelin_tests::load::LoadPlan;
use ravelin_tests::node::{Node, NodeOptions};
use ravelin_tests::pair::Pair;
use ravelin_tests::wait::CYCLE;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_64_an_x509_rotation_under_load_fails_no_call_and_leaves_nothing_on_the_old_authority()
 {
    let node = Node::start(NodeOptions::default()).await;
    let pair = Pair::start(&node).await;
    let stop = CancellationToken::new();
    let load = LoadPlan {
        address: pair.orders.outbound,
        call: pair.lookup(),
        calls_per_sec: 200,
        connections: 4,
        time: CYCLE,
    };
    let load = tokio::spawn(load.run(stop.clone()));
    let mut authorities = Vec::new();
    for _ in 0..2 {
        let done = node.admin().rotate(AuthorityKind::X509, true).await;
        assert_eq!(done.old_svids, 0, "{done:?}");
        assert_ne!(done.new_authority_id, done.old_authority_id);
        authorities.push(done.new_authority_id);
    }
    stop.cancel();
    let report = load.await.unwrap();
    assert_eq!(report.failed(), 0, "{:?}", report.failures);
    assert!(report.answered > 0);
    println!(
        "{} calls, p99 {} us",
        report.answered,
        report.latency_us(990)
    );

    let new = authorities.last().unwrap();
    let status = agent_status(node.agent_admin_socket()).await.unwrap();
    assert!(!status.identities.is_empty());
    for held in &status.identities {
        assert_eq!(&held.x509_authority_id, new, "{}", held.spiffe_id);
    }
    for proxy in [&pair.orders, &pair.inventory] {
        assert_eq!(proxy.in_use().await["x509_authority_id"], new.as_str());
    }
    let bundle = node.admin().bundle().await.x509_authorities;
    let known: Vec<_> = bundle
        .iter()
        .map(|authority| x509_authority_id(&authority.asn1).unwrap())
        .collect();
    assert_eq!(
        &known,
        std::slice::from_ref(new),
        "the old authority is still published"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn svids_that_live_for_seconds_are_renewed_under_load_without_a_failed_call() {
    let node = Node::start(NodeOptions::default()).await;
    let pair = Pair::start(&node).await;
    let short = pair.allowing().with_svid_life("8s");
    node.admin().publish(short.messages()).await;
    let first = pair.orders.in_use().await["svid_serial"].clone();
    let load = LoadPlan {
        address: pair.orders.outbound,
        call: pair.lookup(),
        calls_per_sec: 100,
        connections: 2,
        // Longer than one life: what it began with is not valid at its end.
        time: Duration::from_secs(12),
    };
    let report = load.run(CancellationToken::new()).await;
    assert_eq!(report.failed(), 0, "{:?}", report.failures);
    assert!(report.answered > 0);
    assert_ne!(pair.orders.in_use().await["svid_serial"], first);
}
