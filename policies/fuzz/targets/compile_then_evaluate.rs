//! A row of the corpus as JSON: whatever documents the engine takes, it judges the row's calls as the reference does.
//!
//! Its program brings the reference along as `crate::reference`.

use std::net::IpAddr;

use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use serde_json::Value;

use crate::reference::engine::Engine;
use crate::reference::{Call, Row, judge};

/// Judges each call by both.
pub fn run(data: &[u8]) {
    let Ok(mut row) = serde_json::from_slice::<Row>(data) else {
        return;
    };
    row.policies.retain(is_for_both);
    row.tokens.clear();
    row.calls.retain(is_whole);
    row.calls.truncate(16);
    let Ok(engine) = Engine::load(&row) else {
        return;
    };
    let config = row.config();
    for call in &row.calls {
        let mut found = engine.ask(&row, call);
        // Headers made of claims are not the reference's matter.
        found.token_headers = None;
        let mut wanted = judge::ask(&row, &row.policies, &config, call);
        // Of several reasons why a target is no path either may come first.
        if found.path_refused.is_some() && wanted.path_refused.is_some() {
            wanted.path_refused.clone_from(&found.path_refused);
        }
        assert_eq!(found, wanted, "engine and reference on {call:?}");
    }
}

/// The reference reads text where text belongs, and tokens are the matter of another target.
fn is_for_both(policy: &Value) -> bool {
    fn has_number(value: &Value) -> bool {
        match value {
            Value::Null | Value::Number(_) => true,
            Value::Bool(_) | Value::String(_) => false,
            Value::Array(items) => items.iter().any(has_number),
            Value::Object(members) => members.values().any(has_number),
        }
    }
    policy["kind"] == "AuthorizationPolicy" && !has_number(policy)
}

/// Both take the facts of a connection as given.
fn is_whole(call: &Call) -> bool {
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    let principal = call.principal.as_deref();
    // A token without these is never accepted.
    let names_someone = call.claims.as_ref().is_none_or(|claims| {
        ["iss", "sub"]
            .into_iter()
            .all(|name| claims.get(name).is_some_and(Value::is_string))
    });
    names_someone
        && principal.is_none_or(|id| SpiffeId::parse(id).is_ok())
        && [&call.source_ip, &call.remote_ip, &call.destination_ip]
            .into_iter()
            .all(|text| is_address(text))
        && Timestamp::parse_rfc3339(&call.now).is_some()
        && call.method.bytes().all(|byte| byte.is_ascii_uppercase())
        && !call.path.contains("${")
        && !call.headers.iter().any(|(_, value)| value.contains("${"))
}
