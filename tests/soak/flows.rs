//! What the applications do all the time, each flow with its own count of calls, failures and latencies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ravelin_tests::http_call::{Answer, Call, HttpConnection, call_once};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::site::SoakSite;

const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// Exchanges in one TCP session, and the pause between two of them.
const TCP_EXCHANGES: usize = 20;
const TCP_PAUSE: Duration = Duration::from_millis(50);

/// Whether `/flip` is allowed now: known between two changes, unknown during one.
#[derive(Debug, Default)]
pub(crate) struct PolicyState(AtomicU8);

const ALLOWED: u8 = 1;
const DENIED: u8 = 2;

impl PolicyState {
    /// A change is on its way.
    pub(crate) fn changing(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    /// Every proxy has acknowledged.
    pub(crate) fn changed(&self, is_allowed: bool) {
        let state = if is_allowed { ALLOWED } else { DENIED };
        self.0.store(state, Ordering::SeqCst);
    }

    fn now(&self) -> u8 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What happened in one flow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Calls made.
    pub(crate) calls: u64,
    /// Denied by the policy that was in force.
    pub(crate) denied: u64,
    /// Every other end, by reason.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Microseconds of each call that was answered.
    pub(crate) latencies: Vec<u32>,
}

impl Tally {
    /// Calls that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// Latency in microseconds that `per_mille` of `latencies` did not exceed.
pub(crate) fn percentile(latencies: &mut [u32], per_mille: usize) -> u32 {
    latencies.sort_unstable();
    let last = latencies.len().saturating_sub(1);
    let index = last * per_mille.min(1000) / 1000;
    latencies.get(index).copied().unwrap_or_default()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Kept,
    Fresh,
    Http2,
    Post,
    Flip,
    Tcp,
}

/// All flows.
#[derive(Debug)]
pub(crate) struct Flows {
    tallies: Vec<(&'static str, Arc<Mutex<Tally>>)>,
    callers: Mutex<JoinSet<()>>,
}

impl Flows {
    /// Starts them; each ends with `stop`.
    pub(crate) fn start(
        site: &SoakSite,
        policy: &Arc<PolicyState>,
        stop: &CancellationToken,
    ) -> Self {
        // Name, what, callers, calls per second of each.
        let rows = [
            ("HTTP/1.1, kept connections", Kind::Kept, 8, 20),
            ("HTTP/1.1, a connection a call", Kind::Fresh, 2, 10),
            ("HTTP/2, one connection", Kind::Http2, 8, 20),
            ("HTTP/1.1 POST, proxy replaced", Kind::Post, 4, 20),
            ("TCP sessions, proxy replaced", Kind::Tcp, 4, 1),
            ("HTTP/1.1, policy flips", Kind::Flip, 2, 25),
        ];
        let mut callers = JoinSet::new();
        let mut tallies = Vec::new();
        for (name, kind, count, per_sec) in rows {
            let tally = Arc::new(Mutex::new(Tally::default()));
            for _ in 0..count {
                let caller = Caller {
                    kind,
                    http: site.orders.outbound,
                    tcp: site.tcp,
                    policy: Arc::clone(policy),
                    kept: None,
                    shared: None,
                };
                let pace = Duration::from_secs(1) / per_sec;
                callers.spawn(caller.run(pace, Arc::clone(&tally), stop.clone()));
            }
            tallies.push((name, tally));
        }
        Self {
            tallies,
            callers: Mutex::new(callers),
        }
    }

    /// What happened so far.
    pub(crate) fn tallies(&self) -> Vec<(&'static str, Tally)> {
        let copy = |tally: &Mutex<Tally>| tally.lock().unwrap().clone();
        self.tallies
            .iter()
            .map(|(name, tally)| (*name, copy(tally)))
            .collect()
    }

    /// Waits for the last calls.
    pub(crate) async fn ended(&self) {
        let callers = std::mem::take(&mut *self.callers.lock().unwrap());
        callers.join_all().await;
    }
}

enum Outcome {
    Answered,
    Denied,
    Failed(String),
}

struct Caller {
    kind: Kind,
    http: SocketAddr,
    tcp: SocketAddr,
    policy: Arc<PolicyState>,
    kept: Option<HttpConnection>,
    shared: Option<http2::SendRequest<Empty<Bytes>>>,
}

impl Caller {
    async fn run(mut self, pace: Duration, tally: Arc<Mutex<Tally>>, stop: CancellationToken) {
        let mut beat = interval(pace);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = beat.tick() => {}
            }
            let started = Instant::now();
            let outcome = tokio::time::timeout(CALL_DEADLINE, self.once()).await;
            let outcome = outcome.unwrap_or_else(|_| Outcome::Failed("no end in time".to_owned()));
            let mut tally = tally.lock().unwrap();
            tally.calls += 1;
            match outcome {
                Outcome::Answered => {
                    let latency = u32::try_from(started.elapsed().as_micros());
                    tally.latencies.push(latency.unwrap_or(u32::MAX));
                }
                Outcome::Denied => tally.denied += 1,
                Outcome::Failed(why) => {
                    eprintln!("failed: {:?}: {why}", self.kind);
                    *tally.failures.entry(why).or_default() += 1;
                }
            }
        }
    }

