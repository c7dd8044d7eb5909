//! The thread that writes the access log. It may wait for a slow disk or a full pipe; nobody waits for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::{Batch, Target};
use crate::limits;

/// The access log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the access log `{path}` cannot be written: {source}")]
pub struct OpenError {
    /// Which file.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

/// A running writer.
#[derive(Debug)]
pub struct Writer {
    queue: SyncSender<Batch>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Starts the thread; `None` when the log is off.
    pub fn start(target: &Target, lost: Counter) -> Result<Option<Self>, OpenError> {
        let output = match target {
            Target::Off => return Ok(None),
            Target::Stdout => Output::Stdout,
            Target::File(path) => {
                Output::File(LogFile::open(path).map_err(|source| OpenError {
                    path: path.clone(),
                    source,
                })?)
            }
        };
        let (queue, batches) = sync_channel(limits::ACCESS_LOG_QUEUE_MAX);
        let (end, ended) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                write_all(output, &batches, &lost);
                // WHY: who waits for the end may have given up.
                let _ = end.try_send(());
            })
            .map_err(|source| OpenError {
                path: PathBuf::new(),
                source,
            })?;
        Ok(Some(Self {
            queue,
            ended,
            thread,
        }))
    }

    /// An end of the queue for one worker.
    pub fn queue(&self) -> SyncSender<Batch> {
        self.queue.clone()
    }

    /// Waits until everything is written, once all workers have ended; not for longer than `deadline`.
    pub fn finish(self, deadline: Duration) {
        drop(self.queue);
        match self.ended.recv_timeout(deadline) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                if self.thread.join().is_err() {
                    tracing::error!("the access log's thread ended unexpectedly");
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("the access log was not written in time");
            }
        }
    }
}

fn write_all(mut output: Output, batches: &Receiver<Batch>, lost: &Counter) {
    let mut is_failing = false;
    while let Ok(batch) = batches.recv() {
        match output.write(&batch.bytes) {
            Ok(()) => is_failing = false,
            Err(error) => {
                lost.inc_by(batch.lines);
                // WHY: one word at the beginning; the counter tells the rest.
                if !is_failing {
                    tracing::error!(%error, "the access log cannot be written");
                }
                is_failing = true;
            }
        }
        batch.give_back();
    }
}

enum Output {
    Stdout,
    File(LogFile),
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::File(file) => file.write(bytes),
        }
    }
}

/// A log file that may be moved away by a rotation.
struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        // WHY: no link is followed and nothing but a regular file is taken: whoever may write in the folder must not make the
        // proxy write elsewhere, or wait for the reader of a pipe (threat 57).
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.is_in_place() {
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(bytes)
    }

    /// False once another file, or none, has the path.
    fn is_in_place(&self) -> bool {
        let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
        let open = self.file.metadata().map(identity).ok();
        open.is_some() && open == std::fs::symlink_metadata(&self.path).map(identity).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AccessLogConfig, AccessLogSink};
    use super::*;
    use crate::access_log::line::TcpEntry;
    use crate::decision_log::ConnectionFacts;
    use crate::metrics::flags::ResponseFlag;
    use crate::trace::span::Side;
    use ravelin_proto::time::Timestamp;

    fn write_line(sink: &AccessLogSink, code: &str) {
        sink.tcp(&TcpEntry {
            side: Side::Outbound,
            connection: &ConnectionFacts::default(),
            time: Timestamp::from_unix_secs(0),
            duration: Duration::ZERO,
            received: 0,
            sent: 0,
            flag: ResponseFlag::None,
            code,
            upstream: None,
            service: "",
            peer: "",
        });
    }

    #[test]
    fn lines_reach_the_file_also_after_it_was_moved_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let lost = Counter::default();
        let writer = Writer::start(&Target::File(path.clone()), lost.clone())
            .unwrap()
            .unwrap();
        let sink = AccessLogSink::new(
            Some(writer.queue()),
            &AccessLogConfig::default(),
            lost.clone(),
        );
        write_line(&sink, "first");
        sink.flush();
        // The buffer comes home once it is written.
        let buffer = sink.returned.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(buffer.is_empty());
        std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
        write_line(&sink, "second");
        drop(sink);
        writer.finish(Duration::from_secs(20));
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("access.log.1").contains("first") && !read("access.log.1").contains("second"));
        assert!(read("access.log").contains("second"));
        assert_eq!(lost.get(), 0);
    }

    #[test]
    fn a_writer_that_stands_still_costs_lines_that_are_counted_and_never_a_wait() {
        let (queue, _batches) = sync_channel(1);
        let lost = Counter::default();
        let sink = AccessLogSink::new(Some(queue), &AccessLogConfig::default(), lost.clone());
        for _ in 0..3 {
            write_line(&sink, "line");
            write_line(&sink, "line");
            sink.flush();
        }
        assert_eq!(lost.get(), 4, "one batch of two waits, two are lost");
    }

    #[test]
    fn threat_57_the_log_is_a_regular_file_and_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
        for path in [link, folder.path().to_owned(), "/dev/zero".into()] {
            let refused = Writer::start(&Target::File(path.clone()), Counter::default());
            assert!(refused.is_err(), "{}", path.display());
        }
        assert!(!folder.path().join("elsewhere").exists());
    }
}
