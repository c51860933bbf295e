//! Simulated PostgreSQL: what data safety depends on, and nothing else.
//!
//! | file | job |
//! |---|---|
//! | `history.rs` | WAL history with branches |
//! | `data.rs` | the data directory: positions, pg_control, slots, WAL that is kept |
//! | `server.rs` | the processes |
//! | `sync.rs` | synchronous_standby_names, process by process |
//! | `observe.rs` | what the agent sees of all this |
//! | `life.rs` | start, crash, shutdown, promotion |
//! | `wal.rs` | writing, flushing, checkpoints, acknowledgement |
//! | `reload.rs` | the files of the configuration, and when each process reads them |
//! | `stream.rs` | streaming replication over the links of the network |
//! | `archive.rs` | the WAL archive: archive_command and restore_command |
//!
//! What a server does by itself is an event of its own life: it goes on without its agent, stands still while its machine
//! is frozen, and never happens once the server has ended. *Absent on purpose:* logical slots, prepared transactions.

mod archive;
mod data;
mod history;
mod life;
mod observe;
mod reload;
mod server;
mod stream;
mod sync;
mod wal;

use pgha_core::job::StartRole;
use pgha_core::pg::ControlState;

pub use archive::{Archive, SEGMENT};
pub use data::{Data, Dir, MAX_SLOT_KEEP, RECORD, Slot, WAL_KEEP};
pub use history::{Branch, History, Point};
pub use server::{Connection, Receiver, Sender, Server, Sessions, Stopping, Trouble};
pub use sync::{SyncConfig, SyncRules};

use crate::etcd::Time;

/// One instance.
#[derive(Clone, Debug)]
pub struct SimPostgres {
    /// Data directory.
    pub dir: Dir,
    /// Server.
    pub server: Server,
    /// Does not answer SQL (frozen, overloaded).
    pub mute: bool,
    /// Number of the postmaster, for its identity.
    pub incarnation: u64,
    /// Grows with each start and each end of the server: events of an earlier life are void.
    pub life: u64,
    /// The role that the files had at the last start.
    pub role: StartRole,
    /// Its wal senders.
    pub senders: Vec<Sender>,
    /// Synchronous replication.
    pub sync: SyncConfig,
    /// Sessions in the middle of their commit.
    pub sessions: Sessions,
    /// A flush of WAL is under way.
    pub flushing: bool,
    /// A checkpoint runs; a reload reaches the checkpointer when it has ended.
    pub checkpoint: Option<RunningCheckpoint>,
    /// It was told to leave recovery.
    pub promoting: bool,
    /// archive_mode is on, archive_command and restore_command are set.
    pub archives: bool,
    /// An archive_command runs, or a failed one is waited with.
    pub archiver_at_work: bool,
    /// A restore_command runs.
    pub restoring: bool,
    /// What faults do to it.
    pub trouble: Trouble,
}

/// A checkpoint under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunningCheckpoint {
    /// Its record will stand behind this position.
    pub redo: u64,
    /// Somebody waits for it: the checkpointer does nothing else meanwhile.
    pub immediate: bool,
    /// It ends then.
    pub ends: Time,
    /// The configuration was reloaded meanwhile.
    pub reload_missed: bool,
}

/// Something a server does by itself.
#[derive(Clone, Debug)]
pub enum PgEvent {
    /// A primary's WAL reaches the disk.
    Flush,
    /// WAL up to here arrives at a standby.
    WalArrives {
        /// Over this connection.
        connection: u64,
        /// The end.
        upto: u64,
    },
    /// A standby has flushed up to here.
    Received(u64),
    /// A standby's positions arrive at its upstream.
    Feedback {
        /// Over this connection.
        connection: u64,
        /// Written.
        write: u64,
        /// Flushed.
        flush: u64,
        /// Replayed.
        replay: u64,
    },
    /// A process reads the configuration again.
    Reload(Process),
    /// The time for a checkpoint has come.
    CheckpointDue,
    /// A checkpoint ends.
    CheckpointEnds,
    /// Recovery at the start ends.
    RecoveryEnds,
    /// A shutdown goes on, if it can.
    ShutdownGoesOn,
    /// An archive_command ends, or is to be tried again.
    ArchiveCommandEnds,
    /// A restore_command ends.
    RestoreCommandEnds,
    /// Recovery ends because of a promotion.
    PromotionEnds,
    /// The server dies in the middle of its promotion; true: after the new timeline began.
    PromotionBreaks(bool),
}

