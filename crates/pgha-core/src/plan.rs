//! Turns decisions into commits, and plans the upkeep that follows a decision. Pure: view in, values out.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::cluster::{ClusterView, Initialize, LeaderKey, MemberRole, MemberState};
use crate::commit::{Change, Commit, FailoverValue, Guard, Key, MemberValue, Purpose, StatusValue};
use crate::effect::{CallbackRole, Tend};
use crate::failsafe;
use crate::history;
use crate::job::{Job, StartRole};
use crate::pg::{DataDir, Postmaster, PostmasterPhase, SqlFacts, SqlRole, SqlView};
use crate::slots;
use crate::sync::{self, plan::Step};
use crate::units::{LeaseId, Lsn};
use crate::view::{Proof, View};

/// How soon PostgreSQL is looked at again while a change of the synchronous standbys is on its way.
const SYNC_POLL: Duration = Duration::from_millis(50);
/// The same after [`SYNC_POLLS`] looks.
const SYNC_POLL_LATER: Duration = Duration::from_secs(1);
/// Looks in quick succession.
const SYNC_POLLS: u32 = 20;

/// The fencing token of the leader key as read, on our lease.
pub fn leader_guard(v: &View) -> Option<Guard> {
    let leader = v.cluster()?.leader.as_ref()?;
    let lease = v.memory.lease?.id;
    Some(Guard::LeaderIsMine {
        create_revision: leader.create_revision,
        lease,
    })
}

/// The guarded write that proves leadership: `/status`, which is due anyway.
pub fn prove(v: &View) -> Option<Commit> {
    Some(Commit {
        purpose: Purpose::ProveLeadership,
        guards: vec![leader_guard(v)?],
        changes: vec![Change::PutStatus(status_value(v, None, false))],
    })
}

/// Give the key up, as a rule with the release marker in the same transaction.
///
/// Guarded by `/status` as last written too: each proof rewrites it. A release whose answer was lost may arrive after the
/// node went on and proved its leadership again; the marker would then tell everybody not to wait for a leader that is
/// still writing.
pub fn release(v: &View, optime: Option<Lsn>) -> Option<Commit> {
    let mut guards = vec![leader_guard(v)?];
    guards.extend(status_guard(v));
    Some(Commit {
        purpose: Purpose::ReleaseLeaderKey,
        guards,
        changes: vec![
            Change::Delete(Key::Leader),
            Change::PutStatus(status_value(v, optime, nobody_writes(v))),
        ],
    })
}

/// What the mark of a release says. Whoever was told that it may go on without etcd writes, and a node that cannot prove the
/// key that carries its name does not know who led since: such a key may come from a snapshot.
pub(crate) fn nobody_writes(v: &View) -> bool {
    failsafe::word(v).is_none() && v.live_proof_of_key().is_some()
}

/// `/status` is as this node last read or wrote it. Garbage has no revision to compare with here.
fn status_guard(v: &View) -> Option<Guard> {
    let c = v.cluster()?;
    let key = c.leader.as_ref().map(|l| l.create_revision);
    let since_read = |p: &Proof| p.revision > c.revision && Some(p.create_revision) == key;
    if let Some(proof) = v.memory.proof.filter(since_read) {
        return Some(Guard::Unchanged(Key::Status, proof.revision));
    }
    match &c.status {
        Some(status) => Some(Guard::Unchanged(Key::Status, status.mod_revision)),
        None if c.is_unreadable("status") => None,
        None => Some(Guard::Absent(Key::Status)),
    }
}

/// Take the key. Guarded by everything the decision relied on, so that whoever led in between makes it fail.
pub fn acquire(v: &View) -> Option<Commit> {
    let c = v.cluster()?;
    let lease = v.memory.lease?.id;
    let mut guards = vec![Guard::Absent(Key::Leader)];
    let mut changes = vec![Change::PutLeader {
        name: v.me.name.clone(),
        lease,
    }];
    guards.extend(status_guard(v));
    if let Some(key) = &c.failsafe {
        guards.push(Guard::Unchanged(Key::Failsafe, key.mod_revision));
    }
    changes.push(Change::PutStatus(status_value(v, None, false)));
    found_cluster(v, c, &mut guards, &mut changes);
    if let Some(wish) = c.failover.as_ref().filter(|w| w.scheduled_at.is_none()) {
        guards.push(Guard::Unchanged(Key::Failover, wish.mod_revision));
        changes.push(Change::PutFailover(None));
    }
    Some(Commit {
        purpose: Purpose::AcquireLeaderKey,
        guards,
        changes,
    })
}

