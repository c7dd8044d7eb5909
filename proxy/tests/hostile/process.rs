//! The proxy as the process that ships: started, measured, and ended by its own handle.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running `ravelin-proxy`, killed when it is dropped.
pub struct Process(Child);

impl Process {
    pub fn start(config: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_ravelin-proxy"))
            .arg("--config")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Panics when the process has ended.
    pub fn assert_alive(&mut self) {
        let ended = self.0.try_wait().unwrap();
        assert!(ended.is_none(), "the proxy ended: {ended:?}");
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.0.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0.id()))
            .unwrap()
            .count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that ended by itself needs no end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
