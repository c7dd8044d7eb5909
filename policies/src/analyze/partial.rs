//! Judging with gaps: every clause is true, false or undetermined, and so is the decision.
//!
//! Sound, never a guess: what is determined here is what the engine decides, whatever the missing attributes are.
//! Not complete: two undetermined clauses that exclude each other count as undetermined, not as one of them.

mod decide;
mod recorded;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use ravelin_proto::time::Timestamp;

use super::record::CallFacts;
use crate::call::{Call, Connection, HttpCall, RequestIdentity};
use crate::clause::{clause_matches, is_skipped};
use crate::compile::{Options, WorkloadPolicies};
use crate::matcher::{Pattern, Reference};
use crate::path::NormalizedPath;
use crate::schema::{Clause, Effect, Field, PeerMode, Rule};
pub(crate) use decide::PartialDecision;
use recorded::recorded_http;

/// What a decision would need, and the record does not tell.
const PATH_AS_IT_CAME: &str = "request.path as it came";
const TOKEN: &str = "whether the token is accepted";
const NO_PEER_MODE: &str = "what a port without mutual TLS does with it";

/// A call of which some attributes may be unknown.
#[derive(Debug, Clone)]
pub(crate) struct PartialCall {
    connection: Connection,
    unknown: Vec<Field>,
    http: Option<PartialHttp>,
    now: Timestamp,
    /// Anything that could refuse the call before policies are asked.
    doubts: Vec<&'static str>,
}

#[derive(Debug, Clone)]
struct PartialHttp {
    method: String,
    host: String,
    path: NormalizedPath,
    has_query: bool,
    /// `None`: unknown.
    headers: Option<Vec<(String, String)>>,
    /// One of these; empty: unknown.
    identities: Vec<RequestIdentity>,
    has_claims: bool,
}

/// True when all are, false when any is not.
fn all(values: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(true);
    for value in values {
        match value {
            Some(false) => return Some(false),
            None => result = None,
            Some(true) => {}
        }
    }
    result
}

/// True when any is, false when none is.
fn any(values: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    all(values.map(|value| value.map(|value| !value))).map(|value| !value)
}