/// What the first leader writes beside its key: the system identifier and `/config`.
fn found_cluster(v: &View, c: &ClusterView, guards: &mut Vec<Guard>, changes: &mut Vec<Change>) {
    if let Some(control) = v.pg.control() {
        let put = Change::PutInitialize {
            system_id: Some(control.system_id),
            lease: None,
        };
        match (c.initialize, v.memory.bootstrap_claim) {
            (Initialize::InProgress { .. }, Some(claim)) => {
                guards.push(Guard::Unchanged(Key::Initialize, claim));
                changes.push(put);
            }
            (Initialize::Absent, _) => {
                guards.push(Guard::Absent(Key::Initialize));
                changes.push(put);
            }
            (Initialize::InProgress { .. } | Initialize::Done(_) | Initialize::Unreadable, _) => {}
        }
    }
    // A /config that cannot be understood is somebody's work: it stays, and the last good settings stay in force.
    if c.config.is_none() && !c.is_unreadable("config") {
        guards.push(Guard::Absent(Key::Config));
        changes.push(Change::PutConfig(first_config(v)));
    }
}

fn first_config(v: &View) -> String {
    // A cluster being founded takes bootstrap.dcs; a lost /config is restored as it was read last, else from the copy
    // that the agent found on disk when it began.
    let known = v.memory.known.config.clone().or_else(|| v.me.cached_config.clone());
    known
        .filter(|_| v.memory.bootstrap_claim.is_none())
        .unwrap_or_else(|| v.me.bootstrap_config.clone())
}

/// Put our own key, found on an older lease, on the present one.
pub fn take_over(v: &View) -> Option<Commit> {
    let leader = v.cluster()?.leader.as_ref()?;
    Some(Commit {
        purpose: Purpose::AcquireLeaderKey,
        guards: vec![Guard::Unchanged(Key::Leader, leader.mod_revision)],
        changes: vec![Change::PutLeader {
            name: v.me.name.clone(),
            lease: v.memory.lease?.id,
        }],
    })
}

/// Claim `/initialize`.
pub fn claim_initialize(v: &View) -> Option<Commit> {
    Some(Commit {
        purpose: Purpose::ClaimInitialize,
        guards: vec![Guard::Absent(Key::Initialize), Guard::Absent(Key::Leader)],
        changes: vec![Change::PutInitialize {
            system_id: None,
            lease: Some(v.memory.lease?.id),
        }],
    })
}

/// Give the claim back.
pub fn cancel_initialize(v: &View) -> Option<Commit> {
    Some(Commit {
        purpose: Purpose::CancelInitialize,
        guards: vec![Guard::Unchanged(Key::Initialize, v.memory.bootstrap_claim?)],
        changes: vec![Change::Delete(Key::Initialize)],
    })
}

/// Clear or rewrite `/failover`, unless somebody changed it.
pub fn update_failover(v: &View, value: Option<FailoverValue>) -> Option<Commit> {
    let wish = v.cluster()?.failover.as_ref()?;
    let mut guards = vec![Guard::Unchanged(Key::Failover, wish.mod_revision)];
    guards.extend(leader_guard(v));
    Some(Commit {
        purpose: Purpose::UpdateFailover,
        guards,
        changes: vec![Change::PutFailover(value)],
    })
}

