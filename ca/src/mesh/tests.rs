//! Plan, apply and roll back through the service, against a real store.

use ravelin_proto::pb::ravelin::v1 as pb;
use ravelin_proto::pb::ravelin::v1::mesh_server::Mesh;
use ravelin_proto::pb::ravelin::v1::sync_request::Ack;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use crate::api::caller::tests::{local, of_agent};
use crate::api::mesh::MeshService;
use crate::audit::verify_store;
use crate::hub::Hub;
use crate::store::tests::open;
use crate::sync::tests::agent;

fn identity(name: &str, uid: u32) -> pb::MeshFile {
    let text = format!(
        "apiVersion: ravelin.dev/v1\nkind: WorkloadIdentity\nmetadata:\n  name: {name}\n  namespace: shop\nspec:\n  selectors:\n    - unix:uid:{uid}\n"
    );
    file(&format!("identities/{name}.yaml"), &text)
}

fn file(path: &str, text: &str) -> pb::MeshFile {
    pb::MeshFile {
        path: path.to_owned(),
        content: text.as_bytes().to_vec(),
    }
}

fn config(trust_domain: &str) -> pb::MeshFile {
    file(
        "ravelin.yaml",
        &format!(
            "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nmetadata:\n  name: mesh\nspec:\n  trustDomain: {trust_domain}\n"
        ),
    )
}

fn folder(names: &[(&str, u32)]) -> Vec<pb::MeshFile> {
    let mut files = vec![config("shop.example")];
    files.extend(names.iter().map(|(name, uid)| identity(name, *uid)));
    files
}

struct Fixture {
    hub: Hub,
    service: MeshService,
    folder: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(open(folder.path()).await);
    Fixture {
        service: MeshService::new(hub.clone()),
        hub,
        folder,
    }
}

impl Fixture {
    async fn plan(&self, files: Vec<pb::MeshFile>) -> pb::PlanResponse {
        self.service
            .plan(local(pb::PlanRequest { files }))
            .await
            .unwrap()
            .into_inner()
    }

    async fn apply(&self, request: pb::ApplyRequest) -> Result<Vec<pb::ApplyProgress>, Status> {
        let stream = self.service.apply(local(request)).await?.into_inner();
        stream.collect::<Result<Vec<_>, _>>().await
    }

    async fn publish(&self, files: Vec<pb::MeshFile>) -> pb::ApplyProgress {
        let request = pb::ApplyRequest {
            files,
            ..pb::ApplyRequest::default()
        };
        self.apply(request).await.unwrap().pop().unwrap()
    }

    fn entries(&self) -> Vec<String> {
        let registry = self.hub.registry();
        registry
            .entries()
            .map(|entry| format!("{} {}", entry.id, entry.spiffe_id))
            .collect()
    }
}

fn actions(plan: &pb::PlanResponse) -> Vec<String> {
    plan.changes
        .iter()
        .filter(|change| change.kind == "WorkloadIdentity")
        .map(|change| format!("{:?} {}", change.action(), change.name))
        .collect()
}

#[tokio::test]
async fn a_folder_becomes_a_revision_with_its_entries_and_rolls_back() {
    let mesh = fixture().await;
    let plan = mesh.plan(folder(&[("a", 1), ("b", 2)])).await;
    assert_eq!(plan.diagnostics, []);
    assert_eq!(actions(&plan), ["Create a", "Create b"]);
    assert!(mesh.entries().is_empty(), "a plan writes nothing");

    let done = mesh.publish(folder(&[("a", 1), ("b", 2)])).await;
    assert_eq!(
        (done.revision, done.is_done, done.is_unchanged),
        (1, true, false)
    );
    let both = [
        "mesh:shop/a spiffe://shop.example/ns/shop/sa/a",
        "mesh:shop/b spiffe://shop.example/ns/shop/sa/b",
    ];
    assert_eq!(mesh.entries(), both);

    let again = mesh.publish(folder(&[("a", 1), ("b", 2)])).await;
    assert_eq!((again.revision, again.is_unchanged), (1, true));

    let plan = mesh.plan(folder(&[("a", 7), ("c", 3)])).await;
    assert_eq!(actions(&plan), ["Update a", "Delete b", "Create c"]);
    let done = mesh.publish(folder(&[("a", 7), ("c", 3)])).await;
    assert_eq!(done.revision, 2);
    assert!(
        mesh.entries()[1].starts_with("mesh:shop/c"),
        "{:?}",
        mesh.entries()
    );

    let request = pb::RollbackRequest {
        revision: 1,
        wait: false,
    };
    let stream = mesh
        .service
        .rollback(local(request))
        .await
        .unwrap()
        .into_inner();
    let done = stream
        .collect::<Result<Vec<_>, _>>()
        .await
        .unwrap()
        .pop()
        .unwrap();
    assert_eq!(done.revision, 3);
    assert_eq!(mesh.entries(), both);
    mesh.hub.store().close().await;
    let report = verify_store(mesh.folder.path()).await.unwrap();
    assert_eq!((report.mesh_revisions, report.entries), (3, 2));
}

