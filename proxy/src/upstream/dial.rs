//! Opening one connection: to the application in plain text, or to a peer with mutual TLS.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::identity::{IdentityError, Peer};
use crate::limits;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The proxy has no identity, or an expired one.
    #[error("the proxy has no valid identity")]
    NotReady,
    /// The service has no endpoint.
    #[error("the service has no endpoint")]
    NoEndpoint,
    /// Nobody answers.
    #[error("`{address}` cannot be reached: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("`{0}` does not answer in time")]
    Deadline(SocketAddr),
    /// The handshake failed: this is not the expected peer, or it does not accept us.
    #[error("`{address}` is refused: {source}")]
    Handshake {
        /// Where to.
        address: SocketAddr,
        /// What TLS says.
        source: std::io::Error,
    },
    /// No usable identity, own or of the peer.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The other end speaks HTTP/2 and takes no extended CONNECT.
    #[error("`{0}` speaks HTTP/2 and takes no other protocol in it")]
    NoTunnel(SocketAddr),
    /// The peer is on the deny-list.
    #[error("the peer at `{0}` is cut off")]
    Denied(SocketAddr),
    /// The HTTP connection could not be set up.
    #[error("no HTTP connection to `{address}`: {source}")]
    Http {
        /// Where to.
        address: SocketAddr,
        /// What hyper says.
        source: hyper::Error,
    },
}

impl DialError {
    /// True when it is the other end's identity that is refused.
    pub fn is_untrusted(&self) -> bool {
        match self {
            Self::Handshake { source, .. } => source.kind() == std::io::ErrorKind::InvalidData,
            Self::Denied(_) => true,
            Self::NotReady
            | Self::NoEndpoint
            | Self::NoTunnel(_)
            | Self::Connect { .. }
            | Self::Deadline(_)
            | Self::Identity(_)
            | Self::Http { .. } => false,
        }
    }
}

/// Opens a TCP connection within the deadline.
pub async fn tcp(address: SocketAddr) -> Result<TcpStream, DialError> {
    match timeout(limits::DIAL_DEADLINE, TcpStream::connect(address)).await {
        Err(_) => Err(DialError::Deadline(address)),
        Ok(Err(source)) => Err(DialError::Connect { address, source }),
        Ok(Ok(stream)) => {
            stream
                .set_nodelay(true)
                .map_err(|source| DialError::Connect { address, source })?;
            Ok(stream)
        }
    }
}

/// Opens a mutual TLS connection; `config` decides which peers are acceptable.
pub async fn tls(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> Result<(TlsStream<TcpStream>, Rc<Peer>), DialError> {
    let stream = tcp(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    let connector = TlsConnector::from(config);
    let stream = match timeout(limits::HANDSHAKE_DEADLINE, connector.connect(name, stream)).await {
        Err(_) => return Err(DialError::Deadline(address)),
        Ok(Err(source)) => return Err(DialError::Handshake { address, source }),
        Ok(Ok(stream)) => stream,
    };
    let peer = peer_of(&stream)?;
    Ok((stream, Rc::new(peer)))
}

fn peer_of(stream: &TlsStream<TcpStream>) -> Result<Peer, DialError> {
    let (_, connection) = stream.get_ref();
    let identity = ravelin_runtime::tls::peer_identity(connection).ok_or(IdentityError::NoPeer)?;
    Ok(Peer::new(identity)?)
}
