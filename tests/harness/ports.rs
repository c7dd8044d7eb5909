//! Loopback addresses for processes that get theirs from a file, so that they cannot ask for port 0.
//!
//! A port that was free a moment ago may since be the local end of somebody's outgoing connection. These lie below the
//! range that the kernel gives to such ends, and each stays reserved until the test process ends.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

/// Below the kernel's default range (32768 to 60999), above what the example shop uses.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The locks of what this process has reserved.
static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// An address that nobody listens on, reserved against every other test process of this machine.
pub fn free_address() -> SocketAddr {
    let folder = std::env::temp_dir().join("ravelin-test-ports");
    std::fs::create_dir_all(&folder).unwrap();
    let mut reserved = RESERVED.lock().unwrap();
    for port in PORTS {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(port.to_string()))
            .unwrap();
        if lock.try_lock().is_err() {
            continue;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            reserved.push(lock);
            return address;
        }
    }
    panic!("no port from {} to {} is free", PORTS.start, PORTS.end);
}
