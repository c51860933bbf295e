//! What failsafe mode asks of the step machine: questions out and in, and what is known of the own writes of `/failsafe`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Node, Pending, Phase};
use crate::cluster::{DcsView, FailsafeKey};
use crate::commit::{Change, Commit, Guard, Key};
use crate::effect::Effect;
use crate::event::OpId;
use crate::failsafe::{self, InDoubt, Question, Reply, Verdict, Word};
use crate::units::{MemberName, Revision};

impl Node {
    /// Asks the members for leave to go on. The time allowed is half of what is left, so that a slow one can be asked again.
    pub(super) fn ask_failsafe(&mut self, who: &[MemberName], out: &mut Vec<Effect>) {
        let listed = failsafe::listed(&self.view).unwrap_or_default();
        let peers = listed.into_iter().filter(|(name, _)| who.contains(name)).collect();
        self.view.memory.failsafe.asked_at = Some(self.view.now.mono);
        let op = self.op();
        self.phase = Phase::Acting {
            op,
            what: Pending::Failsafe,
        };
        out.push(Effect::AskFailsafe {
            op,
            peers,
            question: failsafe::question(&self.view),
            budget: self.dcs_budget(),
        });
    }

    pub(super) fn failsafe_answered(&mut self, op: OpId, replies: BTreeMap<MemberName, Reply>, out: &mut Vec<Effect>) {
        if self.acting(op, |p| matches!(p, Pending::Failsafe)) {
            failsafe::fold(&mut self.view, replies);
            self.decide(out);
        }
    }

    /// A leader without etcd asks this node. What it says is bound by the answer from the moment it is given.
    pub(super) fn judge_failsafe(&mut self, question: Question) -> Verdict {
        let taking_key = match &self.phase {
            Phase::Acting { what, .. } => matches!(what, Pending::Acquire | Pending::TakeOver),
            Phase::Idle | Phase::Gathering { .. } | Phase::Upkeep { .. } => false,
        };
        let verdict = failsafe::judge(&self.view, &question, taking_key);
        if let Verdict::Accepted { .. } = verdict {
            let at = self.view.now.mono;
            let until = at.plus(failsafe::word_length(&self.view, &question));
            // A word that lasts longer, given when the ttl was longer, is not shortened by the next.
            let before = failsafe::word(&self.view).map(|word| word.until);
            self.view.memory.failsafe.word = Some(Word {
                leader: question.name,
                api_url: question.api_url,
                at,
                until: before.map_or(until, |before| before.max(until)),
                slots: question.slots,
            });
        }
        verdict
    }

    /// A write of `/failsafe` is on its way: until it is known how it ended, either list may be the one in etcd.
    pub(super) fn note_failsafe_write(&mut self, commit: &Commit) {
        let Some(change) = failsafe_change(commit) else { return };
        let base = commit.guards.iter().find_map(|guard| match guard {
            Guard::Unchanged(Key::Failsafe, revision) => Some(*revision),
            Guard::LeaderIsMine { .. } | Guard::Absent(_) | Guard::Unchanged(..) => None,
        });
        let doubt = self.view.memory.failsafe.in_doubt.get_or_insert(InDoubt {
            base,
            members: BTreeMap::new(),
            removal: false,
        });
        match change {
            Some(members) => doubt.members.extend(members.clone()),
            None => doubt.removal = true,
        }
    }

    /// It was applied: nothing is in doubt, and the view shows it, because it may be the last for a long time.
    pub(super) fn failsafe_written(&mut self, commit: &Commit, mod_revision: Revision) {
        let Some(change) = failsafe_change(commit) else { return };
        self.view.memory.failsafe.in_doubt = None;
        if let DcsView::Fresh(c) = &mut self.view.dcs {
            c.failsafe = change.map(|members| FailsafeKey {
                mod_revision,
                members: members.clone(),
            });
        }
    }
}

/// Does this commit change `/failsafe`, and to what? `Some(None)` takes the key away.
fn failsafe_change(commit: &Commit) -> Option<Option<&BTreeMap<MemberName, alloc::string::String>>> {
    commit.changes.iter().find_map(|change| match change {
        Change::PutFailsafe(members) => Some(Some(members)),
        Change::Delete(Key::Failsafe) => Some(None),
        Change::PutLeader { .. }
        | Change::PutMember { .. }
        | Change::PutInitialize { .. }
        | Change::PutConfig(_)
        | Change::PutFailover(_)
        | Change::PutHistory(_)
        | Change::PutStatus(_)
        | Change::PutSync { .. }
        | Change::Delete(_) => None,
    })
}
