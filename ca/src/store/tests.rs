//! The store's core: group commit, undo, what it refuses, what it finds again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::selector::Selector;
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::time::Timestamp;
use ravelin_runtime::clock::TestClock;

use super::{Change, Store, StoreError};
use crate::audit::{Event, Sequencer};

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::parse("shop.example").unwrap()
}

pub(crate) fn clock() -> TestClock {
    TestClock::new(Timestamp::from_unix_secs(1_800_000_000))
}

pub(crate) async fn open(folder: &Path) -> Store {
    Store::open(folder, &trust_domain(), clock().shared())
        .await
        .unwrap()
}

pub(crate) fn entry(id: &str, path: &str, parent: &str) -> RegistrationEntry {
    RegistrationEntry::new(
        id,
        SpiffeId::new(&trust_domain(), path).unwrap(),
        SpiffeId::new(&trust_domain(), parent).unwrap(),
        vec![Selector::parse("unix:uid:1000").unwrap()],
    )
}

#[tokio::test]
async fn a_failed_job_is_undone_and_its_neighbours_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let jobs = (0..20_u64).map(|number| {
        let store = store.clone();
        async move {
            store
                .write(move |tx| {
                    Box::pin(async move {
                        tx.audit(Event::new("test.ran", "test").with("number", number))?;
                        let entry = entry(&format!("e{number}"), "/a", "/node/local");
                        tx.change(Change::EntryUpserted(Arc::new(entry)));
                        if number % 2 == 1 {
                            return Err(StoreError::Event("odd".to_owned()));
                        }
                        Ok(())
                    })
                })
                .await
        }
    });
    let results = futures_util::future::join_all(jobs).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 10);
    assert_eq!(store.registry().entry_count(), 10);
    assert_eq!(*store.audit_sizes().borrow(), 11);
    assert_eq!(*store.revisions().borrow(), 10);
    let rows = store.changes_since(0).await.unwrap().unwrap();
    assert_eq!(rows.len(), 10);
    assert!(rows.iter().zip(1..).all(|(row, want)| row.revision == want));
    assert_eq!(store.changes_since(11).await.unwrap(), None);
}

#[tokio::test]
async fn callers_at_the_same_time_share_commits_and_get_neighbouring_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let sequencer = Sequencer::new(store.clone());
    let appends = (0..200).map(|_| {
        sequencer.append(vec![
            Event::new("a.one", "test"),
            Event::new("a.two", "test"),
        ])
    });
    let mut all = Vec::new();
    for leaves in futures_util::future::join_all(appends).await {
        let leaves = leaves.unwrap();
        assert_eq!(leaves[0].index + 1, leaves[1].index);
        all.extend(leaves.iter().map(|leaf| leaf.index));
    }
    all.sort_unstable();
    assert_eq!(all, (1..=400).collect::<Vec<_>>());
    let commits: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM audit_checkpoints")
        .fetch_one(store.readers())
        .await
        .unwrap();
    assert!(commits < 100, "{commits} commits for 200 callers");
}

#[tokio::test]
async fn a_store_opens_again_with_the_same_log() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..4_u64 {
        let store = open(folder.path()).await;
        Sequencer::new(store.clone())
            .append(vec![Event::new("test.ran", "test")])
            .await
            .unwrap();
        assert_eq!(*store.audit_sizes().borrow(), round + 1);
        store.close().await;
    }
}

#[tokio::test]
async fn threat_27_the_database_and_its_journal_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.file_name());
    }
    store.close().await;
}

#[tokio::test]
async fn a_data_folder_that_must_not_be_used_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let again = Store::open(folder.path(), &trust_domain(), clock().shared()).await;
    assert!(matches!(again, Err(StoreError::Locked { .. })), "{again:?}");
    store.close().await;

    let other = TrustDomain::parse("other.example").unwrap();
    let foreign = Store::open(folder.path(), &other, clock().shared()).await;
    assert!(
        matches!(foreign, Err(StoreError::ForeignTrustDomain { .. })),
        "{foreign:?}"
    );

    let database = folder.path().join(super::DATABASE_FILE);
    let cases: [(&str, &str); 3] = [
        ("PRAGMA user_version = 99", "newer"),
        (
            "PRAGMA user_version = 1; PRAGMA application_id = 7",
            "foreign",
        ),
        (
            "PRAGMA application_id = 1381387342; DELETE FROM audit_leaves",
            "tampered",
        ),
    ];
    for (damage, want) in cases {
        damage_with(&database, damage).await;
        let error = Store::open(folder.path(), &trust_domain(), clock().shared())
            .await
            .unwrap_err();
        let is_wanted = match want {
            "newer" => matches!(error, StoreError::NewerSchema { found: 99, .. }),
            "foreign" => matches!(error, StoreError::ForeignDatabase { .. }),
            _ => matches!(error, StoreError::Tampered { .. }),
        };
        assert!(is_wanted, "{want}: {error:?}");
    }
}

#[tokio::test]
async fn a_corrupt_database_is_refused_and_left_as_it_is() {
    for (name, offset, bytes) in [
        (
            "no database",
            0_usize,
            &b"not a database at all, sorry...."[..],
        ),
        ("damaged page", 4096, &[0xff; 3000][..]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        Sequencer::new(store.clone())
            .append((0..200).map(|_| Event::new("test.ran", "test")).collect())
            .await
            .unwrap();
        store.close().await;
        let database = folder.path().join(super::DATABASE_FILE);
        let mut content = std::fs::read(&database).unwrap();
        content[offset..offset + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&database, &content).unwrap();
        let error = Store::open(folder.path(), &trust_domain(), clock().shared())
            .await
            .unwrap_err();
        assert!(
            matches!(error, StoreError::Corrupt { .. }),
            "{name}: {error:?}"
        );
        assert_eq!(std::fs::read(&database).unwrap(), content, "{name}");
    }
}

#[tokio::test]
async fn time_in_the_log_never_runs_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let store = Store::open(folder.path(), &trust_domain(), clock.shared())
        .await
        .unwrap();
    let sequencer = Sequencer::new(store.clone());
    clock.advance(Duration::from_hours(1));
    sequencer.append(vec![Event::new("a", "t")]).await.unwrap();
    clock.set(Timestamp::from_unix_secs(1_000_000_000));
    sequencer.append(vec![Event::new("b", "t")]).await.unwrap();
    let times: Vec<i64> = sqlx::query_scalar("SELECT time_ms FROM audit_leaves ORDER BY idx")
        .fetch_all(store.readers())
        .await
        .unwrap();
    assert!(times.is_sorted(), "{times:?}");
}

pub(crate) async fn damage_with(database: &Path, statement: &'static str) {
    use sqlx::{ConnectOptions, Connection};
    let mut conn = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(database)
        .connect()
        .await
        .unwrap();
    sqlx::raw_sql(statement).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}
