//! PostgreSQL as the models see it: running or not, writable or not, a timeline and an end of WAL.

use std::time::Duration;

use pgha_core::cluster::{MemberRole, MemberState};
use pgha_core::job::{DivergenceFacts, NextWal, Upstream};
use pgha_core::peer::PeerStatus;
use pgha_core::pg::{
    ControlData, ControlState, DataDir, PgView, Postmaster, PostmasterPhase, SqlFacts, SqlRole, SqlView, StandbyFacts,
    WalReceiver,
};
use pgha_core::tags::Tags;
use pgha_core::units::{Lsn, MemberName, Mono, Timeline};
use pgha_core::view::TimelineEnd;

use super::support::world::SYSTEM_ID;

/// Bytes of one record of WAL.
pub const RECORD: u64 = 0x10;

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// There is a postmaster.
    pub running: bool,
    /// The data directory was last run as a primary; a running one accepts writes.
    pub primary: bool,
    /// It was shut down cleanly, or runs.
    pub clean: bool,
    /// Timeline.
    pub timeline: Timeline,
    /// End of WAL.
    pub end: Lsn,
    /// Where the shutdown checkpoint record begins, if it is the last record.
    pub checkpoint: Option<Lsn>,
    /// The ends of earlier timelines.
    pub history: Vec<(Timeline, Lsn)>,
    /// Whom it streams from.
    pub upstream: Option<Upstream>,
    /// Counts starts, as `pg_postmaster_start_time` would.
    pub starts: u32,
}

impl Postgres {
    /// A running standby of nobody.
    pub fn standby() -> Postgres {
        Postgres {
            running: true,
            primary: false,
            clean: true,
            timeline: Timeline(1),
            end: Lsn(0x500),
            checkpoint: None,
            history: Vec::new(),
            upstream: None,
            starts: 0,
        }
    }

    /// Does it accept writes?
    pub fn is_writable(&self) -> bool {
        self.running && self.primary
    }

    /// SIGKILL, or an immediate shutdown.
    pub fn kill(&mut self) {
        if self.running {
            self.running = false;
            self.clean = false;
        }
    }

    /// A fast shutdown; a primary writes its last record.
    pub fn shut_down(&mut self) {
        if self.running {
            self.running = false;
            self.clean = true;
            if self.primary {
                self.checkpoint = Some(self.end);
                self.end = Lsn(self.end.0 + RECORD);
            }
        }
    }

    /// Starts it in this role.
    pub fn start(&mut self, primary: bool, upstream: Option<Upstream>) {
        self.running = true;
        self.primary = primary;
        self.clean = true;
        self.upstream = upstream;
        self.starts += 1;
        if primary {
            self.checkpoint = None;
        }
    }

    /// Leaves recovery: a new timeline begins.
    pub fn promote(&mut self) {
        self.history.push((self.timeline, self.end));
        self.timeline = Timeline(self.timeline.0 + 1);
        self.end = Lsn(self.end.0 + RECORD);
        self.primary = true;
        self.upstream = None;
    }

    /// Receives all WAL of `from`. `false` when its own WAL left that history.
    pub fn receive(&mut self, from: &Postgres) -> bool {
        let fork = match from.history.iter().find(|(t, _)| *t == self.timeline) {
            Some((_, switchpoint)) => *switchpoint,
            None if from.timeline == self.timeline => from.end,
            None => return false,
        };
        if self.end > fork {
            return false;
        }
        self.timeline = from.timeline;
        self.end = from.end;
        self.checkpoint = None;
        self.history.clone_from(&from.history);
        true
    }

