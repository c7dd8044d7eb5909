//! The audit log of a whole system: every SVID that a process holds is in it, with its intent before it, and no secret is.

use ravelin_proto::merkle::proof::verify_inclusion;
use ravelin_proto::merkle::tree::leaf_hash;
use ravelin_proto::pb::ravelin::v1::{AuditQuery, InclusionRequest};
use ravelin_runtime::workload_client::WorkloadClient;
use ravelin_tests::node::{Node, NodeOptions, TRUST_DOMAIN};
use ravelin_tests::wait::{SOON, until, within};
use tokio_stream::StreamExt as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_svid_that_a_process_holds_is_in_the_audit_log_after_its_intent() {
    let node = Node::start(NodeOptions::default()).await;
    node.create_own_entry("/ns/shop/sa/orders").await;
    let client = WorkloadClient::connect(node.socket()).await.unwrap();
    let mut stream = std::pin::pin!(client.x509_svids().await.unwrap());
    let update = within("an SVID", SOON, stream.next())
        .await
        .unwrap()
        .unwrap();
    let serial = update.svids[0].identity.leaf().serial.clone();

    let of_serial = AuditQuery {
        log: "audit".to_owned(),
        serial: serial.clone(),
        ..AuditQuery::default()
    };
    let records = node.admin().query(of_serial.clone()).await;
    assert!(
        records.iter().any(|record| record.kind == "svid.intended"),
        "`{serial}` is held and its intent is not on record: {records:?}"
    );
    // The outcome follows the answer; the intent has preceded it.
    let records = until("the outcome is on record", SOON, || async {
        let records = node.admin().query(of_serial.clone()).await;
        (records.len() == 2).then_some(records)
    })
    .await;
    let kinds = [0, 1].map(|index: usize| records[index].kind.as_str());
    assert_eq!(kinds, ["svid.intended", "svid.issued"]);

    let issued = &records[1];
    let index = issued.index;
    let request = InclusionRequest { index, size: 0 };
    let answer = node.admin().audit().prove_inclusion(request).await;
    let proof = answer.unwrap().into_inner();
    let hashes: Vec<[u8; 32]> = proof
        .hashes
        .iter()
        .map(|hash| hash.as_slice().try_into().unwrap())
        .collect();
    let root: [u8; 32] = proof.checkpoint.unwrap().root_hash.try_into().unwrap();
    let leaf = leaf_hash(proof.leaf_json.as_bytes());
    assert_eq!(proof.leaf_json, issued.json);
    assert!(verify_inclusion(&leaf, index, proof.size, &hashes, &root));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_41_neither_tokens_nor_keys_stand_in_the_audit_log() {
    let node = Node::start(NodeOptions::default()).await;
    node.create_own_entry("/ns/shop/sa/orders").await;
    let unused = node
        .admin()
        .join_token(&format!("spiffe://{TRUST_DOMAIN}/node/unused"))
        .await;
    let client = WorkloadClient::connect(node.socket()).await.unwrap();
    let tokens = client
        .jwt_svid(&["payments".to_owned()], None)
        .await
        .unwrap();
    let jwt = tokens[0].token.to_string();
    assert_eq!(jwt.split('.').count(), 3);
    let signature = jwt.rsplit('.').next().unwrap();
    let records = node.admin().query(AuditQuery::default()).await;
    assert!(records.len() > 5, "{} records", records.len());
    for record in &records {
        let secrets = [unused.as_str(), signature, "PRIVATE KEY"];
        for secret in secrets {
            assert!(
                !record.json.contains(secret),
                "a secret in: {}",
                record.kind
            );
        }
        assert!(!record.json.contains('\n'), "a record of several lines");
    }
}
