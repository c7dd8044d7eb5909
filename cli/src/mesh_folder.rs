//! Reads a mesh folder from disk: its YAML and key-set files, bounded, in a fixed order, without following links out.

use crate::exit::Failure;
use crate::limits;
use ravelin_policies::{Diagnostic, Diagnostics, MeshSet, SourceFile};
use ravelin_proto::pb::ravelin::v1::MeshFile;
use std::fs;
use std::path::Path;

/// What makes a folder a mesh folder.
const CONFIG_FILE: &str = "ravelin.yaml";

/// The files of a mesh folder, sorted by path.
pub(crate) fn read(folder: &Path) -> Result<Vec<MeshFile>, Failure> {
    let metadata = fs::metadata(folder).map_err(|error| unreadable(folder, &error))?;
    if !metadata.is_dir() {
        return Err(Failure::usage(format!(
            "`{}` is not a folder",
            folder.display()
        )));
    }
    if !folder.join(CONFIG_FILE).is_file() {
        return Err(
            Failure::usage(format!("`{}` has no `{CONFIG_FILE}`", folder.display())).with_help(
                "a mesh folder holds ravelin.yaml, identities/, policies/, services/ and tests/",
            ),
        );
    }
    read_all(folder)
}

/// The files of any folder with YAML in it, or one file: to look at, never to enforce.
pub(crate) fn read_offline(path: &Path) -> Result<Vec<MeshFile>, Failure> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_file() {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| {
            Failure::usage(format!("`{}` is not a name in UTF-8", path.display()))
        })?;
        return Ok(vec![read_file(path, name.to_owned())?]);
    }
    let files = read_all(path)?;
    if files.is_empty() {
        return Err(
            Failure::usage(format!("`{}` has no YAML files", path.display()))
                .with_help("name a mesh folder, a folder with files of Istio, or one file"),
        );
    }
    Ok(files)
}

fn read_all(folder: &Path) -> Result<Vec<MeshFile>, Failure> {
    let mut files = Vec::new();
    collect(folder, "", 0, &mut files)?;
    files.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(files)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!(
        "the mesh folder `{}` cannot be read: {error}",
        path.display()
    ))
    .with_help("name a folder with a `ravelin.yaml`, or run from the root of the repository")
}

fn collect(
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Vec<MeshFile>,
) -> Result<(), Failure> {
    if depth > limits::MESH_DEPTH_MAX {
        return Err(Failure::usage(format!(
            "`{}` is nested too deep",
            folder.display()
        )));
    }
    let entries = fs::read_dir(folder).map_err(|error| Failure::file("read", folder, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Failure::file("read", folder, error))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return Err(Failure::usage(format!(
                "`{}` is not a name in UTF-8",
                entry.path().display()
            )));
        };
        if name.starts_with('.') {
            continue;
        }
        let kind = entry
            .file_type()
            .map_err(|error| Failure::file("read", &entry.path(), error))?;
        let path = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}/{name}")
        };
        if kind.is_dir() {
            collect(&entry.path(), &path, depth + 1, files)?;
        } else if is_mesh_file(name) {
            if !kind.is_file() {
                return Err(Failure::usage(format!(
                    "`{}` is not a regular file",
                    entry.path().display()
                ))
                .with_help("links are not followed: put the file itself into the folder"));
            }
            files.push(read_file(&entry.path(), path)?);
            if files.len() > limits::MESH_FILES_MAX {
                return Err(Failure::usage(format!(
                    "more than {} files in the mesh folder",
                    limits::MESH_FILES_MAX
                )));
            }
        }
    }
    Ok(())
}

/// A name that a mesh folder reads.
pub(crate) fn is_mesh_file(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|ending| ending == "yaml" || ending == "yml" || ending == "json")
}

fn read_file(on_disk: &Path, path: String) -> Result<MeshFile, Failure> {
    let size = fs::metadata(on_disk)
        .map_err(|error| Failure::file("read", on_disk, error))?
        .len();
    if size > limits::MESH_FILE_BYTES_MAX {
        return Err(Failure::usage(format!(
            "`{}` has {size} bytes; at most {} are read",
            on_disk.display(),
            limits::MESH_FILE_BYTES_MAX
        )));
    }
    let content = fs::read(on_disk).map_err(|error| Failure::file("read", on_disk, error))?;
    Ok(MeshFile { path, content })
}

/// The files as text, and what is wrong with those that are none.
pub(crate) fn sources(files: &[MeshFile]) -> (Vec<SourceFile>, Vec<Diagnostic>) {
    let mut found = Vec::new();
    let mut sources = Vec::new();
    for file in files {
        match SourceFile::from_bytes(&file.path, &file.content) {
            Ok(source) => sources.push(source),
            Err(diagnostic) => found.push(diagnostic),
        }
    }
    (sources, found)
}