/// A process that loads the configuration for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Process {
    /// The checkpointer.
    Checkpointer,
    /// The wal sender of this connection.
    WalSender(u64),
}

impl SimPostgres {
    /// An empty data directory and no server.
    pub fn new() -> SimPostgres {
        SimPostgres {
            dir: Dir::Empty,
            server: Server::Down,
            mute: false,
            incarnation: 0,
            life: 0,
            role: StartRole::Standby { upstream: None },
            senders: Vec::new(),
            sync: SyncConfig::off(),
            sessions: Sessions::default(),
            flushing: false,
            checkpoint: None,
            promoting: false,
            archives: false,
            archiver_at_work: false,
            restoring: false,
            trouble: Trouble::default(),
        }
    }

    /// Would it accept a commit? A session that did not listen to a shutdown still may.
    pub fn is_writable(&self) -> bool {
        match self.server {
            Server::Primary => true,
            Server::Stopping { primary, phase } => primary && phase == Stopping::Backends,
            Server::Down | Server::Starting | Server::Standby(_) => false,
        }
    }

    /// The cluster on disk.
    pub fn data(&self) -> Option<&Data> {
        match &self.dir {
            Dir::Data(d) => Some(d),
            Dir::Empty | Dir::Unfinished(_) => None,
        }
    }
    /// The cluster on disk, to change it.
    pub fn data_mut(&mut self) -> Option<&mut Data> {
        match &mut self.dir {
            Dir::Data(d) => Some(d),
            Dir::Empty | Dir::Unfinished(_) => None,
        }
    }
    /// The wal receiver of a standby.
    pub fn receiver(&self) -> Option<&Receiver> {
        match &self.server {
            Server::Standby(receiver) => Some(receiver),
            Server::Down | Server::Starting | Server::Primary | Server::Stopping { .. } => None,
        }
    }
    /// The wal receiver of a standby, to change it.
    pub fn receiver_mut(&mut self) -> Option<&mut Receiver> {
        match &mut self.server {
            Server::Standby(receiver) => Some(receiver),
            Server::Down | Server::Starting | Server::Primary | Server::Stopping { .. } => None,
        }
    }
    /// Is a wal receiver connected?
    pub fn is_streaming(&self) -> bool {
        self.receiver().is_some_and(|r| r.connection.is_some())
    }

    /// kill -9 of everything. What the operating system has is not lost: only WAL that never left the server's memory.
    pub fn crash(&mut self) {
        let was_primary = self.is_writable();
        self.end();
        if was_primary && let Some(d) = self.data_mut() {
            d.lose_unflushed();
        }
    }

    /// The power goes off: what was not flushed is gone, whoever wrote it.
    pub fn lose_power(&mut self) {
        self.end();
        if let Some(d) = self.data_mut() {
            d.lose_unflushed();
        }
    }

    /// All processes are gone.
    fn end(&mut self) {
        let sync = self.sync.files_only();
        *self = SimPostgres {
            dir: std::mem::replace(&mut self.dir, Dir::Empty),
            incarnation: self.incarnation,
            life: self.life + 1,
            role: self.role.clone(),
            sync,
            trouble: self.trouble,
            archives: self.archives,
            ..SimPostgres::new()
        };
    }

    /// A standby takes in WAL up to `upto`; `history` when that is on another branch than what it has.
    fn take_in(&mut self, history: Option<History>, upto: u64) {
        if let Some(mine) = self.data_mut() {
            mine.written = upto;
            if let Some(history) = history {
                mine.history = history;
            }
        }
    }

    /// Has every process read the configuration that is in force?
    pub fn has_reloaded(&self) -> bool {
        let loaded = &self.sync.loaded;
        let senders = self.senders.iter().all(|s| s.rules == *loaded);
        senders && self.sync.defined == loaded.is_defined()
    }

    /// pg_control while it runs in this role.
    fn enter(&mut self, state: ControlState) {
        if let Some(d) = self.data_mut() {
            d.state = state;
        }
    }
}

impl Default for SimPostgres {
    fn default() -> SimPostgres {
        SimPostgres::new()
    }
}
