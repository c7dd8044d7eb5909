//! Lines of the access log: their fields, and that nothing a caller sends leaves its quotes.

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::decision_log::Verdict;

fn facts() -> ConnectionFacts {
    ConnectionFacts {
        workload: "spiffe://example.org/ns/shop/sa/inventory".to_owned(),
        peer: "spiffe://example.org/ns/shop/sa/orders".to_owned(),
        source: Some("192.0.2.7:4711".parse().unwrap()),
        local: Some("192.0.2.8:15006".parse().unwrap()),
        port: 8080,
        sni: "inventory.shop".to_owned(),
        ..ConnectionFacts::default()
    }
}

fn record() -> CallRecord {
    let mut record = CallRecord::new(
        Arc::new(facts()),
        Timestamp::from_unix_millis(1_700_000_000_042),
        HeaderValue::from_static("id-1"),
    );
    record.host = Some(HeaderValue::from_static("inventory.shop"));
    record.status = 200;
    record.verdict = Verdict {
        is_allowed: true,
        code: "allowed",
        ..Verdict::default()
    };
    record
}

fn seen(target: &str) -> Seen {
    Seen {
        side: Side::Inbound,
        version: Version::HTTP_2,
        method: Method::GET,
        target: target.parse().ok(),
        user_agent: Some(HeaderValue::from_static("curl/8")),
        forwarded_for: None,
        refusal: "",
        cut: None,
        head_after: Some(Duration::from_millis(7)),
        upstream: Some("127.0.0.1:8080".parse().unwrap()),
        peer: None,
        service: None,
        grpc: GrpcStatus::NotGrpc,
        trace: Some(0xabc),
    }
}

fn line(format: &mut LineFormat, record: &CallRecord, seen: &Seen) -> String {
    let figures = CallFigures {
        latency: Duration::from_micros(9_900),
        request_bytes: 3,
        response_bytes: 64,
        ..CallFigures::default()
    };
    let mut out = Vec::new();
    format.call(
        &mut out,
        &Entry {
            record,
            seen,
            figures: &figures,
            flag: ResponseFlag::None,
        },
    );
    String::from_utf8(out).unwrap()
}

#[test]
fn a_line_has_the_fields_of_istios_default_format() {
    let text = line(
        &mut LineFormat::new(false),
        &record(),
        &seen("/items?token=secret"),
    );
    let parsed: Value = serde_json::from_str(&text).unwrap();
    let rows = [
        ("start_time", Value::from("2023-11-14T22:13:20.042Z")),
        ("method", "GET".into()),
        ("path", "/items".into()),
        ("protocol", "HTTP/2".into()),
        ("response_code", 200.into()),
        ("response_flags", "-".into()),
        ("response_code_details", "via_upstream".into()),
        ("connection_termination_details", Value::Null),
        ("bytes_received", 3.into()),
        ("bytes_sent", 64.into()),
        ("duration", 9.into()),
        ("upstream_service_time", 7.into()),
        ("x_forwarded_for", Value::Null),
        ("user_agent", "curl/8".into()),
        ("request_id", "id-1".into()),
        ("authority", "inventory.shop".into()),
        ("upstream_host", "127.0.0.1:8080".into()),
        ("upstream_cluster", "inbound|8080||".into()),
        ("downstream_local_address", "192.0.2.8:15006".into()),
        ("downstream_remote_address", "192.0.2.7:4711".into()),
        ("requested_server_name", "inventory.shop".into()),
        ("route_name", Value::Null),
        ("peer", "spiffe://example.org/ns/shop/sa/orders".into()),
        ("trace_id", "00000000000000000000000000000abc".into()),
    ];
    for (name, want) in &rows {
        assert_eq!(parsed.get(*name), Some(want), "{name}: {text}");
    }
    assert_eq!(parsed.as_object().unwrap().len(), rows.len(), "{text}");
}

#[test]
fn the_query_is_written_only_where_it_is_asked_for() {
    let target = "/items?token=secret";
    let without = line(&mut LineFormat::new(false), &record(), &seen(target));
    assert!(
        !without.contains("secret") && !without.contains('?'),
        "{without}"
    );
    let with = line(&mut LineFormat::new(true), &record(), &seen(target));
    assert!(with.contains("\"path\":\"/items?token=secret\""), "{with}");
}

#[test]
fn threat_38_a_line_is_one_json_object_whatever_was_sent() {
    let long = "x".repeat(5_000);
    let rows: [&[u8]; 8] = [
        b"a\"b",
        b"a\\b",
        b"tab\there",
        b"\xff\xfe\x80",
        "\u{1b}".as_bytes(),
        "\u{9b}31m\u{202e}\u{2028}".as_bytes(),
        b"{\"forged\":true}",
        long.as_bytes(),
    ];
    for value in rows {
        let mut out = b"{\"first\":0".to_vec();
        text(&mut out, "value", Some(value));
        out.push(b'}');
        let line = String::from_utf8(out).unwrap();
        let parsed: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed.as_object().unwrap().len(), 2, "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(!line.contains(['\u{202e}', '\u{2028}']), "{line:?}");
        assert!(
            line.len() < limits::ACCESS_LOG_FIELD_BYTES_MAX + 64,
            "{}",
            line.len()
        );
    }
}

#[test]
fn a_line_of_a_tcp_connection_names_both_ends_and_the_bytes() {
    let facts = facts();
    let mut out = Vec::new();
    LineFormat::new(false).tcp(
        &mut out,
        &TcpEntry {
            side: Side::Outbound,
            connection: &facts,
            time: Timestamp::from_unix_millis(1_700_000_000_000),
            duration: Duration::from_millis(12),
            received: 5,
            sent: 18_446_744_073_709_551_615,
            flag: ResponseFlag::UpstreamConnect,
            code: "upstream_unreachable",
            upstream: None,
            service: "db.shop:5432",
            peer: "",
        },
    );
    let parsed: Value = serde_json::from_slice(&out).unwrap();
    let rows = [
        ("protocol", Value::from("TCP")),
        ("response_flags", "UF".into()),
        ("response_code_details", "upstream_unreachable".into()),
        ("bytes_received", 5.into()),
        ("bytes_sent", u64::MAX.into()),
        ("upstream_cluster", "outbound|5432||db.shop".into()),
        ("upstream_host", Value::Null),
    ];
    for (name, want) in rows {
        assert_eq!(parsed.get(name), Some(&want), "{name}");
    }
}

proptest::proptest! {
    #[test]
    fn threat_38_any_bytes_make_one_line(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let mut out = b"{\"first\":0".to_vec();
        text(&mut out, "value", Some(&bytes));
        out.push(b'}');
        let parsed: Value = serde_json::from_slice(&out).unwrap();
        proptest::prop_assert_eq!(parsed.as_object().unwrap().len(), 2);
        proptest::prop_assert!(!out.contains(&b'\n'));
    }
}
