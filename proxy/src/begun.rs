//! A plain-text connection whose first bytes were read to find out which HTTP it speaks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::limits;

/// What an HTTP/2 client sends first.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that gives its first bytes once more.
#[derive(Debug)]
pub struct Begun<S> {
    first: Bytes,
    stream: S,
    is_http2: bool,
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// Reads as much as tells the version of HTTP; the end before that is an error.
    pub async fn http(mut stream: S) -> io::Result<Self> {
        let mut first = BytesMut::with_capacity(limits::SNIFFED_BYTES);
        let may_be_http2 =
            |first: &[u8]| first.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(first);
        while may_be_http2(&first) {
            if stream.read_buf(&mut first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Self {
            is_http2: first.starts_with(HTTP2_PREFACE),
            first: first.freeze(),
            stream,
        })
    }
}

impl<S> Begun<S> {
    /// A connection of which nothing was read.
    pub fn unread(stream: S) -> Self {
        Self {
            first: Bytes::new(),
            stream,
            is_http2: false,
        }
    }

    /// The connection itself.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// It begins with the preface of HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.is_http2
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let begun = self.get_mut();
        if begun.first.is_empty() {
            return Pin::new(&mut begun.stream).poll_read(context, buffer);
        }
        let count = begun.first.len().min(buffer.remaining());
        buffer.put_slice(begun.first.get(..count).unwrap_or_default());
        begun.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
