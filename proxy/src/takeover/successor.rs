//! The old process's side: gives its listening sockets to a successor of the same user, and drains when that one serves.
//!
//! A successor that goes away, refuses or is too slow changes nothing: this process goes on.

use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use ravelin_runtime::uds::{PeerProcess, UdsListener, UdsStream};

use super::TakeoverError;
use super::wire::{self, Step};
use crate::limits;

/// Serves successors one after the other, until one has taken over. Leaves the path free then.
pub(super) async fn hand_over(
    path: &Path,
    name: &str,
    sockets: &[TcpListener],
) -> Result<(), TakeoverError> {
    let listener = UdsListener::bind(path, 0o600)?;
    loop {
        let (stream, peer) = listener
            .accept()
            .await
            .map_err(|source| TakeoverError::io("accepting", path, source))?;
        match offer(stream, &peer, path, name, sockets).await {
            Ok(successor) => {
                drop(listener);
                tell_released(successor, path).await;
                tracing::info!(pid = peer.pid, "a successor serves; draining");
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(pid = peer.pid, %error, "a successor did not take over; going on");
            }
        }
    }
}

/// Gives the sockets away, and waits until the successor serves them.
async fn offer(
    stream: UdsStream,
    peer: &PeerProcess,
    path: &Path,
    name: &str,
    sockets: &[TcpListener],
) -> Result<UnixStream, TakeoverError> {
    if peer.uid != rustix::process::geteuid().as_raw() {
        return Err(TakeoverError::ForeignUser {
            path: path.to_owned(),
            uid: peer.uid,
        });
    }
    let failed =
        |step: &'static str| move |source: std::io::Error| TakeoverError::io(step, path, source);
    let sockets = sockets
        .iter()
        .map(TcpListener::try_clone)
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed("copying a socket"))?;
    let stream = stream
        .into_socket()
        .into_std()
        .map_err(failed("taking the connection"))?;
    let (name, path) = (name.to_owned(), path.to_owned());
    // WHY: a successor that stands still must not hold up the control thread.
    let offered = tokio::task::spawn_blocking(move || exchange(stream, &name, &path, &sockets));
    let stream = offered
        .await
        .map_err(|_| TakeoverError::Protocol(path_of(peer)))??;
    // WHY: what was said counts only if it was this process to the end (threat 1).
    if !peer.is_alive() {
        return Err(TakeoverError::Protocol(path_of(peer)));
    }
    Ok(stream)
}

fn path_of(peer: &PeerProcess) -> std::path::PathBuf {
    format!("/proc/{}", peer.pid).into()
}

fn exchange(
    stream: UnixStream,
    name: &str,
    path: &Path,
    sockets: &[TcpListener],
) -> Result<UnixStream, TakeoverError> {
    let failed =
        |step: &'static str| move |source: std::io::Error| TakeoverError::io(step, path, source);
    stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_write_timeout(Some(limits::TAKEOVER_STEP_DEADLINE)))
        .and_then(|()| stream.set_read_timeout(Some(limits::TAKEOVER_STEP_DEADLINE)))
        .map_err(failed("setting a deadline"))?;
    let hello = wire::receive(&stream).map_err(failed("reading"))?;
    if hello.step != Step::Hello {
        return Err(TakeoverError::Protocol(path.to_owned()));
    }
    if hello.text != name {
        let why = format!("this is the proxy `{name}`");
        wire::send(&stream, Step::Refused, &why, &[]).map_err(failed("writing"))?;
        return Err(TakeoverError::OtherName(hello.text));
    }
    for some in sockets.chunks(limits::TAKEOVER_SOCKETS_PER_MESSAGE) {
        let some: Vec<_> = some.iter().map(|socket| socket.as_fd()).collect();
        wire::send(&stream, Step::Sockets, "", &some).map_err(failed("writing"))?;
    }
    wire::send(&stream, Step::AllSent, "", &[]).map_err(failed("writing"))?;
    stream
        .set_read_timeout(Some(limits::TAKEOVER_SERVING_DEADLINE))
        .map_err(failed("setting a deadline"))?;
    let answer = wire::receive(&stream).map_err(failed("waiting for the successor to serve"))?;
    if answer.step != Step::Serving {
        return Err(TakeoverError::Protocol(path.to_owned()));
    }
    Ok(stream)
}

/// The drain begins also if the successor is not told: it serves.
async fn tell_released(stream: UnixStream, path: &Path) {
    let told = tokio::task::spawn_blocking(move || wire::send(&stream, Step::Released, "", &[]));
    if let Ok(Err(error)) = told.await {
        tracing::warn!(%error, path = %path.display(), "the successor cannot be told that the path is free");
    }
}
