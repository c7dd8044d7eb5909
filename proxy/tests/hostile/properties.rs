//! Properties of the checks of a head, for any head that the codec lets through: it panics on none, and what leaves it has
//! one host, no field of this hop, and nobody's word but the caller's own.

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Version};
use proptest::prelude::*;
use ravelin_proxy::forwarded;
use ravelin_proxy::head;

/// Names that mean something, and some that do not.
const NAMES: [&str; 28] = [
    "host",
    "connection",
    "content-length",
    "content_length",
    "transfer-encoding",
    "transfer_encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "http2-settings",
    "cookie",
    "forwarded",
    "x-forwarded-for",
    "x_forwarded_for",
    "x-forwarded-client-cert",
    "x-spiffe-id",
    "x-real-ip",
    "x-http-method-override",
    "authorization",
    "x-request-id",
    "x-a",
    "accept",
    "sec-websocket-key",
    "x-envoy-a",
];
const VALUES: [&str; 20] = [
    "",
    "a",
    "a.shop",
    "A.Shop:80",
    "a.shop, b.shop",
    "[::1]:80",
    "[::",
    "4",
    "+4",
    "chunked",
    "Chunked",
    "gzip, chunked",
    "trailers",
    "close",
    "host",
    "x-a, close",
    "100-continue",
    "websocket",
    "h2c",
    "for=1.2.3.4, 5.6.7.8",
];

fn fields() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    let name = prop_oneof![
        4 => prop::sample::select(&NAMES[..]).prop_map(HeaderName::from_static),
        1 => "[!#$%&'*+.^_`|~a-z0-9-]{1,20}".prop_map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap()),
    ];
    let value = prop_oneof![
        4 => prop::sample::select(&VALUES[..]).prop_map(HeaderValue::from_static),
        1 => prop::collection::vec(0x20_u8..=0x7e, 0..30).prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap()),
        1 => prop::collection::vec(0x80_u8..=0xff, 0..8).prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap()),
    ];
    prop::collection::vec((name, value), 0..12)
}

fn parts() -> impl Strategy<Value = Parts> {
    let method = prop::sample::select(
        &[
            "GET", "POST", "get", "CONNECT", "TRACE", "OPTIONS", "G3T", "M-SEARCH",
        ][..],
    );
    let target = prop::sample::select(
        &[
            "/",
            "/a?b",
            "*",
            "http://a.shop/",
            "https://b.shop:80/x",
            "a.shop:80",
            "ftp://a.shop/",
            "//a.shop/",
        ][..],
    );
    let version = prop::sample::select(&[Version::HTTP_10, Version::HTTP_11, Version::HTTP_2][..]);
    (method, target, version, fields()).prop_map(|(method, target, version, fields)| {
        let mut parts = Request::new(()).into_parts().0;
        parts.method = Method::from_bytes(method.as_bytes()).unwrap();
        parts.uri = target.parse().unwrap();
        parts.version = version;
        for (name, value) in fields {
            parts.headers.append(name, value);
        }
        parts
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn threat_50_53_54_a_checked_head_has_one_meaning(given in parts()) {
        let mut parts = given.clone();
        let Ok(checked) = head::check(&mut parts) else {
            return Ok(());
        };
        let host = checked.host();
        prop_assert!(!host.is_empty() && !host.contains([',', ' ', '@', '/']));
        prop_assert_eq!(host.to_ascii_lowercase(), host);
        prop_assert!(parts.method != Method::TRACE);
        let names: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
        for name in names {
            prop_assert!(!head::is_claim(name), "{}", name);
            let is_of_this_hop = [
                "host", "connection", "keep-alive", "proxy-connection", "proxy-authorization", "http2-settings", "transfer-encoding",
                "expect", "x-http-method-override", "content_length", "transfer_encoding",
            ];
            prop_assert!(!is_of_this_hop.contains(&name), "{}", name);
        }
        for name in ["content-length", "te", "cookie"] {
            prop_assert!(parts.headers.get_all(name).iter().count() <= 1, "{}", name);
        }
        prop_assert!(parts.headers.get("te").is_none_or(|te| te == "trailers"));
        let framed = given.headers.contains_key("transfer-encoding") && given.headers.contains_key("content-length");
        prop_assert!(!framed);
    }

    #[test]
    fn rule_36_any_forwarded_field_names_one_client_or_none(fields in fields(), hops in 0_usize..20) {
        let headers = fields.into_iter().collect();
        let client = forwarded::client(&headers, hops);
        prop_assert!(hops > 0 || client.is_none());
    }
}
