//! What jobs and operators tell the node.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Node;
use crate::decide;
use crate::effect::{CallbackAction, CallbackRole, Effect};
use crate::event::OpId;
use crate::job::{Job, JobFailure, JobOutcome, JobProgress};
use crate::pg::{Postmaster, SqlView};
use crate::plan;
use crate::planted::{Planted, planted};
use crate::request::{Answer, Request, RequestId, RestartRole};
use crate::rewind::{Verdict, judge};
use crate::sync::SyncOutcome;
use crate::view::{Divergence, Failure, Failures, Reinitialize, ScheduledRestart};

impl Node {
    pub(super) fn job_progress(&mut self, op: OpId, progress: JobProgress) {
        let Some(job) = self.view.memory.job.as_mut().filter(|j| j.op == op) else {
            return;
        };
        match progress {
            JobProgress::Copied { done, total } => job.copied = Some((done, total)),
            JobProgress::Step(text) => job.step = Some(text),
            JobProgress::ShutDown { checkpoint } => {
                job.shut_down_at = Some(checkpoint);
                self.again = true;
                if !matches!(job.job, Job::Stop { .. }) {
                    // A restart goes on to a server that is writable again: its deadline stays.
                    return;
                }
                let m = &mut self.view.memory;
                // pg_control says `shut down`: no backend is left, nothing can be acknowledged any more. Whoever looked
                // before that saw what is over.
                m.maybe_writable = false;
                m.job_ended_at = self.view.now.mono;
                if let Some(handover) = &mut m.handover {
                    handover.checkpoint = Some(checkpoint);
                    // The patience for somebody to receive it begins when it is there to be received.
                    handover.since = self.view.now.mono;
                }
            }
        }
    }

    pub(super) fn job_ended(&mut self, op: OpId, outcome: JobOutcome, out: &mut Vec<Effect>) {
        let Some(running) = self.view.memory.job.take_if(|j| j.op == op) else {
            return;
        };
        let now = self.view.now.mono;
        self.view.memory.job_ended_at = now;
        // A job may have replaced the data directory, and the file in it.
        self.view.memory.known_kept = None;
        if let Some(wish) = &mut self.view.memory.wishes.reinitialize {
            // The force was meant for the job that ran when it was asked for.
            wish.force = false;
        }
        // What was seen before the job says nothing about what is true after it.
        self.view.pg.sql = SqlView::NotAsked;
        self.again = true;
        let given_up = match &outcome {
            JobOutcome::Cancelled => true,
            JobOutcome::Failed { failure, .. } => *failure == JobFailure::TimedOut,
            JobOutcome::Done | JobOutcome::Divergence(_) => false,
        };
        self.view.memory.loose_promotion |= given_up && running.job == Job::Promote;
        match &outcome {
            JobOutcome::Done | JobOutcome::Divergence(_) => self.job_done(&running.job, &outcome, out),
            JobOutcome::Failed { failure, reason } => self.job_failed(&running.job, *failure, reason),
            JobOutcome::Cancelled => {}
        }
        self.answer_running(&running.job, &outcome, out);
    }

    fn job_done(&mut self, job: &Job, outcome: &JobOutcome, out: &mut Vec<Effect>) {
        let leader = self.view.last_cluster().and_then(|c| c.leader_name()).cloned();
        let now = self.view.now.mono;
        self.tell_role(job, out);
        let gone = self.view.diverged_wal().map_or(0, |wal| wal.bytes());
        let m = &mut self.view.memory;
        if matches!(job, Job::Rewind { .. } | Job::DiscardDataDir { .. }) {
            m.discarded_wal_bytes = m.discarded_wal_bytes.saturating_add(gone);
        }
        if let Some(slot) = failure_slot(&mut m.failures, job) {
            *slot = None;
        }
        match job {
            Job::Promote => {
                m.checkpoint_due = true;
                m.divergence = Divergence::Unknown;
            }
            Job::Stop { .. } => m.maybe_writable = false,
            Job::Clone { .. } => {
                m.wishes.reinitialize = None;
                m.divergence = leader.map_or(Divergence::Unknown, |leader| Divergence::None { leader });
                m.timeline_floor = None;
            }
            Job::Rewind { source, .. } => {
                m.divergence = Divergence::None {
                    leader: source.name.clone(),
                };
                m.timeline_floor = None;
            }
            Job::DiscardDataDir { .. } => {
                m.divergence = Divergence::Unknown;
                m.timeline_floor = None;
                m.failures = Failures::default();
            }
            Job::CheckDivergence { source } => {
                m.divergence_checked_at = Some(now);
                if let JobOutcome::Divergence(facts) = outcome {
                    let behind = facts.local_timeline <= facts.leader_timeline;
                    let as_numbers = planted(&self.view, Planted::TimelineAsNumber) && behind;
                    let m = &mut self.view.memory;
                    match if as_numbers { Verdict::OnHistory } else { judge(facts) } {
                        Verdict::OnHistory => {
                            m.divergence = Divergence::None {
                                leader: source.name.clone(),
                            }
                        }
                        Verdict::WalGone { archive } => {
                            m.divergence = Divergence::WalGone {
                                leader: source.name.clone(),
                                at: facts.local_lsn,
                                archive,
                            };
                        }
                        Verdict::Diverged => {
                            m.divergence = Divergence::Found {
                                leader: source.name.clone(),
                                facts: facts.clone(),
                            };
                        }
                        Verdict::CannotTell => {
                            let reason = format!("{} is in recovery itself", source.name);
                            self.job_failed(job, JobFailure::SourceNotReady, &reason);
                        }
                    }
                }
            }
            Job::Start { .. } | Job::Restart { .. } => {
                m.wishes.scheduled_restart = None;
                m.stall = None;
            }
            Job::Follow { .. } => m.stall = None,
            Job::Bootstrap | Job::CrashRecovery => {}
        }
    }

