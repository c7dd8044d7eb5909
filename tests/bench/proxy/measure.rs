//! What the system knows about a process from outside: CPU time, resident memory, system calls.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ravelin_tests::process::Process;

/// How long `strace` gets to attach.
const ATTACH_DEADLINE: Duration = Duration::from_secs(5);

/// CPU time, user and system, of all threads of `pid` so far, in seconds.
///
/// From the scheduler's nanosecond counters; `/proc/PID/stat` counts hundredths of a second.
pub(crate) fn cpu_secs(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let nanoseconds: u64 = tasks
        .into_iter()
        .flatten()
        .filter_map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum();
    float(nanoseconds) / 1e9
}

/// Resident memory of `pid` in bytes.
pub(crate) fn rss_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or_default()
        * 1024
}

/// Load averages of the machine, as the kernel gives them.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The processor's name.
pub(crate) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|line| line.split_once(':'));
    model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// System calls of one process, counted by `strace -c -f` while this lives.
pub(crate) struct SyscallCount {
    strace: Process,
    report: std::path::PathBuf,
}

impl SyscallCount {
    /// Attaches to `pid`. `None` without `strace`, or where it may not attach.
    pub(crate) fn attach(pid: u32, folder: &Path) -> Option<Self> {
        Command::new("strace")
            .arg("-V")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .ok()?;
        let report = folder.join(format!("strace-{pid}.txt"));
        let mut command = Command::new("strace");
        command
            .args(["-f", "-c", "-o"])
            .arg(&report)
            .args(["-p", &pid.to_string()]);
        let strace = Process::start(&format!("strace-{pid}"), folder, &mut command);
        let mut count = Self { strace, report };
        let deadline = Instant::now() + ATTACH_DEADLINE;
        while Instant::now() < deadline {
            if count.strace.ended().is_some() {
                return None;
            }
            if is_traced(pid) {
                return Some(count);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Detaches and gives the sum of all calls.
    pub(crate) async fn finish(mut self) -> Option<u64> {
        self.strace.interrupt();
        self.strace.wait_soon().await;
        let report = fs::read_to_string(&self.report).ok()?;
        let total = report.lines().find(|line| line.ends_with(" total"))?;
        // Columns: % time, seconds, usecs/call, calls, [errors], "total".
        total.split_whitespace().nth(3)?.parse().ok()
    }
}

fn is_traced(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks.into_iter().flatten().flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let tracer = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    })
}

/// The number as a float; what is measured here stays far below 2^53.
#[allow(
    clippy::cast_precision_loss,
    clippy::as_conversions,
    reason = "far below 2^53"
)]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

/// The middle of the values; of an even number, the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(middle.checked_sub(1)?)?;
    Some(f64::midpoint(lower, upper))
}
