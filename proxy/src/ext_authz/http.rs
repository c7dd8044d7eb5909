//! The HTTP protocol: a request of the same method to `pathPrefix` and the call's path. 200 is a yes; another status is
//! a no that the caller gets, except those from 500 on: then the authorizer itself has failed, as Envoy reads it.

use std::rc::Rc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use ravelin_policies::{CheckProtocol, ExtensionProvider, HeaderPattern};

use super::answer::{Answer, Changes, Denial, HeaderChange, How};
use super::{Authorizer, CheckError, Question, RequestView, Whole, head, partial_body};
use crate::head::is_framing;
use crate::worker::Worker;

/// Asks an authorizer that speaks HTTP. Bare connections are never asked about (rule 57).
pub(super) async fn check(
    worker: &Rc<Worker>,
    authorizer: &Authorizer,
    provider: &ExtensionProvider,
    question: &Question<'_>,
) -> Result<Answer, CheckError> {
    let Some(view) = &question.request else {
        return Err(CheckError::BadAnswer("it judges HTTP alone"));
    };
    let body = view.body.map(|body| body.bytes.clone());
    let body = body.unwrap_or_default();
    let head = request(provider, view, &body)?;
    let whole = authorizer.call(worker, &head, body).await?;
    answer(provider, whole)
}

fn request(
    provider: &ExtensionProvider,
    view: &RequestView<'_>,
    body: &Bytes,
) -> Result<Parts, CheckError> {
    let CheckProtocol::Http {
        path_prefix,
        request_headers,
        additional_headers,
        ..
    } = &provider.protocol
    else {
        return Err(CheckError::BadAnswer("it speaks another protocol"));
    };
    let target = format!("{path_prefix}{}", view.path.as_target());
    // WHY: as in Envoy, the authorizer sees the host of the call; where it is itself is settled by the connection.
    let mut asked = head(&view.head.method, view.host.clone(), &target)?;
    for (name, value) in &view.head.headers {
        let is_sent = *name == header::AUTHORIZATION
            || request_headers
                .iter()
                .any(|pattern| pattern.matches(name.as_str()));
        if is_sent && !is_framing(name.as_str()) {
            asked.headers.append(name.clone(), value.clone());
        }
    }
    for (name, value) in additional_headers {
        set(&mut asked.headers, name, value);
    }
    if let Some(partial) = partial_body(view.body) {
        set(&mut asked.headers, super::PARTIAL_BODY, partial);
        let content_type = view.head.headers.get(header::CONTENT_TYPE);
        if let (Some(value), false) = (content_type, body.is_empty()) {
            asked.headers.insert(header::CONTENT_TYPE, value.clone());
        }
    }
    asked
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    Ok(asked)
}

fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    let name = HeaderName::from_bytes(name.as_bytes());
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value))
        && !is_framing(name.as_str())
    {
        headers.insert(name, value);
    }
}

fn answer(provider: &ExtensionProvider, whole: Whole) -> Result<Answer, CheckError> {
    let CheckProtocol::Http {
        upstream_headers_on_allow,
        downstream_headers_on_allow,
        downstream_headers_on_deny,
        ..
    } = &provider.protocol
    else {
        return Err(CheckError::BadAnswer("it speaks another protocol"));
    };
    let headers = &whole.head.headers;
    let status = whole.head.status;
    if status != StatusCode::OK && !is_no(status) {
        return Err(CheckError::BadAnswer("the authorizer failed"));
    }
    if status == StatusCode::OK {
        return Ok(Answer::Allowed(Changes {
            upstream: taken(headers, HeaderChange::upstream, |name| {
                is_named(upstream_headers_on_allow, name)
            }),
            downstream: taken(headers, HeaderChange::downstream, |name| {
                is_named(downstream_headers_on_allow, name)
            }),
            ..Changes::default()
        }));
    }
    Ok(Answer::Denied(Denial {
        status,
        headers: taken(headers, HeaderChange::downstream, |name| {
            downstream_headers_on_deny.is_empty()
                || is_named(downstream_headers_on_deny, name)
                || [header::WWW_AUTHENTICATE, header::LOCATION].contains(name)
        }),
        body: whole.body,
    }))
}

/// True for a status that says no whatever comes with it.
pub(super) fn is_no(status: StatusCode) -> bool {
    status != StatusCode::OK && !status.is_server_error() && !status.is_informational()
}

fn is_named(patterns: &[HeaderPattern], name: &HeaderName) -> bool {
    patterns
        .iter()
        .any(|pattern| pattern.matches(name.as_str()))
}

/// Headers of an answer; of a repeated one every value. What its `Connection` names ends here.
fn taken(
    headers: &HeaderMap,
    change: fn(&[u8], &[u8], How) -> Option<HeaderChange>,
    is_wanted: impl Fn(&HeaderName) -> bool,
) -> Vec<HeaderChange> {
    let mut passed = headers.clone();
    crate::head::remove_response_hops(&mut passed);
    let mut changes = Vec::new();
    for name in passed.keys().filter(|name| is_wanted(name)) {
        let mut how = How::Set;
        for value in passed.get_all(name) {
            changes.extend(change(name.as_str().as_bytes(), value.as_bytes(), how));
            how = How::Append;
        }
    }
    changes
}