    fn job_failed(&mut self, job: &Job, kind: JobFailure, reason: &str) {
        let at = self.view.now.mono;
        let m = &mut self.view.memory;
        if matches!(job, Job::Stop { .. }) {
            m.handover = None;
        }
        if let Some(slot) = failure_slot(&mut m.failures, job) {
            let times = slot.as_ref().map_or(0, |f| f.times) + 1;
            *slot = Some(Failure {
                at,
                times,
                kind,
                reason: reason.to_string(),
            });
        }
    }

    /// Callbacks: a change of role is told once, as such, even when it took a restart.
    fn tell_role(&mut self, job: &Job, out: &mut Vec<Effect>) {
        let told = self.view.memory.told_role;
        let same_role = match job {
            Job::Stop { .. } => Some(CallbackAction::OnStop),
            // A new primary_conninfo takes a reload and nothing else.
            Job::Follow { .. } => Some(CallbackAction::OnReload),
            Job::Bootstrap
            | Job::Clone { .. }
            | Job::Start { .. }
            | Job::Restart { .. }
            | Job::Promote
            | Job::CheckDivergence { .. }
            | Job::CrashRecovery
            | Job::Rewind { .. }
            | Job::DiscardDataDir { .. } => None,
        };
        if let Some(action) = same_role {
            let role = told.unwrap_or(CallbackRole::Uninitialized);
            out.push(Effect::Callback { action, role });
            return;
        }
        let Some(role) = plan::role_after(job) else { return };
        let action = match (told, job) {
            (Some(before), _) if before != role => CallbackAction::OnRoleChange,
            (Some(_) | None, Job::Restart { .. }) => CallbackAction::OnRestart,
            (None, Job::Promote) => CallbackAction::OnRoleChange,
            (Some(_) | None, _) => CallbackAction::OnStart,
        };
        self.view.memory.told_role = Some(role);
        out.push(Effect::Callback { action, role });
    }

    pub(super) fn tended(&mut self, op: OpId) {
        let Some((_, shows_later)) = self.tending.take_if(|(tending, _)| *tending == op) else {
            return;
        };
        // The member key loses its flag only when pg_control shows the checkpoint, and tells of a pending restart only
        // when PostgreSQL has read its files: look soon, but not without a pause, since it may have failed.
        if let (true, Some(d)) = (shows_later, &mut self.decision) {
            let soon = self.view.now.mono.plus(decide::RACE_POLL);
            d.wake_at = Some(d.wake_at.map_or(soon, |at| at.min(soon)));
        }
    }

    pub(super) fn sync_tended(&mut self, op: OpId, outcome: SyncOutcome) {
        let Some((_, change)) = self.syncing.take_if(|(running, _)| *running == op) else {
            return;
        };
        let now = self.view.now.mono;
        self.view.memory.sync.ended(change, outcome, &self.view.pg, now);
        match (outcome, &mut self.decision) {
            (SyncOutcome::Done, _) => self.again = true,
            (SyncOutcome::Acknowledged | SyncOutcome::Failed, Some(d)) => {
                let soon = now.plus(decide::RACE_POLL);
                d.wake_at = Some(d.wake_at.map_or(soon, |at| at.min(soon)));
            }
            (SyncOutcome::Acknowledged | SyncOutcome::Failed, None) => {}
        }
    }

    // ---- operators ----

    pub(super) fn requested(&mut self, id: RequestId, request: Request, out: &mut Vec<Effect>) {
        let answer = match request {
            Request::Restart(request) => match self.refuse_restart(&request) {
                Some(refusal) => Some(refusal),
                None => {
                    self.view.memory.wishes.restart = Some((id, request));
                    None
                }
            },
            Request::ScheduleRestart { at, request, text } => Some(self.schedule_restart(at, request, text)),
            Request::CancelScheduledRestart => Some(match self.view.memory.wishes.scheduled_restart.take() {
                Some(_) => Answer::Done("scheduled restart deleted".into()),
                None => Answer::NotFound("no restarts are scheduled".into()),
            }),
            Request::Reinitialize { force, from_leader } => Some(self.reinitialize(force, from_leader)),
            Request::Failsafe(question) => Some(Answer::Failsafe(self.judge_failsafe(question))),
        };
        self.again = true;
        if let Some(answer) = answer {
            out.push(Effect::Answer { id, answer });
        }
    }

