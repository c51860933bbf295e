//! What every store must do, as named checks: for backends, and for models of them.
//!
//! The checks speak to a [`Subject`], which is smaller than [`Dcs`](crate::Dcs): it has no budgets, and time passes only
//! through [`Subject::pass`]. A real backend is wrapped in [`Live`], which sleeps. A model (the simulator's etcd)
//! implements `Subject` itself, advances its own clock, and returns futures that are ready at once, so any executor
//! runs them, a single poll included. The model and the backend then provably agree on everything that pgha relies on.
//!
//! Each check works below a prefix of its own, so they can run in any order, and most of them against a store in use
//! ([`Check::needs_the_store_alone`]).

mod checks;
mod live;

use std::fmt;
use std::time::Duration;

use pgha_core::commit::CommitOutcome;
use pgha_core::units::{LeaseId, Revision};
use pgha_wire::kv::{Snapshot, Txn};

pub use self::live::{Live, Operator};
use crate::dcs::{DcsFuture, KeepAlive};
use crate::hints::Hint;

/// Shortest lease that every etcd grants as asked; shorter ones are lengthened to it.
pub const SHORT_TTL: Duration = Duration::from_secs(2);
/// A lease is gone for certain so long after its ttl: etcd looks twice a second, and revokes in batches.
pub const EXPIRY_SLACK: Duration = Duration::from_secs(2);
/// A hint arrives within this.
pub const HINT_LIMIT: Duration = Duration::from_secs(5);

/// A store under test. Errors are texts for the report.
pub trait Subject: Send {
    /// As [`Dcs::read`](crate::Dcs::read).
    fn read<'a>(&'a mut self, prefix: &'a str) -> DcsFuture<'a, Result<Snapshot, String>>;
    /// As [`Dcs::commit`](crate::Dcs::commit).
    fn commit<'a>(&'a mut self, txn: &'a Txn) -> DcsFuture<'a, CommitOutcome>;
    /// As [`Dcs::grant_lease`](crate::Dcs::grant_lease).
    fn grant_lease(&mut self, ttl: Duration) -> DcsFuture<'_, Result<LeaseId, String>>;
    /// As [`Dcs::keep_lease`](crate::Dcs::keep_lease).
    fn keep_lease(&mut self, lease: LeaseId) -> DcsFuture<'_, Result<KeepAlive, String>>;
    /// As [`Dcs::revoke_lease`](crate::Dcs::revoke_lease).
    fn revoke_lease(&mut self, lease: LeaseId) -> DcsFuture<'_, Result<(), String>>;
    /// Begins a watch as [`Dcs::watch`](crate::Dcs::watch); replaces the one before.
    fn watch(&mut self, prefix: &str, after: Revision);
    /// The next hint of the watch, or `None` when none comes within the limit.
    fn next_hint(&mut self, within: Duration) -> DcsFuture<'_, Option<Hint>>;
    /// Lets time pass.
    fn pass(&mut self, time: Duration) -> DcsFuture<'_, ()>;
    /// Reads as another client does, through another member if there are several.
    fn read_elsewhere<'a>(&'a mut self, prefix: &'a str) -> DcsFuture<'a, Result<Snapshot, String>>;
    /// Compacts away everything before a revision, as an operator does.
    fn compact(&mut self, revision: Revision) -> DcsFuture<'_, Result<(), String>>;
    /// Raises the alarm that the database is full, or disarms it.
    fn set_full(&mut self, full: bool) -> DcsFuture<'_, Result<(), String>>;
}

