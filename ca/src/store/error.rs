//! What can go wrong with the store, by who can mend it.

use std::path::PathBuf;

/// An operational failure of the store, or a data folder that must not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data folder cannot be made or read.
    #[error("the data folder `{path}` cannot be used")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the data folder.
    #[error("the data folder `{path}` is in use by another process; stop that one first")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The file is no database, or its pages are damaged.
    #[error(
        "the database `{path}` is corrupt ({detail}); restore it from a backup, or move it away to start anew"
    )]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What the check found.
        detail: String,
    },
    /// The database is of some other program.
    #[error("`{path}` is a database of another program; name another data folder")]
    ForeignDatabase {
        /// The database.
        path: PathBuf,
    },
    /// Written by a newer Ravelin.
    #[error(
        "the database `{path}` has schema {found}, this program knows up to {known}; run the newer program"
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// What it has.
        found: i64,
        /// What this program knows.
        known: i64,
    },
    /// The folder belongs to another trust domain.
    #[error(
        "the data folder `{path}` belongs to trust domain `{found}`, not `{wanted}`; name another folder or mend `trust_domain`"
    )]
    ForeignTrustDomain {
        /// The folder.
        path: PathBuf,
        /// Its trust domain.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// The audit log does not fit to its checkpoint or its key.
    #[error(
        "the audit log in `{path}` does not verify ({detail}); keep the folder for examination and restore a backup"
    )]
    Tampered {
        /// The database.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// A row does not say what the program wrote.
    #[error("a row of `{table}` cannot be read: {detail}")]
    Row {
        /// The table.
        table: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// An entry that breaks a rule.
    #[error("{0}")]
    Entry(#[from] ravelin_proto::entry::EntryError),
    /// Events past a limit.
    #[error("the audit log refuses the event: {0}")]
    Event(String),
    /// An earlier commit failed; the program must end and start again.
    #[error("the store stopped after a failed commit: {0}")]
    Stopped(String),
    /// The database's own error.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl StoreError {
    /// True when the same call may succeed later without anybody's help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(source) => matches!(source, sqlx::Error::PoolTimedOut),
            Self::Folder { .. }
            | Self::Locked { .. }
            | Self::Corrupt { .. }
            | Self::ForeignDatabase { .. }
            | Self::NewerSchema { .. }
            | Self::ForeignTrustDomain { .. }
            | Self::Tampered { .. }
            | Self::Row { .. }
            | Self::Entry(_)
            | Self::Event(_)
            | Self::Stopped(_) => false,
        }
    }
}
