//! CUSTOM policies: the authorizer is asked before tokens and the other policies, and a no is final (rules 1, 6).
//!
//! A call is asked about once; a change of policy later judges calls in flight by the other policies alone.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use http::StatusCode;
use http::request::Parts;
use ravelin_policies::{CheckedBody, Connection, CustomCheck, ExtensionProvider, RuleRef};
use tokio::time::timeout;

use super::named;
use super::refused::Refused;
use crate::body::{BodySource, ReadAhead};
use crate::decision_log::{ConnectionFacts, Verdict};
use crate::ext_authz::{
    self, Answer, Changes, CheckError, Denial, HeaderChange, Question, RequestView,
};
use crate::head::HeadRefusal;
use crate::limits;
use crate::live_calls::JudgedBy;
use crate::open_call::OpenCall;
use crate::respond::Refusal;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// What is left of an authorizer's yes for later.
#[derive(Debug, Default)]
pub(super) struct Permitted {
    /// For the answer to the call.
    pub downstream: Vec<HeaderChange>,
    /// For the record, where nobody was asked in truth.
    pub note: Option<String>,
}

/// Asks about a call where a CUSTOM policy wants it, and changes its head as the authorizer says.
pub(super) async fn check(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    asked: CustomCheck,
    parts: &mut Parts,
    judged: &mut JudgedBy,
    body: &BodySource,
    open: &mut OpenCall,
) -> Result<Permitted, Refused> {
    let (provider, by) = match asked {
        CustomCheck::NotNeeded => return Ok(Permitted::default()),
        CustomCheck::Refuse { code, by } => {
            let reason = "the policy names no provider that can be asked".to_owned();
            note(open, verdict(snapshot, &by, code, reason));
            return Err(Refusal::custom(StatusCode::FORBIDDEN, code).into());
        }
        CustomCheck::Ask { provider, by } => (provider, by),
    };
    let held = provider.body.map(|rule| Held::take(worker.checked(), rule));
    if let Some(None) = held {
        return Err(Refusal::overload().into());
    }
    let sent = match provider.body {
        Some(rule) => Some(read_ahead(body, rule).await?),
        None => None,
    };
    let record = open.record();
    let source = record.as_ref().and_then(|record| record.connection.source);
    let id = record.map(|record| record.call_id.clone());
    let id = id.unwrap_or_else(|| worker.call_id());
    let question = Question {
        connection: &judged.connection,
        source: source.unwrap_or(NOWHERE),
        workload: &snapshot.workload,
        time: worker.now(),
        request: Some(RequestView {
            id: &id,
            head: parts,
            host: &judged.host,
            path: &judged.path,
            body: sent.as_ref(),
        }),
    };
    let answer = ext_authz::ask(worker, snapshot, &provider, &question).await;
    match outcome(worker, &provider, answer) {
        Outcome::Allowed(changes) => {
            change(snapshot, parts, judged, &changes)?;
            Ok(Permitted {
                downstream: changes.downstream,
                note: None,
            })
        }
        Outcome::FailedOpen(reason) => Ok(Permitted {
            downstream: Vec::new(),
            note: Some(reason),
        }),
        Outcome::Denied(denial) => {
            let reason = format!("the authorizer `{}` says no", provider.name);
            note(open, verdict(snapshot, &by, DENIED, reason));
            Err(Refused::by_authorizer(
                Refusal::custom(denial.status, DENIED),
                denial,
            ))
        }
        Outcome::Failed { code, reason } => {
            note(open, verdict(snapshot, &by, code, reason));
            let status = StatusCode::from_u16(provider.status_on_error);
            Err(Refusal::custom(status.unwrap_or(StatusCode::FORBIDDEN), code).into())
        }
    }
}

/// Asks about a connection whose content is not HTTP, before a byte flows (rule 57).
pub(super) async fn check_connection(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    facts: &ConnectionFacts,
    connection: &Connection,
) -> Result<Option<String>, Verdict> {
    let (provider, by) = match snapshot.policies.custom_tcp(connection, worker.now()) {
        CustomCheck::NotNeeded => return Ok(None),
        CustomCheck::Refuse { code, by } => {
            let reason = "the policy names no provider that can be asked".to_owned();
            return Err(verdict(snapshot, &by, code, reason));
        }
        CustomCheck::Ask { provider, by } => (provider, by),
    };
    let question = Question {
        connection,
        source: facts.source.unwrap_or(NOWHERE),
        workload: &snapshot.workload,
        time: worker.now(),
        request: None,
    };
    let answer = ext_authz::ask(worker, snapshot, &provider, &question).await;
    match outcome(worker, &provider, answer) {
        Outcome::Allowed(_) => Ok(None),
        Outcome::FailedOpen(reason) => Ok(Some(reason)),
        Outcome::Denied(_) => {
            let reason = format!("the authorizer `{}` says no", provider.name);
            Err(verdict(snapshot, &by, DENIED, reason))
        }
        Outcome::Failed { code, reason } => Err(verdict(snapshot, &by, code, reason)),
    }
}

