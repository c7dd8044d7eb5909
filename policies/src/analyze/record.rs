//! One recorded call: a line of the decision log, as `ravelin audit query -o jsonl` prints it, as typed facts.
//!
//! What a record does not hold stays unknown; nothing is made up. Reading lines is the caller's: this parses one.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::decision::{ALLOWED, BAD_PROVIDER, NO_ALLOW_MATCHED, NO_POLICY, POLICY_DENIED};
use crate::diagnostic::excerpt;
use crate::limits;

/// A judged call of the decision log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCall {
    /// When.
    pub at: Timestamp,
    /// What is known of it.
    pub facts: CallFacts,
    /// What was decided then.
    pub outcome: RecordedOutcome,
}

/// What a record tells about a call. `None`: the record does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallFacts {
    /// Who was called.
    pub workload: SpiffeId,
    /// Who called; `None` for plain text.
    pub peer: Option<SpiffeId>,
    /// The direct peer's address.
    pub source_ip: Option<IpAddr>,
    /// The client's address.
    pub remote_ip: Option<IpAddr>,
    /// The address that was called.
    pub destination_ip: Option<IpAddr>,
    /// The workload's port.
    pub port: u16,
    /// Server name of the handshake; `Some("")` without one.
    pub sni: Option<String>,
    /// What a bare connection does not have.
    pub http: Option<HttpFacts>,
}

/// The part of a record that only requests have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HttpFacts {
    /// The method.
    pub method: Option<String>,
    /// Host, with its port if it had one.
    pub host: Option<String>,
    /// The path that was judged, without query.
    pub path: Option<String>,
    /// The path as it came, without query.
    pub raw_path: Option<String>,
    /// `<issuer>/<subject>` of the accepted token; `Some("")` without one.
    pub request_principal: Option<String>,
}

/// What was decided on a recorded call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordedOutcome {
    /// Did it pass?
    pub is_allowed: bool,
    /// The decision's code.
    pub code: String,
    /// `NAMESPACE/NAME`; empty where no rule decided.
    pub policy: String,
    /// From 1; 0 where no rule decided.
    pub rule: u32,
}

/// What one line holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogLine {
    /// A call that policies judged.
    Call(Box<RecordedCall>),
    /// A call that was refused before any policy was asked, by this code.
    NotJudged(String),
    /// A record of the audit log, or an empty line.
    Other,
}

/// Why a line is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Past [`limits::RECORD_BYTES_MAX`].
    #[error("longer than {} bytes", limits::RECORD_BYTES_MAX)]
    TooLong,
    /// Not one JSON object with the fields of a decision.
    #[error("not a record of the decision log: {0}")]
    NotRecord(String),
    /// A field whose text is not what it has to be.
    #[error("`{value}` is not a value of `{field}`")]
    Field {
        /// The field.
        field: &'static str,
        /// Its text, cut short.
        value: String,
    },
}

/// The row of a query around a record; `record` is absent when the record stands alone.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    log: Option<Cow<'a, str>>,
    record: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RowOf<'a> {
    #[serde(borrow)]
    record: Decision<'a>,
}

#[derive(Deserialize)]
struct Decision<'a> {
    time_ms: i64,
    #[serde(borrow)]
    workload: Cow<'a, str>,
    #[serde(borrow, default)]
    peer: Cow<'a, str>,
    #[serde(borrow)]
    protocol: Cow<'a, str>,
    #[serde(borrow, default)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    host: Cow<'a, str>,
    #[serde(borrow, default)]
    path: Cow<'a, str>,
    #[serde(borrow, default)]
    request_principal: Cow<'a, str>,
    is_allowed: bool,
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow, default)]
    policy: Cow<'a, str>,
    #[serde(default)]
    rule: u32,
    #[serde(borrow, default)]
    source_address: Cow<'a, str>,
    #[serde(default)]
    port: u16,
    #[serde(borrow, default)]
    sni: Cow<'a, str>,
    #[serde(borrow, default)]
    destination_address: Cow<'a, str>,
    #[serde(borrow, default)]
    remote_address: Cow<'a, str>,
    #[serde(borrow, default)]
    raw_path: Cow<'a, str>,
}

