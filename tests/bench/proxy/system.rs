//! A pair of proxies of one make: the caller's takes plain HTTP, the called one's takes mutual TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use ravelin_tests::ports::free_address;
use ravelin_tests::process::Process;

use crate::mesh::{Mesh, Pem, spiffe_id};

/// What every pair stands on.
pub(crate) struct Ground<'a> {
    /// Temporary folder for configurations and logs.
    pub(crate) folder: &'a Path,
    /// The application.
    pub(crate) app: SocketAddr,
    /// Credentials for the proxies of others.
    pub(crate) pem: &'a Pem,
}

/// A running pair.
pub(crate) struct System {
    /// Such as `nginx`.
    pub(crate) name: &'static str,
    /// Version, and what it does.
    pub(crate) what: String,
    /// Where the application calls.
    pub(crate) outbound: SocketAddr,
    /// Where peers call.
    pub(crate) inbound: SocketAddr,
    caller: Process,
    called: Process,
}

impl System {
    /// Starts both proxies of a pair that `of` describes.
    pub(crate) fn start(
        name: &'static str,
        what: String,
        folder: &Path,
        outbound: (SocketAddr, Command),
        inbound: (SocketAddr, Command),
    ) -> Self {
        let (outbound, mut caller) = outbound;
        let (inbound, mut called) = inbound;
        Self {
            name,
            what,
            outbound,
            inbound,
            called: Process::start(&format!("{name}-inbound"), folder, &mut called),
            caller: Process::start(&format!("{name}-outbound"), folder, &mut caller),
        }
    }

    /// Process ids: the called one's proxy alone, or both.
    pub(crate) fn pids(&self, is_pair: bool) -> Vec<u32> {
        let mut pids = vec![self.called.pid()];
        if is_pair {
            pids.push(self.caller.pid());
        }
        pids
    }

    /// Why it cannot be used any more: a proxy that has ended, with the last lines that it wrote.
    pub(crate) fn ended(&mut self) -> Option<String> {
        for process in [&mut self.called, &mut self.caller] {
            if let Some(status) = process.ended() {
                let log = process.log();
                let lines: Vec<&str> = log.lines().collect();
                let tail = &lines[lines.len().saturating_sub(5)..];
                return Some(format!("it ended with {status}: {}", tail.join(" | ")));
            }
        }
        None
    }
}

/// Where Ravelin's own pair listens; the mesh has to know it before the proxies start.
pub(crate) struct OwnPorts {
    /// The caller's proxy.
    pub(crate) outbound: SocketAddr,
    /// The called one's proxy.
    pub(crate) inbound: SocketAddr,
}

impl OwnPorts {
    /// Free ones.
    pub(crate) fn free() -> Self {
        Self {
            outbound: free_address(),
            inbound: free_address(),
        }
    }
}

/// Starts Ravelin's pair: `program` with one worker each, metrics and a record of every call.
pub(crate) fn ravelin(program: &Path, ports: &OwnPorts, mesh: &Mesh, ground: &Ground) -> System {
    let config = |name: &str, listeners: String| {
        let path = ground.folder.join(format!("ravelin-{name}.toml"));
        let text = format!(
            "name = \"{name}\"\nagent_socket = \"{}\"\nspiffe_id = \"{}\"\nworkers = 1\nadmin = \"127.0.0.1:0\"\n{listeners}",
            mesh.node.socket().display(),
            spiffe_id(name),
        );
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(path);
        command
    };
    let outbound = config("orders", format!("outbound = \"{}\"\n", ports.outbound));
    let inbound = config(
        "inventory",
        format!(
            "outbound = \"{}\"\n\n[[inbound]]\nlisten = \"{}\"\nforward = \"{}\"\n",
            free_address(),
            ports.inbound,
            ground.app
        ),
    );
    System::start(
        "ravelin",
        format!(
            "ravelin-proxy {}, token and {} rules on, every call recorded",
            env!("CARGO_PKG_VERSION"),
            crate::mesh::RULES
        ),
        ground.folder,
        (ports.outbound, outbound),
        (ports.inbound, inbound),
    )
}

/// Finds a program on `PATH`, or where an administrator's are.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The first line of what `program ARGUMENT` writes.
pub(crate) fn version(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    output.map_or_else(
        |error| error.to_string(),
        |output| {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            let line = text.lines().find(|line| !line.trim().is_empty());
            line.unwrap_or_default().trim().to_owned()
        },
    )
}
