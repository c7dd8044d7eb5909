//! The audit and entry services, called as gRPC calls them.

use ravelin_proto::convert::{entry_to_pb, id_to_pb};
use ravelin_proto::merkle::{leaf_hash, verify_consistency, verify_inclusion};
use ravelin_proto::pb::ravelin::v1 as audit_pb;
use ravelin_proto::pb::ravelin::v1::audit_server::Audit;
use ravelin_proto::pb::ravelin::v1::export_record::Item;
use ravelin_proto::pb::spire::api::server::entry::v1 as pb;
use ravelin_proto::pb::spire::api::server::entry::v1::entry_server::Entry;
use ravelin_proto::pb::spire::api::types;
use ravelin_runtime::drain::Drain;
use tokio_stream::StreamExt;
use tonic::Code;

use super::audit::AuditService;
use super::caller::tests::{local, of_agent, with_svid};
use super::entry::EntryService;
use crate::audit::Event;
use crate::audit::check::LogCheck;
use crate::hub::Hub;
use crate::store::tests::{entry, open};
use crate::sync::tests::agent;

type Change = fn(&mut audit_pb::AuditQuery);
type Fill = fn(&mut audit_pb::AuditQuery, String);

struct Fixture {
    hub: Hub,
    audit: AuditService,
    entries: EntryService,
    _folder: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(open(folder.path()).await);
    hub.store().load_agents(vec![agent("a"), agent("b")]);
    Fixture {
        audit: AuditService::new(hub.clone(), Drain::new()),
        entries: EntryService::new(hub.clone()),
        hub,
        _folder: folder,
    }
}

fn decision(number: i64, is_allowed: bool) -> audit_pb::Decision {
    audit_pb::Decision {
        time_ms: 1_800_000_000_000 + number,
        workload: "spiffe://shop.example/w".to_owned(),
        peer: format!("spiffe://shop.example/p{}", number % 2),
        policy: "shop/payments".to_owned(),
        rule: u32::try_from(number).unwrap(),
        is_allowed,
        jti: format!("j{number}"),
        ..audit_pb::Decision::default()
    }
}

impl Fixture {
    async fn fill(&self) {
        for number in 0..3_u64 {
            let event = Event::new("svid.issued", "spiffe://shop.example/spire/agent/a")
                .with("serial", format!("a{number}"))
                .with("spiffe_id", "spiffe://shop.example/w");
            self.hub.sequencer().append(vec![event]).await.unwrap();
        }
        let segment = audit_pb::DecisionSegment {
            segment_id: "s1".to_owned(),
            decisions: (0..6)
                .map(|number| decision(number, number % 3 == 0))
                .collect(),
            lost: 0,
        };
        for _ in 0..2 {
            let request = of_agent(&agent("a"), segment.clone());
            self.audit.append_decisions(request).await.unwrap();
        }
    }

    /// Paths of the SPIFFE IDs that match, listed one a page.
    async fn list(&self, filter: Option<pb::list_entries_request::Filter>) -> Vec<String> {
        let mut names = Vec::new();
        let mut request = pb::ListEntriesRequest {
            page_size: 1,
            filter,
            ..Default::default()
        };
        loop {
            let page = self.entries.list_entries(local(request.clone())).await;
            let page = page.unwrap().into_inner();
            names.extend(
                page.entries
                    .into_iter()
                    .map(|entry| entry.spiffe_id.unwrap().path),
            );
            if page.next_page_token.is_empty() {
                return names;
            }
            request.page_token = page.next_page_token;
        }
    }

    async fn query(&self, query: audit_pb::AuditQuery) -> Vec<String> {
        let stream = self.audit.query(local(query)).await.unwrap().into_inner();
        let records: Vec<_> = stream.collect::<Result<Vec<_>, _>>().await.unwrap();
        records
            .iter()
            .map(|record| format!("{}:{}:{}", record.log, record.index, record.kind))
            .collect()
    }
}

#[tokio::test]
async fn a_query_filters_both_logs_and_merges_them_by_time() {
    let ca = fixture().await;
    ca.fill().await;
    let cases: [(&str, Change, usize); 18] = [
        ("everything", |_| {}, 11),
        ("audit", |query| query.log = "audit".to_owned(), 5),
        ("decisions", |query| query.log = "decision".to_owned(), 6),
        ("kind", |query| query.kind = "svid.issued".to_owned(), 3),
        ("kinds", |query| query.kind = "call.*".to_owned(), 6),
        (
            "denied calls",
            |query| query.kind = "call.denied".to_owned(),
            4,
        ),
        ("deny", |query| query.decision = "deny".to_owned(), 4),
        ("actor", |query| query.actor = "ca".to_owned(), 1),
        (
            "SPIFFE ID",
            |query| query.spiffe_id = "spiffe://shop.example/w".to_owned(),
            9,
        ),
        (
            "peer",
            |query| query.peer = "spiffe://shop.example/p1".to_owned(),
            3,
        ),
        (
            "policy",
            |query| query.policy = "shop/payments".to_owned(),
            6,
        ),
        ("rule", |query| query.rule = "shop/payments#2".to_owned(), 1),
        ("serial", |query| query.serial = "a1".to_owned(), 1),
        ("jti", |query| query.jti = "j4".to_owned(), 1),
        (
            "agent",
            |query| query.agent_id = "spiffe://shop.example/spire/agent/a".to_owned(),
            7,
        ),
        (
            "another agent",
            |query| query.agent_id = "spiffe://shop.example/spire/agent/b".to_owned(),
            0,
        ),
        ("since", |query| query.since_ms = 1_800_000_000_003, 3),
        ("the newest two", |query| query.limit = 2, 2),
    ];
    for (name, change, want) in cases {
        let mut query = audit_pb::AuditQuery::default();
        change(&mut query);
        let found = ca.query(query).await;
        assert_eq!(found.len(), want, "{name}: {found:?}");
    }
}

