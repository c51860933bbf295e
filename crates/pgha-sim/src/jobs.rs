//! Jobs of PostgreSQL: how long they take, how they fail, and what they leave behind when they are cut off.

use pgha_core::event::{Event, OpId};
use pgha_core::job::{DivergenceFacts, Job, JobFailure, JobOutcome, JobProgress, StartRole, StopMode, Upstream};
use pgha_core::pg::{ControlState, UnfinishedWork};
use pgha_core::units::{Lsn, Timeline};

use crate::etcd::Time;
use crate::postgres::{Branch, Data, Dir, Server};
use crate::world::{Happening, MS, SEC, SimJob, World};

/// Size of a checkpoint record in simulated WAL.
const RECORD: u64 = 8;

impl World {
    pub(crate) fn start_job(&mut self, i: usize, op: OpId, job: Job) {
        let name = self.nodes[i].name.clone();
        self.note(|| format!("{name} begins {job:?}"));
        if let Job::Promote = job {
            self.check_promotion(i);
        }
        self.nodes[i].job = Some(SimJob {
            op,
            job: job.clone(),
            cancelled: false,
        });
        let (first, step) = match &job {
            Job::Bootstrap => (self.postgres.range(500 * MS, 3 * SEC), 0),
            Job::Clone { .. } => (self.postgres.range(SEC, 6 * SEC), 0),
            Job::Start { .. } => {
                if !self.may_launch(i) {
                    return self.end_job(
                        i,
                        JobOutcome::Failed {
                            failure: JobFailure::Fenced,
                            reason: "fenced".into(),
                        },
                    );
                }
                self.launch(i);
                (self.postgres.range(200 * MS, 3 * SEC), 0)
            }
            Job::Stop {
                mode: StopMode::Immediate,
                ..
            } => (self.postgres.range(5 * MS, 50 * MS), 0),
            Job::Stop {
                mode: StopMode::Fast, ..
            }
            | Job::Restart { .. } => (self.postgres.range(50 * MS, 2 * SEC), 0),
            Job::Promote => (self.postgres.range(100 * MS, 900 * MS), 0),
            Job::Follow { .. } | Job::CheckDivergence { .. } => (self.postgres.range(20 * MS, 300 * MS), 0),
            Job::CrashRecovery => (self.postgres.range(200 * MS, 4 * SEC), 0),
            Job::Rewind { .. } => (self.postgres.range(500 * MS, 4 * SEC), 0),
            Job::DiscardDataDir { .. } => (self.postgres.range(50 * MS, SEC), 0),
        };
        match &job {
            Job::Bootstrap => self.nodes[i].pg.dir = Dir::Unfinished(UnfinishedWork::Bootstrap),
            Job::Clone { .. } => self.nodes[i].pg.dir = Dir::Unfinished(UnfinishedWork::Clone),
            Job::Start { .. }
            | Job::Stop { .. }
            | Job::Restart { .. }
            | Job::Promote
            | Job::Follow { .. }
            | Job::CheckDivergence { .. }
            | Job::CrashRecovery
            | Job::Rewind { .. }
            | Job::DiscardDataDir { .. } => {}
        }
        self.at(self.now + first, Happening::JobStep { node: i, op, step });
    }

    /// The fence starts a server only while its guard allows one.
    fn may_launch(&self, i: usize) -> bool {
        self.nodes[i].fence.is_some() && !self.nodes[i].fired && self.nodes[i].pg.server == Server::Down
    }

    fn launch(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        node.pg.incarnation += 1;
        node.pg.server = Server::Starting;
    }

    pub(crate) fn end_job(&mut self, i: usize, outcome: JobOutcome) {
        let Some(job) = self.nodes[i].job.take() else { return };
        let name = self.nodes[i].name.clone();
        self.note(|| format!("{name} ends {:?}: {outcome:?}", job.job));
        self.count(format!("job {}", job_name(&job.job)));
        let epoch = self.nodes[i].epoch;
        let event = Event::JobEnded { op: job.op, outcome };
        self.at(
            self.now + MS / 2,
            Happening::Deliver {
                node: i,
                epoch,
                event: Box::new(event),
            },
        );
    }

