//! Tampering with a copy of the store, record by record, and what verification says.

use std::path::{Path, PathBuf};

use ravelin_policies::{SourceFile, set_digest};
use ravelin_proto::pb::ravelin::v1::Decision;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use super::{Event, Sequencer, VerifyFailure, VerifyOptions, verify_store, verify_store_with};
use crate::store::tests::{entry, open};
use crate::store::{
    DATABASE_FILE, DeniedIdentity, DeniedSubject, MeshDraft, Segment, Store, StoreError,
    decision_json,
};

/// Tables that the log covers.
const TABLES: [&str; 10] = [
    "meta",
    "changes",
    "entries",
    "mesh_revisions",
    "mesh_contents",
    "mesh_files",
    "denylist",
    "audit_leaves",
    "audit_checkpoints",
    "decision_segments",
];

async fn put(store: &Store, id: &str, path: &str, parent: &str) {
    let new = entry(id, path, parent);
    store
        .write::<_, StoreError, _>(move |tx| {
            Box::pin(async move { tx.put_entry(new, "uid:0").await })
        })
        .await
        .unwrap();
}

async fn publish(store: &Store, number: u8) {
    let files = [
        ("ravelin.yaml".to_owned(), "kind: MeshConfig\n".to_owned()),
        ("policies/a.yaml".to_owned(), format!("number: {number}\n")),
    ];
    let sources: Vec<SourceFile> = files
        .iter()
        .map(|(path, content)| SourceFile {
            path: path.clone(),
            content: content.clone(),
        })
        .collect();
    let draft = MeshDraft {
        digest: set_digest(&sources),
        git_commit: format!("{number:040x}"),
        files: files
            .into_iter()
            .map(|(path, text)| (path, text.into_bytes()))
            .collect(),
        rolled_back_to: 0,
    };
    store
        .write::<_, StoreError, _>(move |tx| {
            Box::pin(async move { tx.publish_mesh(&draft, "uid:0").await })
        })
        .await
        .unwrap();
}

async fn deny(store: &Store, id: &str) {
    let entry = DeniedIdentity {
        id: id.to_owned(),
        subject: DeniedSubject::Serial("abc123".to_owned()),
        reason: "stolen".to_owned(),
        created_at: Timestamp::from_unix_secs(1_800_000_000),
        expires_at: Timestamp::from_unix_secs(1_800_003_600),
        created_by: "uid:0".to_owned(),
        serials: vec!["1".to_owned(), "2".to_owned()],
        issued_until: None,
    };
    store
        .write::<_, StoreError, _>(move |tx| {
            Box::pin(async move { tx.add_denied(entry, "uid:0").await })
        })
        .await
        .unwrap();
}

fn decision(number: u64) -> Decision {
    Decision {
        time_ms: 1_800_000_000_000 + i64::try_from(number).unwrap(),
        call_id: format!("call-{number}"),
        workload: "spiffe://shop.example/ns/shop/sa/payments".to_owned(),
        peer: "spiffe://shop.example/ns/shop/sa/orders".to_owned(),
        peer_serial: format!("{number:x}"),
        is_allowed: number.is_multiple_of(2),
        code: "allowed".to_owned(),
        policy: "shop/payments".to_owned(),
        rule: 1,
        jti: format!("jti-{number}"),
        ..Decision::default()
    }
}

pub(crate) async fn seal(store: &Store, id: &str, first: u64, count: u64) -> bool {
    let agent = SpiffeId::parse("spiffe://shop.example/spire/agent/a").unwrap();
    let segment = Segment {
        segment_id: id.to_owned(),
        lines: (first..first + count)
            .map(|number| decision_json(&decision(number)))
            .collect(),
        lost: 3,
    };
    store
        .write::<_, StoreError, _>(move |tx| {
            Box::pin(async move { tx.seal_decisions(&segment, &agent).await })
        })
        .await
        .unwrap()
}

