//! One attested process on one open call: what it may see, and when to look again or to stop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ravelin_proto::selector::Selector;
use ravelin_runtime::drain::Drain;
use ravelin_runtime::uds::PeerProcess;
use tokio::sync::watch;
use tonic::{Request, Status};

use crate::admission::{Admission, CallPermit};
use crate::attestor::launch::LaunchTable;
use crate::attestor::{AttestError, Attestor};
use crate::cache::WorkloadView;
use crate::limits;
use crate::metrics::Metrics;
use crate::state::{State, Subscription};

/// What is needed to let a process in.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    /// Shared state.
    pub state: Arc<State>,
    /// Attests processes.
    pub attestor: Arc<Attestor>,
    /// Launched processes.
    pub launches: Arc<LaunchTable>,
    /// Counts open calls.
    pub admission: Admission,
    /// Ends all streams.
    pub drain: Drain,
    /// Counters.
    pub metrics: Metrics,
}

impl Gate {
    /// Attests the process behind a request and opens its session.
    pub(crate) async fn enter(&self, peer: Option<PeerProcess>) -> Result<Session, Status> {
        let peer =
            peer.ok_or_else(|| Status::permission_denied("the caller cannot be attested"))?;
        let permit = self.admission.admit(peer.uid).map_err(|error| {
            self.metrics.calls_crowded.inc();
            Status::resource_exhausted(error.to_string())
        })?;
        self.metrics.calls_admitted.inc();
        let launches = self.launches.changes();
        let config = self.state.config_tick.subscribe();
        let wants_hash = self.state.with_cache(crate::cache::Cache::needs_hashes);
        let selectors = self.attest(&peer, wants_hash).await?;
        Ok(Session {
            subscription: self.state.subscribe(selectors),
            gate: self.clone(),
            peer,
            launches,
            config,
            has_hash: wants_hash,
            is_stale: false,
            _permit: permit,
        })
    }

    async fn attest(
        &self,
        peer: &PeerProcess,
        wants_hash: bool,
    ) -> Result<BTreeSet<Selector>, Status> {
        let (attestor, process) = (Arc::clone(&self.attestor), peer.clone());
        let outcome =
            tokio::task::spawn_blocking(move || attestor.attest(&process, wants_hash)).await;
        match outcome {
            Ok(Ok(selectors)) => {
                self.metrics.attested.inc();
                Ok(selectors)
            }
            Ok(Err(error)) => {
                self.metrics.attest_failed.inc();
                tracing::warn!(pid = peer.pid, uid = peer.uid, %error, "a process cannot be attested");
                Err(match error {
                    AttestError::Proc { .. } => {
                        Status::unavailable("the caller cannot be attested now")
                    }
                    AttestError::PeerGone | AttestError::CredentialsChanged => {
                        Status::permission_denied("the caller cannot be attested")
                    }
                })
            }
            Err(error) => {
                tracing::error!(%error, "the attestor failed");
                Err(Status::unavailable("the caller cannot be attested now"))
            }
        }
    }

    /// No identity matches this process.
    pub(crate) fn deny(&self) -> Status {
        self.metrics.denied.inc();
        Status::permission_denied("no identity issued")
    }
}

/// The process behind a request, as the kernel named it; none on another kind of listener.
pub(crate) fn peer_of<T>(request: &Request<T>) -> Option<PeerProcess> {
    request.extensions().get::<PeerProcess>().cloned()
}

/// An attested process on one call.
#[derive(Debug)]
pub(crate) struct Session {
    gate: Gate,
    peer: PeerProcess,
    subscription: Subscription,
    launches: watch::Receiver<u64>,
    config: watch::Receiver<u64>,
    has_hash: bool,
    /// Set while a new attestation is owed, so that a cancelled one is made up for.
    is_stale: bool,
    _permit: CallPermit,
}

impl Session {
    /// What the process may see now.
    pub(crate) fn view(&self) -> WorkloadView {
        self.subscription.view()
    }

