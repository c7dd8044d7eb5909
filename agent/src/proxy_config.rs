//! The proxies' stream: mesh revision, deny-list, bundles and the proxy's own SVID down; what is in
//! use and what was decided up. A proxy is an attested process like any other.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream;
use ravelin_proto::bundle::{Bundle, JwksContent};
use ravelin_proto::pb::ravelin::v1::proxy_config_server::ProxyConfig;
use ravelin_proto::pb::ravelin::v1::{
    DecisionBatch, ProxyHello, ProxyRequest, ProxySnapshot, ProxySvid, proxy_request,
};
use ravelin_proto::spiffe_id::SpiffeId;
use tonic::{Request, Response, Status, Streaming};

use crate::cache::{Identity, WorkloadView};
use crate::decisions::DecisionQueue;
use crate::limits;
use crate::proxies::ProxyId;
use crate::state::State;
use crate::workload_api::Responses;
use crate::workload_api::session::{Gate, Session, peer_of};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct ProxyConfigApi {
    /// Lets processes in.
    pub gate: Gate,
    /// Takes decisions.
    pub decisions: Arc<DecisionQueue>,
}

/// A proxy's place in the table, given back when its stream ends.
struct Attached {
    state: Arc<State>,
    id: ProxyId,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.state.detach_proxy(self.id);
    }
}

struct Feed {
    session: Session,
    inbound: Streaming<ProxyRequest>,
    decisions: Arc<DecisionQueue>,
    opened: Option<Opened>,
}

/// What is known once `hello` has come.
struct Opened {
    spiffe_id: SpiffeId,
    attached: Attached,
    mesh_acknowledged: u64,
    mesh_seen: u64,
    /// The last snapshot without its mesh revision.
    sent: Option<ProxySnapshot>,
}

#[tonic::async_trait]
impl ProxyConfig for ProxyConfigApi {
    type StreamStream = Responses<ProxySnapshot>;

