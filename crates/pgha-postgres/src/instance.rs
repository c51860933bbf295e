//! One PostgreSQL instance: the door to everything in this crate.
//!
//! [`Instance::observe`] always answers within its budget, also when the disk hangs or the server is frozen: what was
//! not learned in time is reported as not known. Flows are methods too, in `flows/`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pgha_core::pg::{DataDir, PgView, Postmaster, PostmasterPhase, SqlView};
use pgha_core::rewind::DivergedWal;
use pgha_core::units::{Mono, Timeline};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::clock::boot_now;
use crate::config_files::{self, ConfigTexts};
use crate::control::{ControlFile, read_control};
use crate::data_dir::{classify, concern};
use crate::error::Error;
use crate::history::{HistoryFile, read_history};
use crate::kept_wal::{self, KeptWal};
use crate::pg_bin::PgBin;
use crate::postmaster::{Found, find_postmaster};
use crate::process::{ProcessId, is_alive};
use crate::removal;
use crate::spec::InstanceSpec;
use crate::sql::monitor::Monitor;
use crate::sql::{Purpose, Session};
use crate::unfinished::UnfinishedMarker;
use crate::wal::{ShutdownCheckpoint, shutdown_checkpoint};

/// Looking at the disk may take this part of an observation's budget (1/2); the rest is for SQL.
const DISK_SHARE: u32 = 2;

/// What one look at disk and `/proc` found.
type Look = (DataDir, Option<String>, Found);

/// One PostgreSQL instance.
pub struct Instance {
    spec: InstanceSpec,
    bin: PgBin,
    monitor: Mutex<Monitor>,
    disk: Mutex<Disk>,
}

/// A look at the disk that has not come back, and the last server that was seen.
#[derive(Default)]
struct Disk {
    pending: Option<JoinHandle<Look>>,
    last_server: Option<ProcessId>,
    /// What was warned of last.
    concern: Option<String>,
}

impl Instance {
    /// Takes the spec; looks at nothing yet.
    pub fn new(spec: InstanceSpec) -> Instance {
        let bin = PgBin::new(&spec);
        Instance {
            spec,
            bin,
            monitor: Mutex::default(),
            disk: Mutex::default(),
        }
    }

    /// The spec.
    pub fn spec(&self) -> &InstanceSpec {
        &self.spec
    }

    /// The programs.
    pub fn bin(&self) -> &PgBin {
        &self.bin
    }

    /// Observes the data directory, the postmaster and, if it is ready, asks the monitoring query.
    ///
    /// `now` is only noted in the answer. Answers within `budget` (plus scheduling).
    pub async fn observe(&self, now: Mono, budget: Duration) -> PgView {
        let deadline = boot_now().plus(budget);
        let (data_dir, postmaster) = self.look(budget / DISK_SHARE).await;
        let sql = match postmaster {
            Postmaster::Running {
                pid,
                start_ticks,
                phase: PostmasterPhase::Ready | PostmasterPhase::Unknown,
            } => self.ask(ProcessId { pid, start_ticks }, deadline).await,
            Postmaster::Running {
                phase: PostmasterPhase::Starting | PostmasterPhase::Stopping,
                ..
            }
            | Postmaster::NotObserved
            | Postmaster::NotRunning => SqlView::NotAsked,
        };
        PgView {
            observed_at: now,
            data_dir,
            postmaster,
            sql,
        }
    }

    async fn ask(&self, postmaster: ProcessId, deadline: Mono) -> SqlView {
        match timeout(deadline.since(boot_now()), self.monitor.lock()).await {
            Ok(mut monitor) => monitor.ask(&self.spec, postmaster, deadline).await,
            Err(_) => SqlView::Unanswered {
                reason: "an earlier observation still waits for its answer".to_string(),
                cannot_connect_now: false,
            },
        }
    }

    /// Looks at disk and processes on a blocking thread. At most one such look is under way, however long it hangs.
    async fn look(&self, limit: Duration) -> (DataDir, Postmaster) {
        let mut disk = self.disk.lock().await;
        let fresh = async {
            if let Some(late) = &mut disk.pending {
                // What comes back late tells about another time.
                drop(late.await);
            }
            let (spec, program) = (self.spec.clone(), self.server_program());
            let work = tokio::task::spawn_blocking(move || {
                let found = find_postmaster(&spec.data_dir, &program);
                let concern = found.process().and_then(|_| concern(&spec));
                (classify(&spec, found.process().is_some()), concern, found)
            });
            let looked = disk.pending.insert(work).await;
            disk.pending = None;
            looked
        };
        let reason = match timeout(limit, fresh).await {
            Ok(Ok((data_dir, concern, found))) => {
                disk.last_server = found.process();
                if concern != disk.concern {
                    if let Some(reason) = &concern {
                        tracing::warn!("PostgreSQL will not start again like this: {reason}");
                    }
                    disk.concern = concern;
                }
                return (data_dir, found.fact());
            }
            Ok(Err(e)) => format!("looking at the data directory failed: {e}"),
            Err(_) => format!("the file system of {} does not answer", self.spec.data_dir.display()),
        };
        let postmaster = match disk.last_server.filter(|p| is_alive(*p)) {
            Some(ProcessId { pid, start_ticks }) => Postmaster::Running {
                pid,
                start_ticks,
                phase: PostmasterPhase::Unknown,
            },
            None => Postmaster::NotObserved,
        };
        (DataDir::Inaccessible { reason }, postmaster)
    }

