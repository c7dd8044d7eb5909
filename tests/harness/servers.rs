//! Servers of others, from Debian's packages: a PostgreSQL and a Redis, each in a temporary folder on a port of its own.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::ports::free_address;
use crate::process::Process;
use crate::programs::{need, run_ok, skip};
use crate::uid;
use crate::wait::{SOON, until_true};

/// A running server; it ends, and its folder goes, when this is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Server {
    async fn start(
        name: &str,
        address: SocketAddr,
        folder: TempDir,
        command: &mut Command,
    ) -> Self {
        let process = Process::start(name, folder.path(), command);
        let what = format!("`{name}` listens");
        until_true(&what, SOON, || async {
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        Self {
            address,
            _process: process,
            _folder: folder,
        }
    }
}

/// A PostgreSQL that trusts everybody on loopback. `None` when the test is to be skipped.
pub async fn postgres() -> Option<Server> {
    let Some(programs) = postgres_programs().filter(|_| need("psql")) else {
        skip("PostgreSQL is missing (Debian's package is postgresql)");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // WHY: PostgreSQL refuses to run as root.
    let user = (uid() == 0).then(postgres_user);
    if let Some((uid, gid)) = user {
        chown(folder.path(), Some(uid), Some(gid)).unwrap();
    }
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    let command = |program: &str| {
        let mut command = Command::new(programs.join(program));
        command.current_dir(folder.path()).env("LC_ALL", "C.UTF-8");
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        command
    };
    run_ok(
        command("initdb")
            .args([
                "--auth",
                "trust",
                "--username",
                "postgres",
                "--no-sync",
                "--pgdata",
            ])
            .arg(&data),
    );
    let address = free_address();
    let mut server = command("postgres");
    server.arg("-D").arg(&data).args([
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        &format!("port={}", address.port()),
        "-c",
        "unix_socket_directories=",
        "-c",
        "fsync=off",
    ]);
    Some(Server::start("postgres", address, folder, &mut server).await)
}

/// A Redis without persistence. `None` when the test is to be skipped.
pub async fn redis() -> Option<Server> {
    if !need("redis-server") || !need("redis-cli") {
        return None;
    }
    let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
    let mut server = Command::new("redis-server");
    server
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--port", &address.port().to_string()])
        .arg("--dir")
        .arg(folder.path());
    Some(Server::start("redis", address, folder, &mut server).await)
}

/// Debian keeps the server's programs of each version in a folder of its own, out of the way.
fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut folders: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| Path::is_file(&folder.join("initdb")))
        .collect();
    folders.sort();
    folders.pop()
}

fn postgres_user() -> (u32, u32) {
    let number = |flag: &str| {
        let text = run_ok(Command::new("id").args([flag, "postgres"]));
        text.trim().parse().unwrap()
    };
    (number("-u"), number("-g"))
}
