//! What the application calls: over HTTP (by `Host`, or one service), or over plain TCP (`tcp`).
//!
//! The application is trusted with nothing: heads are checked as on the inbound side, and the peer must be one of
//! the identities that the service declares.

mod connect;
pub mod tcp;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::begun::Begun;
use crate::body::{Activity, BodySource, ProxyBody};
use crate::connections::{Carried, Direction, LiveConnection, NewConnection, Registered};
use crate::decision_log::{CallRecord, ConnectionFacts, Outcome, Verdict};
use crate::metrics::labels::{Edge, Reporter};
use crate::metrics::meter::Meter;
use crate::open_call::OpenCall;
use crate::respond::{self, Form, Refusal};
use crate::route::{Addressed, Route};
use crate::snapshot::Snapshot;
use crate::trace::span::Side;
use crate::tunnel::{self, Asked, Tunnel};
use crate::upstream::dial::DialError;
use crate::upstream::{Answered, SendError};
use crate::worker::Worker;
use crate::{head, limits, serve};

/// One connection of the application.
struct Caller {
    worker: Rc<Worker>,
    addressed: Addressed,
    facts: Arc<ConnectionFacts>,
    connection: Rc<LiveConnection>,
    /// Of calls that have no route (yet).
    unrouted: Rc<Meter>,
    meters: std::cell::RefCell<Vec<(Arc<Route>, Rc<Meter>)>>,
}

/// A call that went through, and what its answer needs.
struct Passed {
    answered: Answered,
    asked: Option<Asked>,
    activity: Rc<Activity>,
}

/// Serves one connection of the application to its end.
pub async fn serve_http<S>(worker: Rc<Worker>, addressed: Addressed, stream: S, source: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let registered = worker.connections().register(NewConnection {
        direction: Direction::Outbound,
        protocol: "plain",
        address: source,
        opened: worker.now(),
        peer: None,
        accepted_for: None,
        identity_generation: 0,
        mesh_revision: 0,
        own_expires_at: None,
        carried: Carried::Unjudged,
    });
    let snapshot = worker.snapshot();
    let workload = snapshot
        .as_ref()
        .map(|snapshot| snapshot.workload.to_string())
        .unwrap_or_default();
    let caller = Rc::new(Caller {
        facts: Arc::new(ConnectionFacts {
            workload,
            protocol: "http",
            source: Some(source),
            ..ConnectionFacts::default()
        }),
        connection: Rc::clone(registered.connection()),
        unrouted: meter(&worker, snapshot.as_deref(), None),
        meters: std::cell::RefCell::new(Vec::new()),
        addressed,
        worker,
    });
    let service = service_fn(move |request| {
        let caller = Rc::clone(&caller);
        // WHY: hyper moves the future of a call about and keeps room for it in every idle connection.
        Box::pin(async move { Ok::<_, std::convert::Infallible>(call(caller, request).await) })
    });
    let Some((stream, version)) = sniff(stream, &registered).await else {
        return;
    };
    serve::serve(stream, version, service, &registered).await;
}

/// The version of HTTP that the application begins with; none where it says nothing in time, or is told to end.
async fn sniff<S: AsyncRead + Unpin>(
    stream: S,
    registered: &Registered,
) -> Option<(Begun<S>, serve::Version)> {
    let head_deadline = limits::APPLICATION_HEAD_DEADLINE;
    let sniffed = timeout(head_deadline, Begun::http(stream));
    let stream = tokio::select! {
        sniffed = sniffed => sniffed.ok()?.ok()?,
        () = registered.connection().stopped() => return None,
    };
    let version = if stream.is_http2() {
        serve::Version::Http2
    } else {
        serve::Version::Http1 { head_deadline }
    };
    Some((stream, version))
}

async fn call(caller: Rc<Caller>, request: Request<Incoming>) -> Response<ProxyBody> {
    caller.connection.count_call();
    // WHY: a listener for one service opens no tunnel to another, and so a tunnel opens none.
    if connect::is_asked(&request) && caller.addressed == Addressed::Host {
        return connect::open(&caller, request);
    }
    let (mut parts, body) = request.into_parts();
    let record = CallRecord::new(
        Arc::clone(&caller.facts),
        caller.worker.now(),
        caller.worker.call_id(),
    );
    let (worker, unrouted) = (Rc::clone(&caller.worker), Rc::clone(&caller.unrouted));
    let mut open = OpenCall::open(worker, unrouted, record, &parts, Side::Outbound);
    let form = Form::of(&parts);
    match forward(&caller, &mut parts, body, &mut open).await {
        Ok(passed) => answer(&caller, passed, open, form),
        Err(refusal) => refuse(&caller, refusal, open, form),
    }
}

fn answer(caller: &Caller, passed: Passed, mut open: OpenCall, form: Form) -> Response<ProxyBody> {
    open.answered(&passed.answered);
    let (mut head, incoming) = passed.answered.response.into_parts();
    head::remove_response_hops(&mut head.headers);
    if let Some(asked) = passed.asked {
        if let Some(other) = passed.answered.switched {
            let tunnel = Tunnel {
                worker: Rc::clone(&caller.worker),
                direction: "outbound",
                connection: Rc::clone(&caller.connection),
                call: open,
                live: None,
            };
            return tunnel.begin(asked, other, head);
        }
        if tunnel::declined(&asked, &mut head).is_err() {
            return refuse(caller, Refusal::declined(), open, form);
        }
    }
    let body = ProxyBody::relay(incoming, open, passed.answered.lease, None, passed.activity);
    Response::from_parts(head, body)
}