/// Reads one line: a row of `ravelin audit query -o jsonl`, or a record alone.
pub fn parse_log_line(line: &str) -> Result<LogLine, LineError> {
    if line.len() > limits::RECORD_BYTES_MAX {
        return Err(LineError::TooLong);
    }
    if line.trim().is_empty() {
        return Ok(LogLine::Other);
    }
    let refuse = |error: serde_json::Error| LineError::NotRecord(excerpt(&error.to_string()));
    let row: Row<'_> = serde_json::from_str(line).map_err(refuse)?;
    if row.log.is_some_and(|log| log != "decision") {
        return Ok(LogLine::Other);
    }
    if row.record.is_some() {
        let row: RowOf<'_> = serde_json::from_str(line).map_err(refuse)?;
        return row.record.into_line();
    }
    serde_json::from_str::<Decision<'_>>(line)
        .map_err(refuse)?
        .into_line()
}

impl Decision<'_> {
    fn into_line(self) -> Result<LogLine, LineError> {
        let judged = [
            ALLOWED,
            POLICY_DENIED,
            NO_ALLOW_MATCHED,
            NO_POLICY,
            BAD_PROVIDER,
        ];
        if !judged.contains(&self.code.as_ref()) {
            return Ok(LogLine::NotJudged(excerpt(&self.code)));
        }
        let is_http = match self.protocol.as_ref() {
            "http" => true,
            "tcp" => false,
            other => return Err(bad("protocol", other)),
        };
        let destination_ip = address("destination_address", &self.destination_address)?;
        // Only a proxy that writes its own address writes the other later fields.
        let is_complete = destination_ip.is_some();
        let source = socket_address(&self.source_address)?;
        let remote = address("remote_address", &self.remote_address)?;
        let facts = CallFacts {
            workload: id("workload", &self.workload)?,
            peer: match self.peer.as_ref() {
                "" => None,
                peer => Some(id("peer", peer)?),
            },
            source_ip: source,
            remote_ip: remote.or(source.filter(|_| is_complete)),
            destination_ip,
            port: self.port,
            sni: whole(&self.sni).filter(|_| is_complete),
            http: is_http.then(|| self.http(is_complete)),
        };
        Ok(LogLine::Call(Box::new(RecordedCall {
            at: Timestamp::from_unix_millis(self.time_ms),
            facts,
            outcome: RecordedOutcome {
                is_allowed: self.is_allowed,
                code: self.code.into_owned(),
                policy: self.policy.into_owned(),
                rule: self.rule,
            },
        })))
    }

    fn http(&self, is_complete: bool) -> HttpFacts {
        let path = whole(&self.path).filter(|path| !path.is_empty());
        let raw_path = match whole(&self.raw_path) {
            Some(raw) if !raw.is_empty() => Some(raw),
            Some(_) if is_complete => path.clone(),
            Some(_) | None => None,
        };
        HttpFacts {
            method: whole(&self.method).filter(|method| !method.is_empty()),
            host: whole(&self.host),
            path,
            raw_path,
            request_principal: whole(&self.request_principal),
        }
    }
}

/// The text, unless the proxy may have cut it off.
fn whole(text: &str) -> Option<String> {
    (text.len() < limits::RECORDED_TEXT_BYTES_MAX).then(|| text.to_owned())
}

fn bad(field: &'static str, value: &str) -> LineError {
    LineError::Field {
        field,
        value: excerpt(value),
    }
}

fn id(field: &'static str, text: &str) -> Result<SpiffeId, LineError> {
    SpiffeId::parse(text).map_err(|_| bad(field, text))
}

fn address(field: &'static str, text: &str) -> Result<Option<IpAddr>, LineError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| bad(field, text))
}

