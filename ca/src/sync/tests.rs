//! Deltas against a naive reference model, and one stream from hello to ban.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use ravelin_proto::bundle::Bundle;
use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::pb::ravelin::v1::sync_request::{Ack, Hello, Step};
use ravelin_proto::pb::ravelin::v1::{SyncRequest, SyncResponse};
use ravelin_proto::selector::Selector;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::drain::Drain;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::delta::{AgentView, EntryDelta};
use super::stream::AgentStream;
use crate::hub::Hub;
use crate::registry::RegisteredAgent;
use crate::store::tests::{entry, open, trust_domain};
use crate::store::{Change, MeshDraft, Store, StoreError};

pub(crate) fn agent(name: &str) -> RegisteredAgent {
    let id = SpiffeId::new(&trust_domain(), &format!("/spire/agent/{name}")).unwrap();
    RegisteredAgent {
        is_banned: false,
        selectors: [Selector::new("spiffe_id", id.as_str()).unwrap()].into(),
        serial: format!("5e{name}"),
        serial_before: String::new(),
        expires_at: Timestamp::from_unix_secs(2_000_000_000),
        attestation_type: "join_token".to_owned(),
        can_reattest: false,
        version: String::new(),
        id,
    }
}

/// What an agent keeps: exactly what the messages say.
#[derive(Debug, Default, Clone)]
struct Held {
    revision: u64,
    entries: BTreeMap<String, Arc<RegistrationEntry>>,
}

impl Held {
    fn apply(&mut self, delta: &EntryDelta) {
        if delta.is_snapshot {
            self.entries.clear();
        }
        for id in &delta.removed {
            self.entries.remove(id);
        }
        for entry in &delta.upserted {
            self.entries.insert(entry.id.clone(), Arc::clone(entry));
        }
        self.revision = delta.revision;
    }
}

/// One step of a history: an entry put below a parent, or deleted, or an agent's ban switched.
#[derive(Debug, Clone)]
enum Act {
    Put { id: u8, path: u8, parent: u8 },
    Delete { id: u8 },
    Ban { agent: u8, is_banned: bool },
    Reconnect { agent: u8 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..8_u8, 0..6_u8, 0..8_u8).prop_map(|(id, path, parent)| Act::Put { id, path, parent }),
        2 => (0..8_u8).prop_map(|id| Act::Delete { id }),
        1 => (0..2_u8, any::<bool>()).prop_map(|(agent, is_banned)| Act::Ban { agent, is_banned }),
        3 => (0..2_u8).prop_map(|agent| Act::Reconnect { agent }),
    ]
}

/// Parents 0 and 1 are agents, 2 the server (so: an alias), the rest are entries' own IDs.
fn parent_of(number: u8) -> SpiffeId {
    let path = match number {
        0 | 1 => format!("/spire/agent/{number}"),
        2 => "/spire/server".to_owned(),
        other => format!("/w/{}", other - 2),
    };
    SpiffeId::new(&trust_domain(), &path).unwrap()
}

async fn put(store: &Store, id: u8, path: u8, parent: u8, target: u8) {
    let mut new = entry(&format!("e{id}"), &format!("/w/{path}"), "/node/local");
    new.parent_id = parent_of(parent);
    if parent == 2 {
        let id = parent_of(target % 2);
        new.selectors = vec![Selector::new("spiffe_id", id.as_str()).unwrap()];
    }
    let result = store
        .write::<_, StoreError, _>(move |tx| {
            Box::pin(async move { tx.put_entry(new, "test").await })
        })
        .await;
    assert!(
        matches!(result, Ok(_) | Err(StoreError::Entry(_))),
        "{result:?}"
    );
}

