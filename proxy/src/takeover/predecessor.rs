//! The new process's side: takes the listening sockets of the proxy that holds the takeover socket, and tells it to
//! drain once this process serves them. Until then the old process goes on as if nobody had asked.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::net::sockopt::socket_peercred;

use super::TakeoverError;
use super::sockets::Inherited;
use super::wire::{self, Message, Step};
use crate::limits;

/// The process that served before this one, and still does.
#[derive(Debug)]
pub(super) struct Predecessor {
    stream: UnixStream,
    path: PathBuf,
}

impl Predecessor {
    /// Asks the proxy at `path` for its sockets; `None` when nobody is there. Blocks within deadlines.
    pub(super) fn find(
        path: &Path,
        name: &str,
    ) -> Result<Option<(Self, Inherited)>, TakeoverError> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) if is_nobody(&error) => return Ok(None),
            Err(source) => return Err(TakeoverError::io("connecting", path, source)),
        };
        let predecessor = Self {
            stream,
            path: path.to_owned(),
        };
        predecessor.check_user()?;
        predecessor.set_deadline(limits::TAKEOVER_STEP_DEADLINE)?;
        predecessor.send(Step::Hello, name)?;
        let mut inherited = Inherited::default();
        for _ in 0..limits::TAKEOVER_MESSAGES_MAX {
            let message = predecessor.receive()?;
            for socket in message.sockets {
                inherited.add(socket, "of the predecessor")?;
            }
            match message.step {
                Step::Sockets => {}
                Step::AllSent => return Ok(Some((predecessor, inherited))),
                Step::Refused => return Err(TakeoverError::Refused(message.text)),
                Step::Hello | Step::Serving | Step::Released => break,
            }
        }
        Err(TakeoverError::Protocol(path.to_owned()))
    }

    /// Tells the predecessor to drain, and returns when the takeover socket's path is free. Blocks within deadlines.
    pub(super) fn release(self) -> Result<(), TakeoverError> {
        self.send(Step::Serving, "")?;
        match self.receive()?.step {
            Step::Released => Ok(()),
            Step::Hello | Step::Sockets | Step::AllSent | Step::Serving | Step::Refused => {
                Err(TakeoverError::Protocol(self.path))
            }
        }
    }

    /// WHY: whoever gets the path of the socket to be another's would become the listener of this workload's calls.
    fn check_user(&self) -> Result<(), TakeoverError> {
        let peer = socket_peercred(&self.stream)
            .map_err(|errno| TakeoverError::io("asking for the peer", &self.path, errno.into()))?;
        if peer.uid == rustix::process::geteuid() {
            return Ok(());
        }
        Err(TakeoverError::ForeignUser {
            path: self.path.clone(),
            uid: peer.uid.as_raw(),
        })
    }

    fn set_deadline(&self, deadline: std::time::Duration) -> Result<(), TakeoverError> {
        self.stream
            .set_read_timeout(Some(deadline))
            .and_then(|()| self.stream.set_write_timeout(Some(deadline)))
            .map_err(|source| TakeoverError::io("setting a deadline", &self.path, source))
    }

    fn send(&self, step: Step, text: &str) -> Result<(), TakeoverError> {
        wire::send(&self.stream, step, text, &[])
            .map_err(|source| TakeoverError::io("writing", &self.path, source))
    }

    fn receive(&self) -> Result<Message, TakeoverError> {
        wire::receive(&self.stream)
            .map_err(|source| TakeoverError::io("reading", &self.path, source))
    }
}

fn is_nobody(error: &std::io::Error) -> bool {
    let kind = error.kind();
    kind == std::io::ErrorKind::NotFound || kind == std::io::ErrorKind::ConnectionRefused
}
