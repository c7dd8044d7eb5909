//! Logging to standard error: text for people, JSON lines for machines. Called once, by each program's `main`.

use std::io::{self, IsTerminal as _, Write};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for people, in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The `[log]` section of every program's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Text or JSON.
    pub format: LogFormat,
    /// What is logged, such as `info` or `warn,ravelin_ca=debug`.
    pub filter: String,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be understood.
    #[error("cannot understand the log filter `{filter}`: {source}")]
    Filter {
        /// As it was given.
        filter: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging was set up before.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Starts logging. Only the first call in a process can succeed.
pub fn init(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(&config.filter)
        .map_err(|source| TelemetryError::Filter {
            filter: config.filter.clone(),
            source,
        })?;
    let is_coloured = config.format == LogFormat::Text && io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || OneLine {
            out: io::stderr(),
            is_coloured,
        });
    let outcome = match config.format {
        LogFormat::Text => builder
            .with_ansi(is_coloured)
            .with_target(false)
            .finish()
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    outcome.map_err(|_| TelemetryError::AlreadySet)
}

/// Keeps each event on one line and the terminal in its state: what others chose must not look like a line of ours (threat
/// 38). An event arrives whole, with its newline.
struct OneLine<W> {
    out: W,
    is_coloured: bool,
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        let mut shown = Vec::with_capacity(event.len());
        let mut rest = line;
        while let Some((byte, after)) = rest.split_first() {
            let colour = if self.is_coloured {
                colour_bytes(rest)
            } else {
                0
            };
            if let Some((sequence, after)) = rest.split_at_checked(colour).filter(|_| colour > 0) {
                shown.extend(sequence);
                rest = after;
                continue;
            }
            if byte.is_ascii_control() {
                shown.extend(byte.escape_ascii());
            } else {
                shown.push(*byte);
            }
            rest = after;
        }
        shown.extend(event.get(line.len()..).unwrap_or_default());
        self.out.write_all(&shown)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// How long the colour sequence is that `bytes` begin with; 0 if they begin otherwise.
fn colour_bytes(bytes: &[u8]) -> usize {
    let Some(rest) = bytes.strip_prefix(b"\x1b[") else {
        return 0;
    };
    let numbers = rest
        .iter()
        .take_while(|byte| byte.is_ascii_digit() || **byte == b';')
        .count();
    if rest.get(numbers) == Some(&b'm') {
        numbers + 3
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_38_an_event_stays_on_one_line() {
        let written = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink = std::sync::Arc::clone(&written);
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(move || OneLine {
                out: Sink(std::sync::Arc::clone(&sink)),
                is_coloured: true,
            })
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let forged = "/a\r\n INFO all is well\u{1b}[2K\u{1b}[31mred";
            tracing::info!(path = %forged, "refused\nforged");
        });
        let text = String::from_utf8(written.lock().expect("lock").clone()).expect("UTF-8");
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.ends_with("\\x1b[2K\u{1b}[31mred\n"), "{text:?}");
        assert!(!text.contains('\r'), "{text:?}");
    }

    struct Sink(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_filter_that_cannot_be_understood_is_shown() {
        let config = TelemetryConfig {
            filter: "ravelin=loud".to_owned(),
            ..Default::default()
        };
        let error = init(&config).expect_err("refused");
        assert!(error.to_string().contains("`ravelin=loud`"), "{error}");
    }

    #[test]
    fn logging_is_set_up_once() {
        assert!(init(&TelemetryConfig::default()).is_ok());
        assert!(matches!(
            init(&TelemetryConfig::default()),
            Err(TelemetryError::AlreadySet)
        ));
    }
}