async fn run_history(acts: Vec<Act>) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let agents = [agent("0"), agent("1")];
    store.load_agents(agents.to_vec());
    let mut open_streams: Vec<(AgentView, Held)> = agents
        .iter()
        .map(|agent| {
            let (view, delta) = AgentView::snapshot(agent.id.clone(), &store.registry());
            let mut held = Held::default();
            held.apply(&delta);
            (view, held)
        })
        .collect();
    let mut sleeping: Vec<Held> = open_streams.iter().map(|(_, held)| held.clone()).collect();
    for act in acts {
        match act {
            Act::Put { id, path, parent } => put(&store, id, path, parent, path).await,
            Act::Delete { id } => {
                store
                    .write::<_, StoreError, _>(move |tx| {
                        Box::pin(async move { tx.delete_entry(&format!("e{id}"), "test").await })
                    })
                    .await
                    .unwrap();
            }
            Act::Ban { agent, is_banned } => {
                let mut changed = agents[usize::from(agent)].clone();
                changed.is_banned = is_banned;
                store
                    .write::<_, StoreError, _>(move |tx| {
                        Box::pin(
                            async move { Ok(tx.change(Change::AgentUpserted(Arc::new(changed)))) },
                        )
                    })
                    .await
                    .unwrap();
            }
            Act::Reconnect { agent } => reconnect(&store, &agents, agent, &mut sleeping).await,
        }
        let registry = store.registry();
        for (agent, (view, held)) in agents.iter().zip(&mut open_streams) {
            let rows = store.recent_changes(view.revision());
            if let Some(delta) = view.advance(&registry, rows.as_deref()) {
                held.apply(&delta);
            }
            assert_eq!(held.entries, registry.authorized_entries(&agent.id));
        }
    }
    for number in 0..2 {
        reconnect(&store, &agents, number, &mut sleeping).await;
    }
}

/// An agent that slept since its last revision gets the tail, or a snapshot: never something else.
async fn reconnect(store: &Store, agents: &[RegisteredAgent], number: u8, sleeping: &mut [Held]) {
    let number = usize::from(number);
    let (agent, held) = (&agents[number], &mut sleeping[number]);
    let registry = store.registry();
    let rows = store.changes_since(held.revision).await.unwrap();
    let (_, delta) = rows
        .and_then(|rows| AgentView::tail(agent.id.clone(), &registry, &rows))
        .unwrap_or_else(|| AgentView::snapshot(agent.id.clone(), &registry));
    held.apply(&delta);
    assert_eq!(held.entries, registry.authorized_entries(&agent.id));
    assert_eq!(held.revision, registry.revision());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn deltas_and_tails_give_an_agent_the_same_entries_as_a_snapshot(
        acts in proptest::collection::vec(act(), 1..40)
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run_history(acts));
    }
}

async fn put_entry(store: &Store, new: RegistrationEntry) {
    store
        .write::<_, StoreError, _>(move |tx| {
            Box::pin(async move { tx.put_entry(new, "test").await })
        })
        .await
        .unwrap();
}

async fn publish(store: &Store, content: &str) {
    let draft = MeshDraft {
        digest: content.to_owned(),
        git_commit: String::new(),
        files: [("ravelin.yaml".to_owned(), content.as_bytes().to_vec())].into(),
        rolled_back_to: 0,
    };
    store
        .write::<_, StoreError, _>(move |tx| {
            Box::pin(async move { tx.publish_mesh(&draft, "test").await })
        })
        .await
        .unwrap();
}

async fn set_agent(store: &Store, agent: RegisteredAgent) {
    store
        .write::<_, StoreError, _>(move |tx| {
            Box::pin(async move { Ok(tx.change(Change::AgentUpserted(Arc::new(agent)))) })
        })
        .await
        .unwrap();
}

async fn next(
    stream: &mut (impl tokio_stream::Stream<Item = Result<SyncResponse, Status>> + Unpin),
) -> Result<SyncResponse, Status> {
    tokio::time::timeout(std::time::Duration::from_secs(5), stream.next())
        .await
        .expect("a response in time")
        .expect("the stream is open")
}

