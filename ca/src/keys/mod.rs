//! Authority keys at rest: each is encrypted with XChaCha20-Poly1305 under a key-encryption key and bound to the name
//! of its authority, so that rows cannot be swapped. The key-encryption key is a file of mode 0600.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ravelin_proto::secret::Secret;
use ravelin_runtime::{crypto, durable};

/// The name of the key-encryption key in the data folder.
pub const KEK_FILE: &str = "kek";
const KEK_BYTES: usize = 32;
const KEK_MODE: u32 = 0o600;
const NONCE_BYTES: usize = 24;
/// First byte of a sealed key: the format.
const FORMAT: u8 = 1;

/// Why keys cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The key-encryption key is not there, but keys that need it are.
    #[error(
        "the key-encryption key `{0}` is missing; restore it, for without it no authority key can be read"
    )]
    Missing(PathBuf),
    /// It cannot be read or written.
    #[error("the key-encryption key `{path}` cannot be used")]
    File {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("the key-encryption key `{path}` has mode {mode:04o}; it must be 0600 (chmod 600 {path})", path = path.display())]
    Mode {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not 32 bytes.
    #[error("the key-encryption key `{0}` is not {KEK_BYTES} bytes, raw or in hex")]
    Length(PathBuf),
    /// Another key, another name, or changed bytes.
    #[error(
        "the key of authority `{0}` cannot be decrypted: another key-encryption key, or changed data"
    )]
    Sealed(String),
}

/// Seals and opens authority keys.
#[derive(Debug, Clone)]
pub struct KeyWrap {
    kek: Secret<[u8; KEK_BYTES]>,
}

impl KeyWrap {
    /// Reads the key-encryption key; makes it when it is missing and `may_create`.
    pub fn open(
        data_dir: &Path,
        kek_file: Option<&Path>,
        may_create: bool,
    ) -> Result<Self, KeyStoreError> {
        let path = kek_file.map_or_else(|| data_dir.join(KEK_FILE), Path::to_owned);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if !may_create {
                    return Err(KeyStoreError::Missing(path));
                }
                return Self::create(path);
            }
            Err(source) => return Err(KeyStoreError::File { path, source }),
        };
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyStoreError::Mode { path, mode });
        }
        let file = |source| KeyStoreError::File {
            path: path.clone(),
            source,
        };
        if metadata.len() > 1024 {
            return Err(KeyStoreError::Length(path));
        }
        let bytes = Secret::new(fs::read(&path).map_err(file)?);
        let kek = parse_kek(&bytes).ok_or(KeyStoreError::Length(path))?;
        Ok(Self {
            kek: Secret::new(kek),
        })
    }

    /// A key-encryption key that nobody keeps, for tests.
    pub fn ephemeral() -> Self {
        Self {
            kek: Secret::new(crypto::random_bytes()),
        }
    }

    fn create(path: PathBuf) -> Result<Self, KeyStoreError> {
        let kek = Secret::new(crypto::random_bytes::<KEK_BYTES>());
        match durable::write_atomically(&path, kek.as_slice(), KEK_MODE) {
            Ok(()) => Ok(Self { kek }),
            Err(error) => Err(KeyStoreError::File {
                path,
                source: error.source,
            }),
        }
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.kek).into())
    }

    /// Encrypts a key under the name of its authority.
    pub fn seal(&self, name: &str, key: &[u8]) -> Result<Vec<u8>, KeyStoreError> {
        let nonce = crypto::random_bytes::<NONCE_BYTES>();
        let payload = Payload {
            msg: key,
            aad: name.as_bytes(),
        };
        let sealed = self
            .cipher()
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| KeyStoreError::Sealed(name.to_owned()))?;
        Ok([&[FORMAT][..], &nonce, &sealed].concat())
    }

    /// Decrypts the key of that authority.
    pub fn unseal(&self, name: &str, sealed: &[u8]) -> Result<Secret<Vec<u8>>, KeyStoreError> {
        let refuse = || KeyStoreError::Sealed(name.to_owned());
        let (format, rest) = sealed.split_first().ok_or_else(refuse)?;
        let (nonce, msg) = rest.split_at_checked(NONCE_BYTES).ok_or_else(refuse)?;
        if *format != FORMAT {
            return Err(refuse());
        }
        let payload = Payload {
            msg,
            aad: name.as_bytes(),
        };
        let key = self
            .cipher()
            .decrypt(XNonce::from_slice(nonce), payload)
            .map_err(|_| refuse())?;
        Ok(Secret::new(key))
    }
}

fn parse_kek(bytes: &[u8]) -> Option<[u8; KEK_BYTES]> {
    if let Ok(kek) = bytes.try_into() {
        return Some(kek);
    }
    let mut kek = [0; KEK_BYTES];
    hex::decode_to_slice(bytes.trim_ascii(), &mut kek).ok()?;
    Some(kek)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn threat_27_a_key_at_rest_is_encrypted_and_bound_to_its_name() {
        let wrap = KeyWrap::ephemeral();
        let sealed = wrap.seal("x509/a", b"canary-key").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        assert_eq!(
            wrap.unseal("x509/a", &sealed).unwrap().as_slice(),
            b"canary-key"
        );
        assert!(wrap.unseal("x509/b", &sealed).is_err(), "another name");
        assert!(
            KeyWrap::ephemeral().unseal("x509/a", &sealed).is_err(),
            "another key"
        );
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(wrap.unseal("x509/a", &changed).is_err(), "byte {index}");
            assert!(
                wrap.unseal("x509/a", &sealed[..index]).is_err(),
                "cut at {index}"
            );
        }
        assert_eq!(format!("{wrap:?}"), "KeyWrap { kek: <secret> }");
    }

    #[test]
    fn threat_27_the_key_encryption_key_is_private_and_never_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let open = |may_create| KeyWrap::open(folder.path(), None, may_create);
        assert!(matches!(open(false), Err(KeyStoreError::Missing(_))));
        // A file that somebody put where the key is written first does not become the key's.
        let beside = folder.path().join("kek.new");
        fs::write(&beside, "").unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o666)).unwrap();
        let sealed = open(true).unwrap().seal("a", b"key").unwrap();
        let path = folder.path().join(KEK_FILE);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            open(false)
                .unwrap()
                .unseal("a", &sealed)
                .unwrap()
                .as_slice(),
            b"key"
        );
        let text = hex::encode(fs::read(&path).unwrap()) + "\n";
        fs::write(&path, text).unwrap();
        assert!(
            open(false).unwrap().unseal("a", &sealed).is_ok(),
            "hex is as good"
        );
        fs::write(&path, b"half").unwrap();
        assert!(matches!(open(true), Err(KeyStoreError::Length(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            open(true),
            Err(KeyStoreError::Mode { mode: 0o640, .. })
        ));
    }
}
