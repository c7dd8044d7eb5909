//! The SPIFFE Workload API: X.509 and JWT profiles, unmodified. WIT answers Unimplemented.
//!
//! Every request carries the security header (E-2) and comes from an attested process. A stream
//! answers at once, then at each change, and ends when the process does or its identity goes.

mod render;
pub(crate) mod session;
mod validate;

use std::collections::BTreeSet;
use std::pin::Pin;

use futures_util::future::try_join_all;
use futures_util::stream::{self, Stream};
use ravelin_proto::pb;
use ravelin_proto::pb::spiffe_workload_api_server::SpiffeWorkloadApi;
use ravelin_proto::spiffe_id::SpiffeId;
use tonic::{Request, Response, Status};

use crate::cache::{Identity, WorkloadView};
use crate::jwt_svids::JwtSvids;
use crate::limits;
use render::NoResponse;
use session::{Gate, Session, peer_of};

/// The stream of a server-streaming method.
pub(crate) type Responses<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

const HEADER: &str = "workload.spiffe.io";

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct WorkloadApi {
    /// Lets processes in.
    pub gate: Gate,
    /// Gets JWT-SVIDs.
    pub jwt_svids: JwtSvids,
}

/// The security header, exactly once and exactly `true` (E-2): a browser or a tricked proxy cannot set it.
pub(crate) fn check_header<T>(request: &Request<T>) -> Result<(), Status> {
    let mut values = request.metadata().get_all(HEADER).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value.as_bytes() == b"true" => Ok(()),
        _ => Err(Status::invalid_argument(
            "the security header `workload.spiffe.io: true` is missing from the request",
        )),
    }
}

/// A view that has no response, as the status that ends the call.
fn to_status(gate: &Gate, why: NoResponse) -> Status {
    match why {
        NoResponse::Denied => gate.deny(),
        NoResponse::Starting => Status::unavailable("the agent has no trust bundle yet"),
        NoResponse::Unsigned | NoResponse::Pending => {
            Status::unavailable("no SVID is signed for this process yet")
        }
    }
}

struct Feed<R> {
    session: Session,
    render: fn(&WorkloadView) -> Result<R, NoResponse>,
    last: Option<R>,
}

impl<R: PartialEq + Clone> Feed<R> {
    async fn next(&mut self) -> Result<R, Status> {
        if self.last.is_some() {
            self.session.changed().await?;
        }
        loop {
            match (self.render)(&self.session.view()) {
                Ok(response) if self.last.as_ref() != Some(&response) => {
                    if self.last.is_some() {
                        tokio::time::sleep(Session::splay()).await;
                        if self.session.confirm().await? {
                            continue;
                        }
                    }
                    self.last = Some(response.clone());
                    return Ok(response);
                }
                Ok(_) => {}
                // What is signed anew is on its way; the last full state stays good until then.
                Err(NoResponse::Pending) if self.last.is_some() => {}
                Err(NoResponse::Pending) => {
                    self.session.settle().await?;
                    if !session::is_settled(&self.session.view()) {
                        return Err(to_status(self.session.gate(), NoResponse::Pending));
                    }
                    continue;
                }
                Err(why) => return Err(to_status(self.session.gate(), why)),
            }
            self.session.changed().await?;
        }
    }
}

