//! A real CA on ephemeral ports, and agents that speak to it by the generated clients.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test may fail loudly"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ravelin_ca::{CaConfig, CaError, RunningCa, start};
use ravelin_proto::bundle::Bundle;
use ravelin_proto::convert::{bundle_from_pb, id_to_pb};
use ravelin_proto::pb::ravelin::v1::admin_client::AdminClient;
use ravelin_proto::pb::ravelin::v1::rotation_client::RotationClient;
use ravelin_proto::pb::ravelin::v1::sync_client::SyncClient;
use ravelin_proto::pb::ravelin::v1::sync_request::{Ack, Hello, Step};
use ravelin_proto::pb::ravelin::v1::{SyncRequest, SyncResponse};
use ravelin_proto::pb::spire::api::server::agent::v1 as agent_pb;
use ravelin_proto::pb::spire::api::server::agent::v1::agent_client::AgentClient;
use ravelin_proto::pb::spire::api::server::bundle::v1::GetBundleRequest;
use ravelin_proto::pb::spire::api::server::bundle::v1::bundle_client::BundleClient;
use ravelin_proto::pb::spire::api::server::entry::v1::BatchCreateEntryRequest;
use ravelin_proto::pb::spire::api::server::entry::v1::entry_client::EntryClient;
use ravelin_proto::pb::spire::api::server::svid::v1 as svid_pb;
use ravelin_proto::pb::spire::api::server::svid::v1::svid_client::SvidClient;
use ravelin_proto::pb::spire::api::types;
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::time::Timestamp;
use ravelin_runtime::clock::{SharedClock, SystemClock, TestClock};
use ravelin_runtime::drain::Drain;
use ravelin_runtime::rpc::{RpcError, ServerAddress, connect};
use ravelin_runtime::tls::{Expect, Identity, X509Bundles, client_config};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Nothing in these tests takes longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    pub ca: Option<RunningCa>,
    pub drain: Drain,
    pub config: CaConfig,
    pub clock: SharedClock,
    folder: tempfile::TempDir,
}

pub fn trust_domain() -> TrustDomain {
    TrustDomain::parse("shop.example").unwrap()
}

pub fn id(path: &str) -> SpiffeId {
    SpiffeId::new(&trust_domain(), path).unwrap()
}

pub fn config(folder: &Path) -> CaConfig {
    let mut config = CaConfig::new(trust_domain(), folder.join("ca"));
    config.listen = ([127, 0, 0, 1], 0).into();
    config
}

impl World {
    pub async fn start() -> Self {
        Self::with(|_| {}, SystemClock::shared()).await
    }

    pub async fn at(clock: &TestClock) -> Self {
        Self::with(|_| {}, clock.shared()).await
    }

    pub async fn with(change: impl FnOnce(&mut CaConfig), clock: SharedClock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        change(&mut config);
        let drain = Drain::new();
        let ca = start(config.clone(), Arc::clone(&clock), drain.clone())
            .await
            .unwrap();
        Self {
            ca: Some(ca),
            drain,
            config,
            clock,
            folder,
        }
    }

    pub async fn stop(&mut self) {
        self.drain.start();
        if let Some(ca) = self.ca.take() {
            timeout(PATIENCE, ca.wait()).await.unwrap().unwrap();
        }
    }

    pub async fn try_start(&mut self) -> Result<(), CaError> {
        self.drain = Drain::new();
        let started = start(
            self.config.clone(),
            Arc::clone(&self.clock),
            self.drain.clone(),
        )
        .await?;
        self.ca = Some(started);
        Ok(())
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.try_start().await.unwrap();
    }

    fn running(&self) -> &RunningCa {
        self.ca.as_ref().unwrap()
    }

    pub async fn admin(&self) -> Channel {
        let address = ServerAddress::Unix(self.running().admin_socket().to_owned());
        connect(&address, None).await.unwrap()
    }

