//! Folds events into the view, and continues the cycle where it waits for one.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{MEMBER_HINT_PAUSE, Node, Pending, Phase};
use crate::cluster::{ClusterView, DcsView, Initialize, SyncKey};
use crate::commit::{Change, Commit, CommitOutcome, Key, Purpose};
use crate::effect::{Effect, FenceOrder};
use crate::event::{Event, KeepAnswer, OpId};
use crate::failsafe;
use crate::pg::{DataDir, PgView, SqlFacts, SqlRole};
use crate::plan;
use crate::planted::{Planted, planted};
use crate::race;
use crate::units::{LeaseId, Mono, Now, Revision};
use crate::view::{Divergence, LeaseMemory, Memory, Proof, ProofSight, Stall, TimelineEnd};

/// A scheduled restart is void when PostgreSQL was restarted meanwhile, or when its time has passed unused.
fn drop_passed_restart(m: &mut Memory, now: &Now, facts: Option<&SqlFacts>) {
    let Some(scheduled) = &m.wishes.scheduled_restart else {
        return;
    };
    let restarted = match (&scheduled.postmaster_start_time, facts) {
        (Some(then), Some(facts)) => *then != facts.postmaster_start_time,
        (Some(_) | None, _) => false,
    };
    let window = i64::try_from((m.settings.loop_wait * 2).as_micros()).unwrap_or(i64::MAX);
    if restarted || now.wall.0 > scheduled.at.0.saturating_add(window) {
        m.wishes.scheduled_restart = None;
    }
}

/// How long has a standby stood still without a stream? And as soon as it gets on, its WAL is not gone.
fn note_stall(m: &mut Memory, facts: Option<&SqlFacts>, now: Mono) {
    let Some(facts) = facts else { return };
    let at = facts.lsn().unwrap_or_default();
    m.stall = match &facts.role {
        SqlRole::Standby(standby) if !standby.is_streaming() => {
            let before = m.stall.filter(|stall| stall.at == at);
            Some(before.unwrap_or(Stall { since: now, at }))
        }
        SqlRole::Standby(_) | SqlRole::Primary { .. } => None,
    };
    if let Divergence::WalGone { at: end, .. } = &m.divergence
        && (m.stall.is_none() || at > *end)
    {
        m.divergence = Divergence::Unknown;
    }
}

