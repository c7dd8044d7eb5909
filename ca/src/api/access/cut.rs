//! Ends a response that is still under way once its caller may not have it any more (threats 20, 21, 65).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderMap;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use ravelin_runtime::tls::PeerIdentity;
use tokio::time::sleep;
use tonic::Status;

use super::{AccessRefusal, Gate};
use crate::api::status;
use crate::limits::STREAM_CHECK;

type Cut = Pin<Box<dyn Future<Output = Status> + Send>>;

/// The response, for as long as the peer may use the method at this path.
pub(super) fn guard(
    gate: Gate,
    peer: Arc<PeerIdentity>,
    path: String,
    response: Response,
) -> Response {
    // A response without a body is over already.
    if response.body().is_end_stream() {
        return response;
    }
    response.map(|inner| {
        Body::new(Guarded {
            inner,
            cut: Some(Box::pin(cut(gate, peer, path))),
        })
    })
}

/// Returns when the peer may not go on.
async fn cut(gate: Gate, peer: Arc<PeerIdentity>, path: String) -> Status {
    let store = gate.hub.store().clone();
    let (mut registry, mut denylist) = (store.revisions(), store.denylists());
    loop {
        // Marked as seen before the question: a change in between asks again.
        registry.mark_unchanged();
        denylist.mark_unchanged();
        if let Some(refusal) = gate.judge_again(&peer, &path) {
            return refuse(refusal, &peer, &path);
        }
        // Cancel-safe: a watch keeps its mark. The sleep notices an SVID that expires, and a clock that was set.
        tokio::select! {
            Ok(()) = registry.changed() => {}
            Ok(()) = denylist.changed() => {}
            () = sleep(STREAM_CHECK) => {}
        }
    }
}

fn refuse(refusal: AccessRefusal, peer: &PeerIdentity, path: &str) -> Status {
    tracing::info!(code = refusal.code(), caller = %peer.id, path, "call cut");
    status::of_access(refusal, path)
}

struct Guarded {
    inner: Body,
    cut: Option<Cut>,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(cut) = self.cut.as_mut() else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(status) = cut.as_mut().poll(context) {
            self.cut = None;
            self.inner = Body::empty();
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(match status.add_header(&mut trailers) {
                Ok(()) => Ok(Frame::trailers(trailers)),
                Err(error) => Err(axum::Error::new(error)),
            }));
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.cut.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // WHY: not the inner one's: a response that is cut is shorter.
        SizeHint::default()
    }
}