fn status_value(v: &View, optime: Option<Lsn>, released: bool) -> StatusValue {
    let last = v.last_cluster().and_then(|c| c.status.as_ref());
    let running = v.pg.facts().filter(|_| v.memory.maybe_writable && v.pg.says_primary());
    let handed = v.memory.handover.as_ref().and_then(|h| h.checkpoint);
    let optime = optime
        .or(handed)
        .or_else(|| running.and_then(SqlFacts::lsn))
        .or_else(|| last.map(|s| s.optime))
        .unwrap_or(v.memory.known.optime);
    let slots = match running {
        Some(facts) => published_slots(v, facts, optime),
        None => last.map(|s| s.slots.clone()).unwrap_or_default(),
    };
    let retain_slots = match (running, v.last_cluster()) {
        (Some(facts), Some(c)) => retained_slots(v, c, facts),
        (Some(_), None) | (None, _) => last.map(|s| s.retain_slots.clone()).unwrap_or_default(),
    };
    // Patroni's list names the leader's own slot, too, which nobody has to keep for us.
    let own = slots::slot_name(&v.me.name);
    let retain_slots = retain_slots.into_iter().filter(|name| *name != own).collect();
    StatusValue {
        optime,
        slots,
        retain_slots,
        writer: Some(v.me.name.clone()),
        released,
    }
}

pub(crate) fn published_slots(v: &View, facts: &SqlFacts, optime: Lsn) -> BTreeMap<String, Lsn> {
    let mut slots: BTreeMap<String, Lsn> = facts
        .slots
        .iter()
        .filter(|(_, s)| !s.temporary)
        .filter_map(|(name, s)| Some((name.clone(), if s.logical { s.confirmed_flush? } else { s.restart? })))
        .collect();
    if v.settings().use_slots {
        slots.insert(slots::slot_name(&v.me.name), optime);
    }
    slots
}

fn retained_slots(v: &View, c: &ClusterView, facts: &SqlFacts) -> Vec<String> {
    let wanted = slots::wanted_slots(&v.me.name, c);
    let ttl = v.settings().member_slots_ttl;
    slots::retained(&v.memory.slot_last_wanted, &wanted, facts, ttl, v.now.mono)
}

/// Commits that keep etcd true, after the decision. Each is planned anew in each cycle, so none needs a retry.
pub fn upkeep(v: &View) -> Vec<Commit> {
    let mut plan = Vec::new();
    let Some(c) = v.cluster() else { return plan };
    plan.extend(update_sync(v, c));
    if let Some(touch) = touch_member(v) {
        plan.push(touch);
    }
    let leading = v.holds_leader_key() && v.live_proof().is_some() && v.pg.says_primary();
    if let (true, Some(guard)) = (leading, leader_guard(v)) {
        plan.extend(restore_lost_keys(v, c, &guard));
        plan.extend(failsafe::update(v, c, &guard));
        plan.extend(history::update(v, c, guard));
    }
    plan
}

/// `/sync`, when a claim is to be taken back or made. It goes first: commits may wait for it.
fn update_sync(v: &View, c: &ClusterView) -> Option<Commit> {
    let change = match sync::next_step(v)? {
        Step::Write(claim) => Change::PutSync {
            leader: claim.leader,
            quorum: claim.quorum,
            standbys: claim.names,
        },
        Step::Delete => Change::Delete(Key::Sync),
        Step::Rest | Step::Wait(_) | Step::Task(_) => return None,
    };
    let unchanged = match &c.sync {
        Some(key) => Guard::Unchanged(Key::Sync, key.mod_revision),
        None => Guard::Absent(Key::Sync),
    };
    Some(Commit {
        purpose: Purpose::UpdateSync,
        guards: vec![leader_guard(v)?, unchanged],
        changes: vec![change],
    })
}

/// How soon to look again while a change of the synchronous standbys is under way; `None` when none is.
pub fn sync_poll(v: &View) -> Option<Duration> {
    if sync::is_stale(v) {
        return Some(SYNC_POLL);
    }
    let under_way = match sync::next_step(v)? {
        Step::Wait(_) | Step::Write(_) | Step::Delete | Step::Task(_) => true,
        Step::Rest => false,
    };
    // What takes longer than that depends on a standby, and etcd is read with each look.
    let pause = if v.memory.sync.polls < SYNC_POLLS {
        SYNC_POLL
    } else {
        SYNC_POLL_LATER
    };
    under_way.then_some(pause)
}