impl Node {
    pub(super) fn fold(&mut self, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Wake(wake) => self.wake(&wake),
            Event::DcsRead { op, sent_at, view } => self.dcs_read(op, sent_at, view, out),
            Event::Observed {
                op,
                view,
                timeline_history,
            } => self.observed(op, *view, timeline_history, out),
            Event::PeersAnswered { op, answers } => {
                if self.acting(op, |p| matches!(p, Pending::Peers)) {
                    self.view.peers = answers;
                    self.view.memory.cycle.peers_asked = true;
                    self.note_overtaken_key();
                    self.decide(out);
                }
            }
            Event::FailsafeAnswered { op, replies } => self.failsafe_answered(op, replies, out),
            Event::LeaseGranted { op, sent_at, lease } => self.lease_granted(op, sent_at, lease, out),
            Event::LeaseKept { op, sent_at, answer } => self.lease_kept(op, sent_at, answer, out),
            Event::Committed { op, outcome, .. } => self.committed(op, outcome, out),
            Event::JobProgress { op, progress } => self.job_progress(op, progress),
            Event::JobEnded { op, outcome } => self.job_ended(op, outcome, out),
            Event::Tended { op } => self.tended(op),
            Event::SyncTended { op, outcome } => self.sync_tended(op, outcome),
            Event::Requested { id, request } => self.requested(id, request, out),
            Event::Reconfigured(me) => {
                self.view.me = *me;
                // The member key carries tags and addresses, and the files depend on both.
                self.view.memory.member_written = None;
                self.view.memory.config_applied = None;
                self.again = true;
            }
            Event::FenceAttached(order) => {
                self.view.memory.fence = Some(order);
                let guarded = matches!(order, FenceOrder::Until(_));
                self.view.memory.maybe_writable |= guarded;
                self.view.memory.loose_promotion |= guarded;
            }
            Event::FenceFired => {
                let m = &mut self.view.memory;
                m.proof = None;
                m.failsafe.grant = None;
                // A promotion or start under way may still act: its deadline, which has passed, stays until it ended.
                m.maybe_writable = m.job.as_ref().is_some_and(|j| plan::makes_writable(&j.job));
                self.again = true;
            }
            Event::FenceLost => {
                self.view.memory.fence = None;
                self.again = true;
            }
            Event::Watchdog(state) => self.view.memory.watchdog = state,
            Event::Terminate => {
                self.view.memory.terminating = true;
                self.again = true;
            }
        }
    }

    /// Is `op` what this cycle waits for?
    pub(super) fn acting(&self, op: OpId, is: impl Fn(&Pending) -> bool) -> bool {
        matches!(&self.phase, Phase::Acting { op: waiting, what } if *waiting == op && is(what))
    }

    // ---- etcd was read ----

    fn dcs_read(&mut self, op: OpId, sent_at: Mono, read: Option<Box<ClusterView>>, out: &mut Vec<Effect>) {
        let Phase::Gathering { read: waiting, observe } = &mut self.phase else {
            return;
        };
        if *waiting != Some(op) {
            return;
        }
        *waiting = None;
        let done = observe.is_none();
        match read {
            Some(cluster) => {
                self.view.memory.dcs_read_at = Some(sent_at);
                self.fresh(*cluster);
            }
            None => {
                let now = self.view.now.mono;
                self.view.memory.leaderless_since = None;
                self.view.dcs = match core::mem::replace(&mut self.view.dcs, DcsView::NotRead) {
                    DcsView::NotRead => DcsView::NotRead,
                    DcsView::Fresh(c) => DcsView::Unreachable {
                        since: now,
                        last: Some(Box::new(c)),
                    },
                    DcsView::Unreachable { since, last } => DcsView::Unreachable { since, last },
                };
            }
        }
        if done {
            self.gathered(out);
        }
    }

    fn fresh(&mut self, cluster: ClusterView) {
        let now = self.view.now.mono;
        self.note_replaced_store(&cluster, now);
        self.note_sight(&cluster, now);
        let me = &self.view.me.name;
        let m = &mut self.view.memory;
        m.known.note(me, &cluster, now);
        let leaderless = cluster.leader.is_none();
        m.leaderless_since = leaderless.then(|| m.leaderless_since.unwrap_or(now));
        failsafe::note_read(&mut m.failsafe, &cluster, now);
        if let Some(config) = &cluster.config {
            if config.settings.ttl < m.settings.ttl {
                m.longer_ttl = Some((m.settings.ttl, now.plus(m.settings.ttl)));
            }
            if m.settings.pause && !config.settings.pause {
                m.pause_lifted_at = Some(now);
            }
            m.settings = config.settings.clone();
        }
        let token = cluster.leader.as_ref().map(|l| l.create_revision);
        if token.is_some() && token != m.leader_seen {
            m.leader_seen = token;
            m.divergence = Divergence::Unknown;
            m.stall = None;
        }
        let other_leads = cluster.leader_name().is_some_and(|name| *name != self.view.me.name);
        if other_leads {
            m.handover = None;
            // Whatever was proven before, it was another key.
            m.proof = None;
            m.failsafe.grant = None;
            // Whoever leads now was not bound, so the word to a leader before it is over.
            m.failsafe
                .word
                .take_if(|word| cluster.leader_name() != Some(&word.leader));
        }
        let empty = matches!(cluster.initialize, Initialize::Absent) && cluster.leader.is_none();
        m.scope_empty_since = empty.then(|| m.scope_empty_since.unwrap_or(now));
        // A claim on our lease is ours, also when the answer to it was lost.
        m.bootstrap_claim = match (cluster.initialize, m.lease) {
            (Initialize::InProgress { mod_revision, lease }, Some(mine)) if lease == Some(mine.id) => {
                Some(mod_revision)
            }
            (Initialize::InProgress { .. }, _) => m.bootstrap_claim,
            (Initialize::Absent | Initialize::Done(_) | Initialize::Unreadable, _) => None,
        };
        crate::slots::note_wanted(&mut m.slot_last_wanted, me, &cluster, self.view.pg.facts(), now);
        self.view.dcs = DcsView::Fresh(cluster);
    }

    /// A restored or emptied etcd counts its revisions anew: what was seen of the old one is compared with nothing.
    fn note_replaced_store(&mut self, cluster: &ClusterView, now: Mono) {
        let before = self.view.last_cluster().map(|c| c.revision);
        if before.is_some_and(|before| cluster.revision < before) {
            self.view.memory.store_replaced_at = Some(now);
            self.view.memory.sight = None;
            self.view.memory.sync_of_past = Some(cluster.sync_revision());
        }
    }

    /// What a peer has said once counts for the key that carries our name, also when it has stopped meanwhile.
    fn note_overtaken_key(&mut self) {
        let key = self.view.cluster().and_then(|c| c.leader.as_ref());
        let own = key.filter(|l| l.name == self.view.me.name && self.view.live_proof_of_key().is_none());
        if let (Some(key), Some(_)) = (own, race::led_since(&self.view)) {
            self.view.memory.overtaken_key = Some(key.create_revision);
        }
    }

    /// R10: remembers when a new proof of any leader was first noticed.
    fn note_sight(&mut self, cluster: &ClusterView, now: Mono) {
        let status = cluster.status.as_ref();
        let revision = status
            .map(|s| s.mod_revision)
            .max(cluster.leader.as_ref().map(|l| l.mod_revision));
        let Some(revision) = revision else { return };
        let sight = &mut self.view.memory.sight;
        if sight.as_ref().is_some_and(|s| s.revision >= revision) {
            return;
        }
        let holder = cluster
            .leader_name()
            .or_else(|| status.and_then(|s| s.writer.as_ref()))
            .cloned();
        *sight = Some(ProofSight {
            revision,
            at: now,
            holder,
            witnessed: sight.is_some(),
        });
    }

    /// A watch event: a reason to look again, never more.
    pub(super) fn hint(&mut self, key: &Key, mod_revision: Revision) {
        let now = self.view.now.mono;
        // Every proof and every acquisition by pgha writes /status. A change of the leader key may be its deletion, which
        // is the very thing the wait is counted from and no sign of life.
        if matches!(key, Key::Status)
            && let Some(sight) = &mut self.view.memory.sight
            && mod_revision > sight.revision
        {
            *sight = ProofSight {
                revision: mod_revision,
                at: now,
                holder: None,
                witnessed: true,
            };
        }
        let newer = self.view.cluster().is_none_or(|c| mod_revision > c.revision);
        match key {
            // Our own writes come back as hints too; what was written in this view is no news.
            Key::Leader | Key::Failover | Key::Config | Key::Sync | Key::Initialize => self.again |= newer,
            // A standby notes the beat without looking; the leader wrote it itself.
            Key::Status | Key::History | Key::Failsafe => {}
            Key::Member(name) => {
                let rested = now.since(self.cycle_started) >= MEMBER_HINT_PAUSE;
                let waiting_for_members =
                    self.view.cluster().is_some_and(|c| c.leader.is_none()) || !self.view.pg.is_running();
                self.again |= newer && *name != self.view.me.name && (rested && waiting_for_members);
            }
        }
    }

    // ---- PostgreSQL was observed ----

    fn observed(&mut self, op: OpId, pg: PgView, timeline_history: Vec<TimelineEnd>, out: &mut Vec<Effect>) {
        let Phase::Gathering { read, observe: waiting } = &mut self.phase else {
            return;
        };
        if *waiting != Some(op) {
            return;
        }
        *waiting = None;
        let done = read.is_none();
        self.fold_observation(pg, timeline_history);
        if done {
            self.gathered(out);
        }
    }

    fn fold_observation(&mut self, pg: PgView, timeline_history: Vec<TimelineEnd>) {
        let now = self.view.now.mono;
        let m = &mut self.view.memory;
        // An observation begun before a job ended saw PostgreSQL as it was before.
        let current = pg.observed_at >= m.job_ended_at && m.job.is_none();
        let outdated = pg.observed_at < m.job_ended_at;
        // A promotion that nobody waits for goes on by itself: only the end of the server ends it.
        if current && (pg.says_primary() || !pg.is_running()) {
            m.loose_promotion = false;
        }
        if pg.says_primary() && !outdated {
            m.maybe_writable = true;
            m.primary_down_since = None;
            m.failures.start = None;
            if let (Some(control), Some(timeline)) = (pg.control(), pg.facts().and_then(|f| f.timeline()))
                && control.checkpoint_timeline == timeline
            {
                m.checkpoint_due = false;
            }
        } else if current && !m.loose_promotion && (pg.says_standby() || !pg.is_running()) {
            if m.maybe_writable && !pg.is_running() {
                m.primary_down_since.get_or_insert(now);
            }
            m.maybe_writable = false;
        }
        m.timeline_floor = m.timeline_floor.max(pg.facts().and_then(|f| f.timeline()));
        if !outdated {
            note_stall(m, pg.facts(), now);
        }
        if let (None, Some(facts)) = (m.told_role, pg.facts()) {
            // PostgreSQL was running when the daemon started: nothing changed, so nobody is told.
            m.told_role = Some(match facts.role {
                SqlRole::Primary { .. } => crate::effect::CallbackRole::Primary,
                SqlRole::Standby(_) => crate::effect::CallbackRole::Replica,
            });
        }
        if self.syncing.is_none() {
            m.sync.note(&pg);
        }
        m.heard.note(&pg);
        drop_passed_restart(m, &self.view.now, pg.facts());
        if matches!(pg.data_dir, DataDir::Empty) {
            m.timeline_floor = None;
        }
        self.view.pg = pg;
        self.view.timeline_history = timeline_history;
    }

    // ---- leases ----

    fn lease_granted(&mut self, op: OpId, sent_at: Mono, lease: Option<LeaseId>, out: &mut Vec<Effect>) {
        let Phase::Acting {
            op: waiting,
            what: Pending::Grant { ttl },
        } = &self.phase
        else {
            return;
        };
        if *waiting != op {
            return;
        }
        match lease {
            Some(id) => {
                self.view.memory.lease = Some(LeaseMemory {
                    id,
                    ttl: *ttl,
                    kept_at: sent_at,
                });
                self.view.memory.cycle.lease_kept = true;
            }
            None => self.view.memory.cycle.dcs_silent = true,
        }
        self.decide(out);
    }

    fn lease_kept(&mut self, op: OpId, sent_at: Mono, answer: KeepAnswer, out: &mut Vec<Effect>) {
        let for_proof = match &self.phase {
            Phase::Acting {
                op: waiting,
                what: Pending::Keep,
            } if *waiting == op => false,
            Phase::Acting {
                op: waiting,
                what: Pending::KeepForProof,
            } if *waiting == op => true,
            Phase::Idle | Phase::Gathering { .. } | Phase::Acting { .. } | Phase::Upkeep { .. } => return,
        };
        match answer {
            KeepAnswer::Alive => {
                if let Some(lease) = &mut self.view.memory.lease {
                    lease.kept_at = sent_at;
                }
                self.view.memory.cycle.lease_kept = true;
                if for_proof && planted(&self.view, Planted::KeepaliveIsProof) {
                    let revision = self.view.cluster().map_or(Revision(0), |c| c.revision);
                    self.proven(sent_at, revision);
                } else if for_proof {
                    return self.prove(sent_at, out);
                }
            }
            KeepAnswer::Gone => {
                self.view.memory.lease = None;
                if for_proof {
                    self.view.memory.cycle.refuted = true;
                } else {
                    let ttl = self.view.settings().ttl;
                    return self.grant_lease(out, ttl);
                }
            }
            KeepAnswer::Unknown => self.view.memory.cycle.dcs_silent = true,
        }
        self.decide(out);
    }

    fn prove(&mut self, kept_at: Mono, out: &mut Vec<Effect>) {
        match plan::prove(&self.view) {
            Some(commit) => self.commit(commit, Pending::Prove { kept_at }, out),
            None => {
                self.view.memory.cycle.refuted = true;
                self.decide(out);
            }
        }
    }

    // ---- commits ----

    fn committed(&mut self, op: OpId, outcome: CommitOutcome, out: &mut Vec<Effect>) {
        match core::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Acting { op: waiting, what } if waiting == op => {
                self.phase = Phase::Acting {
                    op,
                    what: Pending::Peers,
                };
                self.acted(what, outcome, out);
            }
            Phase::Upkeep {
                op: waiting,
                commit,
                queue,
            } if waiting == op => {
                if outcome == CommitOutcome::LeaseGone {
                    self.view.memory.lease = None;
                    self.again = true;
                }
                self.note_sync_in_doubt(&commit, outcome);
                match outcome {
                    CommitOutcome::Applied { revision } => {
                        if commit.purpose == Purpose::TouchMember {
                            let lease = self.view.memory.lease.map(|l| l.id);
                            self.view.memory.member_written = lease.map(|id| (id, plan::member_value(&self.view)));
                        }
                        self.sync_written(&commit, revision);
                        self.failsafe_written(&commit, revision);
                        self.next_upkeep(queue, out);
                    }
                    // Nothing is retried here: the next cycle reads what is true and plans anew.
                    CommitOutcome::Conflict
                    | CommitOutcome::Unknown
                    | CommitOutcome::LeaseGone
                    | CommitOutcome::Refused => {
                        self.end_cycle(out);
                    }
                }
            }
            other => self.phase = other,
        }
    }

    /// A write of `/sync` without an answer may be performed later, as long as its guard holds.
    fn note_sync_in_doubt(&mut self, commit: &Commit, outcome: CommitOutcome) {
        if commit.purpose == Purpose::UpdateSync && outcome == CommitOutcome::Unknown {
            self.view.memory.sync_in_doubt = self.view.cluster().map(ClusterView::sync_revision);
        }
    }

    /// `/sync` as it is now, so that the step which follows from it can be taken in the same cycle.
    fn sync_written(&mut self, commit: &Commit, revision: Revision) {
        let DcsView::Fresh(c) = &mut self.view.dcs else { return };
        for change in &commit.changes {
            match change {
                Change::PutSync {
                    leader,
                    quorum,
                    standbys,
                } => {
                    c.sync = Some(SyncKey {
                        mod_revision: revision,
                        leader: leader.clone(),
                        quorum: *quorum,
                        standbys: standbys.clone(),
                    });
                    self.view.memory.sync.polls = 0;
                }
                Change::Delete(Key::Sync) => c.sync = None,
                Change::PutLeader { .. }
                | Change::PutMember { .. }
                | Change::PutInitialize { .. }
                | Change::PutConfig(_)
                | Change::PutFailover(_)
                | Change::PutHistory(_)
                | Change::PutStatus(_)
                | Change::PutFailsafe(_)
                | Change::Delete(_) => {}
            }
        }
    }

    /// A commit that a decision asked for has ended.
    fn acted(&mut self, what: Pending, outcome: CommitOutcome, out: &mut Vec<Effect>) {
        if outcome == CommitOutcome::LeaseGone {
            self.view.memory.lease = None;
        }
        let applied = match outcome {
            CommitOutcome::Applied { revision } => Some(revision),
            CommitOutcome::Unknown if planted(&self.view, Planted::SilenceIsSuccess) => {
                self.view.cluster().map(|c| c.revision)
            }
            CommitOutcome::Conflict | CommitOutcome::Unknown | CommitOutcome::LeaseGone | CommitOutcome::Refused => {
                None
            }
        };
        // Unknown: it may be written, now or in a moment. Nothing is concluded; the next cycle reads.
        let silent = matches!(outcome, CommitOutcome::Unknown | CommitOutcome::Refused);
        self.view.memory.cycle.dcs_silent |= silent;
        match (what, applied) {
            (Pending::Prove { kept_at }, Some(revision)) => self.proven(kept_at, revision),
            (Pending::Prove { .. }, None) => self.view.memory.cycle.refuted |= !silent,
            (Pending::Acquire, Some(revision)) => self.acquired(revision),
            (Pending::Acquire, None) => {
                self.view.memory.cycle.lost_race = true;
                self.again |= outcome != CommitOutcome::Refused;
            }
            (Pending::TakeOver, Some(revision)) => self.took_over(revision),
            (Pending::TakeOver, None) => {
                self.view.memory.cycle.refuted = true;
                return self.end_cycle_and_look_soon(out);
            }
            (Pending::Release, Some(_)) => self.released(),
            (Pending::Release, None) => return self.end_cycle_and_look_soon(out),
            (Pending::Claim, Some(revision)) => {
                self.view.memory.bootstrap_claim = Some(revision);
                self.view.memory.failures.bootstrap = None;
                if let DcsView::Fresh(c) = &mut self.view.dcs {
                    let lease = self.view.memory.lease.map(|l| l.id);
                    c.initialize = Initialize::InProgress {
                        mod_revision: revision,
                        lease,
                    };
                }
            }
            (Pending::Claim, None) => self.view.memory.cycle.lost_claim = true,
            (Pending::CancelClaim, Some(_)) => {
                self.view.memory.bootstrap_claim = None;
                if let DcsView::Fresh(c) = &mut self.view.dcs {
                    c.initialize = Initialize::Absent;
                }
            }
            (Pending::CancelClaim, None) => return self.end_cycle_and_look_soon(out),
            (Pending::Failover, Some(_)) => {
                if let DcsView::Fresh(c) = &mut self.view.dcs {
                    c.failover = None;
                }
            }
            (Pending::Failover, None) => return self.end_cycle_and_look_soon(out),
            (Pending::Grant { .. } | Pending::Keep | Pending::KeepForProof | Pending::Peers | Pending::Failsafe, _) => {
            }
        }
        self.decide(out);
    }

    fn end_cycle_and_look_soon(&mut self, out: &mut Vec<Effect>) {
        if let Some(d) = &mut self.decision {
            d.wake_at = Some(self.view.now.mono.plus(crate::decide::POLL));
        }
        self.begin_upkeep(out);
    }

    fn proven(&mut self, kept_at: Mono, revision: Revision) {
        let Some(lease) = self.view.memory.lease else { return };
        let Some(leader) = self.view.cluster().and_then(|c| c.leader.as_ref()) else {
            return;
        };
        let ttl = lease.ttl.min(self.view.settings().ttl);
        let proof = Proof {
            create_revision: leader.create_revision,
            kept_at,
            revision,
            deadline: kept_at.plus(ttl).minus(ttl / 5),
        };
        self.view.memory.proof = Some(proof);
        // etcd has the word again; those of the members count no more.
        let m = &mut self.view.memory.failsafe;
        (m.grant, m.asked_at, m.alone_since, m.silences) = (None, None, None, 0);
        m.acks.clear();
        self.view.memory.cycle.proven = true;
        self.see_own_write(revision);
    }

    fn acquired(&mut self, revision: Revision) {
        let Some(lease) = self.view.memory.lease else { return };
        let key = plan::own_leader_key(&self.view, revision, revision, lease.id);
        self.view.memory.leader_seen = Some(revision);
        self.view.memory.cycle.acquired = true;
        self.view.memory.cycle.acquired_in_pause = self.view.settings().pause;
        self.view.memory.handover = None;
        self.view.memory.bootstrap_claim = None;
        self.see_own_write(revision);
        let system_id = self.view.pg.control().map(|c| c.system_id);
        if let DcsView::Fresh(c) = &mut self.view.dcs {
            c.leader = Some(key);
            c.failover = c.failover.take().filter(|w| w.scheduled_at.is_some());
            if let (Initialize::Absent | Initialize::InProgress { .. }, Some(id)) = (c.initialize, system_id) {
                c.initialize = Initialize::Done(id);
            }
        }
        // What was published was read before the key was ours; the promotion reads once more under its proof.
        self.again = true;
    }

    fn took_over(&mut self, revision: Revision) {
        let Some(lease) = self.view.memory.lease else { return };
        if let DcsView::Fresh(c) = &mut self.view.dcs
            && let Some(leader) = &mut c.leader
        {
            leader.lease = Some(lease.id);
            leader.mod_revision = revision;
        }
        let ttl = lease.ttl.min(self.view.settings().ttl);
        if let Some(proof) = &mut self.view.memory.proof {
            // The key ends with the new lease now, which may be the shorter one; age zero asks for a new proof at once.
            proof.deadline = proof.deadline.min(lease.kept_at.plus(ttl).minus(ttl / 5));
            proof.kept_at = Mono(0);
        }
    }

    fn released(&mut self) {
        let marked = plan::nobody_writes(&self.view);
        self.view.memory.proof = None;
        self.view.memory.failsafe.grant = None;
        let now = self.view.now.mono;
        if let Some(handover) = &mut self.view.memory.handover {
            handover.released_at = Some(now);
        }
        if let DcsView::Fresh(c) = &mut self.view.dcs {
            c.leader = None;
            if let Some(status) = &mut c.status {
                status.released = marked;
            }
        }
        self.again = true;
    }

    fn see_own_write(&mut self, revision: Revision) {
        let (at, holder) = (self.view.now.mono, Some(self.view.me.name.clone()));
        self.view.memory.sight = Some(ProofSight {
            revision,
            at,
            holder,
            witnessed: true,
        });
    }
}
