//! `ravelin.v1.Rotation`: the whole cycle of an authority in one call, with its progress.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::pb::ravelin::v1::rotation_progress::Step;
use ravelin_proto::pb::ravelin::v1::rotation_server::{Rotation, RotationServer};
use ravelin_runtime::drain::Drain;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::store_status;
use crate::authority::custody::Custody;
use crate::authority::progress::kind_to_pb;
use crate::authority::rotate::Rotations;
use crate::authority::state::Kind;
use crate::hub::Hub;

/// The service.
#[derive(Debug, Clone)]
pub struct RotationService {
    hub: Hub,
    custody: Arc<Custody>,
    rotations: Rotations,
    drain: Drain,
}

impl RotationService {
    /// Streams end when `drain` begins; the rotations go on at the next start.
    pub fn server(
        hub: Hub,
        custody: Arc<Custody>,
        rotations: Rotations,
        drain: Drain,
    ) -> RotationServer<Self> {
        RotationServer::new(Self {
            hub,
            custody,
            rotations,
            drain,
        })
    }
}

fn kind_of(kind: pb::AuthorityKind) -> Result<Kind, Status> {
    match kind {
        pb::AuthorityKind::X509 => Ok(Kind::X509),
        pb::AuthorityKind::Jwt => Ok(Kind::Jwt),
        pb::AuthorityKind::Unspecified => {
            Err(Status::invalid_argument("`kind` is missing: x509 or jwt"))
        }
    }
}

struct Watching {
    progress: watch::Receiver<pb::RotationProgress>,
    drain: Drain,
    is_first: bool,
    is_over: bool,
}

/// The present state first, then each change, until the rotation is over.
async fn next_progress(
    mut watching: Watching,
) -> Option<(Result<pb::RotationProgress, Status>, Watching)> {
    if watching.is_over {
        return None;
    }
    if !watching.is_first {
        // Both arms are cancel-safe.
        let is_changed = tokio::select! {
            () = watching.drain.started() => false,
            changed = watching.progress.changed() => changed.is_ok(),
        };
        if !is_changed {
            watching.is_over = true;
            let ending =
                Status::unavailable("the CA is ending; the rotation goes on when it is back");
            return Some((Err(ending), watching));
        }
    }
    watching.is_first = false;
    let progress = watching.progress.borrow_and_update().clone();
    watching.is_over = matches!(progress.step(), Step::Done | Step::Failed | Step::Idle);
    Some((Ok(progress), watching))
}

#[tonic::async_trait]
impl Rotation for RotationService {
    type RotateStream = Pin<Box<dyn Stream<Item = Result<pb::RotationProgress, Status>> + Send>>;

    async fn rotate(
        &self,
        request: Request<pb::RotateRequest>,
    ) -> Result<Response<Self::RotateStream>, Status> {
        let actor = Caller::of(request.extensions(), &self.hub.registry()).actor();
        let request = request.into_inner();
        let kind = kind_of(request.kind())?;
        let started = self.rotations.start(kind, request.revoke_old, &actor).await;
        let progress = started.map_err(|error| store_status(&error))?;
        let drain = self.drain.clone();
        let watching = Watching {
            progress,
            drain,
            is_first: true,
            is_over: false,
        };
        Ok(Response::new(Box::pin(stream::unfold(
            watching,
            next_progress,
        ))))
    }

    async fn get_status(
        &self,
        request: Request<pb::RotationStatusRequest>,
    ) -> Result<Response<pb::RotationProgress>, Status> {
        let kind = kind_of(request.into_inner().kind())?;
        let progress = self.rotations.progress(kind).borrow().clone();
        Ok(Response::new(progress))
    }

    async fn list_authorities(
        &self,
        _request: Request<pb::ListAuthoritiesRequest>,
    ) -> Result<Response<pb::ListAuthoritiesResponse>, Status> {
        let authorities = self.custody.authorities();
        let acks = self.hub.acks();
        let mut listed = Vec::new();
        for kind in Kind::ALL {
            listed.extend(
                authorities
                    .of(kind)
                    .all()
                    .iter()
                    .map(|authority| pb::Authority {
                        kind: kind_to_pb(kind).into(),
                        authority_id: authority.id.clone(),
                        state: authority.state.name().to_owned(),
                        is_tainted: authority.is_tainted,
                        not_before: authority.validity.not_before.unix_secs(),
                        expires_at: authority.validity.not_after.unix_secs(),
                        svids: match kind {
                            Kind::X509 => acks.x509_svids_on(&authority.id),
                            Kind::Jwt => acks.jwt_svids_on(&authority.id),
                        },
                    }),
            );
        }
        Ok(Response::new(pb::ListAuthoritiesResponse {
            authorities: listed,
        }))
    }
}