/// A closed store with some of everything; returns its database's bytes.
pub(crate) async fn full_store(folder: &Path) -> Vec<u8> {
    let store = open(folder).await;
    let sequencer = Sequencer::new(store.clone());
    put(&store, "alias", "/node/local", "/spire/server").await;
    for number in 0..6 {
        put(
            &store,
            &format!("e{number}"),
            &format!("/w/{number}"),
            "/node/local",
        )
        .await;
        publish(&store, number).await;
        let events = (0..20).map(|serial| {
            Event::new("svid.issued", "spiffe://shop.example/spire/agent/a")
                .with("serial", format!("{number:x}{serial:02x}"))
                .with("spiffe_id", format!("spiffe://shop.example/w/{number}"))
        });
        sequencer.append(events.collect()).await.unwrap();
        deny(&store, &format!("d{number}")).await;
        assert!(seal(&store, &format!("s{number}"), 100 * u64::from(number), 10).await);
    }
    put(&store, "e1", "/w/one", "/node/local").await;
    store
        .write::<_, StoreError, _>(|tx| {
            Box::pin(async move {
                tx.delete_entry("e2", "uid:0").await?;
                tx.remove_denied("d1", "uid:0", "found again").await
            })
        })
        .await
        .unwrap();
    store.close().await;
    std::fs::read(folder.join(DATABASE_FILE)).unwrap()
}

async fn connect(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(path)
        .synchronous(SqliteSynchronous::Off)
        .connect()
        .await
        .unwrap()
}

fn copy(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("copy.db");
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.join(format!("copy.db{ending}")));
    }
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A column of a table, as SQLite tells it.
struct Column {
    name: String,
    kind: String,
    is_key: bool,
}

async fn columns_of(conn: &mut SqliteConnection, table: &str) -> Vec<Column> {
    let info = format!("PRAGMA table_info({table})");
    let rows = sqlx::raw_sql(AssertSqlSafe(info))
        .fetch_all(conn)
        .await
        .unwrap();
    rows.iter()
        .map(|row| Column {
            name: row.get(1),
            kind: row.get(2),
            is_key: row.get::<i64, _>(5) > 0,
        })
        .collect()
}

/// For four rows of a table: each without it, and with each column changed in two ways.
async fn changes_of(conn: &mut SqliteConnection, table: &str, columns: &[Column]) -> Vec<String> {
    let keys: Vec<&String> = columns
        .iter()
        .filter(|column| column.is_key)
        .map(|column| &column.name)
        .collect();
    let quoted: Vec<String> = keys.iter().map(|key| format!("quote({key})")).collect();
    let text = format!("SELECT {} FROM {table} ORDER BY 1", quoted.join("||'|'||"));
    let rows = sqlx::raw_sql(AssertSqlSafe(text))
        .fetch_all(conn)
        .await
        .unwrap();
    let mut all = Vec::new();
    for row in rows.iter().step_by(rows.len().div_ceil(4).max(1)) {
        let values: String = row.get(0);
        let place: Vec<String> = keys
            .iter()
            .zip(values.split('|'))
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        let place = place.join(" AND ");
        all.push(format!("DELETE FROM {table} WHERE {place}"));
        for Column { name, kind, .. } in columns {
            let changes = match kind.as_str() {
                "INTEGER" => [format!("{name} + 1"), format!("-{name} - 1")],
                "BLOB" => [
                    format!("CAST(substr({name}, 2) AS BLOB)"),
                    "x'00'".to_owned(),
                ],
                _ => [
                    format!("{name} || ' '"),
                    format!("'x' || substr({name}, 2)"),
                ],
            };
            for change in changes {
                all.push(format!(
                    "UPDATE {table} SET {name} = {change} WHERE {place}"
                ));
            }
        }
    }
    all
}

/// A copy of a row under another key, for each column of the key.
fn additions_to(table: &str, columns: &[Column]) -> Vec<String> {
    let has_unique = |name: &str| table == "audit_checkpoints" || name == "leaf_index";
    columns
        .iter()
        .filter(|column| column.is_key)
        .map(|key| {
            let values: Vec<String> = columns
                .iter()
                .map(|Column { name, kind, .. }| match kind.as_str() {
                    "INTEGER" if *name == key.name || has_unique(name) => {
                        format!("{name} + 1000000")
                    }
                    "TEXT" if *name == key.name => format!("{name} || 'x'"),
                    _ => name.clone(),
                })
                .collect();
            let values = values.join(", ");
            format!("INSERT INTO {table} SELECT {values} FROM {table} LIMIT 1")
        })
        .collect()
}

