//! A Unix listener whose socket file is ours alone to place and to remove.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, chmod};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

use super::{PeerProcess, UdsStream};
use crate::limits::SOCKET_PATH_BYTES_MAX;
use crate::peer_pidfd::peer_pidfd;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_ALL: u32 = 0o002;

/// Why a socket cannot be placed.
#[derive(Debug, thiserror::Error)]
pub enum UdsError {
    /// The kernel allows no more than `SOCKET_PATH_BYTES_MAX` bytes.
    #[error("the socket path `{}` has {bytes} bytes; at most {SOCKET_PATH_BYTES_MAX} are possible", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// The folder is not there.
    #[error("the folder of the socket `{}` does not exist", .0.display())]
    FolderMissing(PathBuf),
    /// Anybody could put another socket in the place of ours.
    #[error("the folder of the socket `{}` can be written by everybody and has no sticky bit", .0.display())]
    FolderWritable(PathBuf),
    /// A symbolic link stands where the socket should be.
    #[error("`{}` is a symbolic link", .0.display())]
    Symlink(PathBuf),
    /// A file stands where the socket should be.
    #[error("`{}` exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// Somebody else's socket stands there.
    #[error("the socket `{}` belongs to another user", .0.display())]
    ForeignSocket(PathBuf),
    /// A program listens there.
    #[error("another program listens on `{}`", .0.display())]
    InUse(PathBuf),
    /// Without SO_PEERPIDFD a process could be taken for another (threat 1).
    #[error(
        "this kernel cannot name a socket's peer by pidfd (SO_PEERPIDFD): Linux 6.5 or later is needed"
    )]
    KernelTooOld(#[source] io::Error),
    /// The kernel refused.
    #[error("{step} failed for the socket `{}`", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Listens on a Unix socket and removes its file when dropped.
#[derive(Debug)]
pub struct UdsListener {
    listener: UnixListener,
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl UdsListener {
    /// Places a socket with exactly this mode. A stale socket of ours is replaced if nobody answers on it.
    pub fn bind(path: impl AsRef<Path>, mode: u32) -> Result<Self, UdsError> {
        let path = path.as_ref();
        let failed = |step: &'static str| {
            move |source: io::Error| UdsError::Io {
                step,
                path: path.to_owned(),
                source,
            }
        };
        let bytes = path.as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(UdsError::PathTooLong {
                path: path.to_owned(),
                bytes,
            });
        }
        check_kernel()?;
        check_folder(path)?;
        clear_stale(path)?;
        let listener = listen(path, mode).map_err(|errno| match errno {
            Errno::ADDRINUSE => UdsError::InUse(path.to_owned()),
            other => failed("binding")(other.into()),
        })?;
        let placed = std::fs::symlink_metadata(path).map_err(failed("reading metadata"))?;
        let listener = std::os::unix::net::UnixListener::from(listener);
        let listener = UnixListener::from_std(listener).map_err(failed("registering"))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            device: placed.dev(),
            inode: placed.ino(),
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection and the process that made it. A connection whose process cannot be named (it has ended, or lives
    /// outside our process namespace) is dropped. Cancel-safe.
    pub async fn accept(&self) -> io::Result<(UdsStream, PeerProcess)> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            match PeerProcess::of(&stream) {
                Ok(peer) => return Ok((UdsStream::accepted(stream, peer.clone()), peer)),
                Err(error) => {
                    tracing::debug!(%error, "connection of a process that cannot be named");
                }
            }
        }
    }
}

impl Drop for UdsListener {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if is_ours {
            // Nothing can be done if it fails; the next start finds a stale socket and replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// WHY: the mode is set between bind and listen, so that nobody can connect under the umask's mode.
fn listen(path: &Path, mode: u32) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    chmod(path, Mode::from_raw_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// WHY: asked at the start, so that an old kernel is named once and clearly, not at each connection.
fn check_kernel() -> Result<(), UdsError> {
    let (socket, _other) =
        std::os::unix::net::UnixStream::pair().map_err(UdsError::KernelTooOld)?;
    peer_pidfd(socket.as_fd())
        .map(drop)
        .map_err(UdsError::KernelTooOld)
}

fn check_folder(path: &Path) -> Result<(), UdsError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let metadata = std::fs::metadata(folder).map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            return UdsError::FolderMissing(path.to_owned());
        }
        UdsError::Io {
            step: "reading the folder",
            path: path.to_owned(),
            source,
        }
    })?;
    if metadata.mode() & WRITABLE_BY_ALL != 0 && metadata.mode() & STICKY == 0 {
        return Err(UdsError::FolderWritable(path.to_owned()));
    }
    Ok(())
}