    /// What an observation finds. `streams`: its upstream sends WAL.
    pub fn view(&self, now: Mono, name: &MemberName, streams: bool) -> PgView {
        let state = match (self.running, self.primary, self.clean) {
            (true, true, _) | (false, true, false) => ControlState::InProduction,
            (false, true, true) => ControlState::ShutDown,
            (true, false, _) | (false, false, false) => ControlState::InArchiveRecovery,
            (false, false, true) => ControlState::ShutDownInRecovery,
        };
        let control = ControlData {
            system_id: SYSTEM_ID,
            state,
            checkpoint_timeline: self.timeline,
            checkpoint: self.checkpoint.unwrap_or(self.end),
            redo: self.end,
            min_recovery: Lsn(0),
            min_recovery_timeline: None,
            data_checksums: true,
            wal_log_hints: false,
            recovery_signal: !self.primary,
            major_version: 15,
        };
        let (postmaster, sql) = if self.running {
            let postmaster = Postmaster::Running {
                pid: 1,
                start_ticks: u64::from(self.starts),
                phase: PostmasterPhase::Ready,
            };
            (postmaster, SqlView::Answered(self.facts(name, streams)))
        } else {
            (Postmaster::NotRunning, SqlView::NotAsked)
        };
        PgView {
            observed_at: now,
            data_dir: DataDir::Present(control),
            postmaster,
            sql,
        }
    }

    fn facts(&self, name: &MemberName, streams: bool) -> SqlFacts {
        let role = if self.primary {
            SqlRole::Primary {
                timeline: self.timeline,
                flush: self.end,
                write: self.end,
            }
        } else {
            let host = self.upstream.as_ref().map(|u| u.name.to_string());
            SqlRole::Standby(StandbyFacts {
                timeline: Some(self.timeline),
                received: Some(self.end),
                replayed: Some(self.end),
                replayed_timestamp: None,
                replay_paused: false,
                wal_receiver: streams.then(|| WalReceiver {
                    status: "streaming".into(),
                    sender_host: host.clone(),
                    sender_port: Some(5432),
                    latest_end: None,
                }),
                primary_conninfo: host
                    .map(|h| format!("host={h} port=5432 application_name={name}"))
                    .unwrap_or_default(),
                primary_slot_name: self.upstream.as_ref().and_then(|u| u.slot.clone()).unwrap_or_default(),
                has_restore_command: false,
            })
        };
        SqlFacts {
            response_time: Duration::ZERO,
            server_version: 150_014,
            postmaster_start_time: self.starts.to_string(),
            role,
            wal_senders: Vec::new(),
            slots: Default::default(),
            synchronous_standby_names: String::new(),
            synchronous_commit: "on".into(),
            pending_restart: Vec::new(),
        }
    }

    /// The history file of a running primary.
    pub fn timeline_history(&self) -> Vec<TimelineEnd> {
        let end = |(timeline, switchpoint): &(Timeline, Lsn)| TimelineEnd {
            timeline: *timeline,
            switchpoint: *switchpoint,
            reason: "no recovery target specified".into(),
        };
        let ends = self.history.iter().map(end);
        if self.is_writable() { ends.collect() } else { Vec::new() }
    }

    /// What the node answers to its peers about it.
    pub fn peer_status(&self, name: &MemberName, may_write: bool) -> PeerStatus {
        PeerStatus {
            name: Some(name.clone()),
            scope: Some("demo".into()),
            system_id: Some(SYSTEM_ID),
            state: if self.running {
                MemberState::Running
            } else {
                MemberState::Stopped
            },
            role: if self.primary {
                MemberRole::Primary
            } else {
                MemberRole::Replica
            },
            timeline: self.running.then_some(self.timeline),
            in_recovery: self.running.then_some(!self.primary),
            lsn: self.running.then_some(self.end),
            may_write,
            failsafe_leader: None,
            watchdog_failed: false,
            tags: Tags::default(),
        }
    }

    /// What `CheckDivergence` measures against `leader`.
    pub fn divergence(&self, leader: &Postgres) -> DivergenceFacts {
        DivergenceFacts {
            local_timeline: self.timeline,
            local_lsn: self.checkpoint.unwrap_or(self.end),
            was_primary: self.primary,
            shutdown_checkpoint_end: self.checkpoint.map(|_| self.end),
            leader_timeline: leader.timeline,
            leader_in_recovery: !leader.is_writable(),
            local_history: self.history.clone(),
            leader_history: leader.history.clone(),
            same_promotion: None,
            next_wal: NextWal::NotKnown,
        }
    }
}
