//! Brings the parts up in the order in which they need one another, and ends them in the reverse order.

use super::folder::UpFolder;
use super::part::{Part, PartSpec};
use super::plan::{Service, UpPlan};
use crate::commands::bundle;
use crate::commands::mesh::publish;
use crate::commands::token::spiffe_id_message;
use crate::connection::{AgentAdmin, Ca, ask};
use crate::exit::Failure;
use crate::launch::Registrar;
use crate::limits;
use crate::output::now;
use ravelin_proto::pb::ravelin::v1::{
    AgentAdminStatus, AgentAdminStatusRequest, ApplyRequest, HealthRequest, MeshFile,
};
use ravelin_proto::pb::spire::api::server::agent::v1::{CreateJoinTokenRequest, ListAgentsRequest};
use ravelin_proto::pb::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, ListEntriesRequest, list_entries_request,
};
use ravelin_proto::pb::spire::api::types::{Entry, Selector};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_runtime::drain::Drain;
use ravelin_runtime::durable;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Parts that are ended together.
#[derive(Default)]
struct Stage {
    drain: Drain,
    tasks: Vec<JoinHandle<()>>,
}

impl Stage {
    fn supervise(&mut self, part: Part) {
        self.tasks.push(part.supervise(self.drain.clone()));
    }

    async fn end(&mut self) {
        self.drain.start();
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
    }
}

/// A mesh that runs, or is on its way.
pub(crate) struct RunningMesh {
    folder: UpFolder,
    plan: UpPlan,
    revision: u64,
    ca: Stage,
    agent: Stage,
    proxies: Stage,
    workloads: Stage,
}

impl RunningMesh {
    /// Nothing runs yet.
    pub(crate) fn new(folder: UpFolder, plan: UpPlan) -> Self {
        Self {
            folder,
            plan,
            revision: 0,
            ca: Stage::default(),
            agent: Stage::default(),
            proxies: Stage::default(),
            workloads: Stage::default(),
        }
    }

    /// Starts everything, and returns when calls can go through.
    pub(crate) async fn start(
        &mut self,
        files: Vec<MeshFile>,
        git_commit: String,
    ) -> Result<(), Failure> {
        let ca = self.start_ca().await?;
        self.revision = apply(&ca, files, git_commit).await?;
        create_user_entry(&ca, &self.plan).await?;
        self.write_bootstrap(&ca).await?;
        let agent = self.start_agent().await?;
        let registrar = Registrar::start(self.folder.agent_admin_socket());
        let mut parts = Vec::new();
        for service in &self.plan.services {
            let workload =
                Part::start(self.workload_spec(service), Some(registrar.clone())).await?;
            let proxy = Part::start(self.proxy_spec(service), Some(registrar.clone())).await?;
            parts.push((service.clone(), workload, proxy));
        }
        for (service, mut workload, mut proxy) in parts {
            ready(&mut workload, "it does not listen", || listens(service.app)).await?;
            ready(
                &mut proxy,
                "it has not taken identity and policy into use",
                || self.proxy_is_ready(&agent, &service),
            )
            .await?;
            self.workloads.supervise(workload);
            self.proxies.supervise(proxy);
        }
        Ok(())
    }

    /// Ends everything in order.
    pub(crate) async fn end(&mut self) {
        self.workloads.end().await;
        self.proxies.end().await;
        self.agent.end().await;
        self.ca.end().await;
    }

    /// The mesh revision that is in force since the start.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// What runs.
    pub(crate) fn plan(&self) -> &UpPlan {
        &self.plan
    }

    /// Where its state is.
    pub(crate) fn folder(&self) -> &UpFolder {
        &self.folder
    }

    /// A connection to the CA.
    pub(crate) async fn connect_ca(&self) -> Result<Ca, Failure> {
        Ca::connect_to(&format!("unix:{}", self.folder.ca_admin_socket().display())).await
    }

    /// What the agent says of itself.
    pub(crate) async fn agent_status(&self) -> Result<AgentAdminStatus, Failure> {
        let agent = AgentAdmin::connect(&self.folder.agent_admin_socket()).await?;
        agent_status(&agent).await
    }

