//! The data folder of `up`: private, locked, of one trust domain.

use crate::exit::{Failure, chain};
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_runtime::durable::{self, FolderLock};
use std::path::{Path, PathBuf};

/// `sun_path` of a Unix socket address holds 108 bytes with its end (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;
const TRUST_DOMAIN_FILE: &str = "trust-domain";

/// Paths in the folder; the lock is held for as long as this lives.
#[derive(Debug)]
pub(crate) struct UpFolder {
    root: PathBuf,
    _lock: FolderLock,
}

impl UpFolder {
    /// Creates or opens the folder.
    pub(crate) fn open(path: &Path, trust_domain: &TrustDomain) -> Result<Self, Failure> {
        durable::create_private_dir(path).map_err(|error| Failure::file("create", path, error))?;
        let root = path
            .canonicalize()
            .map_err(|error| Failure::file("open", path, error))?;
        let lock = durable::lock_folder(&root).map_err(|error| {
            Failure::usage(chain(&error))
                .with_help("another `ravelin up` runs there: end it with Ctrl-C, or name another folder with --data")
        })?;
        let folder = Self { root, _lock: lock };
        folder.check_trust_domain(path, trust_domain)?;
        folder.check_socket_paths()?;
        for name in ["ca", "agent", "proxies", "logs"] {
            let below = folder.root.join(name);
            durable::create_private_dir(&below)
                .map_err(|error| Failure::file("create", &below, error))?;
        }
        Ok(folder)
    }

    fn check_trust_domain(&self, named: &Path, trust_domain: &TrustDomain) -> Result<(), Failure> {
        let marker = self.root.join(TRUST_DOMAIN_FILE);
        match std::fs::read_to_string(&marker) {
            Ok(text) if text.trim() == trust_domain.as_str() => Ok(()),
            Ok(text) => Err(Failure::usage(format!(
                "the folder `{}` holds the trust domain `{}`, and the mesh is of `{trust_domain}`",
                named.display(),
                crate::output::escape_text(text.trim()),
            ))
            .with_help(format!(
                "name another folder with --data; `{}` was left as it is",
                named.display()
            ))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = format!("{trust_domain}\n");
                durable::write_atomically(&marker, text.as_bytes(), 0o600)
                    .map_err(|error| Failure::file("write", &marker, error))
            }
            Err(error) => Err(Failure::file("read", &marker, error)),
        }
    }

    fn check_socket_paths(&self) -> Result<(), Failure> {
        let longest = self.agent_admin_socket();
        let bytes = longest.as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(Failure::usage(format!(
                "`{}` has {bytes} bytes, and a Unix socket's path at most {SOCKET_PATH_BYTES_MAX}",
                longest.display()
            ))
            .with_help("name a folder with a shorter path with --data"));
        }
        Ok(())
    }

    /// The folder itself, absolute.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn ca_data(&self) -> PathBuf {
        self.root.join("ca")
    }

    pub(crate) fn ca_admin_socket(&self) -> PathBuf {
        self.root.join("ca/admin.sock")
    }

    pub(crate) fn ca_config(&self) -> PathBuf {
        self.root.join("ca.toml")
    }

    pub(crate) fn agent_data(&self) -> PathBuf {
        self.root.join("agent")
    }

    pub(crate) fn agent_socket(&self) -> PathBuf {
        self.root.join("agent.sock")
    }

    pub(crate) fn agent_admin_socket(&self) -> PathBuf {
        self.root.join("agent-admin.sock")
    }

    pub(crate) fn agent_config(&self) -> PathBuf {
        self.root.join("agent.toml")
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.root.join("bundle.pem")
    }

    pub(crate) fn join_token(&self) -> PathBuf {
        self.root.join("join-token")
    }

    pub(crate) fn proxy_config(&self, name: &str) -> PathBuf {
        self.root.join("proxies").join(format!("{name}.toml"))
    }

    pub(crate) fn log(&self, part: &str) -> PathBuf {
        self.root
            .join("logs")
            .join(format!("{}.log", part.replace(' ', "-")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_another_trust_domain_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let first = TrustDomain::parse("one.example").unwrap();
        let second = TrustDomain::parse("two.example").unwrap();
        drop(UpFolder::open(folder.path(), &first).unwrap());
        let failure = UpFolder::open(folder.path(), &second).unwrap_err();
        assert!(
            failure
                .message()
                .contains("holds the trust domain `one.example`"),
            "{failure:?}"
        );
        assert!(UpFolder::open(folder.path(), &first).is_ok());
    }

    #[test]
    fn a_second_up_on_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse("one.example").unwrap();
        let _held = UpFolder::open(folder.path(), &domain).unwrap();
        let failure = UpFolder::open(folder.path(), &domain).unwrap_err();
        assert!(failure.message().contains("is in use"), "{failure:?}");
    }
}
