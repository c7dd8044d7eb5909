//! The gRPC protocol: `envoy.service.auth.v3.Authorization/Check`, one unary call over the connections of the pools.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use prost::Message;
use ravelin_policies::ExtensionProvider;
use ravelin_proto::pb::envoy::config::core::v3 as core;
use ravelin_proto::pb::envoy::service::auth::v3 as auth;
use ravelin_proto::time::Timestamp;

use super::answer::{Answer, Changes, Denial, HeaderChange, How, removable};
use super::{Authorizer, CheckError, Question, RequestView, Whole, head, partial_body};
use crate::limits;
use crate::worker::Worker;

const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Flag and length before a message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// Asks an authorizer that speaks gRPC.
pub(super) async fn check(
    worker: &Rc<Worker>,
    authorizer: &Authorizer,
    provider: &ExtensionProvider,
    question: &Question<'_>,
) -> Result<Answer, CheckError> {
    const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
    let host = HeaderValue::from_str(&authorizer.authority)
        .map_err(|_| CheckError::BadAnswer("its name is no host"))?;
    let mut head = head(&Method::POST, host, METHOD)?;
    let headers = &mut head.headers;
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Ok(millis) = HeaderValue::from_str(&format!("{}m", provider.timeout.as_millis())) {
        headers.insert(GRPC_TIMEOUT, millis);
    }
    let is_packed = provider.body.is_some_and(|body| body.is_packed_as_bytes);
    let message = framed(&request(question, is_packed));
    let whole = authorizer.call(worker, &head, message).await?;
    answer(response(&whole)?)
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES.saturating_add(length));
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// The one message of a call that ended well.
fn response(whole: &Whole) -> Result<auth::CheckResponse, CheckError> {
    const STATUS: &str = "grpc-status";
    if whole.head.status != StatusCode::OK {
        return Err(CheckError::BadAnswer("its HTTP status is not 200"));
    }
    let status = whole
        .trailers
        .get(STATUS)
        .or_else(|| whole.head.headers.get(STATUS));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(_) => return Err(CheckError::BadAnswer("its gRPC status is not 0")),
        None => return Err(CheckError::BadAnswer("it has no gRPC status")),
    }
    let bad = CheckError::BadAnswer("it is not one message");
    let Some((prefix, message)) = whole.body.split_at_checked(PREFIX_BYTES) else {
        return Err(bad);
    };
    let [0, length @ ..] = prefix else {
        return Err(bad);
    };
    let length = <[u8; 4]>::try_from(length).map(u32::from_be_bytes);
    if length.ok().and_then(|length| usize::try_from(length).ok()) != Some(message.len()) {
        return Err(bad);
    }
    auth::CheckResponse::decode(message).map_err(|_| bad)
}

/// A yes has status 0 and no word of refusal. An empty message says nothing at all.
fn answer(response: auth::CheckResponse) -> Result<Answer, CheckError> {
    use auth::check_response::HttpResponse;
    let code = response.status.as_ref().map(|status| status.code);
    match (code, response.http_response) {
        (Some(0) | None, Some(HttpResponse::OkResponse(ok))) if is_too_much(&ok) => {
            Err(CheckError::BadAnswer("it changes too much"))
        }
        (Some(0) | None, Some(HttpResponse::OkResponse(ok))) => Ok(Answer::Allowed(changes(&ok))),
        (Some(0), None) => Ok(Answer::Allowed(Changes::default())),
        (None, None) => Err(CheckError::BadAnswer("it is empty")),
        (Some(0), Some(HttpResponse::DeniedResponse(_))) => {
            Err(CheckError::BadAnswer("it says both yes and no"))
        }
        (_, Some(HttpResponse::DeniedResponse(denied))) => Ok(Answer::Denied(denial(&denied))),
        (Some(_), Some(HttpResponse::OkResponse(_)) | None) => Ok(Answer::Denied(Denial {
            status: StatusCode::FORBIDDEN,
            headers: Vec::new(),
            body: Bytes::new(),
        })),
    }
}

/// WHY: a header map has no room for all that fits into an answer, and each change costs a look at every header.
fn is_too_much(ok: &auth::OkHttpResponse) -> bool {
    [
        ok.headers.len(),
        ok.headers_to_remove.len(),
        ok.response_headers_to_add.len(),
        ok.query_parameters_to_set.len(),
        ok.query_parameters_to_remove.len(),
    ]
    .iter()
    .any(|count| *count > limits::CHECK_CHANGES_MAX)
}

fn changes(ok: &auth::OkHttpResponse) -> Changes {
    let upstream = ok.headers.iter().filter_map(|option| {
        let (name, value, how) = header_of(option, How::Set)?;
        HeaderChange::upstream(name, value, how)
    });
    let downstream = ok.response_headers_to_add.iter().filter_map(|option| {
        let (name, value, how) = header_of(option, How::Append)?;
        HeaderChange::downstream(name, value, how)
    });
    Changes {
        upstream: upstream.collect(),
        removed: ok
            .headers_to_remove
            .iter()
            .filter_map(|name| removable(name))
            .collect(),
        downstream: downstream.collect(),
        params_set: ok
            .query_parameters_to_set
            .iter()
            .map(|param| (param.key.clone(), param.value.clone()))
            .collect(),
        params_removed: ok.query_parameters_to_remove.clone(),
    }
}

