//! The one place with `unsafe`: asks the kernel for a pidfd of the process at the other end of a Unix socket
//! (SO_PEERPIDFD, Linux 6.5 and later), for which no safe wrapper exists. Called by `uds`.

#![allow(
    unsafe_code,
    reason = "getsockopt(SO_PEERPIDFD) has no safe wrapper; this module holds nothing else"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// From `asm-generic/socket.h`; the same on x86-64 and aarch64.
const SO_PEERPIDFD: libc::c_int = 77;

/// A pidfd of the process that connected (or made the socket pair), held even if that process has ended since.
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut pidfd: RawFd = -1;
    let mut length = libc::socklen_t::try_from(size_of::<RawFd>()).map_err(io::Error::other)?;
    // SAFETY: `pidfd` and `length` live through the call, and `length` says how large `pidfd` is.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut pidfd).cast(),
            &raw mut length,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    if pidfd < 0 {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else holds it.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}
