//! The step machine. The driver around it is the only asynchronous part.
//!
//! A cycle: gather (read etcd and observe PostgreSQL, in parallel), keep the lease, then decide and act until the
//! decision is to rest or to begin a job, then upkeep. Events that call for a new look while a cycle runs are
//! remembered and start the next one at once. Every effect that needs an answer has an [`OpId`], and nothing that is
//! in flight is repeated.
//!
//! Absent on purpose: retries (the next cycle plans anew from what is true then), clocks, and any knowledge of how an
//! effect is performed.

mod failsafe;
mod fold;
mod jobs;
mod perform;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::check::{Violation, check};
use crate::cluster::DcsView;
use crate::commit::Commit;
use crate::decide::{Action, Decision, POLL, decide};
use crate::effect::{Effect, FenceOrder};
use crate::event::{Event, OpId, Wake};
use crate::job::Job;
use crate::pg::DataDir;
use crate::plan;
use crate::planted::{Planted, planted};
use crate::race;
use crate::sync::{self, plan::Change};
use crate::units::{Mono, Now};
use crate::view::{CycleFacts, Handover, NodeSpec, View};

/// Decisions within one cycle before it is ended: a guard against two rules that answer each other for ever.
const MAX_STEPS: u32 = 20;
/// Least time for one look at PostgreSQL.
const MIN_BUDGET: Duration = Duration::from_millis(300);
/// Most time for one look at PostgreSQL, and for asking all peers.
const MAX_OBSERVE: Duration = Duration::from_secs(2);
/// How often member keys of others may start a cycle.
const MEMBER_HINT_PAUSE: Duration = Duration::from_secs(1);

/// The node. A clone is another future of the same past, which is what the model checks branch into.
#[derive(Clone, Debug)]
pub struct Node {
    view: View,
    phase: Phase,
    /// Another cycle is to follow the running one.
    again: bool,
    next_op: u64,
    cycle_started: Mono,
    cycle_ended: Mono,
    steps: u32,
    decision: Option<Decision>,
    decided_at: Mono,
    tending: Option<(OpId, bool)>,
    syncing: Option<(OpId, Change)>,
    exiting: Option<(i32, alloc::string::String, bool)>,
    violations: Vec<Violation>,
}

#[derive(Clone, Debug)]
enum Phase {
    Idle,
    Gathering {
        read: Option<OpId>,
        observe: Option<OpId>,
    },
    Acting {
        op: OpId,
        what: Pending,
    },
    Upkeep {
        op: OpId,
        commit: Commit,
        queue: VecDeque<Commit>,
    },
}

/// What an operation in flight was for.
#[derive(Clone, Debug)]
enum Pending {
    Grant {
        ttl: Duration,
    },
    /// Keepalive of the heartbeat.
    Keep,
    /// Keepalive that a proof shall follow.
    KeepForProof,
    Prove {
        kept_at: Mono,
    },
    Acquire,
    TakeOver,
    Release,
    Claim,
    CancelClaim,
    Failover,
    Peers,
    Failsafe,
}

impl Node {
    /// A node that knows nothing yet. Send it [`Wake::Now`] to begin.
    pub fn new(now: Now, me: NodeSpec) -> Node {
        Node {
            view: View::new(now, me),
            phase: Phase::Idle,
            again: false,
            next_op: 1,
            cycle_started: now.mono,
            cycle_ended: now.mono,
            steps: 0,
            decision: None,
            decided_at: now.mono,
            tending: None,
            syncing: None,
            exiting: None,
            violations: Vec::new(),
        }
    }

    #[cfg(feature = "planted-bugs")]
    pub(crate) fn view_mut(&mut self) -> &mut View {
        &mut self.view
    }

    /// The facts as they stand.
    pub fn view(&self) -> &View {
        &self.view
    }
    /// The last decision and when it was taken.
    pub fn last_decision(&self) -> Option<(&Decision, Mono)> {
        self.decision.as_ref().map(|d| (d, self.decided_at))
    }
    /// When the last complete cycle ended.
    pub fn last_cycle_ended(&self) -> Mono {
        self.cycle_ended
    }
    /// How long the last cycle took, or the running one has taken.
    pub fn cycle_started(&self) -> Mono {
        self.cycle_started
    }
    /// Effects that were refused; taken out by the caller, who reports them.
    pub fn take_violations(&mut self) -> Vec<Violation> {
        core::mem::take(&mut self.violations)
    }

