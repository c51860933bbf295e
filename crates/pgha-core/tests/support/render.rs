//! Decisions and effects as short stable lines.

use pgha_core::commit::{Change, Commit, FailoverValue, Guard, Key, Purpose};
use pgha_core::decide::{Action, Decision};
use pgha_core::effect::{CallbackAction, CallbackRole, Effect, FenceOrder, Tend};
use pgha_core::failsafe::Verdict;
use pgha_core::request::Answer;
use pgha_core::sync::SyncTask;
use pgha_core::units::{MemberName, Mono};
use pgha_core::view::HandoverReason;

use super::jobs;
use super::world::START;

/// `905 LeadNoAction: rest; wake in 500 ms`
pub fn decision(d: &Decision, now: Mono) -> String {
    let wake = match d.wake_at {
        Some(at) => format!("; wake in {} ms", at.since(now).as_millis()),
        None => String::new(),
    };
    format!("{} {}: {}{wake}", d.rule.number(), d.rule.name(), action(&d.action))
}

fn action(action: &Action) -> String {
    match action {
        Action::Rest => "rest".into(),
        Action::LookAgain => "look again".into(),
        Action::HoldLeaderKey => "hold leader key".into(),
        Action::AcquireLeaderKey => "acquire leader key".into(),
        Action::TakeOverOwnKey => "take over own key".into(),
        Action::ReleaseLeaderKey { optime: None } => "release leader key".into(),
        Action::ReleaseLeaderKey { optime: Some(lsn) } => format!("release leader key at {lsn}"),
        Action::ClaimInitialize => "claim initialize".into(),
        Action::CancelInitialize => "cancel initialize".into(),
        Action::UpdateFailover(value) => format!("update failover: {}", failover(value.as_ref())),
        Action::AskPeers(names) => format!("ask {}", list(names)),
        Action::AskFailsafe(names) => format!("ask for leave to go on: {}", whom(names)),
        Action::HandOver { reason, candidate } => {
            let reason = match reason {
                HandoverReason::Switchover => "switchover",
                HandoverReason::ManualFailover => "manual failover",
                HandoverReason::Shutdown => "shutdown",
            };
            let whom = candidate.as_ref().map_or("whoever is fit", |name| name.as_str());
            format!("hand over ({reason}) to {whom}")
        }
        Action::AbortHandOver => "abort hand-over".into(),
        Action::Begin(job) => format!("begin {}", jobs::render(job)),
        Action::CancelJob => "cancel job".into(),
        Action::Exit { code, leave_running } => {
            format!(
                "exit {code}{}",
                if *leave_running {
                    ", leaving PostgreSQL as it is"
                } else {
                    ""
                }
            )
        }
    }
}

fn whom(names: &[MemberName]) -> String {
    if names.is_empty() { "nobody".into() } else { list(names) }
}

fn list(names: &[MemberName]) -> String {
    let names: Vec<&str> = names.iter().map(MemberName::as_str).collect();
    names.join(", ")
}

/// One effect.
pub fn effect(effect: &Effect) -> String {
    match effect {
        Effect::ReadDcs { .. } => "read etcd".into(),
        Effect::Observe { .. } => "observe".into(),
        Effect::AskPeers { peers, .. } => {
            let names: Vec<MemberName> = peers.iter().map(|(name, _)| name.clone()).collect();
            format!("ask {}", list(&names))
        }
        Effect::AskFailsafe { peers, question, .. } => {
            let names: Vec<MemberName> = peers.iter().map(|(name, _)| name.clone()).collect();
            let ttl_s = question.ttl.unwrap_or_default().as_secs();
            format!("ask for leave to go on for {ttl_s} s: {}", whom(&names))
        }
        Effect::GrantLease { ttl, .. } => format!("grant lease for {} s", ttl.as_secs()),
        Effect::KeepLease { lease, .. } => format!("keep lease {}", lease.0),
        Effect::Commit { commit: c, .. } => commit(c),
        Effect::SetFence(order) => fence(*order),
        Effect::Remember(known) => {
            let names: Vec<MemberName> = known.members.keys().cloned().collect();
            format!("remember {}", list(&names))
        }
        Effect::StartJob { job, .. } => format!("start job: {}", jobs::render(job)),
        Effect::CancelJob { .. } => "cancel job".into(),
        Effect::Tend { items, .. } => {
            let items: Vec<String> = items.iter().map(tend).collect();
            format!("tend: {}", items.join(", "))
        }
        Effect::TendSync { task, .. } => match task {
            SyncTask::SetNames(text) => {
                format!("sync: set names {text:?}").replace("__patroni_strict_sync_replica_placeholder__", "NOBODY")
            }
            SyncTask::Probe => "sync: probe".into(),
        },
        Effect::Callback { action, role } => format!("callback {} {}", callback(*action), callback_role(*role)),
        Effect::Answer { id, answer: a } => format!("answer {}: {}", id.0, answer(a)),
        Effect::Exit {
            code,
            reason,
            leave_running,
        } => {
            let leaving = if *leave_running {
                ", leaving PostgreSQL as it is"
            } else {
                ""
            };
            format!("exit {code}{leaving}: {reason}")
        }
    }
}

