//! Listeners that outlive a process: taken from the service manager or from the proxy that served before, and given to
//! the one that comes next. No connection that waits in a listener's queue is lost.
//!
//! A takeover: the successor connects to the takeover socket, gets every listening socket, takes the agent's
//! configuration into use, accepts; only then the predecessor drains. Whatever fails before that, the predecessor goes on.

mod notify;
mod predecessor;
pub mod sockets;
mod successor;
mod wire;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use ravelin_runtime::drain::Drain;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::limits;
use predecessor::Predecessor;
use sockets::{InheritError, Inherited};

/// Why listeners change hands no further.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The takeover socket cannot be placed.
    #[error(transparent)]
    Socket(#[from] ravelin_runtime::uds::UdsError),
    /// A socket cannot be used.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// The other end belongs to somebody else.
    #[error("the process at the other end of `{}` runs as user {uid}, not as this one", path.display())]
    ForeignUser {
        /// The takeover socket.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// The predecessor keeps its sockets.
    #[error("the proxy that serves now does not hand over: {0}")]
    Refused(String),
    /// The successor has another configuration.
    #[error("it is the proxy `{0}`")]
    OtherName(String),
    /// Not what a proxy says.
    #[error("unexpected answer in the takeover at `{}`", .0.display())]
    Protocol(PathBuf),
    /// No configuration in time.
    #[error("no configuration from the agent in time: the proxy that served before goes on")]
    NotReady,
    /// The kernel refused, or the other end is gone or too slow.
    #[error("{step} failed in the takeover at `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// The takeover socket.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl TakeoverError {
    fn io(step: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            step,
            path: path.to_owned(),
            source,
        }
    }
}

/// What a process found when it started, and what it holds for the next one.
#[derive(Debug)]
pub struct Takeover {
    name: String,
    path: Option<PathBuf>,
    predecessor: Option<Predecessor>,
    is_inherited: bool,
    sockets: Vec<TcpListener>,
}

/// The control thread's ends of what a takeover needs.
#[derive(Debug)]
pub struct TakeoverPorts {
    /// True once all workers use a configuration.
    pub ready: watch::Receiver<bool>,
    /// Set when the listeners are to be served.
    pub open: watch::Sender<bool>,
    /// Set when a successor serves.
    pub handed_over: watch::Sender<bool>,
    /// Started when a successor serves.
    pub drain: Drain,
}

impl Takeover {
    /// Looks for a predecessor at `path`. A socket that the service manager passed is preferred to the predecessor's on
    /// the same address: it is the operator's newer word.
    pub fn begin(
        name: &str,
        path: Option<&Path>,
        mut inherited: Inherited,
    ) -> Result<(Self, Inherited), TakeoverError> {
        let mut predecessor = None;
        if let Some(path) = path
            && let Some((found, sockets)) = Predecessor::find(path, name)?
        {
            tracing::info!(path = %path.display(), "taking over from the proxy that serves now");
            predecessor = Some(found);
            inherited.join(sockets);
        }
        let takeover = Self {
            name: name.to_owned(),
            path: path.map(Path::to_owned),
            is_inherited: !inherited.is_empty(),
            predecessor,
            sockets: Vec::new(),
        };
        Ok((takeover, inherited))
    }

    /// True when connections may be waiting already: they are accepted once there is a configuration to serve them by.
    pub fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// Keeps copies for a successor.
    pub fn hold(&mut self, socket: &TcpListener) -> std::io::Result<()> {
        if self.path.is_some() {
            self.sockets.push(socket.try_clone()?);
        }
        Ok(())
    }

    /// Opens the listeners when it is time, takes over, and hands over. Returns when the drain has begun, or with the
    /// reason why this process must not go on.
    pub async fn run(mut self, mut ports: TakeoverPorts) -> Result<(), TakeoverError> {
        let drain = ports.drain.clone();
        tokio::select! {
            opened = self.open(&mut ports) => opened?,
            () = drain.started() => return Ok(()),
        }
        notify::say(notify::READY);
        tokio::select! {
            () = self.wait_for_successor(&ports) => {}
            () = drain.started() => {}
        }
        notify::say(notify::STOPPING);
        Ok(())
    }

    async fn open(&mut self, ports: &mut TakeoverPorts) -> Result<(), TakeoverError> {
        if self.is_inherited {
            let limit = if self.predecessor.is_some() {
                limits::TAKEOVER_READY_DEADLINE
            } else {
                limits::INHERITED_WAIT
            };
            let ready = timeout(limit, ports.ready.wait_for(|is_ready| *is_ready)).await;
            // WHY: with a predecessor, whoever is not ready must not serve; without one a refusal says more than silence.
            if self.predecessor.is_some() && !matches!(ready, Ok(Ok(_))) {
                return Err(TakeoverError::NotReady);
            }
        }
        ports.open.send_replace(true);
        let Some(predecessor) = self.predecessor.take() else {
            return Ok(());
        };
        let released = tokio::task::spawn_blocking(|| predecessor.release()).await;
        if let Ok(Err(error)) = released {
            // WHY: this process serves already; to end now would lose calls.
            tracing::warn!(%error, "the predecessor does not say that it drains");
        }
        Ok(())
    }

    /// Returns when a successor serves, and never without a takeover socket.
    async fn wait_for_successor(&self, ports: &TakeoverPorts) {
        if let Some(path) = &self.path {
            match successor::hand_over(path, &self.name, &self.sockets).await {
                Ok(()) => {
                    ports.handed_over.send_replace(true);
                    ports.drain.start();
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "no takeover socket: the next upgrade needs a restart");
                }
            }
        }
        std::future::pending::<()>().await;
    }
}
