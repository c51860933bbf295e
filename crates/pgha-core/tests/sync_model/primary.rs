//! A primary with its processes, each with the configuration that it has read, its standbys, and the agent's step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgha_core::cluster::{Member, MemberState, SyncKey};
use pgha_core::pg::{DataDir, PgView, Postmaster, SqlFacts, SqlRole, SqlView, WalSender};
use pgha_core::settings::{Settings, SynchronousMode};
use pgha_core::sync::claim::Claim;
use pgha_core::sync::heard::Heard;
use pgha_core::sync::names::{self, Method};
use pgha_core::sync::plan::{Step, next};
use pgha_core::sync::proof::Proof;
use pgha_core::sync::{Facts, SyncOutcome, SyncTask, Trust};
use pgha_core::units::{Lsn, MemberName, Mono, Revision, Timeline};

/// A defect in the world around the production code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// Commits are said to wait although nobody has looked.
    NoProbe,
    /// Each wal sender shows the priority of the new text before it has read it.
    PriorityFromFile,
    /// A standby is taken to have received everything.
    NoMark,
}

/// Limits of a search.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bounds {
    pub standbys: usize,
    /// So many of them are not there at first.
    pub absent: usize,
    pub commits: u8,
    /// Times that a standby may leave or join.
    pub moves: u8,
    /// Times that the agent may lose its memory.
    pub crashes: u8,
    /// The modes that follow one another: mode, strict, number of standbys.
    pub modes: Vec<(SynchronousMode, bool, u32)>,
    pub planted: Option<Plant>,
}