fn responses<R>(
    session: Session,
    render: fn(&WorkloadView) -> Result<R, NoResponse>,
) -> Response<Responses<R>>
where
    R: PartialEq + Clone + Send + Sync + 'static,
{
    let feed = Feed {
        session,
        render,
        last: None,
    };
    let answers = stream::unfold(Some(feed), |feed| async move {
        let mut feed = feed?;
        match feed.next().await {
            Ok(response) => Some((Ok(response), Some(feed))),
            Err(status) => Some((Err(status), None)),
        }
    });
    Response::new(Box::pin(answers))
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Responses<pb::X509svidResponse>;
    type FetchX509BundlesStream = Responses<pb::X509BundlesResponse>;
    type FetchJWTBundlesStream = Responses<pb::JwtBundlesResponse>;
    type FetchWITSVIDStream = Responses<pb::WitsvidResponse>;
    type FetchWITBundlesStream = Responses<pb::WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<pb::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        check_header(&request)?;
        Ok(responses(
            self.gate.enter(peer_of(&request)).await?,
            render::x509_svids,
        ))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<pb::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        check_header(&request)?;
        Ok(responses(
            self.gate.enter(peer_of(&request)).await?,
            render::x509_bundles,
        ))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<pb::JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        check_header(&request)?;
        Ok(responses(
            self.gate.enter(peer_of(&request)).await?,
            render::jwt_bundles,
        ))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<pb::JwtsvidRequest>,
    ) -> Result<Response<pb::JwtsvidResponse>, Status> {
        check_header(&request)?;
        check_audiences(&request.get_ref().audience)?;
        let wanted = wanted_id(&request.get_ref().spiffe_id)?;
        let session = self.gate.enter(peer_of(&request)).await?;
        let view = session.view();
        if view.bundle.is_none() {
            return Err(to_status(&self.gate, NoResponse::Starting));
        }
        let identities = chosen(&view, wanted.as_ref());
        if identities.is_empty() {
            return Err(self.gate.deny());
        }
        let audiences = &request.get_ref().audience;
        let tokens = identities.into_iter().map(|identity| async move {
            let token = self.jwt_svids.token(&identity.entry, audiences).await?;
            Ok(pb::Jwtsvid {
                spiffe_id: token.spiffe_id.as_str().to_owned(),
                svid: token.token,
                hint: identity.hint.clone(),
            })
        });
        let svids = try_join_all(tokens)
            .await
            .map_err(|error: crate::ca_client::CaError| {
                tracing::warn!(%error, "no JWT-SVID");
                Status::unavailable("no JWT-SVID can be signed for this process now")
            })?;
        Ok(Response::new(pb::JwtsvidResponse { svids }))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<pb::ValidateJwtsvidRequest>,
    ) -> Result<Response<pb::ValidateJwtsvidResponse>, Status> {
        check_header(&request)?;
        validate::check_fields(request.get_ref())?;
        let session = self.gate.enter(peer_of(&request)).await?;
        let view = session.view();
        if view.bundle.is_none() {
            return Err(to_status(&self.gate, NoResponse::Starting));
        }
        let state = &self.gate.state;
        validate::validate(request.get_ref(), &view, state.trust_domain(), state.now())
            .map(Response::new)
    }

    async fn fetch_witsvid(
        &self,
        _: Request<pb::WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(Status::unimplemented("FetchWITSVID is not implemented"))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<pb::WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(Status::unimplemented("FetchWITBundles is not implemented"))
    }
}

/// At least one audience, none empty, within the limits.
fn check_audiences(audiences: &[String]) -> Result<(), Status> {
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        return Err(Status::invalid_argument("audience must be specified"));
    }
    let distinct: BTreeSet<&String> = audiences.iter().collect();
    if distinct.len() > limits::AUDIENCES_MAX
        || audiences
            .iter()
            .any(|audience| audience.len() > limits::AUDIENCE_BYTES_MAX)
    {
        return Err(Status::invalid_argument("too many or too long audiences"));
    }
    Ok(())
}

fn wanted_id(text: &str) -> Result<Option<SpiffeId>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    SpiffeId::parse(text)
        .map(Some)
        .map_err(|error| Status::invalid_argument(format!("spiffe_id: {error}")))
}

fn chosen<'a>(view: &'a WorkloadView, wanted: Option<&SpiffeId>) -> Vec<&'a Identity> {
    view.identities
        .iter()
        .filter(|identity| wanted.is_none_or(|wanted| *wanted == identity.entry.spiffe_id))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn e_02_a_request_without_the_security_header_is_invalid() {
        let rows: [(&str, &[&str], bool); 5] = [
            ("missing", &[], false),
            ("right", &["true"], true),
            ("other case", &["True"], false),
            ("other value", &["1"], false),
            ("twice", &["true", "true"], false),
        ];
        for (name, values, is_ok) in rows {
            let mut request = Request::new(());
            for value in values {
                request
                    .metadata_mut()
                    .append(HEADER, value.parse().unwrap());
            }
            let code = check_header(&request).map_err(|status| status.code());
            let want = if is_ok {
                Ok(())
            } else {
                Err(Code::InvalidArgument)
            };
            assert_eq!(code, want, "{name}");
        }
    }

    #[test]
    fn a_10_an_audience_is_mandatory_and_bounded() {
        let many: Vec<String> = (0..=limits::AUDIENCES_MAX).map(|n| n.to_string()).collect();
        let long = vec!["x".repeat(limits::AUDIENCE_BYTES_MAX + 1)];
        for bad in [
            vec![],
            vec![String::new()],
            vec!["a".into(), String::new()],
            many,
            long,
        ] {
            assert_eq!(
                check_audiences(&bad).unwrap_err().code(),
                Code::InvalidArgument
            );
        }
        assert!(check_audiences(&["a".into(), "b".into()]).is_ok());
        assert_eq!(
            wanted_id("nonsense").unwrap_err().code(),
            Code::InvalidArgument
        );
    }
}
