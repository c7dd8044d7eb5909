//! One part of the mesh as a child process: started, watched, started again, ended.

use crate::exit::Failure;
use crate::launch::{self, Registrar};
use crate::limits;
use ravelin_runtime::drain::Drain;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// What a part runs, and under which name.
#[derive(Debug, Clone)]
pub(crate) struct PartSpec {
    /// Name for messages and for the log file.
    pub(crate) name: String,
    /// Program and arguments; `ravelin` is this program.
    pub(crate) command: Vec<String>,
    /// Variables of its environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    /// The name that the agent learns for it; none for the CA and the agent themselves.
    pub(crate) launch_name: Option<String>,
}

/// A part that runs.
pub(crate) struct Part {
    spec: PartSpec,
    child: Child,
    registrar: Option<Registrar>,
}

impl Part {
    /// Starts a part with an empty log.
    pub(crate) async fn start(
        spec: PartSpec,
        registrar: Option<Registrar>,
    ) -> Result<Self, Failure> {
        let mut empty = OpenOptions::new();
        empty.write(true).create(true).truncate(true).mode(0o600);
        empty
            .open(&spec.log)
            .map_err(|error| Failure::file("write", &spec.log, error))?;
        let child = spawn(&spec, registrar.as_ref()).await?;
        Ok(Self {
            spec,
            child,
            registrar,
        })
    }

    /// The failure of a part that ended before it was ready; `None` while it runs.
    pub(crate) fn early_end(&mut self) -> Option<Failure> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(self.ended_early(&end_text(status))),
            Err(error) => Some(self.ended_early(&error.to_string())),
        }
    }

    /// The failure of a part that is not ready in time.
    pub(crate) fn not_ready(&self, what: &str) -> Failure {
        let tail = log_tail(&self.spec.log);
        let secs = limits::PART_READY_DEADLINE.as_secs();
        Failure::unreachable(format!(
            "{} was not ready within {secs} s: {what}{tail}",
            self.spec.name
        ))
        .with_help(format!("its log is `{}`", self.spec.log.display()))
    }

    fn ended_early(&self, how: &str) -> Failure {
        let tail = log_tail(&self.spec.log);
        Failure::usage(format!(
            "{} {how} before it was ready{tail}",
            self.spec.name
        ))
        .with_help(format!("its log is `{}`", self.spec.log.display()))
    }

    /// Watches the part in a task of its own until the drain starts, and starts it again when it ends before.
    pub(crate) fn supervise(self, drain: Drain) -> JoinHandle<()> {
        tokio::spawn(self.keep_alive(drain))
    }

    async fn keep_alive(mut self, drain: Drain) {
        let mut pause = limits::RESTART_PAUSE_MIN;
        loop {
            let started = Instant::now();
            tokio::select! {
                status = self.child.wait() => {
                    if drain.is_started() {
                        return;
                    }
                    let how = status.map_or_else(|error| error.to_string(), end_text);
                    let log = self.spec.log.display();
                    anstream::eprintln!("! {} {how}; starting it again (log: {log})", self.spec.name);
                }
                () = drain.started() => {
                    self.end().await;
                    return;
                }
            }
            if started.elapsed() > limits::RESTART_FORGIVEN_AFTER {
                pause = limits::RESTART_PAUSE_MIN;
            }
            if !self.start_again(&drain, &mut pause).await {
                return;
            }
        }
    }

    /// True once the part runs again, false when the drain started meanwhile.
    async fn start_again(&mut self, drain: &Drain, pause: &mut Duration) -> bool {
        loop {
            tokio::select! {
                () = tokio::time::sleep(*pause) => {}
                () = drain.started() => return false,
            }
            *pause = pause.saturating_mul(2).min(limits::RESTART_PAUSE_MAX);
            let spawned = tokio::select! {
                spawned = spawn(&self.spec, self.registrar.as_ref()) => spawned,
                () = drain.started() => return false,
            };
            match spawned {
                Ok(child) => {
                    self.child = child;
                    return true;
                }
                Err(failure) => anstream::eprintln!("! {}: {}", self.spec.name, failure.message()),
            }
        }
    }

    /// Ends the part: SIGTERM, and SIGKILL when that is not enough.
    pub(crate) async fn end(&mut self) {
        launch::terminate(&self.child);
        if tokio::time::timeout(limits::PART_END_DEADLINE, self.child.wait())
            .await
            .is_err()
        {
            anstream::eprintln!("! {} did not end by itself; killing it", self.spec.name);
            let _ = self.child.kill().await;
        }
    }
}

async fn spawn(spec: &PartSpec, registrar: Option<&Registrar>) -> Result<Child, Failure> {
    let mut command = launch::gated(&spec.command)?;
    let (stdout, stderr) = log_files(&spec.log)?;
    command.stdout(stdout).stderr(stderr);
    for (name, value) in &spec.environment {
        command.env(name, value);
    }
    let mut child = start(&mut command, &spec.name)?;
    match (registrar, &spec.launch_name) {
        (Some(registrar), Some(name)) => registrar.release(name, &mut child).await?,
        (_, _) => launch::open_gate(&mut child)
            .await
            .map_err(|error| Failure::usage(format!("cannot start {}: {error}", spec.name)))?,
    }
    Ok(child)
}

fn start(command: &mut Command, name: &str) -> Result<Child, Failure> {
    command
        .spawn()
        .map_err(|error| Failure::usage(format!("cannot start {name}: {error}")))
}

fn log_files(path: &Path) -> Result<(Stdio, Stdio), Failure> {
    let failed = |error: std::io::Error| Failure::file("write", path, error);
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let again = file.try_clone().map_err(failed)?;
    Ok((Stdio::from(file), Stdio::from(again)))
}

fn end_text(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The last lines of a log, each indented on a line of its own; empty without any.
fn log_tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(limits::LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(limits::LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let skipped = lines.len().saturating_sub(limits::LOG_TAIL_LINES);
    let mut tail = String::new();
    for line in lines.iter().skip(skipped) {
        tail.push_str("\n    ");
        tail.push_str(&crate::output::escape_text(line));
    }
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let text: Vec<String> = (0..40).map(|line| format!("line {line}")).collect();
        std::fs::write(&path, text.join("\n")).unwrap();
        let tail = log_tail(&path);
        assert!(
            tail.ends_with("line 39") && !tail.contains("line 27"),
            "{tail}"
        );
        assert_eq!(log_tail(&folder.path().join("none")), "");
    }
}
