//! Long work on PostgreSQL. At most one job runs at a time; while it runs only hold, cancel or fence can be decided.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::rewind::DivergedWal;
use crate::units::{Lsn, MemberName, Timeline};

/// One job. What it shall do is decided; how it is done is pgha-postgres' business.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Job {
    /// initdb, users and post_bootstrap on a private socket, then a clean stop. Clients never see this server.
    Bootstrap,
    /// Fill an empty data directory from another member.
    Clone {
        /// From whom.
        source: Upstream,
    },
    /// Start PostgreSQL.
    Start {
        /// As what.
        role: StartRole,
        /// Give up waiting after this.
        timeout: Duration,
    },
    /// Stop PostgreSQL.
    Stop {
        /// How.
        mode: StopMode,
        /// Checkpoint first, so that the shutdown checkpoint is short.
        checkpoint_first: bool,
    },
    /// Stop (fast) and start again in the same role.
    Restart {
        /// As what.
        role: StartRole,
        /// Give up waiting after this.
        timeout: Duration,
    },
    /// Leave recovery. Runs `pre_promote` first.
    Promote,
    /// Write the recovery configuration and reload, or restart where that is needed.
    Follow {
        /// Whom; `None` streams from nobody.
        upstream: Option<Upstream>,
    },
    /// Find out whether local WAL left the leader's history. Changes nothing.
    CheckDivergence {
        /// The leader.
        source: Upstream,
    },
    /// Bring a crashed primary's data directory to a clean end (single-user mode) so that it can be rewound.
    CrashRecovery,
    /// pg_rewind.
    Rewind {
        /// The leader.
        source: Upstream,
        /// What it discards, where that was measured.
        discards: Option<DivergedWal>,
        /// The WAL that holds it is copied aside first.
        keep_aside: bool,
    },
    /// Remove the data directory, or put it aside, before a new clone.
    DiscardDataDir {
        /// Keep it under another name.
        keep_aside: bool,
        /// For the log and for `/history`.
        reason: String,
    },
}

/// Another server to stream or copy from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upstream {
    /// Member name.
    pub name: MemberName,
    /// Its `conn_url`.
    pub conn_url: String,
    /// Slot to use there.
    pub slot: Option<String>,
}

/// Role in which PostgreSQL is started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartRole {
    /// Without standby.signal: accepts writes after crash recovery.
    Primary,
    /// With standby.signal.
    Standby {
        /// Whom it streams from; `None` = nobody yet.
        upstream: Option<Upstream>,
    },
}

/// How PostgreSQL is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopMode {
    /// Disconnect clients, checkpoint.
    Fast,
    /// No checkpoint; recovery at the next start.
    Immediate,
}

/// Something a running job reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobProgress {
    /// Bytes copied so far of how many (total 0 = not known).
    Copied {
        /// Bytes.
        done: u64,
        /// Bytes.
        total: u64,
    },
    /// pg_control says `shut down`: this is the position of the shutdown checkpoint. The postmaster may still archive.
    ShutDown {
        /// Position.
        checkpoint: Lsn,
    },
    /// A step of the flow, for people.
    Step(String),
}

/// How a job ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobOutcome {
    /// It did what it was for.
    Done,
    /// `CheckDivergence` found this out.
    Divergence(DivergenceFacts),
    /// It failed.
    Failed {
        /// Kind.
        failure: JobFailure,
        /// For the log and the status; never contains secrets.
        reason: String,
    },
    /// It was cancelled before its point of no return.
    Cancelled,
}

/// Kinds of failure that decisions distinguish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobFailure {
    /// Nothing was changed; trying again may help.
    Nothing,
    /// The source is not ready or not reachable; nothing was changed.
    SourceNotReady,
    /// It took longer than allowed and still goes on (start) or was killed.
    TimedOut,
    /// `pre_promote` ended non-zero.
    PrePromote,
    /// The data directory is unusable now.
    Damaged,
    /// PostgreSQL exited during the job.
    Exited,
    /// The fence refused: its deadline had passed.
    Fenced,
}

/// What `CheckDivergence` measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DivergenceFacts {
    /// Local timeline.
    pub local_timeline: Timeline,
    /// Local end of WAL as far as known: replay position when running, minimum recovery point or checkpoint otherwise.
    pub local_lsn: Lsn,
    /// The data directory was last a primary (so even WAL up to the switchpoint itself may be its own).
    pub was_primary: bool,
    /// End of the local shutdown checkpoint record, if that is the last record.
    pub shutdown_checkpoint_end: Option<Lsn>,
    /// The leader's timeline.
    pub leader_timeline: Timeline,
    /// The leader is itself in recovery: no verdict possible.
    pub leader_in_recovery: bool,
    /// The history of the local timeline, oldest first: (timeline, switchpoint at its end). Empty when it is not known.
    pub local_history: Vec<(Timeline, Lsn)>,
    /// The leader's timeline history, oldest first: (timeline, switchpoint at its end).
    pub leader_history: Vec<(Timeline, Lsn)>,
    /// Was the local timeline begun by the very promotion that began the leader's timeline of that number? Told by the
    /// first record of the timeline, which carries the time of the promotion. `None` when one of the two does not keep
    /// that record any more, on timeline 1, and when the leader never had a timeline of that number.
    pub same_promotion: Option<bool>,
    /// Is the WAL that this server wants next still there?
    pub next_wal: NextWal,
}

/// The WAL that a running standby wants next, as the leader keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextWal {
    /// Not asked, or no answer: the server is down, or busy with WAL that it has.
    NotKnown,
    /// The leader has it.
    Kept,
    /// The leader has removed it.
    Gone {
        /// There is a restore_command: an archive may bring it yet.
        archive: bool,
    },
}
