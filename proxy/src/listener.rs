//! Listening sockets: one per worker and address with SO_REUSEPORT, and the accept loop on each.

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;

use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::net::TcpStream;

use crate::config::{InboundListener, Protocol, ProxyConfig, TcpOutboundListener};
use crate::limits;
use crate::worker::Worker;
use crate::{inbound, outbound};

/// What a listener is for.
#[derive(Clone, Debug)]
pub enum Bound {
    /// Peers call this workload.
    Inbound(InboundListener),
    /// The application calls the mesh over HTTP.
    Outbound,
    /// The application calls one service over TCP.
    TcpOutbound(TcpOutboundListener),
}

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on `{address}`: {source}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    pub source: std::io::Error,
}

/// The sockets of one listener: one per worker, all on one address.
#[derive(Debug)]
pub struct Sockets {
    /// What the listener is for.
    pub bound: Bound,
    /// The address, with the port that the system chose if 0 was asked.
    pub address: SocketAddr,
    /// One per worker.
    pub sockets: Vec<TcpListener>,
}

/// Opens every listener of `config`.
pub fn bind(config: &ProxyConfig) -> Result<Vec<Sockets>, BindError> {
    let mut wanted = Vec::new();
    wanted.extend(config.outbound.map(|address| (Bound::Outbound, address)));
    wanted.extend(
        config
            .inbound
            .iter()
            .map(|inbound| (Bound::Inbound(inbound.clone()), inbound.listen)),
    );
    wanted.extend(
        config
            .tcp_outbound
            .iter()
            .map(|tcp| (Bound::TcpOutbound(tcp.clone()), tcp.listen)),
    );
    wanted
        .into_iter()
        .map(|(bound, address)| bind_one(bound, address, config.worker_count()))
        .collect()
}

/// Opens the admin listener.
pub fn bind_admin(address: SocketAddr) -> Result<TcpListener, BindError> {
    open(address, false).map_err(|source| BindError { address, source })
}

fn bind_one(bound: Bound, address: SocketAddr, workers: usize) -> Result<Sockets, BindError> {
    let fail = |source| BindError { address, source };
    // WHY: SO_REUSEPORT would silently share the port with another process of this user; a plain bind first shows it.
    if address.port() != 0 {
        drop(open(address, false).map_err(fail)?);
    }
    let first = open(address, true).map_err(fail)?;
    let chosen = first.local_addr().map_err(fail)?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(open(chosen, true).map_err(fail)?);
    }
    Ok(Sockets {
        bound,
        address: chosen,
        sockets,
    })
}

fn open(address: SocketAddr, is_shared: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(SocketProtocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits::LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the drain begins.
pub async fn accept(worker: Rc<Worker>, bound: Bound, listener: tokio::net::TcpListener) {
    let open = Rc::new(Cell::new(0_usize));
    let drain = worker.drain().clone();
    loop {
        // WHY: both arms are cancel-safe: a connection that is not accepted yet stays in the kernel's queue.
        let accepted = tokio::select! {
            () = drain.started() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, source)) => admit(&worker, &bound, &open, stream, source),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(
    worker: &Rc<Worker>,
    bound: &Bound,
    open: &Rc<Cell<usize>>,
    stream: TcpStream,
    source: SocketAddr,
) {
    let direction = match bound {
        Bound::Inbound(_) => "inbound",
        Bound::Outbound | Bound::TcpOutbound(_) => "outbound",
    };
    if open.get() >= limits::CONNECTIONS_PER_LISTENER_MAX {
        worker.metrics().refused(direction, "connection_limit");
        return;
    }
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let guard = OpenCount::new(open);
    let gauge = worker.metrics().connection(direction);
    let worker = Rc::clone(worker);
    let bound = bound.clone();
    // WHY: a task of its own, so that a panic in one connection ends that connection alone.
    tokio::task::spawn_local(async move {
        match bound {
            Bound::Inbound(inbound) => match inbound.protocol {
                Protocol::Http | Protocol::Http2 | Protocol::Grpc => {
                    inbound::serve_http(worker, inbound, stream, source).await;
                }
                Protocol::Tcp => inbound::serve_tcp(worker, inbound, stream, source).await,
            },
            Bound::Outbound => outbound::serve_http(worker, stream, source).await,
            Bound::TcpOutbound(tcp) => outbound::tcp::serve(worker, tcp, stream, source).await,
        }
        drop((guard, gauge));
    });
}

struct OpenCount(Rc<Cell<usize>>);

impl OpenCount {
    fn new(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get().saturating_add(1));
        Self(Rc::clone(open))
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