    /// The gate that it came through.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Returns when the view or the configuration may have changed; an error ends the stream.
    /// Cancel-safe: an attestation that was cancelled is made at the next call.
    pub(crate) async fn changed(&mut self) -> Result<(), Status> {
        if !self.is_stale {
            self.is_stale = tokio::select! {
                () = self.subscription.changed() => false,
                _ = self.config.changed() => false,
                _ = self.launches.changed() => true,
                _ = self.peer.exited() => return Err(Status::cancelled("the process has ended")),
                () = self.gate.drain.started() => return Err(Status::unavailable("the agent is ending")),
            };
        }
        let wants_hash = self
            .gate
            .state
            .with_cache(crate::cache::Cache::needs_hashes);
        if self.is_stale || (wants_hash && !self.has_hash) {
            self.is_stale = true;
            self.attest_again(wants_hash).await?;
            self.is_stale = false;
        }
        Ok(())
    }

    /// Attests the process once more, before it gets a later response: since the last one it may have become another
    /// program or another user. True when its view has to be looked at anew; an error ends the stream.
    pub(crate) async fn confirm(&mut self) -> Result<bool, Status> {
        self.attest_again(self.has_hash).await
    }

    /// What a launcher says of the process has changed, an entry asks for more facts, or a response is due.
    async fn attest_again(&mut self, wants_hash: bool) -> Result<bool, Status> {
        let selectors = self.gate.attest(&self.peer, wants_hash).await?;
        self.has_hash = wants_hash;
        let is_other = &selectors != self.subscription.selectors();
        if is_other {
            self.subscription = self.gate.state.subscribe(selectors);
        }
        Ok(is_other)
    }

    /// Waits until each identity has an SVID or a reason for having none; at most the time that a
    /// first response may take.
    pub(crate) async fn settle(&mut self) -> Result<(), Status> {
        let settled = tokio::time::timeout(limits::FIRST_RESPONSE_WAIT, async {
            while !is_settled(&self.view()) {
                self.changed().await?;
            }
            Ok(())
        });
        settled.await.unwrap_or(Ok(()))
    }

    /// A pause before a mass update goes out, so that not all clients come back at once.
    pub(crate) fn splay() -> Duration {
        Duration::from_millis(20).mul_f64(crate::entropy::unit())
    }
}

/// Nothing about this view is on its way any more.
pub(crate) fn is_settled(view: &WorkloadView) -> bool {
    view.identities
        .iter()
        .all(|identity| identity.svid.is_some() || identity.failure.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::process::{Command, Stdio};

    use ravelin_proto::spiffe_id::TrustDomain;
    use ravelin_runtime::clock::SystemClock;
    use ravelin_runtime::process;

    fn gate() -> Gate {
        let launches = Arc::<LaunchTable>::default();
        Gate {
            state: State::new(TrustDomain::parse("td").unwrap(), SystemClock::shared()),
            attestor: Arc::new(Attestor::new(Arc::clone(&launches))),
            launches,
            admission: Admission::default(),
            drain: Drain::new(),
            metrics: Metrics::default(),
        }
    }

    fn path_of(session: &Session) -> Option<String> {
        let mut selectors = session.subscription.selectors().iter();
        selectors
            .find(|selector| selector.value().starts_with("path:"))
            .map(ToString::to_string)
    }

    #[tokio::test]
    async fn threat_02_a_process_that_became_another_program_or_user_is_seen_before_its_next_response()
     {
        let mut child = Command::new("sh")
            .args(["-c", "read line; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let link = format!("/proc/{pid}/exe");
        // Until the child has become the shell it still is a copy of this process.
        while std::fs::read_link(&link).ok() == std::env::current_exe().ok() {
            std::thread::yield_now();
        }
        let shell = std::fs::read_link(&link).unwrap();
        let own = std::fs::metadata("/proc/self").unwrap();
        let peer = PeerProcess {
            pid,
            uid: own.uid(),
            gid: own.gid(),
            pidfd: Arc::new(process::pidfd_open(pid).unwrap()),
        };
        let mut session = gate().enter(Some(peer)).await.unwrap();
        let before = path_of(&session);
        assert_eq!(before, Some(format!("unix:path:{}", shell.display())));
        assert!(!session.confirm().await.unwrap(), "nothing has changed");

        child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        while std::fs::read_link(&link).unwrap() == shell {
            tokio::task::yield_now().await;
        }
        assert!(session.confirm().await.unwrap(), "another program");
        assert_ne!(path_of(&session), before);

        session.peer.uid = session.peer.uid.wrapping_add(1);
        let refused = session.confirm().await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