    /// The server of the data directory, now.
    pub async fn find_postmaster(&self) -> Found {
        let program = self.server_program();
        self.on_disk(move |spec| Ok(find_postmaster(&spec.data_dir, &program)))
            .await
            .unwrap_or(Found::Nothing { misleading_pid: None })
    }

    /// Reads `pg_control`, also while the data directory is marked unfinished.
    ///
    /// # Errors
    /// It is missing or cannot be believed.
    pub async fn control(&self) -> Result<ControlFile, Error> {
        self.on_disk(|spec| read_control(&spec.data_dir)).await
    }

    /// The shutdown checkpoint, if `pg_control` says `shut down`.
    ///
    /// # Errors
    /// `pg_control` or WAL cannot be read.
    pub async fn shutdown_checkpoint(&self) -> Result<Option<ShutdownCheckpoint>, Error> {
        self.on_disk(|spec| shutdown_checkpoint(&spec.data_dir, &read_control(&spec.data_dir)?))
            .await
    }

    /// The history file of a timeline in the local `pg_wal`; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read or parsed.
    pub async fn history(&self, timeline: Timeline) -> Result<Option<HistoryFile>, Error> {
        self.on_disk(move |spec| read_history(&spec.data_dir, timeline)).await
    }

    /// Writes the configuration files that differ from `texts`; returns whether any did.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn write_config(&self, texts: &ConfigTexts) -> Result<bool, Error> {
        let texts = texts.clone();
        self.on_disk(move |spec| config_files::write(spec, &texts)).await
    }

    /// Creates or removes standby.signal and takes recovery settings out of postgresql.auto.conf.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn set_standby(&self, standby: bool) -> Result<(), Error> {
        self.on_disk(move |spec| {
            config_files::clean_auto_conf(&spec.data_dir)?;
            config_files::set_standby_signal(&spec.data_dir, standby)
        })
        .await
    }

    /// Writes the dynamic configuration's cached copy into the data directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn write_dynamic_json(&self, text: &str) -> Result<(), Error> {
        let text = text.to_string();
        self.on_disk(move |spec| config_files::write_dynamic_json(&spec.data_dir, &text))
            .await
    }

    /// Reads that copy; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn read_dynamic_json(&self) -> Result<Option<String>, Error> {
        self.on_disk(|spec| config_files::read_dynamic_json(&spec.data_dir))
            .await
    }

    /// Writes into the data directory what the daemon keeps of its cluster ([`crate::KEPT_CLUSTER`]).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn write_kept_cluster(&self, text: &str) -> Result<(), Error> {
        let text = text.to_string();
        self.on_disk(move |spec| config_files::write_kept_cluster(&spec.data_dir, &text))
            .await
    }

    /// Empties the data directory, its WAL directory and its tablespaces, and removes the mark of unfinished work.
    ///
    /// # Errors
    /// [`Error::InUse`] while any server process lives, [`Error::Io`] when something cannot be removed.
    pub async fn wipe(&self) -> Result<(), Error> {
        self.unfinished().end_worker().await?;
        let program = self.server_program();
        self.on_disk(move |spec| removal::wipe(spec, &program)).await
    }

    /// Renames the data directory (and its WAL directory and tablespaces) by adding `suffix`, which begins with a dot.
    ///
    /// # Errors
    /// As [`Instance::wipe`]; [`Error::Unsuitable`] for a mount point.
    pub async fn set_aside(&self, suffix: &str) -> Result<PathBuf, Error> {
        self.unfinished().end_worker().await?;
        let (program, suffix) = (self.server_program(), suffix.to_string());
        self.on_disk(move |spec| removal::set_aside(spec, &program, &suffix))
            .await
    }

    /// Copies the WAL that a rewind would discard to a directory beside the data directory.
    ///
    /// # Errors
    /// [`Error::Io`] when something cannot be read or written there: nothing may be discarded then.
    pub async fn keep_wal(&self, wal: DivergedWal) -> Result<KeptWal, Error> {
        self.on_disk(move |spec| kept_wal::keep_wal(spec, &wal)).await
    }

    /// The mark of unfinished work. The caller removes a bootstrap's mark when the cluster is initialised.
    pub fn unfinished(&self) -> UnfinishedMarker {
        UnfinishedMarker::new(&self.spec.state_dir)
    }

    /// CHECKPOINT; returns when it is done.
    ///
    /// # Errors
    /// [`Error::TimedOut`] says nothing about whether it will still be done.
    pub async fn checkpoint(&self, limit: Duration) -> Result<(), Error> {
        let session = Session::open(&self.spec, Purpose::Action, limit).await?;
        session.rows("CHECKPOINT", "CHECKPOINT", limit).await.map(drop)
    }

    /// Closes the kept monitoring connection.
    pub(crate) async fn close_monitor(&self, limit: Duration) {
        if let Ok(mut monitor) = timeout(limit, self.monitor.lock()).await {
            monitor.close();
        }
    }

    /// File name of the server program.
    pub(crate) fn server_program(&self) -> String {
        self.bin.name("postgres").to_string()
    }

    /// Runs something that touches the disk on a blocking thread.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&InstanceSpec) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let spec = self.spec.clone();
        let dir: PathBuf = spec.data_dir.clone();
        match tokio::task::spawn_blocking(move || work(&spec)).await {
            Ok(done) => done,
            Err(e) => Err(Error::io("work on", Path::new(&dir))(std::io::Error::other(e))),
        }
    }
}
