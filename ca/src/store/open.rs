//! Opening a data folder: refuse what is not ours, create what is missing, check the log's end.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_runtime::clock::SharedClock;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Row, SqliteConnection};
use tokio::sync::watch;

use super::writer::{WriteTx, WriterHandle};
use super::{DATABASE_FILE, Denylist, Inner, Published, Store, StoreError, audit, statements};
use crate::audit::Event;
use crate::audit::key::{AuditKey, open_note};
use crate::audit::log::{AuditLog, OPENED, origin_of};
use crate::limits::{READ_CONNECTIONS_MAX, STORE_BUSY};
use crate::registry::Snapshot;

/// Tables of both halves, applied in this order.
pub(super) const SCHEMA: [&str; 2] = [
    include_str!("schema_state.sql"),
    include_str!("schema_issuance.sql"),
];
/// Grows with each change of the schema; a database with a greater one is refused.
pub(super) const SCHEMA_VERSION: i64 = 1;
/// "RVLN" in ASCII: marks the file as a store of ours.
const APPLICATION_ID: i64 = 0x5256_4c4e;

/// Where the number of the deny-list rests: it outlives the change log's old rows.
pub(super) const DENYLIST_NUMBER: &str = "denylist_number";

pub(super) async fn open(
    data_dir: &Path,
    trust_domain: &TrustDomain,
    clock: SharedClock,
) -> Result<Store, StoreError> {
    let lock = lock_folder(data_dir)?;
    let path = data_dir.join(DATABASE_FILE);
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .busy_timeout(STORE_BUSY)
        .foreign_keys(true)
        .disable_statement_logging();
    let corrupt = |error| corruption(&path, error);
    make_private(&path)?;

    let mut conn = options
        .clone()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await
        .map_err(|error| corrupt(error.into()))?;
    prepare(&mut conn, &path, trust_domain)
        .await
        .map_err(corrupt)?;
    let published = Arc::new(published(&mut conn).await.map_err(corrupt)?);
    let (log, is_new) = audit_log(&mut conn, data_dir, trust_domain)
        .await
        .map_err(corrupt)?;
    let verifier_key = log.verifier_key();
    published.audit_size.send_replace(log.size());
    let readers = SqlitePoolOptions::new()
        .max_connections(READ_CONNECTIONS_MAX)
        .connect_with(options.read_only(true))
        .await?;
    let tx = WriteTx::new(conn, log, Arc::clone(&published), clock.now(), lock);
    let store = Store {
        inner: Arc::new(Inner {
            data_dir: data_dir.to_owned(),
            trust_domain: trust_domain.clone(),
            verifier_key: verifier_key.clone(),
            writer: WriterHandle::start(tx, Arc::clone(&clock)),
            clock,
            readers,
            published,
        }),
    };
    if is_new {
        let opened = Event::new(OPENED, "ca")
            .with("origin", origin_of(trust_domain))
            .with("trust_domain", trust_domain.as_str())
            .with("verifier_key", verifier_key);
        store
            .write(move |tx| Box::pin(async move { tx.audit(opened) }))
            .await?;
    }
    Ok(store)
}

/// Makes the folder (0700) where needed and locks it for this process.
fn lock_folder(data_dir: &Path) -> Result<File, StoreError> {
    let folder = |source| StoreError::Folder {
        path: data_dir.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(folder)?;
    let lock = make_private(&data_dir.join("ca.db.lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
            path: data_dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(folder(source)),
    }
}

/// Opens a file that only its owner may read, made where it is missing. SQLite gives the files
/// beside a database the database's own mode.
fn make_private(path: &Path) -> Result<File, StoreError> {
    let file = |source| StoreError::Folder {
        path: path.to_owned(),
        source,
    };
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(file)?;
    opened
        .set_permissions(Permissions::from_mode(0o600))
        .map_err(file)?;
    Ok(opened)
}

/// Says `corrupt` where SQLite says that the file is damaged or no database (codes 11 and 26).
pub(super) fn corruption(path: &Path, error: StoreError) -> StoreError {
    let StoreError::Database(sqlx::Error::Database(database)) = &error else {
        return error;
    };
    let code: i64 = database
        .code()
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    if matches!(code & 0xff, 11 | 26) {
        return StoreError::Corrupt {
            path: path.to_owned(),
            detail: database.message().to_owned(),
        };
    }
    error
}

async fn number(conn: &mut SqliteConnection, text: &'static str) -> Result<i64, StoreError> {
    Ok(sqlx::query(text).fetch_one(conn).await?.try_get(0)?)
}

async fn prepare(
    conn: &mut SqliteConnection,
    path: &Path,
    trust_domain: &TrustDomain,
) -> Result<(), StoreError> {
    let application = number(conn, "PRAGMA application_id").await?;
    let version = number(conn, "PRAGMA user_version").await?;
    let tables = number(conn, "SELECT COUNT(*) FROM sqlite_master").await?;
    if application != APPLICATION_ID && (tables > 0 || application != 0) {
        return Err(StoreError::ForeignDatabase {
            path: path.to_owned(),
        });
    }
    if version > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found: version,
            known: SCHEMA_VERSION,
        });
    }
    if tables > 0 {
        let row = sqlx::query("PRAGMA quick_check(1)")
            .fetch_one(&mut *conn)
            .await?;
        let found: String = row.try_get(0)?;
        if found != "ok" {
            return Err(StoreError::Corrupt {
                path: path.to_owned(),
                detail: found,
            });
        }
    }
    apply_schema(conn).await?;
    bind_trust_domain(conn, path, trust_domain).await
}

