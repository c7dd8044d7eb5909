//! CONNECT: a tunnel to one service of the mesh. What flows in it is treated as the service's port declares: HTTP is
//! parsed and judged call by call as on a listener for that service, everything else is carried as it is.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{Caller, refuse};
use crate::body::ProxyBody;
use crate::decision_log::{CallRecord, Outcome};
use crate::head::{self, HeadRefusal};
use crate::open_call::OpenCall;
use crate::respond::{Form, Refusal};
use crate::route::{Addressed, Route};
use crate::trace::span::Side;
use crate::{limits, outbound};

/// True for a CONNECT; one that carries an upgrade over HTTP/2 (RFC 8441) is a call like others.
pub(super) fn is_asked(request: &Request<Incoming>) -> bool {
    *request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none()
}

/// Answers a CONNECT, and serves the tunnel to its end in a task of its own.
pub(super) fn open(caller: &Rc<Caller>, mut request: Request<Incoming>) -> Response<ProxyBody> {
    let worker = &caller.worker;
    let record = CallRecord::new(Arc::clone(&caller.facts), worker.now(), worker.call_id());
    let unrouted = Rc::clone(&caller.unrouted);
    let mut open = OpenCall::open(
        Rc::clone(worker),
        unrouted,
        record,
        &request,
        Side::Outbound,
    );
    let (target, route) = match find(caller, &request, &mut open) {
        Ok(found) => found,
        Err(refusal) => return refuse(caller, refusal, open, Form::Http),
    };
    if let Some(snapshot) = worker.snapshot() {
        open.routed(&route, caller.meter(&snapshot, &route));
    }
    open.granted();
    open.ended(Outcome::Completed);
    let upgrade = hyper::upgrade::on(&mut request);
    let addressed = Addressed::Service(target.into());
    // INVARIANT: counted before the answer is out, when HTTP/1.1 lets go of the connection.
    let place = caller.connection.enter_tunnel();
    let tunnel = tunnel(Rc::clone(caller), addressed, route, upgrade);
    tokio::task::spawn_local(async move {
        tunnel.await;
        drop(place);
    });
    Response::new(ProxyBody::Text(None, Some(Box::new(open))))
}

/// The service that the target names with its port.
fn find(
    caller: &Caller,
    request: &Request<Incoming>,
    open: &mut OpenCall,
) -> Result<(String, Arc<Route>), Refusal> {
    let worker = &caller.worker;
    let target = target(request)?;
    if let Some(record) = open.record() {
        record.method = Some(request.method().clone());
        record.host = HeaderValue::from_str(&target).ok();
    }
    let snapshot = worker.snapshot().ok_or(Refusal::not_ready("not_ready"))?;
    if snapshot.is_expired(worker.now()) {
        return Err(Refusal::not_ready("svid_expired"));
    }
    let route = snapshot.routes.find(&target).cloned();
    Ok((target, route.ok_or_else(Refusal::no_route)?))
}

/// `HOST:PORT`, lower case. `Host` may repeat it, with the port or without.
///
/// SPEC: RFC 9110 section 9.3.6; a CONNECT has no content.
fn target(request: &Request<Incoming>) -> Result<String, HeadRefusal> {
    let (uri, headers) = (request.uri(), request.headers());
    let authority = uri.authority().ok_or(HeadRefusal::TargetForm)?;
    let value = HeaderValue::from_str(authority.as_str());
    let value = head::lower_case_host(&value.map_err(|_| HeadRefusal::HostMalformed)?)?;
    let target = value.to_str().map_err(|_| HeadRefusal::HostMalformed)?;
    let port = authority.port_u16().ok_or(HeadRefusal::TargetForm)?;
    if headers.contains_key(header::CONTENT_LENGTH)
        || headers.contains_key(header::TRANSFER_ENCODING)
    {
        return Err(HeadRefusal::LengthAmbiguous);
    }
    for host in headers.get_all(header::HOST) {
        let host = head::lower_case_host(host)?;
        let bare = target.strip_suffix(&format!(":{port}"));
        if host != value && bare.is_none_or(|bare| host != bare) {
            return Err(HeadRefusal::HostMismatch);
        }
    }
    Ok(target.to_owned())
}

async fn tunnel(caller: Rc<Caller>, addressed: Addressed, route: Arc<Route>, upgrade: OnUpgrade) {
    let Ok(Ok(upgraded)) = timeout(limits::SWITCH_DEADLINE, upgrade).await else {
        return tracing::debug!(service = route.service, "no tunnel came of CONNECT");
    };
    let stream: TokioIo<Upgraded> = TokioIo::new(upgraded);
    let worker = Rc::clone(&caller.worker);
    let Some(source) = caller.facts.source else {
        return;
    };
    if route.protocol.is_http() {
        outbound::serve_http(worker, addressed, stream, source).await;
    } else {
        outbound::tcp::serve(worker, addressed, stream, source).await;
    }
}
