//! Jobs of PostgreSQL: how long they take, how they fail, and what they leave behind when they are cut off.
//!
//! A job is the agent's part: programs it runs and waits for. What the server does meanwhile is the server's own life
//! (`postgres/life.rs`) and goes on without the job.

mod copy;
mod run;
mod tend;

use pgha_core::event::{Event, OpId};
use pgha_core::job::{Job, JobFailure, JobOutcome, JobProgress, StopMode};
use pgha_core::pg::UnfinishedWork;

use crate::etcd::Time;
use crate::postgres::{Dir, Server};
use crate::world::{Happening, MS, SEC, SimJob, World};

/// The step of a job at which its patience ends.
const OUT_OF_PATIENCE: u8 = 255;
/// `pg_ctl_timeout`: how long a stop may take.
const STOP_LIMIT: Time = 60 * SEC;
/// How long a promotion may take before it is reported as late.
const PROMOTE_LIMIT: Time = 10 * SEC;

impl World {
    pub(crate) fn start_job(&mut self, i: usize, op: OpId, job: Job) {
        let name = self.nodes[i].name.clone();
        self.note(|| format!("{name} begins {job:?}"));
        if let Job::Promote = job {
            self.check_promotion(i);
        }
        let first = self.first_step_after(&job);
        self.nodes[i].job = Some(SimJob {
            op,
            job: job.clone(),
            cancelled: false,
            reached: 0,
        });
        match job {
            Job::Start { role, timeout } => return self.start_server(i, op, role, crate::world::nanos(timeout)),
            Job::Bootstrap => self.nodes[i].pg.dir = Dir::Unfinished(UnfinishedWork::Bootstrap),
            Job::Clone { .. } => self.nodes[i].pg.dir = Dir::Unfinished(UnfinishedWork::Clone),
            Job::Stop { .. }
            | Job::Restart { .. }
            | Job::Promote
            | Job::Follow { .. }
            | Job::CheckDivergence { .. }
            | Job::CrashRecovery
            | Job::Rewind { .. }
            | Job::DiscardDataDir { .. } => {}
        }
        self.job_goes_on(i, op, 0, first);
    }

    fn first_step_after(&mut self, job: &Job) -> Time {
        let (low, high) = match job {
            Job::Bootstrap => (500 * MS, 3 * SEC),
            Job::Clone { .. } => (SEC, 6 * SEC),
            Job::Start { .. } => (0, 0),
            Job::Stop { mode, .. } => match mode {
                StopMode::Immediate => (5 * MS, 50 * MS),
                StopMode::Fast => (5 * MS, 300 * MS),
            },
            Job::Restart { .. } => (5 * MS, 300 * MS),
            Job::Promote => (10 * MS, 60 * MS),
            Job::Follow { .. } | Job::CheckDivergence { .. } => (20 * MS, 300 * MS),
            Job::CrashRecovery => (200 * MS, 4 * SEC),
            Job::Rewind { .. } => (200 * MS, 2 * SEC),
            Job::DiscardDataDir { .. } => (50 * MS, SEC),
        };
        self.postgres.range(low, high)
    }

    fn job_goes_on(&mut self, i: usize, op: OpId, step: u8, after: Time) {
        self.at(self.now + after, Happening::JobStep { node: i, op, step });
    }

    pub(crate) fn job_step(&mut self, i: usize, op: OpId, step: u8) {
        let Some(running) = self.nodes[i].job.as_mut().filter(|j| j.op == op) else {
            return;
        };
        if step != OUT_OF_PATIENCE {
            running.reached = step + 1;
        }
        match running.job.clone() {
            Job::Bootstrap => self.finish_bootstrap(i),
            Job::Clone { source } => self.finish_clone(i, &source),
            Job::Start { .. } => self.start_takes_too_long(i),
            Job::Stop { mode, .. } => self.stop_server(i, op, mode, step),
            Job::Restart { role, .. } => self.restart_server(i, op, role, step),
            Job::Promote => self.promote(i, op, step),
            Job::Follow { upstream } => self.finish_follow(i, upstream),
            Job::CheckDivergence { source } => self.finish_check(i, &source),
            Job::CrashRecovery => self.finish_crash_recovery(i),
            Job::Rewind { source, .. } => self.rewind(i, op, &source, step),
            Job::DiscardDataDir { .. } => {
                self.nodes[i].pg.dir = Dir::Empty;
                self.end_job(i, JobOutcome::Done);
            }
        }
    }

