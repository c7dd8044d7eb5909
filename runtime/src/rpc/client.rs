//! Dials a gRPC server, on TLS by SPIFFE ID or on a Unix socket, with a deadline and with signs of life afterwards.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::ServerAddress;
use super::expiring::Expiring;
use crate::clock::from_unix_time;
use crate::limits;
use crate::tls::{PeerError, peer_error, peer_identity};

/// Why a server could not be dialled.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// `https://` needs a TLS configuration.
    #[error("`{0}` is dialled with TLS, and there is no TLS configuration")]
    TlsMissing(ServerAddress),
    /// Nobody answers there.
    #[error("cannot reach `{address}`")]
    Unreachable {
        /// Where.
        address: ServerAddress,
        /// Why.
        source: Arc<io::Error>,
    },
    /// No connection within `limits::CONNECT_DEADLINE`.
    #[error("`{0}` did not answer in time")]
    Deadline(ServerAddress),
    /// Somebody answers, but it is not whom we trust or expect.
    #[error("`{address}` is not trusted: {source}")]
    Peer {
        /// Where.
        address: ServerAddress,
        /// Why.
        source: PeerError,
    },
    /// The TLS handshake failed otherwise.
    #[error("the TLS handshake with `{address}` failed")]
    Handshake {
        /// Where.
        address: ServerAddress,
        /// Why.
        source: Arc<io::Error>,
    },
    /// HTTP/2 could not be set up.
    #[error("no gRPC connection to `{address}`")]
    Transport {
        /// Where.
        address: ServerAddress,
        /// Why.
        source: tonic::transport::Error,
    },
}

impl RpcError {
    /// Whether trying again later, with nothing changed here, can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::TlsMissing(_) => false,
            Self::Unreachable { .. }
            | Self::Deadline(_)
            | Self::Peer { .. }
            | Self::Handshake { .. }
            | Self::Transport { .. } => true,
        }
    }
}

/// What went wrong in the connector; it travels through tonic as a source.
#[derive(Debug, Clone, thiserror::Error)]
enum DialError {
    #[error("cannot connect")]
    Connect(#[source] Arc<io::Error>),
    #[error("TLS handshake failed")]
    Handshake(#[source] Arc<io::Error>),
    #[error("no answer in time")]
    Deadline,
    #[error("no TLS configuration")]
    TlsMissing,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Io for S {}

/// Dials now and fails if that fails. When the connection is lost later, the channel dials again on the next call, with the
/// same configuration. A TLS connection ends when the server's SVID expires.
pub async fn connect(
    address: &ServerAddress,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Channel, RpcError> {
    if tls.is_none() && matches!(address, ServerAddress::Https { .. }) {
        return Err(RpcError::TlsMissing(address.clone()));
    }
    let endpoint = endpoint(address).map_err(|source| to_rpc_error(address, source))?;
    let target = address.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (target, tls) = (target.clone(), tls.clone());
        async move {
            timeout(limits::CONNECT_DEADLINE, dial(&target, tls))
                .await
                .unwrap_or(Err(DialError::Deadline))
                .map(TokioIo::new)
        }
    });
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|source| to_rpc_error(address, source))
}

/// The scheme is always `http`: TLS is the connector's, and the URI only gives `:authority`.
fn endpoint(address: &ServerAddress) -> Result<Endpoint, tonic::transport::Error> {
    let uri = match address {
        ServerAddress::Unix(_) => "http://localhost".to_owned(),
        ServerAddress::Https { host, port } if host.contains(':') => {
            format!("http://[{host}]:{port}")
        }
        ServerAddress::Https { host, port } => format!("http://{host}:{port}"),
        ServerAddress::Tcp(address) => format!("http://{address}"),
    };
    Ok(Endpoint::from_shared(uri)?
        .http2_keep_alive_interval(limits::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(limits::HEADER_LIST_BYTES_MAX))
}

async fn dial(
    address: &ServerAddress,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Box<dyn Io>, DialError> {
    let failed = |error: io::Error| DialError::Connect(Arc::new(error));
    match address {
        ServerAddress::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
        ServerAddress::Https { host, port } => {
            let socket = TcpStream::connect((host.as_str(), *port))
                .await
                .map_err(failed)?;
            let tls = tls.ok_or(DialError::TlsMissing)?;
            handshake(socket, host, tls).await
        }
        ServerAddress::Tcp(address) => {
            let socket = TcpStream::connect(address).await.map_err(failed)?;
            match tls {
                Some(tls) => handshake(socket, &address.ip().to_string(), tls).await,
                None => Ok(Box::new(socket)),
            }
        }
    }
}

async fn handshake(
    socket: TcpStream,
    host: &str,
    tls: Arc<ClientConfig>,
) -> Result<Box<dyn Io>, DialError> {
    let failed = |error: io::Error| DialError::Handshake(Arc::new(error));
    // Only latency is lost if it fails.
    let _ = socket.set_nodelay(true);
    let name =
        ServerName::try_from(host.to_owned()).map_err(|error| failed(io::Error::other(error)))?;
    let stream = TlsConnector::from(Arc::clone(&tls))
        .connect(name, socket)
        .await
        .map_err(failed)?;
    let now = tls.time_provider.current_time().map(from_unix_time);
    let remaining = match (peer_identity(stream.get_ref().1), now) {
        (Some(peer), Some(now)) => peer.not_after.since(now),
        _ => Duration::ZERO,
    };
    Ok(Box::new(Expiring::new(stream, sleep(remaining))))
}

fn to_rpc_error(address: &ServerAddress, source: tonic::transport::Error) -> RpcError {
    let address = address.clone();
    match find::<DialError>(&source).cloned() {
        Some(DialError::Connect(source)) => RpcError::Unreachable { address, source },
        Some(DialError::Deadline) => RpcError::Deadline(address),
        Some(DialError::TlsMissing) => RpcError::TlsMissing(address),
        Some(DialError::Handshake(source)) => match peer_error(&source) {
            Some(source) => RpcError::Peer {
                address,
                source: source.clone(),
            },
            None => RpcError::Handshake { address, source },
        },
        None => RpcError::Transport { address, source },
    }
}

fn find<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