impl Bounds {
    /// The most names that `/sync` can come to.
    pub fn most(&self) -> usize {
        let of_mode = |(mode, _, count): &(SynchronousMode, bool, u32)| match mode {
            SynchronousMode::Quorum => self.standbys,
            SynchronousMode::On | SynchronousMode::Off => self.standbys.min(usize::try_from(*count).unwrap()),
        };
        self.modes.iter().map(of_mode).max().unwrap()
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Standby {
    pub connected: bool,
    /// Each connection has a process of its own.
    pub pid: i32,
    pub flushed: u8,
    /// The text that its wal sender has read.
    pub read: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub flushed: u8,
    pub acknowledged: u8,
    pub file: String,
    /// Backends wait.
    pub flag: bool,
    /// The checkpointer has read the file.
    pub checkpointer_read: bool,
    pub standbys: Vec<Standby>,
    pub key: Option<Claim>,
    pub proof: Proof,
    /// Planned, and not done yet.
    pub planned: Option<Step>,
    pub mode: usize,
    pub moves: u8,
    pub crashes: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Commit,
    /// Acknowledge what nobody waits for.
    AcknowledgeAlone,
    /// This wal sender releases what it may.
    Release(usize),
    Receive(usize),
    Leave(usize),
    Join(usize),
    ReadBySender(usize),
    ReadByCheckpointer,
    Look,
    Do,
    ForgetAll,
    NextMode,
}

pub fn name(i: usize) -> MemberName {
    MemberName::new(["b", "c", "d", "e"][i])
}

impl State {
    pub fn new(bounds: &Bounds) -> State {
        let standby = |i: usize| Standby {
            connected: i >= bounds.absent,
            pid: i32::try_from(i).unwrap(),
            flushed: 0,
            read: String::new(),
        };
        State {
            flushed: 0,
            acknowledged: 0,
            file: String::new(),
            flag: false,
            checkpointer_read: true,
            standbys: (0..bounds.standbys).map(standby).collect(),
            key: None,
            proof: Proof::default(),
            planned: None,
            mode: 0,
            moves: 0,
            crashes: 0,
        }
    }

    pub fn actions(&self, b: &Bounds) -> Vec<Action> {
        let mut all = vec![Action::Look];
        let mut when = |holds: bool, action| all.extend(holds.then_some(action));
        when(self.flushed < b.commits, Action::Commit);
        when(!self.flag && self.acknowledged < self.flushed, Action::AcknowledgeAlone);
        when(!self.checkpointer_read, Action::ReadByCheckpointer);
        when(self.planned.is_some(), Action::Do);
        when(self.crashes < b.crashes, Action::ForgetAll);
        when(self.mode + 1 < b.modes.len(), Action::NextMode);
        for (i, s) in self.standbys.iter().enumerate() {
            when(s.connected && self.releases(i) > self.acknowledged, Action::Release(i));
            when(s.connected && s.flushed < self.flushed, Action::Receive(i));
            when(s.connected && s.read != self.file, Action::ReadBySender(i));
            when(s.connected && self.moves < b.moves, Action::Leave(i));
            when(!s.connected && self.moves < b.moves, Action::Join(i));
        }
        all
    }

    pub fn after(&self, action: Action, b: &Bounds) -> State {
        let mut s = self.clone();
        match action {
            Action::Commit => s.flushed += 1,
            Action::AcknowledgeAlone => s.acknowledged = s.flushed,
            Action::Release(i) => s.acknowledged = s.releases(i),
            Action::Receive(i) => s.standbys[i].flushed += 1,
            Action::Leave(i) => {
                s.moves += 1;
                s.standbys[i].connected = false;
            }
            Action::Join(i) => {
                s.moves += 1;
                let text = s.file.clone();
                let standby = &mut s.standbys[i];
                standby.connected = true;
                standby.pid += 10;
                standby.read = text;
            }
            Action::ReadBySender(i) => s.standbys[i].read = s.file.clone(),
            Action::ReadByCheckpointer => {
                s.checkpointer_read = true;
                s.flag = !s.file.is_empty();
            }
            Action::Look => s.look(b),
            Action::Do => s.perform(b),
            Action::ForgetAll => {
                s.crashes += 1;
                s.proof = Proof::default();
                s.planned = None;
            }
            Action::NextMode => s.mode += 1,
        }
        s
    }

    /// SyncRepReleaseWaiters of PostgreSQL: number and method of the own text, priorities as the others show them.
    fn releases(&self, i: usize) -> u8 {
        let Some(text) = names::parse(&self.standbys[i].read).filter(|t| self.flag && t.num > 0) else {
            return 0;
        };
        let mut listed: Vec<(i32, usize)> = (0..self.standbys.len())
            .filter(|j| self.standbys[*j].connected)
            .map(|j| (self.priority(j), j))
            .filter(|(priority, _)| *priority > 0)
            .collect();
        listed.sort_unstable();
        if listed.len() < text.num || self.priority(i) == 0 {
            return 0;
        }
        let at = |(_, j): &(i32, usize)| self.standbys[*j].flushed;
        match text.method {
            Method::Priority if listed[..text.num].iter().all(|(_, j)| *j != i) => 0,
            Method::Priority => listed[..text.num].iter().map(at).min().unwrap_or(0),
            Method::Quorum => {
                let mut positions: Vec<u8> = listed.iter().map(at).collect();
                positions.sort_unstable_by(|a, b| b.cmp(a));
                positions[text.num - 1]
            }
        }
    }

    fn priority(&self, i: usize) -> i32 {
        let text = names::parse(&self.standbys[i].read);
        text.map_or(0, |t| if t.num == 0 { 0 } else { t.priority_of(name(i).as_str()) })
    }

    fn pg(&self, b: &Bounds) -> PgView {
        let sender = |(i, s): (usize, &Standby)| {
            let read = names::parse(&self.file).filter(|_| b.planted == Some(Plant::PriorityFromFile));
            let at = Lsn(u64::from(if b.planted == Some(Plant::NoMark) {
                self.flushed
            } else {
                s.flushed
            }));
            WalSender {
                pid: s.pid,
                usename: String::new(),
                application_name: name(i).to_string(),
                client_addr: None,
                state: "streaming".into(),
                sync_state: String::new(),
                sync_priority: read.map_or(self.priority(i), |t| t.priority_of(name(i).as_str())),
                write: Some(at),
                flush: Some(at),
                replay: Some(at),
            }
        };
        let connected = self.standbys.iter().enumerate().filter(|(_, s)| s.connected);
        let flush = Lsn(u64::from(self.flushed));
        PgView {
            observed_at: Mono(0),
            data_dir: DataDir::NotObserved,
            postmaster: Postmaster::NotObserved,
            sql: SqlView::Answered(SqlFacts {
                response_time: Duration::ZERO,
                server_version: 150_000,
                postmaster_start_time: "once".into(),
                role: SqlRole::Primary {
                    timeline: Timeline(1),
                    flush,
                    write: flush,
                },
                wal_senders: connected.map(sender).collect(),
                slots: BTreeMap::new(),
                synchronous_standby_names: self.file.clone(),
                synchronous_commit: "on".into(),
                pending_restart: Vec::new(),
            }),
        }
    }

    /// The agent looks, and plans one step; what it planned before is forgotten.
    fn look(&mut self, b: &Bounds) {
        let view = self.pg(b);
        self.proof.note(&view);
        self.proof.polls = 0;
        if b.planted == Some(Plant::NoProbe) && !self.file.is_empty() {
            self.proof.waits = Some("once".into());
        }
        let (mode, strict, count) = b.modes[self.mode];
        let settings = Settings {
            synchronous_mode: mode,
            synchronous_mode_strict: strict,
            synchronous_node_count: count,
            ..Settings::default()
        };
        let running = Arc::new(Member {
            state: MemberState::Running,
            ..Member::default()
        });
        let members = (0..self.standbys.len())
            .map(|i| (name(i), Arc::clone(&running)))
            .collect();
        let key = self.key.as_ref().map(|c| SyncKey {
            mod_revision: Revision(1),
            leader: c.leader.clone(),
            quorum: c.quorum,
            standbys: c.names.clone(),
        });
        let me = "a".into();
        let step = next(
            &Facts {
                me: &me,
                key: key.as_ref(),
                trust: Trust::Settled,
                settings: &settings,
                members: &members,
                pg: view.facts().unwrap(),
                flush: Lsn(u64::from(self.flushed)),
                heard: &Heard::default(),
                now: Mono::default(),
            },
            &self.proof,
        );
        self.planned = (!matches!(step, Step::Rest | Step::Wait(_))).then_some(step);
    }

    fn perform(&mut self, b: &Bounds) {
        match self.planned.take() {
            Some(Step::Write(claim)) => self.key = Some(claim),
            Some(Step::Delete) => self.key = None,
            Some(Step::Task(change)) => {
                let outcome = match &change.task {
                    SyncTask::SetNames(text) => {
                        self.checkpointer_read &= *text == self.file;
                        self.file = text.clone();
                        SyncOutcome::Done
                    }
                    SyncTask::Probe if self.flag => SyncOutcome::Done,
                    SyncTask::Probe => SyncOutcome::Acknowledged,
                };
                let view = self.pg(b);
                self.proof.ended(change, outcome, &view, Mono(0));
            }
            Some(Step::Rest | Step::Wait(_)) | None => {}
        }
    }

    /// S5: whichever members may take over without the leader, one of them holds what was acknowledged.
    pub fn claim_is_true(&self) -> bool {
        let Some(claim) = &self.key else { return true };
        let lacking = (0..self.standbys.len())
            .filter(|i| claim.names.contains(&name(*i)) && self.standbys[*i].flushed < self.acknowledged)
            .count();
        lacking <= usize::try_from(claim.quorum).unwrap()
    }
}
