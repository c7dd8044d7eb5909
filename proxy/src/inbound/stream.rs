//! What a peer's connection is read from: mutual TLS, or plain text of which the first bytes were looked at.
//!
//! The mode of the workload port decides which of the two is answered at all (rule 82). STRICT never answers plain text.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ravelin_policies::PeerMode;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::handshake_code;
use crate::begun::Begun;
use crate::config::Protocol;
use crate::limits;

/// First byte of a TLS record that carries a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection that its port's mode accepts.
#[derive(Debug)]
pub enum PeerStream {
    /// Mutual TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// Plain text: nothing is known about the peer.
    Plain(Begun<TcpStream>),
}

/// Why a connection is closed; `None`: the other side closed without a word, such as a port check.
pub type Closed = Option<&'static str>;

impl PeerStream {
    /// Finds out what the peer speaks, and takes it as far as `mode` allows.
    pub async fn open(
        stream: TcpStream,
        config: Arc<ServerConfig>,
        mode: PeerMode,
        protocol: Protocol,
    ) -> Result<Self, Closed> {
        match (is_tls(&stream, mode, protocol).await?, mode) {
            (true, PeerMode::Strict | PeerMode::Permissive) => TlsAcceptor::from(config)
                .accept(stream)
                .await
                .map(|stream| Self::Tls(Box::new(stream)))
                .map_err(|error| Some(handshake_code(&error))),
            (true, PeerMode::Disable) => Err(Some("tls_refused")),
            (false, PeerMode::Strict) => Err(Some("plaintext_refused")),
            (false, PeerMode::Permissive | PeerMode::Disable) => {
                Self::plain(stream, protocol).await.map_err(|_| None)
            }
        }
    }

    /// Plain text, of which as much is read as tells the version of HTTP.
    async fn plain(stream: TcpStream, protocol: Protocol) -> io::Result<Self> {
        if !protocol.is_http() {
            return Ok(Self::Plain(Begun::unread(stream)));
        }
        Ok(Self::Plain(Begun::http(stream).await?))
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Tls(stream) => stream.get_ref().0,
            Self::Plain(begun) => begun.stream(),
        }
    }

    /// The TLS session; none for plain text.
    pub fn tls(&self) -> Option<&rustls::ServerConnection> {
        match self {
            Self::Tls(stream) => Some(stream.get_ref().1),
            Self::Plain(_) => None,
        }
    }

    /// HTTP/2 was negotiated, or begun in plain text.
    pub fn is_http2(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2".as_slice()),
            Self::Plain(begun) => begun.is_http2(),
        }
    }
}

/// Looks at the first byte, which stays where it is.
///
/// Where plain text is accepted, a TCP client that is silent waits for the server to speak first: TLS never does.
async fn is_tls(stream: &TcpStream, mode: PeerMode, protocol: Protocol) -> Result<bool, Closed> {
    let mut first = [0];
    let peeked = stream.peek(&mut first);
    let peeked = if !protocol.is_http() && mode.accepts_plain_text() {
        match timeout(limits::SILENCE_IS_PLAIN, peeked).await {
            Ok(peeked) => peeked,
            Err(_) => return Ok(false),
        }
    } else {
        peeked.await
    };
    match peeked {
        Ok(0) | Err(_) => Err(None),
        Ok(_) => Ok(first == [TLS_HANDSHAKE]),
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Plain(begun) => Pin::new(begun).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Plain(begun) => Pin::new(begun).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Plain(begun) => Pin::new(begun).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Plain(begun) => begun.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Plain(begun) => Pin::new(begun).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Plain(begun) => Pin::new(begun).poll_shutdown(context),
        }
    }
}
