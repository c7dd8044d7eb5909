//! The stream of a proxy, from its first snapshot to its decisions.

use ravelin_proto::pb::ravelin::v1::proxy_config_client::ProxyConfigClient;
use ravelin_proto::pb::ravelin::v1::*;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::fake_ca::{FakeCa, Shared};
use crate::node::*;

fn ack(mesh_revision: u64, bundle_sequence: u64) -> ProxyRequest {
    ProxyRequest {
        step: Some(proxy_request::Step::Ack(ProxyAck {
            mesh_revision,
            bundle_sequence,
            ..ProxyAck::default()
        })),
    }
}

fn mesh(revision: u64, content: &str) -> MeshRevision {
    let files = vec![MeshFile {
        path: "ravelin.yaml".into(),
        content: content.into(),
    }];
    let sources = [ravelin_policies::SourceFile {
        path: "ravelin.yaml".into(),
        content: content.into(),
    }];
    MeshRevision {
        revision,
        digest: ravelin_policies::set_digest(&sources),
        files,
        ..MeshRevision::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_gets_mesh_bundle_and_svid_and_what_it_acknowledges_reaches_the_ca() {
    let shared = Shared::new("td.test");
    shared.change(|world| {
        world.entries = vec![by_uid(&shared, "orders")];
        world.mesh = Some(mesh(7, "one"));
    });
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("token-1"))).await;
    acked(&shared, |ack| ack.mesh_revision == 7).await;

    let mut proxies = ProxyConfigClient::new(node.channel("agent.sock").await);
    let (sender, receiver) = mpsc::channel(8);
    let hello = ProxyHello {
        name: "orders".into(),
        ..ProxyHello::default()
    };
    let step = Some(proxy_request::Step::Hello(hello));
    sender.send(ProxyRequest { step }).await.unwrap();
    let mut snapshots = proxies
        .stream(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    let first = soon(snapshots.message()).await.unwrap().unwrap();
    assert_eq!(first.spiffe_id, "spiffe://td.test/orders");
    assert_eq!(first.mesh.as_ref().unwrap().revision, 7);
    assert_eq!(first.svid.as_ref().unwrap().spiffe_id, first.spiffe_id);
    assert!(
        first.x509_bundles.contains_key("td.test") && first.jwt_bundles.contains_key("td.test")
    );
    acked(&shared, |ack| {
        ack.mesh_revision == 0 && ack.proxies.len() == 1
    })
    .await;
    sender.send(ack(7, first.bundle_sequence)).await.unwrap();
    acked(&shared, |ack| {
        ack.mesh_revision == 7 && ack.proxies[0].spiffe_id.ends_with("/orders")
    })
    .await;

    // A change: the difference, not acknowledged to the CA before the proxy has it in use.
    shared.change(|world| world.mesh = Some(mesh(8, "two")));
    let second = soon(async {
        loop {
            let snapshot = snapshots.message().await.unwrap().unwrap();
            if snapshot.mesh.is_some() {
                return snapshot;
            }
        }
    })
    .await;
    let change = second.mesh.unwrap();
    assert_eq!((change.revision, change.base_revision), (8, 7));
    acked(&shared, |ack| ack.revision == 3 && ack.mesh_revision == 7).await;
    sender.send(ack(8, second.bundle_sequence)).await.unwrap();
    acked(&shared, |ack| ack.mesh_revision == 8).await;

    let batch = DecisionBatch {
        decisions: vec![Decision {
            workload: "forged".into(),
            code: "allowed".into(),
            ..Decision::default()
        }],
        lost: 4,
    };
    let step = Some(proxy_request::Step::Decisions(batch));
    sender.send(ProxyRequest { step }).await.unwrap();
    let mut segments: watch::Receiver<Vec<DecisionSegment>> = shared.segments.subscribe();
    let segment = soon(segments.wait_for(|segments| !segments.is_empty()))
        .await
        .unwrap()[0]
        .clone();
    assert_eq!(segment.decisions[0].workload, "spiffe://td.test/orders");
    assert_eq!(segment.lost, 4);

    drop((sender, snapshots));
    acked(&shared, |ack| ack.proxies.is_empty()).await;
    node.stop().await;
}
