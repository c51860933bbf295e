//! The last line of defence: refuses effects that no rule may ever cause. Always on, in production and in the simulator.

use alloc::string::String;

use crate::commit::{Change, Commit, Guard, Key, Purpose};
use crate::effect::{Effect, FenceOrder};
use crate::failsafe;
use crate::job::{Job, StartRole};
use crate::peer::PeerView;
use crate::planted::is_last_check_off;
use crate::sync::claim::{self, Claim};
use crate::sync::names;
use crate::units::MemberName;
use crate::view::View;

/// What was refused and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The broken invariant, by its name in the design (`S1`...).
    pub invariant: &'static str,
    /// In words.
    pub what: String,
}

/// Checks one effect against the view it came from.
pub fn check(v: &View, effect: &Effect) -> Result<(), Violation> {
    if is_last_check_off(v) {
        return Ok(());
    }
    match effect {
        Effect::StartJob { job, .. } => check_job(v, job),
        Effect::Commit { commit, .. } => check_commit(v, commit),
        Effect::ReadDcs { .. }
        | Effect::Observe { .. }
        | Effect::AskPeers { .. }
        | Effect::AskFailsafe { .. }
        | Effect::GrantLease { .. }
        | Effect::KeepLease { .. }
        | Effect::SetFence(_)
        | Effect::Remember(_)
        | Effect::CancelJob { .. }
        | Effect::Tend { .. }
        | Effect::TendSync { .. }
        | Effect::Callback { .. }
        | Effect::Answer { .. }
        | Effect::Exit { .. } => Ok(()),
    }
}

fn violation(invariant: &'static str, what: &str) -> Result<(), Violation> {
    Err(Violation {
        invariant,
        what: what.into(),
    })
}

fn check_job(v: &View, job: &Job) -> Result<(), Violation> {
    match job {
        Job::Promote => check_writable(v, "promotion"),
        Job::Start {
            role: StartRole::Primary,
            ..
        } => check_writable(v, "start as primary"),
        Job::Restart {
            role: StartRole::Primary,
            ..
        } if !v.settings().pause => check_writable(v, "restart as primary"),
        Job::DiscardDataDir { .. } => check_discard(v),
        Job::Rewind { source, .. } | Job::Clone { source } if source.name == v.me.name => {
            violation("S9", "a node must not copy from itself")
        }
        Job::Rewind { .. } if v.holds_leader_key() => violation("S9", "the leader's data directory is never rewound"),
        Job::Rewind { .. } | Job::Clone { .. } if v.pg.is_running() => {
            violation("S9", "a data directory with a live postmaster is never rewritten")
        }
        Job::Bootstrap if v.memory.bootstrap_claim.is_none() => {
            violation("S10", "initdb without the claim on /initialize")
        }
        Job::Bootstrap
        | Job::Clone { .. }
        | Job::Start { .. }
        | Job::Stop { .. }
        | Job::Restart { .. }
        | Job::Follow { .. }
        | Job::CheckDivergence { .. }
        | Job::CrashRecovery
        | Job::Rewind { .. } => Ok(()),
    }
}

/// S1, S3: a live proof of the very key that was read, read under the proof, and the fence armed with its deadline.
fn check_writable(v: &View, what: &str) -> Result<(), Violation> {
    let Some(proof) = v.live_proof() else {
        return violation("S1", &alloc::format!("{what} without a live proof of leadership"));
    };
    let Some(cluster) = v.cluster() else {
        return violation("S3", &alloc::format!("{what} without having read etcd in this cycle"));
    };
    let same_key = cluster
        .leader
        .as_ref()
        .is_some_and(|l| l.create_revision == proof.create_revision);
    if !v.holds_leader_key() || !same_key {
        return violation(
            "S1",
            &alloc::format!("{what} while the leader key that was proven is not the one that was read"),
        );
    }
    if what == "promotion" && cluster.revision < proof.revision {
        return violation("S3", "promotion on keys read before the proof");
    }
    if let Some(word) = failsafe::word(v) {
        let leader = &word.leader;
        return violation(
            "S1",
            &alloc::format!("{what} after {leader} was told that it may go on without etcd"),
        );
    }
    let armed = matches!(v.memory.fence, Some(FenceOrder::Until(at)) if Some(at) <= v.deadline())
        || (v.settings().pause && v.memory.fence == Some(FenceOrder::Paused));
    if !armed {
        return violation("S2", &alloc::format!("{what} before the fence holds the deadline"));
    }
    Ok(())
}

