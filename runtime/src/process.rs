//! What a process asks of the kernel about itself and others: no core dumps, to end with its parent, start times.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, getppid, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};

/// Why something could not be asked of the kernel.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The process that started us has ended already.
    #[error("the parent process has ended")]
    ParentEnded,
    /// No process has this number.
    #[error("there is no process `{0}`")]
    NotFound(i32),
    /// `/proc/PID/stat` does not look as proc(5) says.
    #[error("cannot understand `/proc/{0}/stat`")]
    Malformed(i32),
    /// The kernel refused.
    #[error("{call} failed")]
    Kernel {
        /// What was asked.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn kernel(call: &'static str) -> impl FnOnce(rustix::io::Errno) -> ProcessError {
    move |errno| ProcessError::Kernel {
        call,
        source: errno.into(),
    }
}

/// Keys must not reach the disk or another process: no core dumps, no ptrace, `/proc/self` owned by root.
///
/// A process that is hardened cannot be attested by its executable from an agent that runs as the same ordinary user: the
/// kernel hides `/proc/PID/exe`. For a workload's own side use `forbid_core_dumps`.
pub fn harden() -> Result<(), ProcessError> {
    forbid_core_dumps()?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(kernel("prctl(PR_SET_DUMPABLE)"))
}

/// Only sets the core size limit to zero, softly and hard.
pub fn forbid_core_dumps() -> Result<(), ProcessError> {
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )
    .map_err(kernel("setrlimit(RLIMIT_CORE)"))
}

/// Has the kernel send SIGTERM when the parent ends. `parent` is the process that is expected there: if it has ended
/// before the kernel knew, that is an error and the caller should end at once.
pub fn exit_with_parent(parent: Option<i32>) -> Result<(), ProcessError> {
    let before = getppid();
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(kernel("prctl(PR_SET_PDEATHSIG)"))?;
    let expected = parent.and_then(Pid::from_raw).or(before);
    if expected.is_none() || getppid() != expected {
        return Err(ProcessError::ParentEnded);
    }
    Ok(())
}

/// A descriptor for the process with this number; readable once that process has ended.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, ProcessError> {
    let pid = Pid::from_raw(pid).ok_or(ProcessError::NotFound(pid))?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
        rustix::io::Errno::SRCH => ProcessError::NotFound(pid.as_raw_nonzero().get()),
        other => kernel("pidfd_open")(other),
    })
}

/// When the process started, in clock ticks since boot: with the number it names one process for good.
pub fn start_time_ticks(pid: i32) -> Result<u64, ProcessError> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            return ProcessError::NotFound(pid);
        }
        ProcessError::Kernel {
            call: "reading /proc/PID/stat",
            source,
        }
    })?;
    parse_start_time(&stat).ok_or(ProcessError::Malformed(pid))
}

/// The 22nd field of proc_pid_stat(5). The second is a name in parentheses that may itself hold spaces and parentheses.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_process_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
        for (name, want) in [
            ("sh", Some(4242)),
            ("a b) S 1 (c", Some(4242)),
            ("))) (", Some(4242)),
        ] {
            assert_eq!(
                parse_start_time(&format!("77 ({name}) {tail}")),
                want,
                "{name}"
            );
        }
        for text in [
            "",
            "77 (sh",
            "77 (sh) S 1 2",
            "77 (sh) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x",
        ] {
            assert_eq!(parse_start_time(text), None, "{text}");
        }
    }

    #[test]
    fn our_own_process_has_a_start_time_and_a_pidfd() {
        let pid = i32::try_from(std::process::id()).expect("pid fits");
        assert!(start_time_ticks(pid).expect("start time") > 0);
        assert!(pidfd_open(pid).is_ok());
    }

    #[test]
    fn a_process_that_does_not_exist_is_named() {
        assert!(matches!(
            start_time_ticks(i32::MAX),
            Err(ProcessError::NotFound(i32::MAX))
        ));
        assert!(matches!(
            pidfd_open(i32::MAX),
            Err(ProcessError::NotFound(i32::MAX))
        ));
        assert!(matches!(pidfd_open(0), Err(ProcessError::NotFound(0))));
    }
}
