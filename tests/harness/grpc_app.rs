//! A gRPC server and client whose messages are plain bytes, so that no schema stands between a test and the wire.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::{Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status, Streaming};

/// Messages as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What the server saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Calls of `/test.Echo/Never` that began and have not ended.
    pub waiting: AtomicUsize,
    /// Those that the caller gave up.
    pub given_up: AtomicUsize,
}

struct Waiting(Arc<Seen>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.given_up.fetch_add(1, Ordering::SeqCst);
    }
}

/// Serves `/test.Echo/..` with HTTP/2 alone.
pub async fn serve(tasks: &mut JoinSet<()>) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let service = Echo(Arc::clone(&seen));
    tasks.spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(service);
        server.serve_with_incoming(incoming).await.unwrap();
    });
    (address, seen)
}

#[derive(Clone, Debug)]
struct Echo(Arc<Seen>);

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Answers = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let seen = Arc::clone(&self.0);
        Box::pin(async move {
            let mut grpc = Grpc::new(BytesCodec).max_decoding_message_size(16 * 1024 * 1024);
            let path = request.uri().path().to_owned();
            Ok(match path.rsplit('/').next().unwrap_or_default() {
                "Unary" => grpc.unary(One::Echo, request).await,
                "Fail" => grpc.unary(One::Fail, request).await,
                "Never" => grpc.unary(One::Never(seen), request).await,
                "Collect" => grpc.client_streaming(Collect, request).await,
                "Expand" => grpc.server_streaming(Expand, request).await,
                "Chat" => grpc.streaming(Chat, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// A type as a method of the server: what it takes, what it answers, and the function that does it.
macro_rules! method {
    ($name:ty, $takes:ty, $answers:ty, $function:expr) => {
        impl Service<Request<$takes>> for $name {
            type Response = Response<$answers>;
            type Error = Status;
            type Future = Boxed<Result<Response<$answers>, Status>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: Request<$takes>) -> Self::Future {
                $function(self, request)
            }
        }
    };
}

enum One {
    Echo,
    Fail,
    Never(Arc<Seen>),
}
struct Collect;
struct Expand;
struct Chat;
method!(One, Bytes, Bytes, One::answer);
method!(Collect, Streaming<Bytes>, Bytes, collect);
method!(Expand, Bytes, Answers, expand);
method!(Chat, Streaming<Bytes>, Answers, chat);

impl One {
    fn answer(&mut self, request: Request<Bytes>) -> Boxed<Result<Response<Bytes>, Status>> {
        match self {
            Self::Echo => unary(request),
            Self::Fail => fail(),
            Self::Never(seen) => never(Arc::clone(seen)),
        }
    }
}

/// Sends the message back, with the metadata `x-echo`, and what came of the deadline.
fn unary(request: Request<Bytes>) -> Boxed<Result<Response<Bytes>, Status>> {
    let metadata = request.metadata().clone();
    let mut response = Response::new(request.into_inner());
    for (from, to) in [("x-echo", "x-echo"), ("grpc-timeout", "x-deadline")] {
        if let Some(value) = metadata.get(from) {
            response.metadata_mut().insert(to, value.clone());
        }
    }
    Box::pin(std::future::ready(Ok(response)))
}

/// Fails with a status whose message needs its encoding, and metadata in its trailers.
fn fail() -> Boxed<Result<Response<Bytes>, Status>> {
    let mut status = Status::failed_precondition("100 % of the \u{fc}ber\nchecks fail");
    let detail = "why".parse().unwrap();
    status.metadata_mut().insert("x-detail", detail);
    Box::pin(std::future::ready(Err(status)))
}

fn never(seen: Arc<Seen>) -> Boxed<Result<Response<Bytes>, Status>> {
    seen.waiting.fetch_add(1, Ordering::SeqCst);
    let waiting = Waiting(seen);
    Box::pin(async move {
        let never = std::future::pending().await;
        drop(waiting);
        never
    })
}

/// All messages of the caller as one.
fn collect(
    _: &mut Collect,
    request: Request<Streaming<Bytes>>,
) -> Boxed<Result<Response<Bytes>, Status>> {
    Box::pin(async move {
        let mut messages = request.into_inner();
        let mut all = Vec::new();
        while let Some(message) = messages.message().await? {
            all.extend_from_slice(&message);
        }
        Ok(Response::new(all.into()))
    })
}

/// One answer for each byte of the message.
fn expand(_: &mut Expand, request: Request<Bytes>) -> Boxed<Result<Response<Answers>, Status>> {
    let bytes = request.into_inner();
    let answers = bytes.into_iter().map(|byte| Ok(vec![byte].into()));
    let answers: Answers = Box::pin(futures_util::stream::iter(answers));
    Box::pin(std::future::ready(Ok(Response::new(answers))))
}

/// One answer for each message, when it comes.
fn chat(
    _: &mut Chat,
    request: Request<Streaming<Bytes>>,
) -> Boxed<Result<Response<Answers>, Status>> {
    let answers = request.into_inner().map(|message| {
        let mut answer = b"re: ".to_vec();
        answer.extend_from_slice(&message?);
        Ok(answer.into())
    });
    let answers: Answers = Box::pin(answers);
    Box::pin(std::future::ready(Ok(Response::new(answers))))
}