/// S9: another leader was seen alive as primary in this cycle, or what is removed never was part of the cluster.
fn check_discard(v: &View) -> Result<(), Violation> {
    if v.pg.is_running() {
        return violation("S9", "a data directory with a live postmaster is never removed");
    }
    if v.holds_leader_key() {
        return violation("S9", "the leader's data directory is never removed");
    }
    let never_part = matches!(
        v.pg.data_dir,
        crate::pg::DataDir::Unfinished {
            what: crate::pg::UnfinishedWork::Bootstrap | crate::pg::UnfinishedWork::Clone
        }
    );
    if never_part {
        return Ok(());
    }
    let leader = v
        .cluster()
        .and_then(|c| c.leader_name())
        .filter(|name| **name != v.me.name);
    let alive = leader.is_some_and(|name| {
        matches!(v.peers.get(name), Some(PeerView::Answered { status, .. }) if status.in_recovery == Some(false))
    });
    if alive {
        Ok(())
    } else {
        violation(
            "S9",
            "a data directory is removed only while another primary is seen alive",
        )
    }
}

/// S5: `/sync` gains a name, or asks for fewer votes, only after its text was read by every wal sender.
fn check_claim(v: &View, leader: Option<&MemberName>, quorum: u32, standbys: &[MemberName]) -> Result<(), Violation> {
    let new = Claim {
        leader: leader.cloned(),
        quorum,
        names: standbys.to_vec(),
    };
    if leader != Some(&v.me.name) {
        return violation("S5", "/sync is written in the name of another leader");
    }
    let before = v.cluster().and_then(|c| c.sync.as_ref()).map(Claim::of);
    let is_weaker = new.names.is_empty() || before.is_some_and(|b| claim::is_weaker(&b, &new));
    let text = v.pg.facts().map_or("", |f| f.synchronous_standby_names.trim());
    if !claim::holds(&new, &v.me.name, names::parse(text).as_ref()) {
        return violation(
            "S5",
            "/sync would claim what synchronous_standby_names does not ask for",
        );
    }
    if !is_weaker && v.memory.sync.mark(text).is_none() {
        return violation("S5", "/sync would claim more before PostgreSQL was seen to wait for it");
    }
    Ok(())
}

fn check_commit(v: &View, commit: &Commit) -> Result<(), Violation> {
    let guarded = commit.guards.iter().any(|g| matches!(g, Guard::LeaderIsMine { .. }));
    let takes = commit.purpose == Purpose::AcquireLeaderKey;
    let takes_free_key = takes && commit.guards.contains(&Guard::Absent(Key::Leader));
    for change in &commit.changes {
        match change {
            Change::Delete(Key::Leader) => {
                if !guarded {
                    return violation("R6", "the leader key is deleted without its fencing token");
                }
                if v.memory.maybe_writable && !v.settings().pause {
                    return violation(
                        "S1",
                        "the leader key is released while PostgreSQL may still accept writes",
                    );
                }
            }
            Change::Delete(Key::Failsafe) if !guarded => {
                return violation("R6", "/failsafe is removed without the leader guard");
            }
            Change::PutStatus(status) if status.released && failsafe::word(v).is_some() => {
                return violation(
                    "S1",
                    "a mark of release, although somebody was told that it may go on without etcd",
                );
            }
            Change::PutLeader { .. } if takes_free_key && failsafe::word(v).is_some() => {
                return violation(
                    "S1",
                    "the leader key is taken although somebody was told that it may go on without etcd",
                );
            }
            Change::PutStatus(_) | Change::PutHistory(_) | Change::PutSync { .. } | Change::PutFailsafe(_)
                if !guarded && !takes =>
            {
                return violation("R6", "a leader's write without the leader guard");
            }
            Change::PutSync {
                leader,
                quorum,
                standbys,
            } => check_claim(v, leader.as_ref(), *quorum, standbys)?,
            Change::PutLeader { .. } if commit.guards.is_empty() => {
                return violation("R6", "the leader key is written unconditionally");
            }
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
    Ok(())
}
