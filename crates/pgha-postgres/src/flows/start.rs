//! Starts the server through a [`Launcher`] and waits until it lets clients in.
//!
//! A directory with unfinished work is never started. Processes that outlived a killed postmaster are ended first: they
//! still hold shared memory, PostgreSQL refuses to start beside them, and they could still write.

use std::ffi::OsString;
use std::time::Duration;

use pgha_core::pg::{DataDir, PostmasterPhase, UnfinishedWork};
use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use crate::child::clean_environment;
use crate::config_files;
use crate::data_dir::classify;
use crate::error::Error;
use crate::flows::{Job, Progress};
use crate::instance::Instance;
use crate::launcher::{LaunchSpec, Launcher};
use crate::postmaster::{Found, PidFile, find_postmaster, orphans};
use crate::process::{ProcessId, send_signal, wait_exit};

/// How often postmaster.pid is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long orphans may take after SIGQUIT, and again after SIGKILL.
const ORPHAN_GRACE: Duration = Duration::from_secs(2);

/// How to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartRequest {
    /// `--name=value` arguments that override the configuration file.
    pub options: Vec<String>,
    /// How long to wait for readiness.
    pub timeout: Duration,
    /// Start although the bootstrap's mark is there: only the bootstrap itself does so.
    pub during_bootstrap: bool,
}

/// What became of a start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartOutcome {
    /// It is up.
    Up {
        /// The postmaster.
        process: ProcessId,
        /// It lets clients in; a server in recovery with `hot_standby = off` does not.
        accepts_connections: bool,
    },
    /// It still starts or recovers. It was left running.
    StillStarting {
        /// The postmaster.
        process: ProcessId,
    },
    /// It ended during the start; the reason is in its log.
    Exited,
    /// A server runs there already.
    AlreadyRunning {
        /// The postmaster.
        process: ProcessId,
    },
}

impl Instance {
    /// Starts the server.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] when the directory holds no cluster that may be started; the launcher's error;
    /// [`Error::Cancelled`], which leaves the server running if it was launched.
    pub async fn start<L: Launcher>(
        &self,
        request: &StartRequest,
        launcher: &L,
        job: &Job<'_>,
    ) -> Result<StartOutcome, Error> {
        self.unfinished().end_worker().await?;
        let program = self.server_program();
        let during_bootstrap = request.during_bootstrap;
        let looked = self.on_disk(move |spec| {
            let found = find_postmaster(&spec.data_dir, &program);
            let left = orphans(&spec.data_dir, &program);
            Ok((
                classify(spec, found.process().is_some()),
                found,
                left,
                PidFile::read(&spec.data_dir),
            ))
        });
        let (data_dir, found, left, old_pid_file) = looked.await?;
        let misleading_pid = match found {
            Found::Server { process, .. } => return Ok(StartOutcome::AlreadyRunning { process }),
            Found::Nothing { misleading_pid } => misleading_pid,
        };
        match data_dir {
            DataDir::Present(_) => {}
            DataDir::Unfinished {
                what: UnfinishedWork::Bootstrap,
            } if during_bootstrap => {}
            other => return Err(self.unsuitable(format!("it must hold a cluster and is {other:?}"))),
        }
        end_orphans(&left).await?;
        let process = launcher.launch(&self.launch_spec(request, misleading_pid)?).await?;
        job.say(Progress::Launched(process));
        let outcome = tokio::select! {
            outcome = timeout(request.timeout, self.wait_ready(process, old_pid_file.as_ref())) => {
                outcome.unwrap_or(Ok(StartOutcome::StillStarting { process }))?
            }
            () = job.cancel.cancelled() => return Err(Error::Cancelled),
        };
        if let StartOutcome::Up { .. } = outcome
            && let Err(e) = self.on_disk(config_files::save_copies).await
        {
            tracing::warn!(error = %e.chain(), "cannot copy the configuration for base backups");
        }
        Ok(outcome)
    }

    fn launch_spec(&self, request: &StartRequest, misleading_pid: Option<i32>) -> Result<LaunchSpec, Error> {
        let spec = self.spec();
        let config = spec.config_dir.join("postgresql.conf");
        let mut args: Vec<OsString> = vec!["-D".into(), spec.data_dir.clone().into()];
        args.push(format!("--config-file={}", config.display()).into());
        args.extend(request.options.iter().map(OsString::from));
        let mut env = clean_environment();
        if let Some(pid) = misleading_pid {
            // A pid in an old postmaster.pid may belong to an unrelated process now, above all in containers.
            // PostgreSQL ignores the pid it is told here, and still checks the old shared memory, which deleting the
            // file would prevent.
            env.push(("PG_GRANDPARENT_PID".into(), pid.to_string().into()));
        }
        Ok(LaunchSpec {
            program: self.bin().path("postgres")?,
            args,
            env,
            cwd: spec.data_dir.clone(),
        })
    }

    /// Waits for readiness or for the end of the process, whichever comes first.
    async fn wait_ready(&self, process: ProcessId, old: Option<&PidFile>) -> Result<StartOutcome, Error> {
        let ready = async {
            loop {
                let file = self.on_disk(|spec| Ok(PidFile::read(&spec.data_dir))).await?;
                // The old file may even name the same pid; only its start time tells it from the new one.
                let is_new = |f: &PidFile| {
                    f.pid == process.pid && old.is_none_or(|o| (o.pid, o.start_time) != (f.pid, f.start_time))
                };
                if let Some(file) = file.filter(is_new) {
                    let accepts_connections = file.phase() == PostmasterPhase::Ready;
                    if accepts_connections || file.status.as_deref() == Some("standby") {
                        return Ok(StartOutcome::Up {
                            process,
                            accepts_connections,
                        });
                    }
                }
                sleep(POLL).await;
            }
        };
        tokio::select! {
            outcome = ready => outcome,
            ended = wait_exit(process) => ended.map(|()| StartOutcome::Exited),
        }
    }
}

/// Ends server processes whose postmaster is dead.
pub(crate) async fn end_orphans(left: &[ProcessId]) -> Result<(), Error> {
    for signal in [Signal::QUIT, Signal::KILL] {
        for process in left {
            send_signal(*process, signal)?;
        }
        let gone = async {
            for process in left {
                wait_exit(*process).await?;
            }
            Ok(())
        };
        if let Ok(done) = timeout(ORPHAN_GRACE, gone).await {
            return done;
        }
    }
    Err(Error::TimedOut {
        what: "the end of processes of an earlier server".to_string(),
        limit: ORPHAN_GRACE,
    })
}