    async fn start_ca(&mut self) -> Result<Ca, Failure> {
        let spec = self.serve_spec("ca", "ca", &self.folder.ca_config(), None);
        let mut part = Part::start(spec, None).await?;
        ready(&mut part, "its admin socket does not answer", || {
            self.ca_is_ready()
        })
        .await?;
        self.ca.supervise(part);
        self.connect_ca().await
    }

    async fn ca_is_ready(&self) -> bool {
        let Ok(ca) = self.connect_ca().await else {
            return false;
        };
        let health = ca.admin().get_health(ask(HealthRequest {})).await;
        health.is_ok_and(|health| health.get_ref().is_ready)
    }

    async fn write_bootstrap(&self, ca: &Ca) -> Result<(), Failure> {
        let bundle = bundle::pem(&bundle::get(ca).await?);
        let path = self.folder.bundle();
        durable::write_atomically(&path, bundle.as_bytes(), 0o644)
            .map_err(|error| Failure::file("write", &path, error))?;
        if self.is_attested(ca).await? {
            return Ok(());
        }
        let request = CreateJoinTokenRequest {
            ttl: limits::JOIN_TOKEN_LIFE_SECS,
            token: String::new(),
            agent_id: Some(spiffe_id_message(&self.plan.node_id)),
        };
        let token = ca
            .agents()
            .create_join_token(ask(request))
            .await
            .map_err(|status| Failure::status("create a join token", &status))?
            .into_inner()
            .value;
        let path = self.folder.join_token();
        durable::write_atomically(&path, token.as_bytes(), 0o600)
            .map_err(|error| Failure::file("write", &path, error))
    }

    /// True when the agent of this folder can go on with the SVID that it has.
    async fn is_attested(&self, ca: &Ca) -> Result<bool, Failure> {
        let has_state = std::fs::read_dir(self.folder.agent_data())
            .is_ok_and(|mut entries| entries.next().is_some());
        if !has_state {
            return Ok(false);
        }
        let agents = ca
            .agents()
            .list_agents(ask(ListAgentsRequest::default()))
            .await
            .map_err(|status| Failure::status("look for this machine's agent", &status))?
            .into_inner()
            .agents;
        let needed_until = now().plus(limits::AGENT_SVID_LEFT_MIN).unix_secs();
        Ok(agents
            .iter()
            .any(|agent| !agent.banned && agent.x509svid_expires_at > needed_until))
    }

    async fn start_agent(&mut self) -> Result<AgentAdmin, Failure> {
        let spec = self.serve_spec("agent", "agent", &self.folder.agent_config(), None);
        let mut part = Part::start(spec, None).await?;
        ready(&mut part, "it has not synchronised with the CA", || {
            self.agent_is_ready()
        })
        .await?;
        self.agent.supervise(part);
        AgentAdmin::connect(&self.folder.agent_admin_socket()).await
    }

    async fn agent_is_ready(&self) -> bool {
        let status = self.agent_status().await;
        status.is_ok_and(|status| status.is_synced && status.mesh_revision >= self.revision)
    }

    async fn proxy_is_ready(&self, agent: &AgentAdmin, service: &Service) -> bool {
        let Ok(status) = agent_status(agent).await else {
            return false;
        };
        let is_acknowledged = status.proxies.iter().any(|proxy| {
            proxy.name == service.name
                && proxy.refusal.is_empty()
                && proxy.mesh_revision >= self.revision
        });
        is_acknowledged && listens(service.inbound).await && listens(service.outbound).await
    }

    fn workload_spec(&self, service: &Service) -> PartSpec {
        let socket = format!("unix://{}", self.folder.agent_socket().display());
        PartSpec {
            name: format!("workload {}", service.name),
            command: service.command.clone(),
            environment: vec![
                ("SPIFFE_ENDPOINT_SOCKET".to_owned(), socket),
                (
                    "http_proxy".to_owned(),
                    format!("http://{}", service.outbound),
                ),
            ],
            log: self.folder.log(&format!("workload {}", service.name)),
            launch_name: Some(service.name.clone()),
        }
    }

    fn proxy_spec(&self, service: &Service) -> PartSpec {
        let config = self.folder.proxy_config(&service.name);
        let name = format!("proxy {}", service.name);
        self.serve_spec(&name, "proxy", &config, Some(&service.name))
    }

