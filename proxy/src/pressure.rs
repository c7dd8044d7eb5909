//! Memory under pressure: beyond a bound new work is refused (`overload`), and what runs goes on.
//!
//! Every worker looks at the resident memory of the process from time to time; a look is one small read.

use std::cell::Cell;

use crate::limits;

/// What one worker knows of the memory of the process.
#[derive(Debug)]
pub struct Pressure {
    /// Bytes beyond which new work is refused; none: no bound.
    max: Option<u64>,
    is_high: Cell<bool>,
}

impl Pressure {
    /// With `configured` bytes as bound, else a share of what the control group may use.
    pub fn new(configured: Option<u64>) -> Self {
        Self {
            max: configured.or_else(|| group_max().map(share)),
            is_high: Cell::new(false),
        }
    }

    /// True where there is a bound at all.
    pub fn is_bounded(&self) -> bool {
        self.max.is_some()
    }

    /// True while new work is refused.
    pub fn is_high(&self) -> bool {
        self.is_high.get()
    }

    /// Looks at the memory that the process uses now.
    pub fn look(&self) {
        if let (Some(max), Some(used)) = (self.max, resident()) {
            let is_high = is_high(self.is_high.get(), used, max);
            if is_high != self.is_high.replace(is_high) {
                tracing::warn!(used, max, is_high, "memory pressure changed");
            }
        }
    }
}

/// Pressure begins at the bound and ends clearly below it, so that it does not flicker.
fn is_high(was_high: bool, used: u64, max: u64) -> bool {
    let end = max.saturating_sub(max / limits::PRESSURE_RELIEF_SHARE);
    used > if was_high { end } else { max }
}

fn share(max: u64) -> u64 {
    max.saturating_sub(max / limits::PRESSURE_RESERVE_SHARE)
}

/// `memory.max` of control groups, version 2; none where there is no bound.
fn group_max() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let max = std::fs::read_to_string(format!("/sys/fs/cgroup{path}/memory.max")).ok()?;
    max.trim().parse().ok()
}

/// Resident memory in bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_54_pressure_begins_at_the_bound_and_ends_below_it() {
        let rows = [
            (false, 99, false),
            (false, 100, false),
            (false, 101, true),
            (true, 100, true),
            (true, 91, true),
            (true, 90, false),
        ];
        for (was_high, used, want) in rows {
            assert_eq!(is_high(was_high, used, 100), want, "{was_high} {used}");
        }
    }

    #[test]
    fn threat_54_a_process_beyond_its_bound_is_under_pressure() {
        for (max, want) in [(Some(1), true), (Some(u64::MAX), false)] {
            let pressure = Pressure::new(max);
            pressure.look();
            assert_eq!(pressure.is_high(), want, "{max:?}");
        }
    }
}
