//! The key that signs checkpoints: Ed25519, in `DATA/audit.key` with mode 0600.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ravelin_proto::jwks::{Jwk, JwkKey};
use ravelin_proto::jws::JwsAlgorithm;
use ravelin_proto::merkle::checkpoint::{Checkpoint, SignedNote, VerifierKey};
use ravelin_runtime::crypto::{JwsSigner, verify_jws};
use zeroize::Zeroizing;

use crate::store::StoreError;

/// The name of the key in the data folder.
pub const KEY_FILE: &str = "audit.key";
const KEY_BYTES_MAX: u64 = 4096;

/// The signing half, and the public half under the log's name.
#[derive(Debug)]
pub(crate) struct AuditKey {
    signer: JwsSigner,
    verifier: VerifierKey,
}

impl AuditKey {
    /// Reads the key of a data folder; `None` when there is none yet.
    pub(crate) fn read(data_dir: &Path, origin: &str) -> Result<Option<Self>, StoreError> {
        let path = data_dir.join(KEY_FILE);
        let folder = |source| StoreError::Folder {
            path: path.clone(),
            source,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(folder(error)),
        };
        let mut pkcs8 = Zeroizing::new(Vec::new());
        file.take(KEY_BYTES_MAX)
            .read_to_end(&mut pkcs8)
            .map_err(folder)?;
        Self::from_pkcs8(&pkcs8, origin)
            .map(Some)
            .ok_or_else(|| StoreError::Tampered {
                path,
                detail: "the checkpoint key is not an Ed25519 key in PKCS#8".to_owned(),
            })
    }

    /// Makes a new key and writes it durably, readable by the owner alone.
    pub(crate) fn create(data_dir: &Path, origin: &str) -> Result<Self, StoreError> {
        let path = data_dir.join(KEY_FILE);
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)
            .map_err(|error| StoreError::Event(format!("no checkpoint key: {error}")))?;
        let pkcs8 = Zeroizing::new(pair.serialize_der());
        write_private(data_dir, &path, &pkcs8).map_err(|source| StoreError::Folder {
            path: path.clone(),
            source,
        })?;
        Self::from_pkcs8(&pkcs8, origin).ok_or_else(|| StoreError::Tampered {
            path,
            detail: "the new checkpoint key cannot be used".to_owned(),
        })
    }

    fn from_pkcs8(pkcs8: &[u8], origin: &str) -> Option<Self> {
        let signer = JwsSigner::from_pkcs8(pkcs8).ok()?;
        if signer.algorithm() != JwsAlgorithm::EdDsa {
            return None;
        }
        let jwk = Jwk::from_spki(None, None, signer.spki()).ok()?;
        let JwkKey::Ed25519 { x } = jwk.key else {
            return None;
        };
        Some(Self {
            signer,
            verifier: VerifierKey {
                name: origin.to_owned(),
                public_key: x.as_slice().try_into().ok()?,
            },
        })
    }

    pub(crate) fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.signer
            .sign(message)
            .map_err(|error| StoreError::Event(format!("the checkpoint was not signed: {error}")))
    }
}

fn write_private(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}

/// The checkpoint of a note, once its signature by `key` has been checked.
pub fn open_note(note: &str, key: &VerifierKey) -> Option<Checkpoint> {
    let note = SignedNote::parse(note).ok()?;
    let signature = note.signature_of(key)?;
    let jwk = Jwk {
        kid: None,
        use_: None,
        alg: None,
        key: JwkKey::Ed25519 {
            x: key.public_key.to_vec(),
        },
        x5c: Vec::new(),
    };
    verify_jws(&jwk, JwsAlgorithm::EdDsa, note.body.as_bytes(), signature).ok()?;
    let checkpoint = Checkpoint::parse(&note.body).ok()?;
    (checkpoint.origin == key.name).then_some(checkpoint)
}
