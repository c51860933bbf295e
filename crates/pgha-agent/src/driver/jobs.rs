//! Performs jobs: each is a flow of pgha-postgres with the configuration files around it. Chooses nothing.

mod rejoin;

use std::sync::Arc;
use std::time::Duration;

use pgha_core::event::{Event, OpId};
use pgha_core::job::{Job, JobFailure, JobOutcome, JobProgress, StartRole, StopMode, Upstream};
use pgha_postgres::{
    AfterTimeout, BasebackupRequest, ConnInfo, Error, Instance, InstanceSpec, LocalAddress, PostBootstrap,
    PromoteOutcome, StartOutcome, StartRequest, StopOutcome, StopRequest,
};
use pgha_wire::pgconf::guc::{command_line, raise_for_standby};
use pgha_wire::pgconf::options::{Tool, ToolOption, arguments};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::guard::FenceGuard;
use super::local::{Local, Recovery, SyncNames};
use crate::hook::{self, HookCommand, HookOutcome};

/// Limit for the checkpoint before a planned stop.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(300);
/// An immediate shutdown that takes longer is ended by SIGKILL.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(5);
/// How long the scripts pre_promote and before_stop may take.
const HOOK_LIMIT: Duration = Duration::from_secs(300);
/// How long the start of the private server of a bootstrap may take.
const BOOTSTRAP_START: Duration = Duration::from_secs(60);

/// What a job works with.
pub struct Bench {
    /// The configuration in force at its beginning.
    pub local: Arc<Local>,
    /// Who launches postmasters.
    pub fence: FenceGuard,
    /// Where progress goes.
    pub events: mpsc::Sender<Event>,
    /// Ends it early.
    pub cancel: CancellationToken,
    /// Its operation.
    pub op: OpId,
    /// How long a promotion may take.
    pub promote_limit: Duration,
}

/// Runs a job to its end.
pub async fn run_job(bench: &Bench, job: &Job) -> JobOutcome {
    let done = match job {
        Job::Bootstrap => bench.bootstrap().await,
        Job::Clone { source } => bench.clone_from(source).await,
        Job::Start { role, timeout } => bench.start(role, *timeout).await,
        Job::Stop { mode, checkpoint_first } => bench.stop(*mode, *checkpoint_first).await,
        Job::Restart { role, timeout } => bench.restart(role, *timeout).await,
        Job::Promote => bench.promote().await,
        Job::Follow { upstream } => bench.follow(upstream.clone()).await,
        Job::CheckDivergence { source } => bench.check_divergence(source).await,
        Job::CrashRecovery => bench.crash_recovery().await,
        Job::Rewind {
            source,
            discards,
            keep_aside,
        } => bench.rewind(source, *discards, *keep_aside).await,
        Job::DiscardDataDir { keep_aside, reason } => bench.discard(*keep_aside, reason).await,
    };
    done.unwrap_or_else(|error| outcome_of(&error))
}

fn outcome_of(error: &Error) -> JobOutcome {
    let failure = match error {
        Error::Cancelled => return JobOutcome::Cancelled,
        Error::TimedOut { .. } => JobFailure::TimedOut,
        Error::NotRunning { .. } => JobFailure::Exited,
        Error::Spawn { source, .. } if is_fenced(source) => JobFailure::Fenced,
        Error::Io { .. }
        | Error::Control { .. }
        | Error::Malformed { .. }
        | Error::NoProgram { .. }
        | Error::Spawn { .. }
        | Error::Failed { .. }
        | Error::CannotConnectNow { .. }
        | Error::Sql { .. }
        | Error::InUse { .. }
        | Error::Unsuitable { .. } => JobFailure::Nothing,
    };
    JobOutcome::Failed {
        failure,
        reason: error.chain(),
    }
}

fn is_fenced(source: &std::io::Error) -> bool {
    use crate::fence::wire::RefusalKind;
    let agent = source.get_ref().and_then(|e| e.downcast_ref::<crate::AgentError>());
    matches!(
        agent.and_then(crate::AgentError::refusal),
        Some(RefusalKind::Fired | RefusalKind::NoGuard)
    )
}

fn failed(failure: JobFailure, reason: impl Into<String>) -> JobOutcome {
    JobOutcome::Failed {
        failure,
        reason: reason.into(),
    }
}

