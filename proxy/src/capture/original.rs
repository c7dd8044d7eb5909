//! What the kernel remembers of a redirected connection, and which addresses are this machine's.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::SockRef;
use tokio::net::TcpStream;

/// The address that was dialled, where the connection was redirected to `stream`; none where it was dialled itself.
pub(super) fn destination(stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let local = stream.local_addr()?;
    let socket = SockRef::from(stream);
    let original = if local.ip().to_canonical().is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    let original = match original {
        Ok(original) => original.as_socket(),
        // WHY: without any redirect on this machine the kernel tracks no connection, and knows of no other address.
        Err(error) if is_untracked(&error) => None,
        Err(error) => return Err(error),
    };
    Ok(original.filter(|original| !is_same(*original, local)))
}

fn is_untracked(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::NOPROTOOPT, Errno::PROTONOSUPPORT]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
}

/// True for an address of this machine: a socket can be bound to it.
pub(super) fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// Ends a connection so that the other side sees a refusal and not an end.
pub(super) fn reset(stream: &TcpStream) {
    // WHY: it is closed in any case; this only says how.
    let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_machine_is_known() {
        for (ip, want) in [
            ("127.0.0.1", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_local(ip.parse().unwrap()), want, "{ip}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_nobody_redirected_has_no_other_destination() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = listener.local_addr().unwrap();
        let (accepted, _client) = tokio::join!(listener.accept(), TcpStream::connect(dialled));
        let (stream, _) = accepted.unwrap();
        assert_eq!(destination(&stream).unwrap(), None);
    }
}
