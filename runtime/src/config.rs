//! Reads a program's configuration: a TOML file, then the environment, which wins. Unknown keys are errors, provided that the
//! type says `deny_unknown_fields`. The only place that reads environment variables.

use std::fmt::Write as _;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::limits::{CONFIG_BYTES_MAX, CONFIG_LINE_BYTES_MAX};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// More than `CONFIG_BYTES_MAX`.
    #[error("the configuration file `{}` has more than {CONFIG_BYTES_MAX} bytes", .0.display())]
    TooLong(PathBuf),
    /// The file is wrong; shown with line, column and caret.
    #[error("{}:{line}:{column}: {message}\n{snippet}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong.
        message: String,
        /// The line, and a caret below.
        snippet: String,
    },
    /// A value from the environment is wrong, or a key is missing in both.
    #[error("configuration from {sources}: {message}")]
    Merged {
        /// The file and the variables that were read.
        sources: String,
        /// What is wrong.
        message: String,
    },
    /// A variable is not UTF-8.
    #[error("the environment variable `{0}` is not UTF-8")]
    NotUtf8(String),
}

/// Reads `T`. A variable `PREFIX_DATA_DIR` sets `data_dir`, `PREFIX_TTL__X509_SVID` sets `x509_svid` in `[ttl]`. A
/// value that is a TOML number, boolean, array or quoted string is taken as one; everything else is text.
pub fn load<T: DeserializeOwned>(path: Option<&Path>, env_prefix: &str) -> Result<T, ConfigError> {
    let mut variables = Vec::new();
    let prefix = format!("{env_prefix}_");
    for (name, value) in std::env::vars_os() {
        let Some(key) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) else {
            continue;
        };
        let value = value
            .to_str()
            .ok_or_else(|| ConfigError::NotUtf8(format!("{prefix}{key}")))?;
        variables.push((key.to_owned(), value.to_owned()));
    }
    variables.sort();
    load_from(path, env_prefix, &variables)
}

fn load_from<T: DeserializeOwned>(
    path: Option<&Path>,
    env_prefix: &str,
    variables: &[(String, String)],
) -> Result<T, ConfigError> {
    let text = path.map(read).transpose()?.unwrap_or_default();
    let shown = path.unwrap_or(Path::new("")).to_owned();
    if variables.is_empty() && path.is_some() {
        return toml::from_str(&text).map_err(|error| in_file(shown, &text, &error));
    }
    let mut table: Table =
        toml::from_str(&text).map_err(|error| in_file(shown.clone(), &text, &error))?;
    for (key, value) in variables {
        let keys: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
        set(&mut table, &keys, to_value(value));
    }
    let merged = match Value::Table(table).try_into() {
        Ok(config) => return Ok(config),
        Err(error) => error,
    };
    // If the file alone has the same fault, it can be shown where it is.
    if let Err(error) = toml::from_str::<T>(&text)
        && path.is_some()
        && error.message() == merged.message()
        && error.span().is_some_and(|span| !span.is_empty())
    {
        return Err(in_file(shown, &text, &error));
    }
    let message = merged.to_string().trim().replace('\n', ", ");
    Err(ConfigError::Merged {
        sources: sources(path, env_prefix, variables),
        message,
    })
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(CONFIG_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLong(path.to_owned()));
    }
    Ok(text)
}

fn set(table: &mut Table, keys: &[String], value: Value) {
    match keys {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            let inner = table
                .entry(key.clone())
                .or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            if let Some(inner) = inner.as_table_mut() {
                set(inner, rest, value);
            }
        }
    }
}

fn to_value(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}")).ok();
    match parsed.and_then(|mut table| table.remove("value")) {
        // A date is text here: no configuration of ours has dates.
        None | Some(Value::Datetime(_)) => Value::String(text.to_owned()),
        Some(value) => value,
    }
}

fn sources(path: Option<&Path>, env_prefix: &str, variables: &[(String, String)]) -> String {
    let mut text = path.map_or_else(
        || "no file".to_owned(),
        |path| format!("`{}`", path.display()),
    );
    // Names only: a value may be a secret.
    for (key, _) in variables {
        let _ = write!(text, ", `{env_prefix}_{key}`");
    }
    if variables.is_empty() {
        let _ = write!(text, " and no `{env_prefix}_*` variables");
    }
    text
}

