//! `PolicyTest`: a call and what must become of it. Cases are run by [`crate::run_tests`].

use std::net::IpAddr;

use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use serde_json::{Map, Value};

use crate::object::{Location, Metadata};

/// Cases for one workload.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyTest {
    /// Name and namespace.
    pub metadata: Metadata,
    /// Where it stands.
    pub location: Location,
    /// `spec.workload`: the destination.
    pub workload: SpiffeId,
    /// `spec.cases`.
    pub cases: Vec<TestCase>,
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub struct TestCase {
    /// `name`: a sentence.
    pub name: String,
    /// Where it stands.
    pub location: Location,
    /// `from`: who calls; absent for plain text.
    pub from: Option<SpiffeId>,
    /// `sourceIp`, by default 127.0.0.1.
    pub source_ip: IpAddr,
    /// `remoteIp`, by default `source_ip`.
    pub remote_ip: IpAddr,
    /// `destinationIp`, by default 127.0.0.1.
    pub destination_ip: IpAddr,
    /// `port`: the workload's own, by default the identity's `launch.port`, else 80.
    pub port: u16,
    /// `sni`.
    pub sni: Option<String>,
    /// `protocol: tcp`.
    pub is_tcp: bool,
    /// `method`, by default `GET`.
    pub method: String,
    /// `host`, by default the workload's name.
    pub host: String,
    /// `path`, as it comes over the wire, by default `/`.
    pub path: String,
    /// `headers`: name to one value or a list.
    pub headers: Vec<(String, String)>,
    /// `claims` of a token that was accepted.
    pub claims: Option<Map<String, Value>>,
    /// `at`: when, in RFC 3339; by default 1970-01-01, when only policies without `ravelin.dev/not-before` hold.
    pub at: Timestamp,
    /// `expect`.
    pub expect: Expectation,
    /// `policy`: `NAMESPACE/NAME` or `NAME` that must decide.
    pub policy: Option<String>,
    /// `rule` that must decide, from 1.
    pub rule: Option<u32>,
    /// `code` of the decision or refusal.
    pub code: Option<String>,
    /// `audited`: whether the call is marked (rule 7).
    pub audited: Option<bool>,
    /// `shadow`: `allow` or `deny`, with the dry-run policies enforced (rule 64).
    pub shadow: Option<Expectation>,
    /// `custom`: whom a CUSTOM policy asks first (rule 6).
    pub custom: Option<ExpectedCheck>,
}

/// `custom` of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedCheck {
    /// `false`: nobody is asked.
    Nobody,
    /// The provider's name.
    Provider(String),
}

/// `expect` of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// `allow`.
    Allow,
    /// `deny`.
    Deny,
    /// `refuse`: the path is not even judged (400).
    Refuse,
}
