//! Two hosts on one machine: network namespaces that are joined by a pair of virtual interfaces.
//!
//! Needs root and the programs `ip`, `nft` and `setpriv`. Everything in them ends with the test; the machine's own
//! network is not touched.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::Process;
use crate::programs::{need, run, run_ok, skip};

/// Namespaces of this process so far.
static MADE: AtomicU32 = AtomicU32::new(0);

/// One host.
#[derive(Debug)]
pub struct Host {
    name: String,
}

/// Two hosts that reach each other: `10.77.0.1` and `fd77::1`, `10.77.0.2` and `fd77::2`.
#[derive(Debug)]
pub struct Hosts {
    /// `10.77.0.1`; what it knows no route to it sends to the other one.
    pub first: Host,
    /// `10.77.0.2`.
    pub second: Host,
}

impl Hosts {
    /// Makes both. `None` when the test is to be skipped.
    pub fn start() -> Option<Self> {
        if crate::uid() != 0 {
            skip("network namespaces need root");
            return None;
        }
        if !["ip", "nft", "setpriv"].iter().all(|program| need(program)) {
            return None;
        }
        let hosts = Self {
            first: Host::make(),
            second: Host::make(),
        };
        hosts.join();
        Some(hosts)
    }

    fn join(&self) {
        let [first, second] = [&self.first.name, &self.second.name];
        let lines = [
            format!("link add wire netns {first} type veth peer name wire netns {second}"),
            format!("-n {first} addr add 10.77.0.1/24 dev wire"),
            format!("-n {second} addr add 10.77.0.2/24 dev wire"),
            format!("-n {first} addr add fd77::1/64 dev wire nodad"),
            format!("-n {second} addr add fd77::2/64 dev wire nodad"),
            format!("-n {first} link set lo up"),
            format!("-n {second} link set lo up"),
            format!("-n {first} link set wire up"),
            format!("-n {second} link set wire up"),
            format!("-n {first} route add default via 10.77.0.2"),
            format!("-n {first} route add default via fd77::2"),
        ];
        for line in lines {
            run_ok(Command::new("ip").args(line.split(' ')));
        }
    }
}

impl Host {
    fn make() -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("ravelin-{}-{number}", std::process::id());
        run_ok(Command::new("ip").args(["netns", "add", &name]));
        Self { name }
    }

    /// A program that runs on this host, as root.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// A program that runs on this host as another user, without any privilege.
    pub fn command_as(&self, user: u32, program: &Path) -> Command {
        let mut command = self.command(Path::new("setpriv"));
        command
            .arg(format!("--reuid={user}"))
            .arg(format!("--regid={user}"))
            .args(["--clear-groups", "--no-new-privs"])
            .arg(program);
        command
    }

    /// Runs a program with these arguments to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        run(self.command(Path::new(program)).args(arguments))
    }

    /// Starts a program that runs until it is dropped.
    pub fn start(&self, name: &str, logs: &Path, command: &mut Command) -> Process {
        Process::start(&format!("{}-{name}", self.name), logs, command)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // WHY: a test that fails must not hide its reason behind this.
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}
