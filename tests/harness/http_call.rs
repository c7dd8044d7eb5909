//! HTTP/1.1 calls as an application makes them: a connection that is kept, targets sent exactly as given.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const CALL_DEADLINE: Duration = Duration::from_secs(20);
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A call to make.
#[derive(Debug, Clone)]
pub struct Call {
    /// Such as `GET`.
    pub method: Method,
    /// The `Host` header.
    pub host: String,
    /// The request target, sent as it is.
    pub target: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Call {
    /// A GET.
    pub fn get(host: &str, target: &str) -> Self {
        Self {
            method: Method::GET,
            host: host.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// The same call with another method.
    pub fn with_method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// The same call with one more header.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        request.method_mut().clone_from(&self.method);
        *request.uri_mut() = self.target.parse().unwrap();
        let host = HeaderValue::from_str(&self.host).unwrap();
        request.headers_mut().insert(HOST, host);
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().append(name, value);
        }
        request
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The proxy's stable code of a refusal; empty in an application's answer.
    pub fn code(&self) -> &str {
        let value = self.headers.get("x-ravelin-code");
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// A kept connection.
#[derive(Debug)]
pub struct HttpConnection {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HttpConnection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self, String> {
        let opening = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            handshake(TokioIo::new(stream))
                .await
                .map_err(std::io::Error::other)
        };
        let (sender, connection) = tokio::time::timeout(CALL_DEADLINE, opening)
            .await
            .map_err(|_| "connect: deadline".to_owned())?
            .map_err(|error| format!("connect: {}", error.kind()))?;
        let task = tokio::spawn(async move {
            // WHY: whoever waits for an answer learns of the error.
            let _ = connection.await;
        });
        Ok(Self { sender, task })
    }

    /// Whether the other side has closed it in order, between two calls.
    pub async fn is_over(&mut self) -> bool {
        self.sender.ready().await.is_err()
    }

    /// Makes one call.
    pub async fn call(&mut self, call: &Call) -> Result<Answer, String> {
        let exchange = async {
            self.sender.ready().await.map_err(said)?;
            let answer = self
                .sender
                .send_request(call.request())
                .await
                .map_err(said)?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| format!("body: {error}"))?;
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            })
        };
        tokio::time::timeout(CALL_DEADLINE, exchange)
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

fn said(error: hyper::Error) -> String {
    format!("no answer: {error}")
}

/// One call over a connection of its own.
pub async fn call_once(address: SocketAddr, call: &Call) -> Result<Answer, String> {
    HttpConnection::open(address).await?.call(call).await
}
