//! Jobs around the running server: start, stop, restart, promote, follow.

use pgha_core::event::OpId;
use pgha_core::job::{Job, JobFailure, JobOutcome, JobProgress, StartRole, StopMode, Upstream};
use pgha_core::units::Lsn;

use super::{OUT_OF_PATIENCE, PROMOTE_LIMIT, STOP_LIMIT};
use crate::etcd::Time;
use crate::postgres::Server;
use crate::world::{MS, World};

impl World {
    /// The fence starts a server only while its guard allows one.
    fn may_launch(&self, i: usize) -> bool {
        self.nodes[i].fence.is_some() && !self.nodes[i].fired && self.nodes[i].pg.server == Server::Down
    }

    pub(super) fn start_server(&mut self, i: usize, op: OpId, role: StartRole, timeout: Time) {
        if !self.may_launch(i) {
            return self.fail_job(i, JobFailure::Fenced, "fenced");
        }
        self.write_start_configuration(i);
        self.launch(i, role);
        self.job_goes_on(i, op, OUT_OF_PATIENCE, timeout);
    }

    pub(super) fn start_takes_too_long(&mut self, i: usize) {
        self.fail_job(i, JobFailure::TimedOut, "PostgreSQL is still starting up");
    }

    /// The server accepts connections now.
    pub(crate) fn job_sees_start(&mut self, i: usize) {
        let waits = self.nodes[i]
            .job
            .as_ref()
            .is_some_and(|j| matches!(j.job, Job::Start { .. } | Job::Restart { .. }));
        if waits {
            self.end_job(i, JobOutcome::Done);
        }
    }

    /// Steps: the checkpoint before the stop; the stop; then the server goes down by itself.
    pub(super) fn stop_server(&mut self, i: usize, op: OpId, mode: StopMode, step: u8) {
        if step == OUT_OF_PATIENCE {
            return self.fail_job(i, JobFailure::TimedOut, "PostgreSQL did not stop within pg_ctl_timeout");
        }
        if self.nodes[i].pg.server == Server::Down {
            return self.end_job(i, JobOutcome::Done);
        }
        if mode == StopMode::Immediate {
            self.nodes[i].pg.crash();
            return self.end_job(i, JobOutcome::Done);
        }
        self.begin_shutdown(i);
        if self.nodes[i].pg.server == Server::Down {
            return self.end_job(i, JobOutcome::Done);
        }
        self.job_goes_on(i, op, OUT_OF_PATIENCE, STOP_LIMIT);
    }

    pub(super) fn restart_server(&mut self, i: usize, op: OpId, role: StartRole, step: u8) {
        match step {
            0 => {
                self.begin_shutdown(i);
                if self.nodes[i].pg.server == Server::Down {
                    return self.job_goes_on(i, op, 1, 0);
                }
                self.job_goes_on(i, op, OUT_OF_PATIENCE, STOP_LIMIT);
            }
            1 if self.may_launch(i) => {
                self.write_start_configuration(i);
                self.launch(i, role);
            }
            1 => self.fail_job(i, JobFailure::Fenced, "fenced"),
            _ => self.fail_job(i, JobFailure::TimedOut, "PostgreSQL did not stop within pg_ctl_timeout"),
        }
    }

    /// pg_control says `shut down`.
    pub(crate) fn job_sees_shutdown_checkpoint(&mut self, i: usize, checkpoint: u64) {
        let waits = self.nodes[i]
            .job
            .as_ref()
            .is_some_and(|j| matches!(j.job, Job::Stop { .. } | Job::Restart { .. }));
        if waits {
            let checkpoint = Lsn(checkpoint);
            self.report(i, JobProgress::ShutDown { checkpoint });
        }
    }

    /// The last process of the server is gone after a shutdown.
    pub(crate) fn job_sees_end(&mut self, i: usize) {
        match self.nodes[i].job.as_ref().map(|j| (j.op, &j.job)) {
            Some((_, Job::Stop { .. })) => self.end_job(i, JobOutcome::Done),
            Some((op, Job::Restart { .. })) => self.job_goes_on(i, op, 1, MS),
            Some(_) | None => {
                let epoch = self.nodes[i].epoch;
                let exited = pgha_core::event::Event::Wake(pgha_core::event::Wake::PostmasterExited);
                self.later(i, epoch, 5 * MS, exited);
            }
        }
    }

    // ---- promote and follow ----

    /// Steps: `pg_ctl promote`; patience.
    pub(super) fn promote(&mut self, i: usize, op: OpId, step: u8) {
        if step == OUT_OF_PATIENCE {
            return self.fail_job(i, JobFailure::TimedOut, "PostgreSQL has not left recovery in time");
        }
        if !matches!(self.nodes[i].pg.server, Server::Standby(_)) {
            return self.fail_job(i, JobFailure::Nothing, "server is not in standby mode");
        }
        self.begin_promotion(i);
        let loop_wait = crate::world::SEC * self.plan.settings.loop_wait;
        self.job_goes_on(i, op, OUT_OF_PATIENCE, loop_wait.max(PROMOTE_LIMIT));
    }

    /// The server has left recovery.
    pub(crate) fn job_sees_promotion(&mut self, i: usize) {
        if self.nodes[i].job.as_ref().is_some_and(|j| j.job == Job::Promote) {
            self.end_job(i, JobOutcome::Done);
        }
    }

    pub(super) fn finish_follow(&mut self, i: usize, upstream: Option<Upstream>) {
        self.write_start_configuration(i);
        self.reload_if_changed(i);
        self.disconnect(i);
        if let Some(receiver) = self.nodes[i].pg.receiver_mut() {
            receiver.upstream = upstream;
        }
        self.connect(i);
        self.end_job(i, JobOutcome::Done);
    }
}
