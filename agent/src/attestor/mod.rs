//! Workload attestation: the facts about the process at the other end of a socket, free of races.
//!
//! The order is the argument: the kernel names the peer by a pidfd when it is accepted; then `/proc`
//! is read and the executable opened; then the pidfd is polled. A peer that still lives at that
//! moment is the process that was read about: its number cannot have been given to another.

pub(crate) mod launch;
mod unix;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::Arc;

use ravelin_proto::selector::Selector;
use ravelin_runtime::process;
use ravelin_runtime::uds::PeerProcess;

use crate::limits;
use launch::{LaunchTable, ProcessKey};
use unix::{Accounts, HashCache};

/// Why a process has no attested facts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttestError {
    /// It ended; what was read may belong to another process.
    #[error("the process has ended")]
    PeerGone,
    /// It changed its user or group since it connected: a program with other rights may run there.
    #[error("the process changed its user or group after it connected")]
    CredentialsChanged,
    /// `/proc` could not be read or understood.
    #[error("`/proc/{pid}` cannot be read")]
    Proc {
        /// The process.
        pid: i32,
        /// What the kernel said; none when the text was not understood.
        source: Option<io::Error>,
    },
}

/// Attests processes.
#[derive(Debug)]
pub(crate) struct Attestor {
    launches: Arc<LaunchTable>,
    hashes: HashCache,
}

impl Attestor {
    /// An attestor that believes this table of launched processes.
    pub(crate) fn new(launches: Arc<LaunchTable>) -> Self {
        Self {
            launches,
            hashes: HashCache::default(),
        }
    }

    /// The selectors of the process behind a connection. Reads files: not for an async thread.
    pub(crate) fn attest(
        &self,
        peer: &PeerProcess,
        wants_hash: bool,
    ) -> Result<BTreeSet<Selector>, AttestError> {
        let read = self.read(peer.pid, wants_hash);
        // INVARIANT: polled after everything was read (threat 1).
        if !peer.is_alive() {
            return Err(AttestError::PeerGone);
        }
        let (status, selectors) = read?;
        // The kernel's word from the time of the connection (threats 2 and 4).
        if (status.uid, status.gid) != (peer.uid, peer.gid) {
            return Err(AttestError::CredentialsChanged);
        }
        Ok(selectors)
    }

    /// The selectors that a process has now, for an operator's question; nothing is granted by it.
    pub(crate) fn explain(&self, pid: i32) -> Result<BTreeSet<Selector>, AttestError> {
        Ok(self.read(pid, true)?.1)
    }

    fn read(
        &self,
        pid: i32,
        wants_hash: bool,
    ) -> Result<(unix::Status, BTreeSet<Selector>), AttestError> {
        let text = unix::read_bounded(&format!("/proc/{pid}/status"), limits::PROC_BYTES_MAX)
            .map_err(|source| AttestError::Proc {
                pid,
                source: Some(source),
            })?;
        let status = unix::parse_status(&text).ok_or(AttestError::Proc { pid, source: None })?;
        let mut selectors = unix::credential_selectors(&status, &Accounts::read());
        selectors.extend(self.executable_selectors(pid, wants_hash));
        let start_time_ticks =
            process::start_time_ticks(pid).map_err(|_| AttestError::Proc { pid, source: None })?;
        selectors.extend(self.launches.selector(ProcessKey {
            pid,
            start_time_ticks,
        }));
        Ok((status, selectors))
    }

    /// Path and hash of one and the same file: the hash is of the file that was opened, and the
    /// path counts only when the link still says the same after that (threat 2).
    fn executable_selectors(&self, pid: i32, wants_hash: bool) -> Vec<Selector> {
        let link = format!("/proc/{pid}/exe");
        let Ok(path) = std::fs::read_link(&link) else {
            return Vec::new();
        };
        let hash = wants_hash
            .then(|| File::open(&link).and_then(|mut file| self.hashes.sha256(&mut file)))
            .and_then(Result::ok)
            .flatten();
        if std::fs::read_link(&link).ok().as_ref() != Some(&path) {
            return Vec::new();
        }
        let hash = hash.and_then(|hash| Selector::new("unix", &format!("sha256:{hash}")).ok());
        unix::path_selector(&path).into_iter().chain(hash).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::process::{Child, Command, Stdio};

    /// A process that waits for its input to end.
    fn child() -> Child {
        Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn pid_of(child: &Child) -> i32 {
        i32::try_from(child.id()).unwrap()
    }

    fn peer(pid: i32, of: i32) -> PeerProcess {
        let own = std::fs::metadata("/proc/self").unwrap();
        PeerProcess {
            pid,
            uid: own.uid(),
            gid: own.gid(),
            pidfd: Arc::new(process::pidfd_open(of).unwrap()),
        }
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn attestor() -> Attestor {
        Attestor::new(Arc::default())
    }

    #[test]
    fn a_living_process_has_the_selectors_of_its_own_executable() {
        let child = child();
        let pid = pid_of(&child);
        // Until the child has become `cat` it still is a copy of this process.
        let link = format!("/proc/{pid}/exe");
        while std::fs::read_link(&link).ok() == std::env::current_exe().ok() {
            std::thread::yield_now();
        }
        let selectors = attestor().attest(&peer(pid, pid), true).unwrap();
        let shown: Vec<String> = selectors.iter().map(ToString::to_string).collect();
        let path = std::fs::read_link(&link).unwrap();
        assert!(
            shown.contains(&format!("unix:path:{}", path.display())),
            "{shown:?}"
        );
        assert!(shown.contains(&"launch:none".to_owned()));
        assert!(
            shown
                .iter()
                .any(|selector| selector.starts_with("unix:sha256:"))
        );
        end(child);
    }

    #[test]
    fn threat_01_a_number_that_was_given_to_another_process_attests_nothing() {
        let gone = child();
        let living = child();
        let recycled = peer(pid_of(&living), pid_of(&gone));
        end(gone);
        assert!(matches!(
            attestor().attest(&recycled, false),
            Err(AttestError::PeerGone)
        ));
        end(living);
    }

    #[test]
    fn threat_02_a_process_that_changed_its_user_after_it_connected_attests_nothing() {
        let child = child();
        let pid = pid_of(&child);
        for (uid, gid) in [(1, 0), (0, 1)] {
            let mut changed = peer(pid, pid);
            changed.uid = changed.uid.wrapping_add(uid);
            changed.gid = changed.gid.wrapping_add(gid);
            let refused = attestor().attest(&changed, false);
            assert!(
                matches!(refused, Err(AttestError::CredentialsChanged)),
                "{refused:?}"
            );
        }
        end(child);
    }
}