fn socket_address(text: &str) -> Result<Option<IpAddr>, LineError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse::<SocketAddr>()
        .map(|address| Some(address.ip()))
        .map_err(|_| bad("source_address", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"call_id":"1","code":"allowed","destination_address":"127.0.0.1","host":"inventory.shop","is_allowed":true,"latency_us":12,"mesh_revision":1,"method":"GET","outcome":"completed","path":"/a","peer":"spiffe://td/ns/shop/sa/orders","policy":"shop/p","port":8080,"protocol":"http","raw_path":"","reason":"","remote_address":"","request_principal":"","rule":1,"sni":"","source_address":"127.0.0.1:4711","status":200,"time_ms":1800000000000,"workload":"spiffe://td/ns/shop/sa/inventory"}"#;

    fn call(line: &str) -> RecordedCall {
        match parse_log_line(line) {
            Ok(LogLine::Call(call)) => *call,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_row_of_a_query_and_a_record_alone_tell_the_same() {
        let alone = call(RECORD);
        let row = format!(
            r#"{{"index":3,"kind":"decision","log":"decision","record":{RECORD},"time":"2027","what":"x","who":"y"}}"#
        );
        assert_eq!(call(&row), alone);
        assert_eq!(alone.at, Timestamp::from_unix_secs(1_800_000_000));
        assert_eq!(alone.facts.sni.as_deref(), Some(""));
        assert_eq!(alone.facts.remote_ip, alone.facts.source_ip);
        let http = alone.facts.http.unwrap();
        assert_eq!(
            (http.path.as_deref(), http.raw_path.as_deref()),
            (Some("/a"), Some("/a"))
        );
    }

    #[test]
    fn what_a_record_does_not_hold_is_unknown() {
        let old = RECORD.replace(
            r#""destination_address":"127.0.0.1""#,
            r#""destination_address":"""#,
        );
        let facts = call(&old).facts;
        assert_eq!(
            (
                facts.sni,
                facts.remote_ip,
                facts.destination_ip,
                facts.http.unwrap().raw_path
            ),
            (None, None, None, None)
        );
        let long = format!("/{}", "a".repeat(1023));
        let cut = RECORD.replace("\"/a\"", &format!("\"{long}\""));
        assert_eq!(call(&cut).facts.http.unwrap().path, None);
    }

    #[test]
    fn what_policies_did_not_judge_is_told_apart() {
        for (from, to, want) in [
            (
                "\"allowed\"",
                "\"token_expired\"",
                LogLine::NotJudged("token_expired".into()),
            ),
            (
                "\"allowed\"",
                "\"plaintext_refused\"",
                LogLine::NotJudged("plaintext_refused".into()),
            ),
        ] {
            assert_eq!(parse_log_line(&RECORD.replace(from, to)), Ok(want), "{to}");
        }
        let audit =
            r#"{"index":0,"kind":"svid.issued","log":"audit","record":{"actor":"x","policy":7}}"#;
        assert_eq!(parse_log_line(audit), Ok(LogLine::Other));
        assert_eq!(parse_log_line("  "), Ok(LogLine::Other));
    }

    #[test]
    fn a_line_that_is_no_record_is_refused_by_name() {
        let field = |field, value: &str| LineError::Field {
            field,
            value: value.into(),
        };
        for (from, to, want) in [
            (
                "spiffe://td/ns/shop/sa/orders",
                "orders",
                field("peer", "orders"),
            ),
            (
                "127.0.0.1:4711",
                "localhost",
                field("source_address", "localhost"),
            ),
            ("\"http\"", "\"udp\"", field("protocol", "udp")),
        ] {
            assert_eq!(parse_log_line(&RECORD.replace(from, to)), Err(want), "{to}");
        }
        for line in [
            "[",
            "{}",
            "null",
            "{\"log\":\"decision\"}",
            &"[".repeat(100_000),
            &RECORD.replace("\"port\":8080", "\"port\":80800"),
            &RECORD.replace("\"port\":8080", "\"port\":1,\"port\":2"),
        ] {
            assert!(
                matches!(parse_log_line(line), Err(LineError::NotRecord(_))),
                "{line}"
            );
        }
        let long = format!("{RECORD}{}", " ".repeat(limits::RECORD_BYTES_MAX));
        assert_eq!(parse_log_line(&long), Err(LineError::TooLong));
    }
}
