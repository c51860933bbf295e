//! What the step machine wants done. The driver performs effects and turns each completion into an event.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::commit::Commit;
use crate::event::OpId;
use crate::failsafe::Question;
use crate::job::Job;
use crate::known::KnownCluster;
use crate::request::{Answer, RequestId};
use crate::sync::SyncTask;
use crate::units::{LeaseId, Lsn, MemberName, Mono};

/// One effect.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Read the whole prefix, linearizably, within the budget.
    ReadDcs {
        /// For the completion.
        op: OpId,
        /// Time allowed.
        budget: Duration,
    },
    /// Look at PostgreSQL.
    Observe {
        /// For the completion.
        op: OpId,
        /// Time allowed.
        budget: Duration,
    },
    /// `GET` the status of these members, in parallel.
    AskPeers {
        /// For the completion.
        op: OpId,
        /// Whom: name and `api_url`.
        peers: Vec<(MemberName, String)>,
        /// Time allowed for all of them together.
        budget: Duration,
    },
    /// `POST /failsafe` to these members, in parallel: may this leader go on without etcd?
    AskFailsafe {
        /// For the completion.
        op: OpId,
        /// Whom: name and `api_url`. Nobody, when no other member is listed.
        peers: Vec<(MemberName, String)>,
        /// What; the addressee is filled in for each of them.
        question: Question,
        /// Time allowed for all of them together.
        budget: Duration,
    },
    /// Ask etcd for a lease.
    GrantLease {
        /// For the completion.
        op: OpId,
        /// Time to live.
        ttl: Duration,
        /// Time allowed.
        budget: Duration,
    },
    /// Renew the lease.
    KeepLease {
        /// For the completion.
        op: OpId,
        /// Which.
        lease: LeaseId,
        /// Time allowed.
        budget: Duration,
    },
    /// One transaction.
    Commit {
        /// For the completion.
        op: OpId,
        /// What.
        commit: Commit,
        /// Time allowed.
        budget: Duration,
    },
    /// Tell the fence (and the watchdog) until when PostgreSQL may live. Performed before any effect that follows it.
    SetFence(FenceOrder),
    /// Begin a job.
    StartJob {
        /// For progress and completion.
        op: OpId,
        /// What.
        job: Job,
    },
    /// Stop the job if it has not passed its point of no return; it still ends with `JobEnded`.
    CancelJob {
        /// Which.
        op: OpId,
    },
    /// Small upkeep on the running PostgreSQL, beside jobs.
    Tend {
        /// For the completion.
        op: OpId,
        /// In this order.
        items: Vec<Tend>,
    },
    /// Change or probe what commits wait for, beside jobs and upkeep: a checkpoint there must not hold this up.
    TendSync {
        /// For the completion.
        op: OpId,
        /// What.
        task: SyncTask,
    },
    /// Put on disk, in the data directory, what the next life of this daemon is to know of the cluster. Nothing waits for it, and
    /// what cannot be written is written at the next change.
    Remember(Box<KnownCluster>),
    /// Run a callback script.
    Callback {
        /// Which.
        action: CallbackAction,
        /// Patroni's role word for its second argument.
        role: CallbackRole,
    },
    /// Answer an operator.
    Answer {
        /// Whom.
        id: RequestId,
        /// What.
        answer: Answer,
    },
    /// End the daemon.
    Exit {
        /// Exit code.
        code: i32,
        /// For the log.
        reason: String,
        /// Leave PostgreSQL and the fence running (pause).
        leave_running: bool,
    },
}

/// What the fence enforces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FenceOrder {
    /// PostgreSQL dies at this point in boot time unless a later one comes.
    Until(Mono),
    /// No deadline: PostgreSQL is a standby or not running, so there is nothing it could acknowledge.
    StandbyOnly,
    /// No deadline by the operator's will: maintenance mode.
    Paused,
}

/// Small upkeep.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tend {
    /// Create a physical slot that reserves WAL at once.
    CreateSlot(String),
    /// Drop a slot.
    DropSlot(String),
    /// Move an inactive slot forward.
    AdvanceSlot(String, Lsn),
    /// CHECKPOINT, so that standbys can be rewound from here.
    Checkpoint,
    /// Render the configuration files from the dynamic configuration just read, and reload if they changed.
    ApplyConfiguration,
}

/// Callback scripts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallbackAction {
    /// `on_start`
    OnStart,
    /// `on_stop`
    OnStop,
    /// `on_restart`
    OnRestart,
    /// `on_reload`
    OnReload,
    /// `on_role_change`
    OnRoleChange,
}

/// Role word handed to callbacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallbackRole {
    /// `primary`
    Primary,
    /// `replica`
    Replica,
    /// `standby_leader`
    StandbyLeader,
    /// `demoted`
    Demoted,
    /// `uninitialized`
    Uninitialized,
}
