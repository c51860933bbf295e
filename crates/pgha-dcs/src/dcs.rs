//! What pgha needs of a store.
//!
//! The trait is object safe (`Arc<dyn Dcs>`): futures are boxed, one allocation per call is nothing beside a network
//! round trip.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use pgha_core::commit::CommitOutcome;
use pgha_core::units::{LeaseId, Revision};
use pgha_wire::kv::{Snapshot, Txn};

use crate::error::DcsError;
use crate::hints::WatchHints;

/// A boxed future of a [`Dcs`] call.
pub type DcsFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store with leases and transactions, as etcd v3 has them.
///
/// Every call ends within its `budget` (plus scheduling), whatever the network does. Futures may be dropped at any
/// point; a dropped [`Dcs::commit`] may still be applied.
pub trait Dcs: Send + Sync {
    /// Reads all keys below `prefix` at one revision, linearizably, in key order.
    ///
    /// # Errors
    /// Any [`DcsError`]; an answer that is older than one given before is dropped and becomes [`DcsError::Stale`].
    fn read<'a>(&'a self, prefix: &'a str, budget: Duration) -> DcsFuture<'a, Result<Snapshot, DcsError>>;

    /// Performs one transaction, at most once.
    ///
    /// `Unknown` is a normal outcome: the transaction may be applied, or may still be applied a moment later. It is
    /// never sent again by the backend once a member may have seen it; the caller reads before it acts.
    fn commit<'a>(&'a self, txn: &'a Txn, budget: Duration) -> DcsFuture<'a, CommitOutcome>;

    /// Asks for a lease that lives at least `ttl` (rounded up to seconds) after its last renewal.
    ///
    /// When this fails a lease may exist all the same; nothing is bound to it, and it ends by itself.
    ///
    /// # Errors
    /// Any [`DcsError`].
    fn grant_lease(&self, ttl: Duration, budget: Duration) -> DcsFuture<'_, Result<LeaseId, DcsError>>;

    /// Renews a lease. `Alive` proves nothing about the keys on it (rule R1): a guarded write must follow.
    ///
    /// # Errors
    /// Any [`DcsError`]; then the lease may have been renewed or not.
    fn keep_lease(&self, lease: LeaseId, budget: Duration) -> DcsFuture<'_, Result<KeepAlive, DcsError>>;

    /// Ends a lease and deletes the keys on it. A lease that does not exist any more is a success.
    ///
    /// # Errors
    /// Any [`DcsError`]; then the lease may have ended or not.
    fn revoke_lease(&self, lease: LeaseId, budget: Duration) -> DcsFuture<'_, Result<(), DcsError>>;

    /// Hints about changes below `prefix` after revision `after`; `Revision(0)` means from now on.
    ///
    /// Must be called inside a tokio runtime: a background task does the watching until the result is dropped.
    fn watch(&self, prefix: &str, after: Revision) -> WatchHints;

    /// What is known about the store, for status pages. Does no I/O.
    fn status(&self) -> DcsStatus;

    /// What an operator should know about the store: versions with known faults, a store that was replaced. Does no I/O.
    fn warnings(&self) -> Vec<String>;
}

/// Answer to [`Dcs::keep_lease`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeepAlive {
    /// The store says that the lease lives, for `ttl` from the renewal.
    Alive {
        /// Time to live of the lease as the store has it; positive.
        ttl: Duration,
    },
    /// The store says that there is no such lease.
    Gone,
}

/// State of the store as seen from here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DcsStatus {
    /// All endpoints, configured ones first.
    pub endpoints: Vec<EndpointStatus>,
    /// The endpoint that requests go to.
    pub current: Option<String>,
    /// Id of the store's cluster, once it has answered.
    pub cluster_id: Option<u64>,
    /// Highest raft term seen.
    pub raft_term: u64,
    /// Highest revision seen.
    pub revision: Revision,
    /// How often a replaced or restored store was accepted after its answers had been refused for a while.
    pub resets: u32,
    /// The trouble the last call ended with, if it did not succeed.
    pub last_error: Option<String>,
}

/// One endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointStatus {
    /// URL.
    pub url: String,
    /// From the configuration; otherwise discovered through the member list.
    pub configured: bool,
    /// Not avoided because of recent failures.
    pub usable: bool,
    /// Version of the member, if it was ever reached.
    pub version: Option<String>,
    /// Id of the member, if it was ever reached.
    pub member_id: Option<u64>,
}
