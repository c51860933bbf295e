//! Turns the action of a decision into effects.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Node, Pending, Phase};
use crate::commit::Commit;
use crate::decide::Action;
use crate::effect::Effect;
use crate::failsafe;
use crate::job::{Job, StopMode};
use crate::plan;
use crate::race;
use crate::units::MemberName;
use crate::view::{Handover, HandoverReason, WatchdogView};

impl Node {
    pub(super) fn perform(&mut self, action: Action, because: String, out: &mut Vec<Effect>) {
        match action {
            Action::Rest => self.begin_upkeep(out),
            Action::LookAgain => self.gather(out),
            Action::HoldLeaderKey => self.keep_lease(out, Pending::KeepForProof),
            Action::AcquireLeaderKey => {
                // The rules take the key only when no word stands against it, or when it was taken back.
                self.view.memory.failsafe.word = failsafe::word(&self.view).cloned();
                self.commit_or_rest(plan::acquire(&self.view), Pending::Acquire, out);
            }
            Action::TakeOverOwnKey => self.commit_or_rest(plan::take_over(&self.view), Pending::TakeOver, out),
            Action::ReleaseLeaderKey { optime } => {
                self.commit_or_rest(plan::release(&self.view, optime), Pending::Release, out);
            }
            Action::ClaimInitialize => self.commit_or_rest(plan::claim_initialize(&self.view), Pending::Claim, out),
            Action::CancelInitialize => {
                self.commit_or_rest(plan::cancel_initialize(&self.view), Pending::CancelClaim, out)
            }
            Action::UpdateFailover(value) => {
                self.commit_or_rest(plan::update_failover(&self.view, value), Pending::Failover, out);
            }
            Action::AskPeers(who) => self.ask_peers(&who, out),
            Action::AskFailsafe(who) => self.ask_failsafe(&who, out),
            Action::HandOver { reason, candidate } => self.hand_over(reason, candidate, out),
            Action::AbortHandOver => {
                self.view.memory.handover = None;
                match plan::update_failover(&self.view, None) {
                    Some(commit) => self.commit(commit, Pending::Failover, out),
                    None => self.decide(out),
                }
            }
            Action::Begin(job) => self.begin_job(job, out),
            Action::CancelJob => {
                if let Some(job) = &mut self.view.memory.job {
                    job.cancelled = true;
                    out.push(Effect::CancelJob { op: job.op });
                }
                self.begin_upkeep(out);
            }
            Action::Exit { code, leave_running } => {
                self.exiting = Some((code, because, leave_running));
                self.begin_upkeep(out);
            }
        }
    }

    fn commit_or_rest(&mut self, commit: Option<Commit>, what: Pending, out: &mut Vec<Effect>) {
        match commit {
            Some(commit) => self.commit(commit, what, out),
            // No lease yet, or the key went away meanwhile: the next cycle sees what is true.
            None => {
                if let Some(d) = &mut self.decision {
                    d.wake_at = Some(self.view.now.mono.plus(crate::decide::POLL));
                }
                self.begin_upkeep(out);
            }
        }
    }

    pub(super) fn commit(&mut self, commit: Commit, what: Pending, out: &mut Vec<Effect>) {
        let op = self.op();
        self.phase = Phase::Acting { op, what };
        out.push(Effect::Commit {
            op,
            commit,
            budget: self.dcs_budget(),
        });
    }

    pub(super) fn grant_lease(&mut self, out: &mut Vec<Effect>, ttl: Duration) {
        let op = self.op();
        self.phase = Phase::Acting {
            op,
            what: Pending::Grant { ttl },
        };
        out.push(Effect::GrantLease {
            op,
            ttl,
            budget: self.dcs_budget(),
        });
    }

    pub(super) fn keep_lease(&mut self, out: &mut Vec<Effect>, what: Pending) {
        let Some(lease) = self.view.memory.lease else {
            let ttl = self.view.settings().ttl;
            return self.grant_lease(out, ttl);
        };
        let op = self.op();
        self.phase = Phase::Acting { op, what };
        out.push(Effect::KeepLease {
            op,
            lease: lease.id,
            budget: self.dcs_budget(),
        });
    }

    fn ask_peers(&mut self, who: &[MemberName], out: &mut Vec<Effect>) {
        let peers: Vec<(MemberName, String)> = who
            .iter()
            .filter_map(|name| Some((name.clone(), race::address(&self.view, name)?)))
            .collect();
        let op = self.op();
        self.phase = Phase::Acting {
            op,
            what: Pending::Peers,
        };
        let budget = race::PEER_BUDGET.min(self.dcs_budget());
        out.push(Effect::AskPeers { op, peers, budget });
    }

    fn hand_over(&mut self, reason: HandoverReason, candidate: Option<MemberName>, out: &mut Vec<Effect>) {
        self.view.memory.handover = Some(Handover {
            reason,
            candidate,
            since: self.view.now.mono,
            checkpoint: None,
            released_at: None,
        });
        // A checkpoint beforehand shortens the stop, but clients write while it lasts, and without its watchdog nobody may.
        let guarded = !self.view.me.watchdog_required || self.view.memory.watchdog != WatchdogView::Failed;
        self.begin_job(
            Job::Stop {
                mode: StopMode::Fast,
                checkpoint_first: guarded,
            },
            out,
        );
    }
}
