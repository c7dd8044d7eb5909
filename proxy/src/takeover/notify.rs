//! Words to the service manager (sd_notify(3)): ready, stopping. Without one (`NOTIFY_SOCKET`) nothing is said.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The listeners are served.
pub(super) const READY: &str = "READY=1";
/// The drain has begun.
pub(super) const STOPPING: &str = "STOPPING=1";

/// Says `state`. A manager that does not listen changes nothing.
pub(super) fn say(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&path, state) {
        tracing::warn!(%error, state, "the service manager cannot be told");
    }
}

fn send(path: &OsStr, state: &str) -> std::io::Result<()> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_told_at_a_path_or_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify.sock");
        let name = format!("ravelin-notify-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let rows = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path)),
            (
                format!("@{name}").into(),
                UnixDatagram::bind_addr(&abstract_name),
            ),
        ];
        for (given, manager) in rows {
            let manager = manager.unwrap();
            send(&given, READY).unwrap();
            let mut said = [0; 16];
            let count = manager.recv(&mut said).unwrap();
            assert_eq!(&said[..count], READY.as_bytes(), "{given:?}");
        }
        assert!(send(OsStr::new("/nowhere/at/all"), READY).is_err());
    }
}
