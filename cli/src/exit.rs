//! How a command ends: its exit code, and the one message that a person gets with it.

use owo_colors::OwoColorize;
use std::fmt::Display;
use std::process::ExitCode;
use tonic::Code;

/// The four ways in which a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Yes, or done.
    Yes,
    /// A considered no: denied, a test failed, a difference, tampering.
    No,
    /// Wrong usage or bad input.
    Usage,
    /// The other side cannot be reached.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Yes => 0,
            Exit::No => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
        })
    }
}

/// Why a command did not do what it was told, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    help: Option<String>,
}

/// What a command returns.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A considered no (exit code 1).
    pub(crate) fn no(message: impl Into<String>) -> Self {
        Self::new(Exit::No, message)
    }

    /// Wrong usage or bad input (exit code 2).
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The other side cannot be reached (exit code 3).
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, message)
    }

    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            help: None,
        }
    }

    /// Nobody listens any more: nothing is printed (exit code 3).
    pub(crate) fn silent() -> Self {
        Self::new(Exit::Unreachable, "")
    }

    /// The same failure with a line that says what to do.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(verb: &str, path: &std::path::Path, error: impl Display) -> Self {
        Self::usage(format!("cannot {verb} `{}`: {error}", path.display()))
    }

    /// What a server answered, in the terms of exit codes.
    pub(crate) fn status(what: &str, status: &tonic::Status) -> Self {
        let said = crate::output::escape_text(status.message());
        match status.code() {
            // WHY: tonic answers `Cancelled` where its own deadline for the call is over.
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
                Self::unreachable(format!("{what}: the server cannot be reached: {said}"))
            }
            Code::Unimplemented => {
                Self::no(format!("{what}: not implemented by this server: {said}"))
            }
            Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::OutOfRange => {
                Self::usage(format!("{what}: {said}"))
            }
            Code::Ok
            | Code::Unknown
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::Internal
            | Code::DataLoss
            | Code::Unauthenticated => Self::no(format!("{what}: {said}")),
        }
    }

    /// The exit code that goes with it.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The message alone.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Writes message and help to stderr.
    pub(crate) fn print(&self) {
        if self.message.is_empty() {
            return;
        }
        anstream::eprintln!("{} {}", "error:".red().bold(), self.message);
        if let Some(help) = &self.help {
            anstream::eprintln!("{} {help}", " help:".cyan().bold());
        }
    }
}

/// An error and its sources, where a source says more than the error already does.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let said = below.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = below.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_becomes_the_exit_code_that_its_sort_has() {
        let table = [
            (Code::Unavailable, Exit::Unreachable),
            (Code::DeadlineExceeded, Exit::Unreachable),
            (Code::Cancelled, Exit::Unreachable),
            (Code::InvalidArgument, Exit::Usage),
            (Code::NotFound, Exit::Usage),
            (Code::PermissionDenied, Exit::No),
            (Code::FailedPrecondition, Exit::No),
            (Code::Unimplemented, Exit::No),
        ];
        for (code, want) in table {
            let failure = Failure::status("list entries", &tonic::Status::new(code, "x"));
            assert_eq!(failure.exit(), want, "{code:?}");
        }
    }

    #[test]
    fn text_of_a_server_cannot_move_the_cursor() {
        let failure = Failure::status("x", &tonic::Status::internal("a\u{1b}[2Jb"));
        assert!(!failure.message().contains('\u{1b}'));
    }
}
