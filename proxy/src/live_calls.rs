//! Calls in flight on one inbound HTTP connection. When policies or the deny-list change each is judged again by what
//! was forwarded; one that is no longer allowed is cut, whatever it waits for (threat 59).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::HeaderValue;
use http::request::Parts;
use ravelin_policies::{
    Connection, ConnectionPolicies, HttpCall, NormalizedPath, Presented, RequestIdentity,
    RequestView, WorkloadPolicies,
};
use ravelin_proto::time::Timestamp;

use crate::snapshot::Snapshot;
use crate::token::{Headers, TokenRefusal, Tokens};

/// The calls of one connection.
#[derive(Debug)]
pub struct LiveCalls {
    connection: Rc<Connection>,
    prejudged: RefCell<Option<Rc<ConnectionPolicies>>>,
    calls: RefCell<BTreeMap<u64, Rc<LiveCall>>>,
    next: Cell<u64>,
}

/// What one call was judged by, and the order to end it.
#[derive(Debug)]
struct LiveCall {
    head: Rc<Parts>,
    judged: RefCell<JudgedBy>,
    cut: Cell<Option<&'static str>>,
    waker: RefCell<Option<Waker>>,
}

/// What a call is judged by, besides its head.
#[derive(Debug)]
pub struct JudgedBy {
    /// The connection, with the client that trusted proxies name.
    pub connection: Rc<Connection>,
    /// Host with its port if one was given, lower case.
    pub host: HeaderValue,
    /// The path that is forwarded.
    pub path: NormalizedPath,
    /// What its tokens say.
    pub identity: Arc<RequestIdentity>,
    /// Its tokens.
    pub tokens: Presented,
    /// When they were accepted.
    pub accepted: Timestamp,
}

impl JudgedBy {
    /// As the policies take it.
    pub fn call<'a>(
        &'a self,
        head: &'a Parts,
        headers: &'a Headers<'a>,
        now: Timestamp,
    ) -> HttpCall<'a> {
        HttpCall {
            connection: &self.connection,
            method: head.method.as_str(),
            host: self.host.to_str().unwrap_or_default(),
            path: &self.path,
            headers,
            identity: &self.identity,
            now,
        }
    }
}

/// A registered call; dropping it removes it.
#[derive(Debug)]
pub struct RegisteredCall {
    calls: Rc<LiveCalls>,
    call: Rc<LiveCall>,
    id: u64,
}

impl LiveCalls {
    /// For one connection without calls.
    pub fn new(connection: Connection) -> Rc<Self> {
        Rc::new(Self {
            connection: Rc::new(connection),
            prejudged: RefCell::default(),
            calls: RefCell::default(),
            next: Cell::new(0),
        })
    }

    /// What policy sees of the connection.
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// What `policies` say of the connection alone: looked at once a revision, not once a call.
    pub fn prejudged(&self, policies: &WorkloadPolicies) -> Rc<ConnectionPolicies> {
        let mut slot = self.prejudged.borrow_mut();
        match slot.as_ref() {
            Some(known) if policies.is_current(known) => Rc::clone(known),
            Some(_) | None => {
                let judged = Rc::new(policies.judge_connection(&self.connection));
                *slot = Some(Rc::clone(&judged));
                judged
            }
        }
    }

    /// Registers a call that was allowed.
    pub fn register(self: &Rc<Self>, head: Rc<Parts>, judged: JudgedBy) -> RegisteredCall {
        let id = self.next.get();
        self.next.set(id.wrapping_add(1));
        let call = Rc::new(LiveCall {
            head,
            judged: RefCell::new(judged),
            cut: Cell::new(None),
            waker: RefCell::new(None),
        });
        self.calls.borrow_mut().insert(id, Rc::clone(&call));
        RegisteredCall {
            calls: Rc::clone(self),
            call,
            id,
        }
    }

    /// Judges every call by `policies` and cuts those that they deny.
    pub fn judge(&self, policies: &WorkloadPolicies, now: Timestamp) {
        let on = self.prejudged(policies);
        for call in self.calls.borrow().values() {
            let headers = Headers::new(&call.head.headers);
            let judged = call.judged.borrow();
            let call_now = judged.call(&call.head, &headers, now);
            let decision = policies.authorize_http_on(&on, &call_now);
            if !decision.is_allowed {
                call.cut(decision.code);
            }
        }
    }

    /// Cuts every call whose token is on the deny-list of `snapshot`.
    pub fn judge_tokens(&self, snapshot: &Snapshot, now: Timestamp) {
        for call in self.calls.borrow().values() {
            if snapshot.is_token_denied(&call.judged.borrow().identity, now) {
                call.cut("token_denied");
            }
        }
    }

    /// Judges the tokens of every call by the rules and keys of today, which the rules of `before` had found; cuts calls
    /// whose token is no longer accepted.
    pub fn authenticate_again(
        &self,
        tokens: &Tokens,
        before: &WorkloadPolicies,
        snapshot: &Snapshot,
    ) {
        for call in self.calls.borrow().values() {
            if let Err(refused) = call.authenticate_again(tokens, before, snapshot) {
                call.cut(refused.refusal.code);
            }
        }
    }
}

impl LiveCall {
    fn authenticate_again(
        &self,
        tokens: &Tokens,
        before: &WorkloadPolicies,
        snapshot: &Snapshot,
    ) -> Result<(), TokenRefusal> {
        let mut judged = self.judged.borrow_mut();
        if judged.tokens.is_empty() {
            return Ok(());
        }
        let rules = snapshot.policies.authentication();
        let presented = rules.found_by(before.authentication(), &judged.tokens);
        let headers = Headers::new(&self.head.headers);
        let request = RequestView {
            method: self.head.method.as_str(),
            query: judged.path.query(),
            headers: &headers,
        };
        let again = tokens.judge_again(snapshot, presented, &request, judged.accepted)?;
        judged.identity = again.identity;
        judged.tokens = again.presented;
        Ok(())
    }

    fn cut(&self, code: &'static str) {
        self.cut.set(Some(code));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl RegisteredCall {
    /// Ready once the call is to end.
    pub fn poll_cut(&self, context: &Context<'_>) -> Poll<&'static str> {
        if let Some(code) = self.call.cut.get() {
            return Poll::Ready(code);
        }
        let mut waker = self.call.waker.borrow_mut();
        let is_known = waker
            .as_ref()
            .is_some_and(|known| known.will_wake(context.waker()));
        if !is_known {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until the call is to end.
    pub async fn cut(&self) -> &'static str {
        std::future::poll_fn(|context| self.poll_cut(context)).await
    }
}

impl Drop for RegisteredCall {
    fn drop(&mut self) {
        self.calls.calls.borrow_mut().remove(&self.id);
    }
}
