//! The process that connected to a Unix socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use crate::peer_pidfd::peer_pidfd;

/// Who connected, as the kernel noted it at that moment. Passing the socket on does not change it (threat 3).
#[derive(Debug, Clone)]
pub struct PeerProcess {
    /// Process number, as seen from our process namespace.
    pub pid: i32,
    /// Effective user number at connect.
    pub uid: u32,
    /// Effective group number at connect.
    pub gid: u32,
    /// Names the process itself, not its number; readable once it has ended.
    pub pidfd: Arc<OwnedFd>,
}

impl PeerProcess {
    pub(super) fn of(socket: &UnixStream) -> io::Result<Self> {
        let credentials = socket.peer_cred()?;
        let pidfd = peer_pidfd(socket.as_fd())?;
        let pid = credentials
            .pid()
            .filter(|pid| *pid > 0)
            .ok_or_else(|| io::Error::other("the peer is outside our process namespace"))?;
        Ok(Self {
            pid,
            uid: credentials.uid(),
            gid: credentials.gid(),
            pidfd: Arc::new(pidfd),
        })
    }

    /// Whether the process still runs. What was read about `pid` before this said yes belonged to the peer.
    pub fn is_alive(&self) -> bool {
        let mut polled = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // A failing poll says nothing good about the peer.
        matches!(poll(&mut polled, Some(&at_once)), Ok(0))
    }

    /// Returns once the process has ended. Safe to drop and call again.
    #[allow(
        deprecated,
        reason = "the successor asks for `unsafe`; an `OwnedFd` that nobody replaces meets what it asks for"
    )]
    pub async fn exited(&self) -> io::Result<()> {
        let pidfd = AsyncFd::with_interest(self.pidfd.try_clone()?, Interest::READABLE)?;
        let _guard = pidfd.readable().await?;
        Ok(())
    }
}
