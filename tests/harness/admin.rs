//! What an administrator does, over the CA's private socket: entries, tokens, mesh, rotation, revocation, audit.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ravelin_proto::pb::ravelin::v1::admin_client::AdminClient;
use ravelin_proto::pb::ravelin::v1::agent_admin_client::AgentAdminClient;
use ravelin_proto::pb::ravelin::v1::audit_client::AuditClient;
use ravelin_proto::pb::ravelin::v1::mesh_client::MeshClient;
use ravelin_proto::pb::ravelin::v1::rotation_client::RotationClient;
use ravelin_proto::pb::ravelin::v1::rotation_progress::Step;
use ravelin_proto::pb::ravelin::v1::{
    AgentAdminStatus, AgentAdminStatusRequest, ApplyRequest, AuditQuery, AuditRecord,
    AuthorityKind, Diagnostic, MeshFile, RevokeRequest, RotateRequest, RotationProgress,
    revoke_request,
};
use ravelin_proto::pb::spire::api::server::agent::v1::CreateJoinTokenRequest;
use ravelin_proto::pb::spire::api::server::agent::v1::agent_client::AgentClient;
use ravelin_proto::pb::spire::api::server::bundle::v1::GetBundleRequest;
use ravelin_proto::pb::spire::api::server::bundle::v1::bundle_client::BundleClient;
use ravelin_proto::pb::spire::api::server::entry::v1::entry_client::EntryClient;
use ravelin_proto::pb::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest,
};
use ravelin_proto::pb::spire::api::types::{Bundle, Entry, Selector, Spiffeid};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_runtime::rpc::{ServerAddress, connect};
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use crate::wait::{CYCLE, within};

/// A connection to a CA's admin socket. Copies share it.
#[derive(Debug, Clone)]
pub struct CaAdmin {
    channel: Channel,
}

/// How publishing a mesh folder ended.
#[derive(Debug, Clone)]
pub enum Applied {
    /// As this revision.
    Published(u64),
    /// It has errors; nothing changed.
    Refused(Vec<Diagnostic>),
}

impl CaAdmin {
    /// Connects to the socket.
    pub async fn connect(socket: &Path) -> Option<Self> {
        let channel = connect(&ServerAddress::Unix(socket.to_owned()), None)
            .await
            .ok()?;
        Some(Self { channel })
    }

    /// The connection, for clients that are not named here.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Entries.
    pub fn entries(&self) -> EntryClient<Channel> {
        EntryClient::new(self.channel())
    }

    /// Agents and join tokens.
    pub fn agents(&self) -> AgentClient<Channel> {
        AgentClient::new(self.channel())
    }

