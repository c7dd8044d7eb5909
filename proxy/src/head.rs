//! Checks of a request head, before anything is judged: one host, one meaning, no forged statements.
//!
//! What leaves this file is what policy sees and what is forwarded. A head that two programs could read
//! differently is refused (400); a header by which a caller would speak for a proxy is removed.
//! RFC 9110 section 7.6.1 (hop-by-hop), RFC 9112 section 3.2 (target forms).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Uri};

use crate::limits;
use crate::upgrade;

/// A head that is not passed on, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadRefusal {
    /// No `Host` or `:authority`.
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// `Host` and the target's authority differ.
    HostMismatch,
    /// Not a host with an optional port.
    HostMalformed,
    /// CONNECT or TRACE.
    Method,
    /// Not a method in upper case (rule 39).
    MethodMalformed,
    /// A header that asks the application to act under another method.
    MethodOverride,
    /// The target is too long.
    TargetTooLong,
    /// The target has a form that is not served here.
    TargetForm,
    /// `Connection` names a field that frames or addresses the message.
    ConnectionNames,
    /// The message's length is told twice.
    LengthAmbiguous,
    /// `Expect` asks for something else than `100-continue`.
    Expectation,
    /// `Upgrade` to more than one protocol, to a version of HTTP, or in another request than a GET without a body.
    Upgrade,
    /// Too many header fields.
    TooManyHeaders,
    /// The path has no single meaning (code of the policy engine).
    Path(&'static str),
}

impl HeadRefusal {
    /// Stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostMismatch => "host_mismatch",
            Self::HostMalformed => "host_malformed",
            Self::Method => "method_refused",
            Self::MethodMalformed => "method_malformed",
            Self::MethodOverride => "method_override_refused",
            Self::TargetTooLong => "target_too_long",
            Self::TargetForm => "target_form_refused",
            Self::ConnectionNames => "connection_header_refused",
            Self::LengthAmbiguous => "length_ambiguous",
            Self::Expectation => "expectation_refused",
            Self::Upgrade => "upgrade_not_supported",
            Self::TooManyHeaders => "too_many_headers",
            Self::Path(code) => code,
        }
    }

    /// True where the head breaks the rules of the format, rather than asking for what is not served.
    pub fn is_malformed(self) -> bool {
        match self {
            Self::HostMissing
            | Self::HostRepeated
            | Self::HostMismatch
            | Self::HostMalformed
            | Self::MethodMalformed
            | Self::TargetTooLong
            | Self::TargetForm
            | Self::ConnectionNames
            | Self::LengthAmbiguous
            | Self::TooManyHeaders => true,
            Self::Method
            | Self::MethodOverride
            | Self::Expectation
            | Self::Upgrade
            | Self::Path(_) => false,
        }
    }

    /// Status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Upgrade => StatusCode::NOT_IMPLEMENTED,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HostMissing
            | Self::HostRepeated
            | Self::HostMismatch
            | Self::HostMalformed
            | Self::MethodMalformed
            | Self::MethodOverride
            | Self::TargetForm
            | Self::ConnectionNames
            | Self::LengthAmbiguous
            | Self::Path(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// What the checks found; the head itself has been cleaned in place. Where it asks for another protocol, it is a GET with
/// one `upgrade` field, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedHead {
    /// Host with its port if one was given, lower case.
    pub host: HeaderValue,
}

impl CheckedHead {
    /// The host as text.
    pub fn host(&self) -> &str {
        self.host.to_str().unwrap_or_default()
    }
}

/// Checks `head` and removes from it what ends at this hop and what only a proxy may say.
pub fn check(head: &mut Parts) -> Result<CheckedHead, HeadRefusal> {
    if head.headers.len() > limits::HEADERS_MAX {
        return Err(HeadRefusal::TooManyHeaders);
    }
    let upgrade = upgrade::take(head)?;
    check_method(&head.method)?;
    check_target(&head.uri, &head.method)?;
    let host = take_host(&head.uri, &mut head.headers)?;
    check_length(&head.headers)?;
    check_expectation(&mut head.headers)?;
    check_override(&head.headers)?;
    remove_hop_by_hop(&mut head.headers)?;
    remove_claims(&mut head.headers);
    if let Some(upgrade) = upgrade {
        head.headers.insert(header::UPGRADE, upgrade);
    }
    join_cookies(&mut head.headers);
    Ok(CheckedHead { host })
}

