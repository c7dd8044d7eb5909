//! Connections to the CA and to the agent, with one clear message when nobody answers.

use crate::arguments::Shared;
use crate::config;
use crate::exit::{Failure, chain};
use crate::limits;
use ravelin_proto::pb::JwtsvidRequest;
use ravelin_proto::pb::ravelin::v1::admin_client::AdminClient;
use ravelin_proto::pb::ravelin::v1::agent_admin_client::AgentAdminClient;
use ravelin_proto::pb::ravelin::v1::audit_client::AuditClient;
use ravelin_proto::pb::ravelin::v1::launch_client::LaunchClient;
use ravelin_proto::pb::ravelin::v1::mesh_client::MeshClient;
use ravelin_proto::pb::ravelin::v1::rotation_client::RotationClient;
use ravelin_proto::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ravelin_proto::pb::spire::api::server::agent::v1::agent_client::AgentClient;
use ravelin_proto::pb::spire::api::server::bundle::v1::bundle_client::BundleClient;
use ravelin_proto::pb::spire::api::server::entry::v1::entry_client::EntryClient;
use ravelin_proto::pb::spire::api::server::localauthority::v1::local_authority_client::LocalAuthorityClient;
use ravelin_proto::pb::spire::api::server::svid::v1::svid_client::SvidClient;
use ravelin_runtime::rpc::{self, ServerAddress};
use std::path::Path;
use std::time::Duration;
use tonic::Request;
use tonic::transport::Channel;

/// A channel to the CA, and the clients of its services.
#[derive(Clone)]
pub(crate) struct Ca {
    channel: Channel,
}

impl Ca {
    /// Connects to the CA that the options name.
    pub(crate) async fn connect(shared: &Shared) -> Result<Self, Failure> {
        Self::connect_to(&config::server_address(shared.server.as_deref())).await
    }

    /// Connects to the CA at an address.
    pub(crate) async fn connect_to(address: &str) -> Result<Self, Failure> {
        let parsed = ServerAddress::parse(address).map_err(|error| {
            Failure::usage(format!("`{address}` is not the address of a CA: {error}"))
        })?;
        let tls = if address.starts_with("unix:") {
            None
        } else {
            Some(crate::commands::svid::admin_tls().await?)
        };
        let channel = rpc::connect(&parsed, tls).await.map_err(|error| {
            Failure::unreachable(format!("the CA at `{address}` cannot be reached: {}", chain(&error)))
                .with_help("start one with `ravelin up` or `ravelin ca serve --config FILE`, or name it with --server")
        })?;
        Ok(Self { channel })
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    pub(crate) fn audit(&self) -> AuditClient<Channel> {
        AuditClient::new(self.channel.clone()).max_decoding_message_size(limits::ANSWER_BYTES_MAX)
    }

    pub(crate) fn mesh(&self) -> MeshClient<Channel> {
        MeshClient::new(self.channel.clone()).max_decoding_message_size(limits::ANSWER_BYTES_MAX)
    }

    pub(crate) fn rotation(&self) -> RotationClient<Channel> {
        RotationClient::new(self.channel.clone())
    }

    pub(crate) fn agents(&self) -> AgentClient<Channel> {
        AgentClient::new(self.channel.clone())
    }

    pub(crate) fn bundles(&self) -> BundleClient<Channel> {
        BundleClient::new(self.channel.clone())
    }

    pub(crate) fn entries(&self) -> EntryClient<Channel> {
        EntryClient::new(self.channel.clone()).max_decoding_message_size(limits::ANSWER_BYTES_MAX)
    }

    pub(crate) fn authorities(&self) -> LocalAuthorityClient<Channel> {
        LocalAuthorityClient::new(self.channel.clone())
    }

    pub(crate) fn svids(&self) -> SvidClient<Channel> {
        SvidClient::new(self.channel.clone())
    }
}

/// A channel to the agent's admin socket.
#[derive(Clone)]
pub(crate) struct AgentAdmin {
    channel: Channel,
}

impl AgentAdmin {
    /// Connects to the agent's admin socket.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, Failure> {
        let address = format!("unix:{}", socket.display());
        let parsed = ServerAddress::parse(&address).map_err(|error| {
            Failure::usage(format!(
                "`{address}` is not the address of an agent: {error}"
            ))
        })?;
        let channel = rpc::connect(&parsed, None).await.map_err(|error| {
            Failure::unreachable(format!("the agent at `{}` cannot be reached: {}", socket.display(), chain(&error))).with_help(
                "start one with `ravelin up` or `ravelin agent serve --config FILE`, or name its socket with --admin-socket",
            )
        })?;
        Ok(Self { channel })
    }

    pub(crate) fn status(&self) -> AgentAdminClient<Channel> {
        AgentAdminClient::new(self.channel.clone())
            .max_decoding_message_size(limits::ANSWER_BYTES_MAX)
    }

    pub(crate) fn launch(&self) -> LaunchClient<Channel> {
        LaunchClient::new(self.channel.clone())
    }
}

/// A request with the deadline of an ordinary administrative call.
pub(crate) fn ask<T>(message: T) -> Request<T> {
    ask_within(message, limits::CALL_DEADLINE)
}

/// A request with a deadline.
pub(crate) fn ask_within<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// A client of the Workload API.
pub(crate) type WorkloadApi = SpiffeWorkloadApiClient<Channel>;

/// Connects to the Workload API.
pub(crate) async fn workload_api(socket: &Path) -> Result<WorkloadApi, Failure> {
    let address = format!("unix:{}", socket.display());
    let parsed = ServerAddress::parse(&address).map_err(|error| {
        Failure::usage(format!("`{address}` is not a Workload API socket: {error}"))
    })?;
    let channel = rpc::connect(&parsed, None).await.map_err(|error| {
        Failure::unreachable(format!("the Workload API at `{}` cannot be reached: {}", socket.display(), chain(&error)))
            .with_help("start an agent with `ravelin up` or `ravelin agent serve --config FILE`, or name its socket with --socket")
    })?;
    Ok(SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(limits::ANSWER_BYTES_MAX))
}

/// A request with the header that the Workload API demands (SPIFFE_Workload_API 4).
pub(crate) fn ask_workload_api<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(
        "workload.spiffe.io",
        tonic::metadata::MetadataValue::from_static("true"),
    );
    request
}

/// A JWT-SVID of this process for one audience.
pub(crate) async fn fetch_jwt_svid(socket: &Path, audience: &str) -> Result<String, Failure> {
    let request = JwtsvidRequest {
        audience: vec![audience.to_owned()],
        spiffe_id: String::new(),
    };
    let mut request = ask_workload_api(request);
    request.set_timeout(limits::CALL_DEADLINE);
    let svids = workload_api(socket)
        .await?
        .fetch_jwtsvid(request)
        .await
        .map_err(|status| Failure::status("fetch a JWT-SVID", &status))?
        .into_inner()
        .svids;
    svids
        .into_iter()
        .next()
        .map(|svid| svid.svid)
        .ok_or_else(|| Failure::no("the Workload API gave no JWT-SVID"))
}