#[tokio::test]
async fn threat_37_a_filter_is_a_value_and_never_a_statement() {
    let ca = fixture().await;
    ca.fill().await;
    for text in [
        "' OR 1=1 --",
        "%",
        "_",
        "*' OR '1'='1",
        "\"; DROP TABLE audit_leaves; --",
        "x' UNION SELECT 1",
    ] {
        let fields: [Fill; 8] = [
            |query, text| query.kind = text,
            |query, text| query.actor = text,
            |query, text| query.spiffe_id = text,
            |query, text| query.peer = text,
            |query, text| query.policy = text,
            |query, text| query.serial = text,
            |query, text| query.jti = text,
            |query, text| query.agent_id = text,
        ];
        for change in fields {
            let mut query = audit_pb::AuditQuery::default();
            change(&mut query, text.to_owned());
            assert!(ca.query(query).await.is_empty(), "{text}");
        }
    }
    assert_eq!(ca.query(audit_pb::AuditQuery::default()).await.len(), 11);
}

#[tokio::test]
async fn a_query_that_follows_gets_later_records_of_both_logs() {
    let ca = fixture().await;
    let query = audit_pb::AuditQuery {
        follow: true,
        ..audit_pb::AuditQuery::default()
    };
    let mut stream = ca.audit.query(local(query)).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap().kind, "log.opened");
    ca.fill().await;
    let mut kinds = Vec::new();
    for _ in 0..10 {
        kinds.push(stream.next().await.unwrap().unwrap().kind);
    }
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "svid.issued").count(),
        3
    );
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| kind.starts_with("call."))
            .count(),
        6
    );
}

#[tokio::test]
async fn proofs_lead_to_the_signed_root() {
    let ca = fixture().await;
    ca.fill().await;
    let newest = ca
        .audit
        .get_checkpoint(local(audit_pb::GetCheckpointRequest {}))
        .await
        .unwrap()
        .into_inner();
    let root = newest.root_hash.clone().try_into().unwrap();
    for index in 0..newest.size {
        let request = audit_pb::InclusionRequest { index, size: 0 };
        let proof = ca
            .audit
            .prove_inclusion(local(request))
            .await
            .unwrap()
            .into_inner();
        let path: Vec<_> = proof
            .hashes
            .iter()
            .map(|hash| hash.as_slice().try_into().unwrap())
            .collect();
        let leaf = leaf_hash(proof.leaf_json.as_bytes());
        assert!(verify_inclusion(&leaf, index, proof.size, &path, &root));
        assert_eq!(proof.checkpoint.unwrap().note, newest.note);
    }
    let request = audit_pb::InclusionRequest { index: 2, size: 3 };
    let old = ca
        .audit
        .prove_inclusion(local(request))
        .await
        .unwrap()
        .into_inner()
        .checkpoint
        .unwrap();
    let request = audit_pb::ConsistencyRequest {
        old_size: 3,
        new_size: 0,
    };
    let proof = ca
        .audit
        .prove_consistency(local(request))
        .await
        .unwrap()
        .into_inner();
    let path: Vec<_> = proof
        .hashes
        .iter()
        .map(|hash| hash.as_slice().try_into().unwrap())
        .collect();
    assert!(verify_consistency(
        3,
        &old.root_hash.try_into().unwrap(),
        proof.new_size,
        &root,
        &path
    ));
    let request = audit_pb::InclusionRequest { index: 0, size: 99 };
    assert_eq!(
        ca.audit
            .prove_inclusion(local(request))
            .await
            .unwrap_err()
            .code(),
        Code::OutOfRange
    );
}

#[tokio::test]
async fn an_export_verifies_without_the_store() {
    let ca = fixture().await;
    ca.fill().await;
    let stream = ca
        .audit
        .export(local(audit_pb::ExportRequest { from_index: 0 }))
        .await
        .unwrap()
        .into_inner();
    let records: Vec<_> = stream.collect::<Result<Vec<_>, _>>().await.unwrap();
    let mut check = LogCheck::new(None, None);
    let mut segments = 0;
    for record in records {
        match record.item.unwrap() {
            Item::Leaf(leaf) => drop(check.leaf(leaf.index, &leaf.json).unwrap()),
            Item::Checkpoint(checkpoint) => {
                drop(check.checkpoint(&checkpoint.note).unwrap().clone());
            }
            Item::Segment(segment) => {
                assert_eq!(segment.records.split(|byte| *byte == b'\n').count(), 6);
                segments += 1;
            }
        }
    }
    assert_eq!((check.finish().unwrap().size, segments), (5, 1));
}