    async fn once(&mut self) -> Outcome {
        let get = Call::get("inventory.shop", "/inventory/1");
        match self.kind {
            Kind::Kept => plain(self.kept(&get).await),
            Kind::Fresh => plain(call_once(self.http, &get).await),
            Kind::Http2 => self.shared().await,
            Kind::Post => {
                let mut call = Call::get("payments.shop", "/pay").with_method(http::Method::POST);
                call.body = Bytes::from_static(&[b'x'; 2000]);
                plain(self.kept(&call).await)
            }
            Kind::Flip => {
                let before = self.policy.now();
                let answer = self.kept(&Call::get("inventory.shop", "/flip")).await;
                self.flipped(before, answer)
            }
            Kind::Tcp => match session(self.tcp).await {
                Ok(()) => Outcome::Answered,
                Err(error) => Outcome::Failed(error.to_string()),
            },
        }
    }

    async fn kept(&mut self, call: &Call) -> Result<Answer, String> {
        let is_over = match &mut self.kept {
            Some(connection) => connection.is_over().await,
            None => true,
        };
        if is_over {
            self.kept = Some(HttpConnection::open(self.http).await?);
        }
        let Some(connection) = &mut self.kept else {
            return Err("no connection".to_owned());
        };
        let answer = connection.call(call).await;
        if answer.is_err() {
            self.kept = None;
        }
        answer
    }

    /// A call that some policies deny: whoever was in force from its begin to its end decides alone.
    fn flipped(&self, before: u8, answer: Result<Answer, String>) -> Outcome {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Outcome::Failed(error),
        };
        let after = self.policy.now();
        let known = if before == after { before } else { 0 };
        match (answer.status, known) {
            (200, DENIED) => Outcome::Failed("a denied call was answered".to_owned()),
            (403, ALLOWED) => Outcome::Failed("an allowed call was denied".to_owned()),
            (200, _) => Outcome::Answered,
            (403, _) => Outcome::Denied,
            (status, _) => Outcome::Failed(format!("{status} {}", answer.code())),
        }
    }

    async fn shared(&mut self) -> Outcome {
        let called = self.call_shared().await;
        match called {
            Ok(200) => Outcome::Answered,
            Ok(status) => Outcome::Failed(status.to_string()),
            Err(error) => {
                self.shared = None;
                Outcome::Failed(error)
            }
        }
    }

    async fn call_shared(&mut self) -> Result<u16, String> {
        let is_over = match &mut self.shared {
            Some(sender) => sender.ready().await.is_err(),
            None => true,
        };
        if is_over {
            self.shared = Some(open_http2(self.http).await?);
        }
        let Some(sender) = &mut self.shared else {
            return Err("no connection".to_owned());
        };
        let request = http::Request::get("http://inventory.shop/inventory/1")
            .body(Empty::new())
            .map_err(said)?;
        let answer = sender.send_request(request).await.map_err(said)?;
        let status = answer.status().as_u16();
        answer.into_body().collect().await.map_err(said)?;
        Ok(status)
    }
}

fn plain(answer: Result<Answer, String>) -> Outcome {
    match answer {
        Ok(answer) if answer.status == 200 => Outcome::Answered,
        Ok(answer) => Outcome::Failed(format!("{} {}", answer.status, answer.code())),
        Err(error) => Outcome::Failed(error),
    }
}

fn said(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

async fn open_http2(address: SocketAddr) -> Result<http2::SendRequest<Empty<Bytes>>, String> {
    let stream = TcpStream::connect(address).await.map_err(said)?;
    stream.set_nodelay(true).map_err(said)?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(said)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// A second of bytes there and back.
async fn session(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut got = [0; 64];
    for _ in 0..TCP_EXCHANGES {
        stream.write_all(&[b'x'; 64]).await?;
        stream.read_exact(&mut got).await?;
        tokio::time::sleep(TCP_PAUSE).await;
    }
    stream.shutdown().await?;
    match stream.read(&mut got).await? {
        0 => Ok(()),
        _ => Err(std::io::Error::other("bytes that nobody sent")),
    }
}