/// The mesh of these files. All errors are shown at once, with file, line, column and caret.
pub(crate) fn load(files: &[MeshFile]) -> Result<MeshSet, Failure> {
    load_by(files, ravelin_policies::load)
}

/// The mesh of any folder with YAML in it, or of one file: to look at, never to enforce.
pub(crate) fn load_offline(path: &Path) -> Result<MeshSet, Failure> {
    let mesh = load_by(&read_offline(path)?, ravelin_policies::load_with_defaults)?;
    note_defaults(&mesh);
    Ok(mesh)
}

/// Says so when a folder has no MeshConfig.
pub(crate) fn note_defaults(mesh: &MeshSet) {
    if !mesh.config.is_given() {
        anstream::eprintln!(
            "note: there is no {CONFIG_FILE}: the defaults hold here, and the trust domain is `{}`",
            mesh.config.trust_domain
        );
    }
}

fn load_by(
    files: &[MeshFile],
    load: fn(&[SourceFile]) -> Result<MeshSet, Diagnostics>,
) -> Result<MeshSet, Failure> {
    let (sources, mut found) = sources(files);
    if found.is_empty() {
        match load(&sources) {
            Ok(mesh) => {
                for warning in &mesh.warnings {
                    anstream::eprintln!("{}", warning.render().trim_end());
                }
                return Ok(mesh);
            }
            Err(diagnostics) => found = diagnostics.0,
        }
    }
    for diagnostic in &found {
        anstream::eprintln!("{}", diagnostic.render().trim_end());
    }
    Err(refusal(&found))
}

/// What a command says after findings with errors.
pub(crate) fn refusal(found: &[Diagnostic]) -> Failure {
    let errors = found
        .iter()
        .filter(|diagnostic| diagnostic.is_error)
        .count();
    Failure::usage(format!("the mesh folder has {errors} error(s)"))
        .with_help("mend the lines above; nothing was started or changed")
}

/// The commit that the folder is checked out at, read from `.git` itself; empty outside of a repository.
pub(crate) fn git_commit(folder: &Path) -> String {
    let Ok(absolute) = folder.canonicalize() else {
        return String::new();
    };
    absolute
        .ancestors()
        .map(|ancestor| ancestor.join(".git"))
        .find(|git| git.is_dir())
        .and_then(|git| head(&git))
        .unwrap_or_default()
}

fn head(git: &Path) -> Option<String> {
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    let head = head.trim();
    let Some(reference) = head.strip_prefix("ref: ") else {
        return is_commit(head).then(|| head.to_owned());
    };
    let loose = fs::read_to_string(git.join(reference))
        .ok()
        .map(|text| text.trim().to_owned());
    let commit = loose.or_else(|| {
        let packed = fs::read_to_string(git.join("packed-refs")).ok()?;
        packed.lines().find_map(|line| {
            let (commit, name) = line.split_once(' ')?;
            (name == reference).then(|| commit.to_owned())
        })
    })?;
    is_commit(&commit).then_some(commit)
}

fn is_commit(text: &str) -> bool {
    (text.len() == 40 || text.len() == 64)
        && text.chars().all(|character| character.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_in_the_order_of_its_paths_and_without_other_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("policies/shop")).unwrap();
        for name in [
            "ravelin.yaml",
            "policies/shop/b.yaml",
            "policies/shop/a.yml",
            "README.md",
            ".hidden.yaml",
        ] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let paths: Vec<String> = read(folder.path())
            .unwrap()
            .into_iter()
            .map(|file| file.path)
            .collect();
        assert_eq!(
            paths,
            [
                "policies/shop/a.yml",
                "policies/shop/b.yaml",
                "ravelin.yaml"
            ]
        );
    }

    #[test]
    fn a_folder_without_ravelin_yaml_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let failure = read(folder.path()).unwrap_err();
        assert!(
            failure.message().contains("has no `ravelin.yaml`"),
            "{failure:?}"
        );
    }

    #[test]
    fn a_plain_folder_or_file_can_be_looked_at_and_never_applied() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_offline(folder.path()).is_err());
        fs::write(folder.path().join("a.yaml"), "x").unwrap();
        assert!(read(folder.path()).is_err());
        for path in [folder.path().to_owned(), folder.path().join("a.yaml")] {
            let files = read_offline(&path).unwrap();
            assert_eq!((files.len(), files[0].path.as_str()), (1, "a.yaml"));
        }
    }

    #[test]
    fn threat_a_link_out_of_the_folder_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ravelin.yaml"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("a.yaml")).unwrap();
        assert!(read(folder.path()).is_err());
    }
}
