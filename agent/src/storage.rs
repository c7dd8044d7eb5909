//! What survives a restart with the CA away: the agent's own SVID, the last snapshot, the
//! workloads' SVIDs. Folder 0700, files 0600, each with a digest and written whole or not at all.
//!
//! A file that does not read back is put aside, never trusted in part.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use prost::Message;
use ravelin_proto::pb::ravelin::v1::SyncResponse;
use ravelin_runtime::durable::{self, FolderLock, LockError};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::limits;

const MAGIC: &[u8; 8] = b"RVLAGT1\n";
const DIGEST_BYTES: usize = 32;
const FILE_MODE: u32 = 0o600;

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// It cannot be made or locked.
    #[error("cannot use the data folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Another agent uses it.
    #[error("the data folder `{}` is in use by another agent", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The reason.
        source: LockError,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// An SVID with its key, as it lies on disk.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct StoredSvid {
    /// Entry id; empty for the agent's own.
    #[prost(string, tag = "1")]
    pub entry_id: String,
    /// DER, leaf first.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8 DER.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// Revision of the entry.
    #[prost(uint64, tag = "4")]
    pub entry_revision: u64,
    /// Unix milliseconds.
    #[prost(int64, tag = "5")]
    pub issued_at_ms: i64,
}

impl std::fmt::Debug for StoredSvid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredSvid")
            .field("entry_id", &self.entry_id)
            .finish_non_exhaustive()
    }
}

impl Drop for StoredSvid {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// The workloads' SVIDs, as they lie on disk.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StoredSvids {
    /// One for each entry that has one.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<StoredSvid>,
}

/// The data folder of one agent, locked.
#[derive(Debug)]
pub(crate) struct Storage {
    folder: PathBuf,
    _lock: FolderLock,
}

/// Which file.
#[derive(Debug, Clone, Copy)]
enum Part {
    Node,
    Sync,
    Svids,
}

impl Part {
    fn file_name(self) -> &'static str {
        match self {
            Self::Node => "node.pb",
            Self::Sync => "sync.pb",
            Self::Svids => "svids.pb",
        }
    }
}

impl Storage {
    /// Makes the folder private and locks it.
    pub(crate) fn open(folder: &Path) -> Result<Self, StorageError> {
        let failed = |source: io::Error| StorageError::Folder {
            path: folder.to_owned(),
            source,
        };
        durable::create_private_dir(folder).map_err(|source| failed(io::Error::other(source)))?;
        let lock = durable::lock_folder(folder).map_err(|source| StorageError::Locked {
            path: folder.to_owned(),
            source,
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
        })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The agent's own SVID.
    pub(crate) fn load_node(&self) -> Option<StoredSvid> {
        self.load(Part::Node)
    }

    /// The last snapshot.
    pub(crate) fn load_sync(&self) -> Option<SyncResponse> {
        self.load(Part::Sync)
    }

    /// The workloads' SVIDs.
    pub(crate) fn load_svids(&self) -> StoredSvids {
        self.load(Part::Svids).unwrap_or_default()
    }

    /// Keeps the agent's own SVID.
    pub(crate) fn save_node(&self, svid: &StoredSvid) -> Result<(), StorageError> {
        self.save(Part::Node, svid)
    }

    /// Keeps the whole state of the sync stream.
    pub(crate) fn save_sync(&self, snapshot: &SyncResponse) -> Result<(), StorageError> {
        self.save(Part::Sync, snapshot)
    }

    /// Keeps the workloads' SVIDs.
    pub(crate) fn save_svids(&self, svids: &StoredSvids) -> Result<(), StorageError> {
        self.save(Part::Svids, svids)
    }

    fn save(&self, part: Part, message: &impl Message) -> Result<(), StorageError> {
        let path = self.folder.join(part.file_name());
        let sealed = seal(message);
        durable::write_atomically(&path, &sealed, FILE_MODE).map_err(|source| StorageError::Write {
            path,
            source: io::Error::other(source),
        })
    }

    fn load<M: Message + Default>(&self, part: Part) -> Option<M> {
        let path = self.folder.join(part.file_name());
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "cannot read back what was kept");
                return None;
            }
        };
        let message = unseal(&bytes).and_then(|body| M::decode(body).ok());
        if message.is_none() {
            let aside = path.with_extension("corrupt");
            tracing::error!(path = %path.display(), aside = %aside.display(), "file is damaged; putting it aside");
            if let Err(error) = std::fs::rename(&path, &aside) {
                tracing::warn!(path = %path.display(), %error, "cannot put the damaged file aside");
            }
        }
        message
    }
}

fn read_bounded(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?
        .take(limits::STORED_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn seal(message: &impl Message) -> Zeroizing<Vec<u8>> {
    let body = Zeroizing::new(message.encode_to_vec());
    let mut sealed = Zeroizing::new(Vec::with_capacity(MAGIC.len() + DIGEST_BYTES + body.len()));
    sealed.extend_from_slice(MAGIC);
    sealed.extend_from_slice(&Sha256::digest(&*body));
    sealed.extend_from_slice(&body);
    sealed
}

fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (digest, body) = rest.split_at_checked(DIGEST_BYTES)?;
    (Sha256::digest(body).as_slice() == digest).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn svid(key: u8) -> StoredSvid {
        StoredSvid {
            entry_id: "e".into(),
            chain: vec![vec![1]],
            key: vec![key],
            entry_revision: 3,
            issued_at_ms: 4,
        }
    }

    #[test]
    fn threat_11_what_is_kept_reads_back_and_only_the_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("agent");
        let storage = Storage::open(&data).unwrap();
        assert!(storage.load_node().is_none());
        storage.save_node(&svid(7)).unwrap();
        assert_eq!(storage.load_node().unwrap(), svid(7));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data), 0o700);
        assert_eq!(mode(&data.join("node.pb")), 0o600);
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_never_trusted_in_part() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(&folder.path().join("agent")).unwrap();
        storage.save_node(&svid(7)).unwrap();
        let path = storage.folder().join("node.pb");
        let good = std::fs::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(storage.load_node().is_none(), "byte {position}");
            assert!(!path.exists());
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(storage.load_node().is_none(), "half-written");
    }

    #[test]
    fn a_second_agent_on_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("agent");
        let _first = Storage::open(&data).unwrap();
        assert!(matches!(
            Storage::open(&data),
            Err(StorageError::Locked { .. })
        ));
    }

    #[test]
    fn threat_41_a_stored_svid_does_not_show_its_key() {
        assert!(!format!("{:?}", svid(77)).contains("77"));
    }
}
