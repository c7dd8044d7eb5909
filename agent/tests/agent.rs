//! A whole agent against a fake CA, over its real sockets: no sleeps, every wait bounded.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_imports,
    clippy::wildcard_enum_match_arm,
    clippy::duration_suboptimal_units,
    clippy::too_many_lines,
    clippy::format_push_string,
    clippy::unnecessary_debug_formatting,
    reason = "tests"
)]

mod fake_ca;

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fake_ca::{FakeCa, JwtKey, Shared, SigningAuthority};
use futures_util::{Stream, StreamExt};
use ravelin_agent::{AgentConfig, AgentError, RunningAgent};
use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::pb;
use ravelin_proto::pb::ravelin::v1::agent_admin_client::AgentAdminClient;
use ravelin_proto::pb::ravelin::v1::launch_client::LaunchClient;
use ravelin_proto::pb::ravelin::v1::proxy_config_client::ProxyConfigClient;
use ravelin_proto::pb::ravelin::v1::*;
use ravelin_proto::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use ravelin_proto::selector::Selector;
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_runtime::clock::SystemClock;
use ravelin_runtime::drain::Drain;
use ravelin_runtime::process;
use ravelin_runtime::rpc::{self, ServerAddress};
use ravelin_runtime::workload_client::{WorkloadClient, WorkloadError, X509Update};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request};

const WAIT: Duration = Duration::from_secs(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, what).await.expect("in time")
}

struct Node {
    folder: tempfile::TempDir,
    running: Option<(tokio::task::JoinHandle<Result<(), AgentError>>, Drain)>,
}

impl Node {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            running: None,
        }
    }

    fn config(&self, ca: &FakeCa, token: Option<&str>) -> AgentConfig {
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

    async fn start(&mut self, config: AgentConfig) {
        let drain = Drain::new();
        let agent: RunningAgent =
            ravelin_agent::start(config, SystemClock::shared(), drain.clone())
                .await
                .unwrap();
        self.running = Some((tokio::spawn(agent.wait()), drain));
    }

    async fn stop(&mut self) {
        let (task, drain) = self.running.take().unwrap();
        drain.start();
        soon(task).await.unwrap().unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn workload(&self) -> WorkloadClient {
        WorkloadClient::connect(self.path("agent.sock"))
            .await
            .unwrap()
    }

    async fn svids(&self) -> Updates {
        Box::pin(self.workload().await.x509_svids().await.unwrap())
    }

    async fn channel(&self, name: &str) -> Channel {
        rpc::connect(&ServerAddress::Unix(self.path(name)), None)
            .await
            .unwrap()
    }

    async fn status(&self) -> AgentAdminStatus {
        let mut admin = AgentAdminClient::new(self.channel("admin.sock").await);
        admin
            .get_status(AgentAdminStatusRequest {})
            .await
            .unwrap()
            .into_inner()
    }
}

type Updates = Pin<Box<dyn Stream<Item = Result<X509Update, WorkloadError>> + Send>>;

/// The first update that is as wanted.
async fn until(updates: &mut Updates, is_wanted: impl Fn(&X509Update) -> bool) -> X509Update {
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

async fn acked(
    shared: &Shared,
    is_wanted: impl FnMut(&sync_request::Ack) -> bool,
) -> sync_request::Ack {
    let mut acks = shared.acks.subscribe();
    soon(acks.wait_for(is_wanted)).await.unwrap().clone()
}

fn own_uid() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap())
}