    pub(crate) fn end_job(&mut self, i: usize, outcome: JobOutcome) {
        let Some(job) = self.nodes[i].job.take() else { return };
        let name = self.nodes[i].name.clone();
        self.note(|| format!("{name} ends {:?}: {outcome:?}", job.job));
        self.count(job_counter(&job.job));
        let epoch = self.nodes[i].epoch;
        let event = Event::JobEnded { op: job.op, outcome };
        self.later(i, epoch, MS / 2, event);
    }

    fn fail_job(&mut self, i: usize, failure: JobFailure, reason: &str) {
        self.end_job(
            i,
            JobOutcome::Failed {
                failure,
                reason: reason.into(),
            },
        );
    }

    fn report(&mut self, i: usize, progress: JobProgress) {
        let Some(op) = self.nodes[i].job.as_ref().map(|j| j.op) else {
            return;
        };
        let epoch = self.nodes[i].epoch;
        self.later(i, epoch, MS, Event::JobProgress { op, progress });
    }

    /// The daemon wants the job to end early.
    pub(crate) fn cancel_job(&mut self, i: usize, op: OpId) {
        let Some(running) = self.nodes[i].job.as_mut().filter(|j| j.op == op) else {
            return;
        };
        running.cancelled = true;
        let begun = running.reached > 0;
        match running.job {
            // What is being started must not come up.
            Job::Start { .. } => self.nodes[i].pg.crash(),
            // pg_ctl promote is not taken back by forgetting about it.
            Job::Promote if begun => self.count("promotion goes on after its job was cancelled"),
            Job::Rewind { .. } if begun => self.nodes[i].pg.dir = Dir::Unfinished(UnfinishedWork::Rewind),
            // A stop is not taken back either, and is waited for.
            Job::Stop { .. } => return,
            Job::Bootstrap
            | Job::Clone { .. }
            | Job::Restart { .. }
            | Job::Promote
            | Job::Follow { .. }
            | Job::CheckDivergence { .. }
            | Job::CrashRecovery
            | Job::Rewind { .. }
            | Job::DiscardDataDir { .. } => {}
        }
        self.end_job(i, JobOutcome::Cancelled);
    }

    /// The daemon died and its programs with it. What the server was told, it does.
    pub(crate) fn orphan_job(&mut self, i: usize) {
        let Some(job) = self.nodes[i].job.take() else { return };
        match job.job {
            Job::Rewind { .. } if job.reached > 0 => {
                self.nodes[i].pg.dir = Dir::Unfinished(UnfinishedWork::Rewind);
            }
            Job::Promote | Job::Stop { .. } | Job::Start { .. }
                if self.nodes[i].pg.promoting
                    || matches!(self.nodes[i].pg.server, Server::Starting | Server::Stopping { .. }) =>
            {
                self.count("job goes on without its daemon");
            }
            Job::Bootstrap
            | Job::Clone { .. }
            | Job::Start { .. }
            | Job::Stop { .. }
            | Job::Restart { .. }
            | Job::Promote
            | Job::Follow { .. }
            | Job::CheckDivergence { .. }
            | Job::CrashRecovery
            | Job::Rewind { .. }
            | Job::DiscardDataDir { .. } => {}
        }
    }

    pub(crate) fn fail_job_of_dead_server(&mut self, i: usize) {
        let needs_server = self.nodes[i].job.as_ref().is_some_and(|j| match j.job {
            Job::Promote | Job::Start { .. } | Job::Follow { .. } | Job::Restart { .. } => true,
            Job::Stop { .. }
            | Job::Bootstrap
            | Job::Clone { .. }
            | Job::CheckDivergence { .. }
            | Job::CrashRecovery
            | Job::Rewind { .. }
            | Job::DiscardDataDir { .. } => false,
        });
        if needs_server {
            self.fail_job(i, JobFailure::Exited, "the postmaster exited");
        }
    }
}

fn job_counter(job: &Job) -> &'static str {
    match job {
        Job::Bootstrap => "job bootstrap",
        Job::Clone { .. } => "job clone",
        Job::Start { .. } => "job start",
        Job::Stop { .. } => "job stop",
        Job::Restart { .. } => "job restart",
        Job::Promote => "job promote",
        Job::Follow { .. } => "job follow",
        Job::CheckDivergence { .. } => "job check divergence",
        Job::CrashRecovery => "job crash recovery",
        Job::Rewind { .. } => "job rewind",
        Job::DiscardDataDir { .. } => "job discard",
    }
}
