//! One inbound HTTP connection, request by request: head, path, tokens, policy, then forwarded exactly as judged.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Response, header, response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use ravelin_policies::{Connection, CustomCheck, NormalizedPath, Presented, RequestIdentity};
use tokio::net::TcpStream;

use super::custom::Permitted;
use super::frame_budget::FrameBudget;
use super::refused::Refused;
use super::{accept, custom, policy_connection, register, verdict};
use crate::body::{Activity, BodySource, ProxyBody};
use crate::config::InboundListener;
use crate::connections::{Carried, LiveConnection};
use crate::decision_log::{CallRecord, ConnectionFacts, Outcome, Verdict};
use crate::ext_authz::{self, HeaderChange};
use crate::forwarded;
use crate::head::{self, HeadRefusal};
use crate::identity::Peer;
use crate::limits;
use crate::live_calls::{JudgedBy, LiveCalls, RegisteredCall};
use crate::metrics::meter::Meter;
use crate::open_call::OpenCall;
use crate::outbound;
use crate::respond::{self, Form, Refusal};
use crate::serve::{self, Version};
use crate::snapshot::Snapshot;
use crate::token::{Authenticated, Headers};
use crate::trace::span::Side;
use crate::tunnel::{self, Asked, Tunnel};
use crate::upstream::{Answered, Pool, Switched};
use crate::worker::Worker;

const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// One connection.
struct PeerConnection {
    worker: Rc<Worker>,
    facts: Arc<ConnectionFacts>,
    live: Rc<LiveConnection>,
    meter: Rc<Meter>,
    calls: Rc<LiveCalls>,
    /// None in plain text.
    client_cert: Option<HeaderValue>,
    application: Rc<Pool>,
    /// What is known before tokens are looked at.
    nobody: Arc<RequestIdentity>,
}

/// A call that was let through, and what its answer needs.
struct Passed {
    answered: Answered,
    live: RegisteredCall,
    downstream: Vec<HeaderChange>,
    asked: Option<Asked>,
    activity: Rc<Activity>,
}

/// Serves one connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    inbound: InboundListener,
    stream: TcpStream,
    source: SocketAddr,
) {
    // WHY: what a handshake needs is not kept for the life of the connection.
    let Some(accepted) = Box::pin(accept(&worker, &inbound, stream, source)).await else {
        return;
    };
    let (version, protocol) = if accepted.stream.is_http2() {
        (Version::Http2, "h2")
    } else {
        let head_deadline = limits::HEAD_DEADLINE;
        (Version::Http1 { head_deadline }, "http/1.1")
    };
    let calls = LiveCalls::new(policy_connection(&inbound, &accepted, source));
    let carried = Carried::Http(Rc::clone(&calls));
    let registered = register(&worker, &accepted, protocol, source, carried);
    let peer = accepted.peer.as_deref();
    let connection = Rc::new(PeerConnection {
        calls,
        client_cert: peer.map(|peer| client_cert(&accepted.snapshot, peer)),
        meter: accepted.meter(&worker),
        application: worker.application(inbound.forward, inbound.protocol.is_http2()),
        nobody: Arc::default(),
        live: Rc::clone(registered.connection()),
        facts: accepted.facts,
        worker: Rc::clone(&worker),
    });
    let stream = FrameBudget::new(accepted.stream, Arc::clone(worker.metrics()));
    let service = service_fn(move |request| {
        let connection = Rc::clone(&connection);
        // WHY: hyper moves the future of a call about and keeps room for it in every idle connection.
        Box::pin(async move { Ok::<_, std::convert::Infallible>(connection.call(request).await) })
    });
    serve::serve(stream, version, service, &registered).await;
}