    /// The daemon died: what its children do without it. The effect of a job may still happen, the report never does.
    pub(crate) fn orphan_job(&mut self, i: usize) {
        let Some(job) = &self.nodes[i].job else { return };
        // A postmaster that was started comes up without anybody who waits for it.
        let goes_on = matches!(job.job, Job::Start { .. })
            || matches!(job.job, Job::Promote | Job::Stop { .. }) && self.postgres.chance(500);
        if goes_on {
            self.count("job goes on without its daemon");
        } else {
            if matches!(job.job, Job::Rewind { .. }) {
                self.nodes[i].pg.dir = Dir::Unfinished(UnfinishedWork::Rewind);
            }
            self.nodes[i].job = None;
        }
    }

    pub(crate) fn fail_job_of_dead_server(&mut self, i: usize) {
        let needs_server = self.nodes[i].job.as_ref().is_some_and(|j| {
            matches!(
                j.job,
                Job::Promote | Job::Start { .. } | Job::Follow { .. } | Job::Restart { .. }
            )
        });
        if needs_server {
            self.end_job(i, failed(JobFailure::Exited, "the postmaster exited"));
        }
    }

    pub(crate) fn job_step(&mut self, i: usize, op: OpId, step: u8) {
        let Some(running) = self.nodes[i].job.clone().filter(|j| j.op == op) else {
            return;
        };
        if running.cancelled && step == 0 && !matches!(running.job, Job::Stop { .. } | Job::Rewind { .. }) {
            if matches!(running.job, Job::Start { .. }) {
                self.nodes[i].pg.crash();
            }
            return self.end_job(i, JobOutcome::Cancelled);
        }
        match running.job {
            Job::Bootstrap => self.finish_bootstrap(i),
            Job::Clone { source } => self.finish_clone(i, &source),
            Job::Start { role, .. } => self.finish_start(i, role),
            Job::Stop { mode, .. } => self.go_on_stopping(i, op, mode, step),
            Job::Restart { role, .. } => self.go_on_restarting(i, op, role, step),
            Job::Promote => self.finish_promote(i),
            Job::Follow { upstream } => self.finish_follow(i, upstream),
            Job::CheckDivergence { source } => self.finish_check(i, &source),
            Job::CrashRecovery => self.finish_crash_recovery(i),
            Job::Rewind { source } => self.finish_rewind(i, &source),
            Job::DiscardDataDir { .. } => {
                self.nodes[i].pg.dir = Dir::Empty;
                self.end_job(i, JobOutcome::Done);
            }
        }
    }

    fn finish_bootstrap(&mut self, i: usize) {
        self.next_branch += 1;
        let branch = Branch {
            id: self.next_branch,
            timeline: 1,
            start: 0,
        };
        let system_id = 7_000_000_000_000_000_000 + self.next_branch;
        self.nodes[i].pg.dir = Dir::Data(Data {
            system_id,
            branches: vec![branch],
            lsn: 1000,
            signal: false,
            state: ControlState::ShutDown,
            checkpoint_timeline: 1,
        });
        self.end_job(i, JobOutcome::Done);
    }

    /// The data of a running server that can be reached from `i`.
    fn source(&self, i: usize, source: &Upstream) -> Option<(Data, bool)> {
        let at = self.nodes.iter().position(|n| n.name == source.name)?;
        let from = &self.nodes[at];
        if !self.talk(i, at) || matches!(from.pg.server, Server::Down | Server::Starting) {
            return None;
        }
        Some((from.pg.data()?.clone(), from.pg.is_writable()))
    }

    fn finish_clone(&mut self, i: usize, source: &Upstream) {
        match self.source(i, source) {
            Some((mut data, _)) if !self.postgres.chance(30) => {
                data.signal = true;
                data.state = ControlState::InArchiveRecovery;
                self.nodes[i].pg.dir = Dir::Data(data);
                self.end_job(i, JobOutcome::Done);
            }
            Some(_) | None => self.end_job(i, failed(JobFailure::SourceNotReady, "pg_basebackup failed")),
        }
    }

    fn finish_start(&mut self, i: usize, role: StartRole) {
        if self.nodes[i].pg.server != Server::Starting {
            return self.end_job(i, failed(JobFailure::Exited, "the postmaster exited"));
        }
        if self.postgres.chance(15) {
            self.nodes[i].pg.crash();
            return self.end_job(i, failed(JobFailure::Exited, "could not start"));
        }
        self.set_role(i, role);
        self.end_job(i, JobOutcome::Done);
    }