/// What the fence is told; times are since the beginning.
pub fn fence(order: FenceOrder) -> String {
    match order {
        FenceOrder::Until(at) => format!("fence until {} ms", clock(at)),
        FenceOrder::StandbyOnly => "fence standby only".into(),
        FenceOrder::Paused => "fence paused".into(),
    }
}

/// Milliseconds since the beginning of the scenario.
pub fn clock(at: Mono) -> u128 {
    at.since(START).as_millis()
}

fn commit(c: &Commit) -> String {
    let changes: Vec<String> = c.changes.iter().map(change).collect();
    let guards: Vec<String> = c.guards.iter().map(guard).collect();
    let condition = if guards.is_empty() {
        String::new()
    } else {
        format!(" if {}", guards.join(" and "))
    };
    format!("commit {}: {}{condition}", purpose(c.purpose), changes.join(", "))
}

/// Name of a purpose, as `run to` takes it.
pub fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::ProveLeadership => "ProveLeadership",
        Purpose::AcquireLeaderKey => "AcquireLeaderKey",
        Purpose::ReleaseLeaderKey => "ReleaseLeaderKey",
        Purpose::TouchMember => "TouchMember",
        Purpose::ClaimInitialize => "ClaimInitialize",
        Purpose::StoreSystemId => "StoreSystemId",
        Purpose::CancelInitialize => "CancelInitialize",
        Purpose::StoreConfig => "StoreConfig",
        Purpose::UpdateFailover => "UpdateFailover",
        Purpose::UpdateHistory => "UpdateHistory",
        Purpose::UpdateSync => "UpdateSync",
        Purpose::UpdateFailsafe => "UpdateFailsafe",
        Purpose::RemoveMember => "RemoveMember",
    }
}

fn guard(g: &Guard) -> String {
    match g {
        Guard::LeaderIsMine { create_revision, lease } => {
            format!("leader is mine ({} on lease {})", create_revision.0, lease.0)
        }
        Guard::Absent(k) => format!("no {}", key(k)),
        Guard::Unchanged(k, revision) => format!("{} still at {}", key(k), revision.0),
    }
}

fn key(k: &Key) -> String {
    match k {
        Key::Leader => "leader".into(),
        Key::Member(name) => format!("members/{name}"),
        Key::Initialize => "initialize".into(),
        Key::Config => "config".into(),
        Key::Failover => "failover".into(),
        Key::History => "history".into(),
        Key::Status => "status".into(),
        Key::Sync => "sync".into(),
        Key::Failsafe => "failsafe".into(),
    }
}