/// HTTP/2 may split `Cookie` over several fields; HTTP/1.1 knows one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(_)) = (cookies.next(), cookies.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for cookie in headers.get_all(header::COOKIE).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

fn check_method(method: &Method) -> Result<(), HeadRefusal> {
    let is_word = method
        .as_str()
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if !is_word {
        return Err(HeadRefusal::MethodMalformed);
    }
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(HeadRefusal::Method);
    }
    Ok(())
}

fn check_target(uri: &Uri, method: &Method) -> Result<(), HeadRefusal> {
    if let Some(scheme) = uri.scheme_str()
        && scheme != "http"
        && scheme != "https"
    {
        return Err(HeadRefusal::TargetForm);
    }
    let Some(target) = uri.path_and_query() else {
        return Err(HeadRefusal::TargetForm);
    };
    if target.as_str().len() > limits::TARGET_BYTES_MAX {
        return Err(HeadRefusal::TargetTooLong);
    }
    let is_asterisk = target.as_str() == "*";
    if target.as_str().starts_with('/') || (is_asterisk && *method == Method::OPTIONS) {
        Ok(())
    } else {
        Err(HeadRefusal::TargetForm)
    }
}

/// Takes `Host` out of the headers and compares it with the target's authority.
fn take_host(uri: &Uri, headers: &mut HeaderMap) -> Result<HeaderValue, HeadRefusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let first = hosts.next().cloned();
    if hosts.next().is_some() {
        return Err(HeadRefusal::HostRepeated);
    }
    headers.remove(header::HOST);
    let from_header = first.as_ref().map(lower_case_host).transpose()?;
    let from_target = match uri.authority() {
        Some(authority) => {
            let value = HeaderValue::from_str(authority.as_str())
                .map_err(|_| HeadRefusal::HostMalformed)?;
            Some(lower_case_host(&value)?)
        }
        None => None,
    };
    match (from_header, from_target) {
        (Some(host), Some(target)) if host != target => Err(HeadRefusal::HostMismatch),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(HeadRefusal::HostMissing),
    }
}

/// A host with an optional port, in lower case; anything else is refused.
pub fn lower_case_host(value: &HeaderValue) -> Result<HeaderValue, HeadRefusal> {
    let text = value.to_str().map_err(|_| HeadRefusal::HostMalformed)?;
    if !is_host(text) {
        return Err(HeadRefusal::HostMalformed);
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return HeaderValue::from_str(&text.to_ascii_lowercase())
            .map_err(|_| HeadRefusal::HostMalformed);
    }
    Ok(value.clone())
}

