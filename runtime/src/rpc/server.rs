//! The accept loops of every gRPC server here: bounded connections, handshakes in tasks of their own with a deadline, the
//! newest TLS configuration for each, GOAWAY on drain, then a cut.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::Connected;

use super::crowd::{Crowd, Place, Source};
use super::expiring::Expiring;
use crate::clock::from_unix_time;
use crate::drain::Drain;
use crate::limits;
use crate::tls::{PeerIdentity, peer_error, peer_identity};
use crate::uds::{PeerProcess, UdsListener, UdsStream};

/// Accepted connections that wait for the server to take them.
const ACCEPTED_WAITING_MAX: usize = 16;

/// Bounds of one listener. The defaults are those of `limits`.
#[derive(Debug, Clone)]
pub struct RpcLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once of one user on a Unix socket.
    pub connections_per_user_max: usize,
    /// Connections at once of one address on TLS without a client certificate.
    pub anonymous_per_address_max: usize,
    /// How long a connection on TLS without a client certificate may last.
    pub anonymous_age_max: Duration,
    /// Handshakes at once.
    pub handshakes_max: usize,
    /// How long a handshake may take.
    pub handshake_deadline: Duration,
    /// HTTP/2 streams at once on one connection.
    pub streams_per_connection_max: u32,
    /// How long calls in flight may go on after drain has begun.
    pub drain_deadline: Duration,
    /// After this a connection is asked to go (GOAWAY); its calls may end first.
    pub connection_age_max: Option<Duration>,
}

impl Default for RpcLimits {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_user_max: limits::CONNECTIONS_PER_USER_MAX,
            anonymous_per_address_max: limits::ANONYMOUS_PER_ADDRESS_MAX,
            anonymous_age_max: limits::ANONYMOUS_AGE_MAX,
            handshakes_max: limits::HANDSHAKES_MAX,
            handshake_deadline: limits::HANDSHAKE_DEADLINE,
            streams_per_connection_max: limits::STREAMS_PER_CONNECTION_MAX,
            drain_deadline: limits::DRAIN_DEADLINE,
            connection_age_max: None,
        }
    }
}

/// A listener ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("the gRPC server ended")]
pub struct ServeError(#[from] tonic::transport::Error);

/// What a handler learns of a peer on TLS, from the request's extensions.
#[derive(Debug, Clone)]
pub struct TlsPeer {
    /// The verified peer; `None` if it came without an SVID and the listener allows that.
    pub identity: Option<Arc<PeerIdentity>>,
    /// Where it comes from.
    pub remote_addr: SocketAddr,
}

/// Serves on TLS until drain is over. Each handshake takes the configuration that is newest at that moment; a connection
/// ends when its peer's SVID expires.
pub async fn serve_tls(
    listener: TcpListener,
    config: Arc<ArcSwap<ServerConfig>>,
    routes: Routes,
    limits: RpcLimits,
    drain: Drain,
) -> Result<(), ServeError> {
    let (sender, incoming) = mpsc::channel(ACCEPTED_WAITING_MAX);
    let cut = CancellationToken::new();
    let accepting = accept_tls(
        listener,
        config,
        sender,
        limits.clone(),
        drain.clone(),
        cut.clone(),
    );
    serve(incoming, accepting, routes, &limits, drain, cut).await
}

/// Serves on a Unix socket until drain is over. A connection ends when the process that made it does.
pub async fn serve_uds(
    listener: UdsListener,
    routes: Routes,
    limits: RpcLimits,
    drain: Drain,
) -> Result<(), ServeError> {
    let (sender, incoming) = mpsc::channel(ACCEPTED_WAITING_MAX);
    let cut = CancellationToken::new();
    let accepting = accept_uds(listener, sender, limits.clone(), drain.clone(), cut.clone());
    serve(incoming, accepting, routes, &limits, drain, cut).await
}

async fn serve<S, P>(
    incoming: mpsc::Receiver<Accepted<S, P>>,
    accepting: impl Future<Output = ()>,
    routes: Routes,
    limits: &RpcLimits,
    drain: Drain,
    cut: CancellationToken,
) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Clone + Unpin + Send + Sync + 'static,
{
    // Whatever is still open when this function ends, or is dropped, is cut.
    let _cut = cut.drop_guard();
    let mut builder = tonic::transport::Server::builder()
        .max_concurrent_streams(limits.streams_per_connection_max)
        .http2_max_header_list_size(limits::HEADER_LIST_BYTES_MAX)
        .http2_keepalive_interval(Some(limits::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(limits::KEEPALIVE_TIMEOUT));
    if let Some(age_max) = limits.connection_age_max {
        builder = builder.max_connection_age(age_max);
    }
    let incoming = ReceiverStream::new(incoming).map(Ok::<_, Infallible>);
    let server = builder
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, drain.clone().into_started());
    let deadline = async {
        drain.started().await;
        sleep(limits.drain_deadline).await;
    };
    let bounded = async {
        tokio::select! {
            outcome = server => outcome,
            () = deadline => Ok(()),
        }
    };
    tokio::pin!(accepting, bounded);
    // The accept loop ends on drain alone; the server may end earlier, by an error.
    let outcome = tokio::select! {
        outcome = &mut bounded => outcome,
        () = &mut accepting => bounded.await,
    };
    Ok(outcome?)
}

async fn accept_tls(
    listener: TcpListener,
    config: Arc<ArcSwap<ServerConfig>>,
    sender: mpsc::Sender<Accepted<TlsStream<TcpStream>, TlsPeer>>,
    limits: RpcLimits,
    drain: Drain,
    cut: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let anonymous = Arc::new(Crowd::default());
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        if handshakes.len() >= limits.handshakes_max {
            handshakes.join_next().await;
            continue;
        }
        // Every arm is cancel-safe: a permit or a connection is taken whole or not at all.
        let accepted = tokio::select! {
            () = drain.started() => return,
            accepted = next_tcp(&slots, &listener) => accepted,
        };
        let Some((slot, socket, remote_addr)) = accepted else {
            sleep(limits::ACCEPT_REST).await;
            continue;
        };
        let config = config.load_full();
        let (sender, cut) = (sender.clone(), cut.clone());
        let (anonymous, limits) = (Arc::clone(&anonymous), limits.clone());
        handshakes.spawn(async move {
            let handshake = TlsAcceptor::from(Arc::clone(&config)).accept(socket);
            match timeout(limits.handshake_deadline, handshake).await {
                Ok(Ok(stream)) => {
                    let accepted = Accepted::tls(
                        stream,
                        remote_addr,
                        &config,
                        (slot, &anonymous, &limits),
                        cut,
                    );
                    let Some(accepted) = accepted else {
                        tracing::debug!(%remote_addr, "too many connections without an SVID");
                        return;
                    };
                    // The receiver is gone only when the server has ended.
                    let _ = sender.send(accepted).await;
                }
                Ok(Err(error)) => log_refusal(remote_addr, &error),
                Err(_) => tracing::debug!(%remote_addr, "handshake took too long"),
            }
        });
    }
}