#[tokio::test]
async fn a_set_with_an_error_is_not_published_and_the_last_one_stays() {
    let mesh = fixture().await;
    mesh.publish(folder(&[("a", 1)])).await;
    let mut twice = folder(&[("a", 1)]);
    twice.push(identity("a", 2));
    let cases = [
        (
            "broken YAML",
            vec![config("shop.example"), file("policies/p.yaml", "kind: [")],
        ),
        ("another trust domain", vec![config("other.example")]),
        ("no configuration", vec![identity("a", 1)]),
        (
            "no UTF-8",
            vec![
                config("shop.example"),
                pb::MeshFile {
                    path: "a.yaml".to_owned(),
                    content: vec![0xff],
                },
            ],
        ),
        (
            "a path upwards",
            vec![config("shop.example"), file("../a.yaml", "")],
        ),
        ("the same path twice", twice),
        (
            "too large",
            vec![
                config("shop.example"),
                file("a.txt", &"x".repeat(3 * 1024 * 1024)),
            ],
        ),
    ];
    for (name, files) in cases {
        let plan = mesh.plan(files.clone()).await;
        assert!(
            plan.diagnostics.iter().any(|found| found.is_error),
            "{name}"
        );
        let done = mesh.publish(files).await;
        assert!(
            done.diagnostics.iter().any(|found| found.is_error),
            "{name}"
        );
        assert_eq!(done.revision, 1, "{name}");
        assert_eq!(mesh.entries().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn an_apply_on_another_base_and_from_an_agent_is_refused() {
    let mesh = fixture().await;
    mesh.publish(folder(&[("a", 1)])).await;
    mesh.publish(folder(&[("b", 1)])).await;
    let request = pb::ApplyRequest {
        files: folder(&[("c", 1)]),
        base_revision: 1,
        ..pb::ApplyRequest::default()
    };
    let error = mesh.apply(request.clone()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (
            Code::Aborted,
            "the current revision is 2, not 1; plan again"
        )
    );

    let agent = agent("a");
    mesh.hub.store().load_agents(vec![agent.clone()]);
    let error = mesh
        .service
        .apply(of_agent(&agent, request))
        .await
        .err()
        .unwrap();
    assert_eq!(error.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn apply_with_wait_returns_when_agents_and_their_proxies_have_acknowledged() {
    let mesh = fixture().await;
    let connected = mesh.hub.acks().connect(&agent("a").id, "1");
    let proxy = |revision| pb::ProxyAck {
        name: "orders".to_owned(),
        mesh_revision: revision,
        ..pb::ProxyAck::default()
    };
    let request = pb::ApplyRequest {
        files: folder(&[("a", 1)]),
        wait: true,
        ..pb::ApplyRequest::default()
    };
    let mut stream = mesh
        .service
        .apply(local(request))
        .await
        .unwrap()
        .into_inner();
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(
        (first.acknowledged, first.total, first.is_done),
        (0, 1, false)
    );

    mesh.hub.acks().record(
        &connected,
        Ack {
            proxies: vec![proxy(0)],
            ..Ack::default()
        },
    );
    let second = stream.next().await.unwrap().unwrap();
    assert_eq!((second.acknowledged, second.total), (1, 2));
    assert!(
        second.missing[0].starts_with("orders"),
        "{:?}",
        second.missing
    );

    let ack = Ack {
        mesh_revision: 1,
        proxies: vec![proxy(1)],
        ..Ack::default()
    };
    mesh.hub.acks().record(&connected, ack);
    let last = stream.next().await.unwrap().unwrap();
    assert!(last.is_done && last.missing.is_empty());
    assert!(stream.next().await.is_none());
}
