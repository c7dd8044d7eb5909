//! Listening sockets that another process opened: the service manager's (`LISTEN_FDS`) or the predecessor's.
//!
//! INVARIANT: what is in here listens on TCP; it is known by the address that the kernel says, not by what was told.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};

use listenfd::ListenFd;
use rustix::net::SocketType;
use rustix::net::sockopt::{socket_acceptconn, socket_type};

/// A socket that was handed to this process and cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// Not a TCP socket, or not listening.
    #[error("the socket `{0}` that was passed to this process does not listen on TCP")]
    NotListening(String),
    /// Connections would wait in it for ever.
    #[error(
        "the socket `{name}` on `{address}` was passed to this process, and no listener of the configuration has this address"
    )]
    Unwanted {
        /// As the service manager names it.
        name: String,
        /// Where it listens.
        address: SocketAddr,
    },
    /// The kernel refused.
    #[error("the socket `{name}` cannot be taken: {source}")]
    Io {
        /// As the service manager names it.
        name: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// Listening sockets by address.
#[derive(Debug, Default)]
pub struct Inherited {
    by_address: BTreeMap<SocketAddr, Vec<TcpListener>>,
    names: BTreeMap<SocketAddr, String>,
}

impl Inherited {
    /// What the service manager passed: `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` (sd_listen_fds(3)).
    ///
    /// Call it once, before there are threads: it clears the variables.
    pub fn from_environment() -> Result<Self, InheritError> {
        let names = std::env::var_os("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.to_string_lossy().into_owned();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..passed.len() {
            let name = match names.next() {
                Some(name) if !name.is_empty() => name.to_owned(),
                Some(_) | None => index.to_string(),
            };
            match passed.take_tcp_listener(index) {
                Ok(Some(socket)) => {
                    let address = inherited.add(socket.into(), &name)?;
                    inherited.names.entry(address).or_insert(name);
                }
                Ok(None) | Err(_) => return Err(InheritError::NotListening(name)),
            }
        }
        Ok(inherited)
    }

    /// Takes one socket, if it is what it should be.
    pub fn add(&mut self, socket: OwnedFd, name: &str) -> Result<SocketAddr, InheritError> {
        let failed = |source: std::io::Error| InheritError::Io {
            name: name.to_owned(),
            source,
        };
        let is_listening = matches!(socket_type(socket.as_fd()), Ok(SocketType::STREAM))
            && matches!(socket_acceptconn(socket.as_fd()), Ok(true));
        if !is_listening {
            return Err(InheritError::NotListening(name.to_owned()));
        }
        let socket = TcpListener::from(socket);
        socket.set_nonblocking(true).map_err(failed)?;
        let address = socket
            .local_addr()
            .map_err(|_| InheritError::NotListening(name.to_owned()))?;
        self.by_address.entry(address).or_default().push(socket);
        Ok(address)
    }

    /// Adds what `other` has at addresses that are not here.
    pub fn join(&mut self, other: Self) {
        for (address, sockets) in other.by_address {
            self.by_address.entry(address).or_insert(sockets);
        }
    }

    /// The sockets that listen on `address`; none for an address with port 0.
    pub fn take(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        self.by_address.remove(&address).unwrap_or_default()
    }

    /// True when nothing was passed, or all was taken.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// Refuses what the service manager passed and nobody took. A predecessor's sockets need not be wanted any more.
    pub fn check_all_taken(&self) -> Result<(), InheritError> {
        let left = self
            .names
            .iter()
            .find(|(address, _)| self.by_address.contains_key(address));
        left.map_or(Ok(()), |(address, name)| {
            Err(InheritError::Unwanted {
                name: name.clone(),
                address: *address,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_tcp_sockets_are_taken_and_each_is_wanted_by_somebody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(address).unwrap();
        let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut inherited = Inherited::default();
        let rows: [(&str, OwnedFd); 3] = [
            ("stream", stream.into()),
            ("datagram", datagram.into()),
            ("unix", unix.into()),
        ];
        for (name, socket) in rows {
            let refused = inherited.add(socket, name).unwrap_err().to_string();
            assert!(refused.contains("does not listen on TCP"), "{name}");
            assert!(inherited.is_empty(), "{name}");
        }
        let mut other = Inherited::default();
        for socket in [listener.try_clone().unwrap(), listener] {
            other.add(socket.into(), "web").unwrap();
        }
        inherited.join(other);
        assert!(inherited.check_all_taken().is_ok(), "of a predecessor");
        inherited.names.insert(address, "web".to_owned());
        let refused = inherited.check_all_taken().unwrap_err().to_string();
        assert!(refused.contains("`web`") && refused.contains(&address.to_string()));
        assert_eq!(inherited.take(address).len(), 2);
        assert!(inherited.check_all_taken().is_ok() && inherited.is_empty());
    }
}
