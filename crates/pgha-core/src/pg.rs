//! What was observed of the local PostgreSQL instance.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::units::{Lsn, Mono, SystemId, Timeline};

/// One observation. Each part says for itself what is not known.
#[derive(Clone, PartialEq, Debug)]
pub struct PgView {
    /// When the observation began.
    pub observed_at: Mono,
    /// The data directory on disk.
    pub data_dir: DataDir,
    /// The postmaster process.
    pub postmaster: Postmaster,
    /// The answer of the monitoring query.
    pub sql: SqlView,
}

/// State of the data directory.
#[derive(Clone, PartialEq, Debug)]
pub enum DataDir {
    /// Nothing was looked at yet.
    NotObserved,
    /// It does not exist (its parent does) or holds nothing but `lost+found` and dot files: free to be filled.
    Empty,
    /// It cannot be read or its mount is missing: nothing may be concluded and nothing created.
    Inaccessible {
        /// Operating system's reason, or which mount is missing.
        reason: String,
    },
    /// Files but no valid cluster: something foreign, never touched.
    Foreign {
        /// What was found.
        reason: String,
    },
    /// A bootstrap, clone or rewind began here and did not end; it must never be started.
    Unfinished {
        /// Which of them.
        what: UnfinishedWork,
    },
    /// A cluster, with what `global/pg_control` says.
    Present(ControlData),
}

/// Work that leaves the data directory unusable until it has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnfinishedWork {
    /// initdb, or what follows it up to the first leader key.
    Bootstrap,
    /// pg_basebackup or another replica method.
    Clone,
    /// pg_rewind.
    Rewind,
}

/// The parts of `pg_control` that decisions use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlData {
    /// System identifier.
    pub system_id: SystemId,
    /// Cluster state.
    pub state: ControlState,
    /// Timeline of the latest checkpoint.
    pub checkpoint_timeline: Timeline,
    /// Location of the latest checkpoint record.
    pub checkpoint: Lsn,
    /// Redo location of the latest checkpoint.
    pub redo: Lsn,
    /// Minimum recovery ending location (zero when none).
    pub min_recovery: Lsn,
    /// Timeline of `min_recovery`; `None` when zero.
    pub min_recovery_timeline: Option<Timeline>,
    /// Data checksums are on.
    pub data_checksums: bool,
    /// `wal_log_hints` at the last start.
    pub wal_log_hints: bool,
    /// `standby.signal`, `recovery.signal` or `recovery.conf` is there.
    pub recovery_signal: bool,
    /// Major version from `PG_VERSION`, e.g. 15.
    pub major_version: u32,
}

/// `pg_control`'s cluster state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControlState {
    /// `starting up`
    StartingUp,
    /// `shut down`
    ShutDown,
    /// `shut down in recovery`
    ShutDownInRecovery,
    /// `shutting down`
    ShuttingDown,
    /// `in crash recovery`
    InCrashRecovery,
    /// `in archive recovery`
    InArchiveRecovery,
    /// `in production`
    InProduction,
}

/// The postmaster process, as the operating system shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Postmaster {
    /// Nothing was looked at yet.
    NotObserved,
    /// No process.
    NotRunning,
    /// There is one.
    Running {
        /// Process id.
        pid: i32,
        /// Start time in clock ticks after boot (`/proc/PID/stat` field 22), against reuse of the pid.
        start_ticks: u64,
        /// Does it accept connections? From postmaster.pid's status line, or pg_isready's meaning.
        phase: PostmasterPhase,
    },
}

/// How far a running postmaster is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PostmasterPhase {
    /// Starting or recovering without hot standby yet.
    Starting,
    /// Accepts connections.
    Ready,
    /// Shutting down.
    Stopping,
    /// Cannot be told.
    Unknown,
}

/// The answer of PostgreSQL to the monitoring query.
#[derive(Clone, PartialEq, Debug)]
pub enum SqlView {
    /// Not asked: no postmaster, or not ready.
    NotAsked,
    /// No answer. Says nothing about PostgreSQL's role.
    Unanswered {
        /// Why: timed out, connection refused, an error text.
        reason: String,
        /// PostgreSQL said `the database system is starting up` or `... shutting down` (SQLSTATE 57P03).
        cannot_connect_now: bool,
    },
    /// An answer.
    Answered(SqlFacts),
}

/// What the monitoring query returns.
#[derive(Clone, PartialEq, Debug)]
pub struct SqlFacts {
    /// Round trip of `SELECT 1` on the same connection.
    pub response_time: Duration,
    /// `server_version_num`.
    pub server_version: u32,
    /// `pg_postmaster_start_time()` as PostgreSQL's text in UTC: `YYYY-MM-DD HH:MM:SS.ffffff+00:00`.
    pub postmaster_start_time: String,
    /// Role.
    pub role: SqlRole,
    /// Rows of pg_stat_replication.
    pub wal_senders: Vec<WalSender>,
    /// Physical and logical slots by name.
    pub slots: BTreeMap<String, Slot>,
    /// Current `synchronous_standby_names`.
    pub synchronous_standby_names: String,
    /// Current `synchronous_commit`.
    pub synchronous_commit: String,
    /// Names of parameters whose change waits for a restart: name, running value, new value.
    pub pending_restart: Vec<PendingRestart>,
}

/// A parameter that waits for a restart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingRestart {
    /// Parameter.
    pub name: String,
    /// Value in force.
    pub old_value: String,
    /// Value after the restart.
    pub new_value: String,
}

