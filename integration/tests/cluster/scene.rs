//! A whole cluster with a client that writes and a probe that tries every node.

use std::time::Duration;

use anyhow::{Context, Result};
use pgha_integration::cluster::{BOOT_LIMIT, Cluster, ClusterSpec};
use pgha_integration::probe::WritabilityProbe;
use pgha_integration::workload::{Target, Workload};

/// Limit of a failover with the short timings of these tests, on a busy machine.
pub const FAILOVER_LIMIT: Duration = Duration::from_secs(40);
/// Limit until a cluster is whole again, a rewind or a new copy included.
pub const HEAL_LIMIT: Duration = Duration::from_secs(90);
/// The lease of these tests' clusters.
pub const TTL: Duration = Duration::from_secs(5);
/// The client's pause between two rows.
const PAUSE: Duration = Duration::from_millis(2);
/// Rows that the client has to have written before a fault, so that there is something to lose.
const ROWS_BEFORE: usize = 100;

/// The cluster and its watchers.
pub struct Scene {
    pub probe: WritabilityProbe,
    pub workload: Workload,
    pub cluster: Cluster,
    /// The primary at the start.
    pub first: usize,
}

impl Scene {
    /// Starts the cluster, lets the client write some rows.
    pub async fn start(spec: ClusterSpec) -> Result<Self> {
        Self::watch(spec.start().await?).await
    }

    /// The same with a cluster that runs and takes commits.
    pub async fn watch(cluster: Cluster) -> Result<Self> {
        let first = cluster.wait_whole(BOOT_LIMIT).await?;
        let probe = WritabilityProbe::start(&cluster).await?;
        let workload = Workload::start(&cluster, Target::Nodes(cluster.postgres_addrs()), PAUSE).await?;
        workload.wait_acked(ROWS_BEFORE, BOOT_LIMIT).await?;
        Ok(Self {
            probe,
            workload,
            cluster,
            first,
        })
    }

    /// Waits until a node other than the first primary has taken over and the client writes there.
    pub async fn wait_other_primary(&self) -> Result<usize> {
        let others = self.cluster.others(self.first);
        let new = self.cluster.wait_primary_among(&others, FAILOVER_LIMIT).await?;
        self.workload
            .wait_acked(ROWS_BEFORE, FAILOVER_LIMIT)
            .await
            .with_context(|| self.cluster.log_tails())?;
        Ok(new)
    }

    /// Waits until the cluster is whole and the client writes, then settles the account. Returns the primary.
    pub async fn finish(self) -> Result<usize> {
        let primary = self.cluster.wait_whole(HEAL_LIMIT).await?;
        self.account(primary).await?;
        self.probe.check()?;
        Ok(primary)
    }

    /// Waits until the client writes, holds it, and settles the account.
    pub async fn account(&self, primary: usize) -> Result<()> {
        self.workload
            .wait_acked(ROWS_BEFORE, FAILOVER_LIMIT)
            .await
            .with_context(|| self.cluster.log_tails())?;
        self.workload.hold().await?;
        self.workload
            .check_nothing_lost(self.cluster.node(primary)?.postgres)
            .await
    }
}