fn entry(shared: &Shared, name: &str, selectors: &[&str]) -> RegistrationEntry {
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

fn by_uid(shared: &Shared, name: &str) -> RegistrationEntry {
    entry(shared, name, &[&format!("unix:uid:{}", own_uid())])
}

fn id_of(update: &X509Update) -> &str {
    update.svids[0].identity.id.as_str()
}

fn authority_of(update: &X509Update) -> String {
    update.svids[0]
        .identity
        .leaf()
        .authority_id
        .clone()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_attests_serves_both_profiles_and_outlives_its_ca() {
    let shared = Shared::new("td.test");
    shared.change(|world| world.entries = vec![by_uid(&shared, "orders")]);
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    let config = node.config(&ca, Some("token-1"));
    node.start(config.clone()).await;
    acked(&shared, |ack| ack.revision == 2).await;

    let first = until(&mut node.svids().await, |_| true).await;
    assert_eq!(id_of(&first), "spiffe://td.test/orders");
    let workload = node.workload().await;
    let audience = vec!["payments".to_owned()];
    let token = workload
        .jwt_svid(&audience, None)
        .await
        .unwrap()
        .remove(0)
        .token;
    let again = workload
        .jwt_svid(&audience, None)
        .await
        .unwrap()
        .remove(0)
        .token;
    assert_eq!(*token, *again, "from the cache");
    let valid = workload.validate_jwt("payments", &token).await.unwrap();
    assert_eq!(valid.id.as_str(), "spiffe://td.test/orders");
    assert_eq!(valid.claims["role"], "clerk");
    assert!(workload.validate_jwt("other", &token).await.is_err());
    let bundles = soon(Box::pin(workload.jwt_bundles().await.unwrap()).next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bundles[&shared.td].keys[0].kid.as_deref(), Some("jwt-1"));
    let bundles = soon(Box::pin(workload.x509_bundles().await.unwrap()).next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bundles.authorities(&shared.td).count(), 1);
    node.stop().await;

    // The CA is gone; a restarted agent serves the same SVID from disk, and its token is spent.
    let addr = ca.addr;
    ca.stop().await;
    node.start(config).await;
    let kept = until(&mut node.svids().await, |_| true).await;
    assert_eq!(kept.svids[0].identity.chain, first.svids[0].identity.chain);
    assert!(!node.status().await.is_synced);

    // The CA is back: the agent finds it by itself.
    shared.change(|world| world.entries.push(by_uid(&shared, "payments")));
    let _ca = FakeCa::start(&shared, Some(addr)).await;
    until(&mut node.svids().await, |update| update.svids.len() == 2).await;
    assert!(node.status().await.is_synced);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_reissues_every_svid_and_old_keys_go_at_once() {
    let shared = Shared::new("td.test");
    shared.change(|world| world.entries = vec![by_uid(&shared, "orders")]);
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("token-1"))).await;
    acked(&shared, |ack| ack.revision == 2).await;
    let mut updates = node.svids().await;
    let old = authority_of(&until(&mut updates, |_| true).await);
    let workload = node.workload().await;
    let audience = vec!["a".to_owned()];
    let before = workload
        .jwt_svid(&audience, None)
        .await
        .unwrap()
        .remove(0)
        .token;
    acked(&shared, |ack| {
        ack.x509_svids_by_authority.get(&old) == Some(&2)
            && ack.jwt_svids_by_authority.get("jwt-1") == Some(&1)
    })
    .await;

    // Prepared: the bundle grows, nothing is reissued. Active: everything is.
    let next = SigningAuthority::generate(&shared.td);
    let new = next.id.clone();
    shared.change(|world| world.authorities.push(next));
    acked(&shared, |ack| ack.revision == 3).await;
    shared.change(|world| {
        world.active = 1;
        world.is_reissue = true;
        world.jwt_keys.push(JwtKey::generate("jwt-2"));
    });
    until(&mut updates, |update| authority_of(update) == new).await;
    let ack = acked(&shared, |ack| {
        ack.x509_svids_by_authority.get(&new) == Some(&2)
    })
    .await;
    assert_eq!(
        ack.x509_svids_by_authority.get(&old),
        None,
        "the agent's own one too"
    );
    assert!(ack.jwt_svids_by_authority.is_empty());
    let after = workload
        .jwt_svid(&audience, None)
        .await
        .unwrap()
        .remove(0)
        .token;
    assert_ne!(*before, *after);

    // Revoked: gone from the bundle that workloads see.
    shared.change(|world| {
        world.is_reissue = false;
        world.authorities.remove(0);
        world.active = 0;
    });
    let last = until(&mut updates, |update| {
        update.bundles.authorities(&shared.td).count() == 1
    })
    .await;
    assert_eq!(authority_of(&last), new);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_08_without_identity_every_fetch_is_denied_and_withdrawal_ends_the_stream() {
    let shared = Shared::new("td.test");
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("token-1"))).await;
    acked(&shared, |ack| ack.revision == 1).await;
    let mut api = SpiffeWorkloadApiClient::new(node.channel("agent.sock").await);
    let with_header = || {
        let mut request = Request::new(pb::X509svidRequest {});
        request
            .metadata_mut()
            .insert("workload.spiffe.io", "true".parse().unwrap());
        request
    };
    let mut denied = api
        .fetch_x509svid(with_header())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        denied.message().await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let status = api
        .fetch_x509svid(pb::X509svidRequest {})
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "e_02");
    let mut request = Request::new(pb::WitsvidRequest::default());
    request
        .metadata_mut()
        .insert("workload.spiffe.io", "true".parse().unwrap());
    assert_eq!(
        api.fetch_witsvid(request).await.unwrap_err().code(),
        Code::Unimplemented,
        "a_01"
    );
    let jwt = node.workload().await.jwt_svid(&["a".into()], None).await;
    assert!(
        matches!(
            jwt,
            Err(WorkloadError::NoIdentity { .. } | WorkloadError::Refused { .. })
        ),
        "{jwt:?}"
    );

    shared.change(|world| world.entries = vec![by_uid(&shared, "orders")]);
    acked(&shared, |ack| ack.revision == 2).await;
    let mut stream = api
        .fetch_x509svid(with_header())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        soon(stream.message()).await.unwrap().unwrap().svids.len(),
        1
    );
    shared.change(|world| world.entries.clear());
    let end = soon(stream.message()).await.unwrap_err();
    assert_eq!(end.code(), Code::PermissionDenied);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e_05_an_agent_that_never_reached_its_ca_is_unavailable_and_says_why() {
    let shared = Shared::new("td.test");
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("a-wrong-token"))).await;
    let mut api = SpiffeWorkloadApiClient::new(node.channel("agent.sock").await);
    let mut request = Request::new(pb::X509svidRequest {});
    request
        .metadata_mut()
        .insert("workload.spiffe.io", "true".parse().unwrap());
    let mut stream = api.fetch_x509svid(request).await.unwrap().into_inner();
    assert_eq!(
        stream.message().await.unwrap_err().code(),
        Code::Unavailable
    );
    let said = soon(async {
        loop {
            let status = node.status().await;
            if !status.last_error.is_empty() {
                return status.last_error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(said.contains("join token"), "{said}");
    assert!(!said.contains("a-wrong-token"), "threat_41");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launched_process_has_its_own_identity_as_long_as_its_launcher_vouches() {
    let shared = Shared::new("td.test");
    let uid = format!("unix:uid:{}", own_uid());
    shared.change(|world| {
        world.entries = vec![
            entry(&shared, "user", &[&uid, "launch:none"]),
            entry(&shared, "orders", &["launch:name:orders"]),
        ];
    });
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("token-1"))).await;
    acked(&shared, |ack| ack.revision == 2).await;
    let mut updates = node.svids().await;
    until(&mut updates, |update| id_of(update).ends_with("/user")).await;

    let pid = i32::try_from(std::process::id()).unwrap();
    let start_time_ticks = process::start_time_ticks(pid).unwrap();
    let request = |start_time_ticks| LaunchRequest {
        name: "orders".into(),
        pid,
        start_time_ticks,
    };
    let mut launches = LaunchClient::new(node.channel("admin.sock").await);
    let (sender, receiver) = mpsc::channel(4);
    sender.send(request(start_time_ticks)).await.unwrap();
    let mut answers = launches
        .register(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(soon(answers.message()).await.unwrap().unwrap().pid, pid);
    until(&mut updates, |update| id_of(update).ends_with("/orders")).await;

    // Another process with this number: refused.
    let (other, receiver) = mpsc::channel(4);
    other.send(request(start_time_ticks + 1)).await.unwrap();
    let mut refused = launches
        .register(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        soon(refused.message()).await.unwrap_err().code(),
        Code::NotFound
    );

    let mut admin = AgentAdminClient::new(node.channel("admin.sock").await);
    let explained = admin
        .explain_workload(ExplainWorkloadRequest { pid })
        .await
        .unwrap()
        .into_inner();
    let shown: Vec<_> = explained
        .entries
        .iter()
        .map(|entry| (entry.is_match, entry.entry_id.as_str()))
        .collect();
    assert_eq!(shown, [(true, "orders"), (false, "user")]);

    drop((sender, answers));
    until(&mut updates, |update| id_of(update).ends_with("/user")).await;
    node.stop().await;
}

fn ack(mesh_revision: u64, bundle_sequence: u64) -> ProxyRequest {
    ProxyRequest {
        step: Some(proxy_request::Step::Ack(ProxyAck {
            mesh_revision,
            bundle_sequence,
            ..ProxyAck::default()
        })),
    }
}

fn mesh(revision: u64, content: &str) -> MeshRevision {
    let files = vec![MeshFile {
        path: "ravelin.yaml".into(),
        content: content.into(),
    }];
    let sources = [ravelin_policies::SourceFile {
        path: "ravelin.yaml".into(),
        content: content.into(),
    }];
    MeshRevision {
        revision,
        digest: ravelin_policies::set_digest(&sources),
        files,
        ..MeshRevision::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_gets_mesh_bundle_and_svid_and_what_it_acknowledges_reaches_the_ca() {
    let shared = Shared::new("td.test");
    shared.change(|world| {
        world.entries = vec![by_uid(&shared, "orders")];
        world.mesh = Some(mesh(7, "one"));
    });
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("token-1"))).await;
    acked(&shared, |ack| ack.mesh_revision == 7).await;

    let mut proxies = ProxyConfigClient::new(node.channel("agent.sock").await);
    let (sender, receiver) = mpsc::channel(8);
    let hello = ProxyHello {
        name: "orders".into(),
        ..ProxyHello::default()
    };
    let step = Some(proxy_request::Step::Hello(hello));
    sender.send(ProxyRequest { step }).await.unwrap();
    let mut snapshots = proxies
        .stream(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    let first = soon(snapshots.message()).await.unwrap().unwrap();
    assert_eq!(first.spiffe_id, "spiffe://td.test/orders");
    assert_eq!(first.mesh.as_ref().unwrap().revision, 7);
    assert_eq!(first.svid.as_ref().unwrap().spiffe_id, first.spiffe_id);
    assert!(
        first.x509_bundles.contains_key("td.test") && first.jwt_bundles.contains_key("td.test")
    );
    acked(&shared, |ack| {
        ack.mesh_revision == 0 && ack.proxies.len() == 1
    })
    .await;
    sender.send(ack(7, first.bundle_sequence)).await.unwrap();
    acked(&shared, |ack| {
        ack.mesh_revision == 7 && ack.proxies[0].spiffe_id.ends_with("/orders")
    })
    .await;

    // A change: the difference, not acknowledged to the CA before the proxy has it in use.
    shared.change(|world| world.mesh = Some(mesh(8, "two")));
    let second = soon(async {
        loop {
            let snapshot = snapshots.message().await.unwrap().unwrap();
            if snapshot.mesh.is_some() {
                return snapshot;
            }
        }
    })
    .await;
    let change = second.mesh.unwrap();
    assert_eq!((change.revision, change.base_revision), (8, 7));
    acked(&shared, |ack| ack.revision == 3 && ack.mesh_revision == 7).await;
    sender.send(ack(8, second.bundle_sequence)).await.unwrap();
    acked(&shared, |ack| ack.mesh_revision == 8).await;

    let batch = DecisionBatch {
        decisions: vec![Decision {
            workload: "forged".into(),
            code: "allowed".into(),
            ..Decision::default()
        }],
        lost: 4,
    };
    let step = Some(proxy_request::Step::Decisions(batch));
    sender.send(ProxyRequest { step }).await.unwrap();
    let mut segments: watch::Receiver<Vec<DecisionSegment>> = shared.segments.subscribe();
    let segment = soon(segments.wait_for(|segments| !segments.is_empty()))
        .await
        .unwrap()[0]
        .clone();
    assert_eq!(segment.decisions[0].workload, "spiffe://td.test/orders");
    assert_eq!(segment.lost, 4);

    drop((sender, snapshots));
    acked(&shared, |ack| ack.proxies.is_empty()).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cas_name_and_authority_are_verified_before_the_token_is_sent() {
    let real = Shared::new("td.test");
    let forged = Shared::new("td.test");
    let ca = FakeCa::start(&forged, None).await;
    let mut node = Node::new();
    let mut config = node.config(&ca, Some("token-1"));
    config.trust_bundle = Some(real.write_bundle(node.folder.path()));
    node.start(config).await;
    soon(async {
        while node.status().await.last_error.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(
        forged.world.lock().unwrap().tokens.len(),
        1,
        "the token was not spent"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_by_name_before_anything_is_served() {
    let shared = Shared::new("td.test");
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    let config = node.config(&ca, Some("token-1"));
    node.start(config.clone()).await;
    acked(&shared, |ack| ack.revision == 1).await;
    let start = |config| ravelin_agent::start(config, SystemClock::shared(), Drain::new());
    let error = start(config.clone()).await.unwrap_err();
    assert!(matches!(error, AgentError::Storage(_)), "{error}");
    node.stop().await;

    let mut other = config.clone();
    other.trust_domain = TrustDomain::parse("other.test").unwrap();
    let error = start(other).await.unwrap_err();
    assert!(
        matches!(error, AgentError::OtherTrustDomain { .. }),
        "{error}"
    );
    let mut bad = config.clone();
    bad.server = "nowhere".into();
    assert!(matches!(
        start(bad).await.unwrap_err(),
        AgentError::Address(_)
    ));
    let text = "trust_domain = \"td\"\nunknown = 1\n";
    std::fs::write(node.path("bad.toml"), text).unwrap();
    let error = AgentConfig::load(Path::new(&node.path("bad.toml"))).unwrap_err();
    assert!(error.to_string().contains("unknown"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_life_is_renewed_at_its_half() {
    let shared = Shared::new("td.test");
    shared.change(|world| {
        world.entries = vec![by_uid(&shared, "orders")];
        world.svid_lifetime_secs = 3;
    });
    let ca = FakeCa::start(&shared, None).await;
    let mut node = Node::new();
    node.start(node.config(&ca, Some("token-1"))).await;
    acked(&shared, |ack| ack.revision == 2).await;
    let mut updates = node.svids().await;
    let first = until(&mut updates, |_| true).await.svids[0]
        .identity
        .leaf()
        .serial
        .clone();
    until(&mut updates, |update| {
        update.svids[0].identity.leaf().serial != first
    })
    .await;
    assert!(Arc::clone(&shared).world.lock().unwrap().x509_calls >= 3);
    node.stop().await;
}
