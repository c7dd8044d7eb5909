//! WebSocket by a client and a server of others: messages, fragments, pings, and the end.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use ravelin_proxy::config::Protocol;
use ravelin_tests::node::{Node, NodeOptions};
use ravelin_tests::services::{Service, Services};
use ravelin_tests::wait::{SOON, within};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

/// Sends back every text and binary message; ends with the code that the caller ends with.
async fn serve(tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let Ok(mut socket) = accept_async(stream).await else {
                    return;
                };
                while let Some(Ok(message)) = socket.next().await {
                    let is_content = message.is_text() || message.is_binary();
                    if is_content && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn connect(
    outbound: SocketAddr,
    authority: &str,
    path: &str,
) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = TcpStream::connect(outbound).await.unwrap();
    let opened = client_async(format!("ws://{authority}{path}"), stream);
    let (socket, answer) = within("an answer", SOON, opened).await?;
    assert_eq!(answer.status(), 101);
    Ok(socket)
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Message {
    within("a message", SOON, socket.next())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_goes_through_where_policy_allows_the_request_that_opens_it() {
    let mut apps = JoinSet::new();
    let app = serve(&mut apps).await;
    let node = Node::start(NodeOptions::default()).await;
    let service = Service::new("chat", app, Protocol::Http);
    let services = Services::start(&node, &[service]).await;
    let (outbound, authority) = (services.orders.outbound, service.authority());
    let refused = |result: Result<WebSocketStream<TcpStream>, Error>| match result {
        Err(Error::Http(answer)) => answer.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => 101,
    };
    assert_eq!(refused(connect(outbound, &authority, "/chat").await), 403);
    services.allow(&node, &["/chat"]).await;
    assert_eq!(refused(connect(outbound, &authority, "/admin").await), 403);

    let mut socket = connect(outbound, &authority, "/chat").await.unwrap();
    let big = Message::binary(vec![7; 1_000_000]);
    for message in [
        Message::text("hello"),
        Message::text(""),
        Message::binary(vec![0, 255]),
        big,
    ] {
        socket.send(message.clone()).await.unwrap();
        assert!(
            next(&mut socket).await == message,
            "{} bytes",
            message.len()
        );
    }
    // A message in three fragments, with a ping between them.
    let part = |text: &'static str, kind, is_last| {
        Message::Frame(Frame::message(text, OpCode::Data(kind), is_last))
    };
    socket.send(part("one ", Data::Text, false)).await.unwrap();
    socket
        .send(part("two ", Data::Continue, false))
        .await
        .unwrap();
    socket
        .send(Message::Ping("are you there".into()))
        .await
        .unwrap();
    socket
        .send(part("three", Data::Continue, true))
        .await
        .unwrap();
    assert_eq!(
        next(&mut socket).await,
        Message::Pong("are you there".into())
    );
    assert_eq!(next(&mut socket).await, Message::text("one two three"));
    let goodbye = CloseFrame {
        code: CloseCode::Library(4242),
        reason: "enough".into(),
    };
    socket.close(Some(goodbye.clone())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Close(Some(goodbye)));
    assert!(within("the end", SOON, socket.next()).await.is_none());
}
