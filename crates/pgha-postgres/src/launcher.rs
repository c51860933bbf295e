//! Who starts the postmaster and signals it.
//!
//! The daemon does this through its fence, which must be the postmaster's parent. [`DirectLauncher`] starts it as a
//! child of this process in its own session, for tests and for running without a fence.

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::Signal;
use tokio::process::Command;

use crate::error::Error;
use crate::process::{ProcessId, process_id, send_signal};

/// Everything needed to start a postmaster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaunchSpec {
    /// Absolute path.
    pub program: PathBuf,
    /// Arguments after the program's name.
    pub args: Vec<OsString>,
    /// The whole environment: nothing else is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory: the data directory.
    pub cwd: PathBuf,
}

/// Starts and signals a postmaster.
pub trait Launcher: Send + Sync {
    /// Starts the program and returns once it runs; does not wait until it is ready.
    fn launch(&self, what: &LaunchSpec) -> impl Future<Output = Result<ProcessId, Error>> + Send;

    /// Signals exactly this process; `Ok(false)` when it is gone.
    fn signal(&self, process: ProcessId, signal: Signal) -> impl Future<Output = Result<bool, Error>> + Send {
        async move { send_signal(process, signal) }
    }
}

/// Starts the postmaster as a child of this process, in its own session, and reaps it.
#[derive(Clone, Default, Debug)]
pub struct DirectLauncher {
    /// Where standard output and standard error go; `None` shares ours.
    pub log: Option<PathBuf>,
}

impl Launcher for DirectLauncher {
    async fn launch(&self, what: &LaunchSpec) -> Result<ProcessId, Error> {
        let program = what.program.display().to_string();
        let mut command = Command::new(&what.program);
        command
            .args(&what.args)
            .env_clear()
            .envs(what.env.iter().map(|(k, v)| (k, v)));
        command.current_dir(&what.cwd).stdin(Stdio::null());
        if let Some(path) = &self.log {
            let open = || std::fs::File::options().append(true).create(true).open(path);
            command.stdout(open().map_err(Error::io("open", path))?);
            command.stderr(open().map_err(Error::io("open", path))?);
        }
        // SAFETY: setsid is async-signal-safe and touches nothing of this process's memory.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into));
        }
        let mut child = command.spawn().map_err(|source| Error::Spawn {
            program: program.clone(),
            source,
        })?;
        let process = child.id().and_then(|id| i32::try_from(id).ok()).and_then(process_id);
        tokio::spawn(async move {
            match child.wait().await {
                Ok(status) => tracing::debug!(%status, "postmaster ended"),
                Err(e) => tracing::warn!(error = %e, "cannot wait for the postmaster"),
            }
        });
        process.ok_or_else(|| Error::Spawn {
            program,
            source: std::io::Error::other("it ended at once"),
        })
    }
}