    /// Folds one event in and returns what is to be done now, in order.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Effect> {
        self.view.now = now;
        let mut out = Vec::new();
        self.fold(event, &mut out);
        if matches!(self.phase, Phase::Idle) && self.again {
            self.start_cycle(&mut out);
        }
        self.order_fence(&mut out);
        self.refuse_violations(out)
    }

    /// When to send [`Wake::Timer`] if nothing else happens.
    pub fn next_wake(&self) -> Mono {
        let s = self.view.settings();
        if !matches!(self.phase, Phase::Idle) {
            // Every effect in flight is bounded and its completion goes on with the cycle; time alone changes nothing.
            return self.view.now.mono.plus(s.loop_wait);
        }
        let mut at = self.cycle_started.plus(s.loop_wait);
        let mut sooner = |other: Mono| at = at.min(other);
        if let Some(wake) = self.decision.as_ref().and_then(|d| d.wake_at) {
            sooner(wake);
        }
        if let (true, Some(deadline)) = (self.view.memory.maybe_writable, self.view.deadline()) {
            let demote_at = deadline.minus(s.demote_lead());
            if demote_at > self.view.now.mono {
                sooner(demote_at);
            }
        }
        at
    }

    fn op(&mut self) -> OpId {
        let op = OpId(self.next_op);
        self.next_op += 1;
        op
    }

    // ---- the cycle ----

    fn start_cycle(&mut self, out: &mut Vec<Effect>) {
        self.again = false;
        self.steps = 0;
        self.cycle_started = self.view.now.mono;
        let silent = self.view.memory.cycle.dcs_silent;
        let silences = &mut self.view.memory.failsafe.silences;
        *silences = silences.saturating_add(u32::from(silent));
        self.view.memory.cycle = CycleFacts::default();
        self.gather(out);
    }

    fn gather(&mut self, out: &mut Vec<Effect>) {
        if planted(&self.view, Planted::OldAnswersUsed) && !self.view.peers.is_empty() {
            self.view.memory.cycle.peers_asked = true;
        } else {
            self.view.peers.clear();
            self.view.memory.cycle.peers_asked = false;
        }
        self.view.memory.cycle.refuted = false;
        let (read, observe) = (self.op(), self.op());
        self.phase = Phase::Gathering {
            read: Some(read),
            observe: Some(observe),
        };
        out.push(Effect::ReadDcs {
            op: read,
            budget: self.dcs_budget(),
        });
        out.push(Effect::Observe {
            op: observe,
            budget: self.observe_budget(),
        });
    }

    /// Both halves are there: keep the lease if it is due, then decide.
    fn gathered(&mut self, out: &mut Vec<Effect>) {
        let s = self.view.settings().clone();
        if matches!(self.view.dcs, DcsView::Fresh(_)) && !self.view.memory.cycle.lease_kept {
            match self.view.memory.lease {
                None => return self.grant_lease(out, s.ttl),
                Some(lease) if lease.ttl != s.ttl => return self.grant_lease(out, s.ttl),
                Some(lease) => {
                    // The leader keeps its lease as part of the proof.
                    let due = self.view.now.mono.since(lease.kept_at) >= s.loop_wait / 10 * 9;
                    if due && !self.view.holds_leader_key() {
                        return self.keep_lease(out, Pending::Keep);
                    }
                }
            }
        }
        self.decide(out);
    }

    fn decide(&mut self, out: &mut Vec<Effect>) {
        self.steps += 1;
        // A job ended since PostgreSQL was observed: what was seen is not true any more.
        if self.view.memory.job.is_none() && self.view.pg.observed_at < self.view.memory.job_ended_at {
            return self.gather(out);
        }
        self.end_void_wishes(out);
        let decision = decide(&self.view);
        let action = decision.action.clone();
        let because = decision.because.clone();
        self.decision = Some(decision);
        self.decided_at = self.view.now.mono;
        if self.steps > MAX_STEPS && !matches!(action, Action::Rest | Action::Exit { .. }) {
            // Two rules answer each other: end the cycle and look at the world again.
            if let Some(d) = &mut self.decision {
                d.wake_at = Some(self.view.now.mono.plus(POLL));
            }
            return self.begin_upkeep(out);
        }
        self.perform(action, because, out);
    }

    fn begin_upkeep(&mut self, out: &mut Vec<Effect>) {
        let queue = VecDeque::from(plan::upkeep(&self.view));
        self.next_upkeep(queue, out);
    }

    fn next_upkeep(&mut self, mut queue: VecDeque<Commit>, out: &mut Vec<Effect>) {
        match queue.pop_front() {
            Some(commit) => {
                let op = self.op();
                self.note_failsafe_write(&commit);
                out.push(Effect::Commit {
                    op,
                    commit: commit.clone(),
                    budget: self.dcs_budget(),
                });
                self.phase = Phase::Upkeep { op, commit, queue };
            }
            None => self.end_cycle(out),
        }
    }

    fn end_cycle(&mut self, out: &mut Vec<Effect>) {
        if self.tending.is_none() && self.exiting.is_none() {
            let items = plan::tend(&self.view);
            if !items.is_empty() {
                let op = self.op();
                let configuration = items.contains(&crate::effect::Tend::ApplyConfiguration);
                let shows_later = configuration || items.contains(&crate::effect::Tend::Checkpoint);
                self.tending = Some((op, shows_later));
                if configuration {
                    self.view.memory.config_applied = self
                        .view
                        .cluster()
                        .and_then(|c| c.config.as_ref())
                        .map(|k| k.mod_revision);
                }
                out.push(Effect::Tend { op, items });
            }
        }
        self.tend_sync(out);
        self.remember(out);
        self.note_pause();
        self.phase = Phase::Idle;
        self.cycle_ended = self.view.now.mono;
        if let Some((code, reason, leave_running)) = self.exiting.take() {
            out.push(Effect::Exit {
                code,
                reason,
                leave_running,
            });
            self.again = false;
        }
    }

    /// For how long a primary in maintenance mode answers health checks as one counts from here.
    fn note_pause(&mut self) {
        let v = &mut self.view;
        let overtaken = v.cluster().is_none() && race::newer_primary(v).is_some();
        v.memory.pause_holds_at = (v.settings().pause && !overtaken).then_some(v.now.mono);
    }

    /// What another life of this daemon has to know goes to disk when it has changed.
    fn remember(&mut self, out: &mut Vec<Effect>) {
        let v = &mut self.view;
        if v.memory.job.is_some() || !matches!(v.pg.data_dir, DataDir::Present(_)) || v.memory.known.system_id.is_none()
        {
            return;
        }
        let known = &v.memory.known;
        if v.memory
            .known_kept
            .as_ref()
            .is_none_or(|kept| !known.keeps_the_same_as(kept))
        {
            out.push(Effect::Remember(Box::new(known.to_keep(&v.me.name, &v.me.api_url))));
            v.memory.known_kept = Some(known.clone());
        }
    }

    /// Begins what is due for synchronous replication, or looks again soon while something is waited for.
    fn tend_sync(&mut self, out: &mut Vec<Effect>) {
        if self.syncing.is_some() || self.exiting.is_some() {
            return;
        }
        if let Some(change) = sync::task(&self.view) {
            let op = self.op();
            let task = change.task.clone();
            self.syncing = Some((op, change));
            out.push(Effect::TendSync { op, task });
        } else if let (Some(pause), Some(d)) = (plan::sync_poll(&self.view), &mut self.decision) {
            let at = self.view.now.mono.plus(pause);
            d.wake_at = Some(d.wake_at.map_or(at, |other| other.min(at)));
        }
    }

    // ---- budgets ----

    /// Time for one call to etcd, at most `retry_timeout`. A leader uses half of what is left until PostgreSQL would
    /// have to be stopped, so that after a lost answer there is time to ask again.
    fn dcs_budget(&self) -> Duration {
        let s = self.view.settings();
        let left = match (self.view.memory.maybe_writable, self.view.deadline()) {
            (true, Some(deadline)) => deadline.minus(s.demote_lead()).since(self.view.now.mono) / 2,
            (true, None) | (false, _) => s.retry_timeout,
        };
        left.min(s.retry_timeout).max(MIN_BUDGET)
    }

    fn observe_budget(&self) -> Duration {
        (self.view.settings().ttl / 6).clamp(MIN_BUDGET, MAX_OBSERVE)
    }

    // ---- the fence ----

    /// What the fence must enforce now; `None` when what it was told last still holds.
    fn fence_order(&self) -> Option<FenceOrder> {
        let (m, now) = (&self.view.memory, self.view.now.mono);
        let deadline = self.view.deadline();
        if m.maybe_writable && self.view.settings().pause {
            return Some(FenceOrder::Paused);
        }
        if m.maybe_writable {
            return match (deadline, m.fence) {
                // Maintenance mode is over, and the cycle that heard of it may yet prove that nobody has taken over.
                (_, Some(FenceOrder::Paused))
                    if deadline.is_none_or(|at| at <= now) && !matches!(self.phase, Phase::Idle) =>
                {
                    None
                }
                (None, Some(FenceOrder::Paused)) => Some(FenceOrder::Until(now)),
                (Some(deadline), _) => Some(FenceOrder::Until(deadline)),
                // A primary found running: it has as long as a proof lasts to show that it leads.
                (None, None | Some(FenceOrder::StandbyOnly)) => {
                    Some(FenceOrder::Until(now.plus(self.view.settings().proof_lifetime())))
                }
                (None, Some(FenceOrder::Until(_))) => None,
            };
        }
        let idle = self.view.pg.says_standby() || !self.view.pg.is_running() || self.view.memory.job.is_some();
        idle.then_some(FenceOrder::StandbyOnly)
    }

    fn order_fence(&mut self, out: &mut Vec<Effect>) {
        let Some(order) = self.fence_order() else { return };
        if self.view.memory.fence != Some(order)
            && !matches!(self.view.pg.postmaster, crate::pg::Postmaster::NotObserved)
        {
            self.view.memory.fence = Some(order);
            out.push(Effect::SetFence(order));
        }
    }

    /// Begins a job; the fence is told first when the job makes PostgreSQL writable.
    fn begin_job(&mut self, job: Job, out: &mut Vec<Effect>) {
        let writable = plan::makes_writable(&job);
        let before = self.view.memory.maybe_writable;
        self.view.memory.maybe_writable = before || writable;
        self.order_fence(out);
        let op = self.op();
        let effect = Effect::StartJob { op, job: job.clone() };
        if let Err(violation) = check(&self.view, &effect) {
            self.view.memory.maybe_writable = before;
            self.violations.push(violation);
            return self.begin_upkeep(out);
        }
        // Once PostgreSQL does anything else, the shutdown checkpoint is not the end of what it has, and a plan that was
        // not carried out is over: its release would come from a server that may accept writes.
        let unreleased = |plan: &mut Handover| plan.released_at.is_none();
        if !matches!(job, Job::Stop { .. }) {
            self.view.memory.handover.take_if(unreleased);
        }
        self.view.memory.job = Some(crate::view::RunningJob {
            op,
            job,
            since: self.view.now.mono,
            copied: None,
            shut_down_at: None,
            step: None,
            cancelled: false,
        });
        out.push(effect);
        self.begin_upkeep(out);
    }

    fn refuse_violations(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut allowed = Vec::with_capacity(effects.len());
        for effect in effects {
            // Jobs were checked at their beginning, when the view was what the decision saw.
            let checked = if matches!(effect, Effect::StartJob { .. }) {
                Ok(())
            } else {
                check(&self.view, &effect)
            };
            match checked {
                Ok(()) => allowed.push(effect),
                Err(violation) => {
                    self.violations.push(violation);
                    self.phase = Phase::Idle;
                    if let Some(d) = &mut self.decision {
                        d.wake_at = Some(self.view.now.mono.plus(POLL));
                    }
                }
            }
        }
        allowed
    }

    fn wake(&mut self, wake: &Wake) {
        let now = self.view.now.mono;
        match wake {
            Wake::Timer => self.again |= now >= self.next_wake(),
            Wake::Now | Wake::Resync | Wake::PostmasterExited => self.again = true,
            Wake::Hint { key, mod_revision } => self.hint(key, *mod_revision),
        }
    }
}
