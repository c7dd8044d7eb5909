//! External authorizers, one by HTTP and one by gRPC, that answer as the test plans and keep what they were asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ravelin_proto::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use ravelin_proto::pb::envoy::service::auth::v3 as auth;
use ravelin_proto::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use ravelin_proto::pb::envoy::service::auth::v3::check_response::HttpResponse;
use ravelin_proto::pb::google::rpc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

/// What an HTTP authorizer does.
#[derive(Clone)]
pub enum Plan {
    Answer(u16, Vec<(&'static str, &'static str)>, &'static str),
    Hang,
    Garbage,
}

#[derive(Clone)]
pub struct HttpAuthorizer {
    pub address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    seen: Arc<Mutex<Vec<Request<Bytes>>>>,
}

impl HttpAuthorizer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authorizer = Self {
            address: listener.local_addr().unwrap(),
            plan: Arc::new(Mutex::new(Plan::Answer(200, Vec::new(), ""))),
            seen: Arc::default(),
        };
        let served = authorizer.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let served = served.clone();
                if matches!(*served.plan.lock().unwrap(), Plan::Garbage) {
                    tokio::spawn(async move {
                        let _ = stream.write_all(b"garbage\r\n\r\n").await;
                    });
                    continue;
                }
                let service = service_fn(move |request| served.clone().answer(request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        authorizer
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        let request = Request::from_parts(parts, body.unwrap_or_default());
        self.seen.lock().unwrap().push(request);
        let plan = self.plan.lock().unwrap().clone();
        let Plan::Answer(status, headers, body) = plan else {
            return std::future::pending().await;
        };
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        Ok(response.body(Full::new(Bytes::from(body))).unwrap())
    }

    pub fn plan(&self, plan: Plan) {
        *self.plan.lock().unwrap() = plan;
    }

    /// What it was asked since the last look.
    pub fn seen(&self) -> Vec<Request<Bytes>> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

type Answer =
    Arc<dyn Fn(&auth::CheckRequest) -> Option<Result<auth::CheckResponse, Status>> + Send + Sync>;

/// Never answers where the plan says nothing.
#[derive(Clone)]
pub struct GrpcAuthorizer {
    pub address: SocketAddr,
    plan: Arc<Mutex<Answer>>,
    seen: Arc<Mutex<Vec<auth::CheckRequest>>>,
}

impl GrpcAuthorizer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authorizer = Self {
            address: listener.local_addr().unwrap(),
            plan: Arc::new(Mutex::new(Arc::new(|_| {
                Some(Ok(yes(auth::OkHttpResponse::default())))
            }))),
            seen: Arc::default(),
        };
        let server = tonic::transport::Server::builder()
            .add_service(AuthorizationServer::new(authorizer.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        authorizer
    }

    pub fn plan(
        &self,
        plan: impl Fn(&auth::CheckRequest) -> Option<Result<auth::CheckResponse, Status>>
        + Send
        + Sync
        + 'static,
    ) {
        *self.plan.lock().unwrap() = Arc::new(plan);
    }

    pub fn seen(&self) -> Vec<auth::CheckRequest> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

#[tonic::async_trait]
impl Authorization for GrpcAuthorizer {
    async fn check(
        &self,
        request: tonic::Request<auth::CheckRequest>,
    ) -> Result<tonic::Response<auth::CheckResponse>, Status> {
        let request = request.into_inner();
        let plan = Arc::clone(&self.plan.lock().unwrap());
        let answer = plan(&request);
        self.seen.lock().unwrap().push(request);
        match answer {
            Some(answer) => answer.map(tonic::Response::new),
            None => std::future::pending().await,
        }
    }
}

pub fn yes(ok: auth::OkHttpResponse) -> auth::CheckResponse {
    auth::CheckResponse {
        status: Some(rpc::Status::default()),
        http_response: Some(HttpResponse::OkResponse(ok)),
    }
}

pub fn no(denied: auth::DeniedHttpResponse) -> auth::CheckResponse {
    auth::CheckResponse {
        status: Some(rpc::Status {
            code: 7,
            message: String::new(),
        }),
        http_response: Some(HttpResponse::DeniedResponse(denied)),
    }
}

pub fn header(name: &str, value: &str, append: Option<bool>) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        append,
        ..HeaderValueOption::default()
    }
}
