//! The one error type of this crate. Callers decide by variant, never by message.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// Why something about the local instance could not be done or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The verb, e.g. `read`.
        what: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// `pg_control` is missing fields, damaged or of a version this program does not know.
    #[error("{}: {reason}", path.display())]
    Control {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A text that came from outside does not have the expected form.
    #[error("{place}: {reason}")]
    Malformed {
        /// Which text, and where in it.
        place: String,
        /// What was expected.
        reason: String,
    },
    /// A PostgreSQL program was not found.
    #[error("program {program} not found in {looked_in}; set postgresql.bin_dir to the directory that holds it")]
    NoProgram {
        /// Its file name.
        program: String,
        /// Where it was looked for.
        looked_in: String,
    },
    /// A program could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// The program.
        program: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{program} ended with {status}: {tail}")]
    Failed {
        /// The program.
        program: String,
        /// Exit code or signal.
        status: ExitStatus,
        /// The last lines it wrote.
        tail: String,
    },
    /// The caller cancelled the flow. What it left behind is what the flow's documentation says.
    #[error("cancelled")]
    Cancelled,
    /// A limit passed. Says nothing about whether the thing happened after all.
    #[error("{what} took longer than {} ms", limit.as_millis())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// PostgreSQL starts up or shuts down (SQLSTATE 57P03).
    #[error("{reason}")]
    CannotConnectNow {
        /// PostgreSQL's words.
        reason: String,
    },
    /// PostgreSQL answered with an error, or the connection failed.
    #[error("{what}: {reason}")]
    Sql {
        /// What was asked.
        what: String,
        /// The answer.
        reason: String,
        /// SQLSTATE, when PostgreSQL itself answered.
        sqlstate: Option<String>,
    },
    /// The data directory is in use by a live server.
    #[error("data directory {} is in use by process {pid}; stop it first", data_dir.display())]
    InUse {
        /// The data directory.
        data_dir: PathBuf,
        /// The postmaster or single-user server.
        pid: i32,
    },
    /// No server runs where one was expected.
    #[error("no PostgreSQL server runs in {}", data_dir.display())]
    NotRunning {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The data directory is not in the state this flow needs.
    #[error("data directory {}: {reason}", data_dir.display())]
    Unsuitable {
        /// The data directory.
        data_dir: PathBuf,
        /// What it is and what was needed.
        reason: String,
    },
}

impl Error {
    /// Wraps an I/O error: `map_err(Error::io("read", &path))`.
    pub(crate) fn io<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io {
            what,
            path,
            source: source.into(),
        }
    }

    /// The error and its sources in one line, for facts that carry a reason as text.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(inner) = source {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            source = inner.source();
        }
        text
    }
}