/// Role as PostgreSQL itself says.
#[derive(Clone, PartialEq, Debug)]
pub enum SqlRole {
    /// `pg_is_in_recovery()` = false.
    Primary {
        /// Current timeline.
        timeline: Timeline,
        /// `pg_current_wal_flush_lsn()`.
        flush: Lsn,
        /// `pg_current_wal_lsn()` (write).
        write: Lsn,
    },
    /// In recovery.
    Standby(StandbyFacts),
}

/// Facts of a server in recovery.
#[derive(Clone, PartialEq, Debug)]
pub struct StandbyFacts {
    /// Timeline: the wal receiver's if there is one, else that of pg_control's checkpoint.
    pub timeline: Option<Timeline>,
    /// Last received (flushed) position; `None` before anything was received since start.
    pub received: Option<Lsn>,
    /// Last replayed position.
    pub replayed: Option<Lsn>,
    /// `pg_last_xact_replay_timestamp()` as text.
    pub replayed_timestamp: Option<String>,
    /// Replay is paused.
    pub replay_paused: bool,
    /// `pg_stat_wal_receiver.status`; `None` when there is no wal receiver.
    pub wal_receiver: Option<WalReceiver>,
    /// Current `primary_conninfo` (password never included).
    pub primary_conninfo: String,
    /// Current `primary_slot_name`.
    pub primary_slot_name: String,
    /// `restore_command` is set.
    pub has_restore_command: bool,
}

/// pg_stat_wal_receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalReceiver {
    /// Status text, `streaming` when all is well.
    pub status: String,
    /// `sender_host` or the host of its conninfo.
    pub sender_host: Option<String>,
    /// `sender_port`.
    pub sender_port: Option<u16>,
    /// `latest_end_lsn`: the sender's position as last reported.
    pub latest_end: Option<Lsn>,
}

/// One row of pg_stat_replication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalSender {
    /// Pid of the wal sender.
    pub pid: i32,
    /// User.
    pub usename: String,
    /// Member name of the standby.
    pub application_name: String,
    /// Client address, empty over the Unix socket.
    pub client_addr: Option<String>,
    /// `streaming`, `catchup`, `backup`, ...
    pub state: String,
    /// `async`, `potential`, `sync`, `quorum`.
    pub sync_state: String,
    /// Priority.
    pub sync_priority: i32,
    /// Positions; `None` for base backups.
    pub write: Option<Lsn>,
    /// Flushed on the standby.
    pub flush: Option<Lsn>,
    /// Replayed on the standby.
    pub replay: Option<Lsn>,
}

/// One row of pg_replication_slots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// `physical` or `logical`.
    pub logical: bool,
    /// In use right now.
    pub active: bool,
    /// `restart_lsn`.
    pub restart: Option<Lsn>,
    /// `confirmed_flush_lsn` of logical slots.
    pub confirmed_flush: Option<Lsn>,
    /// Holds back vacuum.
    pub has_xmin: bool,
    /// `wal_status = 'lost'`.
    pub lost: bool,
    /// Temporary slots are nobody's business.
    pub temporary: bool,
    /// 17+: a failover slot.
    pub failover: bool,
    /// Database of logical slots.
    pub database: Option<String>,
    /// Plugin of logical slots.
    pub plugin: Option<String>,
}

impl PgView {
    /// Before the first observation.
    pub fn not_observed() -> PgView {
        PgView {
            observed_at: Mono(0),
            data_dir: DataDir::NotObserved,
            postmaster: Postmaster::NotObserved,
            sql: SqlView::NotAsked,
        }
    }
    /// The answer of the monitoring query, if there was one.
    pub fn facts(&self) -> Option<&SqlFacts> {
        match &self.sql {
            SqlView::Answered(f) => Some(f),
            SqlView::NotAsked | SqlView::Unanswered { .. } => None,
        }
    }
    /// pg_control, if there is a cluster on disk.
    pub fn control(&self) -> Option<&ControlData> {
        match &self.data_dir {
            DataDir::Present(c) => Some(c),
            DataDir::NotObserved
            | DataDir::Empty
            | DataDir::Inaccessible { .. }
            | DataDir::Foreign { .. }
            | DataDir::Unfinished { .. } => None,
        }
    }
    /// Is there a postmaster process?
    pub fn is_running(&self) -> bool {
        matches!(self.postmaster, Postmaster::Running { .. })
    }
    /// Did PostgreSQL say that it is a primary?
    pub fn says_primary(&self) -> bool {
        matches!(
            self.facts(),
            Some(SqlFacts {
                role: SqlRole::Primary { .. },
                ..
            })
        )
    }
    /// Did PostgreSQL say that it is in recovery?
    pub fn says_standby(&self) -> bool {
        matches!(
            self.facts(),
            Some(SqlFacts {
                role: SqlRole::Standby(_),
                ..
            })
        )
    }
}

impl StandbyFacts {
    /// Does a wal receiver stream?
    pub fn is_streaming(&self) -> bool {
        self.wal_receiver.as_ref().is_some_and(|r| r.status == "streaming")
    }
}

impl SqlFacts {
    /// Position for elections: flush on a primary; the larger of received and replayed on a standby.
    pub fn lsn(&self) -> Option<Lsn> {
        match &self.role {
            SqlRole::Primary { flush, .. } => Some(*flush),
            SqlRole::Standby(s) => s.received.max(s.replayed),
        }
    }
    /// Timeline, if known.
    pub fn timeline(&self) -> Option<Timeline> {
        match &self.role {
            SqlRole::Primary { timeline, .. } => Some(*timeline),
            SqlRole::Standby(s) => s.timeline,
        }
    }
}
