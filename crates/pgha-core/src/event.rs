//! What reaches the step machine: completions of effects, and reasons to wake up.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::cluster::ClusterView;
use crate::commit::{CommitOutcome, Key};
use crate::effect::FenceOrder;
use crate::failsafe::Reply;
use crate::job::{JobOutcome, JobProgress};
use crate::peer::PeerView;
use crate::pg::PgView;
use crate::request::{Request, RequestId};
use crate::sync::SyncOutcome;
use crate::units::{LeaseId, MemberName, Mono, Revision};
use crate::view::{NodeSpec, TimelineEnd, WatchdogView};

/// Ties a completion to its effect. Never reused within the life of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// One event. The driver guarantees: every effect with an [`OpId`] is completed exactly once, within its time-out.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Look again.
    Wake(Wake),
    /// `ReadDcs` ended.
    DcsRead {
        /// Which.
        op: OpId,
        /// Just before it was sent.
        sent_at: Mono,
        /// The view, or `None` when etcd could not be read in time.
        view: Option<Box<ClusterView>>,
    },
    /// `Observe` ended.
    Observed {
        /// Which.
        op: OpId,
        /// What was seen.
        view: Box<PgView>,
        /// The history file of the running primary's timeline; empty on timeline 1 and on standbys.
        timeline_history: Vec<TimelineEnd>,
    },
    /// `AskPeers` ended.
    PeersAnswered {
        /// Which.
        op: OpId,
        /// By name; everybody who was asked is in it.
        answers: BTreeMap<MemberName, PeerView>,
    },
    /// `AskFailsafe` ended.
    FailsafeAnswered {
        /// Which.
        op: OpId,
        /// By name; everybody who was asked is in it.
        replies: BTreeMap<MemberName, Reply>,
    },
    /// `GrantLease` ended.
    LeaseGranted {
        /// Which.
        op: OpId,
        /// Just before it was sent.
        sent_at: Mono,
        /// The lease, or `None` when etcd did not grant one in time.
        lease: Option<LeaseId>,
    },
    /// `KeepLease` ended.
    LeaseKept {
        /// Which.
        op: OpId,
        /// Just before it was sent.
        sent_at: Mono,
        /// What etcd answered. Never a proof of anything but `Gone`.
        answer: KeepAnswer,
    },
    /// `Commit` ended.
    Committed {
        /// Which.
        op: OpId,
        /// Just before it was sent.
        sent_at: Mono,
        /// How.
        outcome: CommitOutcome,
    },
    /// A running job has something to tell.
    JobProgress {
        /// Which.
        op: OpId,
        /// What.
        progress: JobProgress,
    },
    /// The job ended.
    JobEnded {
        /// Which.
        op: OpId,
        /// How.
        outcome: JobOutcome,
    },
    /// `Tend` ended; what failed is planned anew from the next observation.
    Tended {
        /// Which.
        op: OpId,
    },
    /// `TendSync` ended.
    SyncTended {
        /// Which.
        op: OpId,
        /// How.
        outcome: SyncOutcome,
    },
    /// An operator asks.
    Requested {
        /// For the answer.
        id: RequestId,
        /// What.
        request: Request,
    },
    /// The local configuration was read again.
    Reconfigured(Box<NodeSpec>),
    /// The fence's deadline passed: it killed PostgreSQL.
    FenceFired,
    /// A running fence was found at start: what it enforces. It stays in force until a proof replaces it.
    FenceAttached(FenceOrder),
    /// The fence process is gone; PostgreSQL goes with it by its parent-death signal. The driver starts a new one.
    FenceLost,
    /// State of the watchdog device changed.
    Watchdog(WatchdogView),
    /// Stop for good (SIGTERM).
    Terminate,
}

/// etcd's answer to a keepalive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeepAnswer {
    /// It answered with a positive ttl.
    Alive,
    /// It answered that there is no such lease.
    Gone,
    /// No answer in time.
    Unknown,
}

/// Why to look again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wake {
    /// `next_wake` has come.
    Timer,
    /// The watch told of a key. A hint only.
    Hint {
        /// Which key.
        key: Key,
        /// Revision of the change.
        mod_revision: Revision,
    },
    /// The watch was interrupted: anything may have changed.
    Resync,
    /// The postmaster exited.
    PostmasterExited,
    /// Somebody asked for a cycle now (a REST request wrote to etcd, for instance).
    Now,
}
