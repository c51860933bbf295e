//! The one error type of this crate.
//!
//! Every variant names the place and, where a person can do something, the remedy. The source is kept and not
//! repeated in the text.

use std::io;
use std::path::PathBuf;

use crate::fence::wire::{Malformed, Refusal};

/// What can go wrong at the borders of the daemon.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A call to the operating system failed.
    #[error("cannot {what}")]
    Os {
        /// The step that failed, as the rest of a sentence that begins with "cannot".
        what: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The state directory is not safe to use.
    #[error("state directory {}: {problem}; {remedy}", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Another process holds a lock that only one may hold.
    #[error("{what} is already running for this data directory (pid {pid}, lock file {}); stop it first", path.display())]
    Locked {
        /// Who was locked out: "another pgha" or "another fence".
        what: &'static str,
        /// The holder as written in the lock file, or "unknown".
        pid: String,
        /// The lock file.
        path: PathBuf,
    },
    /// The fence said no.
    #[error("the fence refused to {what}: {refusal}")]
    FenceRefused {
        /// The request.
        what: &'static str,
        /// Its reason.
        refusal: Refusal,
    },
    /// The fence is gone or does not answer; PostgreSQL stops with it.
    #[error("lost the fence while trying to {what}: {reason}")]
    FenceLost {
        /// The request.
        what: &'static str,
        /// What was seen.
        reason: String,
    },
    /// The fence or the daemon sent something that is not the protocol.
    #[error("malformed message on the fence socket")]
    FenceProtocol(#[from] Malformed),
    /// The program of the fence was not found.
    #[error("cannot find the program pgha-fence ({looked}); install it beside pgha or set PGHA_FENCE to its path")]
    FenceMissing {
        /// Where it was looked for.
        looked: String,
    },
    /// A command of the configuration cannot be run as it is written.
    #[error("{setting}: {problem}")]
    Command {
        /// The path of the setting in the configuration.
        setting: String,
        /// What is wrong with the command.
        problem: String,
    },
}

impl AgentError {
    /// Wraps what the operating system said; `what` continues a sentence that begins with "cannot".
    pub fn os(what: impl Into<String>, source: impl Into<io::Error>) -> AgentError {
        AgentError::Os {
            what: what.into(),
            source: source.into(),
        }
    }
}
