//! The processes of one server: postmaster, wal receiver, wal senders, and the sessions that wait for their commit.

use std::collections::VecDeque;
use std::sync::Arc;

use pgha_core::job::Upstream;

use super::sync::SyncRules;
use crate::etcd::Time;

/// The server as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Server {
    /// No process.
    Down,
    /// Recovering; not answering yet.
    Starting,
    /// Accepts writes.
    Primary,
    /// In recovery.
    Standby(Receiver),
    /// On its way down.
    Stopping {
        /// It was a primary.
        primary: bool,
        /// How far it is.
        phase: Stopping,
    },
}

/// How far a shutdown is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopping {
    /// Sessions are told to end; one that does not listen may still commit.
    Backends,
    /// The shutdown checkpoint is written; connected standbys receive it.
    WalSenders,
    /// The rest of WAL goes to the archive.
    Archiver,
}

/// The wal receiver of a standby, connected or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receiver {
    /// Whom primary_conninfo names.
    pub upstream: Option<Upstream>,
    /// The connection, when there is one.
    pub connection: Option<Connection>,
    /// There was one since the server started: the position received is known.
    pub has_received: bool,
}

impl Receiver {
    /// Not connected yet.
    pub fn new(upstream: Option<Upstream>) -> Receiver {
        Receiver {
            upstream,
            connection: None,
            has_received: false,
        }
    }
}

/// The standby's end of a streaming connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Its number; the upstream's end has the same.
    pub id: u64,
    /// The node at the other end.
    pub source: usize,
    /// When something was heard from it last.
    pub heard: Time,
}

/// A wal sender: the upstream's end.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Number of the connection.
    pub connection: u64,
    /// The node at the other end.
    pub standby: usize,
    /// Its application_name.
    pub name: String,
    /// The slot it uses.
    pub slot: Option<String>,
    /// Sent up to here.
    pub sent: u64,
    /// A message is on its way.
    pub in_flight: bool,
    /// It has caught up once: from then on its state is `streaming`.
    pub streaming: bool,
    /// The standby says: written.
    pub write: u64,
    /// The standby says: flushed.
    pub flush: u64,
    /// The standby says: replayed.
    pub replay: u64,
    /// When something was heard from it last.
    pub heard: Time,
    /// The names it has loaded.
    pub rules: Arc<SyncRules>,
    /// Its priority by those names.
    pub priority: u32,
}

impl Sender {
    /// A new connection that begins at `from`. A new process has the postmaster's configuration.
    pub fn new(
        connection: u64,
        standby: usize,
        name: String,
        slot: Option<String>,
        rules: Arc<SyncRules>,
        from: u64,
        now: Time,
    ) -> Sender {
        Sender {
            connection,
            standby,
            priority: rules.priority(&name),
            name,
            slot,
            sent: from,
            in_flight: false,
            streaming: false,
            write: 0,
            flush: 0,
            replay: 0,
            heard: now,
            rules,
        }
    }
}

/// Sessions in the middle of their commit, in the order of their records.
#[derive(Clone, Default, Debug)]
pub struct Sessions {
    /// Their record is not flushed yet.
    pub flushing: VecDeque<u64>,
    /// They wait for a synchronous standby: position, and since when.
    pub waiting: VecDeque<(u64, Time)>,
}

/// What faults do to one server.
#[derive(Clone, Copy, Default, Debug)]
pub struct Trouble {
    /// No space is left.
    pub disk_full: u32,
    /// Sessions that do not listen to SIGTERM.
    pub deaf_backends: u32,
    /// Wal senders do nothing.
    pub frozen_senders: u32,
    /// Replay stands still.
    pub replay_paused: u32,
    /// Recovery takes so many times longer.
    pub recovery_factor: Option<u64>,
    /// The next promotion breaks off; true: after the new timeline began.
    pub promote_breaks: Option<bool>,
    /// The next rewind breaks off after it has begun to write.
    pub rewind_breaks: bool,
    /// Checkpoints that somebody asked for take so long.
    pub checkpoint_takes: Option<Time>,
}
