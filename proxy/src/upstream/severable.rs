//! A stream that somebody else can end, wherever it is read and written.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Ends the stream that it is tied to.
#[derive(Clone, Debug, Default)]
pub(super) struct Cord(Rc<Tie>);

#[derive(Debug, Default)]
struct Tie {
    is_severed: Cell<bool>,
    reader: RefCell<Option<Waker>>,
}

impl Cord {
    /// From now on every read and write fails.
    pub(super) fn sever(&self) {
        self.0.is_severed.set(true);
        if let Some(reader) = self.0.reader.take() {
            reader.wake();
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.0.is_severed.get() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

/// The stream.
#[derive(Debug)]
pub(super) struct Severable<S> {
    stream: S,
    cord: Cord,
}

impl<S> Severable<S> {
    pub(super) fn new(stream: S, cord: Cord) -> Self {
        Self { stream, cord }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Severable<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.cord.check()?;
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if polled.is_pending() {
            let mut reader = this.cord.0.reader.borrow_mut();
            match reader.as_mut() {
                Some(reader) => reader.clone_from(context.waker()),
                None => *reader = Some(context.waker().clone()),
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Severable<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.cord.check()?;
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.cord.check()?;
        Pin::new(&mut this.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
