//! Listening sockets: one per worker and address with SO_REUSEPORT, and the accept loop on each.

use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;

use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::config::{InboundListener, OutboundListener, Protocol, ProxyConfig};
use crate::limits;
use crate::route::Addressed;
use crate::takeover::sockets::Inherited;
use crate::worker::Worker;
use crate::{capture, inbound, outbound};

/// What a listener is for.
#[derive(Clone, Debug)]
pub enum Bound {
    /// Peers call this workload.
    Inbound(InboundListener),
    /// The application calls the mesh over HTTP.
    Outbound,
    /// Peers call ports of the application, and are redirected.
    CapturedInbound,
    /// The application calls one service over HTTP.
    HttpOutbound(OutboundListener),
    /// The application calls one service over TCP.
    TcpOutbound(OutboundListener),
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
    /// At least one per worker.
    pub sockets: Vec<TcpListener>,
}

/// Opens every listener of `config`, unless it is among `inherited`.
pub fn bind(config: &ProxyConfig, inherited: &mut Inherited) -> Result<Vec<Sockets>, BindError> {
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
            .http_outbound
            .iter()
            .map(|http| (Bound::HttpOutbound(http.clone()), http.listen)),
    );
    wanted.extend(
        config
            .tcp_outbound
            .iter()
            .map(|tcp| (Bound::TcpOutbound(tcp.clone()), tcp.listen)),
    );
    let mut bind = |(bound, address)| {
        let taken = inherited.take(address);
        bind_one(bound, address, config.worker_count(), taken)
    };
    let mut listeners: Vec<Sockets> = wanted
        .into_iter()
        .map(&mut bind)
        .collect::<Result<_, _>>()?;
    // Connections over IPv6 are redirected to the same port as those over IPv4.
    let outbound = listeners.first().filter(|_| config.capture.outbound);
    if let Some(port) = outbound.map(|first| first.address.port()) {
        let twin = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        listeners.extend(where_there_is_ipv6(bind((Bound::Outbound, twin)))?);
    }
    if let Some(port) = config.capture.inbound {
        let inbound = bind((
            Bound::CapturedInbound,
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        ))?;
        let twin = SocketAddr::from((Ipv6Addr::UNSPECIFIED, inbound.address.port()));
        listeners.push(inbound);
        listeners.extend(where_there_is_ipv6(bind((Bound::CapturedInbound, twin)))?);
    }
    Ok(listeners)
}

