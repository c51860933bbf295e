//! Simulated PostgreSQL: one data directory with its WAL history, and the server on it.
//!
//! WAL is a path of branches. Every promotion makes a new branch with an identity of its own, so two nodes that create the
//! same timeline number independently are told apart, as their WAL would be.

use pgha_core::pg::{
    ControlData, ControlState, DataDir, PgView, Postmaster, PostmasterPhase, SqlFacts, SqlRole, SqlView, StandbyFacts,
    UnfinishedWork, WalReceiver,
};
use pgha_core::units::{Lsn, MemberName, Mono, SystemId, Timeline};
use std::collections::BTreeMap;
use std::time::Duration;

/// One stretch of WAL history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Branch {
    /// Unique over the whole simulation.
    pub id: u64,
    /// Timeline number.
    pub timeline: u32,
    /// Where it began.
    pub start: u64,
}

/// What is in the data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dir {
    /// Nothing.
    Empty,
    /// Work that must not be started.
    Unfinished(UnfinishedWork),
    /// A cluster.
    Data(Data),
}

/// A cluster on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Data {
    /// System identifier.
    pub system_id: u64,
    /// History, oldest first; the last one is current.
    pub branches: Vec<Branch>,
    /// End of WAL.
    pub lsn: u64,
    /// standby.signal is there.
    pub signal: bool,
    /// pg_control's state.
    pub state: ControlState,
    /// Timeline of the last checkpoint.
    pub checkpoint_timeline: u32,
}

/// The server process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Server {
    /// None.
    Down,
    /// Recovering; not answering yet.
    Starting,
    /// Accepts writes.
    Primary,
    /// In recovery, streaming from that member if it can.
    Standby {
        /// Whom primary_conninfo names.
        upstream: Option<(MemberName, String, Option<String>)>,
        /// The wal receiver is connected.
        streaming: bool,
    },
}

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
}

impl SimPostgres {
    /// An empty data directory and no server.
    pub fn new() -> SimPostgres {
        SimPostgres {
            dir: Dir::Empty,
            server: Server::Down,
            mute: false,
            incarnation: 0,
        }
    }

    /// Would it accept a commit?
    pub fn is_writable(&self) -> bool {
        self.server == Server::Primary
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

    /// kill -9 of everything.
    pub fn crash(&mut self) {
        self.server = Server::Down;
        self.mute = false;
    }

    /// A fast shutdown has ended.
    pub fn shut_down(&mut self) {
        let primary = self.is_writable();
        self.server = Server::Down;
        if let Some(d) = self.data_mut() {
            d.state = if primary {
                ControlState::ShutDown
            } else {
                ControlState::ShutDownInRecovery
            };
            if primary {
                d.lsn += 8;
                d.checkpoint_timeline = d.timeline();
            }
        }
    }

    /// What an observation sees.
    pub fn observe(&self, at: Mono) -> PgView {
        let data_dir = match &self.dir {
            Dir::Empty => DataDir::Empty,
            Dir::Unfinished(what) => DataDir::Unfinished { what: *what },
            Dir::Data(d) => DataDir::Present(d.control()),
        };
        let (phase, sql) = match (&self.server, self.data()) {
            (Server::Down, _) => {
                return PgView {
                    observed_at: at,
                    data_dir,
                    postmaster: Postmaster::NotRunning,
                    sql: SqlView::NotAsked,
                };
            }
            (Server::Starting, _) | (_, None) => (
                PostmasterPhase::Starting,
                SqlView::Unanswered {
                    reason: "starting".into(),
                    cannot_connect_now: true,
                },
            ),
            (Server::Primary | Server::Standby { .. }, Some(_)) if self.mute => (
                PostmasterPhase::Ready,
                SqlView::Unanswered {
                    reason: "timed out".into(),
                    cannot_connect_now: false,
                },
            ),
            (Server::Primary, Some(d)) => (PostmasterPhase::Ready, SqlView::Answered(d.facts(primary_role(d)))),
            (Server::Standby { upstream, streaming }, Some(d)) => (
                PostmasterPhase::Ready,
                SqlView::Answered(d.facts(standby_role(d, upstream.as_ref(), *streaming))),
            ),
        };
        let pid = i32::try_from(self.incarnation).unwrap_or(1) + 1;
        PgView {
            observed_at: at,
            data_dir,
            postmaster: Postmaster::Running {
                pid,
                start_ticks: self.incarnation,
                phase,
            },
            sql,
        }
    }
}

fn primary_role(d: &Data) -> SqlRole {
    SqlRole::Primary {
        timeline: Timeline(d.timeline()),
        flush: Lsn(d.lsn),
        write: Lsn(d.lsn),
    }
}

fn standby_role(d: &Data, upstream: Option<&(MemberName, String, Option<String>)>, streaming: bool) -> SqlRole {
    let conninfo = upstream.and_then(|(_, url, _)| pgha_core::conninfo::host_port(url));
    SqlRole::Standby(StandbyFacts {
        timeline: Some(Timeline(d.timeline())),
        received: Some(Lsn(d.lsn)),
        replayed: Some(Lsn(d.lsn)),
        replayed_timestamp: None,
        replay_paused: false,
        wal_receiver: streaming.then(|| WalReceiver {
            status: "streaming".into(),
            sender_host: None,
            sender_port: None,
            latest_end: Some(Lsn(d.lsn)),
        }),
        primary_conninfo: conninfo.map(|(h, p)| format!("host={h} port={p}")).unwrap_or_default(),
        primary_slot_name: upstream.and_then(|(_, _, slot)| slot.clone()).unwrap_or_default(),
        has_restore_command: false,
    })
}

impl Data {
    /// Current timeline number.
    pub fn timeline(&self) -> u32 {
        self.branches.last().map_or(1, |b| b.timeline)
    }

    /// Is `other`'s end of WAL a point on this history?
    pub fn contains(&self, other: &Data) -> bool {
        let Some(theirs) = other.branches.last() else {
            return false;
        };
        self.branches.iter().enumerate().any(|(i, mine)| {
            let end = self.branches.get(i + 1).map_or(self.lsn, |next| next.start);
            mine.id == theirs.id && other.lsn <= end
        })
    }

    /// The timeline history as PostgreSQL writes it: each ended timeline with its switchpoint.
    pub fn history(&self) -> Vec<(Timeline, Lsn)> {
        self.branches
            .windows(2)
            .filter_map(|w| Some((Timeline(w.first()?.timeline), Lsn(w.get(1)?.start))))
            .collect()
    }

    fn control(&self) -> ControlData {
        ControlData {
            system_id: SystemId(self.system_id),
            state: self.state,
            checkpoint_timeline: Timeline(self.checkpoint_timeline),
            checkpoint: Lsn(self.lsn),
            redo: Lsn(self.lsn),
            min_recovery: Lsn(if self.signal { self.lsn } else { 0 }),
            min_recovery_timeline: None,
            data_checksums: true,
            wal_log_hints: true,
            recovery_signal: self.signal,
            major_version: 18,
        }
    }

    fn facts(&self, role: SqlRole) -> SqlFacts {
        SqlFacts {
            response_time: Duration::from_millis(1),
            server_version: 180_000,
            postmaster_start_time: String::new(),
            role,
            wal_senders: Vec::new(),
            slots: BTreeMap::new(),
            synchronous_standby_names: String::new(),
            synchronous_commit: "on".into(),
            pending_restart: Vec::new(),
        }
    }
}

impl Default for SimPostgres {
    fn default() -> SimPostgres {
        SimPostgres::new()
    }
}