fn touch_member(v: &View) -> Option<Commit> {
    let lease = v.memory.lease?.id;
    let value = member_value(v);
    let there = v
        .cluster()?
        .members
        .get(&v.me.name)
        .is_some_and(|m| m.lease == Some(lease));
    if there && v.memory.member_written.as_ref() == Some(&(lease, value.clone())) {
        return None;
    }
    Some(Commit {
        purpose: Purpose::TouchMember,
        guards: Vec::new(),
        changes: vec![Change::PutMember {
            name: v.me.name.clone(),
            lease,
            value: Box::new(value),
        }],
    })
}

fn restore_lost_keys(v: &View, c: &ClusterView, guard: &Guard) -> Option<Commit> {
    let mut guards = vec![guard.clone()];
    let mut changes = Vec::new();
    found_cluster(v, c, &mut guards, &mut changes);
    (!changes.is_empty()).then_some(Commit {
        purpose: Purpose::StoreConfig,
        guards,
        changes,
    })
}

/// Small upkeep inside PostgreSQL.
pub fn tend(v: &View) -> Vec<Tend> {
    let mut items = Vec::new();
    let Some(c) = v.cluster() else {
        return tend_without_etcd(v);
    };
    let on_disk = matches!(v.pg.data_dir, DataDir::Present(_));
    if on_disk
        && !is_bound_by_sync(v, c)
        && c.config
            .as_ref()
            .is_some_and(|k| v.memory.config_applied != Some(k.mod_revision))
    {
        items.push(Tend::ApplyConfiguration);
    }
    let Some(facts) = v.pg.facts() else { return items };
    let is_primary = v.pg.says_primary();
    if is_primary && v.memory.checkpoint_due {
        items.push(Tend::Checkpoint);
    }
    if is_primary || c.leader.is_some() {
        items.extend(slots::plan_slots(v, c, facts));
    }
    items
}

/// Synchronous mode was turned off, and `/sync` still promises what this primary acknowledges: the new configuration empties
/// synchronous_standby_names, so it waits until the key is gone.
fn is_bound_by_sync(v: &View, c: &ClusterView) -> bool {
    let promises = c.sync.as_ref().is_some_and(|key| !key.standbys.is_empty());
    promises && v.pg.says_primary() && !v.settings().is_synchronous()
}

/// In failsafe mode the leader itself tells how far its slots are.
fn tend_without_etcd(v: &View) -> Vec<Tend> {
    match (failsafe::word(v), v.pg.facts()) {
        (Some(word), Some(facts)) if v.settings().use_slots && !v.pg.says_primary() => {
            slots::plan_advances(&v.me.name, &word.slots, facts)
        }
        (Some(_) | None, _) => Vec::new(),
    }
}

/// The value of our member key.
pub fn member_value(v: &View) -> MemberValue {
    let facts = v.pg.facts();
    let state = member_state(v);
    let idle = v.memory.job.as_ref().is_none_or(|j| j.job == Job::Promote);
    let published = facts.filter(|_| {
        idle && matches!(
            state,
            MemberState::Running | MemberState::Restarting | MemberState::Starting
        )
    });
    let standby = published.and_then(|f| match &f.role {
        SqlRole::Standby(s) => Some(s),
        SqlRole::Primary { .. } => None,
    });
    MemberValue {
        state,
        role: member_role(v),
        lsn: published.and_then(SqlFacts::lsn),
        receive_lsn: standby.and_then(|s| s.received),
        replay_lsn: standby.and_then(|s| s.replayed),
        replication_state: standby.and_then(replication_state),
        timeline: published
            .and_then(SqlFacts::timeline)
            .max(v.memory.timeline_floor.filter(|_| published.is_some())),
        checkpoint_outstanding: v.memory.checkpoint_due && v.pg.says_primary(),
        pause: v.settings().pause,
        pending_restart: facts.map(|f| f.pending_restart.clone()).unwrap_or_default(),
        scheduled_restart: v.memory.wishes.scheduled_restart.as_ref().map(|s| s.text.clone()),
        diverged_wal: v.diverged_wal(),
        release_from_sync: asks_for_release(v),
    }
}

/// Does this member ask to be taken out of `/sync`? Its data are about to be away, for a while or for good.
pub fn asks_for_release(v: &View) -> bool {
    v.memory.terminating || (v.settings().is_synchronous() && v.memory.wishes.reinitialize.is_some())
}

