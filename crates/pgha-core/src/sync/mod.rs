//! Synchronous replication: what `/sync` claims, what `synchronous_standby_names` makes commits wait for, and how the two
//! change without a moment in which `/sync` names somebody who lacks an acknowledged commit.
//!
//! Priority mode is the quorum mode whose quorum is zero: a commit waits for `num` of some names, a candidate of `/sync`
//! has to see `quorum` others that are not ahead of it. One inequality ([`claim::holds`]) covers both, and each step of
//! [`plan::next`] keeps it with the old text and with the new one, since every process of PostgreSQL reads its
//! configuration in its own time.
//!
//! What PostgreSQL tells about itself is not believed before it is proven:
//! - That backends wait at all is a flag of the checkpointer's, which a long checkpoint keeps from reading its
//!   configuration, while pg_stat_replication says `sync` already. So the step from nothing to something goes over a name
//!   that nobody has, and one commit that is seen to wait ([`proof::Proof::waits`]).
//! - That a wal sender has read the new text is seen by the priority it shows. A text that would leave a priority as it is
//!   proves nothing, so another text of the same meaning is used, in which an impossible name stands first.
//! - That a new member holds all acknowledged commits is known when it has flushed what the primary had flushed after
//!   all of that was seen.
//!
//! A server that starts, or that follows somebody, always carries the impossible name. It acknowledges nothing when it is
//! promoted, until its agent has read `/sync` and knows what may be acknowledged.
//!
//! Absent on purpose: SQL, files, waiting. All memory of proofs may be lost; they are made again.

pub mod candidates;
pub mod claim;
mod defects;
pub mod heard;
pub mod names;
pub mod plan;
pub mod proof;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;

use crate::cluster::{ClusterView, Member, SyncKey};
use crate::pg::{SqlFacts, SqlRole};
use crate::settings::Settings;
use crate::units::{Lsn, MemberName, Mono};
use crate::view::{Memory, View};

/// What a step is planned from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The primary.
    pub me: &'a MemberName,
    /// `/sync` as read.
    pub key: Option<&'a SyncKey>,
    /// What is to be thought of it.
    pub trust: Trust,
    /// The mode.
    pub settings: &'a Settings,
    /// Member keys.
    pub members: &'a BTreeMap<MemberName, Arc<Member>>,
    /// Wal senders and the text in force.
    pub pg: &'a SqlFacts,
    /// The primary's flush position.
    pub flush: Lsn,
    /// Which standbys answer.
    pub heard: &'a heard::Heard,
    /// The time.
    pub now: Mono,
}

/// What a leader knows of `/sync` beside what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Trust {
    /// It stands as it was read until this leader writes it.
    #[default]
    Settled,
    /// A write of it has not been answered and may yet arrive. What it claims was true of the text it was planned from, so the
    /// text stays until another write has made it void.
    InDoubt,
    /// A restored etcd brought it: what was acknowledged since the snapshot, and whom commits waited for, it does not know.
    OfPast,
}

impl Trust {
    fn of(m: &Memory, cluster: &ClusterView) -> Trust {
        let now = Some(cluster.sync_revision());
        match (m.sync_of_past == now, m.sync_in_doubt == now) {
            (true, _) => Trust::OfPast,
            (false, true) => Trust::InDoubt,
            (false, false) => Trust::Settled,
        }
    }
}

/// What is to be done in PostgreSQL.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum SyncTask {
    /// Write this `synchronous_standby_names` and reload.
    SetNames(String),
    /// Commit something and watch it wait for a name that nobody has.
    Probe,
}

/// How a task ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncOutcome {
    /// The text is in force in a new session; the probe was seen to wait.
    Done,
    /// The probe was acknowledged although nobody has the name.
    Acknowledged,
    /// Nothing is known.
    Failed,
}

/// Was PostgreSQL looked at before the last task ended? What it showed then is not what is true now: from names that were
/// emptied since, the next text would be set without a probe, and commits be acknowledged before the flag is up again.
pub fn is_stale(v: &View) -> bool {
    v.pg.observed_at < v.memory.sync.since
}

/// The facts of a running primary that leads; `None` when there is nothing to plan for.
pub fn facts(v: &View) -> Option<Facts<'_>> {
    shown(v).filter(|_| !is_stale(v))
}

/// The next step of a running primary that leads; `None` when there is nothing to plan for.
pub fn next_step(v: &View) -> Option<plan::Step> {
    let f = facts(v)?;
    Some(defects::step(v, &f).unwrap_or_else(|| plan::next(&f, &v.memory.sync)))
}

/// As PostgreSQL showed itself last.
fn shown(v: &View) -> Option<Facts<'_>> {
    let cluster = v.cluster()?;
    let pg = v.pg.facts()?;
    let SqlRole::Primary { flush, .. } = pg.role else {
        return None;
    };
    // Maintenance mode has no proof to keep; the key is ours all the same.
    let proven = v.live_proof_of_key().is_some() || v.settings().pause;
    let leads = v.holds_leader_key() && proven && v.memory.job.is_none();
    (leads && !cluster.is_unreadable("sync")).then_some(Facts {
        me: &v.me.name,
        key: cluster.sync.as_ref(),
        trust: Trust::of(&v.memory, cluster),
        settings: v.settings(),
        members: &cluster.members,
        pg,
        flush,
        heard: &v.memory.heard,
        now: v.now.mono,
    })
}

/// What is to be done in PostgreSQL now, on a primary or a standby.
pub fn task(v: &View) -> Option<plan::Change> {
    if !v.settings().is_synchronous() || v.memory.job.is_some() || is_stale(v) {
        return None;
    }
    if v.pg.says_standby() {
        let loaded = &v.pg.facts()?.synchronous_standby_names;
        return (!blocks(loaded)).then(|| plan::Change {
            task: SyncTask::SetNames(names::NOBODY.into()),
            proof: None,
        });
    }
    match next_step(v)? {
        plan::Step::Task(change) => Some(change),
        plan::Step::Rest | plan::Step::Wait(_) | plan::Step::Write(_) | plan::Step::Delete => None,
    }
}

/// Strict mode, and nobody there to be waited for.
pub fn waits_for_standbys(v: &View) -> bool {
    let s = v.settings();
    let strict = s.is_synchronous() && s.synchronous_mode_strict;
    strict && shown(v).is_some_and(|f| candidates::target(&f).names.is_empty())
}

/// Would a server with this text, promoted now, acknowledge nothing?
pub fn blocks(loaded: &str) -> bool {
    names::parse(loaded).is_some_and(|n| n.acknowledges_nothing())
}
