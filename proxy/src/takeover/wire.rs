//! Messages of a takeover on a Unix stream: step, protocol version, length, a short text; sockets ride on the first
//! byte (SCM_RIGHTS). Blocking: the caller sets the deadlines of the stream.

use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::limits;

/// Two binaries that take over from one another speak the same version, or refuse.
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 4;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The successor's first word; the text is the name in its configuration.
    Hello,
    /// Some of the predecessor's listening sockets.
    Sockets,
    /// Nothing follows.
    AllSent,
    /// The successor accepts connections.
    Serving,
    /// The predecessor drains, and the path of the takeover socket is free.
    Released,
    /// The predecessor does not hand over; the text says why.
    Refused,
}

impl Step {
    fn byte(self) -> u8 {
        match self {
            Self::Hello => b'H',
            Self::Sockets => b'L',
            Self::AllSent => b'E',
            Self::Serving => b'S',
            Self::Released => b'D',
            Self::Refused => b'R',
        }
    }

    fn parse(byte: u8) -> Option<Self> {
        let steps = [
            Self::Hello,
            Self::Sockets,
            Self::AllSent,
            Self::Serving,
            Self::Released,
            Self::Refused,
        ];
        steps.into_iter().find(|step| step.byte() == byte)
    }
}

/// One message as it was received.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) step: Step,
    pub(super) text: String,
    pub(super) sockets: Vec<OwnedFd>,
}

/// Sends one message whole.
pub(super) fn send(
    stream: &UnixStream,
    step: Step,
    text: &str,
    sockets: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let length = u16::try_from(text.len()).map_err(io::Error::other)?;
    let [high, low] = length.to_be_bytes();
    let head = [step.byte(), VERSION, high, low];
    let mut space = [MaybeUninit::uninit();
        rustix::cmsg_space!(ScmRights(limits::TAKEOVER_SOCKETS_PER_MESSAGE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::other("too many sockets for one message"));
    }
    let parts = [IoSlice::new(&head), IoSlice::new(text.as_bytes())];
    let sent = rustix::net::sendmsg(stream, &parts, &mut control, SendFlags::NOSIGNAL)?;
    if sent != HEAD_BYTES.saturating_add(text.len()) {
        return Err(io::Error::other("a message was cut short"));
    }
    Ok(())
}

/// Receives one message whole. Sockets that it brings are closed when it is dropped.
pub(super) fn receive(mut stream: &UnixStream) -> io::Result<Message> {
    let mut head = [0; HEAD_BYTES];
    let mut space = [MaybeUninit::uninit();
        rustix::cmsg_space!(ScmRights(limits::TAKEOVER_SOCKETS_PER_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut head)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            sockets.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let [step, version, high, low] = head;
    let is_whole = received.bytes == HEAD_BYTES && !received.flags.contains(ReturnFlags::CTRUNC);
    let step = Step::parse(step).filter(|_| is_whole);
    let (Some(step), VERSION) = (step, version) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the other process speaks another version of the takeover",
        ));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > limits::TAKEOVER_TEXT_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    Ok(Message {
        step,
        text,
        sockets,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_message_arrives_with_its_text_and_its_sockets() {
        let (left, right) = UnixStream::pair().unwrap();
        let listeners: Vec<TcpListener> = (0..limits::TAKEOVER_SOCKETS_PER_MESSAGE)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let sockets: Vec<_> = listeners.iter().map(|listener| listener.as_fd()).collect();
        let rows: [(Step, &str, &[BorrowedFd<'_>]); 3] = [
            (Step::Hello, "orders", &[]),
            (Step::Sockets, "", &sockets),
            (Step::AllSent, "", &sockets[..1]),
        ];
        for (step, text, sockets) in rows {
            send(&left, step, text, sockets).unwrap();
        }
        for (step, text, sockets) in rows {
            let message = receive(&right).unwrap();
            assert_eq!(
                (message.step, message.text.as_str(), message.sockets.len()),
                (step, text, sockets.len())
            );
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let rows: [(&str, &[u8]); 5] = [
            ("another version", &[b'H', 9, 0, 0]),
            ("an unknown step", &[b'?', VERSION, 0, 0]),
            ("a text without end", &[b'H', VERSION, 255, 255]),
            ("cut short", b"H"),
            ("nothing", b""),
        ];
        for (name, bytes) in rows {
            let (mut left, right) = UnixStream::pair().unwrap();
            left.write_all(bytes).unwrap();
            drop(left);
            assert!(receive(&right).is_err(), "{name}");
        }
    }
}