/// A name, an IPv4 address or a bracketed IPv6 address, with an optional port. No userinfo, no list.
fn is_host(text: &str) -> bool {
    if text.is_empty() || text.len() > limits::HOST_BYTES_MAX {
        return false;
    }
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, after)) => {
                if address.parse::<std::net::Ipv6Addr>().is_err() {
                    return false;
                }
                match after.strip_prefix(':') {
                    Some(port) => ("v6", Some(port)),
                    None if after.is_empty() => ("v6", None),
                    None => return false,
                }
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let is_name = !name.is_empty()
        && !name.starts_with('.')
        && !name.contains("..")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    let is_port = port.is_none_or(|port| {
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    is_name && is_port
}

fn check_length(headers: &HeaderMap) -> Result<(), HeadRefusal> {
    let is_chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = lengths.next();
    if lengths.next().is_some() || (is_chunked && first.is_some()) {
        return Err(HeadRefusal::LengthAmbiguous);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let coding = codings.next();
    let is_plain_chunked =
        coding.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    // WHY: CGI and WSGI programs read `_` as `-`, and would see a length that nobody else did.
    let is_disguised = headers.keys().map(HeaderName::as_str).any(|name| {
        name.contains('_')
            && (is_same(name, "content-length") || is_same(name, "transfer-encoding"))
    });
    if codings.next().is_some() || !is_plain_chunked || is_disguised {
        return Err(HeadRefusal::LengthAmbiguous);
    }
    Ok(())
}

fn check_expectation(headers: &mut HeaderMap) -> Result<(), HeadRefusal> {
    // WHY: the server side of hyper has answered `100-continue` once the body is read; it ends at this hop.
    match headers.remove(header::EXPECT) {
        None => Ok(()),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(()),
        Some(_) => Err(HeadRefusal::Expectation),
    }
}

fn check_override(headers: &HeaderMap) -> Result<(), HeadRefusal> {
    const NAMES: [&str; 3] = [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
    ];
    let is_override = headers
        .keys()
        .any(|name| NAMES.iter().any(|known| is_same(name.as_str(), known)));
    if is_override {
        Err(HeadRefusal::MethodOverride)
    } else {
        Ok(())
    }
}

/// Removes the fields that end at this hop, and those that `Connection` names.
///
/// `TE: trailers` stays (gRPC needs it).
pub fn remove_hop_by_hop(headers: &mut HeaderMap) -> Result<(), HeadRefusal> {
    const FRAMING: [HeaderName; 6] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::AUTHORIZATION,
        header::TRAILER,
        header::CONTENT_TYPE,
    ];
    let mut named = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        let text = value.to_str().map_err(|_| HeadRefusal::ConnectionNames)?;
        for token in text
            .split(',')
            .map(str::trim)
            .filter(|token| !token.is_empty())
        {
            // WHY: `TE` has a rule of its own: it is named, and trailers are carried on each hop all the same.
            if ["close", "keep-alive", "te"]
                .iter()
                .any(|known| token.eq_ignore_ascii_case(known))
            {
                continue;
            }
            let name = HeaderName::from_bytes(token.as_bytes())
                .map_err(|_| HeadRefusal::ConnectionNames)?;
            if FRAMING.contains(&name) {
                return Err(HeadRefusal::ConnectionNames);
            }
            named.push(name);
        }
    }
    for name in named {
        headers.remove(name);
    }
    remove_hop_fields(headers);
    Ok(())
}

/// Removes from a response the fields that end at this hop, and those that its `Connection` names.
pub fn remove_response_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    remove_hop_fields(headers);
}

/// Removes the fields that RFC 9110 section 7.6.1 names, and keeps `TE: trailers`.
pub fn remove_hop_fields(headers: &mut HeaderMap) {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
    for name in [
        header::CONNECTION,
        header::UPGRADE,
        header::TRANSFER_ENCODING,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
    if let Some(te) = headers.remove(header::TE)
        && te
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes every header by which a caller would speak for a proxy.
pub fn remove_claims(headers: &mut HeaderMap) {
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_claim(name.as_str()))
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
}

/// Removes the header of this lower-case name in every spelling that applications read as the same.
pub fn remove_spellings(headers: &mut HeaderMap, name: &str) {
    let known = name.replace('_', "-");
    let spellings: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_same(name.as_str(), &known))
        .cloned()
        .collect();
    for name in spellings {
        headers.remove(name);
    }
}

/// True for a field that frames, addresses or renames a message: nobody but the proxy itself sets it.
pub fn is_framing(name: &str) -> bool {
    const NAMES: [&str; 17] = [
        "host",
        "connection",
        "content-length",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
    ];
    NAMES.iter().any(|known| is_same(name, known))
}

