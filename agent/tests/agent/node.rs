//! An agent on a folder of its own, and what to ask it.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use ravelin_agent::{AgentConfig, AgentError, RunningAgent};
use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::pb::ravelin::v1::agent_admin_client::AgentAdminClient;
use ravelin_proto::pb::ravelin::v1::*;
use ravelin_proto::selector::Selector;
use ravelin_runtime::clock::SystemClock;
use ravelin_runtime::drain::Drain;
use ravelin_runtime::rpc::{self, ServerAddress};
use ravelin_runtime::workload_client::{WorkloadClient, WorkloadError, X509Update};
use tonic::transport::Channel;

use crate::fake_ca::{FakeCa, Shared};

pub const WAIT: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, what).await.expect("in time")
}

pub struct Node {
    pub folder: tempfile::TempDir,
    running: Option<(tokio::task::JoinHandle<Result<(), AgentError>>, Drain)>,
}

impl Node {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            running: None,
        }
    }

    pub fn config(&self, ca: &FakeCa, token: Option<&str>) -> AgentConfig {
        let folder = self.folder.path();
        let mut lines = format!(
            "trust_domain = \"{}\"\nserver = \"https://{}\"\n",
            ca.shared.td, ca.addr
        );
        let bundle = ca.shared.write_bundle(folder);
        for (key, path) in [
            ("data_dir", folder.join("data")),
            ("trust_bundle", bundle),
            ("socket", folder.join("agent.sock")),
            ("admin_socket", folder.join("admin.sock")),
        ] {
            lines += &format!("{key} = {path:?}\n");
        }
        if let Some(token) = token {
            std::fs::write(folder.join("token"), format!("{token}\n")).unwrap();
            lines += &format!("join_token_file = {:?}\n", folder.join("token"));
        }
        let file = folder.join("agent.toml");
        std::fs::write(&file, lines).unwrap();
        AgentConfig::load(&file).unwrap()
    }

    pub async fn start(&mut self, config: AgentConfig) {
        let drain = Drain::new();
        let agent: RunningAgent =
            ravelin_agent::start(config, SystemClock::shared(), drain.clone())
                .await
                .unwrap();
        self.running = Some((tokio::spawn(agent.wait()), drain));
    }

    pub async fn stop(&mut self) {
        let (task, drain) = self.running.take().unwrap();
        drain.start();
        soon(task).await.unwrap().unwrap();
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub async fn workload(&self) -> WorkloadClient {
        WorkloadClient::connect(self.path("agent.sock"))
            .await
            .unwrap()
    }

    pub async fn svids(&self) -> Updates {
        Box::pin(self.workload().await.x509_svids().await.unwrap())
    }

    pub async fn channel(&self, name: &str) -> Channel {
        rpc::connect(&ServerAddress::Unix(self.path(name)), None)
            .await
            .unwrap()
    }

    pub async fn status(&self) -> AgentAdminStatus {
        let mut admin = AgentAdminClient::new(self.channel("admin.sock").await);
        admin
            .get_status(AgentAdminStatusRequest {})
            .await
            .unwrap()
            .into_inner()
    }
}

pub type Updates = Pin<Box<dyn Stream<Item = Result<X509Update, WorkloadError>> + Send>>;

/// The first update that is as wanted.
pub async fn until(updates: &mut Updates, is_wanted: impl Fn(&X509Update) -> bool) -> X509Update {
    soon(async {
        loop {
            let update = updates.next().await.unwrap().unwrap();
            if is_wanted(&update) {
                return update;
            }
        }
    })
    .await
}

pub async fn acked(
    shared: &Shared,
    is_wanted: impl FnMut(&sync_request::Ack) -> bool,
) -> sync_request::Ack {
    let mut acks = shared.acks.subscribe();
    soon(acks.wait_for(is_wanted)).await.unwrap().clone()
}

pub fn own_uid() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap())
}

pub fn entry(shared: &Shared, name: &str, selectors: &[&str]) -> RegistrationEntry {
    let selectors = selectors
        .iter()
        .map(|text| Selector::parse(text).unwrap())
        .collect();
    RegistrationEntry::new(
        name,
        shared.id(&format!("/{name}")),
        shared.id("/node/local"),
        selectors,
    )
}

pub fn by_uid(shared: &Shared, name: &str) -> RegistrationEntry {
    entry(shared, name, &[&format!("unix:uid:{}", own_uid())])
}

pub fn id_of(update: &X509Update) -> &str {
    update.svids[0].identity.id.as_str()
}

pub fn authority_of(update: &X509Update) -> String {
    update.svids[0]
        .identity
        .leaf()
        .authority_id
        .clone()
        .unwrap()
}