/// Neighbours that change places.
fn swaps() -> Vec<String> {
    let swap = |table: &str, key: &str, columns: &str, first: u64| {
        format!(
            "CREATE TEMP TABLE t AS SELECT * FROM {table} WHERE {key} IN ({first}, {first} + 1); \
             UPDATE {table} SET ({columns}) = \
             (SELECT {columns} FROM t WHERE t.{key} = 2 * {first} + 1 - {table}.{key}) \
             WHERE {key} IN ({first}, {first} + 1)"
        )
    };
    let columns = "time_ms, kind, actor, spiffe_id, agent_id, serial, jti, json, hash";
    let leaves = (1..120)
        .step_by(7)
        .map(|first| swap("audit_leaves", "idx", columns, first));
    let checkpoints = (1..6).map(|first| swap("audit_checkpoints", "number", "note", first));
    leaves.chain(checkpoints).collect()
}

/// Every statement that changes, removes, adds or swaps one record.
async fn mutations(bytes: &[u8], folder: &Path) -> Vec<String> {
    let path = copy(folder, bytes);
    let mut conn = connect(&path).await;
    let mut all = swaps();
    for table in TABLES.iter().chain(&["decisions"]) {
        let columns = columns_of(&mut conn, table).await;
        all.extend(changes_of(&mut conn, table, &columns).await);
        all.extend(additions_to(table, &columns));
    }
    conn.close().await.unwrap();
    all
}

#[tokio::test]
async fn threat_33_any_single_changed_removed_added_or_swapped_record_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = full_store(folder.path()).await;
    let report = verify_store(folder.path()).await.unwrap();
    assert_eq!(
        (report.entries, report.mesh_revisions, report.decisions),
        (6, 6, 60)
    );
    let scratch = tempfile::tempdir().unwrap();
    let mut tried = 0;
    for mutation in mutations(&bytes, scratch.path()).await {
        let path = copy(scratch.path(), &bytes);
        let mut conn = connect(&path).await;
        let done = sqlx::raw_sql(AssertSqlSafe(mutation.clone()))
            .execute(&mut conn)
            .await;
        conn.close().await.unwrap();
        if !done.is_ok_and(|done| done.rows_affected() > 0) {
            continue;
        }
        tried += 1;
        let result = verify_store(&path).await;
        assert!(
            matches!(
                result,
                Err(VerifyFailure::Tampered(_) | VerifyFailure::Unreadable(_))
            ),
            "not found: {mutation}"
        );
    }
    assert!(tried > 400, "only {tried} mutations");
}

/// Every value of every covered table.
async fn dump(conn: &mut SqliteConnection) -> Vec<String> {
    let mut all = Vec::new();
    for table in TABLES.iter().chain(&["decisions"]) {
        let columns = columns_of(conn, table)
            .await
            .iter()
            .map(|column| format!("quote({})", column.name))
            .collect::<Vec<_>>()
            .join("||','||");
        let text = format!("SELECT {columns} FROM {table} ORDER BY 1");
        let rows = sqlx::raw_sql(AssertSqlSafe(text))
            .fetch_all(&mut *conn)
            .await
            .unwrap();
        all.extend(
            rows.iter()
                .map(|row| format!("{table}:{}", row.get::<String, _>(0))),
        );
    }
    all
}

