//! Whose connection it is: the user that owns a socket of this machine, asked of the kernel (sock_diag(7)).
//!
//! A redirect that catches the proxy's own connections would let one connection make the next without end. The user tells
//! them apart. Building and reading the messages is pure.

use std::net::{IpAddr, SocketAddr};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// `SOCK_DIAG_BY_FAMILY`: type of the question and of its answer.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// Bytes of `nlmsghdr`.
const HEADER_BYTES: u32 = 16;
/// Bytes of `inet_diag_req_v2`.
const QUESTION_BYTES: u32 = 56;
/// Where `idiag_uid` stands in an answer.
const USER_AT: std::ops::Range<usize> = 80..84;
/// TCP, as IP numbers it.
const TCP: u8 = 6;

/// True when the other end of a connection, as that end sees it, belongs to the user of this process.
///
/// False for an end on another machine, and where the kernel does not tell.
pub(super) fn is_own(local: SocketAddr, remote: SocketAddr) -> bool {
    let own = rustix::process::geteuid().as_raw();
    match ask(local, remote) {
        Ok(owner) => owner == Some(own),
        Err(error) => {
            tracing::debug!(%error, "the kernel does not tell who owns a connection");
            false
        }
    }
}

fn ask(local: SocketAddr, remote: SocketAddr) -> std::io::Result<Option<u32>> {
    let Some(question) = question(local, remote) else {
        return Ok(None);
    };
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&socket, &question, SendFlags::empty())?;
    let mut answer = [0; 512];
    // WHY: the kernel has answered before `send` returns, so this never waits.
    let (_, count) = recv(&socket, &mut answer, RecvFlags::empty())?;
    Ok(answer.get(..count).and_then(owner))
}

/// Asks for the one socket with these ends.
fn question(local: SocketAddr, remote: SocketAddr) -> Option<Vec<u8>> {
    let ends = (local.ip().to_canonical(), remote.ip().to_canonical());
    let (family, from, to) = match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => (
            AddressFamily::INET,
            words(from.octets()),
            words(to.octets()),
        ),
        (IpAddr::V6(from), IpAddr::V6(to)) => (AddressFamily::INET6, from.octets(), to.octets()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let family = u8::try_from(family.as_raw()).ok()?;
    let mut message = Vec::with_capacity(72);
    message.extend_from_slice(&HEADER_BYTES.saturating_add(QUESTION_BYTES).to_ne_bytes());
    message.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    message.extend_from_slice(&REQUEST.to_ne_bytes());
    // Sequence number and sender.
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[family, TCP, 0, 0]);
    // Every state.
    message.extend_from_slice(&u32::MAX.to_ne_bytes());
    message.extend_from_slice(&local.port().to_be_bytes());
    message.extend_from_slice(&remote.port().to_be_bytes());
    message.extend_from_slice(&from);
    message.extend_from_slice(&to);
    // Any interface, no cookie.
    message.extend_from_slice(&0_u32.to_ne_bytes());
    message.extend_from_slice(&u64::MAX.to_ne_bytes());
    Some(message)
}

/// An IPv4 address at the head of four words.
fn words(v4: [u8; 4]) -> [u8; 16] {
    let mut words = [0; 16];
    for (to, from) in words.iter_mut().zip(v4) {
        *to = from;
    }
    words
}

/// The user in an answer; none in an error, such as that there is no such socket.
fn owner(answer: &[u8]) -> Option<u32> {
    let kind = answer.get(4..6)?.try_into().ok()?;
    if u16::from_ne_bytes(kind) != BY_FAMILY {
        return None;
    }
    let user = answer.get(USER_AT)?.try_into().ok()?;
    Some(u32::from_ne_bytes(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_55_the_kernel_tells_who_owns_the_other_end() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else {
                eprintln!("skipped: no {address}");
                continue;
            };
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (near, far) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let own = rustix::process::geteuid().as_raw();
            assert_eq!(ask(near, far).unwrap(), Some(own), "{address}");
            assert!(is_own(near, far));
            let mut nobody = near;
            nobody.set_ip("192.0.2.1".parse().unwrap());
            assert!(!is_own(nobody, far), "no socket of this machine");
        }
    }

    #[test]
    fn an_answer_that_is_an_error_or_cut_short_names_nobody() {
        let mut answer = vec![0; 124];
        answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        answer[80..84].copy_from_slice(&990_u32.to_ne_bytes());
        assert_eq!(owner(&answer), Some(990));
        for length in 0..84 {
            assert_eq!(owner(&answer[..length]), None, "{length}");
        }
        answer[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        assert_eq!(owner(&answer), None, "NLMSG_ERROR");
    }
}