fn named(id: &str, path: &str) -> types::Entry {
    let mut message = entry_to_pb(&entry("x", path, "/node/local"));
    message.id = id.to_owned();
    message
}

#[tokio::test]
async fn entries_are_created_one_by_one_with_spires_codes() {
    let ca = fixture().await;
    let create = |entries| {
        local(pb::BatchCreateEntryRequest {
            entries,
            output_mask: None,
        })
    };
    let mut foreign = named("f", "/f");
    foreign.spiffe_id.as_mut().unwrap().trust_domain = "other.example".to_owned();
    foreign.parent_id.as_mut().unwrap().trust_domain = "other.example".to_owned();
    let mut bare = named("n", "/n");
    bare.selectors.clear();
    let batch = vec![
        named("", "/a"),
        named("b", "/b"),
        named("b", "/c"),
        named("d", "/a"),
        named("mesh:shop/x", "/m"),
        foreign,
        bare,
    ];
    let results = ca
        .entries
        .batch_create_entry(create(batch))
        .await
        .unwrap()
        .into_inner()
        .results;
    let codes: Vec<_> = results
        .iter()
        .map(|result| Code::from(result.status.as_ref().unwrap().code))
        .collect();
    assert_eq!(
        codes,
        [
            Code::Ok,
            Code::Ok,
            Code::AlreadyExists,
            Code::AlreadyExists,
            Code::FailedPrecondition,
            Code::InvalidArgument,
            Code::InvalidArgument
        ]
    );
    assert_eq!(
        results[3].entry.as_ref().unwrap().id,
        results[0].entry.as_ref().unwrap().id
    );
}

#[tokio::test]
async fn entries_are_changed_listed_by_page_and_filter_and_deleted() {
    let ca = fixture().await;
    let entries = vec![named("a", "/a"), named("b", "/b")];
    let request = pb::BatchCreateEntryRequest {
        entries,
        output_mask: None,
    };
    ca.entries.batch_create_entry(local(request)).await.unwrap();
    let update = named("b", "/b2");
    let request = pb::BatchUpdateEntryRequest {
        entries: vec![update, named("no", "/x")],
        ..Default::default()
    };
    let results = ca
        .entries
        .batch_update_entry(local(request))
        .await
        .unwrap()
        .into_inner()
        .results;
    assert_eq!(results[0].entry.as_ref().unwrap().revision_number, 1);
    assert_eq!(
        results[1].status.as_ref().unwrap().code,
        i32::from(Code::NotFound)
    );

    let mut names = ca.list(None).await;
    names.sort();
    assert_eq!(names, ["/a", "/b2"]);
    let filter = pb::list_entries_request::Filter {
        by_spiffe_id: Some(id_to_pb(&entry("x", "/b2", "/p").spiffe_id)),
        ..Default::default()
    };
    assert_eq!(ca.list(Some(filter)).await, ["/b2"]);

    let request = pb::BatchDeleteEntryRequest {
        ids: vec!["b".to_owned(), "b".to_owned()],
    };
    let results = ca
        .entries
        .batch_delete_entry(local(request))
        .await
        .unwrap()
        .into_inner()
        .results;
    let codes: Vec<_> = results
        .iter()
        .map(|result| Code::from(result.status.as_ref().unwrap().code))
        .collect();
    assert_eq!(codes, [Code::Ok, Code::NotFound]);
}

#[tokio::test]
async fn threat_18_an_agent_gets_its_own_entries_and_no_other() {
    let ca = fixture().await;
    let entries = vec![
        entry_to_pb(&entry("mine", "/mine", "/spire/agent/a")),
        entry_to_pb(&entry("theirs", "/theirs", "/spire/agent/b")),
    ];
    let request = pb::BatchCreateEntryRequest {
        entries,
        output_mask: None,
    };
    ca.entries.batch_create_entry(local(request)).await.unwrap();
    for (name, want) in [("a", "mine"), ("b", "theirs")] {
        let request = of_agent(&agent(name), pb::GetAuthorizedEntriesRequest::default());
        let found = ca
            .entries
            .get_authorized_entries(request)
            .await
            .unwrap()
            .into_inner()
            .entries;
        assert_eq!(
            found
                .iter()
                .map(|entry| entry.id.as_str())
                .collect::<Vec<_>>(),
            [want]
        );
    }
    let agent = agent("a");
    let stale = with_svid(
        &agent.id,
        "stale",
        pb::GetAuthorizedEntriesRequest::default(),
    );
    assert_eq!(
        ca.entries
            .get_authorized_entries(stale)
            .await
            .unwrap_err()
            .code(),
        Code::PermissionDenied
    );
    let listing = of_agent(&agent, pb::ListEntriesRequest::default());
    assert_eq!(
        ca.entries.list_entries(listing).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}