/// Envoy's form: who received it, the digest of the peer's certificate, and the peer's SPIFFE ID.
fn client_cert(snapshot: &Snapshot, peer: &Peer) -> HeaderValue {
    let text = format!(
        "By={};Hash={};URI={}",
        snapshot.workload,
        peer.leaf_digest(),
        peer.id()
    );
    // WHY: SPIFFE IDs and hex have no character that a header cannot carry.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl PeerConnection {
    async fn call(&self, request: Request<Incoming>) -> Response<ProxyBody> {
        self.live.count_call();
        let (parts, body) = request.into_parts();
        let record = CallRecord::new(
            Arc::clone(&self.facts),
            self.worker.now(),
            self.worker.call_id(),
        );
        let (worker, meter) = (Rc::clone(&self.worker), Rc::clone(&self.meter));
        let mut open = OpenCall::open(worker, meter, record, &parts, Side::Inbound);
        let form = Form::of(&parts);
        match self.judge_and_forward(parts, body, &mut open).await {
            Ok(passed) => self.answer(passed, open, form),
            Err(refused) => self.refuse(&refused, open, form),
        }
    }

    fn answer(&self, passed: Passed, mut open: OpenCall, form: Form) -> Response<ProxyBody> {
        open.answered(&passed.answered);
        let (mut head, incoming) = passed.answered.response.into_parts();
        head::remove_response_hops(&mut head.headers);
        // WHY: the code of a refusal is the proxy's own word.
        head.headers.remove(respond::CODE_HEADER);
        ext_authz::answer::apply(&mut head.headers, &passed.downstream);
        if let Some(asked) = passed.asked {
            if let Some(other) = passed.answered.switched {
                return self.tunnel(asked, other, head, open, passed.live);
            }
            if tunnel::declined(&asked, &mut head).is_err() {
                return self.refuse(&Refusal::declined().into(), open, form);
            }
        }
        let (lease, live) = (passed.answered.lease, Some(passed.live));
        let body = ProxyBody::relay(incoming, open, lease, live, passed.activity);
        Response::from_parts(head, body)
    }

    fn tunnel(
        &self,
        asked: Asked,
        other: Switched,
        head: response::Parts,
        call: OpenCall,
        live: RegisteredCall,
    ) -> Response<ProxyBody> {
        let tunnel = Tunnel {
            worker: Rc::clone(&self.worker),
            direction: "inbound",
            connection: Rc::clone(&self.live),
            call,
            live: Some(live),
        };
        tunnel.begin(asked, other, head)
    }

    fn refuse(&self, refused: &Refused, mut open: OpenCall, form: Form) -> Response<ProxyBody> {
        let refusal = refused.refusal;
        self.worker.metrics().refused("inbound", refusal.code);
        open.refused(form.status(refusal.status), refusal.code);
        if let Some(record) = open.record()
            && record.verdict.code.is_empty()
        {
            record.verdict = Verdict {
                code: refusal.code,
                revision: self
                    .worker
                    .snapshot()
                    .map_or(0, |snapshot| snapshot.mesh_revision),
                reason: refused.text.as_deref().unwrap_or(refusal.text).to_owned(),
                ..Verdict::default()
            };
        }
        let response = match &refused.denial {
            Some(denial) => respond::by_authorizer(form, refusal, denial),
            None => respond::answer(form, refusal, refused.line()),
        };
        let (parts, body) = response.into_parts();
        open.read_grpc_status(&parts.headers);
        Response::from_parts(parts, body.with_call(open))
    }

    /// The order of these steps is the security argument (design, section 6).
    async fn judge_and_forward(
        &self,
        mut parts: Parts,
        body: Incoming,
        open: &mut OpenCall,
    ) -> Result<Passed, Refused> {
        let worker = &self.worker;
        let snapshot = self.snapshot()?;
        let connection = self.connection(&parts, open);
        let checked = head::check(&mut parts)?;
        let wanted = Asked::take(&mut parts);
        let call_id = serve::request_id(&mut parts.headers, || worker.call_id());
        note_head(open, &parts, &checked.host, call_id);
        open.begin_trace(&mut parts.headers);
        parts.headers.insert(header::HOST, checked.host.clone());
        let mut judged = JudgedBy {
            connection,
            host: checked.host,
            path: normalize(&snapshot, target(&parts))?,
            identity: Arc::clone(&self.nobody),
            tokens: Presented::default(),
            accepted: worker.now(),
        };
        note_path(open, &judged.path);
        let body = BodySource::new(body);
        open.count_request(body.counts());
        let asked = self.custom(&snapshot, &parts, &judged);
        let permitted = match asked {
            CustomCheck::NotNeeded => Permitted::default(),
            // WHY: it is rare and big; calls that need none make no room for it.
            CustomCheck::Refuse { .. } | CustomCheck::Ask { .. } => {
                let (parts, judged) = (&mut parts, &mut judged);
                Box::pin(custom::check(
                    worker, &snapshot, asked, parts, judged, &body, open,
                ))
                .await?
            }
        };
        let snapshot = self.newest(snapshot, &mut judged)?;
        self.authenticate(&snapshot, &parts, &mut judged, open)?;
        // WHY: a header that a rule makes of claims is judged as the token tells it, never as the caller wrote it.
        self.rewrite(&mut parts, &judged)?;
        self.authorize(&snapshot, &parts, &judged, permitted.note, open)?;
        if serve::is_too_large(&parts.headers) {
            return Err(Refusal::body_too_large().closing().into());
        }
        let head = Rc::new(parts);
        let live = self.calls.register(Rc::clone(&head), judged);
        let answered = self.forward(&head, &body, &live, open).await?;
        Ok(Passed {
            answered,
            live,
            downstream: permitted.downstream,
            asked: wanted,
            activity: body.activity(),
        })
    }

    /// Whether an authorizer has to be asked.
    fn custom(&self, snapshot: &Snapshot, parts: &Parts, judged: &JudgedBy) -> CustomCheck {
        let headers = Headers::new(&parts.headers);
        let call = judged.call(parts, &headers, self.worker.now());
        let on = self.calls.prejudged(&snapshot.policies);
        snapshot.policies.custom_http_on(&on, &call)
    }

    /// What to judge by, while nothing speaks against the connection.
    fn snapshot(&self) -> Result<Arc<Snapshot>, Refused> {
        if self.worker.pressure().is_high() {
            return Err(Refusal::overload().into());
        }
        let snapshot = self.worker.snapshot();
        let snapshot = snapshot.ok_or(Refusal::not_ready("not_ready"))?;
        match self.live.refusal() {
            Some(code) => Err(Refusal::denied(code).closing().into()),
            None => Ok(snapshot),
        }
    }

    /// An authorizer may take its time: what changed meanwhile counts.
    fn newest(&self, old: Arc<Snapshot>, judged: &mut JudgedBy) -> Result<Arc<Snapshot>, Refused> {
        let newest = self.snapshot()?;
        if newest.mesh_revision != old.mesh_revision {
            judged.path = normalize(&newest, judged.path.as_target())?;
        }
        Ok(newest)
    }

    /// The connection as one call is judged by it: behind trusted proxies each call has its own client.
    fn connection(&self, parts: &Parts, open: &mut OpenCall) -> Rc<Connection> {
        let connection = self.calls.connection();
        let client = forwarded::client(&parts.headers, self.worker.trusted_proxies());
        let Some(remote_ip) = client else {
            return Rc::clone(connection);
        };
        note(open, |record| record.remote = client);
        Rc::new(Connection {
            remote_ip,
            ..Connection::clone(connection)
        })
    }

    async fn forward(
        &self,
        head: &Parts,
        source: &Rc<BodySource>,
        live: &RegisteredCall,
        open: &mut OpenCall,
    ) -> Result<Answered, Refused> {
        let sent = tokio::select! {
            biased;
            sent = self.application.send(&self.worker, head, source) => sent,
            code = live.cut() => {
                note(open, |record| record.verdict.reason = format!("cut: {code}"));
                return Err(Refusal::denied(code).into());
            }
        };
        sent.map_err(|error| {
            tracing::debug!(%error, "the application did not answer");
            open.ended(Outcome::Failed);
            outbound::refusal(&error, source).into()
        })
    }

    fn authenticate(
        &self,
        snapshot: &Snapshot,
        parts: &Parts,
        judged: &mut JudgedBy,
        open: &mut OpenCall,
    ) -> Result<(), Refused> {
        let now = self.worker.now();
        let Authenticated {
            identity,
            presented,
        } = self
            .worker
            .tokens()
            .authenticate(snapshot, parts, &judged.path, now)
            .map_err(Refused::token)?;
        note(open, |record| {
            record.request_principal = identity.principal.clone().unwrap_or_default();
            record.jti = identity.jti.clone().unwrap_or_default();
        });
        judged.identity = identity;
        judged.tokens = presented;
        judged.accepted = now;
        Ok(())
    }

    fn authorize(
        &self,
        snapshot: &Snapshot,
        parts: &Parts,
        judged: &JudgedBy,
        remark: Option<String>,
        open: &mut OpenCall,
    ) -> Result<(), Refused> {
        let headers = Headers::new(&parts.headers);
        let call = judged.call(parts, &headers, self.worker.now());
        let on = self.calls.prejudged(&snapshot.policies);
        let decision = snapshot.policies.authorize_http_on(&on, &call);
        note(open, |record| {
            record.verdict = verdict(&self.worker, &decision);
            record.verdict.reason = remark.unwrap_or_default();
        });
        if decision.is_allowed {
            return Ok(());
        }
        // WHY: the nearest miss is looked for on refusals alone; it is not on the path of an allowed call.
        let explanation = snapshot.policies.explain_http_on(&on, &call);
        note(open, |record| {
            record.verdict.reason = explanation.reason();
        });
        Err(Refusal::denied(decision.code).into())
    }

    /// What was judged is what is forwarded.
    fn rewrite(&self, parts: &mut Parts, judged: &JudgedBy) -> Result<(), Refused> {
        let (path, identity) = (&judged.path, &judged.identity);
        let forwarded;
        let target = if identity.remove_params.is_empty() {
            path.as_target()
        } else {
            forwarded = path.without_params(&identity.remove_params);
            forwarded.as_target()
        };
        if target != self::target(parts) || parts.uri.authority().is_some() {
            parts.uri = target.parse().map_err(|_| HeadRefusal::TargetForm)?;
        }
        for name in &identity.remove_headers {
            head::remove_spellings(&mut parts.headers, name);
        }
        for (name, value) in &identity.set_headers {
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeadRefusal::TargetForm)?;
            let value = HeaderValue::from_str(value).map_err(|_| HeadRefusal::TargetForm)?;
            parts.headers.insert(name, value);
        }
        if let Some(client_cert) = &self.client_cert {
            parts.headers.insert(CLIENT_CERT, client_cert.clone());
        }
        Ok(())
    }
}

fn target(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

fn normalize(snapshot: &Snapshot, target: &str) -> Result<NormalizedPath, HeadRefusal> {
    let path = snapshot.policies.normalize(target);
    path.map_err(|refusal| HeadRefusal::Path(refusal.code()))
}

fn note(open: &mut OpenCall, change: impl FnOnce(&mut CallRecord)) {
    if let Some(record) = open.record() {
        change(record);
    }
}

fn note_head(open: &mut OpenCall, parts: &Parts, host: &HeaderValue, call_id: HeaderValue) {
    note(open, |record| {
        record.method = Some(parts.method.clone());
        record.host = Some(host.clone());
        parts.uri.path().clone_into(&mut record.path);
        record.call_id = call_id;
    });
}

fn note_path(open: &mut OpenCall, path: &NormalizedPath) {
    note(open, |record| {
        if record.path != path.path() {
            record.raw_path = std::mem::replace(&mut record.path, path.path().to_owned());
        }
    });
}