fn denial(denied: &auth::DeniedHttpResponse) -> Denial {
    let status = denied
        .status
        .as_ref()
        .and_then(|status| u16::try_from(status.code).ok())
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|status| !status.is_informational());
    let headers = denied.headers.iter().take(limits::CHECK_CHANGES_MAX);
    let headers = headers.filter_map(|option| {
        let (name, value, how) = header_of(option, How::Set)?;
        HeaderChange::downstream(name, value, how)
    });
    Denial {
        status: status.unwrap_or(StatusCode::FORBIDDEN),
        headers: headers.collect(),
        body: Bytes::from(denied.body.clone()),
    }
}

/// `append` counts before `append_action`, whose default means `default` here, as Envoy reads it.
fn header_of(option: &core::HeaderValueOption, default: How) -> Option<(&[u8], &[u8], How)> {
    use core::header_value_option::HeaderAppendAction;
    let header = option.header.as_ref()?;
    let value = if header.raw_value.is_empty() {
        header.value.as_bytes()
    } else {
        header.raw_value.as_slice()
    };
    let how = match (option.append, option.append_action()) {
        (Some(true), _) => How::Append,
        (Some(false), _) | (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => How::Set,
        (None, HeaderAppendAction::AppendIfExistsOrAdd) => default,
        (None, HeaderAppendAction::AddIfAbsent) => How::AddIfAbsent,
        (None, HeaderAppendAction::OverwriteIfExists) => How::Replace,
    };
    Some((header.key.as_bytes(), value, how))
}

fn request(question: &Question<'_>, is_packed: bool) -> auth::CheckRequest {
    use auth::attribute_context::{Peer, Request, TlsSession};
    let connection = question.connection;
    let peer = |address: IpAddr, port: u16, principal: String| Peer {
        address: Some(address_of(SocketAddr::new(address, port))),
        principal,
        ..Peer::default()
    };
    let caller = connection.principal.as_ref();
    let caller = caller.map(ToString::to_string).unwrap_or_default();
    let request = question.request.as_ref().map(|view| Request {
        time: Some(time_of(question.time)),
        http: Some(http_of(view, connection.principal.is_some(), is_packed)),
    });
    auth::CheckRequest {
        attributes: Some(auth::AttributeContext {
            source: Some(peer(connection.source_ip, question.source.port(), caller)),
            destination: Some(peer(
                connection.destination_ip,
                connection.destination_port,
                question.workload.to_string(),
            )),
            request,
            context_extensions: HashMap::new(),
            tls_session: connection.sni.clone().map(|sni| TlsSession { sni }),
        }),
    }
}

fn http_of(
    view: &RequestView<'_>,
    is_tls: bool,
    is_packed: bool,
) -> auth::attribute_context::HttpRequest {
    let scheme = if is_tls { "https" } else { "http" };
    let host = String::from_utf8_lossy(view.host.as_bytes()).into_owned();
    let sent = view.body.map(|body| &body.bytes);
    let length = match view.body {
        Some(body) if body.is_whole => i64::try_from(body.bytes.len()).ok(),
        Some(_) | None => announced_length(&view.head.headers),
    };
    let mut headers = header_values(view);
    headers.extend([
        (":authority", view.host.as_bytes()),
        (":method", view.head.method.as_str().as_bytes()),
        (":path", view.path.as_target().as_bytes()),
        (":scheme", scheme.as_bytes()),
    ]);
    auth::attribute_context::HttpRequest {
        id: String::from_utf8_lossy(view.id.as_bytes()).into_owned(),
        method: view.head.method.as_str().to_owned(),
        headers: joined(&headers),
        header_map: Some(core::HeaderMap {
            headers: headers.iter().map(|header| header_value(*header)).collect(),
        }),
        path: view.path.as_target().to_owned(),
        host,
        scheme: scheme.to_owned(),
        query: String::new(),
        fragment: String::new(),
        size: length.unwrap_or(-1),
        protocol: if view.head.version == Version::HTTP_2 {
            "HTTP/2".to_owned()
        } else {
            "HTTP/1.1".to_owned()
        },
        body: match sent {
            Some(bytes) if !is_packed => String::from_utf8_lossy(bytes).into_owned(),
            Some(_) | None => String::new(),
        },
        raw_body: match sent {
            Some(bytes) if is_packed => bytes.to_vec(),
            Some(_) | None => Vec::new(),
        },
    }
}

/// Every value of every header by itself, in order.
fn header_values<'a>(view: &RequestView<'a>) -> Vec<(&'a str, &'a [u8])> {
    let mut values: Vec<(&str, &[u8])> = view
        .head
        .headers
        .iter()
        .filter(|(name, _)| *name != header::HOST)
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    if let Some(partial) = partial_body(view.body) {
        values.push((super::PARTIAL_BODY, partial.as_bytes()));
    }
    values
}

