//! The services of the example shop: plain HTTP, no TLS, no identity of their own making.
//!
//! `POST /call` makes the service call another one through its proxy, as a real service would; with an audience it
//! first fetches a JWT-SVID from the Workload API. Every other request is answered with what arrived.

use crate::config;
use crate::connection;
use crate::exit::{Exit, Failure, Outcome};
use crate::http_call::{self, HttpCall};
use crate::limits;
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

/// The verbs of `ravelin demo`.
#[derive(Debug, Subcommand)]
pub(crate) enum DemoCommand {
    /// Serve one of the shop's services
    Serve(DemoArguments),
}

/// Which service, and where.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Its name
    #[arg(long)]
    name: String,
    /// Where it listens
    #[arg(long)]
    listen: SocketAddr,
    /// The outbound listener of its proxy
    #[arg(long)]
    outbound: SocketAddr,
    /// The Workload API socket
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET")]
    socket: Option<String>,
}

/// A call that the service is asked to make.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallOrder {
    /// Host of the service to call.
    pub(crate) host: String,
    /// Method of the call.
    pub(crate) method: String,
    /// Target of the call, sent as it is.
    pub(crate) target: String,
    /// The `x-request-id` of the call.
    pub(crate) request_id: String,
    /// Fetch a JWT-SVID for this audience and send it.
    #[serde(default)]
    pub(crate) audience: Option<String>,
    /// Send this token.
    #[serde(default)]
    pub(crate) token: Option<String>,
}

/// How the call ended.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct CallReport {
    /// Status code; 0 without an answer.
    pub(crate) status: u16,
    /// The proxy's stable code of a refusal.
    pub(crate) code: String,
    /// The `x-request-id` of the answer.
    pub(crate) request_id: String,
    /// The body of the answer.
    pub(crate) body: String,
    /// Why there is no answer.
    pub(crate) error: String,
}

#[derive(Debug)]
struct Service {
    name: String,
    outbound: SocketAddr,
    socket: PathBuf,
}

/// Serves until it is ended.
pub(crate) async fn run(command: DemoCommand) -> Outcome {
    let DemoCommand::Serve(arguments) = command;
    let listener = TcpListener::bind(arguments.listen).await.map_err(|error| {
        Failure::usage(format!("cannot listen on {}: {error}", arguments.listen))
    })?;
    let service = Arc::new(Service {
        name: arguments.name,
        outbound: arguments.outbound,
        socket: config::agent_socket(arguments.socket.as_deref()),
    });
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| Failure::usage(format!("cannot listen for signals: {error}")))?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(serve(stream, Arc::clone(&service)));
                }
            }
            _ = stop.recv() => return Ok(Exit::Yes),
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Yes),
        }
    }
}

async fn serve(stream: TcpStream, service: Arc<Service>) {
    let answer = hyper::service::service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(answer(&service, request).await) }
    });
    // WHY: a peer that breaks its connection off is its own affair.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

async fn answer(service: &Service, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let is_call = head.uri.path() == "/call" && head.method == http::Method::POST;
    let Ok(body) = Limited::new(body, limits::HTTP_BODY_BYTES_MAX)
        .collect()
        .await
    else {
        return reply(
            StatusCode::PAYLOAD_TOO_LARGE,
            &json!({"error": "the body is too large"}),
        );
    };
    let body = body.to_bytes();
    if is_call {
        return match serde_json::from_slice::<CallOrder>(&body) {
            Ok(order) => reply(StatusCode::OK, &json!(call(service, order).await)),
            Err(error) => reply(
                StatusCode::BAD_REQUEST,
                &json!({"error": error.to_string()}),
            ),
        };
    }
    let header = |name: &str| {
        let value = head.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    reply(
        StatusCode::OK,
        &json!({
            "service": service.name,
            "method": head.method.as_str(),
            "target": head.uri.to_string(),
            "caller": header("x-forwarded-client-cert"),
            "request_id": header("x-request-id"),
            "body_bytes": body.len(),
        }),
    )
}

fn reply(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

async fn call(service: &Service, order: CallOrder) -> CallReport {
    let mut headers = vec![("x-request-id".to_owned(), order.request_id.clone())];
    let token = match (order.token, order.audience) {
        (Some(token), _) => Some(token),
        (None, Some(audience)) => {
            match connection::fetch_jwt_svid(&service.socket, &audience).await {
                Ok(token) => Some(token),
                Err(failure) => return failed(failure.message()),
            }
        }
        (None, None) => None,
    };
    if let Some(token) = token {
        headers.push(("authorization".to_owned(), format!("Bearer {token}")));
    }
    let call = HttpCall {
        method: order.method,
        host: order.host,
        target: order.target,
        headers,
        body: Vec::new(),
    };
    match http_call::send(service.outbound, call).await {
        Ok(answer) => CallReport {
            status: answer.status,
            code: answer.header("x-ravelin-code"),
            request_id: answer.header("x-request-id"),
            body: String::from_utf8_lossy(&answer.body).trim().to_owned(),
            error: String::new(),
        },
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(error: &str) -> CallReport {
    CallReport {
        error: error.to_owned(),
        ..CallReport::default()
    }
}