async fn apply_schema(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *conn).await?;
    for schema in SCHEMA {
        sqlx::raw_sql(schema).execute(&mut *conn).await?;
    }
    // The numbers are SCHEMA_VERSION and APPLICATION_ID; a pragma takes no bound value.
    sqlx::raw_sql("PRAGMA user_version = 1; PRAGMA application_id = 1381387342; COMMIT")
        .execute(conn)
        .await?;
    Ok(())
}

async fn bind_trust_domain(
    conn: &mut SqliteConnection,
    path: &Path,
    trust_domain: &TrustDomain,
) -> Result<(), StoreError> {
    let found = meta(conn, "trust_domain").await?;
    match found {
        Some(found) if found == trust_domain.as_str() => Ok(()),
        Some(found) => Err(StoreError::ForeignTrustDomain {
            path: path.parent().unwrap_or(path).to_owned(),
            found,
            wanted: trust_domain.to_string(),
        }),
        None => {
            sqlx::query(statements::META_PUT)
                .bind("trust_domain")
                .bind(trust_domain.as_str())
                .execute(conn)
                .await?;
            Ok(())
        }
    }
}

async fn meta(conn: &mut SqliteConnection, name: &str) -> Result<Option<String>, StoreError> {
    let row = sqlx::query(statements::META_GET)
        .bind(name)
        .fetch_optional(conn)
        .await?;
    row.map(|row| row.try_get(0).map_err(StoreError::from))
        .transpose()
}

async fn published(conn: &mut SqliteConnection) -> Result<Published, StoreError> {
    let row = sqlx::query(statements::CHANGES_BOUNDS)
        .fetch_one(&mut *conn)
        .await?;
    let revision = u64::try_from(row.try_get::<i64, _>(1)?).unwrap_or(0);
    let entries = super::entries::all(conn).await?;
    let denylist = Denylist {
        number: meta(conn, DENYLIST_NUMBER)
            .await?
            .and_then(|number| number.parse().ok())
            .unwrap_or(0),
        entries: super::denylist::all(conn).await?,
    };
    let mesh = super::mesh::newest(conn).await?;
    Ok(Published {
        snapshot: ArcSwap::from_pointee(Snapshot::of_entries(revision, entries)),
        revision: watch::Sender::new(revision),
        audit_size: watch::Sender::new(0),
        mesh: watch::Sender::new(mesh),
        recent: std::sync::Mutex::default(),
        denylist: watch::Sender::new(Arc::new(denylist)),
    })
}

/// The log in memory, checked against its newest checkpoint; true when it is new.
async fn audit_log(
    conn: &mut SqliteConnection,
    data_dir: &Path,
    trust_domain: &TrustDomain,
) -> Result<(AuditLog, bool), StoreError> {
    let tampered = |detail: &str| StoreError::Tampered {
        path: data_dir.join(DATABASE_FILE),
        detail: detail.to_owned(),
    };
    let origin = origin_of(trust_domain);
    let hashes = audit::leaf_hashes(conn).await?;
    let last = audit::last_checkpoint(conn).await?;
    let key = AuditKey::read(data_dir, &origin)?;
    let (key, last) = match (key, last) {
        (Some(key), Some(last)) => (key, last),
        (key, None) if hashes.is_empty() => {
            let key = match key {
                Some(key) => key,
                None => AuditKey::create(data_dir, &origin)?,
            };
            return Ok((AuditLog::new(origin, key, &[], 0), true));
        }
        (_, None) => return Err(tampered("leaves stand without a checkpoint")),
        (None, Some(_)) => return Err(tampered("the checkpoint key `audit.key` is missing")),
    };
    let checkpoint = open_note(&last.note, key.verifier())
        .ok_or_else(|| tampered("the newest checkpoint is not signed by `audit.key`"))?;
    let log = AuditLog::new(origin, key, &hashes, last.number);
    if checkpoint.size != log.size() || checkpoint.size != last.size {
        return Err(tampered(
            "the newest checkpoint has another size than the log",
        ));
    }
    if checkpoint.root != log.root() {
        return Err(tampered(
            "the newest checkpoint has another root than the log",
        ));
    }
    Ok((log, false))
}
