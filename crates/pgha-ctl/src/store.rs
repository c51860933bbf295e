//! etcd, as far as this program reads and writes it: no lease, no watch, every call within a bounded time.

use std::sync::Arc;

use pgha_core::commit::CommitOutcome;
use pgha_dcs::Dcs;
use pgha_wire::keys::{base_path, prefix};
use pgha_wire::kv::Txn;

use crate::cluster::Cluster;
use crate::error::CtlError;
use crate::limits::DCS_BUDGET;

/// The store.
pub struct Store {
    dcs: Arc<dyn Dcs>,
    namespace: String,
    tried: String,
}

impl Store {
    /// Clusters live below `namespace`; `tried` names the endpoints in errors.
    pub fn new(dcs: Arc<dyn Dcs>, namespace: String, tried: String) -> Store {
        Store { dcs, namespace, tried }
    }

    /// Reads a cluster; one that does not exist is an empty one.
    ///
    /// # Errors
    /// [`CtlError::Dcs`] after at most [`DCS_BUDGET`].
    pub async fn read(&self, scope: &str) -> Result<Cluster, CtlError> {
        let base = base_path(&self.namespace, scope);
        let snapshot = self
            .dcs
            .read(&prefix(&base), DCS_BUDGET)
            .await
            .map_err(|source| CtlError::Dcs {
                tried: self.tried.clone(),
                source,
            })?;
        Ok(Cluster::new(scope, base, snapshot))
    }

    /// Writes, at most once.
    pub async fn commit(&self, txn: &Txn) -> CommitOutcome {
        self.dcs.commit(txn, DCS_BUDGET).await
    }
}
