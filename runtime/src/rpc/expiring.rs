//! A connection that ends when something outside it does: the peer's SVID, the peer's process, our own drain. A long-lived
//! HTTP/2 connection must not outlive what it was judged by.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

type End = Pin<Box<dyn Future<Output = ()> + Send>>;

pin_project! {
    /// Passes everything through until the end has come; then reading and writing fail.
    pub(crate) struct Expiring<S> {
        #[pin]
        inner: S,
        end: Option<End>,
    }
}

impl<S> Expiring<S> {
    pub(crate) fn new(inner: S, end: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            inner,
            end: Some(Box::pin(end)),
        }
    }
}

fn check(end: &mut Option<End>, context: &mut Context<'_>) -> io::Result<()> {
    if end
        .as_mut()
        .is_some_and(|end| end.as_mut().poll(context).is_ready())
    {
        *end = None;
    }
    match end {
        Some(_) => Ok(()),
        None => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the connection's time is over",
        )),
    }
}

impl<S: AsyncRead> AsyncRead for Expiring<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        check(this.end, context)?;
        this.inner.poll_read(context, out)
    }
}

impl<S: AsyncWrite> AsyncWrite for Expiring<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        check(this.end, context)?;
        this.inner.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        check(this.end, context)?;
        this.inner.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn threat_59_a_connection_ends_with_what_it_was_judged_by() {
        let (near, mut far) = tokio::io::duplex(64);
        let svid_expires = CancellationToken::new();
        let mut near = Expiring::new(near, svid_expires.clone().cancelled_owned());
        far.write_all(b"a").await.expect("written");
        assert_eq!(near.read_u8().await.expect("before the end"), b'a');
        let (error, ()) = tokio::join!(near.read_u8(), async { svid_expires.cancel() });
        assert_eq!(
            error.expect_err("after the end").kind(),
            io::ErrorKind::TimedOut
        );
        assert!(near.write_u8(b'b').await.is_err());
    }
}
