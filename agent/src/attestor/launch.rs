//! Processes that a launcher vouches for: `launch:name:NAME`, or `launch:none` for all others.
//!
//! A process is its number *and* its start time, so a recycled number inherits nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ravelin_proto::selector::Selector;
use tokio::sync::watch;

use crate::limits;

/// One registered process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessKey {
    /// Its number.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`.
    pub start_time_ticks: u64,
}

/// Why a process is not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LaunchError {
    /// Empty, too long, or with a control character.
    #[error(
        "a launch name has 1 to {} characters and no control character",
        limits::LAUNCH_NAME_BYTES_MAX
    )]
    Name,
    /// Another launcher vouches for it under another name.
    #[error("process {0} is registered as `{1}` already")]
    Taken(i32, String),
    /// Past the limit.
    #[error("more than {} launched processes", limits::LAUNCHES_MAX)]
    Full,
}

/// Every registered process.
#[derive(Debug)]
pub(crate) struct LaunchTable {
    names: Mutex<BTreeMap<ProcessKey, (String, u32)>>,
    tick: watch::Sender<u64>,
}

impl Default for LaunchTable {
    fn default() -> Self {
        Self {
            names: Mutex::default(),
            tick: watch::Sender::new(0),
        }
    }
}

impl LaunchTable {
    /// Registers a process. The same name twice counts twice, for a launcher that connects again.
    pub(crate) fn register(&self, process: ProcessKey, name: &str) -> Result<(), LaunchError> {
        let is_name = name.len() <= limits::LAUNCH_NAME_BYTES_MAX
            && Selector::new("launch", &format!("name:{name}")).is_ok()
            && !name.is_empty();
        if !is_name {
            return Err(LaunchError::Name);
        }
        {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            let is_full = names.len() >= limits::LAUNCHES_MAX;
            match names.get_mut(&process) {
                Some((held, count)) if held == name => *count = count.saturating_add(1),
                Some((held, _)) => return Err(LaunchError::Taken(process.pid, held.clone())),
                None if is_full => return Err(LaunchError::Full),
                None => {
                    names.insert(process, (name.to_owned(), 1));
                }
            }
        }
        self.tick.send_modify(|tick| *tick = tick.wrapping_add(1));
        Ok(())
    }

    /// Takes one registration back.
    pub(crate) fn remove(&self, process: ProcessKey) {
        {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, count)) = names.get_mut(&process) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    names.remove(&process);
                }
            }
        }
        self.tick.send_modify(|tick| *tick = tick.wrapping_add(1));
    }

    /// The selector of a process: its name, or that it has none.
    pub(crate) fn selector(&self, process: ProcessKey) -> Option<Selector> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        match names.get(&process) {
            Some((name, _)) => Selector::new("launch", &format!("name:{name}")).ok(),
            None => Selector::new("launch", "none").ok(),
        }
    }

    /// Ticks at each change: streams attest their process again.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.tick.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pid: i32, start: u64) -> ProcessKey {
        ProcessKey {
            pid,
            start_time_ticks: start,
        }
    }

    fn shown(table: &LaunchTable, process: ProcessKey) -> String {
        table.selector(process).unwrap().to_string()
    }

    #[test]
    fn threat_01_a_recycled_number_inherits_no_launch_name() {
        let table = LaunchTable::default();
        table.register(key(7, 100), "orders").unwrap();
        assert_eq!(shown(&table, key(7, 100)), "launch:name:orders");
        assert_eq!(shown(&table, key(7, 101)), "launch:none");
        assert_eq!(shown(&table, key(8, 100)), "launch:none");
    }

    #[test]
    fn a_name_counts_until_its_last_launcher_is_gone() {
        let table = LaunchTable::default();
        table.register(key(7, 1), "orders").unwrap();
        table.register(key(7, 1), "orders").unwrap();
        let taken = LaunchError::Taken(7, "orders".into());
        assert_eq!(table.register(key(7, 1), "payments"), Err(taken));
        table.remove(key(7, 1));
        assert_eq!(shown(&table, key(7, 1)), "launch:name:orders");
        table.remove(key(7, 1));
        assert_eq!(shown(&table, key(7, 1)), "launch:none");
        table.remove(key(7, 1));
    }

    #[test]
    fn threat_07_a_launch_name_cannot_forge_a_selector() {
        let table = LaunchTable::default();
        for name in ["", "a\nlaunch:none", "a\0b", &"x".repeat(300)] {
            assert_eq!(
                table.register(key(1, 1), name),
                Err(LaunchError::Name),
                "{name:?}"
            );
        }
    }
}