    fn refuse_restart(&self, request: &crate::request::RestartRequest) -> Option<Answer> {
        if let Some(text) = self.busy() {
            return Some(Answer::Refused(text));
        }
        if self.view.memory.wishes.restart.is_some() {
            return Some(Answer::Refused("restart already in progress".into()));
        }
        if self.view.pg.facts().is_none() {
            return Some(Answer::Refused("postgres is still starting".into()));
        }
        let role = if self.view.pg.says_primary() {
            RestartRole::Primary
        } else {
            RestartRole::Standby
        };
        decide::restart_refusal(&self.view, request, role)
            .map(|_| Answer::Refused("restart conditions are not satisfied".into()))
    }

    fn schedule_restart(
        &mut self,
        at: crate::units::Wall,
        request: crate::request::RestartRequest,
        text: String,
    ) -> Answer {
        if self.view.settings().pause {
            return Answer::Impossible("Can't schedule restart in the paused state".into());
        }
        if self.view.memory.wishes.scheduled_restart.is_some() {
            return Answer::Conflict("Another restart is already scheduled".into());
        }
        let postmaster_start_time = self.view.pg.facts().map(|f| f.postmaster_start_time.clone());
        self.view.memory.wishes.scheduled_restart = Some(ScheduledRestart {
            at,
            request,
            text,
            postmaster_start_time,
        });
        Answer::Scheduled("Restart scheduled".into())
    }

    fn reinitialize(&mut self, force: bool, from_leader: bool) -> Answer {
        let leader = self.view.last_cluster().and_then(|c| c.leader_name()).cloned();
        match leader {
            None => return Answer::Refused("Cluster has no leader, can not reinitialize".into()),
            Some(name) if name == self.view.me.name => {
                return Answer::Refused("I am the leader, can not reinitialize".into());
            }
            Some(_) => {}
        }
        if let (Some(text), false) = (self.busy(), force) {
            return Answer::Refused(text);
        }
        self.view.memory.wishes.reinitialize = Some(Reinitialize {
            from_leader,
            force: force && self.view.memory.job.is_some(),
        });
        Answer::Done("reinitialize started".into())
    }

    /// Ends what was asked for and can never come true here any more. Otherwise it would come true at a time at which nobody
    /// thinks of it: a leader's copy removed as soon as it leads no more, a server restarted hours after the question.
    pub(super) fn end_void_wishes(&mut self, out: &mut Vec<Effect>) {
        if self.view.holds_leader_key() {
            // Taken, taken over, or found to be ours after all: a leader is never made anew.
            self.view.memory.wishes.reinitialize = None;
        }
        let is_down = matches!(self.view.pg.postmaster, Postmaster::NotRunning) && self.view.memory.job.is_none();
        if is_down && let Some((id, _)) = self.view.memory.wishes.restart.take() {
            let answer = Answer::Refused("restart failed: postgres is not running".into());
            out.push(Effect::Answer { id, answer });
        }
    }

    fn busy(&self) -> Option<String> {
        let job = self.view.memory.job.as_ref()?;
        Some(format!("{} already in progress", decide::describe(&job.job)))
    }

    /// The operator who asked for the restart that just ended learns how it ended.
    fn answer_running(&mut self, job: &Job, outcome: &JobOutcome, out: &mut Vec<Effect>) {
        if !matches!(job, Job::Restart { .. }) {
            return;
        }
        let Some((id, _)) = self.view.memory.wishes.restart.take() else {
            return;
        };
        let answer = match outcome {
            JobOutcome::Done | JobOutcome::Divergence(_) => Answer::Done("restarted successfully".into()),
            JobOutcome::Failed { reason, .. } => Answer::Refused(format!("restart failed: {reason}")),
            JobOutcome::Cancelled => Answer::Refused("restart failed".into()),
        };
        out.push(Effect::Answer { id, answer });
    }
}

/// Where the failures of a job are counted.
fn failure_slot<'a>(failures: &'a mut Failures, job: &Job) -> Option<&'a mut Option<Failure>> {
    Some(match job {
        Job::Bootstrap => &mut failures.bootstrap,
        Job::Clone { .. } | Job::DiscardDataDir { .. } => &mut failures.clone,
        Job::Start { .. } | Job::Restart { .. } | Job::Follow { .. } => &mut failures.start,
        Job::Stop { .. } => &mut failures.stop,
        Job::Promote => &mut failures.promote,
        Job::Rewind { .. } => &mut failures.rewind,
        Job::CheckDivergence { .. } | Job::CrashRecovery => &mut failures.divergence_check,
    })
}
