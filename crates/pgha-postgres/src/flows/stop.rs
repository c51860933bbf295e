//! Stops the server, telling on the way when nothing is committed any more and where its WAL ends.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use crate::error::Error;
use crate::flows::start::end_orphans;
use crate::flows::{Job, Progress};
use crate::instance::Instance;
use crate::launcher::Launcher;
use crate::postmaster::{server_children, user_backends};
use crate::process::{self, ProcessId, wait_exit};
use crate::wal::ShutdownCheckpoint;

/// How often `pg_control` and the children are looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long a server may take after SIGQUIT (PostgreSQL itself kills slow children after 5 s), and after SIGKILL.
const QUIT_GRACE: Duration = Duration::from_secs(6);
const KILL_GRACE: Duration = Duration::from_secs(5);
/// Wait for another observation to give the kept connection back.
const MONITOR_LIMIT: Duration = Duration::from_millis(100);

/// PostgreSQL's shutdown modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopMode {
    /// Waits for clients to leave (SIGTERM).
    Smart,
    /// Disconnects clients, writes a shutdown checkpoint (SIGINT).
    Fast,
    /// Ends at once and recovers at the next start (SIGQUIT).
    Immediate,
}

/// What to do when the server has not stopped in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterTimeout {
    /// Leave it stopping.
    Leave,
    /// Immediate shutdown, then SIGKILL for it and its children.
    Kill,
}

/// How to stop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StopRequest {
    /// Mode.
    pub mode: StopMode,
    /// Issue a CHECKPOINT first, for at most this long, so that the shutdown checkpoint is short. It may fail.
    pub checkpoint: Option<Duration>,
    /// How long the stop may take.
    pub timeout: Duration,
    /// What then.
    pub after_timeout: AfterTimeout,
}

/// What became of a stop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StopOutcome {
    /// No server ran.
    NotRunning,
    /// It has ended.
    Stopped {
        /// The shutdown checkpoint of a primary that ended cleanly.
        clean: Option<ShutdownCheckpoint>,
    },
    /// It has not ended in time and was left as it is.
    StillRunning,
}

impl Instance {
    /// Stops the server. Reports [`Progress::BackendsGone`] and [`Progress::ShutdownCheckpoint`] when they happen.
    ///
    /// # Errors
    /// Signalling fails; it survives SIGKILL; [`Error::Cancelled`], which leaves it stopping.
    pub async fn stop<L: Launcher>(
        &self,
        request: &StopRequest,
        launcher: &L,
        job: &Job<'_>,
    ) -> Result<StopOutcome, Error> {
        let Some(server) = self.find_postmaster().await.process() else {
            return Ok(StopOutcome::NotRunning);
        };
        if let Some(limit) = request.checkpoint
            && let Err(e) = self.checkpoint(limit).await
        {
            tracing::warn!(error = %e.chain(), "no checkpoint before the shutdown");
        }
        self.close_monitor(MONITOR_LIMIT).await;
        let signal = match request.mode {
            StopMode::Smart => Signal::TERM,
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        };
        launcher.signal(server, signal).await?;
        let mut told = Told::default();
        let stopping = async {
            tokio::select! {
                () = self.tell_milestones(server, job, &mut told) => Ok(()),
                ended = wait_exit(server) => ended,
            }
        };
        let stopped = tokio::select! {
            stopped = timeout(request.timeout, stopping) => stopped,
            () = job.cancel.cancelled() => return Err(Error::Cancelled),
        };
        match (stopped, request.after_timeout) {
            (Ok(ended), _) => ended?,
            (Err(_), AfterTimeout::Leave) => return Ok(StopOutcome::StillRunning),
            (Err(_), AfterTimeout::Kill) => kill(server, launcher).await?,
        }
        let clean = self.shutdown_checkpoint().await.unwrap_or_else(|e| {
            tracing::warn!(error = %e.chain(), "the server has stopped and its control file cannot be read");
            None
        });
        // A quick stop passes its milestones between two looks.
        told.backends_gone(job);
        if let Some(checkpoint) = clean {
            told.checkpoint(checkpoint, job);
        }
        Ok(StopOutcome::Stopped { clean })
    }

    /// Tells the milestones as they come; never returns, the server's end ends it.
    async fn tell_milestones(&self, server: ProcessId, job: &Job<'_>, told: &mut Told) {
        loop {
            if !told.backends && user_backends(server).is_empty() {
                told.backends_gone(job);
            }
            if !told.checkpoint
                && let Ok(Some(checkpoint)) = self.shutdown_checkpoint().await
            {
                told.checkpoint(checkpoint, job);
            }
            sleep(POLL).await;
        }
    }

    /// Makes the running server read its configuration again.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; signalling fails.
    pub async fn reload<L: Launcher>(&self, launcher: &L) -> Result<(), Error> {
        let not_running = || Error::NotRunning {
            data_dir: self.spec().data_dir.clone(),
        };
        let server = self.find_postmaster().await.process().ok_or_else(not_running)?;
        if launcher.signal(server, Signal::HUP).await? {
            Ok(())
        } else {
            Err(not_running())
        }
    }
}

/// Which milestones were told; each is told once, the first one first.
#[derive(Default)]
struct Told {
    backends: bool,
    checkpoint: bool,
}

impl Told {
    fn backends_gone(&mut self, job: &Job<'_>) {
        if !std::mem::replace(&mut self.backends, true) {
            job.say(Progress::BackendsGone);
        }
    }
    /// The shutdown checkpoint is only written when no backend is left.
    fn checkpoint(&mut self, checkpoint: ShutdownCheckpoint, job: &Job<'_>) {
        self.backends_gone(job);
        if !std::mem::replace(&mut self.checkpoint, true) {
            job.say(Progress::ShutdownCheckpoint(checkpoint));
        }
    }
}

/// SIGQUIT (unless it is stopped and could not act on it), then SIGKILL for the postmaster and every child it has.
async fn kill<L: Launcher>(server: ProcessId, launcher: &L) -> Result<(), Error> {
    if !process::stat(server.pid).is_some_and(|s| s.is_frozen()) {
        launcher.signal(server, Signal::QUIT).await?;
        if let Ok(ended) = timeout(QUIT_GRACE, wait_exit(server)).await {
            return ended;
        }
    }
    let children = server_children(server);
    launcher.signal(server, Signal::KILL).await?;
    match timeout(KILL_GRACE, wait_exit(server)).await {
        Ok(ended) => ended?,
        Err(_) => {
            return Err(Error::TimedOut {
                what: "the end of a killed server".to_string(),
                limit: KILL_GRACE,
            });
        }
    }
    end_orphans(&children).await
}
