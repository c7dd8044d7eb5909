//! Files that are old or new after a crash, never half; folders that are ours alone; one program a folder.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::crypto::random_bytes;

const LOCK_FILE: &str = ".lock";
const PRIVATE_FOLDER_MODE: u32 = 0o700;
const ACCESS_BY_OTHERS: u32 = 0o077;
/// Bytes of a lock file that are read: a process number and a newline.
const LOCK_NOTE_BYTES_MAX: u64 = 32;

/// Why a file or folder could not be written. After a failed fsync the disk's state is unknown: do not try again.
#[derive(Debug, thiserror::Error)]
#[error("{step} failed for `{}`", path.display())]
pub struct DurableError {
    /// What was tried.
    pub step: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// Why a folder cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process works there.
    #[error("the folder `{}` is in use by {}", path.display(), holder_text(*.holder))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Process number of who holds it, if it could be read.
        holder: Option<i32>,
    },
    /// The lock file cannot be made or locked.
    #[error("cannot lock the folder `{}`", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn holder_text(holder: Option<i32>) -> String {
    holder.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DurableError {
    let path = path.to_owned();
    move |source| DurableError { step, path, source }
}

/// Puts `bytes` in the place of what was at `path`, with exactly this mode: written beside it, synced, renamed, and the folder
/// synced. Once this returns, a crash finds the new content; before, the old.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DurableError> {
    let folder = folder_of(path);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{:016x}.new", u64::from_ne_bytes(random_bytes())));
    let beside = folder.join(name);
    let outcome = write_beside(&beside, bytes, mode)
        .and_then(|()| std::fs::rename(&beside, path).map_err(failed("renaming", path)));
    if outcome.is_err() {
        // The error that matters is the one that we have.
        let _ = std::fs::remove_file(&beside);
        return outcome;
    }
    sync_folder(folder)
}

fn write_beside(beside: &Path, bytes: &[u8], mode: u32) -> Result<(), DurableError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(beside)
        .map_err(failed("creating", beside))?;
    // The umask may have taken bits away.
    file.set_permissions(std::fs::Permissions::from_mode(mode))
        .map_err(failed("setting the mode", beside))?;
    file.write_all(bytes).map_err(failed("writing", beside))?;
    file.sync_all().map_err(failed("syncing", beside))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes what was created, renamed or removed in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<(), DurableError> {
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .map_err(failed("syncing", folder))
}

/// Makes a folder that only we can enter, with its parents; one that is there already is closed to others. It must be ours
/// and not a symbolic link.
pub fn create_private_dir(path: &Path) -> Result<(), DurableError> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_FOLDER_MODE)
        .create(path)
        .map_err(failed("creating", path))?;
    let found = std::fs::symlink_metadata(path).map_err(failed("reading metadata", path))?;
    let refusal = if !found.is_dir() {
        Some("it is not a folder")
    } else if found.uid() != rustix::process::geteuid().as_raw() {
        Some("it belongs to another user")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        return Err(failed("using the folder", path)(io::Error::other(refusal)));
    }
    if found.mode() & ACCESS_BY_OTHERS != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(PRIVATE_FOLDER_MODE))
            .map_err(failed("setting the mode", path))?;
    }
    Ok(())
}

/// Held while a program works in a folder. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Claims a folder, which must exist, for this process. Does not wait.
pub fn lock_folder(path: &Path) -> Result<FolderLock, LockError> {
    let io = |source: io::Error| LockError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join(LOCK_FILE))
        .map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut note = String::new();
            // The note is a courtesy: without it the message is only less helpful.
            let _ = file.take(LOCK_NOTE_BYTES_MAX).read_to_string(&mut note);
            return Err(LockError::InUse {
                path: path.to_owned(),
                holder: note.trim().parse().ok(),
            });
        }
        Err(errno) => return Err(io(errno.into())),
    }
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(FolderLock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        std::fs::metadata(path).expect("metadata").mode() & 0o7777
    }

    #[test]
    fn a_file_is_replaced_whole_with_the_mode_that_was_asked_for() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("key");
        for (bytes, mode) in [(&b"one"[..], 0o600), (b"two", 0o644), (b"", 0o666)] {
            write_atomically(&path, bytes, mode).expect("written");
            assert_eq!(std::fs::read(&path).expect("read"), bytes);
            assert_eq!(mode_of(&path), mode);
        }
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("listing").count(),
            1
        );
    }

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_litter() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("taken");
        std::fs::create_dir_all(path.join("inside")).expect("folder in the way");
        let error = write_atomically(&path, b"x", 0o600).expect_err("refused");
        assert_eq!(error.step, "renaming");
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("listing").count(),
            1
        );
        let error =
            write_atomically(&folder.path().join("no/file"), b"x", 0o600).expect_err("refused");
        assert_eq!(error.step, "creating");
    }

    #[test]
    fn a_private_folder_is_closed_to_others_even_if_it_was_open() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a/b");
        create_private_dir(&path).expect("made");
        assert_eq!(mode_of(&path), 0o700);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("opened");
        create_private_dir(&path).expect("closed");
        assert_eq!(mode_of(&path), 0o700);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("link");
        assert!(create_private_dir(&link).is_err());
    }

    #[test]
    fn a_folder_has_one_holder_who_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let held = lock_folder(folder.path()).expect("first");
        let error = lock_folder(folder.path()).expect_err("second");
        let ours = i32::try_from(std::process::id()).expect("pid");
        assert!(
            matches!(&error, LockError::InUse { holder: Some(pid), .. } if *pid == ours),
            "{error}"
        );
        drop(held);
        lock_folder(folder.path()).expect("free again");
    }
}
