//! A real backend under test.

use std::sync::Arc;
use std::time::Duration;

use pgha_core::commit::CommitOutcome;
use pgha_core::units::{LeaseId, Revision};
use pgha_wire::kv::{Snapshot, Txn};

use super::Subject;
use crate::dcs::{Dcs, DcsFuture, KeepAlive};
use crate::hints::{Hint, WatchHints};

/// Budget of each call; far more than a healthy store needs.
const CALL_BUDGET: Duration = Duration::from_secs(5);

/// What an operator does to a real store, past the backend.
pub trait Operator: Send + Sync {
    /// Compacts away everything before a revision.
    fn compact(&self, revision: Revision) -> DcsFuture<'_, Result<(), String>>;
    /// Raises the alarm that the database is full, or disarms it.
    fn set_full(&self, full: bool) -> DcsFuture<'_, Result<(), String>>;
}

/// Wraps a backend; time passes by sleeping.
pub struct Live {
    dcs: Arc<dyn Dcs>,
    elsewhere: Arc<dyn Dcs>,
    operator: Arc<dyn Operator>,
    hints: Option<WatchHints>,
}

impl Live {
    /// Wraps a backend; `elsewhere` is a second client of the same store.
    pub fn new(dcs: Arc<dyn Dcs>, elsewhere: Arc<dyn Dcs>, operator: Arc<dyn Operator>) -> Live {
        Live {
            dcs,
            elsewhere,
            operator,
            hints: None,
        }
    }
}

impl Subject for Live {
    fn read<'a>(&'a mut self, prefix: &'a str) -> DcsFuture<'a, Result<Snapshot, String>> {
        Box::pin(async move {
            self.dcs
                .read(prefix, CALL_BUDGET)
                .await
                .map_err(|error| error.to_string())
        })
    }

    fn commit<'a>(&'a mut self, txn: &'a Txn) -> DcsFuture<'a, CommitOutcome> {
        self.dcs.commit(txn, CALL_BUDGET)
    }

    fn grant_lease(&mut self, ttl: Duration) -> DcsFuture<'_, Result<LeaseId, String>> {
        Box::pin(async move {
            self.dcs
                .grant_lease(ttl, CALL_BUDGET)
                .await
                .map_err(|error| error.to_string())
        })
    }

    fn keep_lease(&mut self, lease: LeaseId) -> DcsFuture<'_, Result<KeepAlive, String>> {
        Box::pin(async move {
            self.dcs
                .keep_lease(lease, CALL_BUDGET)
                .await
                .map_err(|error| error.to_string())
        })
    }

    fn revoke_lease(&mut self, lease: LeaseId) -> DcsFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.dcs
                .revoke_lease(lease, CALL_BUDGET)
                .await
                .map_err(|error| error.to_string())
        })
    }

    fn watch(&mut self, prefix: &str, after: Revision) {
        self.hints = Some(self.dcs.watch(prefix, after));
    }

    fn next_hint(&mut self, within: Duration) -> DcsFuture<'_, Option<Hint>> {
        Box::pin(async move {
            let hints = self.hints.as_mut()?;
            tokio::time::timeout(within, hints.next()).await.ok().flatten()
        })
    }

    fn pass(&mut self, time: Duration) -> DcsFuture<'_, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn read_elsewhere<'a>(&'a mut self, prefix: &'a str) -> DcsFuture<'a, Result<Snapshot, String>> {
        Box::pin(async move {
            self.elsewhere
                .read(prefix, CALL_BUDGET)
                .await
                .map_err(|error| error.to_string())
        })
    }

    fn compact(&mut self, revision: Revision) -> DcsFuture<'_, Result<(), String>> {
        self.operator.compact(revision)
    }

    fn set_full(&mut self, full: bool) -> DcsFuture<'_, Result<(), String>> {
        self.operator.set_full(full)
    }
}