    /// Health, revocation.
    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel())
    }

    /// Rotation.
    pub fn rotation(&self) -> RotationClient<Channel> {
        RotationClient::new(self.channel())
    }

    /// The audit log.
    pub fn audit(&self) -> AuditClient<Channel> {
        AuditClient::new(self.channel())
    }

    /// The mesh folder.
    pub fn mesh(&self) -> MeshClient<Channel> {
        MeshClient::new(self.channel())
    }

    /// A join token for an agent that is to have `agent_id` beside its own ID.
    pub async fn join_token(&self, agent_id: &str) -> String {
        let request = CreateJoinTokenRequest {
            ttl: 600,
            token: String::new(),
            agent_id: Some(id_message(agent_id)),
        };
        let answer = self.agents().create_join_token(request).await.unwrap();
        answer.into_inner().value
    }

    /// The trust bundle.
    pub async fn bundle(&self) -> Bundle {
        let request = GetBundleRequest { output_mask: None };
        let answer = BundleClient::new(self.channel()).get_bundle(request).await;
        answer.unwrap().into_inner()
    }

    /// The X.509 authorities as PEM: what an agent's `trust_bundle` holds.
    pub async fn bundle_pem(&self) -> String {
        let authorities = self.bundle().await.x509_authorities;
        authorities
            .iter()
            .map(|authority| certificate_pem(&authority.asn1))
            .collect()
    }

    /// Creates an entry and gives its id.
    pub async fn create_entry(&self, id: &str, parent: &str, selectors: &[&str]) -> String {
        let created = self.try_create_entry(id, parent, selectors).await;
        created.unwrap_or_else(|why| panic!("`{id}` was not created: {why}"))
    }

    /// Creates an entry; the CA's words when it does not.
    pub async fn try_create_entry(
        &self,
        id: &str,
        parent: &str,
        selectors: &[&str],
    ) -> Result<String, String> {
        let entry = Entry {
            spiffe_id: Some(id_message(id)),
            parent_id: Some(id_message(parent)),
            selectors: selectors.iter().map(|text| selector(text)).collect(),
            ..Entry::default()
        };
        let request = BatchCreateEntryRequest {
            entries: vec![entry],
            output_mask: None,
        };
        let answer = self.entries().batch_create_entry(request).await;
        let answer = answer.map_err(|status| status.to_string())?.into_inner();
        let result = answer.results.into_iter().next().unwrap();
        let status = result.status.unwrap_or_default();
        match result.entry {
            Some(entry) if status.code == 0 => Ok(entry.id),
            _ => Err(format!("{} {}", status.code, status.message)),
        }
    }

    /// Deletes an entry.
    pub async fn delete_entry(&self, id: &str) {
        let request = BatchDeleteEntryRequest {
            ids: vec![id.to_owned()],
        };
        let answer = self.entries().batch_delete_entry(request).await.unwrap();
        let status = answer.into_inner().results[0].status.clone();
        assert_eq!(status.unwrap_or_default().code, 0, "`{id}` was not deleted");
    }

    /// Publishes a mesh folder. `wait`: until every live agent and proxy has taken it.
    pub async fn apply(&self, files: Vec<MeshFile>, wait: bool) -> Applied {
        let request = ApplyRequest {
            files,
            git_commit: String::new(),
            base_revision: 0,
            wait,
        };
        let applying = async {
            let mut stream = self.mesh().apply(request).await.unwrap().into_inner();
            let mut revision = 0;
            while let Some(progress) = stream.next().await {
                let progress = progress.unwrap();
                if progress.diagnostics.iter().any(|found| found.is_error) {
                    return Applied::Refused(progress.diagnostics);
                }
                revision = progress.revision;
            }
            Applied::Published(revision)
        };
        within("apply a mesh folder", CYCLE, applying).await
    }

    /// As [`CaAdmin::apply`], for a folder that has no error.
    pub async fn publish(&self, files: Vec<MeshFile>) -> u64 {
        match self.apply(files, true).await {
            Applied::Published(revision) => revision,
            Applied::Refused(found) => panic!("the mesh folder was refused: {found:#?}"),
        }
    }

    /// Rotates an authority to the end, and gives the last report.
    pub async fn rotate(&self, kind: AuthorityKind, revoke_old: bool) -> RotationProgress {
        let request = RotateRequest {
            kind: kind.into(),
            revoke_old,
        };
        let rotating = async {
            let mut stream = self.rotation().rotate(request).await.unwrap().into_inner();
            while let Some(progress) = stream.next().await {
                let progress = progress.unwrap();
                let step = progress.step();
                assert!(step != Step::Failed, "the rotation failed: {progress:?}");
                if step == Step::Done {
                    return progress;
                }
            }
            panic!("the rotation's stream ended before it was done");
        };
        within("rotate an authority", CYCLE, rotating).await
    }

    /// Puts a SPIFFE ID on the deny-list.
    pub async fn revoke(&self, id: &str) {
        let request = RevokeRequest {
            subject: Some(revoke_request::Subject::SpiffeId(id.to_owned())),
            reason: "a test".to_owned(),
        };
        self.admin().revoke(request).await.unwrap();
    }

    /// Records of the logs.
    pub async fn query(&self, query: AuditQuery) -> Vec<AuditRecord> {
        let asking = async {
            let stream = self.audit().query(query).await.unwrap().into_inner();
            stream.map(Result::unwrap).collect().await
        };
        within("query the audit log", Duration::from_secs(30), asking).await
    }
}

/// What an agent says of itself on its admin socket; `None` while it does not answer.
pub async fn agent_status(socket: &Path) -> Option<AgentAdminStatus> {
    let channel = connect(&ServerAddress::Unix(socket.to_owned()), None)
        .await
        .ok()?;
    let mut client = AgentAdminClient::new(channel);
    let answer = client.get_status(AgentAdminStatusRequest {}).await.ok()?;
    Some(answer.into_inner())
}

/// A SPIFFE ID as SPIRE's API carries it.
pub fn id_message(id: &str) -> Spiffeid {
    let id = SpiffeId::parse(id).unwrap();
    Spiffeid {
        trust_domain: id.trust_domain().as_str().to_owned(),
        path: id.path().to_owned(),
    }
}

fn selector(text: &str) -> Selector {
    let (kind, value) = text.split_once(':').unwrap();
    Selector {
        r#type: kind.to_owned(),
        value: value.to_owned(),
    }
}

/// One certificate in PEM.
pub fn certificate_pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for start in (0..text.len()).step_by(64) {
        pem.push_str(&text[start..text.len().min(start + 64)]);
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
