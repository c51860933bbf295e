//! Writes to etcd as core sees them: typed guards and typed changes, one transaction each.
//!
//! A commit ends [`CommitOutcome::Applied`], `Conflict` or `Unknown`. Unknown (time-out after sending) is normal; it
//! is never treated as failure: the node reads again before it does anything else.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::cluster::{HistoryLine, MemberRole, MemberState};
use crate::pg::PendingRestart;
use crate::rewind::DivergedWal;
use crate::units::{LeaseId, Lsn, MemberName, Revision, SystemId, Timeline, Wall};

/// One transaction: all guards hold, or nothing is written.
#[derive(Clone, PartialEq, Debug)]
pub struct Commit {
    /// Why it is made; names it in logs and in the simulator's coverage.
    pub purpose: Purpose,
    /// Conditions.
    pub guards: Vec<Guard>,
    /// Changes, in order; each key at most once.
    pub changes: Vec<Change>,
}

/// What a commit is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The guarded write that proves leadership (R1).
    ProveLeadership,
    /// Take the leader key.
    AcquireLeaderKey,
    /// Give the leader key up, with the release marker.
    ReleaseLeaderKey,
    /// Publish the member key.
    TouchMember,
    /// Win the right to bootstrap.
    ClaimInitialize,
    /// Store the system identifier.
    StoreSystemId,
    /// Give the right to bootstrap back.
    CancelInitialize,
    /// First `/config`, or its restoration.
    StoreConfig,
    /// Clear or rewrite `/failover`.
    UpdateFailover,
    /// Append to `/history`.
    UpdateHistory,
    /// Change `/sync`.
    UpdateSync,
    /// Change `/failsafe`.
    UpdateFailsafe,
    /// Remove the own member key at the end.
    RemoveMember,
}

/// A condition of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Guard {
    /// The leader key is the very one we acquired, on our lease: the fencing token of R1 and R6.
    LeaderIsMine {
        /// Its create revision.
        create_revision: Revision,
        /// Its lease.
        lease: LeaseId,
    },
    /// The key does not exist.
    Absent(Key),
    /// The key's mod revision is this one.
    Unchanged(Key, Revision),
}

/// Keys of one scope.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Key {
    /// `leader`
    Leader,
    /// `members/<name>`
    Member(MemberName),
    /// `initialize`
    Initialize,
    /// `config`
    Config,
    /// `failover`
    Failover,
    /// `history`
    History,
    /// `status`
    Status,
    /// `sync`
    Sync,
    /// `failsafe`
    Failsafe,
}

/// One change.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// Put the leader key on a lease.
    PutLeader {
        /// Our name.
        name: MemberName,
        /// Our lease.
        lease: LeaseId,
    },
    /// Put the own member key on a lease.
    PutMember {
        /// Our name.
        name: MemberName,
        /// Our lease.
        lease: LeaseId,
        /// The value. Boxed: it is far larger than the others.
        value: alloc::boxed::Box<MemberValue>,
    },
    /// Put `/initialize`.
    PutInitialize {
        /// `None` is the empty text of a bootstrap in progress.
        system_id: Option<SystemId>,
        /// A bootstrap in progress hangs on the lease of who does it, so that it cannot block the cluster for ever.
        lease: Option<LeaseId>,
    },
    /// Put `/config` with this JSON text.
    PutConfig(String),
    /// Put `/failover`; `None` writes `{}`.
    PutFailover(Option<FailoverValue>),
    /// Put `/history`.
    PutHistory(Vec<HistoryLine>),
    /// Put `/status`.
    PutStatus(StatusValue),
    /// Put `/sync`.
    PutSync {
        /// Primary.
        leader: Option<MemberName>,
        /// Quorum, 0 in priority mode.
        quorum: u32,
        /// Names; written sorted.
        standbys: Vec<MemberName>,
    },
    /// Put `/failsafe`.
    PutFailsafe(BTreeMap<MemberName, String>),
    /// Delete a key.
    Delete(Key),
}

/// Value of `/status`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StatusValue {
    /// The leader's position.
    pub optime: Lsn,
    /// Slot name to LSN.
    pub slots: BTreeMap<String, Lsn>,
    /// Slots kept for absent members.
    pub retain_slots: Vec<String>,
    /// pgha's own field: who wrote it.
    pub writer: Option<MemberName>,
    /// pgha's own field: written in the transaction that gave the leader key up.
    pub released: bool,
}

/// Value of `/failover`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FailoverValue {
    /// Leader to depart from.
    pub leader: Option<MemberName>,
    /// Candidate.
    pub candidate: Option<MemberName>,
    /// When.
    pub scheduled_at: Option<Wall>,
}

/// Value of the own member key; field for field what Patroni writes.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct MemberValue {
    /// `state`
    pub state: MemberState,
    /// `role`
    pub role: MemberRole,
    /// `xlog_location`
    pub lsn: Option<Lsn>,
    /// `receive_lsn`
    pub receive_lsn: Option<Lsn>,
    /// `replay_lsn`
    pub replay_lsn: Option<Lsn>,
    /// `replication_state`
    pub replication_state: Option<String>,
    /// `timeline`
    pub timeline: Option<Timeline>,
    /// Writes `checkpoint_after_promote: false`.
    pub checkpoint_outstanding: bool,
    /// `pause`
    pub pause: bool,
    /// `pending_restart` and its reason.
    pub pending_restart: Vec<PendingRestart>,
    /// `scheduled_restart` as JSON text.
    pub scheduled_restart: Option<String>,
    /// `diverged_wal`, which Patroni does not know.
    pub diverged_wal: Option<DivergedWal>,
    /// Asks to be released from `/sync`: writes `nosync: true, sync_priority: 0` into the tags.
    pub release_from_sync: bool,
}

/// How a commit ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitOutcome {
    /// All guards held; it is written.
    Applied {
        /// Store revision of the transaction: mod revision (and create revision, if new) of the keys written.
        revision: Revision,
    },
    /// A guard did not hold; nothing is written.
    Conflict,
    /// No answer: it may or may not be written, now or in a moment.
    Unknown,
    /// etcd answered that the lease does not exist; nothing is written.
    LeaseGone,
    /// It was never sent, or etcd refused it for certain (no space, no permission); nothing is written.
    Refused,
}