/// All values of a repeated header (advisory A6), joined as HTTP joins lists.
fn joined(values: &[(&str, &[u8])]) -> HashMap<String, String> {
    let mut joined: HashMap<String, String> = HashMap::with_capacity(values.len());
    for (name, value) in values {
        let value = String::from_utf8_lossy(value);
        match joined.get_mut(*name) {
            Some(known) => {
                known.push(',');
                known.push_str(&value);
            }
            None => drop(joined.insert((*name).to_owned(), value.into_owned())),
        }
    }
    joined
}

fn header_value((name, value): (&str, &[u8])) -> core::HeaderValue {
    let key = name.to_owned();
    match std::str::from_utf8(value) {
        Ok(value) => core::HeaderValue {
            key,
            value: value.to_owned(),
            raw_value: Vec::new(),
        },
        Err(_) => core::HeaderValue {
            key,
            value: String::new(),
            raw_value: value.to_vec(),
        },
    }
}

fn announced_length(headers: &HeaderMap) -> Option<i64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

fn address_of(address: SocketAddr) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(u32::from(
                address.port(),
            ))),
            ..core::SocketAddress::default()
        })),
    }
}

fn time_of(time: Timestamp) -> prost_types::Timestamp {
    let millis = time.unix_millis();
    let nanos = i32::try_from(millis.rem_euclid(1000)).unwrap_or(0);
    prost_types::Timestamp {
        seconds: millis.div_euclid(1000),
        nanos: nanos.saturating_mul(1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, HTTP status, gRPC status, body, and whether that is a message.
    type FrameRow = (&'static str, u16, Option<&'static str>, &'static [u8], bool);

    fn whole(status: u16, grpc_status: Option<&str>, body: &[u8]) -> Whole {
        let response = http::Response::builder().status(status).body(()).unwrap();
        let mut trailers = HeaderMap::new();
        if let Some(grpc_status) = grpc_status {
            trailers.insert("grpc-status", grpc_status.parse().unwrap());
        }
        Whole {
            head: response.into_parts().0,
            body: Bytes::copy_from_slice(body),
            trailers,
        }
    }

    #[test]
    fn rule_61_an_answer_is_one_whole_message_or_none() {
        const GOOD: [u8; 7] = [0, 0, 0, 0, 2, 0x0a, 0];
        let rows: [FrameRow; 12] = [
            ("a message", 200, Some("0"), &GOOD, true),
            ("an empty message", 200, Some("0"), &[0, 0, 0, 0, 0], true),
            ("nothing", 200, Some("0"), &[], false),
            ("half a prefix", 200, Some("0"), &[0, 0, 0], false),
            (
                "compressed",
                200,
                Some("0"),
                &[1, 0, 0, 0, 2, 0x0a, 0],
                false,
            ),
            (
                "too short",
                200,
                Some("0"),
                &[0, 0, 0, 0, 9, 0x0a, 0],
                false,
            ),
            ("too long", 200, Some("0"), &[0, 0, 0, 0, 1, 0x0a, 0], false),
            (
                "huge",
                200,
                Some("0"),
                &[0, 255, 255, 255, 255, 0x0a],
                false,
            ),
            (
                "no protobuf",
                200,
                Some("0"),
                &[0, 0, 0, 0, 2, 0x0a, 9],
                false,
            ),
            ("an error", 200, Some("14"), &GOOD, false),
            ("no status", 200, None, &GOOD, false),
            ("another HTTP status", 503, Some("0"), &GOOD, false),
        ];
        for (name, status, grpc_status, body, is_message) in rows {
            let got = response(&whole(status, grpc_status, body));
            assert_eq!(got.is_ok(), is_message, "{name}: {got:?}");
        }
    }

    #[test]
    fn rule_6_only_a_clear_yes_is_a_yes() {
        use auth::check_response::HttpResponse::{DeniedResponse, OkResponse};
        use ravelin_proto::pb::google::rpc::Status;
        let ok = || OkResponse(auth::OkHttpResponse::default());
        let denied = || DeniedResponse(auth::DeniedHttpResponse::default());
        let too_much = auth::OkHttpResponse {
            headers_to_remove: vec!["x-a".to_owned(); limits::CHECK_CHANGES_MAX + 1],
            ..auth::OkHttpResponse::default()
        };
        let rows = [
            ("yes", Some(0), Some(ok()), Some(true)),
            ("status alone", Some(0), None, Some(true)),
            ("ok alone", None, Some(ok()), Some(true)),
            ("no", Some(7), Some(denied()), Some(false)),
            ("status alone", Some(7), None, Some(false)),
            ("denied alone", None, Some(denied()), Some(false)),
            ("no, with changes", Some(7), Some(ok()), Some(false)),
            ("both", Some(0), Some(denied()), None),
            ("nothing", None, None, None),
            ("too much", Some(0), Some(OkResponse(too_much)), None),
        ];
        for (name, code, http_response, want) in rows {
            let status = code.map(|code| Status {
                code,
                message: String::new(),
            });
            let answer = answer(auth::CheckResponse {
                status,
                http_response,
            });
            let got = answer
                .ok()
                .map(|answer| matches!(answer, Answer::Allowed(_)));
            assert_eq!(got, want, "{name}");
        }
    }
}
