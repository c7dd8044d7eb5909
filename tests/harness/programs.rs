//! Programs that are not ours, and where ours is.
//!
//! A test that needs python3 or openssl asks [`need`] first. Without the program it skips with one line, or fails
//! where `RAVELIN_TESTS_SKIP` is `never`, as in CI.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ravelin_runtime::durable::lock_folder;

use crate::{target_dir, workspace_root};

/// Whether `program` is there. Says so in one line when it is not.
pub fn need(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    is_there || skip(&format!("the program `{program}` is missing"))
}

/// Skips with one line, or fails where nothing may be skipped. Always false.
pub fn skip(why: &str) -> bool {
    let is_forbidden = std::env::var_os("RAVELIN_TESTS_SKIP").is_some_and(|value| value == "never");
    assert!(!is_forbidden, "{why}, and nothing may be skipped here");
    eprintln!("skipped: {why}");
    false
}

/// The `ravelin` program of the profile that these tests were built with.
pub fn ravelin() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join("ravelin");
    assert!(
        program.is_file(),
        "`{}` is missing: run `cargo build -p ravelin-cli` first",
        program.display()
    );
    program
}

/// A program of this workspace in the folder of the one that runs, as `cargo build` puts them; `None` without it.
pub fn beside(name: &str) -> Option<PathBuf> {
    let this = std::env::current_exe().ok()?;
    let program = this.parent()?.join(name);
    program.is_file().then_some(program)
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// Runs a program that has to succeed; gives what it wrote to stdout.
pub fn run_ok(command: &mut Command) -> String {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The interpreter of a virtual environment that has the packages of `interop/requirements.txt`. It is made once
/// and kept below the build folder. `None` when the test is to be skipped.
pub fn python() -> Option<PathBuf> {
    if !need("python3") {
        return None;
    }
    let requirements = workspace_root().join("tests/interop/requirements.txt");
    let wanted = std::fs::read(&requirements).unwrap();
    let folder = target_dir().join("tests-python");
    std::fs::create_dir_all(&folder).unwrap();
    // WHY: tests run as threads and as processes; whoever comes second waits for the first.
    let _lock = wait_for_lock(&folder);
    let (made, interpreter) = (folder.join("made-from"), folder.join("venv/bin/python3"));
    if std::fs::read(&made).is_ok_and(|text| text == wanted) && interpreter.is_file() {
        return Some(interpreter);
    }
    match install(&folder, &requirements) {
        Ok(()) => {
            std::fs::write(&made, &wanted).unwrap();
            Some(interpreter)
        }
        Err(why) => {
            skip(&why);
            None
        }
    }
}

fn wait_for_lock(folder: &Path) -> ravelin_runtime::durable::FolderLock {
    let pace = std::sync::Condvar::new();
    let held = std::sync::Mutex::new(());
    for _ in 0..600 {
        if let Ok(lock) = lock_folder(folder) {
            return lock;
        }
        let guard = held.lock().unwrap();
        let limit = std::time::Duration::from_millis(500);
        drop(pace.wait_timeout(guard, limit).unwrap());
    }
    panic!("`{}` stays locked", folder.display());
}

fn install(folder: &Path, requirements: &Path) -> Result<(), String> {
    let venv = folder.join("venv");
    step(
        "a Python virtual environment cannot be made (Debian's package is python3-venv)",
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
    )?;
    step(
        "the Python package `spiffe` cannot be installed",
        Command::new(venv.join("bin/python3"))
            .args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"])
            .arg("--requirement")
            .arg(requirements),
    )
}

fn step(what: &str, command: &mut Command) -> Result<(), String> {
    let output = run(command);
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    Err(format!("{what}: {last}"))
}