fn in_file(path: PathBuf, text: &str, error: &toml::de::Error) -> ConfigError {
    let (line, column, snippet) = locate(text, error.span().unwrap_or(0..0));
    let message = error.message().trim().replace('\n', ", ");
    ConfigError::File {
        path,
        line,
        column,
        message,
        snippet,
    }
}

/// Line and column from 1, and the line with carets under the span.
fn locate(text: &str, span: Range<usize>) -> (usize, usize, String) {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    let whole = text
        .get(line_start..)
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default();
    let shown: String = whole
        .chars()
        .take(CONFIG_LINE_BYTES_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let marked = text
        .get(span)
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default();
    let room = shown.chars().count().saturating_sub(column - 1);
    let carets = "^".repeat(marked.chars().count().min(room).max(1));
    let margin = line.to_string();
    let blank = " ".repeat(margin.len());
    let indent = " ".repeat((column - 1).min(CONFIG_LINE_BYTES_MAX));
    (
        line,
        column,
        format!("{blank} |\n{margin} | {shown}\n{blank} | {indent}{carets}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        trust_domain: String,
        #[serde(default)]
        workers: u16,
        #[serde(default)]
        ttl: Ttl,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Ttl {
        x509_svid: String,
    }

    fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Sample, String> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("ca.toml");
        std::fs::write(&path, text).expect("written");
        let variables: Vec<_> = variables
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        load_from(Some(&path), "RAVELIN_CA", &variables).map_err(|error| {
            error
                .to_string()
                .replace(&format!("{}/", folder.path().display()), "")
        })
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let text = "trust_domain = \"file.test\"\n[ttl]\nx509_svid = \"1h\"\n";
        let variables = [
            ("TRUST_DOMAIN", "env.test"),
            ("WORKERS", "4"),
            ("TTL__X509_SVID", "90s"),
        ];
        let want = Sample {
            trust_domain: "env.test".to_owned(),
            workers: 4,
            ttl: Ttl {
                x509_svid: "90s".to_owned(),
            },
        };
        assert_eq!(load_text(text, &variables), Ok(want));
    }

    #[test]
    fn text_that_looks_like_a_number_can_be_quoted() {
        let got = load_text("", &[("TRUST_DOMAIN", "\"1234\"")]).expect("loaded");
        assert_eq!(got.trust_domain, "1234");
    }

    #[test]
    fn a_fault_in_the_file_is_shown_where_it_is() {
        for (text, variables, want) in [
            (
                "trust_domain = \"a.test\"\nworkrs = 4\n",
                &[][..],
                "ca.toml:2:1: unknown field `workrs`, expected one of `trust_domain`, `workers`, `ttl`\n  \
                 |\n2 | workrs = 4\n  | ^^^^^^",
            ),
            (
                "trust_domain = \"a.test\"\nworkrs = 4\n",
                &[("WORKERS", "2")],
                "ca.toml:2:1: unknown field `workrs`, expected one of `trust_domain`, `workers`, `ttl`\n  \
                 |\n2 | workrs = 4\n  | ^^^^^^",
            ),
            (
                "trust_domain = 3\n",
                &[],
                "ca.toml:1:16: invalid type: integer `3`, expected a string\n  |\n1 | trust_domain = 3\n  \
                 |                ^",
            ),
        ] {
            assert_eq!(load_text(text, variables).expect_err("refused"), want);
        }
        let error = load_text("trust_domain = \"a\nb = 1", &[]).expect_err("refused");
        assert!(error.starts_with("ca.toml:1:"), "{error}");
    }

    #[test]
    fn a_fault_from_the_environment_names_the_variables_and_hides_their_values() {
        let error =
            load_text("trust_domain = \"a.test\"", &[("SECRET", "canary")]).expect_err("refused");
        assert!(
            error.contains("`RAVELIN_CA_SECRET`") && error.contains("unknown field"),
            "{error}"
        );
        assert!(!error.contains("canary"), "{error}");
    }

    #[test]
    fn a_missing_or_oversized_file_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let missing = folder.path().join("none.toml");
        let got = load::<Sample>(Some(&missing), "RAVELIN_TEST_NONE");
        assert!(matches!(got, Err(ConfigError::Read { .. })));
        let large = folder.path().join("large.toml");
        std::fs::write(
            &large,
            "#".repeat(usize::try_from(CONFIG_BYTES_MAX).expect("fits") + 1),
        )
        .expect("written");
        let got = load::<Sample>(Some(&large), "RAVELIN_TEST_NONE");
        assert!(matches!(got, Err(ConfigError::TooLong(_))));
    }
}
