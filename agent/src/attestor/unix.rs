//! Facts that the kernel tells about a process: `unix:uid`, `gid`, `supplementary_gid`, their names,
//! `path` and `sha256`. What cannot be read (another user's executable, say) gives no selector.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ravelin_proto::selector::Selector;
use sha2::{Digest, Sha256};

use crate::limits;

/// What `/proc/PID/status` says of the process's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Reads the credentials out of the text of `/proc/PID/status`; `None` when a line is missing.
pub(super) fn parse_status(text: &str) -> Option<Status> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    // Real, effective, saved, file system.
    let effective = |line: &str| line.split_ascii_whitespace().nth(1)?.parse().ok();
    Some(Status {
        uid: effective(field("Uid:")?)?,
        gid: effective(field("Gid:")?)?,
        groups: field("Groups:")?
            .split_ascii_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?,
    })
}

/// The selectors of these credentials, with names where the accounts files have them.
pub(super) fn credential_selectors(status: &Status, accounts: &Accounts) -> BTreeSet<Selector> {
    let mut facts = vec![format!("uid:{}", status.uid), format!("gid:{}", status.gid)];
    facts.extend(
        accounts
            .users
            .get(&status.uid)
            .map(|name| format!("user:{name}")),
    );
    facts.extend(
        accounts
            .groups
            .get(&status.gid)
            .map(|name| format!("group:{name}")),
    );
    for gid in &status.groups {
        facts.push(format!("supplementary_gid:{gid}"));
        facts.extend(
            accounts
                .groups
                .get(gid)
                .map(|name| format!("supplementary_group:{name}")),
        );
    }
    facts
        .iter()
        .filter_map(|fact| Selector::new("unix", fact).ok())
        .collect()
}

/// The selector of an executable's path; `None` for a path that is not text or that was replaced.
pub(super) fn path_selector(path: &Path) -> Option<Selector> {
    let text = std::str::from_utf8(path.as_os_str().as_bytes()).ok()?;
    if text.ends_with(" (deleted)") {
        return None;
    }
    Selector::new("unix", &format!("path:{text}")).ok()
}

/// Names of users and groups on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Accounts {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Accounts {
    /// Reads `/etc/passwd` and `/etc/group`; what is missing has no names.
    pub(super) fn read() -> Self {
        let text = |path| read_bounded(path, limits::ACCOUNTS_BYTES_MAX).unwrap_or_default();
        Self {
            users: parse_accounts(&text("/etc/passwd")),
            groups: parse_accounts(&text("/etc/group")),
        }
    }
}

/// `name:password:number:...` lines; the first name of a number stays.
fn parse_accounts(text: &str) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(_), Some(Ok(number))) =
            (fields.next(), fields.next(), fields.next().map(str::parse))
            && !name.is_empty()
        {
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// Reads a text file of at most `bytes_max`. A longer one is an error: half of it could say something else.
pub(super) fn read_bounded(path: &str, bytes_max: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut file = File::open(path)?.take(bytes_max.saturating_add(1));
    file.read_to_end(&mut bytes)?;
    if file.limit() == 0 {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What tells that an executable is still the one that was hashed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct FileKey {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Hashes of executables, remembered while the file is the same.
#[derive(Debug, Default)]
pub(super) struct HashCache {
    hashes: Mutex<(BTreeMap<FileKey, String>, VecDeque<FileKey>)>,
}

impl HashCache {
    /// The SHA-256 of an opened executable in lower-case hex; `None` when it is too large.
    pub(super) fn sha256(&self, executable: &mut File) -> io::Result<Option<String>> {
        let metadata = executable.metadata()?;
        let key = FileKey {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        let known = self
            .hashes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .get(&key)
            .cloned();
        if known.is_some() {
            return Ok(known);
        }
        if key.size > limits::EXECUTABLE_BYTES_MAX {
            return Ok(None);
        }
        let mut hasher = Sha256::new();
        io::copy(
            &mut executable.take(limits::EXECUTABLE_BYTES_MAX),
            &mut hasher,
        )?;
        let hash = hex::encode(hasher.finalize());
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *hashes;
        if known.insert(key.clone(), hash.clone()).is_none() {
            order.push_back(key);
        }
        if order.len() > limits::HASHES_MAX
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        Ok(Some(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(selectors: &BTreeSet<Selector>) -> Vec<String> {
        selectors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn credentials_are_read_from_the_status_file_or_not_at_all() {
        let rows = [
            (
                "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t10 11 \n",
                Some((2, 6, vec![10, 11])),
            ),
            ("Uid:\t1\t2\nGid:\t5\t6\nGroups:\t\n", Some((2, 6, vec![]))),
            ("Uid:\t1\t2\nGroups:\t\n", None),
            ("Uid:\tx\ty\nGid:\t5\t6\nGroups:\t\n", None),
            ("Uid:\t1\t2\nGid:\t5\t6\nGroups:\tx\n", None),
            ("", None),
        ];
        for (text, want) in rows {
            let got = parse_status(text).map(|status| (status.uid, status.gid, status.groups));
            assert_eq!(got, want, "{text:?}");
        }
    }

    #[test]
    fn a_name_that_the_process_chose_cannot_pass_for_a_credential() {
        // The kernel escapes newlines in `Name`, and a prefix has to stand at the start of a line.
        let text = "Name:\tUid:\\n\nUid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t\n";
        assert_eq!(parse_status(text).unwrap().uid, 1);
    }

    #[test]
    fn threat_07_a_file_that_is_too_long_says_nothing_rather_than_half() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status");
        std::fs::write(&path, "Groups:\t1000").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(read_bounded(path, 12).unwrap(), "Groups:\t1000");
        assert_eq!(
            read_bounded(path, 11).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
    }

    #[test]
    fn accounts_give_names_to_numbers() {
        let accounts = Accounts {
            users: parse_accounts(
                "root:x:0:0::/:/bin/sh\nshop:x:7:8::/:\nalias:x:7:8::/:\nbroken\n",
            ),
            groups: parse_accounts("staff:x:8:\nextra:x:9:a,b\n"),
        };
        let status = Status {
            uid: 7,
            gid: 8,
            groups: vec![9, 10],
        };
        assert_eq!(
            shown(&credential_selectors(&status, &accounts)),
            [
                "unix:gid:8",
                "unix:group:staff",
                "unix:supplementary_gid:10",
                "unix:supplementary_gid:9",
                "unix:supplementary_group:extra",
                "unix:uid:7",
                "unix:user:shop",
            ]
        );
    }

    #[test]
    fn threat_07_a_strange_path_gives_no_selector() {
        let rows: [(&[u8], Option<&str>); 5] = [
            (b"/usr/bin/a b", Some("unix:path:/usr/bin/a b")),
            (b"/x:y", Some("unix:path:/x:y")),
            (b"/x\nunix:uid:0", None),
            (b"/x\xff", None),
            (b"/x (deleted)", None),
        ];
        for (bytes, want) in rows {
            let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
            assert_eq!(path_selector(path).map(|s| s.to_string()).as_deref(), want);
        }
    }

    #[test]
    fn a_changed_executable_is_hashed_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exe");
        let cache = HashCache::default();
        let hash = |content: &str| {
            std::fs::write(&path, content).unwrap();
            cache
                .sha256(&mut File::open(&path).unwrap())
                .unwrap()
                .unwrap()
        };
        let first = hash("one");
        assert_eq!(first, hex::encode(Sha256::digest("one")));
        assert_eq!(hash("three"), hex::encode(Sha256::digest("three")));
    }
}