/// True for a name that only a proxy may set; `_` counts as `-`, because many applications read it so.
pub fn is_claim(name: &str) -> bool {
    const EXACT: [&str; 5] = [
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "x-rewrite-url",
        "x-original-uri",
    ];
    const PREFIXES: [&str; 7] = [
        "x-forwarded-",
        "x-spiffe-",
        "x-ravelin-",
        "x-client-cert",
        "x-ssl-",
        "ssl-client-",
        "x-envoy-",
    ];
    let is_candidate = name
        .bytes()
        .next()
        .is_some_and(|first| matches!(first, b'x' | b'f' | b's'));
    is_candidate
        && (EXACT.iter().any(|known| is_same(name, known))
            || PREFIXES.iter().any(|prefix| {
                name.get(..prefix.len())
                    .is_some_and(|start| is_same(start, prefix))
            }))
}

fn is_same(name: &str, known: &str) -> bool {
    name.len() == known.len()
        && name
            .bytes()
            .zip(known.bytes())
            .all(|(left, right)| left == right || (left == b'_' && right == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    type HostRow = (
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
        Result<&'static str, HeadRefusal>,
    );

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "one table")]
    fn threat_53_a_head_has_exactly_one_host() {
        let rows: [HostRow; 16] = [
            ("plain", "/", &[("host", "a.example")], Ok("a.example")),
            (
                "port",
                "/",
                &[("host", "a.example:8080")],
                Ok("a.example:8080"),
            ),
            ("case", "/", &[("host", "A.Example")], Ok("a.example")),
            ("v6", "/", &[("host", "[::1]:80")], Ok("[::1]:80")),
            (
                "absolute form",
                "http://a.example/",
                &[("host", "A.example")],
                Ok("a.example"),
            ),
            ("authority alone", "http://a.example/", &[], Ok("a.example")),
            (
                "differs",
                "http://b.example/",
                &[("host", "a.example")],
                Err(HeadRefusal::HostMismatch),
            ),
            ("none", "/", &[], Err(HeadRefusal::HostMissing)),
            (
                "two",
                "/",
                &[("host", "a"), ("host", "a")],
                Err(HeadRefusal::HostRepeated),
            ),
            (
                "empty",
                "/",
                &[("host", "")],
                Err(HeadRefusal::HostMalformed),
            ),
            (
                "userinfo",
                "/",
                &[("host", "a@b")],
                Err(HeadRefusal::HostMalformed),
            ),
            (
                "list",
                "/",
                &[("host", "a,b")],
                Err(HeadRefusal::HostMalformed),
            ),
            (
                "path",
                "/",
                &[("host", "a/b")],
                Err(HeadRefusal::HostMalformed),
            ),
            (
                "port word",
                "/",
                &[("host", "a:x")],
                Err(HeadRefusal::HostMalformed),
            ),
            (
                "port 0",
                "/",
                &[("host", "a:0")],
                Err(HeadRefusal::HostMalformed),
            ),
            (
                "open bracket",
                "/",
                &[("host", "[::1")],
                Err(HeadRefusal::HostMalformed),
            ),
        ];
        for (name, target, headers, want) in rows {
            let checked = check(&mut head("GET", target, headers));
            assert_eq!(
                checked
                    .as_ref()
                    .map(CheckedHead::host)
                    .map_err(|refusal| *refusal),
                want,
                "{name}"
            );
        }
    }

    #[test]
    fn rule_39_threat_52_methods_that_change_the_meaning_are_refused() {
        for (method, want) in [
            ("CONNECT", HeadRefusal::Method),
            ("TRACE", HeadRefusal::Method),
            ("get", HeadRefusal::MethodMalformed),
            ("Get", HeadRefusal::MethodMalformed),
            ("G3T", HeadRefusal::MethodMalformed),
            ("GE_T", HeadRefusal::MethodMalformed),
        ] {
            let refused = check(&mut head(method, "/", &[("host", "a")])).unwrap_err();
            assert_eq!(refused, want, "{method}");
        }
        assert_eq!(
            HeadRefusal::MethodMalformed.status(),
            StatusCode::BAD_REQUEST
        );
        for name in [
            "x-http-method-override",
            "x_http_method_override",
            "X-HTTP-Method",
            "x-method-override",
        ] {
            let refused =
                check(&mut head("GET", "/", &[("host", "a"), (name, "DELETE")])).unwrap_err();
            assert_eq!(refused, HeadRefusal::MethodOverride, "{name}");
        }
        for method in ["GET", "M-SEARCH", "PROPFIND", "OPTIONS"] {
            assert!(
                check(&mut head(method, "/", &[("host", "a")])).is_ok(),
                "{method}"
            );
        }
    }

    #[test]
    fn threat_54_a_length_is_told_once() {
        let rows: [&[(&str, &str)]; 4] = [
            &[
                ("host", "a"),
                ("content-length", "1"),
                ("transfer-encoding", "chunked"),
            ],
            &[
                ("host", "a"),
                ("content-length", "1"),
                ("content-length", "1"),
            ],
            &[
                ("host", "a"),
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            &[("host", "a"), ("transfer-encoding", "xchunked")],
        ];
        for headers in rows {
            let refused = check(&mut head("POST", "/", headers)).unwrap_err();
            assert_eq!(refused, HeadRefusal::LengthAmbiguous, "{headers:?}");
        }
    }

    #[test]
    fn hop_by_hop_fields_and_those_that_connection_names_end_here() {
        let mut parts = head(
            "GET",
            "/",
            &[
                ("host", "a"),
                ("connection", "close, X-Private"),
                ("x-private", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-authorization", "x"),
                ("te", "trailers, deflate"),
                ("upgrade", "h2c"),
                ("http2-settings", "AA"),
                ("expect", "100-continue"),
                ("accept", "*/*"),
            ],
        );
        check(&mut parts).unwrap();
        let mut left: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "te"]);
        assert_eq!(parts.headers["te"], "trailers");
        for named in [
            "host",
            "content-length",
            "authorization",
            "transfer-encoding",
        ] {
            let refused = check(&mut head(
                "GET",
                "/",
                &[("host", "a"), ("connection", named)],
            ))
            .unwrap_err();
            assert_eq!(refused, HeadRefusal::ConnectionNames, "{named}");
        }
    }

    #[test]
    fn threat_54_what_a_responses_connection_names_ends_at_this_hop() {
        let rows: [(&str, &[&str], &[&str]); 4] = [
            ("none", &[], &["x-a", "x-b", "content-type"]),
            ("close", &["close"], &["x-a", "x-b", "content-type"]),
            (
                "one, in capitals",
                &["X-A, close"],
                &["x-b", "content-type"],
            ),
            ("two fields", &["x-a", " x-b ,;,"], &["content-type"]),
        ];
        for (name, connection, want) in rows {
            let mut headers = HeaderMap::new();
            for kept in ["x-a", "x-b", "content-type"] {
                headers.insert(kept, HeaderValue::from_static("1"));
            }
            for value in connection {
                headers.append(header::CONNECTION, HeaderValue::from_static(value));
            }
            remove_response_hops(&mut headers);
            let is_left = |name: &str| headers.contains_key(name);
            assert_eq!(headers.len(), want.len(), "{name}");
            assert!(want.iter().all(|name| is_left(name)), "{name}");
        }
    }

    #[test]
    fn threat_50_claims_are_known_in_every_spelling() {
        for name in [
            "x-forwarded-client-cert",
            "x_forwarded_client_cert",
            "x-forwarded_for",
            "x-spiffe-id",
            "x_spiffe_anything",
            "forwarded",
            "x-real-ip",
            "x_real_ip",
            "ssl-client-verify",
            "ssl_client_s_dn",
            "x-client-cert",
            "x-ravelin-code",
            "x-envoy-peer-metadata",
            "x-original-url",
        ] {
            assert!(is_claim(name), "{name}");
        }
        for name in [
            "x-request-id",
            "forwarded-by-me",
            "accept",
            "x-forward",
            "server",
            "x-real-ips",
            "traceparent",
        ] {
            assert!(!is_claim(name), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn threat_53_no_host_panics_or_passes_with_a_forbidden_character(text in "\\PC{0,40}") {
            if is_host(&text) {
                proptest::prop_assert!(!text.contains(['@', '/', ',', ' ', '?', '#', '\\', '%']));
            }
        }
    }
}