    /// `ravelin NOUN serve` with one of the configuration files, as a part that ends with this process.
    fn serve_spec(
        &self,
        name: &str,
        noun: &str,
        config: &Path,
        launch_name: Option<&str>,
    ) -> PartSpec {
        let config = config.display().to_string();
        let command = [
            "ravelin",
            noun,
            "serve",
            "--exit-with-parent",
            "--config",
            &config,
        ]
        .map(ToOwned::to_owned);
        PartSpec {
            name: name.to_owned(),
            command: command.to_vec(),
            environment: Vec::new(),
            log: self.folder.log(name),
            launch_name: launch_name.map(ToOwned::to_owned),
        }
    }
}

async fn agent_status(agent: &AgentAdmin) -> Result<AgentAdminStatus, Failure> {
    Ok(agent
        .status()
        .get_status(ask(AgentAdminStatusRequest {}))
        .await
        .map_err(|status| Failure::status("ask the agent for its status", &status))?
        .into_inner())
}

/// Looks until a part is ready, has ended, or the deadline has passed.
async fn ready<F, Look>(part: &mut Part, what: &str, mut look: F) -> Result<(), Failure>
where
    F: FnMut() -> Look,
    Look: Future<Output = bool>,
{
    let deadline = tokio::time::Instant::now() + limits::PART_READY_DEADLINE;
    loop {
        if let Some(failure) = part.early_end() {
            return Err(failure);
        }
        let is_ready = tokio::time::timeout_at(deadline, look())
            .await
            .unwrap_or(false);
        if is_ready {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(part.not_ready(what));
        }
        tokio::time::sleep(limits::READY_POLL).await;
    }
}

async fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

async fn apply(ca: &Ca, files: Vec<MeshFile>, git_commit: String) -> Result<u64, Failure> {
    let request = ApplyRequest {
        files,
        git_commit,
        base_revision: 0,
        wait: false,
    };
    Ok(publish(ca, request).await?.revision)
}

/// The identity of the person's own shell, so that `ravelin svid fetch` works in a second terminal.
async fn create_user_entry(ca: &Ca, plan: &UpPlan) -> Result<(), Failure> {
    let uid = rustix::process::getuid().as_raw();
    let path = format!("/ns/default/user/{}", user_name(uid));
    let id = SpiffeId::new(&plan.trust_domain, &path).map_err(|error| {
        Failure::usage(format!("cannot make an identity for this user: {error}"))
    })?;
    let filter = list_entries_request::Filter {
        by_spiffe_id: Some(spiffe_id_message(&id)),
        by_parent_id: Some(spiffe_id_message(&plan.node_id)),
        ..list_entries_request::Filter::default()
    };
    let request = ListEntriesRequest {
        filter: Some(filter),
        ..ListEntriesRequest::default()
    };
    let known = ca
        .entries()
        .list_entries(ask(request))
        .await
        .map_err(|status| Failure::status("look for this user's entry", &status))?;
    if !known.get_ref().entries.is_empty() {
        return Ok(());
    }
    let selector = |kind: &str, value: String| Selector {
        r#type: kind.to_owned(),
        value,
    };
    let entry = Entry {
        spiffe_id: Some(spiffe_id_message(&id)),
        parent_id: Some(spiffe_id_message(&plan.node_id)),
        selectors: vec![
            selector("unix", format!("uid:{uid}")),
            selector("launch", "none".to_owned()),
        ],
        ..Entry::default()
    };
    let request = BatchCreateEntryRequest {
        entries: vec![entry],
        output_mask: None,
    };
    let results = ca
        .entries()
        .batch_create_entry(ask(request))
        .await
        .map_err(|status| Failure::status("create this user's entry", &status))?
        .into_inner()
        .results;
    for result in results {
        crate::commands::entries::check("create this user's entry", result.status.as_ref())?;
    }
    Ok(())
}

/// The user's name where it may stand in a SPIFFE ID, else its number.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let by_number = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    };
    let is_segment = |name: &String| {
        !name.is_empty()
            && name
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || "._-".contains(character))
            && name != "."
            && name != ".."
    };
    passwd
        .lines()
        .find_map(by_number)
        .filter(is_segment)
        .unwrap_or_else(|| format!("uid-{uid}"))
}
