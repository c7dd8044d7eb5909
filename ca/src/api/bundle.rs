//! `spire.api.server.bundle.v1.Bundle`: the trust bundle of this domain. Federation is not here yet.

use ravelin_proto::convert::bundle_to_pb;
use ravelin_proto::pb::spire::api::server::bundle::v1 as pb;
use ravelin_proto::pb::spire::api::server::bundle::v1::bundle_server::{Bundle, BundleServer};
use ravelin_proto::pb::spire::api::types;
use tonic::{Request, Response, Status};

use super::status;
use crate::hub::Hub;

/// The service.
#[derive(Debug, Clone)]
pub struct BundleService {
    hub: Hub,
}

impl BundleService {
    /// Over the bundle that the hub publishes.
    pub fn server(hub: Hub) -> BundleServer<Self> {
        BundleServer::new(Self { hub })
    }
}

fn not_here<T>(method: &str) -> Result<T, Status> {
    Err(status::unimplemented(&format!(
        "spire.api.server.bundle.v1.Bundle/{method}"
    )))
}

#[tonic::async_trait]
impl Bundle for BundleService {
    async fn count_bundles(
        &self,
        _request: Request<pb::CountBundlesRequest>,
    ) -> Result<Response<pb::CountBundlesResponse>, Status> {
        Ok(Response::new(pb::CountBundlesResponse { count: 1 }))
    }

    async fn get_bundle(
        &self,
        request: Request<pb::GetBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let mut bundle = bundle_to_pb(&self.hub.bundle());
        if let Some(mask) = request.into_inner().output_mask {
            if !mask.x509_authorities {
                bundle.x509_authorities.clear();
            }
            if !mask.jwt_authorities {
                bundle.jwt_authorities.clear();
            }
            if !mask.refresh_hint {
                bundle.refresh_hint = 0;
            }
            if !mask.sequence_number {
                bundle.sequence_number = 0;
            }
        }
        Ok(Response::new(bundle))
    }

    async fn append_bundle(
        &self,
        _request: Request<pb::AppendBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        not_here("AppendBundle")
    }

    async fn publish_jwt_authority(
        &self,
        _request: Request<pb::PublishJwtAuthorityRequest>,
    ) -> Result<Response<pb::PublishJwtAuthorityResponse>, Status> {
        not_here("PublishJWTAuthority")
    }

    async fn publish_wit_authority(
        &self,
        _request: Request<pb::PublishWitAuthorityRequest>,
    ) -> Result<Response<pb::PublishWitAuthorityResponse>, Status> {
        not_here("PublishWITAuthority")
    }

    async fn list_federated_bundles(
        &self,
        _request: Request<pb::ListFederatedBundlesRequest>,
    ) -> Result<Response<pb::ListFederatedBundlesResponse>, Status> {
        not_here("ListFederatedBundles")
    }

    async fn get_federated_bundle(
        &self,
        _request: Request<pb::GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        not_here("GetFederatedBundle")
    }

    async fn batch_create_federated_bundle(
        &self,
        _request: Request<pb::BatchCreateFederatedBundleRequest>,
    ) -> Result<Response<pb::BatchCreateFederatedBundleResponse>, Status> {
        not_here("BatchCreateFederatedBundle")
    }

    async fn batch_update_federated_bundle(
        &self,
        _request: Request<pb::BatchUpdateFederatedBundleRequest>,
    ) -> Result<Response<pb::BatchUpdateFederatedBundleResponse>, Status> {
        not_here("BatchUpdateFederatedBundle")
    }

    async fn batch_set_federated_bundle(
        &self,
        _request: Request<pb::BatchSetFederatedBundleRequest>,
    ) -> Result<Response<pb::BatchSetFederatedBundleResponse>, Status> {
        not_here("BatchSetFederatedBundle")
    }

    async fn batch_delete_federated_bundle(
        &self,
        _request: Request<pb::BatchDeleteFederatedBundleRequest>,
    ) -> Result<Response<pb::BatchDeleteFederatedBundleResponse>, Status> {
        not_here("BatchDeleteFederatedBundle")
    }
}