const DENIED: &str = "custom_denied";
const NOWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

enum Outcome {
    Allowed(Changes),
    FailedOpen(String),
    Denied(Denial),
    Failed { code: &'static str, reason: String },
}

fn outcome(
    worker: &Worker,
    provider: &ExtensionProvider,
    answer: Result<Answer, CheckError>,
) -> Outcome {
    let count = |result| worker.metrics().custom(&provider.name, result);
    match answer {
        Ok(Answer::Allowed(changes)) => {
            count("allowed");
            Outcome::Allowed(changes)
        }
        Ok(Answer::Denied(denial)) => {
            count(DENIED);
            Outcome::Denied(denial)
        }
        Err(error) => {
            let (code, name) = (error.code(), &provider.name);
            count(code);
            tracing::warn!(provider = name, %error, "an authorizer cannot be asked");
            // WHY: a provider that does not exist is a mistake in the files, not an outage (rule 61).
            if provider.is_fail_open && !matches!(error, CheckError::NoService) {
                let reason = format!("the authorizer `{name}` fails open: {code}");
                return Outcome::FailedOpen(reason);
            }
            let reason = format!("the authorizer `{name}` gave no answer: {error}");
            Outcome::Failed { code, reason }
        }
    }
}

fn verdict(snapshot: &Snapshot, by: &RuleRef, code: &'static str, reason: String) -> Verdict {
    let (policy, rule) = named(Some(by));
    Verdict {
        code,
        policy,
        rule,
        revision: snapshot.mesh_revision,
        reason,
        ..Verdict::default()
    }
}

fn note(open: &mut OpenCall, verdict: Verdict) {
    if let Some(record) = open.record() {
        record.verdict = verdict;
    }
}

/// What is judged from here on, and forwarded, is the call as the authorizer left it.
fn change(
    snapshot: &Snapshot,
    parts: &mut Parts,
    judged: &mut JudgedBy,
    changes: &Changes,
) -> Result<(), Refused> {
    changes.apply(&mut parts.headers);
    if let Some(target) = changes.target(judged.path.as_target()) {
        judged.path = snapshot
            .policies
            .normalize(&target)
            .map_err(|refusal| HeadRefusal::Path(refusal.code()))?;
    }
    Ok(())
}

/// Bytes that are set aside while a body is read and judged.
struct Held {
    all: Rc<Cell<usize>>,
    bytes: usize,
}

impl Held {
    /// None when others hold too much already.
    fn take(all: &Rc<Cell<usize>>, rule: CheckedBody) -> Option<Self> {
        let bytes = usize::try_from(rule.max_request_bytes).unwrap_or(usize::MAX);
        let bytes = bytes.min(limits::CHECKED_BYTES_MAX);
        let sum = all.get().checked_add(bytes)?;
        (sum <= limits::CHECKED_BYTES_MAX).then(|| {
            all.set(sum);
            let all = Rc::clone(all);
            Self { all, bytes }
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.set(self.all.get().saturating_sub(self.bytes));
    }
}

async fn read_ahead(body: &BodySource, rule: CheckedBody) -> Result<ReadAhead, Refused> {
    let max = usize::try_from(rule.max_request_bytes).unwrap_or(usize::MAX);
    let read = timeout(limits::CHECKED_BODY_DEADLINE, body.read_ahead(max)).await;
    let Ok(read) = read else {
        return Err(Refusal::body_timeout().closing().into());
    };
    let read = read.map_err(|_| Refusal::body_failed().closing())?;
    if !read.is_whole && !rule.allows_partial {
        return Err(Refusal::body_too_large().closing().into());
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_54_bodies_for_authorizers_are_held_up_to_a_sum() {
        let all = Rc::new(Cell::new(0));
        let rule = |max_request_bytes| CheckedBody {
            max_request_bytes,
            allows_partial: true,
            is_packed_as_bytes: false,
        };
        let third = u32::try_from(limits::CHECKED_BYTES_MAX / 3).unwrap();
        let mut held: Vec<Held> = (0..3)
            .map(|_| Held::take(&all, rule(third)).unwrap())
            .collect();
        assert!(Held::take(&all, rule(third)).is_none());
        held.pop();
        assert!(Held::take(&all, rule(third)).is_some());
        drop(held);
        assert_eq!(all.get(), 0);
        assert!(
            Held::take(&all, rule(u32::MAX)).is_some(),
            "one alone may be as large as all"
        );
    }
}
