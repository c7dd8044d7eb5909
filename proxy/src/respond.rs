//! The proxy's own answers: one status, one code in `x-ravelin-code`, one line of text; to gRPC callers a gRPC status.
//!
//! The reason of a decision stands in the decision log and never in the answer.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};

use crate::body::ProxyBody;
use crate::ext_authz::{self, Denial};
use crate::head::HeadRefusal;
use crate::upstream;

/// Name of the header that carries the code of a refusal.
pub const CODE_HEADER: HeaderName = HeaderName::from_static("x-ravelin-code");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The form of a proxy's own answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// HTTP status and one line.
    Http,
    /// The same to HEAD: HTTP/2 has nobody else who leaves the line away.
    HttpHead,
    /// The same; the connection ends, because what follows a refused upgrade must not be read as a request.
    HttpAndClose,
    /// A gRPC status without a message (trailers-only).
    Grpc,
}

impl Form {
    /// The form that the caller of this request understands.
    pub fn of(head: &Parts) -> Self {
        if upstream::is_grpc(&head.headers) {
            Self::Grpc
        } else if head.version < Version::HTTP_2 && head.headers.contains_key(header::UPGRADE) {
            Self::HttpAndClose
        } else if head.method == Method::HEAD {
            Self::HttpHead
        } else {
            Self::Http
        }
    }

    /// The HTTP status that says `status` in this form.
    pub fn status(self, status: StatusCode) -> StatusCode {
        match self {
            Self::Http | Self::HttpHead | Self::HttpAndClose => status,
            Self::Grpc => StatusCode::OK,
        }
    }
}

/// The gRPC status of an HTTP status, as gRPC clients map it where a proxy knows no gRPC; sizes are told exactly.
pub fn grpc_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "13",
        401 => "16",
        403 => "7",
        404 | 501 => "12",
        413 | 431 => "8",
        429 | 502 | 503 | 504 => "14",
        _ => "2",
    }
}

/// A call that is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the answer.
    pub status: StatusCode,
    /// Stable code: header, decision record and metric label.
    pub code: &'static str,
    /// One line for the caller.
    pub text: &'static str,
    /// True when the connection must not carry another call.
    pub is_final: bool,
}

impl Refusal {
    const fn new(status: StatusCode, code: &'static str, text: &'static str) -> Self {
        Self {
            status,
            code,
            text,
            is_final: false,
        }
    }

    /// The proxy has no identity, bundle or policy yet, or its SVID has expired.
    pub const fn not_ready(code: &'static str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            code,
            "the proxy is not ready",
        )
    }

    /// Memory is short: what runs goes on, new calls do not.
    pub const fn overload() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overload",
            "the proxy is overloaded",
        )
    }

    /// Policy says no, or the peer is cut off.
    pub const fn denied(code: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, "RBAC: access denied")
    }

    /// An external authorizer says no, or cannot be asked.
    pub const fn custom(status: StatusCode, code: &'static str) -> Self {
        Self::new(status, code, "RBAC: access denied")
    }

    /// The body did not come in time.
    pub const fn body_timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_timeout",
            "the request body did not come in time",
        )
    }

    /// The body ended early.
    pub const fn body_failed() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "body_failed",
            "the request body ended early",
        )
    }

    /// A token is not accepted.
    pub const fn token(status: StatusCode, code: &'static str) -> Self {
        Self::new(status, code, "RBAC: access denied")
    }

    /// No service has this host.
    pub const fn no_route() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no_route",
            "no service of the mesh has this host",
        )
    }

    /// No endpoint or no application took the connection.
    pub const fn unreachable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "upstream_unreachable",
            "no endpoint can be reached",
        )
    }

    /// The other end is not the service that was meant.
    pub const fn peer_untrusted() -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "peer_untrusted",
            "the endpoint's identity is not the expected one",
        )
    }

    /// The connection broke before an answer came.
    pub const fn upstream_failed() -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "upstream_failed",
            "the connection ended before an answer came",
        )
    }

    /// The answer is the start of another protocol, which nobody asked for.
    pub const fn upstream_switched() -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "upstream_switched_protocols",
            "the answer changes to a protocol that was not asked for",
        )
    }

    /// The application answered an extended CONNECT in HTTP/1.1 instead of changing the protocol.
    pub const fn declined() -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "upgrade_declined",
            "the application did not change to the protocol that was asked for",
        )
    }

    /// No way to the application for a protocol within HTTP.
    pub const fn no_tunnel() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "upgrade_not_supported",
            "the application takes no other protocol",
        )
    }

    /// A gRPC call to an application that speaks HTTP/1.1.
    pub const fn not_http2() -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "upstream_not_http2",
            "gRPC needs HTTP/2, which the upstream does not speak",
        )
    }

    /// No answer in time.
    pub const fn upstream_timeout() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream_timeout",
            "no answer in time",
        )
    }

    /// The body is longer than the proxy passes on.
    pub const fn body_too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "the request body is too large",
        )
    }

    /// The same refusal, after which the connection is closed.
    pub const fn closing(mut self) -> Self {
        self.is_final = true;
        self
    }
}

impl From<HeadRefusal> for Refusal {
    /// WHY: after a head that two readers could take for different things, nobody can say where the next one begins.
    fn from(refusal: HeadRefusal) -> Self {
        let answer = Self::new(
            refusal.status(),
            refusal.code(),
            "the request head is refused",
        );
        if refusal.is_malformed() {
            answer.closing()
        } else {
            answer
        }
    }
}