    fn set_role(&mut self, i: usize, role: StartRole) {
        let Some(data) = self.nodes[i].pg.data_mut() else {
            return;
        };
        let server = match role {
            StartRole::Primary => {
                data.signal = false;
                data.state = ControlState::InProduction;
                data.lsn += RECORD;
                data.checkpoint_timeline = data.timeline();
                Server::Primary
            }
            StartRole::Standby { upstream } => {
                data.signal = true;
                data.state = ControlState::InArchiveRecovery;
                Server::Standby {
                    upstream: upstream.map(|u| (u.name, u.conn_url, u.slot)),
                    streaming: false,
                }
            }
        };
        self.nodes[i].pg.server = server;
    }

    fn go_on_stopping(&mut self, i: usize, op: OpId, mode: StopMode, step: u8) {
        if self.nodes[i].pg.server == Server::Down || mode == StopMode::Immediate {
            self.nodes[i].pg.crash();
            return self.end_job(i, JobOutcome::Done);
        }
        if step == 1 {
            return self.end_job(i, JobOutcome::Done);
        }
        let was_primary = self.nodes[i].pg.is_writable();
        self.shut_down(i);
        if was_primary {
            let end = self.nodes[i].pg.data().map_or(0, |d| d.lsn);
            let progress = JobProgress::ShutDown {
                checkpoint: Lsn(end.saturating_sub(RECORD)),
            };
            let epoch = self.nodes[i].epoch;
            let event = Box::new(Event::JobProgress { op, progress });
            self.at(self.now + MS, Happening::Deliver { node: i, epoch, event });
        }
        let archiving: Time = self.postgres.range(MS, 400 * MS);
        self.at(self.now + archiving, Happening::JobStep { node: i, op, step: 1 });
    }

    /// A clean shutdown: connected standbys receive the shutdown checkpoint.
    fn shut_down(&mut self, i: usize) {
        self.replicate();
        let streaming: Vec<usize> = (0..self.nodes.len()).filter(|s| self.streams_from(*s, i)).collect();
        self.nodes[i].pg.shut_down();
        let Some(data) = self.nodes[i].pg.data().cloned() else {
            return;
        };
        for s in streaming {
            if let Some(standby) = self.nodes[s].pg.data_mut() {
                standby.lsn = data.lsn;
            }
        }
    }

    fn streams_from(&self, standby: usize, primary: usize) -> bool {
        let node = &self.nodes[standby];
        match &node.pg.server {
            Server::Standby {
                upstream: Some((name, ..)),
                streaming: true,
            } => *name == self.nodes[primary].name,
            Server::Standby { .. } | Server::Primary | Server::Starting | Server::Down => false,
        }
    }

    fn go_on_restarting(&mut self, i: usize, op: OpId, role: StartRole, step: u8) {
        if step == 0 {
            self.shut_down(i);
            if !self.may_launch(i) {
                return self.end_job(i, failed(JobFailure::Fenced, "fenced"));
            }
            self.launch(i);
            let after = self.postgres.range(200 * MS, 2 * SEC);
            return self.at(self.now + after, Happening::JobStep { node: i, op, step: 1 });
        }
        self.finish_start(i, role);
    }

    fn finish_promote(&mut self, i: usize) {
        if !matches!(self.nodes[i].pg.server, Server::Standby { .. }) || self.postgres.chance(10) {
            return self.end_job(i, failed(JobFailure::TimedOut, "pg_ctl promote failed"));
        }
        self.next_branch += 1;
        let id = self.next_branch;
        if let Some(data) = self.nodes[i].pg.data_mut() {
            let timeline = data.timeline() + 1;
            data.branches.push(Branch {
                id,
                timeline,
                start: data.lsn,
            });
            data.lsn += RECORD;
            data.signal = false;
            data.state = ControlState::InProduction;
        }
        self.nodes[i].pg.server = Server::Primary;
        self.count("promotion");
        self.end_job(i, JobOutcome::Done);
    }