fn refuse(
    caller: &Caller,
    refusal: Refusal,
    mut open: OpenCall,
    form: Form,
) -> Response<ProxyBody> {
    caller.worker.metrics().refused("outbound", refusal.code);
    open.refused(form.status(refusal.status), refusal.code);
    // WHY: only a considered No is a decision; a peer that is down is not.
    if is_decision(refusal)
        && let Some(record) = open.record()
    {
        record.verdict = Verdict {
            code: refusal.code,
            revision: caller
                .worker
                .snapshot()
                .map_or(0, |snapshot| snapshot.mesh_revision),
            reason: refusal.text.to_owned(),
            ..Verdict::default()
        };
    }
    let (parts, body) = respond::refuse(form, refusal).into_parts();
    open.read_grpc_status(&parts.headers);
    Response::from_parts(parts, body.with_call(open))
}

fn is_decision(refusal: Refusal) -> bool {
    refusal.status == StatusCode::NOT_FOUND || refusal.code == "peer_untrusted"
}

async fn forward(
    caller: &Rc<Caller>,
    parts: &mut http::request::Parts,
    body: Incoming,
    open: &mut OpenCall,
) -> Result<Passed, Refusal> {
    let worker = &caller.worker;
    let checked = head::check(parts)?;
    open.begin_trace(&mut parts.headers);
    let asked = Asked::take(parts);
    if let Some(record) = open.record() {
        record.method = Some(parts.method.clone());
        record.host = Some(checked.host.clone());
        parts.uri.path().clone_into(&mut record.path);
    }
    if worker.pressure().is_high() {
        return Err(Refusal::overload());
    }
    let snapshot = worker.snapshot().ok_or(Refusal::not_ready("not_ready"))?;
    if snapshot.is_expired(worker.now()) {
        return Err(Refusal::not_ready("svid_expired"));
    }
    let route = snapshot
        .routes
        .meant(&caller.addressed, checked.host())
        .ok_or_else(Refusal::no_route)?;
    open.routed(route, caller.meter(&snapshot, route));
    // WHY: the path is judged where it is served, by the workload's own policies; here it only leaves absolute form.
    parts.uri = serve::origin_form(&parts.uri).ok_or(head::HeadRefusal::TargetForm)?;
    parts.headers.insert(header::HOST, checked.host);
    let call_id = serve::request_id(&mut parts.headers, || worker.call_id());
    if let Some(record) = open.record() {
        record.call_id = call_id;
    }
    if serve::is_too_large(&parts.headers) {
        return Err(Refusal::body_too_large().closing());
    }
    let source = BodySource::new(body);
    open.count_request(source.counts());
    let cluster = worker.clusters().of(route);
    let answered = cluster
        .send(worker, parts, &source)
        .await
        .map_err(|error| {
            tracing::debug!(%error, service = %route.service, "call failed");
            open.ended(Outcome::Failed);
            refusal(&error, &source)
        })?;
    Ok(Passed {
        answered,
        asked,
        activity: source.activity(),
    })
}

/// What the application is told about a call that got no response.
pub fn refusal(error: &SendError, body: &BodySource) -> Refusal {
    if body.is_too_large() {
        return Refusal::body_too_large().closing();
    }
    match error {
        SendError::Dial(DialError::NotReady) => Refusal::not_ready("not_ready"),
        SendError::Dial(DialError::NoTunnel(_)) => Refusal::no_tunnel(),
        SendError::NotHttp2 => Refusal::not_http2(),
        SendError::Dial(error) if error.is_untrusted() => Refusal::peer_untrusted(),
        SendError::Dial(_) => Refusal::unreachable(),
        SendError::Deadline => Refusal::upstream_timeout(),
        SendError::Switched => Refusal::upstream_switched(),
        SendError::Failed(_) | SendError::Target => Refusal::upstream_failed(),
    }
}

impl Caller {
    fn meter(&self, snapshot: &Snapshot, route: &Arc<Route>) -> Rc<Meter> {
        let mut known = self.meters.borrow_mut();
        if let Some((_, meter)) = known.iter().find(|(known, _)| Arc::ptr_eq(known, route)) {
            return Rc::clone(meter);
        }
        let meter = meter(&self.worker, Some(snapshot), Some(route));
        if known.len() >= limits::ROUTES_PER_CONNECTION_MAX {
            known.clear();
        }
        known.push((Arc::clone(route), Rc::clone(&meter)));
        meter
    }
}

/// Counts calls of the application to a service; without a route, those that have none.
pub(crate) fn meter(
    worker: &Worker,
    snapshot: Option<&Snapshot>,
    route: Option<&Route>,
) -> Rc<Meter> {
    let names = snapshot.map(|snapshot| &snapshot.names);
    let source = snapshot.map(|snapshot| snapshot.names.workload(&snapshot.workload));
    let expected = route.and_then(|route| route.expected.first());
    let destination = names.zip(expected).map(|(names, id)| names.workload(id));
    let service = names
        .zip(route)
        .and_then(|(names, route)| names.service(&route.service));
    worker.meters().meter(&Edge {
        reporter: Reporter::Source,
        source: source.as_deref(),
        destination: destination.as_deref(),
        service: service.map(Arc::as_ref),
        is_mutual_tls: true,
    })
}