/// Builds the answer to a refused call.
pub fn refuse(form: Form, refusal: Refusal) -> Response<ProxyBody> {
    answer(form, refusal, refusal.text)
}

/// Builds the answer to a call that an external authorizer refused, in its words.
pub fn by_authorizer(form: Form, refusal: Refusal, denial: &Denial) -> Response<ProxyBody> {
    let has_body = !denial.body.is_empty()
        && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&refusal.status);
    let body = has_body.then(|| denial.body.clone());
    let mut response = Response::new(ProxyBody::Text(body, None));
    ext_authz::answer::apply(response.headers_mut(), &denial.headers);
    finish(
        form,
        refusal,
        &String::from_utf8_lossy(&denial.body),
        &mut response,
    );
    response
}

/// Builds the answer to a refused call with another text, such as Envoy's for tokens.
pub fn answer(form: Form, refusal: Refusal, text: &str) -> Response<ProxyBody> {
    let mut line = String::with_capacity(text.len().saturating_add(1));
    line.extend(text.chars().filter(|letter| !letter.is_control()));
    line.push('\n');
    let mut response = Response::new(ProxyBody::text(Bytes::from(line)));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if refusal.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"ravelin\", error=\"invalid_token\""),
        );
    }
    finish(form, refusal, text, &mut response);
    response
}

/// Status and code, in the form that the caller understands.
fn finish(form: Form, refusal: Refusal, text: &str, response: &mut Response<ProxyBody>) {
    *response.status_mut() = form.status(refusal.status);
    let headers = response.headers_mut();
    headers.insert(CODE_HEADER, HeaderValue::from_static(refusal.code));
    if refusal.is_final || form == Form::HttpAndClose {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if form == Form::HttpHead {
        *response.body_mut() = ProxyBody::Text(None, None);
    } else if form == Form::Grpc {
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        let status = HeaderValue::from_static(grpc_status(refusal.status));
        headers.insert(GRPC_STATUS, status);
        headers.insert(GRPC_MESSAGE, grpc_message(text));
        *response.body_mut() = ProxyBody::Text(None, None);
    }
}

/// One line as `grpc-message` carries it: all but printable ASCII, and `%`, percent-encoded, and of bounded length.
fn grpc_message(text: &str) -> HeaderValue {
    use std::fmt::Write as _;
    const BYTES_MAX: usize = 256;
    let mut message = String::new();
    for byte in text.trim().bytes().take(BYTES_MAX) {
        if byte == b'%' || !(b' '..=b'~').contains(&byte) {
            // WHY: writing to a String cannot fail.
            let _ = write!(message, "%{byte:02X}");
        } else {
            message.push(char::from(byte));
        }
    }
    HeaderValue::from_str(&message).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use http_body::Body as _;

    #[test]
    fn a_refusal_has_the_form_that_its_caller_understands() {
        use Form::{Grpc, Http, HttpAndClose};
        let (v11, v2) = (Version::HTTP_11, Version::HTTP_2);
        let rows = [
            ("a call", v11, ("accept", "*/*"), Http),
            ("json", v2, ("content-type", "application/json"), Http),
            ("grpc", v2, ("content-type", "application/grpc"), Grpc),
            (
                "grpc, a codec",
                v2,
                ("content-type", "application/grpc+proto"),
                Grpc,
            ),
            (
                "grpc, a parameter",
                v2,
                ("content-type", "Application/GRPC; x=1"),
                Grpc,
            ),
            (
                "grpc for the web",
                v11,
                ("content-type", "application/grpc-web+proto"),
                Http,
            ),
            ("an upgrade", v11, ("upgrade", "websocket"), HttpAndClose),
            ("a field of no meaning", v2, ("upgrade", "websocket"), Http),
        ];
        for (name, version, (header, value), want) in rows {
            let request = Request::builder().version(version).header(header, value);
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(Form::of(&head), want, "{name}");
        }
    }

    #[test]
    fn a_refused_grpc_call_gets_a_status_without_a_message_body() {
        let rows = [
            (
                Refusal::denied("no_allow_matched"),
                "7",
                "RBAC: access denied",
            ),
            (
                Refusal::token(StatusCode::UNAUTHORIZED, "token_expired"),
                "16",
                "RBAC: access denied",
            ),
            (
                Refusal::no_route(),
                "12",
                "no service of the mesh has this host",
            ),
            (Refusal::unreachable(), "14", "no endpoint can be reached"),
            (
                Refusal::body_too_large(),
                "8",
                "the request body is too large",
            ),
        ];
        for (refusal, status, message) in rows {
            let response = refuse(Form::Grpc, refusal);
            assert_eq!(response.status(), 200, "{}", refusal.code);
            let headers = response.headers();
            assert_eq!(headers["grpc-status"], status, "{}", refusal.code);
            assert_eq!(headers["grpc-message"], message, "{}", refusal.code);
            assert_eq!(headers["content-type"], "application/grpc");
            assert_eq!(headers[CODE_HEADER], refusal.code);
            assert!(response.body().is_end_stream(), "{}", refusal.code);
        }
        assert_eq!(grpc_message("a 100 % \u{fc}\n"), "a 100 %25 %C3%BC");
    }
}