    fn finish_follow(&mut self, i: usize, upstream: Option<Upstream>) {
        if let Server::Standby { upstream: current, .. } = &mut self.nodes[i].pg.server {
            *current = upstream.map(|u| (u.name, u.conn_url, u.slot));
        }
        self.end_job(i, JobOutcome::Done);
    }

    fn finish_check(&mut self, i: usize, source: &Upstream) {
        let (Some((theirs, writable)), Some(mine)) = (self.source(i, source), self.nodes[i].pg.data().cloned()) else {
            return self.end_job(i, failed(JobFailure::SourceNotReady, "the leader does not answer"));
        };
        let was_primary = !mine.signal;
        let clean = mine.state == ControlState::ShutDown;
        let facts = DivergenceFacts {
            local_timeline: Timeline(mine.timeline()),
            local_lsn: Lsn(if was_primary {
                mine.lsn.saturating_sub(RECORD)
            } else {
                mine.lsn
            }),
            was_primary,
            shutdown_checkpoint_end: clean.then_some(Lsn(mine.lsn)),
            leader_timeline: Timeline(theirs.timeline()),
            leader_in_recovery: !writable,
            leader_history: theirs.history(),
        };
        self.end_job(i, JobOutcome::Divergence(facts));
    }

    fn finish_crash_recovery(&mut self, i: usize) {
        if let Some(data) = self.nodes[i].pg.data_mut() {
            data.state = ControlState::ShutDown;
            data.lsn += RECORD;
        }
        self.end_job(i, JobOutcome::Done);
    }

    fn finish_rewind(&mut self, i: usize, source: &Upstream) {
        match self.source(i, source) {
            Some((mut data, true)) if !self.postgres.chance(50) => {
                data.signal = true;
                data.state = ControlState::InArchiveRecovery;
                self.nodes[i].pg.dir = Dir::Data(data);
                self.count("rewind");
                self.end_job(i, JobOutcome::Done);
            }
            Some(_) if self.postgres.chance(300) => {
                self.nodes[i].pg.dir = Dir::Unfinished(UnfinishedWork::Rewind);
                self.end_job(i, failed(JobFailure::Damaged, "pg_rewind broke off"));
            }
            Some(_) | None => self.end_job(i, failed(JobFailure::SourceNotReady, "pg_rewind could not connect")),
        }
    }

    /// Standbys receive WAL, clients write to whoever accepts it.
    pub(crate) fn replicate(&mut self) {
        for i in 0..self.nodes.len() {
            if self.nodes[i].accepts_writes()
                && !self.nodes[i].pg.mute
                && let Some(data) = self.nodes[i].pg.data_mut()
            {
                data.lsn += 100;
            }
        }
        for i in 0..self.nodes.len() {
            let Server::Standby { upstream, .. } = &self.nodes[i].pg.server else {
                continue;
            };
            let upstream = upstream
                .clone()
                .map(|(name, conn_url, slot)| Upstream { name, conn_url, slot });
            let source = upstream.and_then(|u| self.source(i, &u));
            let follows =
                source.filter(|(theirs, _)| self.nodes[i].pg.data().is_some_and(|mine| theirs.contains(mine)));
            if let Server::Standby { streaming, .. } = &mut self.nodes[i].pg.server {
                *streaming = follows.is_some();
            }
            if let (Some((theirs, _)), Some(mine)) = (follows, self.nodes[i].pg.data_mut()) {
                mine.branches = theirs.branches;
                mine.lsn = theirs.lsn;
                mine.checkpoint_timeline = theirs.checkpoint_timeline;
            }
        }
    }
}

fn failed(failure: JobFailure, reason: &str) -> JobOutcome {
    JobOutcome::Failed {
        failure,
        reason: reason.into(),
    }
}

fn job_name(job: &Job) -> &'static str {
    match job {
        Job::Bootstrap => "bootstrap",
        Job::Clone { .. } => "clone",
        Job::Start { .. } => "start",
        Job::Stop { .. } => "stop",
        Job::Restart { .. } => "restart",
        Job::Promote => "promote",
        Job::Follow { .. } => "follow",
        Job::CheckDivergence { .. } => "check divergence",
        Job::CrashRecovery => "crash recovery",
        Job::Rewind { .. } => "rewind",
        Job::DiscardDataDir { .. } => "discard",
    }
}