fn log_refusal(remote_addr: SocketAddr, error: &std::io::Error) {
    if let Some(reason) = peer_error(error) {
        tracing::info!(%remote_addr, code = reason.code(), %reason, "peer refused");
    } else {
        tracing::debug!(%remote_addr, %error, "handshake failed");
    }
}

async fn next_tcp(
    slots: &Arc<Semaphore>,
    listener: &TcpListener,
) -> Option<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, remote_addr)) => {
            // Only latency is lost if it fails.
            let _ = socket.set_nodelay(true);
            Some((slot, socket, remote_addr))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            None
        }
    }
}

async fn accept_uds(
    listener: UdsListener,
    sender: mpsc::Sender<Accepted<UdsStream, PeerProcess>>,
    limits: RpcLimits,
    drain: Drain,
    cut: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let users = Arc::new(Crowd::default());
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            match listener.accept().await {
                Ok((stream, peer)) => Some((slot, stream, peer)),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    None
                }
            }
        };
        let accepted = tokio::select! {
            () = drain.started() => return,
            accepted = next => accepted,
        };
        let Some((slot, stream, peer)) = accepted else {
            sleep(limits::ACCEPT_REST).await;
            continue;
        };
        let Some(user) = users.admit(Source::User(peer.uid), limits.connections_per_user_max)
        else {
            tracing::debug!(uid = peer.uid, "too many connections of one user");
            continue;
        };
        if sender
            .send(Accepted::uds(stream, peer, (slot, user), cut.clone()))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// An accepted connection with its peer and its slot among the listener's connections.
struct Accepted<S, P> {
    stream: Expiring<S>,
    peer: P,
    _slot: OwnedSemaphorePermit,
    _place: Option<Place>,
}

impl Accepted<TlsStream<TcpStream>, TlsPeer> {
    /// `None` when it has no SVID, and its address has as many such connections as it may.
    fn tls(
        stream: TlsStream<TcpStream>,
        remote_addr: SocketAddr,
        config: &ServerConfig,
        (slot, anonymous, limits): (OwnedSemaphorePermit, &Arc<Crowd>, &RpcLimits),
        cut: CancellationToken,
    ) -> Option<Self> {
        let identity = peer_identity(stream.get_ref().1).map(Arc::new);
        let (remaining, place) = if let Some(identity) = &identity {
            let now = config.time_provider.current_time().map(from_unix_time);
            let remaining = now.map_or(Duration::ZERO, |now| identity.not_after.since(now));
            (remaining, None)
        } else {
            let source = Source::of_address(remote_addr.ip());
            let place = anonymous.admit(source, limits.anonymous_per_address_max)?;
            (limits.anonymous_age_max, Some(place))
        };
        let end = async move {
            // Both arms are cancel-safe, and neither is polled again.
            tokio::select! {
                () = cut.cancelled() => {}
                () = sleep(remaining) => {}
            }
        };
        let peer = TlsPeer {
            identity,
            remote_addr,
        };
        Some(Self {
            stream: Expiring::new(stream, end),
            peer,
            _slot: slot,
            _place: place,
        })
    }
}

impl Accepted<UdsStream, PeerProcess> {
    fn uds(
        stream: UdsStream,
        peer: PeerProcess,
        (slot, place): (OwnedSemaphorePermit, Place),
        cut: CancellationToken,
    ) -> Self {
        let process = peer.clone();
        let end = async move {
            tokio::select! {
                () = cut.cancelled() => {}
                // An error here means that the peer cannot be watched: better no connection.
                _ = process.exited() => {}
            }
        };
        Self {
            stream: Expiring::new(stream, end),
            peer,
            _slot: slot,
            _place: Some(place),
        }
    }
}

impl<S, P: Clone + Send + Sync + 'static> Connected for Accepted<S, P> {
    type ConnectInfo = P;

    fn connect_info(&self) -> P {
        self.peer.clone()
    }
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for Accepted<S, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, out)
    }
}

impl<S: AsyncWrite + Unpin, P: Unpin> AsyncWrite for Accepted<S, P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