    /// The bundle as an administrator gets it.
    pub async fn bundle(&self) -> Bundle {
        let mut client = BundleClient::new(self.admin().await);
        let bundle = client
            .get_bundle(GetBundleRequest { output_mask: None })
            .await
            .unwrap();
        bundle_from_pb(bundle.into_inner()).unwrap()
    }

    /// A channel on TLS that shows this identity.
    pub async fn tls(&self, identity: Option<&Identity>) -> Channel {
        self.try_tls(identity).await.unwrap()
    }

    pub async fn try_tls(&self, identity: Option<&Identity>) -> Result<Channel, RpcError> {
        let bundle = self.bundle().await;
        let config = client_config(
            identity,
            Arc::new(bundles(&bundle)),
            Expect::OneOf(vec![id("/spire/server")]),
            &[b"h2"],
            Arc::clone(&self.clock),
        )
        .unwrap();
        let address =
            ServerAddress::parse(&format!("https://{}", self.running().tls_addr())).unwrap();
        connect(&address, Some(config)).await
    }

    pub async fn token(&self, alias: Option<&str>) -> String {
        let request = agent_pb::CreateJoinTokenRequest {
            ttl: 60,
            token: String::new(),
            agent_id: alias.map(|alias| id_to_pb(&id(alias))),
        };
        let mut client = AgentClient::new(self.admin().await);
        client
            .create_join_token(request)
            .await
            .unwrap()
            .into_inner()
            .value
    }

    pub async fn attest(&self, token: &str) -> Result<Identity, Status> {
        attest(self.tls(None).await, token).await
    }

    /// An attested agent that stands for the node `alias`.
    pub async fn agent(&self, alias: &str) -> Identity {
        self.attest(&self.token(Some(alias)).await).await.unwrap()
    }

    /// Creates an entry; returns its id.
    pub async fn entry(&self, entry: types::Entry) -> String {
        let mut client = EntryClient::new(self.admin().await);
        let request = BatchCreateEntryRequest {
            entries: vec![entry],
            output_mask: None,
        };
        let created = client
            .batch_create_entry(request)
            .await
            .unwrap()
            .into_inner();
        let result = created.results.into_iter().next().unwrap();
        assert_eq!(result.status.unwrap().code, 0);
        result.entry.unwrap().id
    }

    pub fn admin_api(channel: Channel) -> AdminClient<Channel> {
        AdminClient::new(channel)
    }

    pub fn rotation_api(channel: Channel) -> RotationClient<Channel> {
        RotationClient::new(channel)
    }
}

pub fn bundles(bundle: &Bundle) -> X509Bundles {
    let authorities: Vec<_> = bundle
        .x509_authorities
        .iter()
        .map(|authority| CertificateDer::from(authority.der.clone()))
        .collect();
    let mut bundles = X509Bundles::new();
    bundles.insert(bundle.trust_domain.clone(), &authorities);
    bundles
}

pub fn entry_of(path: &str, parent: &str) -> types::Entry {
    types::Entry {
        spiffe_id: Some(id_to_pb(&id(path))),
        parent_id: Some(id_to_pb(&id(parent))),
        selectors: vec![types::Selector {
            r#type: "unix".into(),
            value: "uid:1000".into(),
        }],
        dns_names: vec!["orders.test".into()],
        ..Default::default()
    }
}

pub fn request() -> (Vec<u8>, Vec<u8>) {
    let pair = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&pair)
        .unwrap();
    (csr.der().to_vec(), pair.serialize_der())
}

pub fn identity(svid: types::X509svid, key: &[u8]) -> Identity {
    Identity::from_der(&svid.cert_chain.concat(), key).unwrap()
}