    async fn stream(
        &self,
        request: Request<Streaming<ProxyRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let peer = peer_of(&request);
        let feed = Feed {
            session: self.gate.enter(peer).await?,
            inbound: request.into_inner(),
            decisions: Arc::clone(&self.decisions),
            opened: None,
        };
        let answers = stream::unfold(Some(feed), |feed| async move {
            let mut feed = feed?;
            match feed.next().await {
                Ok(Some(snapshot)) => Some((Ok(snapshot), Some(feed))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

impl Feed {
    /// The next snapshot; `None` when the proxy has closed its side.
    async fn next(&mut self) -> Result<Option<ProxySnapshot>, Status> {
        if self.opened.is_none() {
            match self.hello().await? {
                Some(hello) => self.open(&hello).await?,
                None => return Ok(None),
            }
        }
        loop {
            let is_later = self
                .opened
                .as_ref()
                .is_some_and(|opened| opened.sent.is_some());
            if let Some(snapshot) = self.due()? {
                // The identity may be gone with the new facts; then the stream ends here.
                if is_later && self.session.confirm().await? {
                    let Some(newer) = self.due()? else {
                        return Ok(Some(snapshot));
                    };
                    let mesh = newer.mesh.or(snapshot.mesh);
                    return Ok(Some(ProxySnapshot { mesh, ..newer }));
                }
                return Ok(Some(snapshot));
            }
            // Cancel-safe: `message` keeps what it has read, `changed` makes up for what it owes.
            tokio::select! {
                message = self.inbound.message() => match message? {
                    Some(request) => self.take(request)?,
                    None => return Ok(None),
                },
                changed = self.session.changed() => changed?,
            }
        }
    }

    async fn hello(&mut self) -> Result<Option<ProxyHello>, Status> {
        let first = tokio::time::timeout(limits::FIRST_RESPONSE_WAIT, self.inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no `hello` in time"))??;
        let Some(first) = first else {
            return Ok(None);
        };
        match first.step {
            Some(proxy_request::Step::Hello(hello)) => Ok(Some(hello)),
            Some(proxy_request::Step::Ack(_) | proxy_request::Step::Decisions(_)) | None => {
                Err(Status::invalid_argument("the first message is `hello`"))
            }
        }
    }

    async fn open(&mut self, hello: &ProxyHello) -> Result<(), Status> {
        if self.session.view().bundle.is_none() {
            return Err(Status::unavailable("the agent has no trust bundle yet"));
        }
        self.session.settle().await?;
        let view = self.session.view();
        let gate = self.session.gate();
        let identity = view
            .identities
            .iter()
            .find(|identity| {
                hello.spiffe_id.is_empty() || hello.spiffe_id == identity.entry.spiffe_id.as_str()
            })
            .ok_or_else(|| gate.deny())?;
        let spiffe_id = identity.entry.spiffe_id.clone();
        let id = gate
            .state
            .attach_proxy(&hello.name, &spiffe_id)
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        tracing::info!(proxy = ?hello.name, %spiffe_id, version = ?hello.version, "proxy attached");
        self.opened = Some(Opened {
            spiffe_id,
            attached: Attached {
                state: Arc::clone(&gate.state),
                id,
            },
            mesh_acknowledged: 0,
            mesh_seen: hello.mesh_revision,
            sent: None,
        });
        Ok(())
    }

    fn take(&mut self, request: ProxyRequest) -> Result<(), Status> {
        let Some(opened) = self.opened.as_mut() else {
            return Ok(());
        };
        match request.step {
            Some(proxy_request::Step::Ack(ack)) => {
                opened.mesh_acknowledged = ack.mesh_revision;
                opened
                    .attached
                    .state
                    .acknowledge_proxy(opened.attached.id, ack);
            }
            Some(proxy_request::Step::Decisions(batch)) => {
                push(&self.decisions, &opened.spiffe_id, batch);
            }
            Some(proxy_request::Step::Hello(_)) | None => {
                return Err(Status::invalid_argument(
                    "only the first message is `hello`",
                ));
            }
        }
        Ok(())
    }

    /// A snapshot if there is something that this proxy was not sent yet.
    fn due(&mut self) -> Result<Option<ProxySnapshot>, Status> {
        let view = self.session.view();
        let gate = self.session.gate();
        let Some(opened) = self.opened.as_mut() else {
            return Ok(None);
        };
        let identity = view
            .identities
            .iter()
            .find(|identity| identity.entry.spiffe_id == opened.spiffe_id)
            .ok_or_else(|| gate.deny())?;
        let state = &gate.state;
        let denylist = state.with_cache(crate::cache::Cache::denylist);
        let mut snapshot = render(&view, identity);
        snapshot.denylist = Some(denylist.as_ref().clone());
        let sent_mesh = opened.sent.is_some().then_some(opened.mesh_seen);
        let mesh = state.with_mesh(|mesh| {
            (sent_mesh != Some(mesh.revision()))
                .then(|| mesh.for_proxy(opened.mesh_acknowledged, opened.mesh_seen))
                .flatten()
        });
        if mesh.is_none() && opened.sent.as_ref() == Some(&snapshot) {
            return Ok(None);
        }
        opened.sent = Some(snapshot.clone());
        if let Some(mesh) = &mesh {
            opened.mesh_seen = mesh.revision;
        }
        snapshot.mesh = mesh;
        Ok(Some(snapshot))
    }
}

fn push(queue: &DecisionQueue, id: &SpiffeId, batch: DecisionBatch) {
    let mut decisions = batch.decisions;
    let surplus = decisions
        .len()
        .saturating_sub(limits::DECISIONS_PER_BATCH_MAX);
    decisions.truncate(limits::DECISIONS_PER_BATCH_MAX);
    let lost = batch
        .lost
        .saturating_add(u64::try_from(surplus).unwrap_or(u64::MAX));
    queue.push(id.as_str(), decisions, lost);
}

fn render(view: &WorkloadView, identity: &Identity) -> ProxySnapshot {
    let bundles = || view.bundle.iter().chain(view.federated.values());
    let by_name = |render: fn(&Bundle) -> Vec<u8>| -> HashMap<String, Vec<u8>> {
        bundles()
            .map(|bundle| (bundle.trust_domain.as_str().to_owned(), render(bundle)))
            .collect()
    };
    ProxySnapshot {
        mesh: None,
        denylist: None,
        spiffe_id: identity.entry.spiffe_id.as_str().to_owned(),
        bundle_sequence: view.bundle.as_ref().map_or(0, |bundle| bundle.sequence),
        x509_bundles: by_name(trusted_x509),
        jwt_bundles: by_name(trusted_jwt),
        svid: identity.svid.as_ref().map(|svid| ProxySvid {
            spiffe_id: svid.spiffe_id.as_str().to_owned(),
            x509_svid: svid.chain_der(),
            x509_svid_key: svid.key.to_vec(),
            x509_authority_id: svid.authority_id.clone(),
            expires_at: svid.validity.not_after.unix_secs(),
        }),
    }
}

/// Tainted authorities are left out: what they signed is not accepted any more.
fn trusted_x509(bundle: &Bundle) -> Vec<u8> {
    bundle
        .x509_authorities
        .iter()
        .filter(|authority| !authority.is_tainted)
        .flat_map(|authority| authority.der.iter().copied())
        .collect()
}

fn trusted_jwt(bundle: &Bundle) -> Vec<u8> {
    let mut trusted = bundle.clone();
    trusted
        .jwt_authorities
        .retain(|authority| !authority.is_tainted);
    trusted.to_jwks(JwksContent::JwtOnly).into_bytes()
}