/// A machine without IPv6 has no connections over it to capture.
fn where_there_is_ipv6(bound: Result<Sockets, BindError>) -> Result<Option<Sockets>, BindError> {
    use rustix::io::Errno;
    match bound {
        Ok(sockets) => Ok(Some(sockets)),
        Err(BindError { source, .. })
            if [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT]
                .iter()
                .any(|errno| source.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Opens the admin listener, unless it is among `inherited`.
pub fn bind_admin(
    address: SocketAddr,
    inherited: &mut Inherited,
) -> Result<TcpListener, BindError> {
    if let Some(taken) = inherited.take(address).pop() {
        return Ok(taken);
    }
    open(address, false, Sort::Any).map_err(|source| BindError { address, source })
}

fn bind_one(
    bound: Bound,
    address: SocketAddr,
    workers: usize,
    taken: Vec<TcpListener>,
) -> Result<Sockets, BindError> {
    let fail = |source| BindError { address, source };
    if !taken.is_empty() {
        let sockets = share(taken, workers).map_err(fail)?;
        return Ok(Sockets {
            bound,
            address,
            sockets,
        });
    }
    let sort = match bound {
        Bound::CapturedInbound => Sort::OneFamily,
        Bound::Inbound(_) | Bound::Outbound | Bound::HttpOutbound(_) | Bound::TcpOutbound(_) => {
            Sort::Any
        }
    };
    // WHY: SO_REUSEPORT would silently share the port with another process of this user; a plain bind first shows it.
    if address.port() != 0 {
        drop(open(address, false, sort).map_err(fail)?);
    }
    let first = open(address, true, sort).map_err(fail)?;
    let chosen = first.local_addr().map_err(fail)?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(open(chosen, true, sort).map_err(fail)?);
    }
    Ok(Sockets {
        bound,
        address: chosen,
        sockets,
    })
}

/// Which connections a socket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// Those of its address; `[::]` takes IPv4 as well.
    Any,
    /// Those of its family: the listeners of a capture come in pairs.
    OneFamily,
}

/// At least one socket for each worker, and each socket for at least one worker: connections wait in every one of them.
fn share(mut sockets: Vec<TcpListener>, workers: usize) -> std::io::Result<Vec<TcpListener>> {
    let copies = workers.saturating_sub(sockets.len());
    let copies = sockets
        .iter()
        .cycle()
        .take(copies)
        .map(TcpListener::try_clone)
        .collect::<Result<Vec<_>, _>>()?;
    sockets.extend(copies);
    Ok(sockets)
}

fn open(address: SocketAddr, is_shared: bool, sort: Sort) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(SocketProtocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if sort == Sort::OneFamily && address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits::LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Accepts, once the listeners are to be served, until the drain begins.
pub async fn accept(
    worker: Rc<Worker>,
    bound: Bound,
    listener: tokio::net::TcpListener,
    mut is_open: watch::Receiver<bool>,
) {
    let open = Rc::new(Cell::new(0_usize));
    let drain = worker.drain().clone();
    // WHY: what waits in an inherited listener gets its answer by a configuration, not a refusal for want of one.
    tokio::select! {
        () = drain.started() => return,
        opened = is_open.wait_for(|is_open| *is_open) => if opened.is_err() { return },
    }
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
        Bound::Inbound(_) | Bound::CapturedInbound => "inbound",
        Bound::Outbound | Bound::HttpOutbound(_) | Bound::TcpOutbound(_) => "outbound",
    };
    if open.get() >= limits::CONNECTIONS_PER_LISTENER_MAX {
        worker.metrics().refused(direction, "connection_limit");
        return;
    }
    if worker.pressure().is_high() && matches!(bound, Bound::Inbound(_)) {
        // WHY: a handshake is work; the application's own connections are kept, and its calls are told why.
        worker.metrics().refused(direction, "overload");
        return;
    }
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let guard = OpenCount::new(open);
    let gauge = worker.metrics().connection(direction);
    let worker = Rc::clone(worker);
    let bound = bound.clone();
    // WHY: a task of its own, so that a panic in one connection ends that connection alone; each kind in a box, so that it
    // takes the room of its kind and not that of the largest.
    tokio::task::spawn_local(async move {
        match bound {
            Bound::Inbound(inbound) => match inbound.protocol {
                Protocol::Http | Protocol::Http2 | Protocol::Grpc => {
                    Box::pin(inbound::serve_http(worker, inbound, stream, source)).await;
                }
                Protocol::Tcp => {
                    Box::pin(inbound::serve_tcp(worker, inbound, stream, source)).await;
                }
            },
            Bound::CapturedInbound => {
                Box::pin(capture::serve_inbound(worker, stream, source)).await;
            }
            Bound::Outbound if worker.capture().outbound => {
                Box::pin(capture::serve_outbound(worker, stream, source)).await;
            }
            Bound::Outbound => {
                let addressed = Addressed::Host;
                Box::pin(outbound::serve_http(worker, addressed, stream, source)).await;
            }
            Bound::HttpOutbound(http) => {
                let addressed = http.addressed();
                Box::pin(outbound::serve_http(worker, addressed, stream, source)).await;
            }
            Bound::TcpOutbound(tcp) => {
                let addressed = tcp.addressed();
                Box::pin(outbound::tcp::serve(worker, addressed, stream, source)).await;
            }
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
