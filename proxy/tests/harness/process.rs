//! The real program `ravelin-proxy` as a child process, known by its own id, with its log; never left over.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::client::{Client, get};

const PATIENCE: Duration = Duration::from_secs(40);
const PACE: Duration = Duration::from_millis(5);

/// A loopback address of this test alone, so that its fixed ports meet nobody else's.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [high, low] = std::process::id().to_le_bytes()[..2].try_into().unwrap();
    let host = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(127, 100 ^ (low & 0x1f), high | 1, host).into()
}

/// Looks until `look` is true.
pub async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let seen = tokio::time::timeout(PATIENCE, async {
        let mut pace = tokio::time::interval(PACE);
        while !look().await {
            pace.tick().await;
        }
    });
    assert!(seen.await.is_ok(), "waited in vain: {what}");
}

pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it with the configuration at `config`; its log goes to `CONFIG.NUMBER.log`.
    pub fn start(config: &Path, number: usize) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ravelin-proxy"));
        command.arg("--config").arg(config);
        Self::spawn(command, config, number)
    }

    /// Starts `command`, which becomes the program.
    pub fn spawn(mut command: Command, config: &Path, number: usize) -> Self {
        let log = config.with_extension(format!("{number}.log"));
        let file = std::fs::File::create(&log).unwrap();
        let child = command.stderr(file).spawn().unwrap();
        Self { child, log }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub async fn logged(&self, words: &str) {
        until(words, async || self.log().contains(words)).await;
    }

    pub fn terminate(&self) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its own end.
    pub async fn ended(&mut self) -> ExitStatus {
        until("the program ends", async || !self.is_running()).await;
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the process that answers at `admin` is ready.
pub async fn until_ready(admin: SocketAddr) {
    until("the proxy is ready", async || {
        let Ok(mut client) = Client::try_connect(admin).await else {
            return false;
        };
        let answer = client.send(get("localhost", "/readyz")).await;
        answer.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

/// A command that runs the program with `listeners` as `LISTEN_FDS`, as a service manager does; at most two.
pub fn activated(config: &Path, names: &str, listeners: [std::net::TcpListener; 2]) -> Command {
    let script =
        "exec 3<&0 4>&1 0</dev/null 1>&2; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" --config \"$1\"";
    let [first, second] = listeners.map(std::os::fd::OwnedFd::from);
    let mut command = Command::new("sh");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_ravelin-proxy")])
        .arg(config)
        .env("LISTEN_FDNAMES", names)
        .stdin(Stdio::from(first))
        .stdout(Stdio::from(second));
    command
}
