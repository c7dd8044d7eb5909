//! A mesh folder as a commit has it: read through `git archive`, without a checkout.

use crate::exit::Failure;
use crate::limits;
use crate::mesh_folder::is_mesh_file;
use ravelin_proto::pb::ravelin::v1::MeshFile;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// The files of `folder`, below the root of the repository, in a commit, tag or branch. An empty `folder` is the
/// current one.
pub(crate) fn read(revision: &str, folder: &str) -> Result<Vec<MeshFile>, Failure> {
    // INVARIANT: what git gets is never an option.
    if revision.is_empty() || revision.starts_with('-') {
        return Err(Failure::usage(format!("`{revision}` is not a revision")));
    }
    let folder = if folder.is_empty() {
        let prefix = git(&["rev-parse", "--show-prefix"])?;
        String::from_utf8_lossy(&prefix).trim().to_owned()
    } else {
        folder.to_owned()
    };
    let folder = folder.trim_start_matches("./").trim_end_matches('/');
    let tree = format!("{revision}:{folder}");
    let listed = git(&["ls-tree", "-r", "-z", "--full-tree", "--long", &tree, "--"])?;
    let mut files = Vec::new();
    for entry in listed
        .split(|byte| *byte == 0)
        .filter(|entry| !entry.is_empty())
    {
        let Some(entry) = Entry::parse(entry)? else {
            continue;
        };
        if entry.size > limits::MESH_FILE_BYTES_MAX || files.len() >= limits::MESH_FILES_MAX {
            return Err(Failure::usage(format!(
                "`{tree}/{}` is too large, or one file too many",
                entry.path
            )));
        }
        files.push(MeshFile {
            content: git(&["cat-file", "blob", &entry.object])?,
            path: entry.path,
        });
    }
    if !files.iter().any(|file| file.path == "ravelin.yaml") {
        return Err(
            Failure::usage(format!("`{tree}` has no `ravelin.yaml`")).with_help(
                "write REV:PATH with the path of the mesh folder below the root of the repository",
            ),
        );
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(files)
}

struct Entry {
    object: String,
    size: u64,
    path: String,
}

impl Entry {
    /// `MODE TYPE OBJECT SIZE<TAB>PATH`; `None` for what no mesh folder holds.
    fn parse(line: &[u8]) -> Result<Option<Self>, Failure> {
        let text = std::str::from_utf8(line)
            .map_err(|_| Failure::usage("a name in the commit is not in UTF-8"))?;
        let malformed = || Failure::usage("git answers in an unknown form");
        let (facts, path) = text.split_once('\t').ok_or_else(malformed)?;
        let mut facts = facts.split_ascii_whitespace();
        let (mode, _, object, size) = (
            facts.next().ok_or_else(malformed)?,
            facts.next(),
            facts.next().ok_or_else(malformed)?,
            facts.next().ok_or_else(malformed)?,
        );
        let name = path.rsplit('/').next().unwrap_or(path);
        if !is_mesh_file(name) || path.split('/').any(|part| part.starts_with('.')) {
            return Ok(None);
        }
        if mode == "120000" {
            return Err(Failure::usage(format!("`{path}` is not a regular file"))
                .with_help("links are not followed: put the file itself into the folder"));
        }
        Ok(Some(Self {
            object: object.to_owned(),
            size: size.parse().map_err(|_| malformed())?,
            path: path.to_owned(),
        }))
    }
}

fn git<A: AsRef<OsStr>>(arguments: &[A]) -> Result<Vec<u8>, Failure> {
    let output = Command::new("git")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::usage(format!("cannot run git: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = crate::output::escape_text(said.lines().next().unwrap_or_default());
    Err(Failure::usage(format!("git: {said}")))
}
