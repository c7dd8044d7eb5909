//! One try of one request: its form on the wire, the wait for its answer, and what is known when it failed.

use std::rc::Rc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};

use super::{SendError, Upload, retry};
use crate::body::{BodySource, RequestBody};
use crate::upgrade;

/// True for a gRPC call, which tells its outcome in trailers. The forms for the web do not.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.map_or(b"".as_slice(), |value| value.as_bytes());
    let rest = value
        .split_at_checked(GRPC.len())
        .filter(|(start, _)| start.eq_ignore_ascii_case(GRPC));
    rest.is_some_and(|(_, rest)| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

const GRPC: &[u8] = b"application/grpc";

/// The response head, unless it is overdue.
pub(super) async fn in_time<T>(
    upload: &Upload,
    answer: impl Future<Output = T>,
) -> Result<T, SendError> {
    tokio::select! {
        biased;
        answer = answer => Ok(answer),
        () = upload.overdue() => Err(SendError::Deadline),
    }
}

pub(super) struct FailedTry {
    pub(super) fate: retry::Fate,
    pub(super) error: hyper::Error,
}

impl FailedTry {
    pub(super) fn new(mut failed: hyper::client::conn::TrySendError<Request<RequestBody>>) -> Self {
        let is_returned = failed.take_message().is_some();
        let error = failed.into_error();
        Self {
            fate: retry::fate(&error, is_returned),
            error,
        }
    }
}

/// The request as one connection needs it: origin form for HTTP/1.1, `:authority` for HTTP/2, and an upgrade as each
/// knows it.
pub(super) fn request(
    head: &Parts,
    body: &Rc<BodySource>,
    version: Version,
    scheme: &str,
) -> Result<Request<RequestBody>, SendError> {
    let mut request = Request::new(body.reader());
    *request.method_mut() = head.method.clone();
    *request.version_mut() = version;
    *request.headers_mut() = head.headers.clone();
    if version == Version::HTTP_2 {
        let host = request
            .headers_mut()
            .remove(header::HOST)
            .ok_or(SendError::Target)?;
        let target = head.uri.path_and_query().ok_or(SendError::Target)?.clone();
        *request.uri_mut() = Uri::builder()
            .scheme(scheme)
            .authority(host.as_bytes())
            .path_and_query(target)
            .build()
            .map_err(|_| SendError::Target)?;
        if let Some(protocol) = upgrade::to_connect(request.headers_mut()) {
            *request.method_mut() = Method::CONNECT;
            request.extensions_mut().insert(protocol);
        }
    } else {
        *request.uri_mut() = head.uri.clone();
        // WHY: without a word on its length hyper drops the body of a GET: what was judged would not be what is forwarded.
        let is_told = request.headers().contains_key(header::CONTENT_LENGTH);
        if !is_told && !http_body::Body::is_end_stream(request.body()) {
            let chunked = HeaderValue::from_static("chunked");
            request
                .headers_mut()
                .insert(header::TRANSFER_ENCODING, chunked);
        }
        if upgrade::asked(head).is_some() {
            upgrade::to_http1(request.headers_mut(), ravelin_runtime::crypto::random_bytes);
        }
    }
    Ok(request)
}