fn change(c: &Change) -> String {
    match c {
        Change::PutLeader { name, lease } => format!("put leader {name} on lease {}", lease.0),
        Change::PutMember { name, lease, value } => {
            let mut text = format!(
                "put members/{name} on lease {} {:?} {:?}",
                lease.0, value.state, value.role
            );
            if let (Some(timeline), Some(lsn)) = (value.timeline, value.lsn) {
                text.push_str(&format!(" {timeline}@{lsn}"));
            }
            for (set, word) in [
                (value.checkpoint_outstanding, " checkpoint_outstanding"),
                (value.pause, " pause"),
                (!value.pending_restart.is_empty(), " pending_restart"),
                (value.scheduled_restart.is_some(), " scheduled_restart"),
                (value.release_from_sync, " release_from_sync"),
            ] {
                text.push_str(if set { word } else { "" });
            }
            if let Some(wal) = value.diverged_wal {
                text.push_str(&format!(" diverged {wal}"));
            }
            text
        }
        Change::PutInitialize { system_id, lease } => {
            let value = system_id.map_or("empty".into(), |id| id.to_string());
            let on = lease.map(|l| format!(" on lease {}", l.0)).unwrap_or_default();
            format!("put initialize {value}{on}")
        }
        Change::PutConfig(text) => format!("put config {text}"),
        Change::PutFailover(value) => format!("put failover {}", failover(value.as_ref())),
        Change::PutHistory(lines) => {
            let lines: Vec<String> = lines
                .iter()
                .map(|l| {
                    let note = l.reason.split_once("; ").map(|(_, note)| format!(" ({note})"));
                    let note = note.unwrap_or_default();
                    format!("{}@{} {}{note}", l.timeline, l.switchpoint, l.new_leader)
                })
                .collect();
            format!("put history [{}]", lines.join("; "))
        }
        Change::PutStatus(s) => {
            let writer = s.writer.as_ref().map_or("nobody", MemberName::as_str);
            let released = if s.released { " released" } else { "" };
            let retained = match &s.retain_slots[..] {
                [] => String::new(),
                names => format!(" keeping slots {}", names.join(", ")),
            };
            format!("put status {} by {writer}{released}{retained}", s.optime)
        }
        Change::PutSync {
            leader,
            standbys,
            quorum,
        } => {
            let leader = leader.as_ref().map_or("nobody", MemberName::as_str);
            let votes = match quorum {
                0 => String::new(),
                n => format!(" and quorum {n}"),
            };
            match &standbys[..] {
                [] => format!("put sync {leader} alone{votes}"),
                names => format!("put sync {leader} with {}{votes}", list(names)),
            }
        }
        Change::PutFailsafe(members) => {
            let names: Vec<MemberName> = members.keys().cloned().collect();
            format!("put failsafe of {}", list(&names))
        }
        Change::Delete(k) => format!("delete {}", key(k)),
    }
}

fn failover(value: Option<&FailoverValue>) -> String {
    let Some(value) = value else { return "empty".into() };
    let name = |n: &Option<MemberName>| n.as_ref().map_or("nobody".into(), ToString::to_string);
    format!("from {} to {}", name(&value.leader), name(&value.candidate))
}

fn tend(item: &Tend) -> String {
    match item {
        Tend::CreateSlot(name) => format!("create slot {name}"),
        Tend::DropSlot(name) => format!("drop slot {name}"),
        Tend::AdvanceSlot(name, lsn) => format!("advance slot {name} to {lsn}"),
        Tend::Checkpoint => "checkpoint".into(),
        Tend::ApplyConfiguration => "apply configuration".into(),
    }
}

fn callback(action: CallbackAction) -> &'static str {
    match action {
        CallbackAction::OnStart => "on_start",
        CallbackAction::OnStop => "on_stop",
        CallbackAction::OnRestart => "on_restart",
        CallbackAction::OnReload => "on_reload",
        CallbackAction::OnRoleChange => "on_role_change",
    }
}

fn callback_role(role: CallbackRole) -> &'static str {
    match role {
        CallbackRole::Primary => "primary",
        CallbackRole::Replica => "replica",
        CallbackRole::StandbyLeader => "standby_leader",
        CallbackRole::Demoted => "demoted",
        CallbackRole::Uninitialized => "uninitialized",
    }
}

fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Done(text) => format!("done: {text}"),
        Answer::Scheduled(text) => format!("scheduled: {text}"),
        Answer::Conflict(text) => format!("conflict: {text}"),
        Answer::NotFound(text) => format!("not found: {text}"),
        Answer::Refused(text) => format!("refused: {text}"),
        Answer::Impossible(text) => format!("impossible: {text}"),
        Answer::Failsafe(verdict) => match verdict {
            Verdict::Accepted { lsn, dcs_read_ago } => {
                let lsn = lsn.map_or("position unknown".into(), |lsn| format!("at {lsn}"));
                let read = dcs_read_ago.map_or("without etcd".into(), |ago| {
                    format!("etcd read {} ms ago", ago.as_millis())
                });
                format!("go on ({lsn}, {read})")
            }
            Verdict::Off => "failsafe mode is off".into(),
            Verdict::RunsAsLeader => "runs as a leader".into(),
            Verdict::Refused(text) => format!("refused to let it go on: {text}"),
        },
    }
}
