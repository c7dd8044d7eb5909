//! What a process sees on the Workload API socket, and what a launcher changes.

use ravelin_proto::pb;
use ravelin_proto::pb::ravelin::v1::agent_admin_client::AgentAdminClient;
use ravelin_proto::pb::ravelin::v1::launch_client::LaunchClient;
use ravelin_proto::pb::ravelin::v1::*;
use ravelin_proto::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ravelin_runtime::process;
use ravelin_runtime::workload_client::WorkloadError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use crate::fake_ca::{FakeCa, Shared};
use crate::node::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_08_without_identity_every_fetch_is_denied_and_withdrawal_ends_the_stream() {
    let shared = Shared::new("td.test");
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("token-1"))).await;
    acked(&shared, |ack| ack.revision == 1).await;
    let mut api = SpiffeWorkloadApiClient::new(node.channel("agent.sock").await);
    let with_header = || {
        let mut request = Request::new(pb::X509svidRequest {});
        request
            .metadata_mut()
            .insert("workload.spiffe.io", "true".parse().unwrap());
        request
    };
    let mut denied = api
        .fetch_x509svid(with_header())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        denied.message().await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let status = api
        .fetch_x509svid(pb::X509svidRequest {})
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "e_02");
    let mut request = Request::new(pb::WitsvidRequest::default());
    request
        .metadata_mut()
        .insert("workload.spiffe.io", "true".parse().unwrap());
    assert_eq!(
        api.fetch_witsvid(request).await.unwrap_err().code(),
        Code::Unimplemented,
        "a_01"
    );
    let jwt = node.workload().await.jwt_svid(&["a".into()], None).await;
    assert!(
        matches!(
            jwt,
            Err(WorkloadError::NoIdentity { .. } | WorkloadError::Refused { .. })
        ),
        "{jwt:?}"
    );

    shared.change(|world| world.entries = vec![by_uid(&shared, "orders")]);
    acked(&shared, |ack| ack.revision == 2).await;
    let mut stream = api
        .fetch_x509svid(with_header())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        soon(stream.message()).await.unwrap().unwrap().svids.len(),
        1
    );
    shared.change(|world| world.entries.clear());
    let end = soon(stream.message()).await.unwrap_err();
    assert_eq!(end.code(), Code::PermissionDenied);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e_05_an_agent_that_never_reached_its_ca_is_unavailable_and_says_why() {
    let shared = Shared::new("td.test");
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("a-wrong-token"))).await;
    let mut api = SpiffeWorkloadApiClient::new(node.channel("agent.sock").await);
    let mut request = Request::new(pb::X509svidRequest {});
    request
        .metadata_mut()
        .insert("workload.spiffe.io", "true".parse().unwrap());
    let mut stream = api.fetch_x509svid(request).await.unwrap().into_inner();
    assert_eq!(
        stream.message().await.unwrap_err().code(),
        Code::Unavailable
    );
    let said = soon(async {
        loop {
            let status = node.status().await;
            if !status.last_error.is_empty() {
                return status.last_error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(said.contains("join token"), "{said}");
    assert!(!said.contains("a-wrong-token"), "threat_41");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launched_process_has_its_own_identity_as_long_as_its_launcher_vouches() {
    let shared = Shared::new("td.test");
    let uid = format!("unix:uid:{}", own_uid());
    shared.change(|world| {
        world.entries = vec![
            entry(&shared, "user", &[&uid, "launch:none"]),
            entry(&shared, "orders", &["launch:name:orders"]),
        ];
    });
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("token-1"))).await;
    acked(&shared, |ack| ack.revision == 2).await;
    let mut updates = node.svids().await;
    until(&mut updates, |update| id_of(update).ends_with("/user")).await;

    let pid = i32::try_from(std::process::id()).unwrap();
    let start_time_ticks = process::start_time_ticks(pid).unwrap();
    let request = |start_time_ticks| LaunchRequest {
        name: "orders".into(),
        pid,
        start_time_ticks,
    };
    let mut launches = LaunchClient::new(node.channel("admin.sock").await);
    let (sender, receiver) = mpsc::channel(4);
    sender.send(request(start_time_ticks)).await.unwrap();
    let mut answers = launches
        .register(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(soon(answers.message()).await.unwrap().unwrap().pid, pid);
    until(&mut updates, |update| id_of(update).ends_with("/orders")).await;

    // Another process with this number: refused.
    let (other, receiver) = mpsc::channel(4);
    other.send(request(start_time_ticks + 1)).await.unwrap();
    let mut refused = launches
        .register(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        soon(refused.message()).await.unwrap_err().code(),
        Code::NotFound
    );

    let mut admin = AgentAdminClient::new(node.channel("admin.sock").await);
    let explained = admin
        .explain_workload(ExplainWorkloadRequest { pid })
        .await
        .unwrap()
        .into_inner();
    let shown: Vec<_> = explained
        .entries
        .iter()
        .map(|entry| (entry.is_match, entry.entry_id.as_str()))
        .collect();
    assert_eq!(shown, [(true, "orders"), (false, "user")]);

    drop((sender, answers));
    until(&mut updates, |update| id_of(update).ends_with("/user")).await;
    node.stop().await;
}

fn x509_request() -> Request<pb::X509svidRequest> {
    let mut request = Request::new(pb::X509svidRequest {});
    request
        .metadata_mut()
        .insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_08_a_crowd_of_streams_is_bounded_and_gives_its_room_back() {
    let shared = Shared::new("td.test");
    shared.change(|world| world.entries = vec![by_uid(&shared, "orders")]);
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("token-1"))).await;
    acked(&shared, |ack| ack.revision == 2).await;
    let channels = [
        node.channel("agent.sock").await,
        node.channel("agent.sock").await,
        node.channel("agent.sock").await,
    ];
    let max = usize::try_from(ravelin_agent::limits::CALLS_PER_UID_MAX).unwrap();
    let mut held = Vec::new();
    for number in 0..max {
        let mut api = SpiffeWorkloadApiClient::new(channels[number / 500].clone());
        held.push(soon(api.fetch_x509svid(x509_request())).await.unwrap());
    }
    let mut api = SpiffeWorkloadApiClient::new(node.channel("agent.sock").await);
    let crowded = soon(api.fetch_x509svid(x509_request())).await.unwrap_err();
    assert_eq!(crowded.code(), Code::ResourceExhausted);
    drop(held);
    soon(async {
        while api.fetch_x509svid(x509_request()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_on_the_deny_list_is_replaced_at_once() {
    let shared = Shared::new("td.test");
    shared.change(|world| world.entries = vec![by_uid(&shared, "orders")]);
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("token-1"))).await;
    acked(&shared, |ack| ack.revision == 2).await;
    let mut updates = node.svids().await;
    let first = until(&mut updates, |_| true).await;
    let stolen = first.svids[0].identity.leaf().serial.clone();
    shared.change(|world| {
        world.denylist.number = 4;
        world.denylist.entries.push(DenylistEntry {
            id: "d1".into(),
            subject: Some(denylist_entry::Subject::Serial(stolen.clone())),
            ..DenylistEntry::default()
        });
    });
    until(&mut updates, |update| {
        update.svids[0].identity.leaf().serial != stolen
    })
    .await;
    acked(&shared, |ack| ack.denylist_number == 4).await;
    node.stop().await;
}
