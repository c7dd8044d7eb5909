//! The proxy's own answers: one status, one code in `x-ravelin-code`, one line of text.
//!
//! The reason of a decision stands in the decision log and never in the answer.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::body::ProxyBody;
use crate::ext_authz::{self, Denial};
use crate::head::HeadRefusal;

/// Name of the header that carries the code of a refusal.
pub const CODE_HEADER: HeaderName = HeaderName::from_static("x-ravelin-code");

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
pub fn refuse(refusal: Refusal) -> Response<ProxyBody> {
    answer(refusal, refusal.text)
}

/// Builds the answer to a call that an external authorizer refused, in its words.
pub fn by_authorizer(refusal: Refusal, denial: &Denial) -> Response<ProxyBody> {
    let has_body = !denial.body.is_empty()
        && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&refusal.status);
    let body = has_body.then(|| denial.body.clone());
    let mut response = Response::new(ProxyBody::Text(body, None));
    *response.status_mut() = refusal.status;
    ext_authz::answer::apply(response.headers_mut(), &denial.headers);
    let code = HeaderValue::from_static(refusal.code);
    response.headers_mut().insert(CODE_HEADER, code);
    response
}

/// Builds the answer to a refused call with another text, such as Envoy's for tokens.
pub fn answer(refusal: Refusal, text: &str) -> Response<ProxyBody> {
    let mut line = String::with_capacity(text.len().saturating_add(1));
    line.extend(text.chars().filter(|letter| !letter.is_control()));
    line.push('\n');
    let mut response = Response::new(ProxyBody::text(Bytes::from(line)));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(CODE_HEADER, HeaderValue::from_static(refusal.code));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if refusal.status == StatusCode::UNAUTHORIZED {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"ravelin\", error=\"invalid_token\""),
        );
    }
    if refusal.is_final {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
