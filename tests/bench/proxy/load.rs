//! A number of calls, shared among connections, and what each of them took.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::client::{Call, Http1, Http2};

/// One call, connection included.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// Over what the calls go.
#[derive(Clone)]
pub(crate) enum Shape {
    /// Kept HTTP/1.1 connections, plain or with TLS.
    Http1(Option<TlsConnector>, usize),
    /// Kept HTTP/2 connections, and streams on each at once.
    Http2(TlsConnector, usize, usize),
    /// A new HTTP/1.1 connection with TLS for each call, so many at once.
    New(TlsConnector, usize),
}

enum Lane {
    Http1(Http1),
    Http2(Http2),
    New(TlsConnector),
}

impl Lane {
    async fn call(&mut self, address: SocketAddr, call: &Call) -> Result<(), String> {
        let calling = async {
            match self {
                Self::Http1(connection) => connection.call(call).await,
                Self::Http2(connection) => connection.call(call).await,
                Self::New(tls) => {
                    let mut connection = Http1::open(address, Some(tls)).await?;
                    connection.call(call).await?;
                    connection.close().await;
                    Ok(())
                }
            }
        };
        tokio::time::timeout(CALL_DEADLINE, calling)
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

/// Open connections to one proxy.
pub(crate) struct Lanes {
    address: SocketAddr,
    lanes: Vec<Lane>,
}

/// What a run of calls took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    /// Calls made.
    pub(crate) calls: u64,
    /// From the first to the last.
    pub(crate) secs: f64,
    /// Of each call, in microseconds, sorted.
    pub(crate) latencies_us: Vec<u32>,
}

impl Run {
    /// Microseconds that `share` (per mille) of the calls did not exceed.
    pub(crate) fn latency_us(&self, share: usize) -> u32 {
        let last = self.latencies_us.len().saturating_sub(1);
        let index = last * share.min(1000) / 1000;
        self.latencies_us.get(index).copied().unwrap_or_default()
    }
}

impl Lanes {
    /// Opens what `shape` asks for.
    pub(crate) async fn open(address: SocketAddr, shape: &Shape) -> Result<Self, String> {
        let mut lanes = Vec::new();
        match shape {
            Shape::Http1(tls, connections) => {
                for _ in 0..*connections {
                    lanes.push(Lane::Http1(Http1::open(address, tls.as_ref()).await?));
                }
            }
            Shape::Http2(tls, connections, streams) => {
                for _ in 0..*connections {
                    let connection = Http2::open(address, tls).await?;
                    lanes.extend((0..*streams).map(|_| Lane::Http2(connection.clone())));
                }
            }
            Shape::New(tls, at_once) => {
                lanes.extend((0..*at_once).map(|_| Lane::New(tls.clone())));
            }
        }
        Ok(Self { address, lanes })
    }

    /// Makes `calls` calls. The first failure ends it: a proxy that fails is not measured.
    pub(crate) async fn run(&mut self, call: &Call, calls: u64) -> Result<Run, String> {
        let next = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for mut lane in self.lanes.drain(..) {
            let (next, call, address) = (Arc::clone(&next), call.clone(), self.address);
            tasks.spawn(async move {
                let mut latencies = Vec::new();
                while next.fetch_add(1, Ordering::Relaxed) < calls {
                    let began = Instant::now();
                    lane.call(address, &call).await?;
                    let took = u32::try_from(began.elapsed().as_micros());
                    latencies.push(took.unwrap_or(u32::MAX));
                }
                Ok::<_, String>((lane, latencies))
            });
        }
        let mut run = Run {
            calls,
            ..Run::default()
        };
        while let Some(ended) = tasks.join_next().await {
            let (lane, latencies) = ended.map_err(|error| error.to_string())??;
            self.lanes.push(lane);
            run.latencies_us.extend(latencies);
        }
        run.secs = started.elapsed().as_secs_f64();
        run.latencies_us.sort_unstable();
        Ok(run)
    }
}