#[tokio::test]
async fn threat_33_a_flipped_byte_in_the_file_is_found_or_changes_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = full_store(folder.path()).await;
    let scratch = tempfile::tempdir().unwrap();
    let path = copy(scratch.path(), &bytes);
    let mut conn = connect(&path).await;
    let original = dump(&mut conn).await;
    conn.close().await.unwrap();
    let mut found = 0;
    // Strides that are prime, so that every kind of page and place is met.
    for position in (0..bytes.len()).step_by((bytes.len() / 300) | 1) {
        let mut changed = bytes.clone();
        changed[position] ^= 1 << (position % 8);
        let path = copy(scratch.path(), &changed);
        if verify_store(&path).await.is_err() {
            found += 1;
            continue;
        }
        let mut conn = connect(&path).await;
        let same = dump(&mut conn).await == original;
        conn.close().await.unwrap();
        assert!(
            same,
            "the flip at byte {position} changed a record and was not found"
        );
    }
    assert!(found > 100, "only {found} flips mattered");
}

#[tokio::test]
async fn threat_34_a_cut_end_and_an_old_copy_are_found_by_a_kept_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let sequencer = Sequencer::new(store.clone());
    sequencer.append(vec![Event::new("a", "t")]).await.unwrap();
    store.close().await;
    let old = std::fs::read(folder.path().join(DATABASE_FILE)).unwrap();
    let store = open(folder.path()).await;
    let sequencer = Sequencer::new(store.clone());
    sequencer
        .append(vec![Event::new("b", "t"), Event::new("c", "t")])
        .await
        .unwrap();
    let witness = store.checkpoint().await.unwrap().note;
    let key = store.verifier_key().to_owned();
    sequencer.append(vec![Event::new("d", "t")]).await.unwrap();
    store.close().await;
    let new = std::fs::read(folder.path().join(DATABASE_FILE)).unwrap();

    let options = VerifyOptions {
        verifier_key: Some(key),
        witness: Some(witness),
    };
    let scratch = tempfile::tempdir().unwrap();
    let path = copy(scratch.path(), &new);
    assert_eq!(
        verify_store_with(&path, &options).await.unwrap().log.size,
        5
    );

    let path = copy(scratch.path(), &old);
    assert!(
        verify_store(&path).await.is_ok(),
        "an old copy is whole in itself"
    );
    let error = verify_store_with(&path, &options).await.unwrap_err();
    assert!(error.to_string().contains("its end was cut off"), "{error}");

    for (cut, want) in [
        ("DELETE FROM audit_leaves WHERE idx = 4", "covers 5 leaves"),
        (
            "DELETE FROM audit_checkpoints WHERE number = 4",
            "goes on behind its last checkpoint",
        ),
        (
            "DELETE FROM audit_leaves WHERE idx >= 2; DELETE FROM audit_checkpoints WHERE number >= 3",
            "its end was cut off",
        ),
    ] {
        let path = copy(scratch.path(), &new);
        crate::store::tests::damage_with(&path, cut).await;
        let error = verify_store_with(&path, &options).await.unwrap_err();
        assert!(error.to_string().contains(want), "{cut}: {error}");
    }

    let other = tempfile::tempdir().unwrap();
    let fork = open(other.path()).await;
    fork.close().await;
    let error = verify_store_with(other.path(), &options).await.unwrap_err();
    assert!(
        matches!(error, VerifyFailure::Tampered(_) | VerifyFailure::Witness),
        "{error}"
    );
}

#[tokio::test]
async fn a_segment_that_is_delivered_twice_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    assert!(seal(&store, "s", 0, 5).await);
    let size = *store.audit_sizes().borrow();
    assert!(!seal(&store, "s", 0, 5).await);
    assert_eq!(*store.audit_sizes().borrow(), size);
    store.close().await;
    assert_eq!(verify_store(folder.path()).await.unwrap().decisions, 5);
}

#[tokio::test]
async fn a_store_verifies_while_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let sequencer = Sequencer::new(store.clone());
    let writing = async {
        for number in 0..40_u64 {
            sequencer
                .append(vec![Event::new("a", "t").with("n", number)])
                .await
                .unwrap();
            put(&store, "e", &format!("/w/{number}"), "/node/local").await;
        }
    };
    let verifying = async {
        for _ in 0..10 {
            verify_store(folder.path()).await.unwrap();
        }
    };
    tokio::join!(writing, verifying);
}
