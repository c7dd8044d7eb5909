//! One HTTP/1.1 call over a fresh connection, its target sent exactly as given.

use crate::limits;
use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody accepts connections there.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The connection ended without an answer.
    #[error("no answer: {0}")]
    NoAnswer(#[from] hyper::Error),
    /// Method, target or header cannot be written.
    #[error("cannot be sent: {0}")]
    Request(String),
    /// The body is cut off or too large.
    #[error("the answer's body cannot be read: {0}")]
    Body(String),
    /// Nothing came in time.
    #[error("no answer within {} s", limits::HTTP_CALL_DEADLINE.as_secs())]
    Deadline,
}

/// A call to make.
#[derive(Debug, Clone, Default)]
pub(crate) struct HttpCall {
    /// Such as `GET`.
    pub(crate) method: String,
    /// The `Host` header.
    pub(crate) host: String,
    /// The request target in origin form, sent as it is.
    pub(crate) target: String,
    /// Further headers.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct HttpAnswer {
    /// The status code.
    pub(crate) status: u16,
    /// All headers.
    pub(crate) headers: HeaderMap,
    /// The body, up to a limit.
    pub(crate) body: Bytes,
}

impl HttpAnswer {
    /// The text of a header; empty without it.
    pub(crate) fn header(&self, name: &str) -> String {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    }
}

/// Makes a call within the deadline.
pub(crate) async fn send(address: SocketAddr, call: HttpCall) -> Result<HttpAnswer, CallError> {
    tokio::time::timeout(limits::HTTP_CALL_DEADLINE, exchange(address, call))
        .await
        .map_err(|_| CallError::Deadline)?
}

async fn exchange(address: SocketAddr, call: HttpCall) -> Result<HttpAnswer, CallError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| CallError::Connect { address, source })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(request(call)?).await?;
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let body = Limited::new(answer.into_body(), limits::HTTP_BODY_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| CallError::Body(error.to_string()))?
            .to_bytes();
        Ok(HttpAnswer {
            status,
            headers,
            body,
        })
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => match ended {
            // WHY: the connection may end in the same moment in which the whole answer has come.
            Ok(()) => exchange.await,
            Err(error) => Err(CallError::NoAnswer(error)),
        },
    }
}

fn request(call: HttpCall) -> Result<Request<Full<Bytes>>, CallError> {
    let refused = |error: String| CallError::Request(error);
    let method =
        Method::from_bytes(call.method.as_bytes()).map_err(|error| refused(error.to_string()))?;
    let target: Uri = call
        .target
        .parse()
        .map_err(|error: http::uri::InvalidUri| refused(error.to_string()))?;
    let mut request = Request::new(Full::new(Bytes::from(call.body)));
    *request.method_mut() = method;
    *request.uri_mut() = target;
    let host = HeaderValue::from_str(&call.host).map_err(|error| refused(error.to_string()))?;
    request.headers_mut().insert(HOST, host);
    for (name, value) in call.headers {
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|error| refused(error.to_string()))?;
        let value = HeaderValue::from_str(&value).map_err(|error| refused(error.to_string()))?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}
