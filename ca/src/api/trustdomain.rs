//! `spire.api.server.trustdomain.v1.TrustDomain`: federation relationships. None of it is here yet, each by its name.

use ravelin_proto::pb::spire::api::server::trustdomain::v1 as pb;
use ravelin_proto::pb::spire::api::server::trustdomain::v1::trust_domain_server::{
    TrustDomain, TrustDomainServer,
};
use ravelin_proto::pb::spire::api::types;
use tonic::{Request, Response, Status};

use super::status;

/// The service.
#[derive(Debug, Clone, Copy)]
pub struct TrustDomainService;

impl TrustDomainService {
    /// Knows nothing yet.
    pub fn server() -> TrustDomainServer<Self> {
        TrustDomainServer::new(Self)
    }
}

fn not_here<T>(method: &str) -> Result<T, Status> {
    Err(status::unimplemented(&format!(
        "spire.api.server.trustdomain.v1.TrustDomain/{method}"
    )))
}

#[tonic::async_trait]
impl TrustDomain for TrustDomainService {
    async fn list_federation_relationships(
        &self,
        _request: Request<pb::ListFederationRelationshipsRequest>,
    ) -> Result<Response<pb::ListFederationRelationshipsResponse>, Status> {
        not_here("ListFederationRelationships")
    }

    async fn get_federation_relationship(
        &self,
        _request: Request<pb::GetFederationRelationshipRequest>,
    ) -> Result<Response<types::FederationRelationship>, Status> {
        not_here("GetFederationRelationship")
    }

    async fn batch_create_federation_relationship(
        &self,
        _request: Request<pb::BatchCreateFederationRelationshipRequest>,
    ) -> Result<Response<pb::BatchCreateFederationRelationshipResponse>, Status> {
        not_here("BatchCreateFederationRelationship")
    }

    async fn batch_update_federation_relationship(
        &self,
        _request: Request<pb::BatchUpdateFederationRelationshipRequest>,
    ) -> Result<Response<pb::BatchUpdateFederationRelationshipResponse>, Status> {
        not_here("BatchUpdateFederationRelationship")
    }

    async fn batch_delete_federation_relationship(
        &self,
        _request: Request<pb::BatchDeleteFederationRelationshipRequest>,
    ) -> Result<Response<pb::BatchDeleteFederationRelationshipResponse>, Status> {
        not_here("BatchDeleteFederationRelationship")
    }

    async fn refresh_bundle(
        &self,
        _request: Request<pb::RefreshBundleRequest>,
    ) -> Result<Response<()>, Status> {
        not_here("RefreshBundle")
    }
}