/// `streaming`, `in archive recovery`, or nothing.
pub fn replication_state(s: &crate::pg::StandbyFacts) -> Option<String> {
    match &s.wal_receiver {
        Some(receiver) if receiver.status == "streaming" => Some("streaming".into()),
        Some(_) | None if s.has_restore_command => Some("in archive recovery".into()),
        Some(_) | None => None,
    }
}

/// Patroni's state word for what we see.
pub fn member_state(v: &View) -> MemberState {
    if let Some(running) = &v.memory.job {
        match &running.job {
            Job::Bootstrap => return MemberState::InitializingNewCluster,
            Job::Clone { .. } | Job::DiscardDataDir { .. } => return MemberState::CreatingReplica,
            Job::Start { .. } => return MemberState::Starting,
            Job::Stop { .. } => return MemberState::Stopping,
            Job::Restart { .. } => return MemberState::Restarting,
            Job::Promote
            | Job::Follow { .. }
            | Job::CheckDivergence { .. }
            | Job::CrashRecovery
            | Job::Rewind { .. } => {}
        }
    }
    match (&v.pg.postmaster, &v.pg.sql) {
        (Postmaster::Running { .. }, SqlView::Answered(_)) => MemberState::Running,
        (Postmaster::Running { phase, .. }, _) => match phase {
            PostmasterPhase::Starting => MemberState::Starting,
            PostmasterPhase::Stopping => MemberState::Stopping,
            PostmasterPhase::Ready | PostmasterPhase::Unknown => MemberState::Running,
        },
        (Postmaster::NotRunning | Postmaster::NotObserved, _) => {
            if v.memory.failures.start.is_some() {
                MemberState::StartFailed
            } else if v.memory.primary_down_since.is_some() {
                MemberState::Crashed
            } else {
                MemberState::Stopped
            }
        }
    }
}

/// Patroni's role word for what we see.
pub fn member_role(v: &View) -> MemberRole {
    if !matches!(v.pg.data_dir, DataDir::Present(_)) {
        return MemberRole::Uninitialized;
    }
    match v.pg.facts().map(|f| &f.role) {
        Some(SqlRole::Primary { .. }) => MemberRole::Primary,
        Some(SqlRole::Standby(_)) => MemberRole::Replica,
        None => match v.memory.told_role {
            Some(CallbackRole::Primary) if v.memory.maybe_writable => MemberRole::Primary,
            Some(CallbackRole::Primary | CallbackRole::Demoted) => MemberRole::Demoted,
            Some(CallbackRole::Replica | CallbackRole::StandbyLeader | CallbackRole::Uninitialized) | None => {
                MemberRole::Replica
            }
        },
    }
}

/// The role a job gives PostgreSQL, for callbacks; `None` when it gives it none.
pub fn role_after(job: &Job) -> Option<CallbackRole> {
    match job {
        Job::Promote => Some(CallbackRole::Primary),
        Job::Start { role, .. } | Job::Restart { role, .. } => Some(match role {
            StartRole::Primary => CallbackRole::Primary,
            StartRole::Standby { .. } => CallbackRole::Replica,
        }),
        Job::Bootstrap
        | Job::Clone { .. }
        | Job::Stop { .. }
        | Job::Follow { .. }
        | Job::CheckDivergence { .. }
        | Job::CrashRecovery
        | Job::Rewind { .. }
        | Job::DiscardDataDir { .. } => None,
    }
}

/// Does this job make PostgreSQL accept writes? Those that give it the role of primary do, and no other.
pub fn makes_writable(job: &Job) -> bool {
    role_after(job) == Some(CallbackRole::Primary)
}

/// Patroni's words for a job, as its REST answers use them.
pub fn describe_job(job: &Job) -> &'static str {
    crate::decide::describe(job)
}

/// The leader key as it stands after we took it.
pub fn own_leader_key(
    v: &View,
    create_revision: crate::units::Revision,
    revision: crate::units::Revision,
    lease: LeaseId,
) -> LeaderKey {
    LeaderKey {
        name: v.me.name.clone(),
        create_revision,
        mod_revision: revision,
        lease: Some(lease),
    }
}