/// Host and port of a member, for the flows, which add user and passfile themselves.
fn address(upstream: &Upstream) -> Result<ConnInfo, Error> {
    let (host, port) = pgha_core::conninfo::host_port(&upstream.conn_url).ok_or_else(|| Error::Malformed {
        place: format!("conn_url of member {}", upstream.name),
        reason: format!("postgres://HOST:PORT/DB is expected, found {:?}", upstream.conn_url),
    })?;
    Ok(ConnInfo::new().with("host", &host).with("port", &port.to_string()))
}

impl Bench {
    fn instance(&self) -> &Instance {
        &self.local.instance
    }

    /// Passes progress on without ever waiting: a full queue costs a line of progress, nothing else.
    fn report(&self) -> impl Fn(pgha_postgres::Progress) + Send + Sync + '_ {
        move |progress| {
            let told = match progress {
                pgha_postgres::Progress::Bytes { done, total } => JobProgress::Copied {
                    done,
                    total: total.unwrap_or(0),
                },
                pgha_postgres::Progress::ShutdownCheckpoint(at) => JobProgress::ShutDown {
                    checkpoint: at.needed(),
                },
                pgha_postgres::Progress::Line { program, text } => {
                    tracing::info!(program, "{text}");
                    JobProgress::Step(text)
                }
                pgha_postgres::Progress::Launched(process) => {
                    JobProgress::Step(format!("postmaster {} launched", process.pid))
                }
                pgha_postgres::Progress::BackendsGone => JobProgress::Step("all clients are disconnected".to_owned()),
            };
            if self
                .events
                .try_send(Event::JobProgress {
                    op: self.op,
                    progress: told,
                })
                .is_err()
            {
                tracing::debug!("progress of a job was dropped");
            }
        }
    }

    fn options(&self, tool: Tool, options: &[ToolOption]) -> Vec<String> {
        let (argv, rejected) = arguments(tool, options, Some(self.local.major));
        for (option, reason) in rejected {
            tracing::error!(option, "{reason}");
        }
        argv
    }

    // ---- bootstrap and clone ----

    /// initdb, roles and post_bootstrap on a server that only this process can reach, then a clean stop.
    async fn bootstrap(&self) -> Result<JobOutcome, Error> {
        let report = self.report();
        let job = pgha_postgres::Job {
            cancel: &self.cancel,
            report: &report,
        };
        self.instance()
            .initdb(&self.options(Tool::Initdb, &self.local.config.bootstrap.initdb), &job)
            .await?;
        let spec = self.instance().spec();
        let port = spec.local.port();
        let private = Instance::new(InstanceSpec {
            local: LocalAddress::Unix {
                dir: spec.state_dir.clone(),
                port,
            },
            ..spec.clone()
        });
        private
            .write_config(&self.local.config_texts(&Recovery::None, &SyncNames::Nobody))
            .await?;
        let mut options = command_line(&self.local.effective.parameters.controlled);
        options.push("--listen_addresses=".to_owned());
        options.push(format!("--unix_socket_directories={}", spec.state_dir.display()));
        // The rules of pg_hba may forbid the private socket; a file for this one start lets the owner in.
        let hba = spec.state_dir.join("bootstrap_hba.conf");
        pgha_postgres::atomic_write(&hba, b"local all all trust\n", 0o600)?;
        options.push(format!("--hba_file={}", hba.display()));
        let request = StartRequest {
            options,
            timeout: BOOTSTRAP_START,
            during_bootstrap: true,
        };
        match private.start(&request, &self.fence, &job).await? {
            StartOutcome::Up { .. } => {}
            other => {
                return Ok(failed(
                    JobFailure::Exited,
                    format!("the new cluster does not start: {other:?}; see PostgreSQL's log"),
                ));
            }
        }
        let script = self.local.config.bootstrap.post_bootstrap.as_deref();
        let done = match post_bootstrap(script) {
            Ok(request) => private.post_bootstrap(&request, &job).await,
            Err(reason) => Err(Error::Malformed {
                place: "bootstrap.post_bootstrap".to_owned(),
                reason,
            }),
        };
        let stop = StopRequest {
            mode: pgha_postgres::StopMode::Fast,
            checkpoint: None,
            timeout: BOOTSTRAP_START,
            after_timeout: AfterTimeout::Kill,
        };
        let never = CancellationToken::new();
        let quiet = pgha_postgres::Job {
            cancel: &never,
            report: &|_| {},
        };
        private.stop(&stop, &self.fence, &quiet).await?;
        if let Err(error) = std::fs::remove_file(&hba) {
            tracing::debug!(%error, "the private pg_hba.conf was not removed");
        }
        done?;
        // pg_hba.conf of the configuration, or initdb's with the lines of `bootstrap.pg_hba` behind it.
        self.append_bootstrap_hba().await?;
        self.instance().unfinished().finish()?;
        Ok(JobOutcome::Done)
    }

    async fn append_bootstrap_hba(&self) -> Result<(), Error> {
        let lines = &self.local.config.bootstrap.pg_hba;
        if lines.is_empty() || self.local.effective.pg_hba.is_some() {
            return Ok(());
        }
        let path = self.local.effective.hba_file.clone();
        let mut text = tokio::fs::read_to_string(&path).await.map_err(|source| Error::Io {
            what: "read",
            path: path.clone(),
            source,
        })?;
        text.push_str(&lines.iter().map(|l| format!("{l}\n")).collect::<String>());
        pgha_postgres::atomic_write(&path, text.as_bytes(), 0o600)
    }

    async fn clone_from(&self, source: &Upstream) -> Result<JobOutcome, Error> {
        let report = self.report();
        let job = pgha_postgres::Job {
            cancel: &self.cancel,
            report: &report,
        };
        let options = self.options(Tool::Basebackup, &self.local.effective.basebackup);
        let request = BasebackupRequest {
            source: address(source)?,
            options,
        };
        self.instance().basebackup(&request, &job).await?;
        tracing::info!(source = source.name.as_str(), "bootstrapped from {}", source.name);
        Ok(JobOutcome::Done)
    }

    // ---- start, stop, promote ----

    /// Writes the files for a role; a standby gets its passfile too.
    async fn prepare(&self, role: &StartRole) -> Result<Vec<String>, Error> {
        let instance = self.instance();
        let mut controlled = self.local.effective.parameters.controlled.clone();
        let recovery = match role {
            StartRole::Primary => Recovery::None,
            StartRole::Standby { upstream } => {
                self.write_passfile(upstream.as_ref())?;
                let control = instance.control().await?;
                let least = [
                    ("max_connections", control.max_connections),
                    ("max_prepared_transactions", control.max_prepared_transactions),
                    ("max_locks_per_transaction", control.max_locks_per_transaction),
                    ("max_worker_processes", control.max_worker_processes),
                    ("max_wal_senders", control.max_wal_senders),
                ];
                let least = least
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), i64::from(value)))
                    .collect();
                for (name, value) in raise_for_standby(&mut controlled, &least) {
                    tracing::warn!(
                        name,
                        value,
                        "a standby needs at least the primary's value; restart pending"
                    );
                }
                Recovery::Standby(upstream.clone())
            }
        };
        instance
            .write_config(&self.local.config_texts(&recovery, &SyncNames::Nobody))
            .await?;
        instance.set_standby(!matches!(role, StartRole::Primary)).await?;
        Ok(command_line(&controlled))
    }

    fn write_passfile(&self, upstream: Option<&Upstream>) -> Result<(), Error> {
        let entries = upstream.map(|u| self.local.pass_entries(u)).unwrap_or_default();
        if entries.is_empty() {
            return Ok(());
        }
        pgha_postgres::write_pgpass(&self.instance().spec().pgpass, &entries)
    }

    async fn start(&self, role: &StartRole, timeout: Duration) -> Result<JobOutcome, Error> {
        let options = self.prepare(role).await?;
        let report = self.report();
        let job = pgha_postgres::Job {
            cancel: &self.cancel,
            report: &report,
        };
        let request = StartRequest {
            options,
            timeout,
            during_bootstrap: false,
        };
        let outcome = self.instance().start(&request, &self.fence, &job).await;
        if matches!(outcome, Err(Error::Cancelled)) {
            // The decision to cancel means that this server must not come up in this role.
            self.end_half_started().await?;
        }
        Ok(match outcome? {
            StartOutcome::Up { .. } | StartOutcome::AlreadyRunning { .. } => JobOutcome::Done,
            StartOutcome::StillStarting { .. } => failed(JobFailure::TimedOut, "PostgreSQL is still starting up"),
            StartOutcome::Exited => failed(JobFailure::Exited, "PostgreSQL exited during its start; see its log"),
        })
    }

    async fn end_half_started(&self) -> Result<(), Error> {
        let never = CancellationToken::new();
        let quiet = pgha_postgres::Job {
            cancel: &never,
            report: &|_| {},
        };
        let request = StopRequest {
            mode: pgha_postgres::StopMode::Immediate,
            checkpoint: None,
            timeout: IMMEDIATE_LIMIT,
            after_timeout: AfterTimeout::Kill,
        };
        self.instance().stop(&request, &self.fence, &quiet).await.map(drop)
    }

    async fn stop(&self, mode: StopMode, checkpoint_first: bool) -> Result<JobOutcome, Error> {
        self.run_before_stop().await;
        let report = self.report();
        let job = pgha_postgres::Job {
            cancel: &self.cancel,
            report: &report,
        };
        let patience = Duration::from_secs(u64::from(self.local.effective.pg_ctl_timeout_s.max(1)));
        let request = match mode {
            StopMode::Fast => StopRequest {
                mode: pgha_postgres::StopMode::Fast,
                checkpoint: checkpoint_first.then_some(CHECKPOINT_LIMIT),
                timeout: patience,
                after_timeout: AfterTimeout::Leave,
            },
            StopMode::Immediate => StopRequest {
                mode: pgha_postgres::StopMode::Immediate,
                checkpoint: None,
                timeout: IMMEDIATE_LIMIT,
                after_timeout: AfterTimeout::Kill,
            },
        };
        Ok(match self.instance().stop(&request, &self.fence, &job).await? {
            StopOutcome::NotRunning | StopOutcome::Stopped { .. } => JobOutcome::Done,
            StopOutcome::StillRunning => failed(JobFailure::TimedOut, "PostgreSQL did not stop within pg_ctl_timeout"),
        })
    }

    async fn restart(&self, role: &StartRole, timeout: Duration) -> Result<JobOutcome, Error> {
        match self.stop(StopMode::Fast, true).await? {
            JobOutcome::Done => self.start(role, timeout).await,
            other => Ok(other),
        }
    }

    async fn promote(&self) -> Result<JobOutcome, Error> {
        if let Some(reason) = self.refused_by_pre_promote().await {
            return Ok(failed(JobFailure::PrePromote, reason));
        }
        let report = self.report();
        let job = pgha_postgres::Job {
            cancel: &self.cancel,
            report: &report,
        };
        Ok(match self.instance().promote(self.promote_limit, &job).await? {
            PromoteOutcome::Promoted => JobOutcome::Done,
            PromoteOutcome::NotYet => failed(JobFailure::TimedOut, "PostgreSQL has not left recovery in time"),
            PromoteOutcome::ServerGone => failed(JobFailure::Exited, "PostgreSQL exited during the promotion"),
        })
    }

    async fn refused_by_pre_promote(&self) -> Option<String> {
        let text = self.local.effective.pre_promote.as_deref()?;
        let outcome = match HookCommand::parse("postgresql.pre_promote", text) {
            Ok(command) => hook::run(&command, HOOK_LIMIT).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(HookOutcome::Succeeded) => None,
            Ok(HookOutcome::Failed(status)) => Some(format!("the pre-promote script ended with {status}")),
            Ok(HookOutcome::TimedOut) => Some("the pre-promote script took too long".to_owned()),
            Err(error) => Some(format!("the pre-promote script failed: {error}")),
        }
    }

    async fn run_before_stop(&self) {
        let Some(text) = self.local.effective.before_stop.as_deref() else {
            return;
        };
        let outcome = match HookCommand::parse("postgresql.before_stop", text) {
            Ok(command) => hook::run(&command, HOOK_LIMIT).await.map(|o| format!("{o:?}")),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(how) => tracing::info!(how, "before_stop script"),
            Err(error) => tracing::warn!(%error, "before_stop script"),
        }
    }
}

/// The local server as a source for replication commands.
pub fn local_address(spec: &InstanceSpec) -> ConnInfo {
    ConnInfo::new()
        .with("host", &spec.local.host())
        .with("port", &spec.local.port().to_string())
}

fn post_bootstrap(text: Option<&str>) -> Result<PostBootstrap, String> {
    let Some(text) = text else {
        return Ok(PostBootstrap::default());
    };
    let words = shlex::split(text).ok_or("quotes are not balanced")?;
    let (program, args) = words.split_first().ok_or("it is empty")?;
    Ok(PostBootstrap {
        script: Some((program.into(), args.to_vec())),
    })
}