#[tokio::test]
async fn a_stream_carries_each_change_and_ends_when_the_agent_is_banned() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let agent = agent("a");
    store.load_agents(vec![agent.clone()]);
    let hub = Hub::new(store.clone());
    let opening = AgentStream::open(
        hub.clone(),
        agent.id.clone(),
        Hello::default(),
        Drain::new(),
    );
    let stream = opening.await.unwrap();
    let (requests, inbound) = mpsc::channel(8);
    let mut stream = Box::pin(stream.run(ReceiverStream::new(inbound)));
    let first = next(&mut stream).await.unwrap();
    assert!(first.is_snapshot && first.authorities.is_some() && first.denylist.is_some());
    assert_eq!(
        hub.acks().missing(|ack| ack.revision > 0),
        [agent.id.to_string()]
    );

    put_entry(&store, entry("other", "/other", "/node/elsewhere")).await;
    put_entry(&store, entry("mine", "/mine", "/spire/agent/a")).await;
    let delta = next(&mut stream).await.unwrap();
    assert_eq!((delta.revision, delta.is_snapshot), (2, false));
    let ids: Vec<_> = delta
        .upserted_entries
        .iter()
        .map(|entry| entry.id.as_str())
        .collect();
    assert_eq!(ids, ["mine"]);

    hub.publish_bundle(Bundle {
        sequence: 7,
        ..Bundle::new(trust_domain())
    });
    let bundle = next(&mut stream).await.unwrap().bundle.unwrap();
    assert_eq!(bundle.sequence_number, 7);

    publish(&store, "a").await;
    let mesh = next(&mut stream).await.unwrap().mesh.unwrap();
    assert_eq!((mesh.revision, mesh.base_revision), (1, 0));
    publish(&store, "b").await;
    let mesh = next(&mut stream).await.unwrap().mesh.unwrap();
    assert_eq!((mesh.revision, mesh.base_revision), (2, 1));

    let ack = Ack {
        revision: 2,
        mesh_revision: 2,
        bundle_sequence: 7,
        ..Ack::default()
    };
    requests
        .send(Ok(SyncRequest {
            step: Some(Step::Ack(ack)),
        }))
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    let acks = hub.acks();
    let (count, ended) = tokio::join!(
        async {
            let count = acks.wait_for(|ack| ack.mesh_revision >= 2, deadline).await;
            let mut banned = agent.clone();
            banned.is_banned = true;
            set_agent(&store, banned).await;
            count.unwrap()
        },
        next(&mut stream),
    );
    assert_eq!((count.done, count.total), (1, 1));
    assert_eq!(ended.unwrap_err().code(), Code::PermissionDenied);
    assert!(hub.acks().live_agents().is_empty());
}

#[tokio::test]
async fn threat_17_a_second_stream_of_an_agent_ends_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let agent = agent("a");
    store.load_agents(vec![agent.clone()]);
    let hub = Hub::new(store);
    let (_keep, inbound) = mpsc::channel(1);
    let open = || {
        AgentStream::open(
            hub.clone(),
            agent.id.clone(),
            Hello::default(),
            Drain::new(),
        )
    };
    let mut first = Box::pin(open().await.unwrap().run(ReceiverStream::new(inbound)));
    next(&mut first).await.unwrap();
    let second = open().await.unwrap();
    assert_eq!(next(&mut first).await.unwrap_err().code(), Code::Aborted);
    drop(first);
    assert!(hub.acks().live_agents()[0].is_connected);
    drop(second);
    assert!(!hub.acks().live_agents()[0].is_connected);
}

#[tokio::test]
async fn threat_21_an_agent_that_was_cut_off_before_it_said_hello_gets_no_stream() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut banned = agent("banned");
    banned.is_banned = true;
    store.load_agents(vec![banned]);
    let hub = Hub::new(store);
    for name in ["banned", "evicted"] {
        let opening =
            AgentStream::open(hub.clone(), agent(name).id, Hello::default(), Drain::new());
        let refused = opening.await.err().map(|status| status.code());
        assert_eq!(refused, Some(Code::PermissionDenied), "{name}");
    }
    assert!(hub.acks().live_agents().is_empty());
}