fn clear_stale(path: &Path) -> Result<(), UdsError> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(UdsError::Io {
                step: "reading metadata",
                path: path.to_owned(),
                source,
            });
        }
    };
    if found.is_symlink() {
        return Err(UdsError::Symlink(path.to_owned()));
    }
    if !found.file_type().is_socket() {
        return Err(UdsError::NotASocket(path.to_owned()));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(UdsError::ForeignSocket(path.to_owned()));
    }
    if is_answered(path) {
        return Err(UdsError::InUse(path.to_owned()));
    }
    std::fs::remove_file(path).map_err(|source| UdsError::Io {
        step: "removing the stale socket",
        path: path.to_owned(),
        source,
    })
}

/// Only a refused connection proves that nobody listens; a full backlog, say, does not. Does not block.
fn is_answered(path: &Path) -> bool {
    let attempt = || -> Result<(), Errno> {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
    };
    !matches!(attempt(), Err(Errno::CONNREFUSED | Errno::NOENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("folder")
    }

    #[tokio::test]
    async fn threat_65_a_socket_has_exactly_the_mode_that_was_asked_for() {
        let folder = folder();
        for mode in [0o600, 0o666, 0o660] {
            let path = folder.path().join(format!("{mode:o}.sock"));
            let _listener = UdsListener::bind(&path, mode).expect("bound");
            let found = std::fs::metadata(&path)
                .expect("metadata")
                .permissions()
                .mode();
            assert_eq!(found & 0o7777, mode);
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = folder();
        let path = folder.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("stale"));
        let listener = UdsListener::bind(&path, 0o600).expect("replaced");
        assert!(matches!(
            UdsListener::bind(&path, 0o600),
            Err(UdsError::InUse(_))
        ));
        drop(listener);
        assert!(!path.exists(), "the file goes with the listener");
    }

    #[tokio::test]
    async fn a_listener_leaves_a_socket_alone_that_took_its_place() {
        let folder = folder();
        let path = folder.path().join("a.sock");
        let listener = UdsListener::bind(&path, 0o600).expect("bound");
        std::fs::remove_file(&path).expect("removed");
        let _other = std::os::unix::net::UnixListener::bind(&path).expect("other");
        drop(listener);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn threat_57_a_path_that_is_not_ours_to_use_is_refused() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "text").expect("file");
        std::os::unix::fs::symlink(at("elsewhere"), at("link")).expect("link");
        std::fs::create_dir(at("open")).expect("folder");
        std::fs::set_permissions(at("open"), std::fs::Permissions::from_mode(0o777)).expect("mode");
        std::fs::create_dir(at("sticky")).expect("folder");
        std::fs::set_permissions(at("sticky"), std::fs::Permissions::from_mode(0o1777))
            .expect("mode");
        let is = |path: PathBuf| UdsListener::bind(path, 0o600);
        assert!(matches!(is(at("file")), Err(UdsError::NotASocket(_))));
        assert!(matches!(is(at("link")), Err(UdsError::Symlink(_))));
        assert!(matches!(
            is(at("open/a.sock")),
            Err(UdsError::FolderWritable(_))
        ));
        assert!(is(at("sticky/a.sock")).is_ok());
        assert!(matches!(
            is(at("missing/a.sock")),
            Err(UdsError::FolderMissing(_))
        ));
        assert!(matches!(
            is(at(&"a".repeat(108))),
            Err(UdsError::PathTooLong { .. })
        ));
    }

    #[tokio::test]
    async fn threat_01_the_peer_is_known_by_its_process_and_its_end_is_noticed() {
        let folder = folder();
        let path = folder.path().join("a.sock");
        let listener = UdsListener::bind(&path, 0o600).expect("bound");
        let _client = tokio::net::UnixStream::connect(&path)
            .await
            .expect("connected");
        let (_stream, peer) = listener.accept().await.expect("accepted");
        assert_eq!(u32::try_from(peer.pid).expect("pid"), std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert!(peer.is_alive());

        let mut child = std::process::Command::new("true").spawn().expect("child");
        let child_pid = i32::try_from(child.id()).expect("pid");
        let pidfd = Arc::new(crate::process::pidfd_open(child_pid).expect("pidfd"));
        let ended = PeerProcess {
            pid: child_pid,
            pidfd,
            ..peer
        };
        child.wait().expect("ended");
        ended.exited().await.expect("readable");
        assert!(!ended.is_alive());
    }

    use std::sync::Arc;
}
