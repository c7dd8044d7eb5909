//! gRPC by tonic, in the cases of the interoperability tests that every gRPC implementation has.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::uri::PathAndQuery;
use ravelin_proxy::config::Protocol;
use ravelin_tests::grpc_app::{BytesCodec, serve};
use ravelin_tests::node::{Node, NodeOptions};
use ravelin_tests::services::{Service, Services};
use ravelin_tests::wait::{SOON, until_true, within};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

const LARGE: usize = 3 * 1024 * 1024;

async fn client(outbound: SocketAddr, authority: &str) -> Grpc<Channel> {
    let origin = format!("http://{authority}").parse().unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{outbound}")).unwrap();
    let channel = endpoint.origin(origin).connect().await.unwrap();
    Grpc::new(channel).max_decoding_message_size(2 * LARGE)
}

fn method(name: &'static str) -> PathAndQuery {
    PathAndQuery::from_maybe_shared(format!("/test.Echo/{name}")).unwrap()
}

async fn unary(
    client: &mut Grpc<Channel>,
    name: &'static str,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, Status> {
    client.ready().await.unwrap();
    let call = client.unary(request, method(name), BytesCodec);
    within(name, SOON, call).await
}

async fn all(mut answers: Streaming<Bytes>) -> Vec<Bytes> {
    let mut list = Vec::new();
    while let Some(answer) = within("an answer", SOON, answers.message()).await.unwrap() {
        list.push(answer);
    }
    list
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_grpc_call_goes_through_and_a_refused_one_has_a_grpc_status() {
    let mut apps = JoinSet::new();
    let (app, seen) = serve(&mut apps).await;
    let node = Node::start(NodeOptions::default()).await;
    let service = Service::new("grpc", app, Protocol::Grpc);
    let services = Services::start(&node, &[service]).await;
    let mut client = client(services.orders.outbound, &service.authority()).await;
    let refused = unary(&mut client, "Unary", Request::new("a".into())).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert_eq!(refused.message(), "RBAC: access denied");
    services.allow(&node, &["/test.Echo/*"]).await;

    calls_with_one_answer(&mut client).await;
    streams(&mut client).await;
    statuses(&mut client).await;
    ends_by_the_caller(&mut client).await;
    until_true("the server knows that nobody waits", SOON, || async {
        seen.given_up.load(Ordering::SeqCst) == 2 && seen.waiting.load(Ordering::SeqCst) == 0
    })
    .await;
}

async fn calls_with_one_answer(client: &mut Grpc<Channel>) {
    let large = Bytes::from(vec![7; LARGE]);
    for (name, message) in [
        ("empty", Bytes::new()),
        ("small", "a".into()),
        ("large", large),
    ] {
        let answer = unary(client, "Unary", Request::new(message.clone())).await;
        let answer = answer.unwrap_or_else(|status| panic!("{name}: {status}"));
        assert!(answer.into_inner() == message, "{name}");
    }
    let mut request = Request::new(Bytes::new());
    request
        .metadata_mut()
        .insert("x-echo", "yes".parse().unwrap());
    request.set_timeout(Duration::from_secs(30));
    let answer = unary(client, "Unary", request).await.unwrap();
    assert_eq!(answer.metadata().get("x-echo").unwrap(), "yes");
    assert_eq!(answer.metadata().get("x-deadline").unwrap(), "30000000u");
}

async fn streams(client: &mut Grpc<Channel>) {
    let messages = futures_util::stream::iter(["one ", "two ", "three"].map(Bytes::from));
    client.ready().await.unwrap();
    let request = Request::new(messages);
    let answer = client.client_streaming(request, method("Collect"), BytesCodec);
    let answer = within("Collect", SOON, answer).await.unwrap();
    assert_eq!(answer.into_inner(), "one two three");

    client.ready().await.unwrap();
    let request = Request::new(Bytes::from("abc"));
    let answers = client.server_streaming(request, method("Expand"), BytesCodec);
    let answers = all(within("Expand", SOON, answers).await.unwrap().into_inner()).await;
    assert_eq!(answers, ["a", "b", "c"]);

    client.ready().await.unwrap();
    let nothing = Request::new(futures_util::stream::empty());
    let answers = client.streaming(nothing, method("Chat"), BytesCodec);
    let answers = within("an empty Chat", SOON, answers)
        .await
        .unwrap()
        .into_inner();
    assert!(all(answers).await.is_empty());

    // Ping-pong: each message waits for the answer to the one before.
    let (sender, receiver) = mpsc::channel(1);
    client.ready().await.unwrap();
    let request = Request::new(ReceiverStream::new(receiver));
    sender.send(Bytes::from("0")).await.unwrap();
    let answers = client.streaming(request, method("Chat"), BytesCodec);
    let mut answers = within("Chat", SOON, answers).await.unwrap().into_inner();
    for number in 0..100 {
        let answer = within("an answer", SOON, answers.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answer, format!("re: {number}"));
        sender.send(format!("{}", number + 1).into()).await.unwrap();
    }
    drop(sender);
    assert_eq!(all(answers).await, ["re: 100"]);
}

async fn statuses(client: &mut Grpc<Channel>) {
    let status = unary(client, "Fail", Request::new(Bytes::new()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "100 % of the \u{fc}ber\nchecks fail");
    assert_eq!(status.metadata().get("x-detail").unwrap(), "why");
    let status = unary(client, "Nothing", Request::new(Bytes::new()))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unimplemented, "no such method")
    );
    let denied = PathAndQuery::from_static("/test.Other/Unary");
    client.ready().await.unwrap();
    let request = Request::new(Bytes::new());
    let status = client.unary(request, denied, BytesCodec).await;
    let status = status.map(|_: Response<Bytes>| ()).unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let code = status.metadata().get("x-ravelin-code").unwrap();
    assert_eq!(code, "no_allow_matched");
}

/// A deadline that passes, and a caller that loses interest: the server hears of both.
async fn ends_by_the_caller(client: &mut Grpc<Channel>) {
    let mut request = Request::new(Bytes::new());
    request.set_timeout(Duration::from_millis(200));
    let status = unary(client, "Never", request).await.unwrap_err();
    let is_late = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled);
    assert!(is_late, "{status}");
    client.ready().await.unwrap();
    let call = client.unary(Request::new(Bytes::new()), method("Never"), BytesCodec);
    let call = tokio::time::timeout(Duration::from_millis(200), call).await;
    assert!(
        call.map(|_: Result<Response<Bytes>, Status>| ()).is_err(),
        "nobody answers"
    );
}