impl PartialCall {
    /// A recorded call as these policies would see it; `Err` with a code when they refuse it before any rule is asked.
    pub(crate) fn of_record(
        policies: &WorkloadPolicies,
        facts: &CallFacts,
        now: Timestamp,
    ) -> Result<Self, &'static str> {
        let mode = policies.peer_mode(facts.port);
        if facts.peer.is_none() && !mode.accepts_plain_text() {
            return Err("plaintext_refused");
        }
        let mut doubts = Vec::new();
        if facts.peer.is_some() && mode == PeerMode::Disable {
            doubts.push(NO_PEER_MODE);
        }
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let mut unknown = Vec::new();
        let mut address = |field: Field, address: Option<IpAddr>| {
            if address.is_none() {
                unknown.push(field);
            }
            address.unwrap_or(nowhere)
        };
        let connection = Connection {
            principal: facts.peer.clone(),
            source_ip: address(Field::SourceAddress, facts.source_ip),
            remote_ip: address(Field::RemoteAddress, facts.remote_ip),
            destination_ip: address(Field::DestinationAddress, facts.destination_ip),
            destination_port: facts.port,
            sni: facts.sni.clone().filter(|sni| !sni.is_empty()),
        };
        if facts.sni.is_none() {
            unknown.push(Field::ServerName);
        }
        let http = match &facts.http {
            None => None,
            Some(http) => Some(recorded_http(policies, http, &mut unknown, &mut doubts)?),
        };
        Ok(Self {
            connection,
            unknown,
            http,
            now,
            doubts,
        })
    }

    /// A bare connection of which everything is known.
    pub(crate) fn of_connection(connection: Connection, now: Timestamp) -> Self {
        Self {
            connection,
            unknown: Vec::new(),
            http: None,
            now,
            doubts: Vec::new(),
        }
    }

    /// A request of which everything is known.
    pub(crate) fn of_request(call: &HttpCall<'_>, headers: Vec<(String, String)>) -> Self {
        Self {
            http: Some(PartialHttp {
                method: call.method.to_owned(),
                host: call.host.to_owned(),
                path: call.path.clone(),
                has_query: true,
                headers: Some(headers),
                identities: vec![call.identity.clone()],
                has_claims: true,
            }),
            ..Self::of_connection(call.connection.clone(), call.now)
        }
    }

    /// Runs `judge` on the call with each identity that it may have.
    fn each_call(&self, judge: &mut dyn FnMut(Call<'_>)) {
        let Some(http) = &self.http else {
            judge(Call::Tcp(&self.connection, self.now));
            return;
        };
        let headers = http.headers.clone().unwrap_or_default();
        let nobody = RequestIdentity::default();
        let identities = if http.identities.is_empty() {
            std::slice::from_ref(&nobody)
        } else {
            http.identities.as_slice()
        };
        for identity in identities {
            judge(Call::Http(&HttpCall {
                connection: &self.connection,
                method: &http.method,
                host: &http.host,
                path: &http.path,
                headers: &headers,
                identity,
                now: self.now,
            }));
        }
    }

    /// The same call, with nothing known of its tokens.
    pub(crate) fn without_tokens(mut self) -> Self {
        if let Some(http) = &mut self.http {
            http.identities.clear();
            self.doubts.push(TOKEN);
        }
        self
    }

    /// Is the rule skipped on this call (rule 54)?
    pub(crate) fn skips(&self, rule: &Rule, effect: Effect) -> bool {
        self.http.is_none() && is_skipped(rule, effect, Call::Tcp(&self.connection, self.now))
    }

    /// Does the clause hold?
    pub(crate) fn clause(&self, clause: &Clause, effect: Effect, options: Options) -> Option<bool> {
        if self.missing(clause).is_some() {
            return None;
        }
        let (mut holds, mut fails) = (false, false);
        self.each_call(&mut |call| {
            let found = clause_matches(clause, effect, call, options);
            holds |= found;
            fails |= !found;
        });
        (holds != fails).then_some(holds)
    }

    /// Do all of these clauses hold?
    pub(crate) fn clauses(
        &self,
        clauses: &[Clause],
        effect: Effect,
        options: Options,
    ) -> Option<bool> {
        all(clauses
            .iter()
            .map(|clause| self.clause(clause, effect, options)))
    }

    /// When the call is judged.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Does the rule match?
    pub(crate) fn rule(&self, rule: &Rule, effect: Effect, options: Options) -> Option<bool> {
        if self.skips(rule, effect) {
            return Some(false);
        }
        let clauses = |clauses: &[Clause]| self.clauses(clauses, effect, options);
        let alternatives = |alternatives: &[Vec<Clause>]| {
            if alternatives.is_empty() {
                return Some(true);
            }
            any(alternatives.iter().map(|alternative| clauses(alternative)))
        };
        all([
            alternatives(&rule.from),
            alternatives(&rule.to),
            clauses(&rule.when),
        ]
        .into_iter())
    }

    /// The attribute that the clause looks at and the call does not tell.
    fn missing<'c>(&self, clause: &'c Clause) -> Option<Cow<'c, str>> {
        let Some(http) = &self.http else {
            return self.unknown_connection(&clause.field);
        };
        match &clause.field {
            Field::Header(name) => self.missing_header(http, name),
            Field::RequestPrincipal | Field::Audience | Field::Presenter | Field::Claim(_) => {
                self.missing_of_token(http, clause)
            }
            Field::Method if self.unknown.contains(&Field::Method) => Some("request.method".into()),
            Field::Path if self.unknown.contains(&Field::Path) => Some("request.path".into()),
            Field::Host if self.unknown.contains(&Field::Host) => Some("request.host".into()),
            Field::Method | Field::Path | Field::Host => None,
            field @ (Field::Principal
            | Field::Namespace
            | Field::ServiceAccount
            | Field::TrustDomain
            | Field::SourceAddress
            | Field::RemoteAddress
            | Field::DestinationAddress
            | Field::DestinationPort
            | Field::ServerName) => self.unknown_connection(field),
        }
    }

    fn unknown_connection(&self, field: &Field) -> Option<Cow<'static, str>> {
        let name = match field {
            Field::SourceAddress => "source.ip",
            Field::RemoteAddress => "remote.ip",
            Field::DestinationAddress => "destination.ip",
            Field::ServerName => "connection.sni",
            Field::Principal
            | Field::RequestPrincipal
            | Field::Namespace
            | Field::ServiceAccount
            | Field::TrustDomain
            | Field::DestinationPort
            | Field::Host
            | Field::Method
            | Field::Path
            | Field::Header(_)
            | Field::Audience
            | Field::Presenter
            | Field::Claim(_) => return None,
        };
        self.unknown.contains(field).then(|| name.into())
    }

    fn missing_header(&self, http: &PartialHttp, name: &str) -> Option<Cow<'static, str>> {
        let is_known = match name {
            ":method" => !self.unknown.contains(&Field::Method),
            ":authority" | "host" => !self.unknown.contains(&Field::Host),
            ":path" => http.has_query && !self.unknown.contains(&Field::Path),
            _ => http.headers.is_some(),
        };
        (!is_known).then(|| format!("request.headers[{name}]").into())
    }

    fn missing_of_token(&self, http: &PartialHttp, clause: &Clause) -> Option<Cow<'static, str>> {
        let (is_nobody, is_unknown) = (
            http.identities
                .iter()
                .all(|known| known.principal.is_none()),
            http.identities.is_empty(),
        );
        let missing = |name: String| Some(Cow::Owned(name));
        if !is_unknown && is_nobody {
            return None;
        }
        let is_partial = !http.has_claims;
        match &clause.field {
            Field::Audience if is_partial => return missing("request.auth.audiences".into()),
            Field::Presenter if is_partial => return missing("request.auth.presenter".into()),
            Field::Claim(steps) if is_partial && !tells_claim(http, steps) => {
                return missing(format!("request.auth.claims[{}]", steps.join("][")));
            }
            Field::RequestPrincipal if is_unknown => {
                return missing("request.auth.principal".into());
            }
            Field::Principal
            | Field::RequestPrincipal
            | Field::Namespace
            | Field::ServiceAccount
            | Field::TrustDomain
            | Field::SourceAddress
            | Field::RemoteAddress
            | Field::DestinationAddress
            | Field::DestinationPort
            | Field::ServerName
            | Field::Host
            | Field::Method
            | Field::Path
            | Field::Header(_)
            | Field::Audience
            | Field::Presenter
            | Field::Claim(_) => {}
        }
        clause
            .patterns
            .iter()
            .find_map(|pattern| self.missing_of_reference(http, pattern))
    }

    fn missing_of_reference(
        &self,
        http: &PartialHttp,
        pattern: &Pattern,
    ) -> Option<Cow<'static, str>> {
        let Pattern::Reference(reference) = pattern else {
            return None;
        };
        match reference {
            Reference::Header(name) => self.missing_header(http, name),
            Reference::PathSegment(_) => self
                .unknown
                .contains(&Field::Path)
                .then(|| "request.path".into()),
        }
    }
}

/// Issuer and subject are told by the request principal.
fn tells_claim(http: &PartialHttp, steps: &[String]) -> bool {
    let has_subject = || http.identities.iter().all(|known| known.subject.is_some());
    match steps {
        [one] if one == "iss" => !http.identities.is_empty(),
        [one] if one == "sub" => !http.identities.is_empty() && has_subject(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
