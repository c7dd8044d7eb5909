//! The accepted end of a Unix socket: what it reads passes the `:authority` rewriter, what it writes does not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

use super::PeerProcess;
use super::authority::AuthorityRewriter;
use crate::limits::UDS_READ_BYTES;

/// A connection from a process on this machine.
#[derive(Debug)]
pub struct UdsStream {
    socket: UnixStream,
    peer: PeerProcess,
    rewriter: AuthorityRewriter,
    ready: BytesMut,
    scratch: Box<[u8]>,
}

impl UdsStream {
    pub(super) fn accepted(socket: UnixStream, peer: PeerProcess) -> Self {
        Self {
            socket,
            peer,
            rewriter: AuthorityRewriter::default(),
            ready: BytesMut::new(),
            scratch: vec![0; UDS_READ_BYTES].into_boxed_slice(),
        }
    }

    /// The socket itself, for a protocol that is not gRPC. To be taken before anything was read.
    pub fn into_socket(self) -> UnixStream {
        self.socket
    }

    /// The process at the other end.
    pub fn peer(&self) -> &PeerProcess {
        &self.peer
    }
}

impl Connected for UdsStream {
    type ConnectInfo = PeerProcess;

    fn connect_info(&self) -> PeerProcess {
        self.peer.clone()
    }
}

impl AsyncRead for UdsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // Bytes may go in and none come out while a header block is incomplete: then read on.
        while this.ready.is_empty() {
            let mut scratch = ReadBuf::new(&mut this.scratch);
            ready!(Pin::new(&mut this.socket).poll_read(context, &mut scratch))?;
            if scratch.filled().is_empty() {
                this.rewriter.finish(&mut this.ready);
                if this.ready.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                break;
            }
            this.rewriter.push(scratch.filled(), &mut this.ready);
        }
        let count = this.ready.len().min(out.remaining());
        if let Some(bytes) = this.ready.get(..count) {
            out.put_slice(bytes);
        }
        this.ready.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UdsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
