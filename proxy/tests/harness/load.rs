//! Calls in a loop until told to stop; every failure is kept. Each caller does one kind of thing as applications do it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{Answer, Client, get, request};

/// Waits this long for one call or one piece of progress.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one caller does again and again.
#[derive(Clone, Copy, Debug)]
pub enum Calling {
    /// `GET` over a connection that is kept.
    Kept,
    /// `GET` over a new connection each time.
    Fresh,
    /// `POST` with a body over a connection that is kept.
    Post,
    /// A new TCP connection, some bytes there and back.
    Tcp,
}

#[derive(Default)]
pub struct Load {
    is_over: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    /// Adds `count` callers of `address`.
    pub fn with(mut self, calling: Calling, address: SocketAddr, count: usize) -> Self {
        for _ in 0..count {
            let (is_over, calls) = (Arc::clone(&self.is_over), Arc::clone(&self.calls));
            self.tasks.push(tokio::spawn(async move {
                let mut failures = Vec::new();
                let mut kept = None;
                while !is_over.load(Ordering::Relaxed) {
                    let done = timeout(PATIENCE, calling.once(address, &mut kept)).await;
                    let done = done.unwrap_or_else(|_| Err("no end in time".to_owned()));
                    if let Err(failure) = done {
                        failures.push(format!("{calling:?}: {failure}"));
                        kept = None;
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                failures
            }));
        }
        self
    }

    /// Waits until `more` further calls were made.
    pub async fn go_on(&self, more: u64) {
        let goal = self.calls.load(Ordering::Relaxed) + more;
        let reached = timeout(PATIENCE, async {
            let mut pace = tokio::time::interval(Duration::from_millis(2));
            while self.calls.load(Ordering::Relaxed) < goal {
                pace.tick().await;
            }
        });
        reached.await.expect("the load goes on");
    }

    /// Calls made.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub async fn stop(self) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for task in self.tasks {
            failures.extend(task.await.unwrap());
        }
        failures
    }
}

impl Calling {
    async fn once(self, address: SocketAddr, kept: &mut Option<Client>) -> Result<(), String> {
        match self {
            Self::Kept => {
                let client = open(address, kept).await?;
                judged(client.send(get("inventory.shop", "/items")).await?)
            }
            Self::Fresh => {
                let mut client = Client::try_connect(address).await?;
                judged(client.send(get("inventory.shop", "/items")).await?)
            }
            Self::Post => {
                let client = open(address, kept).await?;
                let body = "x".repeat(4000);
                let call = request("POST", "inventory.shop", "/items", &body, &[]);
                judged(client.send(call).await?)
            }
            Self::Tcp => echoed(address).await.map_err(|error| error.to_string()),
        }
    }
}

/// The kept connection, or a new one where the other side has closed it in order.
async fn open(address: SocketAddr, kept: &mut Option<Client>) -> Result<&mut Client, String> {
    let is_over = match kept {
        Some(client) => client.is_over().await,
        None => true,
    };
    if is_over {
        *kept = Some(Client::try_connect(address).await?);
    }
    kept.as_mut().ok_or_else(String::new)
}

fn judged(answer: Answer) -> Result<(), String> {
    if answer.status == 200 {
        return Ok(());
    }
    Err(format!(
        "{} {} {}",
        answer.status,
        answer.code(),
        answer.body
    ))
}

async fn echoed(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"there and back").await?;
    let mut got = [0; 14];
    stream.read_exact(&mut got).await?;
    stream.shutdown().await?;
    let rest = stream.read(&mut got).await?;
    if rest == 0 && &got == b"there and back" {
        return Ok(());
    }
    Err(std::io::Error::other("other bytes came back"))
}
