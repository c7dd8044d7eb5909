//! The access log: one JSON line per call and per TCP connection, with the fields of Istio's default format.
//!
//! A worker formats into a buffer of its own and hands over whole buffers (`writer`); it never waits. What finds the queue full
//! is lost and counted. Without the query unless configured: queries carry secrets. No other header than those named here.

pub mod line;
pub mod writer;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use prometheus_client::metrics::counter::Counter;
use serde::Deserialize;

use crate::limits;
use line::{Entry, LineFormat, TcpEntry};

/// The `[access_log]` section of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLogConfig {
    /// `stdout`, `off`, or the path of a file that lines are added to.
    pub to: Target,
    /// Share of calls answered below 400, without a flag, that is written; everything else always is.
    pub sample: f64,
    /// Write the query of a path. It often carries tokens and personal data.
    pub query: bool,
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self {
            to: Target::Stdout,
            sample: 1.0,
            query: false,
        }
    }
}

/// Where the lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Target {
    /// Nowhere.
    Off,
    /// Standard output.
    #[default]
    Stdout,
    /// A file; opened again when it was moved away.
    File(PathBuf),
}

impl From<String> for Target {
    fn from(text: String) -> Self {
        match text.as_str() {
            "off" => Self::Off,
            "stdout" => Self::Stdout,
            _ => Self::File(text.into()),
        }
    }
}

/// Why an `[access_log]` section is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessLogConfigError {
    /// A relative path depends on where the proxy is started.
    #[error("`access_log.to` must be `stdout`, `off` or an absolute path")]
    Target,
    /// Not a share.
    #[error("`access_log.sample` must lie between 0.0 and 1.0")]
    Sample,
}

impl AccessLogConfig {
    /// Refuses what cannot be meant.
    pub fn check(&self) -> Result<(), AccessLogConfigError> {
        if !(0.0..=1.0).contains(&self.sample) {
            return Err(AccessLogConfigError::Sample);
        }
        match &self.to {
            Target::File(path) if !path.is_absolute() => Err(AccessLogConfigError::Target),
            Target::Off | Target::Stdout | Target::File(_) => Ok(()),
        }
    }
}

/// Whole lines on their way to the writer.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    lines: u64,
    /// Takes the buffer back.
    home: SyncSender<Vec<u8>>,
}

/// One worker's end of the access log.
#[derive(Debug)]
pub struct AccessLogSink {
    queue: Option<SyncSender<Batch>>,
    lost: Counter,
    format: RefCell<LineFormat>,
    buffer: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    sample: f64,
    owed: Cell<f64>,
    home: SyncSender<Vec<u8>>,
    returned: Receiver<Vec<u8>>,
}

impl AccessLogSink {
    /// Without a queue nothing is formatted.
    pub fn new(queue: Option<SyncSender<Batch>>, config: &AccessLogConfig, lost: Counter) -> Self {
        let (home, returned) = sync_channel(limits::ACCESS_LOG_BUFFERS_KEPT);
        Self {
            queue,
            lost,
            format: RefCell::new(LineFormat::new(config.query)),
            buffer: RefCell::default(),
            lines: Cell::new(0),
            sample: config.sample,
            owed: Cell::new(0.0),
            home,
            returned,
        }
    }

    /// True unless it is off.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Writes the line of a call.
    pub fn call(&self, entry: &Entry<'_>) {
        if self.is_on() && (!entry.is_ordinary() || self.is_sampled()) {
            self.format
                .borrow_mut()
                .call(&mut self.buffer.borrow_mut(), entry);
            self.wrote_line();
        }
    }

    /// Writes the line of a TCP connection.
    pub fn tcp(&self, entry: &TcpEntry<'_>) {
        if self.is_on() {
            self.format
                .borrow_mut()
                .tcp(&mut self.buffer.borrow_mut(), entry);
            self.wrote_line();
        }
    }

    fn wrote_line(&self) {
        self.lines.set(self.lines.get().saturating_add(1));
        if self.buffer.borrow().len() >= limits::ACCESS_LOG_BATCH_BYTES {
            self.flush();
        }
    }

    /// Hands over what is there. Called when a buffer is full, and once a second.
    pub fn flush(&self) {
        let lines = self.lines.replace(0);
        let Some(queue) = self.queue.as_ref().filter(|_| lines > 0) else {
            return;
        };
        let next = self.returned.try_recv().unwrap_or_default();
        let batch = Batch {
            bytes: self.buffer.replace(next),
            lines,
            home: self.home.clone(),
        };
        if let Err(error) = queue.try_send(batch) {
            self.lost.inc_by(lines);
            let (std::sync::mpsc::TrySendError::Full(batch)
            | std::sync::mpsc::TrySendError::Disconnected(batch)) = error;
            batch.give_back();
        }
    }

    fn is_sampled(&self) -> bool {
        let owed = self.owed.get() + self.sample;
        let is_due = owed >= 1.0;
        self.owed.set(if is_due { owed - 1.0 } else { owed });
        is_due
    }
}

impl Drop for AccessLogSink {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Batch {
    fn give_back(mut self) {
        self.bytes.clear();
        // WHY: a buffer more than are kept is let go.
        let _ = self.home.try_send(self.bytes);
    }
}