/// A check; its name is a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// Two acquire one absent key: one gets it, the other is told of the conflict.
    AnAbsentKeyIsAcquiredOnce,
    /// A write guarded by create revision and lease succeeds only for the very holder (R1).
    AProofNeedsCreateRevisionAndLease,
    /// Deleted and created again by the same holder, a key no longer satisfies the old guard.
    ARecreatedKeyFailsTheOldProof,
    /// An overwrite keeps the create revision and moves the mod revision.
    AnOverwriteKeepsTheCreateRevision,
    /// A conflict writes nothing at all.
    AConflictWritesNothing,
    /// All writes of a transaction carry one revision.
    ATransactionHasOneRevision,
    /// Guards on the mod revision and on the value hold and fail as they should.
    ModRevisionAndValueAreCompared,
    /// A put without guards always succeeds.
    AnUnconditionalPutSucceeds,
    /// A prefix is read whole, sorted, without its neighbours, at a revision that covers all of it.
    APrefixIsReadAtOneRevision,
    /// A delete of a prefix leaves its neighbours.
    APrefixIsDeletedWithoutItsNeighbours,
    /// Empty and binary values come back as they were.
    ValuesAreKeptToTheByte,
    /// A lease that is not kept expires, and its keys go with it; others stay.
    ALeaseExpiresWithItsKeys,
    /// A lease that is kept outlives its ttl.
    AKeptLeaseLives,
    /// A revoked lease is gone at once, with its keys; to revoke it again is no error.
    ARevokedLeaseIsGone,
    /// A put on a lease that does not exist writes nothing and says so.
    APutOnAGoneLeaseWritesNothing,
    /// A key put on another lease, or on none, does not go with its old one.
    AReboundKeySurvivesItsOldLease,
    /// A change and a deletion are hinted at.
    AChangeIsHinted,
    /// A watch from a past revision tells what has changed since.
    AWatchTellsWhatItMissed,
    /// A key that goes with its lease is hinted at as deleted.
    AnExpiredKeyIsHinted,
    /// A lease that never was cannot be kept.
    AnUnknownLeaseIsGone,
    /// All guards of a transaction are judged at one revision, before its own writes.
    GuardsAreJudgedBeforeTheWrites,
    /// A transaction that names a key twice is refused whole.
    AKeyIsNotWrittenTwice,
    /// A transaction without any effect uses up no revision.
    NothingDoneIsNoRevision,
    /// What one client was told is written, another one reads through another member.
    AWriteIsSeenElsewhere,
    /// A watch from a revision that was compacted away says that it missed something, and goes on.
    ACompactedWatchSaysResync,
    /// A full store refuses puts and leases, serves reads, keeps leases and lets keys be deleted.
    AFullStoreStillReads,
}

impl Check {
    /// All checks.
    pub const ALL: [Check; 26] = [
        Check::AnAbsentKeyIsAcquiredOnce,
        Check::AProofNeedsCreateRevisionAndLease,
        Check::ARecreatedKeyFailsTheOldProof,
        Check::AnOverwriteKeepsTheCreateRevision,
        Check::AConflictWritesNothing,
        Check::ATransactionHasOneRevision,
        Check::ModRevisionAndValueAreCompared,
        Check::AnUnconditionalPutSucceeds,
        Check::APrefixIsReadAtOneRevision,
        Check::APrefixIsDeletedWithoutItsNeighbours,
        Check::ValuesAreKeptToTheByte,
        Check::ALeaseExpiresWithItsKeys,
        Check::AKeptLeaseLives,
        Check::ARevokedLeaseIsGone,
        Check::APutOnAGoneLeaseWritesNothing,
        Check::AReboundKeySurvivesItsOldLease,
        Check::AChangeIsHinted,
        Check::AWatchTellsWhatItMissed,
        Check::AnExpiredKeyIsHinted,
        Check::AnUnknownLeaseIsGone,
        Check::GuardsAreJudgedBeforeTheWrites,
        Check::AKeyIsNotWrittenTwice,
        Check::NothingDoneIsNoRevision,
        Check::AWriteIsSeenElsewhere,
        Check::ACompactedWatchSaysResync,
        Check::AFullStoreStillReads,
    ];

    /// Does it do something to the whole store, so that no other check may run meanwhile?
    pub fn needs_the_store_alone(self) -> bool {
        matches!(
            self,
            Check::NothingDoneIsNoRevision | Check::ACompactedWatchSaysResync | Check::AFullStoreStillReads
        )
    }

    /// Runs the check below `root`, a prefix without a slash at its end.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub async fn run(self, subject: &mut dyn Subject, root: &str) -> Result<(), String> {
        let prefix = format!("{root}/{self}/");
        checks::run(self, subject, &prefix).await
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Runs all checks and returns those that failed, each with its reason.
pub async fn failures(subject: &mut dyn Subject, root: &str) -> Vec<String> {
    let mut failures = Vec::new();
    for check in Check::ALL {
        if let Err(reason) = check.run(subject, root).await {
            failures.push(format!("{check}: {reason}"));
        }
    }
    failures
}