pub async fn attest(channel: Channel, token: &str) -> Result<Identity, Status> {
    use agent_pb::attest_agent_request::{Params, Step as Request};
    use agent_pb::attest_agent_response::Step as Response;
    let (csr, key) = request();
    let params = Params {
        data: Some(types::AttestationData {
            r#type: "join_token".into(),
            payload: token.as_bytes().to_vec(),
        }),
        params: Some(agent_pb::AgentX509svidParams { csr }),
    };
    let request = agent_pb::AttestAgentRequest {
        step: Some(Request::Params(params)),
    };
    let mut client = AgentClient::new(channel);
    let mut answers = client
        .attest_agent(tokio_stream::iter([request]))
        .await?
        .into_inner();
    let answer = answers.message().await?.unwrap();
    let Some(Response::Result(result)) = answer.step else {
        panic!("no result");
    };
    Ok(identity(result.svid.unwrap(), &key))
}

pub async fn renew(channel: Channel) -> Result<Identity, Status> {
    let (csr, key) = request();
    let params = Some(agent_pb::AgentX509svidParams { csr });
    let request = agent_pb::RenewAgentRequest { params };
    let renewed = AgentClient::new(channel).renew_agent(request).await?;
    Ok(identity(renewed.into_inner().svid.unwrap(), &key))
}

/// One answer per entry: the SVID, or the code of its status.
pub async fn issue(
    channel: Channel,
    entries: &[&str],
) -> Result<Vec<Result<Identity, i32>>, Status> {
    let requests: Vec<_> = entries.iter().map(|_| request()).collect();
    let params = entries
        .iter()
        .zip(&requests)
        .map(|(entry, (csr, _))| svid_pb::NewX509svidParams {
            entry_id: (*entry).to_owned(),
            csr: csr.clone(),
        })
        .collect();
    let batch = svid_pb::BatchNewX509svidRequest { params };
    let answer = SvidClient::new(channel)
        .batch_new_x509svid(batch)
        .await?
        .into_inner();
    Ok(answer
        .results
        .into_iter()
        .zip(requests)
        .map(|(result, (_, key))| match result.svid {
            Some(svid) => Ok(identity(svid, &key)),
            None => Err(result.status.unwrap().code),
        })
        .collect())
}

/// An agent on the sync stream that says what it is told to say.
pub struct SyncAgent {
    requests: mpsc::Sender<SyncRequest>,
    answers: Streaming<SyncResponse>,
    pub ack: Ack,
    pub is_reissuing: bool,
    pub active: String,
}

impl SyncAgent {
    pub async fn open(channel: Channel) -> Self {
        let (requests, queue) = mpsc::channel(16);
        let hello = SyncRequest {
            step: Some(Step::Hello(Hello::default())),
        };
        requests.send(hello).await.unwrap();
        let answers = SyncClient::new(channel)
            .stream(ReceiverStream::new(queue))
            .await
            .unwrap();
        Self {
            requests,
            answers: answers.into_inner(),
            ack: Ack::default(),
            is_reissuing: false,
            active: String::new(),
        }
    }

    /// Takes one message into use, without acknowledging it.
    pub async fn take(&mut self) -> SyncResponse {
        let answer = timeout(PATIENCE, self.answers.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        self.ack.revision = answer.revision;
        if let Some(bundle) = &answer.bundle {
            self.ack.bundle_sequence = bundle.sequence_number;
        }
        if let Some(denylist) = &answer.denylist {
            self.ack.denylist_number = denylist.number;
        }
        if let Some(authorities) = &answer.authorities {
            self.is_reissuing = authorities.reissue;
            authorities
                .active_x509_authority_id
                .clone_into(&mut self.active);
        }
        answer
    }

    /// Whether the stream has been ended by the CA.
    pub async fn ended(&mut self) -> Option<Status> {
        loop {
            match timeout(PATIENCE, self.answers.message()).await.unwrap() {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }

    pub fn holds(&mut self, identity: &Identity) {
        let authority = identity.leaf().authority_id.clone().unwrap();
        self.ack.x509_svids_by_authority = [(authority, 1)].into();
    }

    pub async fn acknowledge(&self) {
        let request = SyncRequest {
            step: Some(Step::Ack(self.ack.clone())),
        };
        self.requests.send(request).await.unwrap();
    }
}

pub fn noon() -> TestClock {
    TestClock::new(Timestamp::from_unix_secs(1_800_000_000))
}
