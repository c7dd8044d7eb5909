//! The files of a mesh folder as they are handed in: the engine itself never touches a file system.

use sha2::{Digest, Sha256};

use crate::diagnostic::{Diagnostic, Diagnostics, Span, snippet};
use crate::limits;

/// One file of the mesh folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative path with `/`.
    pub path: String,
    /// The whole text.
    pub content: String,
}

impl SourceFile {
    /// Takes bytes from outside: they must be UTF-8, within the limit, without NUL, below a plain relative path.
    #[expect(
        clippy::result_large_err,
        reason = "made once for a file that is refused"
    )]
    pub fn from_bytes(path: &str, bytes: &[u8]) -> Result<Self, Diagnostic> {
        let refuse = |code, line, column, message: String| {
            let mut refusal = Diagnostic::error(code, path, line, column, message);
            if line > 0 {
                let at = Span {
                    line,
                    column,
                    width: 1,
                };
                refusal.snippet = snippet(&String::from_utf8_lossy(bytes), at);
            }
            Err(refusal)
        };
        if let Some(reason) = path_fault(path) {
            return refuse("file-path", 0, 0, reason.to_owned());
        }
        if bytes.len() > limits::FILE_BYTES_MAX {
            let max = limits::FILE_BYTES_MAX;
            return refuse(
                "file-too-large",
                0,
                0,
                format!("the file is longer than {max} bytes"),
            );
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let (line, column) = position_of(bytes, error.valid_up_to());
                return refuse(
                    "not-utf8",
                    line,
                    column,
                    "the file is not UTF-8 from here on".into(),
                );
            }
        };
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            let (line, column) = position_of(bytes, at);
            return refuse("not-text", line, column, "the file has a NUL byte".into());
        }
        Ok(Self {
            path: path.to_owned(),
            content: text.to_owned(),
        })
    }

    /// True for a file that holds objects; others may be referred to (`jwksFile`).
    pub fn is_yaml(&self) -> bool {
        matches!(self.path.rsplit_once('.'), Some((_, "yaml" | "yml")))
    }
}

fn path_fault(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return Some("a file has no path");
    }
    if path.len() > limits::FILE_PATH_BYTES_MAX {
        return Some("the path is too long");
    }
    if path.starts_with('/') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Some("a path is relative, without `.`, `..` or empty parts");
    }
    path.chars()
        .any(char::is_control)
        .then_some("the path has a control character")
}

fn position_of(bytes: &[u8], at: usize) -> (u32, u32) {
    let before = bytes.get(..at).unwrap_or_default();
    let last = before.split(|byte| *byte == b'\n').next_back();
    let line = before.split(|byte| *byte == b'\n').count();
    let chars = last.map_or(0, |text| String::from_utf8_lossy(text).chars().count());
    (small(line), small(chars + 1))
}

/// A count as 32 bits; every file is far below that.
pub(crate) fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Checks what holds for the set as a whole: number, size, unique and plain paths.
pub(crate) fn check_files(files: &[SourceFile]) -> Result<(), Diagnostics> {
    let mut found = Vec::new();
    if files.len() > limits::FILES_MAX {
        let message = format!("the set has more than {} files", limits::FILES_MAX);
        found.push(Diagnostic::error("set-too-large", "", 0, 0, message));
    }
    if files.iter().map(|file| file.content.len()).sum::<usize>() > limits::SET_BYTES_MAX {
        let message = format!("the set is longer than {} bytes", limits::SET_BYTES_MAX);
        found.push(Diagnostic::error("set-too-large", "", 0, 0, message));
    }
    let mut paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    paths.sort_unstable();
    for pair in paths.windows(2) {
        if let [one, other] = pair
            && one == other
        {
            found.push(Diagnostic::error(
                "duplicate-file",
                one,
                0,
                0,
                "the file is given twice".into(),
            ));
        }
    }
    for file in files {
        if let Err(diagnostic) = SourceFile::from_bytes(&file.path, file.content.as_bytes()) {
            found.push(diagnostic);
        }
    }
    Diagnostics::unless_empty(found)
}

/// Lower-case hex SHA-256 over path, length and content of the files in order of their paths.
pub fn set_digest(files: &[SourceFile]) -> String {
    let mut sorted: Vec<&SourceFile> = files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut hasher = Sha256::new();
    for file in sorted {
        for part in [&file.path, &file.content] {
            hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hasher
        .finalize()
        .iter()
        .fold(String::new(), |mut text, byte| {
            use std::fmt::Write;
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_a_text_file_are_refused_by_name() {
        let long = vec![b'a'; limits::FILE_BYTES_MAX + 1];
        let rows: [(&str, &[u8], &str, u32, u32); 9] = [
            ("a.yaml", b"ok: 1\n", "", 0, 0),
            ("a.yaml", b"a: 1\nb: \xff\n", "not-utf8", 2, 4),
            ("a.yaml", "a: é\u{0}".as_bytes(), "not-text", 1, 5),
            ("a.yaml", b"a\0", "not-text", 1, 2),
            ("a.yaml", &long, "file-too-large", 0, 0),
            ("/etc/passwd", b"", "file-path", 0, 0),
            ("a/../b", b"", "file-path", 0, 0),
            ("a//b", b"", "file-path", 0, 0),
            ("", b"", "file-path", 0, 0),
        ];
        for (path, bytes, code, line, column) in rows {
            match SourceFile::from_bytes(path, bytes) {
                Ok(_) => assert_eq!(code, "", "{path}"),
                Err(found) => assert_eq!(
                    (found.code, found.line, found.column),
                    (code, line, column),
                    "{path}"
                ),
            }
        }
    }

    #[test]
    fn the_digest_ignores_order_and_sees_every_byte_and_boundary() {
        let file = |path: &str, content: &str| SourceFile {
            path: path.into(),
            content: content.into(),
        };
        let base = set_digest(&[file("a", "1"), file("b", "2")]);
        assert_eq!(base.len(), 64);
        assert_eq!(base, set_digest(&[file("b", "2"), file("a", "1")]));
        for other in [
            vec![file("a", "1"), file("b", "3")],
            vec![file("a", "1b"), file("", "2")],
            vec![file("a1", ""), file("b", "2")],
            vec![file("a", "1")],
        ] {
            assert_ne!(base, set_digest(&other));
        }
    }
}
